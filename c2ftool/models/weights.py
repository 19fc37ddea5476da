"""Weights files: safetensors with a record of what the weights are, and the loading of any weights into a module.

The record (metadata key `c2f`, JSON) names backbone, front end, classes, task, parents by hash, phase, step, version.
Names in a file are those of the student: `backbone.*`, and `head.*` or `decoder.*`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from c2ftool.adapters.insert import item_of
from c2ftool.errors import DataError, MissingError, UsageError
from c2ftool.files import sha256, write_atomically
from c2ftool.models.public import deit, fpasst
from c2ftool.models.public.account import Adapted, Pair, State
from c2ftool.models.public.download import Progress, fetch
from c2ftool.models.public.layouts import LAYOUTS, layout_of
from c2ftool.models.public.reading import kind_of, read_tensors, safetensors_metadata
from c2ftool.models.public.records import PUBLIC_WEIGHTS
from c2ftool.models.public.timm_records import timm_weights
from c2ftool.spec.backbones import BACKBONES

_KEY = "c2f"
_SHOWN = 8


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor. mismatched: (name, shape in the file, shape in the module)."""

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for word, names in (("left as they were", self.missing), ("not used", self.unexpected)):
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                parts.append(f"{len(names)} {word} ({', '.join(names[:4])}{more})")
        return ", ".join(parts)


@dataclass(frozen=True)
class Start:
    """Weights to start from. head, decoder and teacher (of the backbone): None where the file has none.

    record: of our own files. family: of the layout; deit for ImageNet weights of an AST's body; empty if our record
    names no known backbone. backbone_name: None if the size is not a known one. grid: (time, frequency) of the tokens
    that the weights were made for; patch: (time, mel) of their kernel; None where the file does not tell. report: one
    line on what was read.
    """

    backbone: State
    head: State | None
    decoder: State | None
    teacher: State | None
    record: dict[str, Any] | None
    family: str
    backbone_name: str | None
    grid: Pair | None
    patch: Pair | None
    sha256: str
    report: str


