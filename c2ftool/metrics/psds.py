"""PSDS of scores over time, exact and over all thresholds: no operating points are chosen.

The definition is that of Bilen et al., "A framework for the robust evaluation of sound event detection" (ICASSP 2020),
computed without thresholds as Ebbers et al., "Threshold-independent evaluation of sound event detection scores"
(ICASSP 2022), do; equal to `sed_scores_eval.intersection_based.psds` within 1e-9.

For class c and a threshold, detections are the maximal runs of frames with a score >= it. A detection is *relevant* if
what it shares with the class's events is at least `dtc` of its length; otherwise it is one false positive. An event is
found if relevant detections cover at least `gtc` of it. TPR is found / events; eFPR is false positives per hour of the
clips' durations, plus alpha_ct times the mean over other classes of cross-triggers per hour of that class's events, a
cross-trigger being a false positive that shares at least `cttc` of its length with that class's events.

How the thresholds are done without: no threshold matters at which the clips without an event alone give too many false
positives (each has at least one run where its highest score passes). In those clips only local maxima and minima
change the count. In the other clips every distinct run lives for one range of thresholds (`psds_runs`), so that its
relevance and overlaps are computed once.

Axes: N clips, C classes, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from c2ftool.metrics.psds_changes import Criteria, CrossTriggers
from c2ftool.metrics.psds_classes import Look, changes_of_classes
from c2ftool.metrics.psds_curve import NO_CURVE, Curve, class_curve, effective_curve
from c2ftool.metrics.psds_events import check_truth, events_by
from c2ftool.metrics.psds_scores import Scores
from c2ftool.metrics.tables import FrameScores, Truth

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

HOUR = 3600.0


@dataclass(frozen=True)
class PsdsSettings:
    """What PSDS is computed by. Raises ValueError for values that have no meaning.

    dtc, gtc, cttc: shares, above 0 and up to 1; cttc is None exactly where alpha_ct is 0. alpha_ct: weight of
    cross-triggers. alpha_st: how many standard deviations over the classes are taken off the mean. max_efpr: per hour.
    """

    dtc: float
    gtc: float
    cttc: float | None = None
    alpha_ct: float = 0.0
    alpha_st: float = 0.0
    max_efpr: float = 100.0

    def __post_init__(self) -> None:
        for name, share in (("dtc", self.dtc), ("gtc", self.gtc), ("cttc", self.cttc)):
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {share}")
        if not 0 <= self.alpha_ct < np.inf or not 0 <= self.alpha_st < np.inf or not 0 < self.max_efpr < np.inf:
            raise ValueError("alpha_ct and alpha_st must not be negative, and max_efpr must be positive")
        if (self.cttc is None) != (self.alpha_ct == 0):
            raise ValueError(
                f"cttc belongs to cross-triggers that count: alpha_ct is {self.alpha_ct}, cttc {self.cttc}"
            )

    def penalised(self, alpha_st: float) -> PsdsSettings:
        """The same with another penalty for differences between classes."""
        return replace(self, alpha_st=alpha_st)

    def __str__(self) -> str:
        cross = "" if self.cttc is None else f"cttc {self.cttc:g}, alpha_ct {self.alpha_ct:g}, "
        return f"dtc {self.dtc:g}, gtc {self.gtc:g}, {cross}alpha_st {self.alpha_st:g}, max eFPR {self.max_efpr:g}/h"


PSDS1 = PsdsSettings(0.7, 0.7)
"""Scenario 1: reacts where the event is. Without penalty; DCASE's is PSDS1.penalised(1)."""

PSDS2 = PsdsSettings(0.1, 0.1, 0.3, 0.5)
"""Scenario 2: tells classes apart. Without penalty; DCASE's is PSDS2.penalised(1)."""


