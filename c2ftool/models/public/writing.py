"""Weights of ours as the file of a published layout: its content, and how that reads again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from c2ftool.models.public import asit, ast, atst, beats, cnn14, eat, fpasst, htsat, m2d, ssast
from c2ftool.models.public.account import Adapted, Pair, Report, State
from c2ftool.models.public.layouts import layout_of

# Families whose layout is that of the sound-event files, with heads of frames.
_SED = {"atst": atst.to_public, "fpasst": fpasst.to_public, "m2d": m2d.to_public, "asit": asit.to_public}
# Families whose layout has no place for such heads.
_OF_CLIPS = {"eat": "EAT", "ast": "AST", "ssast": "SSAST"}
WRITTEN = ("eat", "ast", "ssast", "htsat", "cnn14", "beats", *_SED)


@dataclass(frozen=True)
class Parts:
    """What is to be written. grid: (time, frequency) of the tokens that the weights are made for."""

    backbone: State
    head: State | None = None
    decoder: State | None = None
    teacher: State | None = None  # of the backbone
    grid: Pair | None = None


@dataclass(frozen=True)
class Written:
    """content: of the file, as torch saves it. report: how it reads again. notes: what was left out, in sentences."""

    content: dict[str, Any]
    report: Report
    notes: tuple[str, ...] = field(default=())


def published(family: str, parts: Parts) -> Written:
    """The parts in the family's layout. Raises KeyError for a tensor that is missing, ValueError for what cannot be."""
    head = parts.head or {}
    if "strong.weight" in head and family in _OF_CLIPS:
        raise ValueError(f"{_OF_CLIPS[family]}'s layout has a head of clips, and these weights have one of frames")
    match family:
        case "eat":
            model = eat.to_public(parts.backbone, head=parts.head, decoder=parts.decoder, teacher=parts.teacher)
            flat = {name: t for name, t in model.items() if name != "_ema"}
            flat |= {f"_ema.{name}": t for name, t in model.get("_ema", {}).items()}
            return Written({"args": None, "cfg": None, "model": model}, _read(flat).report)
        case "ast":
            if not head:
                raise ValueError("AST's layout has a head, and these weights have none")
            return _flat(ast.to_public(parts.backbone, head))
        case "ssast":
            return _flat(ssast.to_public(parts.backbone, parts.head, decoder=parts.decoder, grid=parts.grid))
        case "htsat":
            if "conv.weight" not in head:
                raise ValueError(
                    "HTS-AT's layout has a token-semantic head, and these weights have none; "
                    "train with head: {kind: token_semantic}"
                )
            state = htsat.to_public(parts.backbone, head, parts.grid or (256, 16))
            return Written({"state_dict": state}, _read(state).report)
        case "cnn14":
            if "fc.weight" not in head or "norm.weight" in head:
                raise ValueError("CNN14's layout has a linear head, and these weights have none")
            state = cnn14.to_public(parts.backbone, head)
            return Written({"model": state}, _read(state).report)
        case "beats":
            if "fc.weight" in head and "norm.weight" not in head:  # of clips, as Microsoft's fine-tuned files have it
                model = beats.to_public(parts.backbone, head, layout="original")
                content = {"cfg": beats.original_config(parts.backbone, head), "model": model}
                return Written(content, _read(model).report)
            kept, notes = _frame_heads(head)
            return _flat(beats.to_public(parts.backbone, kept), notes)
        case other if other in _SED:
            kept, notes = _frame_heads(head)
            return _flat(_SED[other](parts.backbone, kept), notes)
    raise ValueError(f"no layout of {family} is written")


def _frame_heads(head: State) -> tuple[State | None, tuple[str, ...]]:
    """(the heads that a sound-event file has, what is said of another)."""
    if not head or "strong.weight" in head:
        return head or None, ()
    return None, ("the layout has no place for this head, which is left out",)


def _flat(state: State, notes: tuple[str, ...] = ()) -> Written:
    return Written(dict(state), _read(state).report, notes)


def _read(state: Mapping[str, Tensor]) -> Adapted:
    layout = layout_of(state)
    if layout is None:
        raise ValueError("what would be written is not of a known layout")
    return layout.read(state)
