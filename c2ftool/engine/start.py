"""Putting starting weights (`model.weights`) into a student, and saying what became of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from c2ftool.adapters.files import recorded_items, require_form
from c2ftool.adapters.insert import item_of
from c2ftool.adapters.lora import merged_state, scales
from c2ftool.engine.boundary import start_rules
from c2ftool.errors import DataError, UsageError
from c2ftool.models.backbone import Backbone
from c2ftool.models.frames import FrameHead
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Change, Shape, Table, fit
from c2ftool.models.public.records import PUBLIC_WEIGHTS
from c2ftool.models.weights import Start, load_into, resolve_weights, starting_weights
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.backbones import Backbone as Size
from c2ftool.spec.compression import NoCompression, words
from c2ftool.spec.layout import compressed, strides
from c2ftool.spec.resolved import Resolved, ResolvedPhase, Tokens


@dataclass(frozen=True)
class Parent:
    """The weights a run started from. taken: the student's tensors that stay as they are there."""

    reference: str
    sha256: str
    taken: frozenset[str]


def load_start(student: nn.Module, resolved: Resolved, runs_root: Path, say: Callable[[str], None]) -> Parent | None:
    """Load `model.weights` into the student; None where it starts from random weights.

    The backbone must fit. A head is loaded where the file has one for the same classes, a decoder where both have one;
    otherwise they start afresh, and that is said. So is a front end that differs from the one the weights were made
    with. Raises MissingError or DataError.
    """
    reference = resolved.model.weights
    if reference is None:
        say("weights: random, from the seed")
        return None
    path = resolve_weights(reference, runs_root)
    assert isinstance(student.backbone, Backbone)
    size = student.backbone.size
    found = starting_weights(path, size.family, runs_root)
    start = _plain(found, resolved, reference, say)
    where = str(path) if reference.startswith("file:") else f"{reference} ({path})"
    _require_finite(start, where)
    _require_family(start, size, where)
    backbone, changes = _fitted(student.backbone, start, resolved, where)
    # images give fPaSST no stem; it keeps its first values
    fresh = ("stem.",) if (start.family, size.family) == ("deit", "fpasst") else ()
    adapters = tuple(name for name in student.backbone.state_dict() if item_of(name))  # they keep their first values
    allowed = _created(changes) + fresh + adapters
    if (frozen := resolved.model.freeze == "body") and (lost := _created(changes) + fresh):
        raise DataError(
            f"the weights have no {', '.join(lost)}, which would stay random in a frozen body",
            place=where,
            cure="Train the body (model.freeze: none), or start from weights that have them.",
        )
    loaded = load_into(student.backbone, backbone, where=where, allow_missing=allowed)
    if created := _created(changes):
        initialise(student, resolved.seed, only={f"backbone.{name}" for name in created})
    notes = [f"backbone of {reference}", *(["stem random"] if fresh else [])]
    if loaded.unexpected:
        notes.append(f"{len(loaded.unexpected)} tensors that the backbone has no place for left out")
    for part, state in (("head", start.head), ("decoder", start.decoder)):
        own = getattr(student, part, None)
        if own is None:
            continue
        # a decoder of patches of another size (SSAST under patch compression) predicts other pixels
        fits = _same_classes if part == "head" else _same_shapes
        other: tuple[str, ...] = ()
        if part == "head" and state is not None and start.record is None and _other_weak(state, own):
            state, other = {name: value for name, value in state.items() if not name.startswith("weak.")}, ("weak.",)
        wanted = state is not None and fits(state, start, own, resolved)
        if wanted and state is not None:
            load_into(own, state, where=where, allow_missing=other)
        by_number = " (of as many classes; a published file does not name them)" if start.record is None else ""
        if wanted:
            notes.append(f"its {part}{by_number if part == 'head' else ''}")
            notes += ["the layer for clips, of other classes, random"] if other else []
        elif part == "head" and start.family == "beats" and start.record is None and "fc.weight" in (state or {}):
            notes.append("head random (classes of published BEATs heads are in an order of their own)")
        else:
            notes.append(f"{part} random")
    say(f"weights: {', '.join(notes)} (sha256 {start.sha256[:12]})")
    if start.record is None:
        say(f"  {start.report}")
    for change in changes:
        say(f"  {change.name}: {change.what}")
    _compare_frontends(_frontend_of(reference, start), resolved, say)
    return Parent(reference, start.sha256, _taken(student.backbone, found) if frozen else frozenset())


