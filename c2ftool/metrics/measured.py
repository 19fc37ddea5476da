"""Single metrics of detection, by name, of scores of frames or of tables of events.

Axes: N clips, C classes, T frames.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from c2ftool.errors import UsageError
from c2ftool.metrics.decode import Times, decode
from c2ftool.metrics.definitions import METRICS
from c2ftool.metrics.events import Agreement, event_based
from c2ftool.metrics.psds import PSDS1, PSDS2, Psds, PsdsSettings, psds
from c2ftool.metrics.psds_50 import psds_50
from c2ftool.metrics.psds_detections import Detections, intersection_f1, psds_of_detections
from c2ftool.metrics.segments import partial_auroc, segment_based
from c2ftool.metrics.tables import Float64, FrameScores, Truth
from c2ftool.spec.running import Postprocess


@dataclass(frozen=True)
class DetectionSettings:
    """What becomes of scores before they are measured. Durations in seconds.

    median: of the filter over a class's frames, rounded to whole ones. threshold: probability from which on a frame is
    part of an event. min_duration, times: see `decode`. keep_empty: whether clips without an event are measured.
    backend: that computes psds1_50 and psds2_50: c2ftool, or psds_eval.
    """

    median: float = 0.0
    threshold: float = 0.5
    min_duration: float = 0.0
    times: Times = "frame"
    keep_empty: bool = False
    backend: str = "c2ftool"

    @classmethod
    def of(cls, given: Postprocess, empty: str) -> DetectionSettings:
        """Those of a spec's `evaluate` section."""
        return cls(
            given.median.seconds, given.threshold, given.min_duration.seconds, given.times, keep_empty=empty == "keep"
        )

    def in_words(self, frame: float) -> str:
        """The settings as reports name them."""
        window = median_frames(self.median, frame)
        clips = "all clips" if self.keep_empty else "clips with events"
        smoothed = f"median filter of {window} frames" if window > 1 else "no median filter"
        return f"{smoothed}, threshold {self.threshold:g} for F measures, {clips}"


def median_frames(seconds: float, frame: float) -> int:
    """Frames of a median filter: the nearest whole number, halves to even (250 ms at 40 ms are 6); at least 1."""
    return max(1, round(round(seconds / frame, 6)))


def logit(probability: float) -> float:
    """The score that a probability stands for."""
    return math.log(probability / (1 - probability))


@dataclass
class Measured(ABC):
    """What is measured against a truth, and what has been computed of it."""

    truth: Truth
    settings: DetectionSettings
    held: dict[str, Any] = field(default_factory=dict)

    @abstractmethod
    def psds(self, settings: PsdsSettings) -> Psds:
        """Over all operating points that there are."""

    @abstractmethod
    def events(self) -> Truth:
        """The detections of one operating point."""

    @abstractmethod
    def scores_for(self, metric: str) -> FrameScores:
        """The scores, for a metric that is computed from them."""

    @property
    @abstractmethod
    def least(self) -> float:
        """The least that a score can be."""

    @abstractmethod
    def probabilities_for(self, metric: str) -> FrameScores:
        """The scores as probabilities."""

    def definition(self, metric: str) -> str:
        """What the value is."""
        return METRICS[metric]

    def value(self, metric: str) -> tuple[float, Float64 | None]:
        """(the value, (C,) of the classes where the metric has them)."""
        match metric:
            case "psds1" | "psds2":
                return self._psds(metric).macro, self._psds(metric).per_class
            case "psds1_variance" | "psds2_variance":
                return self._psds(metric.removesuffix("_variance")).value, None
            case "psds1_50" | "psds2_50":
                kind = _SETTINGS[metric.removesuffix("_50")]
                backend: Literal["c2ftool", "psds_eval"] = (
                    "psds_eval" if self.settings.backend == "psds_eval" else "c2ftool"
                )
                return psds_50(self.probabilities_for(metric), self.truth, kind, backend).value, None
            case "pauroc":
                areas = partial_auroc(self.scores_for(metric), self.truth, unscored=self.least)
                return float(np.nanmean(areas)), areas
            case "segment_f1":
                agreement = self._once("segments", lambda: segment_based(self.truth, self._events(), 1.0))
                return _macro(agreement)
            case "segment_error":
                agreement = self._once("segments", lambda: segment_based(self.truth, self._events(), 1.0))
                return agreement.overall().error_rate, None
            case "event_f1":
                return _macro(event_based(self.truth, self._events(), 0.2, 0.2))
            case "onset_f1_20ms" | "onset_f1_50ms" | "onset_f1_200ms":
                collar = int(metric.removeprefix("onset_f1_").removesuffix("ms")) / 1000
                return _overall(event_based(self.truth, self._events(), collar))
            case "onset_offset_f1_50ms":
                return _overall(event_based(self.truth, self._events(), 0.05, 0.2))
            case "intersection_f1":
                found_f1 = intersection_f1(detections_of(self._events()), self.truth, 0.5, 0.5)
                return found_f1.macro, found_f1.per_class
        raise UsageError(f"there is no metric {metric!r} of events")

    def _psds(self, metric: str) -> Psds:
        settings = replace(_SETTINGS[metric], alpha_st=1.0)
        found: Psds = self._once(metric, lambda: self.psds(settings))
        return found

    def _events(self) -> Truth:
        found: Truth = self._once("events", self.events)
        return found

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.held:
            self.held[name] = make()
        return self.held[name]


