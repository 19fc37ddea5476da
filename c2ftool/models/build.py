"""From a spec's `model` section to a module. Sizes are data, in spec/backbones.py."""

from __future__ import annotations

from collections.abc import Sequence

from c2ftool.adapters.freeze import freeze
from c2ftool.adapters.insert import Adapter
from c2ftool.models.backbone import Backbone
from c2ftool.models.eat import Eat
from c2ftool.models.frames import FrameDetector, FrameHead, sequence_width
from c2ftool.models.heads import ClipClassifier
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.model import FrameHead as FrameHeadSpec
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import Tokens


def build_backbone(model: Model, tokens: Tokens, adapters: Sequence[Adapter] = ()) -> Backbone:
    """The backbone that the section names, for a phase's tokens, with adapters, frozen where the section says so.

    `initialise` sets its first weights. Raises ValueError for adapters on a network without blocks.
    """
    size = BACKBONES[model.backbone]
    backbone = family(size.family)(size, tokens, model.drop_path)
    backbone.adapt(adapters)
    freeze(backbone, model)
    return backbone


def family(name: str) -> type[Backbone]:
    """The class of a family; only that one is imported. Raises ValueError for an unknown name."""
    match name:
        case "eat":
            return Eat
        case "ast" | "ssast":  # SSAST is an AST that was pre-trained otherwise
            from c2ftool.models.ast import Ast

            return Ast
        case "htsat":
            from c2ftool.models.htsat import HtsAt

            return HtsAt
        case "beats":
            from c2ftool.models.beats import Beats

            return Beats
        case "atst":
            from c2ftool.models.atst import Atst

            return Atst
        case "fpasst":
            from c2ftool.models.fpasst import Fpasst

            return Fpasst
        case "m2d":
            from c2ftool.models.m2d import M2d

            return M2d
        case "asit":
            from c2ftool.models.asit import Asit

            return Asit
        case "cnn14":
            from c2ftool.models.cnn14 import Cnn14

            return Cnn14
    raise ValueError(f"unknown family of backbones {name!r}")


def build_eat(model: Model, tokens: Tokens) -> Eat:
    """The EAT encoder that the section names. Raises ValueError for another backbone."""
    built = build_backbone(model, tokens)
    if not isinstance(built, Eat):
        raise ValueError(f"{model.backbone} is no EAT encoder")
    return built


def build_detector(
    model: Model, tokens: Tokens, classes: int, frames: int, adapters: Sequence[Adapter] = ()
) -> FrameDetector:
    """The backbone with the section's frame head. Raises ValueError where the section has no such head.

    frames: label frames that an input covers.
    """
    spec = model.head
    if not isinstance(spec, FrameHeadSpec):
        raise ValueError("a detector needs model.head of kind frame")
    backbone = build_backbone(model, tokens, adapters)
    width = sequence_width(backbone, spec.sequence)
    recurrent = None if spec.recurrent is None else (spec.recurrent.layers, spec.recurrent.width)
    head = FrameHead(width, classes, frames, recurrent=recurrent, weak=spec.weak)
    return FrameDetector(backbone, head, spec.sequence)


def build_classifier(model: Model, tokens: Tokens, classes: int, adapters: Sequence[Adapter] = ()) -> ClipClassifier:
    """The backbone with the section's head. Raises ValueError where the section has no head."""
    if model.head is None:
        raise ValueError("a classifier needs model.head")
    return ClipClassifier(build_backbone(model, tokens, adapters), model.head, classes)
