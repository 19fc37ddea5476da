"""From a spec's `model` section to a module. Sizes are data, in spec/backbones.py."""

from __future__ import annotations

from c2ftool.models.ast import Ast
from c2ftool.models.backbone import PatchBackbone
from c2ftool.models.eat import Eat
from c2ftool.models.heads import ClipClassifier
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import Tokens


def build_backbone(model: Model, tokens: Tokens) -> PatchBackbone:
    """The backbone that the section names, for a phase's tokens; `initialise` sets its first weights."""
    size = BACKBONES[model.backbone]
    match size.family:
        case "eat":
            return Eat(size, tokens, model.drop_path)
        case "ast":
            return Ast(size, tokens, model.drop_path)
        case other:
            raise ValueError(f"backbone {size.name} is of unknown family {other!r}")


def build_eat(model: Model, tokens: Tokens) -> Eat:
    """The EAT encoder that the section names. Raises ValueError for another backbone."""
    built = build_backbone(model, tokens)
    if not isinstance(built, Eat):
        raise ValueError(f"{model.backbone} is no EAT encoder")
    return built


def build_classifier(model: Model, tokens: Tokens, classes: int) -> ClipClassifier:
    """The backbone with the section's clip head. Raises ValueError where the section has no head."""
    if model.head is None:
        raise ValueError("a classifier needs model.head")
    return ClipClassifier(build_backbone(model, tokens), model.head, classes)