@dataclass(frozen=True)
class Psds:
    """What scores reach.

    value: PSDS of the effective curve (mean over classes less alpha_st standard deviations). per_class: (C,) PSDS of
    each class alone, NaN for a class without an event. macro: their mean. absent: classes without an event, left out
    of both. curves: C, empty for absent classes. effective: what `value` is the area of. definition: in words.
    """

    value: float
    per_class: Float64
    macro: float
    classes: tuple[str, ...]
    absent: tuple[str, ...]
    curves: tuple[Curve, ...]
    effective: Curve
    settings: PsdsSettings
    definition: str

    def penalised(self, alpha_st: float) -> Psds:
        """The same with another penalty, from the same curves: no scores are read again."""
        return results(self.curves, self.classes, self.settings.penalised(alpha_st), self.definition.split(": ")[0])


def psds(scores: FrameScores, truth: Truth, settings: PsdsSettings) -> Psds:
    """PSDS over all thresholds, with the curve and the PSDS of each class.

    The truth says which clips and classes count: `scores` must have them all, in any order, and what else it has is
    not looked at. Frames count as long as the scores go, also beyond a clip's duration; the rate is per hour of the
    durations. -inf is never detected.
    Raises DataError for NaN among the scores, missing clips or classes, and what `check_truth` refuses.
    """
    check_truth(truth)
    view = Scores.of(scores, truth)
    clips, classes = len(truth.ids), len(truth.classes)
    by_class = events_by(truth.label * clips + truth.clip, classes * clips, truth)
    counts = truth.events_per_class()
    cross = _crossing(truth, counts, settings)
    highest = view.highest()
    hours = float(truth.durations.sum()) / HOUR
    too_many = int(settings.max_efpr * hours * (1 + 1e-9)) + 1  # false positives that are certainly beyond the limit
    present = np.flatnonzero(counts)
    looks = [
        Look.at(int(label), highest[label], view.lowest, by_class, too_many, cross is not None) for label in present
    ]
    curves = [NO_CURVE] * classes
    criteria = Criteria(settings.dtc, settings.gtc, settings.cttc)
    for label, changes in changes_of_classes(view, looks, by_class, criteria, cross):
        false, hits, crossed = changes.counts()
        efpr = false / hours + settings.alpha_ct * crossed * HOUR
        curves[label] = _curve(efpr, hits, int(counts[label]), settings.max_efpr)
    return results(tuple(curves), truth.classes, settings, "PSDS over all thresholds, exact")


def results(curves: tuple[Curve, ...], classes: tuple[str, ...], settings: PsdsSettings, name: str) -> Psds:
    """All figures of class curves, C, a class without an event having none. Without any curve the value is 0."""
    present = [curve for curve in curves if len(curve.efpr)]
    per_class = np.array([curve.area(settings.max_efpr) if len(curve.efpr) else np.nan for curve in curves])
    effective = effective_curve(present, settings.alpha_st, settings.max_efpr)
    return Psds(
        value=effective.area(settings.max_efpr),
        per_class=per_class,
        macro=float(np.nanmean(per_class)) if present else np.nan,
        classes=classes,
        absent=tuple(name for name, curve in zip(classes, curves, strict=True) if len(curve.efpr) == 0),
        curves=curves,
        effective=effective,
        settings=settings,
        definition=f"{name}: {settings}",
    )


def _crossing(truth: Truth, counts: Int64, settings: PsdsSettings) -> CrossTriggers | None:
    """How cross-triggers weigh: by the hour of the other class's events, averaged over the other classes."""
    others = int((counts > 0).sum()) - 1
    if settings.cttc is None or others == 0:
        return None
    seconds = np.bincount(truth.label, truth.offset - truth.onset, len(counts))
    weights = 1.0 / (np.maximum(seconds, 1e-12) * others)
    return CrossTriggers(events_by(truth.clip, len(truth.ids), truth), -1, weights, settings.cttc)


def _curve(efpr: Float64, hits: Int64, events: int, until: float) -> Curve:
    """The class's curve from its counts at falling thresholds. Of thresholds with the same TPR the cheapest is kept."""
    if len(hits) == 0:
        return class_curve(efpr, hits / events, until)
    starts = np.flatnonzero(np.concatenate(([True], hits[1:] != hits[:-1])))
    return class_curve(np.minimum.reduceat(efpr, starts), hits[starts] / events, until)