def _taken(backbone: Backbone, found: Start) -> frozenset[str]:
    """The student's tensors that do not learn, depend on no token grid, and are those of the file to the bit.

    The last is looked at, not concluded: an update may have been merged into a layer.
    """
    learned = {name for name, p in backbone.named_parameters() if p.requires_grad}
    names = found.backbone.keys() - learned - backbone.sized.keys()
    own = {name: value for name, value in backbone.state_dict().items() if name in names}
    return frozenset(f"backbone.{n}" for n, v in own.items() if torch.equal(v.cpu(), found.backbone[n].to(v.dtype)))


def _plain(start: Start, resolved: Resolved, where: str, say: Callable[[str], None]) -> Start:
    """The weights without adapters that the run has not: low-rank updates are merged into them.

    Raises DataError for adapters that cannot be merged, and for those of the run's names but of another form.
    """
    theirs = recorded_items((start.record or {}).get("adapters", []))
    ours = {item.name: item for item in resolved.adapters}
    for name, item in theirs.items():
        if name in ours:
            require_form(item, ours[name], resolved.model.backbone, where)
            say(f"weights: adapter {name} of {where} goes on")
    items = {str(item_of(name)) for name in start.backbone if item_of(name)} - ours.keys()
    if not items:
        return start
    try:
        merged = merged_state(start.backbone, scales((start.record or {}).get("adapters", [])), items)
    except ValueError as fault:
        raise DataError(
            f"the weights have adapters that this spec has not: {fault}",
            place=where,
            cure="Give the same `adapters`, or start from the weights that they stand on.",
        ) from None
    say(f"weights: the updates {', '.join(sorted(items))} of {where} are merged into them")
    return replace(start, backbone=merged)


def _require_finite(start: Start, where: str) -> None:
    for name, value in start.backbone.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise DataError(
                f"the weights are not finite: {name}", place=where, cure="Choose weights of an earlier moment."
            )


# (family of the weights, of the backbone) that go together beside one and the same
_STARTS = {("deit", "ast"), ("deit", "ssast"), ("deit", "fpasst"), ("ast", "ssast"), ("ssast", "ast")}


def _require_family(start: Start, size: Size, where: str) -> None:
    """Raise DataError for weights of another family, or of patches of another kind: some have the same tensor names."""
    if start.family and start.family != size.family and (start.family, size.family) not in _STARTS:
        raise DataError(
            f"weights of {start.backbone_name or start.family} cannot start {size.name}",
            place=where,
            cure=f"Set model.backbone to a size of {start.family}, or choose other weights.",
        )
    known = BACKBONES.get(start.backbone_name or "")
    patch = known.patch if start.record is not None and known is not None else start.patch  # a run's may be compressed
    if patch is not None and start.family != "deit" and patch[1] != size.patch[1]:
        raise DataError(
            f"these weights take patches of {patch[1]} mel bands, and {size.name} of {size.patch[1]}",
            place=where,
            cure="Set model.backbone to the one that the weights were made with, or choose other weights.",
        )


def require_reference(reference: str | None, size: Size) -> None:
    """Raise UsageError for a public or timm name that is not known or cannot start the backbone; nothing is fetched."""
    kind, _, name = (reference or "").partition(":")
    if kind == "public" and name not in PUBLIC_WEIGHTS:
        near = difflib.get_close_matches(name, PUBLIC_WEIGHTS, n=1)
        meant = f"Did you mean public:{near[0]}? " if near else ""
        raise UsageError(f"unknown public weights {name!r}", cure=f"{meant}See `c2f specs ls --weights`.")
    family = PUBLIC_WEIGHTS[name].family if kind == "public" else "deit" if kind == "timm" else size.family
    if family != size.family and (family, size.family) not in _STARTS:
        known = ", ".join(f"public:{r.name}" for r in PUBLIC_WEIGHTS.values() if r.family == size.family)
        raise UsageError(f"{reference} cannot start {size.name}", cure=f"Known for it: {known or 'none'}.")


def _made_for(backbone: Backbone, start: Start, new: Shape, where: str) -> Shape:
    """The grid and the patch that the weights are made for; the backbone's where the file has no say in it."""
    tokens = (start.record or {}).get("tokens")
    if isinstance(tokens, dict):
        try:
            return backbone.shape(Tokens.model_validate({k: v for k, v in tokens.items() if k != "grid"}))
        except ValidationError:
            pass  # of an earlier version
    if start.grid is None and start.record is None:
        for name, kind in backbone.sized.items():
            table = start.backbone.get(name) if isinstance(kind, Table) else None
            if not isinstance(kind, Table) or table is None or table.dim() != 3:  # of other axes: told by `fit`
                continue
            rows = table.shape[1] - kind.prefix
            if rows != new.grid[0] * new.grid[1]:
                raise DataError(
                    f"the file does not tell the grid of its {rows} positions: {start.report}",
                    place=where,
                    cure="Start from the run that it was exported from, or at the length that it was made for.",
                )
    return Shape(start.grid or new.grid, start.patch or new.patch)


