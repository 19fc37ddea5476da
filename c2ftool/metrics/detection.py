"""Scores of frames and true events -> named results, a row for each class.

Axes: N clips, C classes, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2ftool.errors import DataError
from c2ftool.metrics.definitions import check_metrics
from c2ftool.metrics.measured import DetectionSettings, Measured, OfScores, OfTables, median_frames
from c2ftool.metrics.median import median_filter
from c2ftool.metrics.outcome import Score, listed
from c2ftool.metrics.psds import Psds
from c2ftool.metrics.tables import Float64, FrameScores, Int64, Truth, all_finite, are_probabilities

_CLIPS = 256  # filtered, and looked at, at a time


@dataclass(frozen=True)
class DetectionResults:
    """What a model reached on some clips with events.

    absent: classes without an event in them, left out. without_events: clips left out for having none. left_out: events
    of classes that the model does not have, by class. past_end: events that last beyond their clip. per_class: metric
    -> (C,) values of the classes present. roc: the PSD-ROC of PSDS1, where it was asked for.
    """

    clips: int
    classes: tuple[str, ...]
    events: Int64
    scores: dict[str, Score]
    per_class: dict[str, Float64]
    absent: tuple[str, ...]
    without_events: int
    left_out: Mapping[str, int]
    past_end: int
    settings: str
    roc: Psds | None = None

    def values(self) -> dict[str, float]:
        """The scores as numbers by name."""
        return {name: score.value for name, score in self.scores.items()}

    def kind(self) -> str:
        """How many events there are, and what was done to the scores."""
        return f"{int(self.events.sum()):,} events; {self.settings}"

    def notes(self) -> list[str]:
        """What was left out, and what is odd."""
        notes = []
        if self.absent:
            notes.append(f"No clip has an event of {listed(self.absent)}: left out of the means over classes.")
        if self.left_out:
            count = sum(self.left_out.values())
            names = listed(tuple(self.left_out))
            notes.append(f"{count} events of classes that the model does not have were left out: {names}.")
        if self.without_events:
            notes.append(f"{self.without_events} clips without an event of these classes were left out.")
        if self.past_end:
            notes.append(f"{self.past_end} events last beyond the end of their clip.")
        return notes

    def by_class(self) -> tuple[list[tuple[str, float | None]], str]:
        """The first metric that has values of classes."""
        name, values = next(iter(self.per_class.items()), ("events", self.events.astype(np.float64)))
        return [(label, _known(value)) for label, value in zip(self.classes, values, strict=True)], name

    def class_table(self) -> tuple[list[str], list[list[Any]]]:
        """(columns, rows): class, its events, and figures."""
        columns = list(self.per_class)
        rows: list[list[Any]] = [
            [name, int(count), *(_known(self.per_class[column][place]) for column in columns)]
            for place, (name, count) in enumerate(zip(self.classes, self.events, strict=True))
        ]
        return ["class", "events", *columns], rows


def evaluate_detection(
    scores: FrameScores,
    truth: Truth,
    metrics: Sequence[str],
    settings: DetectionSettings,
    *,
    left_out: Mapping[str, int] | None = None,
    probabilities: bool = False,
) -> DetectionResults:
    """The metrics asked for, and a row for every class that has an event.

    scores: logits, or probabilities. truth: of the same clips and classes in the same order, events of a class merged
    where they touch. Raises UsageError for a metric that is unknown or does not fit; DataError for no clips or events,
    and for scores that are not finite.
    """
    check_metrics(metrics, multi_label=True, classes=len(truth.classes), frames=True)
    if scores.ids != truth.ids or scores.classes != truth.classes:
        raise ValueError("scores and truth are of other clips or classes")
    if probabilities:
        _require_probabilities(scores)
    shown, clips, present = _counted(truth, settings)
    smoothed = _smoothed(scores, clips, present, median_frames(settings.median, scores.frame))
    measured = OfScores(shown, settings, scores=smoothed, probabilities=probabilities)
    return _results(measured, truth, metrics, settings.in_words(scores.frame), left_out or {})


def evaluate_found(
    found: Sequence[Truth],
    truth: Truth,
    metrics: Sequence[str],
    settings: DetectionSettings,
    *,
    left_out: Mapping[str, int] | None = None,
) -> DetectionResults:
    """The metrics asked for of detected events: PSDS of the operating points given, F measures of one table.

    found, truth: of the same clips and classes in the same order. Raises as `evaluate_detection`; UsageError besides
    for metrics that need scores, and for F measures of several tables.
    """
    check_metrics(metrics, multi_label=True, classes=len(truth.classes), frames=True)
    shown, clips, present = _counted(truth, settings)
    tables = [table.of_classes(present).of_clips(clips) for table in found]
    count = "1 table" if len(found) == 1 else f"{len(found)} operating points"
    said = f"detections of {count}, {'all clips' if settings.keep_empty else 'clips with events'}"
    return _results(OfTables(shown, settings, tables=tables), truth, metrics, said, left_out or {})


def _counted(truth: Truth, settings: DetectionSettings) -> tuple[Truth, Int64, Int64]:
    """(the truth of the clips and classes that count, their numbers)."""
    present = np.flatnonzero(truth.events_per_class())
    if not len(present):
        raise DataError("no clip has an event of these classes", cure="Choose a split whose clips have events.")
    shown = truth.of_classes(present)
    clips = np.arange(len(truth.ids)) if settings.keep_empty else np.unique(shown.clip)
    return shown.of_clips(clips), clips, present


def _results(
    measured: Measured, truth: Truth, metrics: Sequence[str], settings: str, left_out: Mapping[str, int]
) -> DetectionResults:
    shown, counts = measured.truth, truth.events_per_class()
    values, per_class = {}, {}
    for name in metrics:
        values[name], of_classes = measured.value(name)
        if of_classes is not None:
            per_class[name] = of_classes
    return DetectionResults(
        clips=len(shown.ids),
        classes=shown.classes,
        events=shown.events_per_class(),
        scores={name: Score(name, float(value), measured.definition(name)) for name, value in values.items()},
        per_class=per_class,
        absent=tuple(name for name, count in zip(truth.classes, counts, strict=True) if not count),
        without_events=len(truth.ids) - len(shown.ids),
        left_out=left_out,
        past_end=int((shown.offset > shown.durations[shown.clip] + 1e-6).sum()),
        settings=settings,
        roc=measured.held.get("psds1"),
    )


def _smoothed(scores: FrameScores, clips: Int64, classes: Int64, window: int) -> FrameScores:
    """The scores of some clips and classes after the filter; those given, not copied, where nothing changes."""
    values, frames = scores.values, scores.frames[clips]
    all_clips, all_classes = len(clips) == len(values), len(classes) == values.shape[1]
    if not (all_clips and all_classes and window == 1):
        chosen = np.empty((len(clips), len(classes), values.shape[2]), values.dtype)
        for first in range(0, len(clips), _CLIPS):
            part = slice(first, first + _CLIPS)
            piece = values[clips[part]] if all_classes else values[clips[part]][:, classes]
            _require_finite(piece, frames[part], first)
            if window > 1:
                median_filter(piece, window, lengths=frames[part], out=chosen[part])
            else:
                chosen[part] = piece
        values = chosen
    else:
        for first in range(0, len(clips), _CLIPS):
            _require_finite(values[first : first + _CLIPS], frames[first : first + _CLIPS], first)
    return FrameScores(
        tuple(scores.ids[clip] for clip in clips),
        tuple(scores.classes[number] for number in classes),
        values,
        frames,
        scores.frame,
    )


def _require_finite(values: NDArray[np.floating], frames: Int64, first: int) -> None:
    if all_finite(values):
        return
    inside = ~np.isfinite(values) & (np.arange(values.shape[2]) < frames[:, None, None])
    if inside.any():
        raise DataError(
            f"a score of clip number {first + int(np.flatnonzero(inside.any((1, 2)))[0])} is not finite",
            cure="The weights or the clips hold NaN or infinite values; evaluate an earlier checkpoint.",
        )


def _require_probabilities(scores: FrameScores) -> None:
    if not are_probabilities(scores):
        raise DataError("scores lie outside of 0 to 1, and are no probabilities", cure="Give their sigmoid.")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
