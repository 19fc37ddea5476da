"""From a spec's `data` section to rows of the prepared set, and the facts that resolving a spec needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c2ftool.data.joined import JoinedSets
from c2ftool.data.order import Order, Rows, class_balanced_weights
from c2ftool.data.store import PreparedSet, find_set
from c2ftool.errors import MissingError, UsageError
from c2ftool.spec.data import ClassBalanced, Data
from c2ftool.spec.resolve import DataFacts


@dataclass(frozen=True)
class Selection:
    """The clips of a run. Rows are the set's row numbers; classes its class numbers in the run's order."""

    source: PreparedSet | JoinedSets
    train: Rows
    valid: Rows
    test: Rows
    classes: Rows
    names: list[str]

    def order(self, data: Data, seed: int, phase: int) -> Order:
        """The stream of training clips of a phase."""
        weights = None
        if isinstance(data.sampler, ClassBalanced):
            weights = class_balanced_weights(self.source.targets(self.train)[:, self.classes])
        return Order(self.train, seed, phase, data.sampler, weights)

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
    for split in [*data.train, *data.valid, *data.test]:
        if split not in info.splits:
            raise MissingError(f"{where} has no split {split!r}", cure=f"Its splits: {', '.join(info.splits)}.")
    if data.fold is not None and data.fold not in info.folds:
        folds = ", ".join(map(str, info.folds)) or "none"
        raise MissingError(f"{where} has no fold {data.fold}", cure=f"Its folds: {folds}.")
    names = data.classes or list(info.classes)
    if unknown := [name for name in names if name not in info.classes]:
        raise MissingError(f"{where} has no class {unknown[0]!r}", cure=f"Its classes: {', '.join(info.classes[:20])}.")
    classes = np.asarray([info.classes.index(name) for name in names], np.int64)

    def rows(splits: list[str], hold_out: bool = False) -> Rows:
        found = source.rows(splits, fold=data.fold, hold_out=hold_out) if data.fold else source.rows(splits)
        if data.classes is not None and len(found):
            found = found[source.targets(found)[:, classes].any(axis=1)]
        return found

    train = rows(data.train)
    if data.min_length is not None:
        train = train[source.samples[train] >= data.min_length.seconds * info.sample_rate]
    if data.fold is not None:
        held_out = rows(data.train, hold_out=True)
        valid, test = held_out, held_out
    else:
        valid, test = rows(data.valid), rows(data.test)
    if not len(train):
        raise UsageError(
            f"{where}: no training clip is left", cure="Check data.train, data.classes and data.min_length."
        )
    if data.also:
        return _joined(source, train, data, root)
    return Selection(source, train, valid, test, classes, names)


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
    return Selection(joint, rows, none, none, none, [])


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
        clips_train=selection.order(data, 0, 0).epoch_clips,
        clips_valid=len(selection.valid),
        clips_test=len(selection.test),
    )
