"""Scores and detections of any system, in files, measured against true events; scores of several runs, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from c2ftool.errors import DataError, UsageError
from c2ftool.metrics.definitions import check_metrics
from c2ftool.metrics.detection import DetectionResults, evaluate_detection, evaluate_found
from c2ftool.metrics.event_tables import read_detections, read_durations, read_truth
from c2ftool.metrics.measured import DetectionSettings
from c2ftool.metrics.score_tables import load_scores, read_score_tables
from c2ftool.metrics.tables import FrameScores, Truth, are_probabilities

_CLIPS = 256  # looked at, and averaged, at a time
_SHOWN = 5


@dataclass(frozen=True)
class Measured:
    """What was measured of files. notes: what was assumed and left out."""

    name: str
    results: DetectionResults
    notes: list[str]

    @property
    def scores(self) -> dict[str, float]:
        """Metric -> value."""
        return self.results.values()


def measure_scores(
    path: Path, truth: Path, durations: Path, metrics: Sequence[str], settings: DetectionSettings
) -> Measured:
    """Scores of frames, in one HDF5 file or a folder of the field's tables, against true events.

    Scores within 0 to 1 are taken for probabilities, others for logits. Raises MissingError, DataError or UsageError.
    """
    check_metrics(metrics, multi_label=True, classes=2, frames=True)
    scores = read_score_tables(path) if path.is_dir() else load_scores(path)
    table, left_out, notes = _truth_of(truth, durations, scores.classes)
    scored = set(scores.ids)
    if lacking := [name for name in table.ids if name not in scored]:
        raise DataError(
            f"{len(lacking)} of {len(table.ids)} clips have no scores, as {', '.join(lacking[:_SHOWN])}",
            place=str(path),
            cure="Score them, or leave them out of the durations and the truth.",
        )
    place = {name: number for number, name in enumerate(scores.ids)}
    rows = np.array([place[name] for name in table.ids], np.int64)
    if len(rows) < len(scores.ids):
        notes.append(f"{len(scores.ids) - len(rows)} clips with scores and without a duration were left out")
    if len(rows) < len(scores.ids) or (rows != np.arange(len(rows))).any():
        scores = replace(scores, ids=table.ids, values=scores.values[rows], frames=scores.frames[rows])
    probabilities = are_probabilities(scores)
    notes.append("the scores are taken for " + ("probabilities" if probabilities else "logits"))
    results = evaluate_detection(scores, table, metrics, settings, left_out=left_out, probabilities=probabilities)
    return Measured(str(path), results, notes + results.notes())


def measure_detections(
    paths: Sequence[Path], truth: Path, durations: Path, metrics: Sequence[str], settings: DetectionSettings
) -> Measured:
    """Detected events, a table for each operating point, against true events.

    PSDS is that of the operating points given; F measures are of one table. Raises MissingError, DataError, UsageError.
    """
    check_metrics(metrics, multi_label=True, classes=2, frames=True)
    read = read_truth(truth, read_durations(durations))
    table, notes = read.truth, read.notes()
    found = [read_detections(path, table)[0] for path in paths]
    results = evaluate_found(found, table, metrics, settings)
    return Measured(str(paths[0]) if len(paths) == 1 else f"{len(paths)} tables", results, notes + results.notes())


def averaged(paths: Sequence[Path]) -> FrameScores:
    """The mean of several files' logits: of the clips and classes of the first, which all must have."""
    files = [load_scores(path) for path in paths]
    first = files[0]
    for path, other in zip(paths[1:], files[1:], strict=True):
        same = (other.ids, other.classes, other.frame) == (first.ids, first.classes, first.frame)
        if not same or not np.array_equal(other.frames, first.frames) or other.values.shape != first.values.shape:
            raise UsageError(
                "the runs scored other clips, classes or frames", place=str(path), cure="Score the same clips with all."
            )
    values = np.zeros(first.values.shape, np.float32)
    for start in range(0, len(values), _CLIPS):
        part = slice(start, start + _CLIPS)
        for file in files:
            values[part] += file.values[part]
        values[part] /= len(files)
    return replace(first, values=values)


def _truth_of(truth: Path, durations: Path, classes: Sequence[str]) -> tuple[Truth, dict[str, int], list[str]]:
    """(the true events of the classes that have scores, how many there are of each other class, notes)."""
    read = read_truth(truth, read_durations(durations))
    counts = dict(zip(read.truth.classes, read.truth.events_per_class().tolist(), strict=True))
    left_out = {name: count for name, count in counts.items() if name not in set(classes)}
    silent = tuple(name for name in classes if name not in counts)
    whole = replace(read.truth, classes=read.truth.classes + silent)
    number = {name: place for place, name in enumerate(whole.classes)}
    return whole.of_classes(np.array([number[name] for name in classes])), left_out, read.notes()
