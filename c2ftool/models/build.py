"""From a spec's `model` section to a module. Sizes are data, in spec/backbones.py."""

from __future__ import annotations

from c2ftool.models.eat import Eat
from c2ftool.models.heads import ClipClassifier
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import ResolvedFrontend


def build_backbone(model: Model, frontend: ResolvedFrontend) -> Eat:
    """The backbone that the section names, for the front end's mel bands; `initialise` sets its first weights."""
    size = BACKBONES[model.backbone]
    match size.family:
        case "eat":
            return Eat(size, frontend.mels, model.drop_path)
        case other:
            raise ValueError(f"backbone {size.name} is of unknown family {other!r}")


def build_classifier(model: Model, frontend: ResolvedFrontend, classes: int) -> ClipClassifier:
    """The backbone with the section's clip head. Raises ValueError where the section has no head."""
    if model.head is None:
        raise ValueError("a classifier needs model.head")
    return ClipClassifier(build_backbone(model, frontend), model.head, classes)