def _fitted(backbone: Backbone, start: Start, resolved: Resolved, where: str) -> tuple[dict[str, Tensor], list[Change]]:
    """The file's backbone, fitted to the first phase's token grid and patch."""
    phase, size = resolved.phases[0], backbone.size
    new = backbone.shape(phase.tokens)
    rules = start_rules(phase, size, resampled=_resampled(start, phase))
    steps = [(new, rules)]
    if rules.positions == "first" and phase.compression.factor > 1:
        # the first rows are those of a shorter clip; the rows of a compressed one lie as far apart as its tokens
        full = compressed(phase.full_frontend, NoCompression(method="none"), size, strides(resolved.model, size))[1]
        steps = [(backbone.shape(full), rules), (new, replace(rules, positions="bilinear"))]
    state, old = start.backbone, _made_for(backbone, start, new, where)
    changes: list[Change] = []
    try:
        for shape, by in steps:
            state, more = fit(state, backbone.sized, old, shape, by)
            changes, old = changes + more, shape
    except ValueError as error:
        raise DataError(
            f"the weights do not fit the model: {error}",
            place=where,
            cure="Set model.backbone and model.stride to those that the weights were made with.",
        ) from None
    return state, changes


def _resampled(start: Start, phase: ResolvedPhase) -> bool:
    """Whether weights of ours were made at another compression: positions then lie apart otherwise."""
    return start.record is not None and start.record.get("compression", "") != words(phase.compression)


def _created(changes: list[Change]) -> tuple[str, ...]:
    return tuple(change.name for change in changes if change.kind == "created")


def _same_classes(state: dict[str, Any], start: Start, head: nn.Module, resolved: Resolved) -> bool:
    """Whether a head in a file is of the run's kind and size, and for its classes: by name where they are on record."""
    own = head.state_dict()
    if start.record is None and isinstance(head, FrameHead):
        own = {name: value for name, value in own.items() if name in state or not name.startswith("weak.")}
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    if shapes != {name: tuple(value.shape) for name, value in state.items()}:
        return False
    if start.record is not None:
        return start.record.get("classes") == resolved.classes
    # Microsoft's fine-tuned BEATs have AudioSet's classes in an order of their own
    return start.family != "beats" or isinstance(head, FrameHead)


def _other_weak(state: dict[str, Any], head: nn.Module) -> bool:
    """Whether a published head scores frames as ours does, and clips by a layer for other classes.

    A layer that weighs frames by class (`attention`) cannot do without it.
    """
    if not isinstance(head, FrameHead) or head.attention or "weak.weight" not in state:
        return False
    return state["weak.weight"].shape != head.weak.weight.shape


def _same_shapes(state: dict[str, Any], start: Start, part: nn.Module, resolved: Resolved) -> bool:
    return all(name in state and state[name].shape == value.shape for name, value in part.state_dict().items())


def _compare_frontends(theirs: dict[str, Any], resolved: Resolved, say: Callable[[str], None]) -> None:
    """Say, with both figures, what makes features differ from those the weights have seen.

    Hop and frames follow a phase's compression and are left out. Another mean or deviation is usual on other data, and
    a note; anything else is a warning.
    """
    ours = resolved.phases[0].full_frontend.model_dump()
    for key in ("sample_rate", "mels", "window", "frame_length"):
        if key in theirs and theirs[key] != ours[key]:
            say(f"warning: front end: the weights were made with {key} {theirs[key]}, this run has {ours[key]}")
    if "mean" in theirs and (theirs["mean"], theirs["std"]) != (ours["mean"], ours["std"]):
        say(
            f"note: the weights were made with mean {theirs['mean']:.3f}, std {theirs['std']:.3f}; "
            f"this run has {ours['mean']:.3f}, {ours['std']:.3f} (frontend.normalize)"
        )


def _frontend_of(reference: str, start: Start) -> dict[str, Any]:
    """The front end that weights were made with: as on record, else that of a published file's family."""
    if start.record is not None:
        return start.record.get("frontend") or {}
    known = PUBLIC_WEIGHTS.get(reference.removeprefix("public:"))
    size = BACKBONES.get(start.backbone_name or "")
    if start.family == "deit" or (known is None and size is None):
        return {}
    theirs = known.frontend if known is not None else size.frontend if size is not None else None
    if theirs is None:
        return {}
    out: dict[str, Any] = {key: getattr(theirs, key) for key in ("sample_rate", "mels", "window")}
    out["frame_length"] = theirs.frame_length_ms * theirs.sample_rate // 1000
    return out if theirs.mean is None else out | {"mean": theirs.mean, "std": theirs.std}