def save_weights(path: Path, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> str:
    """The SHA-256 of the file written, whole or not at all. Raises RunError where the disk is full or refuses."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # one metadata key only: safetensors writes several in random order, and equal weights should give equal files
    metadata = {_KEY: json.dumps(record, ensure_ascii=False, allow_nan=False)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))
    return sha256(path)


def read_weights(path: Path) -> tuple[State, dict[str, Any]]:
    """(tensors, record) of a file of ours. Raises MissingError; DataError if it is damaged or not one of ours."""
    record = _record(path)
    if record is None:
        raise DataError(
            "this weights file has no c2ftool record",
            place=str(path),
            cure="Name published weights as model.weights=file:PATH, public:NAME or timm:NAME.",
        )
    return read_tensors(path).tensors, record


def _record(path: Path) -> dict[str, Any] | None:
    """The record; None if the file is of another program."""
    if kind_of(path) != "safetensors":
        return None
    text = safetensors_metadata(path).get(_KEY)
    if text is None:
        return None
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise DataError("its c2ftool record cannot be read", place=str(path), cure="Write or copy the file again.")
    return record


def load_into(
    module: nn.Module, state: Mapping[str, Tensor], *, where: str, allow_missing: tuple[str, ...] = ()
) -> LoadReport:
    """What was loaded of `state` into the module. Nothing is changed unless everything fits.

    where: the file or reference, for messages. allow_missing: prefixes of names that may keep their values. Tensors
    that the module does not have are reported, not refused. Raises DataError naming tensors that are missing or of
    another shape.
    """
    own = module.state_dict()
    mismatched = [
        (name, tuple(state[name].shape), tuple(tensor.shape))
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    missing = [name for name in own if name not in state]
    refused = [name for name in missing if not name.startswith(allow_missing)] if allow_missing else missing
    if mismatched or refused:
        faults = [f"{name}: {list(there)} in the file, {list(here)} in the model" for name, there, here in mismatched]
        faults += [f"{name}: not in the file, {list(own[name].shape)} in the model" for name in refused]
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise DataError(
            "the weights do not fit the model:\n      " + "\n      ".join(faults[:_SHOWN] + more),
            place=where,
            cure="Set model.backbone to the one that the weights were made with (and as many classes, if the head is "
            "loaded), or choose other weights.",
        )
    loaded = {name: state[name] for name in own if name in state}
    module.load_state_dict(loaded, strict=False)
    return LoadReport(list(loaded), missing, [name for name in state if name not in own], mismatched)


def whole(
    state: State, record: Mapping[str, Any], backbone: str, runs_root: Path, *, where: str, instead: str | None = None
) -> State:
    """The tensors of a file that holds only what was trained (`on` in its record), with those of its parent.

    backbone: the name of the model's. instead: a reference to where the parent lies now. Raises MissingError where it
    is not there, DataError where it is not what was trained on. A file that is whole is given back as it is.
    """
    on = record.get("on")
    if on is None:
        return state
    reference = instead or on["weights"]
    try:
        path = resolve_weights(reference, runs_root)
    except MissingError as error:
        raise MissingError(
            f"only what was trained is saved, on {on['weights']}, which is not there ({error.message})",
            place=where,
            cure="Bring it back to where it was. To score the run alone, say where it lies now: c2f evaluate RUN "
            "model.weights=file:PATH",
        ) from None
    parent = starting_weights(path, BACKBONES[backbone].family, runs_root)
    if parent.sha256 != on["sha256"]:
        raise DataError(
            f"it was trained on other weights: {reference} is sha256 {parent.sha256[:12]} now, was {on['sha256'][:12]}",
            place=where,
            cure="Bring the parent back as it was: adapters fit no other body.",
        )
    # a parent's own adapters are no part of it: those that go on were trained, and are in the file
    body = {f"backbone.{name}": value for name, value in parent.backbone.items() if item_of(name) is None}
    return body | state


def starting_weights(path: Path, family: str | None = None, runs_root: Path | None = None) -> Start:
    """The weights of a file of ours or of a published one, told apart by what is in it; published ones in float32.

    family: of the backbone that is to start from them, where more than one can: a DeiT is read as AST's, or fPaSST's.
    runs_root: where the parents of files lie that hold only what was trained; without it those are not completed.
    Raises MissingError if there is no such file, DataError if it is damaged, incomplete or of an unknown kind.
    """
    record = _record(path)
    tensors = read_tensors(path).tensors
    if record is not None:
        if runs_root is not None and record.get("on") is not None:
            tensors = whole(tensors, record, record["backbone"], runs_root, where=str(path))
        return _own(tensors, record, path)
    found, adapted = _published(tensors, path, family)
    if adapted.report.missing:
        raise DataError(
            f"the checkpoint is incomplete; {adapted.report}", place=str(path), cure="Download or export it again."
        )
    return Start(
        backbone=adapted.backbone,
        head=adapted.head or None,
        decoder=adapted.decoder or None,
        teacher=adapted.teacher or None,
        record=None,
        family=found,
        backbone_name=adapted.report.backbone,
        grid=adapted.grid,
        patch=adapted.patch,
        sha256=sha256(path),
        report=str(adapted.report),
    )


def _own(tensors: State, record: dict[str, Any], path: Path) -> Start:
    """The weights of a file of ours."""
    parts = {part: _part(tensors, part) for part in ("backbone", "head", "decoder")}
    if not parts["backbone"]:
        raise DataError("it holds no backbone", place=str(path), cure="Name a run's weights-*.safetensors.")
    name = record.get("backbone")
    return Start(
        backbone=parts["backbone"],
        head=parts["head"] or None,
        decoder=parts["decoder"] or None,
        teacher=None,
        record=record,
        family=BACKBONES[name].family if name in BACKBONES else "",
        backbone_name=name,
        grid=recorded_pair(record, "grid"),
        patch=recorded_pair(record, "patch"),
        sha256=sha256(path),
        report=f"c2ftool: {len(tensors)} tensors of {name}, step {record.get('step')}",
    )


def recorded_pair(record: Mapping[str, Any], key: str) -> Pair | None:
    """(time, mel) of a record's `tokens`: grid, patch or stride; None where it is not on record."""
    tokens = record.get("tokens")
    match tokens.get(key) if isinstance(tokens, Mapping) else None:
        case [int(time), int(mel)]:
            return time, mel
    return None


def _published(tensors: State, path: Path, family: str | None) -> tuple[str, Adapted]:
    """(family, what was read). Raises DataError for an unknown kind."""
    layout = layout_of(tensors)
    if layout is not None and layout.family == "deit" and family == "fpasst":
        return "deit", fpasst.from_deit(tensors)
    if layout is not None:
        return layout.family, layout.read(tensors)
    if deit.is_plain_vit(tensors):
        raise DataError(
            "a vision transformer without distillation token; AST needs a distilled one (DeiT)",
            place=str(path),
            cure="Name one of timm's, such as timm:deit_base_distilled_patch16_384.",
        )
    known = ", ".join(layout.about for layout in LAYOUTS)
    raise DataError(
        f"weights of an unknown kind: {len(tensors)} tensors, such as {', '.join(list(tensors)[:3])}",
        place=str(path),
        cure=f"Files of c2ftool and published checkpoints can be read, of {known}.",
    )


def _part(tensors: State, part: str) -> State:
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def resolve_weights(reference: str, runs_root: Path, *, progress: Progress | None = None) -> Path:
    """The file that `model.weights` names: file:PATH, run:NAME[@best|last|PHASE], public:NAME or timm:NAME.

    Those of public: and timm: are fetched if they are not there yet.

    Raises MissingError if it is not there, UsageError for an unknown form.
    """
    kind, _, rest = reference.partition(":")
    match kind:
        case "file":
            path = Path(rest).expanduser()
            if not path.is_file():
                raise MissingError("no such weights file", place=str(path), cure="Check the path of model.weights.")
            return path
        case "public":
            if rest not in PUBLIC_WEIGHTS:
                known = ", ".join(PUBLIC_WEIGHTS)
                raise MissingError(f"unknown public weights {rest!r}", cure=f"Known: {known}. Or name a file:PATH.")
            return fetch(PUBLIC_WEIGHTS[rest], progress=progress)
        case "timm":
            return fetch(timm_weights(rest), progress=progress)
        case "run":
            name, _, which = rest.partition("@")
            return weights_of_run(runs_root / name, which or None)
    raise UsageError(
        f"{reference!r} names no weights",
        cure="Write run:NAME[@best|last|average|PHASE], file:PATH, public:NAME or timm:NAME.",
    )


def weights_of_run(run: Path, which: str | None = None) -> Path:
    """The weights file of a run's folder: of best, last, average or a phase.

    If not said the average, else the best, else the last. Raises MissingError naming those that exist.
    """
    folder = run / "checkpoints"
    for name in [which] if which else ["average", "best", "last"]:
        path = folder / f"weights-{name}.safetensors"
        if path.is_file():
            return path
    if not run.is_dir():
        others = sorted(p.name for p in run.parent.iterdir() if p.is_dir()) if run.parent.is_dir() else []
        raise MissingError("no such run", place=str(run), cure=f"Runs there: {', '.join(others[:20]) or 'none'}.")
    there = sorted(p.stem.removeprefix("weights-") for p in folder.glob("weights-*.safetensors"))
    wanted = f"weights {which!r}" if which else "weights"
    raise MissingError(f"the run has no {wanted}", place=str(run), cure=f"It has: {', '.join(there) or 'none yet'}.")
