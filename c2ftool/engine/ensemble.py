"""An ensemble of teachers: found among the runs, its averaged logits stored once, read by its students.

The logits are stored beside the prepared sets, in `logits/SET-KEY.hdf5` in the published layout; the key is made of
the members' weights, the clips and the frames. So students of one ensemble share one file, whatever their name, and a
change of anything that it is made of makes another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from c2ftool.data.loader import Pieces
from c2ftool.data.logits import LogitsFile, align_classes
from c2ftool.data.logits_writer import LogitsWriter
from c2ftool.data.taught import Taught
from c2ftool.engine.cost import phase_costs
from c2ftool.engine.device import Device
from c2ftool.engine.evaluation import Scorer
from c2ftool.engine.run_folder import children_of, find_runs
from c2ftool.engine.selection import Selection
from c2ftool.engine.trained import Trained, load_trained, scored_weights
from c2ftool.errors import MissingError, UsageError
from c2ftool.files import lock, sha256, translate_failure
from c2ftool.spec.check_objective import parts
from c2ftool.spec.objective import Classify
from c2ftool.spec.resolved import Resolved, ResolvedEnsemble, ResolvedPhase
from c2ftool.spec.root import Spec
from c2ftool.spec.teachers import EnsembleTeacher

_ROWS = 512  # clips whose logits are averaged and stored at a time
_SHOWN = 5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ensemble:
    """Who teaches: runs, by folder and name, with the hashes of their weights; or a file of logits."""

    folders: tuple[Path, ...]
    names: tuple[str, ...]
    weights: tuple[str, ...]
    file: Path | None
    missing: str
    runs_root: Path

    @property
    def fingerprint(self) -> str:
        """Equal for equal teachers, in whatever order."""
        if self.file is None:
            return _digest(sorted(self.weights))
        file = LogitsFile.open(self.file)
        some = file.read(np.unique([0, len(file) // 2, len(file) - 1]))  # all of it would take minutes
        seen = hashlib.sha256(some.tobytes()).hexdigest()
        return _digest([self.file.stat().st_size, list(file.shape), file.classes, file.names, seen])

    def key(self, resolved: Resolved, ids: list[str], frames: int) -> str:
        """Of the stored logits."""
        return _digest([sorted(self.weights), resolved.data_fingerprint, frames, ids])


def find_ensemble(spec: Spec, runs_root: Path, data_root: Path) -> Ensemble | None:
    """The ensemble that a spec names; None where it names none. Raises MissingError where it is not there."""
    named = [t for _, part in parts(spec) for t in part.teachers or [] if isinstance(t, EnsembleTeacher)]
    if not named:
        return None
    teacher = named[0]  # phases may differ in its weight alone
    if teacher.logits is not None:
        file = next((p for p in (Path(teacher.logits), data_root / teacher.logits) if p.is_file()), None)
        if file is None:
            LogitsFile.open(Path(teacher.logits))  # says what is there
        return Ensemble((), (), (), file, teacher.missing, runs_root)
    folders = [folder for member in teacher.members for folder in _members(member.removeprefix("run:"), runs_root)]
    folders = list(dict.fromkeys(folders))
    names = [_name(folder, runs_root) for folder in folders]
    weights = [sha256(scored_weights(folder, name)) for folder, name in zip(folders, names, strict=True)]
    return Ensemble(tuple(folders), tuple(names), tuple(weights), None, teacher.missing, runs_root)


def _name(folder: Path, runs_root: Path) -> str:
    """A run's name below the root; the path of one that lies elsewhere."""
    inside = folder.resolve().is_relative_to(runs_root.resolve())
    return str(folder.resolve().relative_to(runs_root.resolve()) if inside else folder)


def _members(pattern: str, runs_root: Path) -> list[Path]:
    """The runs that a name or a pattern stands for; of a study its children."""
    found = []
    for path in find_runs(pattern, runs_root):
        children = children_of(path)
        found += [path / child for child in children] if children else [path]
    return found


