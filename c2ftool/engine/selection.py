"""From a spec's `data` section to rows of the prepared set, and the facts that resolving a spec needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2ftool.data.frame_labels import LabelGrid, class_places, weights_by_active_time
from c2ftool.data.joined import JoinedSets
from c2ftool.data.order import Order, Rows, Stream, class_balanced_weights
from c2ftool.data.store import PreparedSet, find_set
from c2ftool.errors import MissingError, UsageError
from c2ftool.spec.check_detection import weak_clips
from c2ftool.spec.data import ActiveTime, ClassBalanced, Data, Uniform
from c2ftool.spec.resolve import DataFacts


@dataclass(frozen=True)
class Selection:
    """The clips of a run. Rows are the set's row numbers; classes its class numbers in the run's order.

    weak: rows that are trained on by their clip labels, beside `train` whose events are known.
    """

    source: PreparedSet | JoinedSets
    train: Rows
    valid: Rows
    test: Rows
    classes: Rows
    names: list[str]
    weak: Rows

    def stream(self, data: Data, seed: int, phase: int, batch: int, frames: int = 0) -> Stream:
        """The training clips of a phase. frames: label frames of its input, for weights by active time."""
        order = Order(self.train, seed, phase, data.sampler, self._weights(data, frames))
        weak = weak_clips(data, batch)
        if weak is None:
            return Stream(order)
        return Stream(order, Order(self.weak, seed, phase, Uniform(kind="uniform"), purpose="order of weak"), weak)

    def _weights(self, data: Data, frames: int) -> NDArray[np.float64] | None:
        match data.sampler:
            case ClassBalanced():
                return class_balanced_weights(self.source.targets(self.train)[:, self.classes])
            case ActiveTime() as sampler:
                assert isinstance(self.source, PreparedSet)
                frame_ms = float(data.frame.exact * 1000)
                looked_at = frames if frames and data.crop == "start" else self.longest(data)
                return weights_by_active_time(
                    self.source, self.train, self.classes, looked_at, frame_ms, sampler.offset
                )
            case Uniform():
                return None

    def longest(self, data: Data) -> int:
        """Whole label frames of the longest training clip."""
        seconds = Fraction(int(self.source.samples[self.train].max()), self.source.info.sample_rate)
        return max(1, math.floor(seconds / data.frame.exact))

    def grid(self, data: Data, frames: int) -> LabelGrid | None:
        """How events become labels of so many frames; None where clips are labelled."""
        if data.labels != "frame":
            return None
        rate = self.source.info.sample_rate
        place = class_places(self.classes, len(self.source.info.classes))
        return LabelGrid(frames, float(data.frame.exact * 1000), int(data.frame.exact * rate), place, data.covers)

    @property
    def multi_label(self) -> bool:
        """Whether any clip that is trained on or scored has not exactly one label."""
        rows = np.concatenate([self.train, self.valid, self.test])
        return bool(self.source.multi_label(rows))


def select(data: Data, root: Path) -> Selection:
    """The clips that a `data` section names. Raises MissingError where the set, a split, fold or class is not there."""
    source = PreparedSet.open(find_set(data.dataset, root))
    info = source.info
    where = f"data set {info.name!r}"
    for split in [*data.train, *data.weak, *data.valid, *data.test]:
        if split not in info.splits:
            raise MissingError(f"{where} has no split {split!r}", cure=f"Its splits: {', '.join(info.splits)}.")
    if data.fold is not None and data.fold not in info.folds:
        folds = ", ".join(map(str, info.folds)) or "none"
        raise MissingError(f"{where} has no fold {data.fold}", cure=f"Its folds: {folds}.")
    strength: dict[str, str] = info.sources.get("labels", {})
    for split in data.train if data.labels == "frame" else []:
        if strength.get(split) == "weak":
            raise UsageError(
                f"{where}: split {split!r} has labels of clips only, and data.labels is frame",
                cure=f"Name it in data.weak: {', '.join([*data.weak, split])}.",
            )
    names = _trained(source, data) if data.classes == "trained" else list(data.classes or info.classes)
    if unknown := [name for name in names if name not in info.classes]:
        raise MissingError(f"{where} has no class {unknown[0]!r}", cure=f"Its classes: {', '.join(info.classes[:20])}.")
    classes = np.asarray([info.classes.index(name) for name in names], np.int64)

    def rows(splits: list[str], hold_out: bool = False) -> Rows:
        found = source.rows(splits, fold=data.fold, hold_out=hold_out) if data.fold else source.rows(splits)
        # a clip without any of the classes is an example of silence where frames are labelled
        if data.classes is not None and data.labels == "clip" and len(found):
            found = found[source.targets(found)[:, classes].any(axis=1)]
        return found

    train, weak = rows(data.train), rows(data.weak)
    if data.min_length is not None:
        train, weak = (r[source.samples[r] >= data.min_length.seconds * info.sample_rate] for r in (train, weak))
    if data.fold is not None:
        held_out = rows(data.train, hold_out=True)
        valid, test = held_out, held_out
        if data.valid_fold == "next":
            following = info.folds[(info.folds.index(data.fold) + 1) % len(info.folds)]
            valid = train[source.folds[train] == following]
            train, weak = (r[source.folds[r] != following] for r in (train, weak))
    else:
        valid, test = rows(data.valid), rows(data.test)
    for what, left in (("training", train), ("weakly labelled", weak)):
        if not len(left) and (what == "training" or data.weak):
            checked = "data.train, data.weak, data.classes and data.min_length"
            raise UsageError(f"{where}: no {what} clip is left", cure=f"Check {checked}.")
    if data.also:
        return _joined(source, train, data, root)
    if data.labels == "frame":
        for what, those in (("training", train), ("validation", valid), ("test", test)):
            _require_events(source, those, classes, f"{where}: no {what} clip")
    return Selection(source, train, valid, test, classes, names, weak)


def _require_events(source: PreparedSet, rows: Rows, classes: Rows, none: str) -> None:
    """Raise UsageError, which begins with `none`, where rows that are to be detected in have no event."""
    if len(rows) and not np.isin(source.events_of(rows)[1].label, classes).any():
        having = ", ".join(source.info.events)
        raise UsageError(
            f"{none} has an event of {'these classes' if having else 'any class'}, and data.labels is frame",
            cure=f"Splits with events: {having or 'none'}. Clips without can be trained on as data.weak.",
        )


def _trained(source: PreparedSet, data: Data) -> list[str]:
    """The classes that the training splits name: their metadata, where the set's layout tells, else their clips."""
    named = source.info.sources.get("named", {})
    numbers: set[int] = set()
    for split in [*data.train, *data.weak]:
        numbers |= set(named.get(split) or [int(number) for number in source.info.counts.get(split, {})])
    return [name for number, name in enumerate(source.info.classes) if number in numbers]


