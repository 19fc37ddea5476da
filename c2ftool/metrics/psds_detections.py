"""PSDS and intersection F1 of detections, as events with times, at given operating points: what psds_eval computes.

Equal to psds_eval within 1e-9. It differs from PSDS over all thresholds (`psds`) in more than the number of points:
shares are compared as they are, without rounding times; a detection that lies beyond its clip's duration is no false
positive; an event of no length does not count; events of a class that overlap are counted each (psds_eval 0.5.3
refuses them, earlier ones did not).

Axes: C classes, D detections, P operating points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from c2ftool.errors import DataError
from c2ftool.metrics.psds import HOUR, Psds, PsdsSettings, results
from c2ftool.metrics.psds_changes import Criteria
from c2ftool.metrics.psds_curve import NO_CURVE, class_curve
from c2ftool.metrics.psds_events import check_times, events_by
from c2ftool.metrics.tables import Truth

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

OwnClass = Literal["left out", "counted as 0"]


@dataclass(frozen=True)
class Detections:
    """Detected events in any order: d is of class label[d] in clip clip[d] of a truth.

    clip, label: (D,) numbers; what is of no clip or class of the truth has -1 and counts nowhere.
    onset, offset: (D,) seconds; one of no length does not count.
    """

    clip: Int64
    label: Int64
    onset: Float64
    offset: Float64


@dataclass(frozen=True)
class Counts:
    """What detections of each class hit: events found (C,), false positives (C,), and how many of those trigger on
    the class of another event (C, C), detections' class first."""

    found: Int64
    false: Int64
    crossed: Int64

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.found + other.found, self.false + other.false, self.crossed + other.crossed)


@dataclass(frozen=True)
class Rates:
    """Counts by how much there is: tpr (C,) of events, 0 without one; fpr (C,) per hour; ctr (C, C) per hour of the
    other class's events, 0 where it has none."""

    tpr: Float64
    fpr: Float64
    ctr: Float64


@dataclass(frozen=True)
class IntersectionF1:
    """F1 by class (C,), NaN for a class without an event; macro: the mean over the others; absent: classes without."""

    per_class: Float64
    macro: float
    absent: tuple[str, ...]
    definition: str