@dataclass
class OfScores(Measured):
    """Filtered scores of frames: all thresholds, or the one of the settings."""

    scores: FrameScores = field(kw_only=True)
    probabilities: bool = field(kw_only=True)

    def psds(self, settings: PsdsSettings) -> Psds:
        return psds(self.scores, self.truth, settings)

    def events(self) -> Truth:
        level = self.settings.threshold if self.probabilities else logit(self.settings.threshold)
        return decode(self.scores, level, self.settings.min_duration, times=self.settings.times)

    def scores_for(self, metric: str) -> FrameScores:
        return self.scores

    @property
    def least(self) -> float:
        return 0.0 if self.probabilities else -math.inf

    def probabilities_for(self, metric: str) -> FrameScores:
        if self.probabilities:
            return self.scores
        with np.errstate(over="ignore"):
            return replace(self.scores, values=1 / (1 + np.exp(-self.scores.values.astype(np.float64))))


@dataclass
class OfTables(Measured):
    """Detections, a table for each operating point."""

    tables: list[Truth] = field(kw_only=True)

    def definition(self, metric: str) -> str:
        points = f"of {len(self.tables)} operating points" if len(self.tables) > 1 else "of one operating point"
        return METRICS[metric].replace("over all thresholds", points)

    def psds(self, settings: PsdsSettings) -> Psds:
        return psds_of_detections([detections_of(table) for table in self.tables], self.truth, settings)

    def events(self) -> Truth:
        if len(self.tables) > 1:
            raise UsageError(
                f"F measures are of one table of detections, and {len(self.tables)} are given", cure="Give one."
            )
        return self.tables[0]

    def scores_for(self, metric: str) -> FrameScores:
        raise UsageError(f"{metric} is computed from scores, and these are detections", cure="Give --scores.")

    @property
    def least(self) -> float:
        return 0.0

    def probabilities_for(self, metric: str) -> FrameScores:
        return self.scores_for(metric)


def detections_of(events: Truth) -> Detections:
    """A table of events as detections."""
    return Detections(events.clip, events.label, events.onset, events.offset)


_SETTINGS: dict[str, PsdsSettings] = {"psds1": PSDS1, "psds2": PSDS2}


def _macro(agreement: Agreement) -> tuple[float, Float64]:
    agreement = replace(agreement, silent_is_zero=True)
    return agreement.macro().f1, agreement.per_class().f1


def _overall(agreement: Agreement) -> tuple[float, Float64]:
    agreement = replace(agreement, silent_is_zero=True)
    return agreement.overall().f1, agreement.per_class().f1