def _joined(first: PreparedSet, train: Rows, data: Data, root: Path) -> Selection:
    """The clips of the first set and of those beside it, without labels."""
    sets, chosen = [first], [train]
    for other in data.also:
        further = PreparedSet.open(find_set(other.dataset, root))
        for split in other.train:
            if split not in further.info.splits:
                splits = ", ".join(further.info.splits)
                raise MissingError(
                    f"data set {further.info.name!r} has no split {split!r}", cure=f"Its splits: {splits}."
                )
        rows = further.rows(other.train)
        if data.min_length is not None:
            rows = rows[further.samples[rows] >= data.min_length.seconds * further.info.sample_rate]
        sets.append(further)
        chosen.append(rows)
    joint = JoinedSets(sets)
    none = np.zeros(0, np.int64)
    rows = np.concatenate([joint.rows_of(place, rows) for place, rows in enumerate(chosen)])
    return Selection(joint, rows, none, none, none, [], none)


def facts(selection: Selection, data: Data) -> DataFacts:
    """What resolving needs to know of the data."""
    info = selection.source.info
    return DataFacts(
        name=info.name,
        classes=selection.names,
        sample_rate=info.sample_rate,
        multi_label=selection.multi_label,
        mean=info.mean,
        std=info.std,
        fingerprint=info.fingerprint,
        clips_train=_epoch(selection, data),
        clips_valid=len(selection.valid),
        clips_test=len(selection.test),
    )


def _epoch(selection: Selection, data: Data) -> int:
    """Clips of an epoch: one pass of the sampler, and the weakly labelled clips that come with it."""
    strong = Order(selection.train, 0, 0, data.sampler, selection._weights(data, 0)).epoch_clips
    return round(strong / (1 - data.weak_share)) if data.weak else strong