def open_teachers(
    ensemble: Ensemble,
    resolved: Resolved,
    selection: Selection,
    device: Device,
    data_root: Path,
    threads: int,
    say: Say,
) -> Taught:
    """The ensemble's logits of the run's training clips, stored first where they are not yet.

    Weakly labelled clips are learned by their labels alone, and need none. Raises UsageError where members and student
    do not go together, MissingError for clips without logits where they are not to be learned by their labels alone.
    """
    phase, rows = _taught(resolved), selection.train
    _require_whole_clips(resolved, selection)
    path = ensemble.file
    if path is None:
        path = stored_at(ensemble, resolved, selection, data_root)
        _store(ensemble, path, resolved, selection, device, threads, say)
    file = LogitsFile.open(path)
    wanted = (phase.label_frames,) if resolved.by_frame else ()
    if file.shape[1:] != wanted:
        has = f"{file.shape[1]} frames" if len(file.shape) > 1 else "none, as of clips"
        raise UsageError(
            f"the teachers' logits have {has}, and the student {phase.label_frames or 'scores clips'}",
            place=str(path),
            cure="Choose teachers of the same data.frame and input length, and of the same labels.",
        )
    columns, has_teacher = file.align(resolved.classes)
    if file.classes is None:
        say(f"teachers: {path} does not name its {len(columns)} classes; they are taken to be the run's, in its order")
    if without := [name for name, there in zip(resolved.classes, has_teacher, strict=True) if not there]:
        listed = ", ".join(without[:_SHOWN]) + (" ..." if len(without) > _SHOWN else "")
        say(f"teachers: {len(without)} classes have none and are learned by their labels alone: {listed}")
    row_of = np.full(len(selection.source), -1, np.int64)
    row_of[rows] = file.find([selection.source.ids[row] for row in rows])
    lacking = rows[row_of[rows] < 0]
    if len(lacking):
        first = ", ".join(selection.source.ids[row] for row in lacking[:_SHOWN])
        text = f"{len(lacking)} of {len(rows)} training clips have no logits, as {first}"
        if ensemble.missing == "error":
            cure = "Set teachers.0.missing=labels to train on their labels alone, or choose another file."
            raise MissingError(text, place=str(path), cure=cure)
        say(f"teachers: {text}; they are learned by their labels alone")
    say(f"teachers: logits of {len(file)} clips in {path}")
    return Taught(file, row_of, columns, has_teacher)


def stored_at(ensemble: Ensemble, resolved: Resolved, selection: Selection, data_root: Path) -> Path:
    """Where the members' logits of the run's training clips are, or will be, stored."""
    ids = [selection.source.ids[row] for row in selection.train]
    key = ensemble.key(resolved, ids, _taught(resolved).label_frames)
    return data_root / "logits" / f"{selection.source.path.name}-{key[:12]}.hdf5"


def _store(
    ensemble: Ensemble,
    path: Path,
    resolved: Resolved,
    selection: Selection,
    device: Device,
    threads: int,
    say: Say,
) -> None:
    """Average the members' logits over the clips, and write them; goes on where it was stopped."""
    if device.from_main(path.is_file):
        return
    named = zip(ensemble.folders, ensemble.names, strict=True)
    members = [load_trained(folder, name, ensemble.runs_root) for folder, name in named]
    for member, name in zip(members, ensemble.names, strict=True):
        _require_fitting(member, name, resolved, selection)
        member.model.to(device.torch)
    classes = list(dict.fromkeys(name for member in members for name in member.resolved.classes))
    align_classes(classes, resolved.classes, count=len(classes))  # refused before anything is stored
    rows, frames = selection.train, _taught(resolved).label_frames or None
    record = {
        "members": [{"run": n, "sha256": w} for n, w in sorted(zip(ensemble.names, ensemble.weights, strict=True))],
        "data": resolved.data_fingerprint,
        "frame_seconds": resolved.data.frame.seconds,
    }
    ids = [selection.source.ids[row] for row in rows]
    scorers = [_scorer(member, selection, resolved, device, threads) for member in members]
    say(
        f"teachers: {len(members)} runs, {sum(_forward(member) for member in members) * len(rows):.3g} FLOPs forward "
        f"over {len(rows)} clips, once; stored in {path}"
    )
    with translate_failure(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.parent / f".{path.stem}.lock", wait=True) if device.main else nullcontext():
        if device.from_main(path.is_file):  # another student was waited for
            return
        writer: LogitsWriter | None = None

        def begin() -> np.ndarray:
            nonlocal writer
            writer = LogitsWriter(path, ids, classes, frames, record)
            return writer.todo()

        try:
            todo = device.from_main(begin)
            if len(todo) < len(rows):
                say(f"teachers: {len(rows) - len(todo)} clips were stored before")
            done = len(rows) - len(todo)
            for first in range(0, len(todo), _ROWS):
                part = todo[first : first + _ROWS]
                averaged = _averaged(members, scorers, rows[part], classes, frames)
                if writer is not None:
                    writer.write(part, averaged)
                done += len(part)
                say(f"teachers: logits of {done} of {len(rows)} clips stored")
            if writer is not None:
                writer.finish()
        finally:
            if writer is not None:
                writer.close()
    device.barrier()