def count(detections: Detections, truth: Truth, criteria: Criteria) -> Counts:
    """What the detections find and miss. Raises DataError for detections whose times make no sense.

    A detection is relevant if the class's events take at least dtc of it, an event is found if relevant detections
    take at least gtc of it, and a detection that is not relevant triggers on a class that takes at least cttc of it.
    """
    clips, classes = len(truth.ids), len(truth.classes)
    detections = _sorted(detections, clips, classes)
    onset, offset = detections.onset, detections.offset
    length = offset - onset
    by_class = events_by(truth.label * clips + truth.clip, classes * clips, truth)
    shared = by_class.overlaps(detections.label * clips + detections.clip, onset, offset)
    relevant = np.bincount(shared.interval, shared.seconds / length[shared.interval], len(length)) >= criteria.dtc
    # without an overlap nothing is relevant or found, whatever the criteria
    relevant &= np.bincount(shared.interval, minlength=len(length)) > 0
    kept = relevant[shared.interval]
    event = shared.event[kept]
    part = shared.seconds[kept] / (by_class.offset - by_class.onset)[event]
    found = np.bincount(event, part, len(truth.label)) >= criteria.gtc
    found &= np.bincount(event, minlength=len(truth.label)) > 0

    inside = (onset < truth.durations[detections.clip]) & (offset > 0)
    crossed = np.zeros((classes, classes), np.int64)
    if criteria.cttc is not None:
        by_clip = events_by(truth.clip, clips, truth)
        wrong = np.flatnonzero(~relevant)
        shared = by_clip.overlaps(detections.clip[wrong], onset[wrong], offset[wrong])
        key = shared.interval * classes + by_clip.label[shared.event]
        pairs, place = np.unique(key, return_inverse=True)
        share = np.bincount(place, shared.seconds / length[wrong[shared.interval]], len(pairs))
        own, other = detections.label[wrong[pairs // classes]], pairs % classes
        hit = (share >= criteria.cttc) & (own != other)
        np.add.at(crossed, (own[hit], other[hit]), 1)
    return Counts(
        np.bincount(by_class.label[found], minlength=classes).astype(np.int64),
        np.bincount(detections.label[inside & ~relevant], minlength=classes).astype(np.int64),
        crossed,
    )


def rates(counts: Counts, truth: Truth) -> Rates:
    """The rates of counts over the whole truth."""
    truth = _with_length(truth)
    classes = len(truth.classes)
    events = truth.events_per_class()
    seconds = np.bincount(truth.label, truth.offset - truth.onset, classes)
    return Rates(
        np.divide(counts.found, events, out=np.zeros(classes), where=events > 0),
        (counts.false * HOUR / truth.durations.sum()).astype(np.float64),
        np.divide(counts.crossed * HOUR, seconds, out=np.zeros((classes, classes)), where=seconds > 0),
    )


def psds_of_detections(
    points: Iterable[Detections],
    truth: Truth,
    settings: PsdsSettings,
    *,
    own_class: OwnClass = "left out",
    name: str = "PSDS of given operating points",
) -> Psds:
    """PSDS of the best staircase through operating points, each being all detections of one setting of a system.

    own_class: how a class itself enters the mean of its cross-trigger rates over classes: psds_eval 0.5.3 leaves it
    out, 0.3.0 counted it as 0. name: how the result's definition begins.
    Raises DataError for times that make no sense. Without any event the value is 0.
    """
    criteria = Criteria(settings.dtc, settings.gtc, settings.cttc)
    check_times(truth)
    counted = [count(point, truth, criteria) for point in points]
    return psds_of_counts(counted, truth, settings, own_class=own_class, name=name)


def psds_of_counts(
    counts: Iterable[Counts], truth: Truth, settings: PsdsSettings, *, own_class: OwnClass, name: str
) -> Psds:
    """The same from counts of each operating point over the whole truth."""
    present = _with_length(truth).events_per_class() > 0
    others = max(1, int(present.sum()) - (own_class == "left out"))
    points = [rates(counted, truth) for counted in counts]
    curves = []
    for label in range(len(truth.classes)):
        if not present[label]:
            curves.append(NO_CURVE)
            continue
        efpr = [point.fpr[label] + settings.alpha_ct * point.ctr[label].sum() / others for point in points]
        tpr = [point.tpr[label] for point in points]
        curves.append(class_curve(np.array(efpr, np.float64), np.array(tpr, np.float64), settings.max_efpr))
    return results(tuple(curves), truth.classes, settings, f"{name} ({len(points)})")


def intersection_f1(detections: Detections, truth: Truth, dtc: float, gtc: float) -> IntersectionF1:
    """F1 of one operating point, events found against events missed and detections that are not relevant.

    The macro mean counts a class of which no event is found as 0; psds_eval's compute_macro_f_score leaves it out.
    """
    check_times(truth)
    counts = count(detections, truth, Criteria(dtc, gtc, None))
    events = _with_length(truth).events_per_class()
    per_class = np.full(len(events), np.nan)
    present = events > 0
    hits = 2.0 * counts.found[present]
    per_class[present] = hits / (hits + counts.false[present] + (events - counts.found)[present])
    return IntersectionF1(
        per_class,
        float(per_class[present].mean()) if present.any() else np.nan,
        tuple(name for name, there in zip(truth.classes, present, strict=True) if not there),
        f"intersection F1: dtc {dtc:g}, gtc {gtc:g}, mean over classes with an event",
    )


def _with_length(truth: Truth) -> Truth:
    kept = truth.offset > truth.onset
    return replace(
        truth, clip=truth.clip[kept], label=truth.label[kept], onset=truth.onset[kept], offset=truth.offset[kept]
    )


def _sorted(detections: Detections, clips: int, classes: int) -> Detections:
    """Those that count, by class, clip and onset."""
    clip, label, onset, offset = detections.clip, detections.label, detections.onset, detections.offset
    if not (np.isfinite(onset) & np.isfinite(offset) & (offset >= onset)).all():
        raise DataError(
            "a detection has no valid times", cure="Times are finite seconds, the offset not before the onset."
        )
    if len(clip) and not (-1 <= clip.min() <= clip.max() < clips and -1 <= label.min() <= label.max() < classes):
        raise ValueError(f"detections name clips or classes beyond the truth's {clips} and {classes}")
    kept = np.flatnonzero((clip >= 0) & (label >= 0) & (offset > onset))
    order = kept[np.lexsort((onset[kept], clip[kept], label[kept]))]
    return Detections(clip[order], label[order], onset[order], offset[order])
