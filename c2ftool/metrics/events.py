"""Event-based agreement of detections with the truth: onsets, and offsets if wanted, within a collar.

Equal to `sed_eval.sound_event.EventBasedMetrics` with its default, the largest matching (Mesaros, Heittola, Virtanen:
Metrics for polyphonic sound event detection, Applied Sciences 2016), and fast: only pairs near each other are looked
at, and only those that several others compete for go through the search for the largest matching.

Axes: N clips, C classes, E events, P pairs. Times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2ftool.metrics.tables import Float64, Int64, Truth

_EPSILON = float(np.spacing(1.0))


@dataclass(frozen=True)
class Figures:
    """F1, precision, recall and error rate: numbers, or (C,) numbers."""

    f1: Any
    precision: Any
    recall: Any
    error_rate: Any


@dataclass(frozen=True)
class Agreement:
    """Counts of events (or of segments) and the figures that follow from them.

    reference, detected, correct: (C,) in the truth, in the detections, and in both. substitutions, deletions,
    insertions: over all classes; a substitution is one event of a wrong class in the right place.
    silent_is_zero: the precision, and with it the F1, of a class with events and without detections is 0, not NaN.
    """

    reference: Int64
    detected: Int64
    correct: Int64
    substitutions: int
    deletions: int
    insertions: int
    silent_is_zero: bool = False

    def overall(self) -> Figures:
        """Figures of all events together (micro-average). NaN where there is nothing to divide by."""
        reference, detected, correct = (c.sum(keepdims=True) for c in (self.reference, self.detected, self.correct))
        errors = np.array([[self.substitutions], [self.deletions], [self.insertions]])
        figures = _figures(reference, detected, correct, errors, self.silent_is_zero)
        return Figures(*(float(value[0]) for value in _values(figures)))

    def per_class(self) -> Figures:
        """(C,) figures of each class. Precision is NaN without detections, recall without events, F1 with either.

        The error rate divides by the events plus 2.2e-16, as sed_eval does: without events, any detection makes it
        enormous.
        """
        errors = np.stack([self.reference - self.correct, self.detected - self.correct])
        return _figures(self.reference, self.detected, self.correct, errors, self.silent_is_zero)

    def macro(self) -> Figures:
        """The mean of each figure over the classes in which it is not NaN, as sed_eval averages; NaN if none is left.

        So a class with events and without a detection counts as 0 only with `silent_is_zero`.
        """
        return Figures(*(mean_of_known(value) for value in _values(self.per_class())))


def event_based(
    truth: Truth,
    found: Truth,
    collar: float = 0.2,
    offset_share: float | None = None,
    silent_is_zero: bool = False,
) -> Agreement:
    """The agreement of detections with true events of the same clip and class, each matched at most once.

    Two events match if their onsets are at most `collar` seconds apart and, with `offset_share`, their offsets at most
    max(collar, offset_share x length of the true event): sed_eval's t_collar and percentage_of_length. Of all matchings
    a largest is taken, clip by clip. What is left over is substituted where a detection of another class is as near.

    F1, precision and recall do not depend on the order of events. Substitutions, and so the overall error rate, may:
    they are counted as sed_eval does, going through the events in the order given.

    silent_is_zero: sed_eval's empty_system_output_handling="zero_score", as DCASE's baselines have it.
    Raises ValueError if the tables are not of the same clips and classes, or the collar is negative.
    """
    check_same(truth, found)
    if not collar >= 0 or not (offset_share is None or offset_share >= 0):
        raise ValueError(f"collar {collar} and offset_share {offset_share} must not be negative")
    classes = len(truth.classes)
    near = _near(truth, found, truth.clip * classes + truth.label, found.clip * classes + found.label, collar)
    mine, theirs = _matched(*_fitting(truth, found, *near, collar, offset_share))
    left, over = (np.delete(np.arange(len(t.clip)), used) for t, used in ((truth, mine), (found, theirs)))
    rest, others = _subset(truth, left), _subset(found, over)
    pairs = _fitting(rest, others, *_near(rest, others, rest.clip, others.clip, collar), collar, offset_share)
    substitutions = _taken_in_turn(*pairs)
    return Agreement(
        truth.events_per_class(),
        found.events_per_class(),
        np.bincount(truth.label[mine], minlength=classes).astype(np.int64),
        substitutions,
        len(left) - substitutions,
        len(over) - substitutions,
        silent_is_zero,
    )


def check_same(truth: Truth, found: Any) -> None:
    """Raises ValueError unless both tables are of the same clips and classes, in the same order."""
    for name in ("ids", "classes"):
        ours, theirs = list(getattr(truth, name)), list(getattr(found, name))
        if ours != theirs:
            different = sorted(set(ours) ^ set(theirs))[:5]
            what = f"differ in {', '.join(map(str, different))}" if different else "are in another order"
            raise ValueError(f"{name} of the truth ({len(ours)}) and of the detections ({len(theirs)}) {what}")


def mean_of_known(values: Float64) -> float:
    """The mean of what is not NaN; NaN if nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _figures(
    reference: Int64, detected: Int64, correct: Int64, errors: NDArray[np.integer], silent_is_zero: bool
) -> Figures:
    """(C,) figures; errors: (kinds, C)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(detected > 0, correct / detected, 0.0 if silent_is_zero else np.nan)
        recall = np.where(reference > 0, correct / reference, np.nan)
        f1 = 2 * precision * recall / (precision + recall)
    f1 = np.where((precision == 0) & (recall == 0), 0.0, f1)
    return Figures(f1, precision, recall, (errors / (reference + _EPSILON)).sum(axis=0))


def _values(figures: Figures) -> tuple[Any, Any, Any, Any]:
    return figures.f1, figures.precision, figures.recall, figures.error_rate


def _subset(table: Truth, events: Int64) -> Truth:
    """The same with some events only."""
    return replace(
        table,
        clip=table.clip[events],
        label=table.label[events],
        onset=table.onset[events],
        offset=table.offset[events],
    )


def _near(truth: Truth, found: Truth, ours: Int64, theirs: Int64, collar: float) -> tuple[Int64, Int64]:
    """(true event, detection) of the same group whose onsets are within the collar, give or take some rounding."""
    if not len(ours) or not len(theirs):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # all groups on one time line, further apart than any two onsets may be
    start = min(truth.onset.min(), found.onset.min())
    room = max(truth.onset.max(), found.onset.max()) - start + collar + 1
    number = np.unique(np.concatenate([ours, theirs]), return_inverse=True)[1]
    line = number * room + np.concatenate([truth.onset, found.onset]) - start
    line, table = np.split(line, [len(ours)])
    order = np.argsort(table, kind="stable")
    reach = collar + 8 * np.spacing(max(line.max(), table.max(), 1.0))
    first = np.searchsorted(table, line - reach, "left", order)
    count = np.searchsorted(table, line + reach, "right", order) - first
    place = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
    return np.repeat(np.arange(len(line)), count), order[place]


def _fitting(
    truth: Truth, found: Truth, mine: Int64, theirs: Int64, collar: float, offset_share: float | None
) -> tuple[Int64, Int64]:
    """Of the pairs those whose times fit, in the order of true events, then of detections."""
    fits = np.abs(truth.onset[mine] - found.onset[theirs]) <= collar
    if offset_share is not None:
        allowed = np.maximum(collar, offset_share * (truth.offset[mine] - truth.onset[mine]))
        fits &= np.abs(truth.offset[mine] - found.offset[theirs]) <= allowed
    mine, theirs = mine[fits], theirs[fits]
    order = np.lexsort((theirs, mine))
    return mine[order], theirs[order]


def _alone(mine: Int64, theirs: Int64) -> NDArray[np.bool_]:
    """(P,) whether neither event of the pair is in another pair."""
    if not len(mine):
        return np.zeros(0, np.bool_)
    return (np.bincount(mine)[mine] == 1) & (np.bincount(theirs)[theirs] == 1)


def _matched(mine: Int64, theirs: Int64) -> tuple[Int64, Int64]:
    """The pairs of a largest matching: (true events, detections). The one that sed_eval finds, if there are several."""
    alone = _alone(mine, theirs)
    partner = _largest_matching(mine[~alone].tolist(), theirs[~alone].tolist())
    chosen = np.array(list(partner.items()), np.int64).reshape(-1, 2)
    return np.append(mine[alone], chosen[:, 0]), np.append(theirs[alone], chosen[:, 1])


def _taken_in_turn(mine: Int64, theirs: Int64) -> int:
    """How many true events find a detection, each taking the first that is still free."""
    alone = _alone(mine, theirs)
    served: set[int] = set()
    taken: set[int] = set()
    for ours, other in zip(mine[~alone].tolist(), theirs[~alone].tolist(), strict=True):
        if ours not in served and other not in taken:
            served.add(ours)
            taken.add(other)
    return int(alone.sum()) + len(taken)


def _largest_matching(mine: list[int], theirs: list[int]) -> dict[int, int]:
    """Detection of each true event in a largest matching of the pairs (Hopcroft and Karp, 1973).

    Largest matchings differ in which events they leave out, and substitutions are counted among those. So the search
    goes through events in the order of the pairs, as sed_eval's does; clips and classes do not influence each other.
    """
    reach: dict[int, list[int]] = {}  # the true events that a detection may be matched with
    for ours, other in zip(mine, theirs, strict=True):
        reach.setdefault(other, []).append(ours)
    partner: dict[int, int] = {}
    for other, choices in reach.items():
        free = next((ours for ours in choices if ours not in partner), None)
        if free is not None:
            partner[free] = other
    while _lengthened(reach, partner):
        pass
    return partner


def _lengthened(reach: dict[int, list[int]], partner: dict[int, int]) -> bool:
    """Whether the matching could be made larger, along shortest paths from free detections to free true events."""
    matched = set(partner.values())
    layer = [other for other in reach if other not in matched]
    arrived: dict[int, int | None] = dict.fromkeys(layer)  # detection: the true event whose partner it is, if any
    behind: dict[int, list[int]] = {}  # true event: the detections of the layer before that lead to it
    ends: list[int] = []
    while layer and not ends:
        reached: dict[int, list[int]] = {}
        for other in layer:
            for ours in reach[other]:
                if ours not in behind:
                    reached.setdefault(ours, []).append(other)
        behind.update(reached)
        layer = []
        for ours in reached:
            if ours in partner:
                layer.append(partner[ours])
                arrived[partner[ours]] = ours
            else:
                ends.append(ours)
    for end in ends:
        _follow(end, behind, arrived, partner)
    return bool(ends)


def _follow(end: int, behind: dict[int, list[int]], arrived: dict[int, int | None], partner: dict[int, int]) -> None:
    """Turns one path that ends in a free true event over, if any is left; its events are not used again."""
    trail = [(end, iter(behind.pop(end, ())))]
    path: list[tuple[int, int]] = []
    while trail:
        ours, choices = trail[-1]
        other = next((choice for choice in choices if choice in arrived), None)
        if other is None:
            trail.pop()
            if path:
                path.pop()
            continue
        path.append((ours, other))
        before = arrived.pop(other)
        if before is None:
            partner.update(path)
            return
        trail.append((before, iter(behind.pop(before, ()))))