def _averaged(
    members: list[Trained], scorers: list[Scorer], rows: np.ndarray, classes: list[str], frames: int | None
) -> np.ndarray:
    """(B, C, T) or (B, C) float32: the mean of the members' logits, in each class of those that have it."""
    shape = (len(rows), len(classes)) if frames is None else (len(rows), len(classes), frames)
    total, count = np.zeros(shape, np.float32), np.zeros(len(classes), np.float32)
    place = {name: number for number, name in enumerate(classes)}
    for member, scorer in zip(members, scorers, strict=True):
        columns = np.asarray([place[name] for name in member.resolved.classes])
        count[columns] += 1
        take = _clips if frames is None else _frames_of
        for where, part in scorer.outputs(rows, Pieces.starts(len(rows)), take):
            total[np.ix_(where, columns)] += part
    return total / (count if frames is None else count[:, None])


def _clips(output: Any) -> Tensor:
    """What a classifier gives."""
    scores: Tensor = output
    return scores


def _frames_of(output: Any) -> Tensor:
    """The frames' part of what a detector gives."""
    scores: Tensor = output[0]
    return scores


def _scorer(member: Trained, selection: Selection, resolved: Resolved, device: Device, threads: int) -> Scorer:
    return Scorer(
        member.model, member.phase.frontend, selection.source, resolved.evaluate_batch, device.exact(), threads
    )


def _forward(member: Trained) -> int:
    """FLOPs of a clip's forward pass."""
    return next(cost for cost in phase_costs(member.resolved) if cost.name == member.phase.name).clip.forward


def _require_fitting(member: Trained, name: str, resolved: Resolved, selection: Selection) -> None:
    """Raise UsageError for a member that cannot score the student's clips in the student's frames."""
    ours, theirs = _taught(resolved), member.phase
    rate = selection.source.info.sample_rate
    if isinstance(member.resolved.objective, Classify) and member.resolved.objective.loss == "ce":
        raise UsageError(
            f"teacher {name} was trained with the loss ce: its logits say which class, not whether there is one",
            cure="Choose teachers trained with objective.loss=bce.",
        )
    if theirs.frontend.sample_rate != rate:
        raise UsageError(
            f"teacher {name} hears {theirs.frontend.sample_rate} Hz, and the clips are stored at {rate} Hz",
            cure="Choose teachers of one sample rate.",
        )
    if _frames(theirs) != _frames(ours):
        raise UsageError(
            f"teacher {name} scores {_in_words(theirs)}, and the student {_in_words(ours)}",
            cure="Choose teachers of the same labels, data.frame and input length.",
        )


def _frames(phase: ResolvedPhase) -> tuple[int, float]:
    return phase.label_frames, phase.label_hop / phase.frontend.sample_rate


def _in_words(phase: ResolvedPhase) -> str:
    frames, seconds = _frames(phase)
    return f"{frames} frames of {1000 * seconds:g} ms" if frames else "clips"


def _taught(resolved: Resolved) -> ResolvedPhase:
    """The last phase that learns from the ensemble."""
    return [phase for phase in resolved.phases if isinstance(phase.teacher, ResolvedEnsemble)][-1]


def _require_whole_clips(resolved: Resolved, selection: Selection) -> None:
    """Raise UsageError where the phases do not all see what the stored logits are of: the clip's start."""
    taught = [phase for phase in resolved.phases if isinstance(phase.teacher, ResolvedEnsemble)]
    if len({phase.label_frames for phase in taught}) > 1:
        seen = ", ".join(f"{phase.name} {phase.label_frames}" for phase in taught)
        raise UsageError(
            f"phases that learn from stored logits have inputs of different lengths, in label frames: {seen}",
            cure="Give them one frontend.frames; a compression may differ.",
        )
    hop = taught[-1].label_hop or 1
    shortest = min(phase.frontend.samples for phase in taught)
    longer = int((selection.source.samples[selection.train] - shortest >= hop).sum())
    if resolved.data.crop == "random" and longer:
        raise UsageError(
            f"{longer} training clips are longer than the input, and stored logits are of a clip's start",
            cure="Set data.crop=start, or cut the clips.",
        )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
