"""Scores of clips -> named results, a table by class, a confusion matrix.

Axes: N clips, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2ftool.errors import DataError
from c2ftool.metrics.accuracy import confusion_matrix, precision_per_class, recall_per_class, top_k_accuracy
from c2ftool.metrics.average_precision import average_precision, d_prime, roc_auc
from c2ftool.metrics.definitions import METRICS, check_metrics
from c2ftool.metrics.outcome import Score, listed


@dataclass(frozen=True)
class ClassRow:
    """One class. `clips`: its positive clips. A figure is None where it is not defined or not for such data.

    recall (which is the class's accuracy) and precision: of the class with the highest score, one label per clip only.
    """

    name: str
    clips: int
    ap: float | None
    auc: float | None
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class ClipResults:
    """What a model reached on some clips."""

    clips: int
    classes: tuple[str, ...]
    multi_label: bool
    scores: dict[str, Score]  # in the order asked for
    per_class: list[ClassRow]
    confusion: NDArray[np.int64] | None  # (C, C), label by prediction; one label per clip only
    without_positive: tuple[str, ...]  # classes that no clip has: left out of map, auc and d_prime

    def values(self) -> dict[str, float]:
        """The scores as numbers by name."""
        return {name: score.value for name, score in self.scores.items()}

    def kind(self) -> str:
        """How many labels a clip has."""
        return "one or more labels per clip" if self.multi_label else "one label per clip"

    def notes(self) -> list[str]:
        """The classes that no clip has."""
        if not self.without_positive:
            return []
        return [f"No clip has the label of {listed(self.without_positive)}: left out of the means over classes."]

    def by_class(self) -> tuple[list[tuple[str, float | None]], str]:
        """Recall with one label per clip, average precision with several."""
        if self.multi_label:
            return [(row.name, row.ap) for row in self.per_class], "average precision"
        return [(row.name, row.recall) for row in self.per_class], "recall"

    def class_table(self) -> tuple[list[str], list[list[Any]]]:
        """(columns, rows): class, its clips, and figures."""
        columns = ["ap", "auc"] if self.multi_label else ["recall", "precision", "ap", "auc"]
        rows = [[row.name, row.clips, *(getattr(row, column) for column in columns)] for row in self.per_class]
        return ["class", "clips", *columns], rows


def evaluate_clips(
    targets: ArrayLike, scores: ArrayLike, classes: Sequence[str], metrics: Sequence[str], multi_label: bool
) -> ClipResults:
    """The metrics asked for, a row for every class and, with one label per clip, the confusion matrix.

    targets: (N, C), 0 or 1. scores: (N, C), logits or probabilities: only their order counts, within a clip for
    accuracy and top5, within a class for the others. classes: C names.
    Raises UsageError for a metric that is unknown or does not fit the data; DataError for no clips, for scores that
    are not finite, for clips without exactly one label where one is due, and for a metric that no class allows.
    """
    check_metrics(metrics, multi_label=multi_label, classes=len(classes))
    marks, values = np.asarray(targets).astype(np.bool_), np.asarray(scores)
    if values.shape != marks.shape or values.shape[1:] != (len(classes),):
        raise ValueError(f"targets {marks.shape} and scores {values.shape} do not fit {len(classes)} classes")
    if len(values) == 0:
        raise DataError("there are no clips to evaluate", cure="Choose a split or a fold that has clips.")
    _require_finite(values)

    positives = marks.sum(axis=0)
    ap, auc = average_precision(marks, values), roc_auc(marks, values)
    confusion: NDArray[np.int64] | None = None
    labels = np.zeros(0, np.int64)
    recall = precision = np.full(len(classes), np.nan)
    if not multi_label:
        labels = _one_label(marks)
        confusion = confusion_matrix(labels, values)
        recall, precision = recall_per_class(confusion), precision_per_class(confusion)

    compute: dict[str, Callable[[], float]] = {
        "accuracy": lambda: top_k_accuracy(labels, values, 1),
        "top5": lambda: top_k_accuracy(labels, values, 5),
        "map": lambda: _class_mean("map", ap),
        "auc": lambda: _class_mean("auc", auc),
        "d_prime": lambda: d_prime(_class_mean("d_prime", auc)),
    }
    columns = zip(classes, positives, ap, auc, recall, precision, strict=True)
    return ClipResults(
        clips=len(values),
        classes=tuple(classes),
        multi_label=multi_label,
        scores={name: Score(name, compute[name](), METRICS[name]) for name in metrics},
        per_class=[ClassRow(name, int(count), *map(_known, figures)) for name, count, *figures in columns],
        confusion=confusion,
        without_positive=tuple(name for name, count in zip(classes, positives, strict=True) if count == 0),
    )


def _require_finite(scores: NDArray[np.floating]) -> None:
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        first = ", ".join(str(row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise DataError(
            f"{len(bad)} of {len(scores)} clips have a score that is not finite (rows {first})",
            cure="The weights or the clips hold NaN or infinite values; evaluate an earlier checkpoint.",
        )


def _one_label(marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Each clip's class index, (N,). Raises DataError where a clip has none or several."""
    counts = marks.sum(axis=1)
    wrong = np.flatnonzero(counts != 1)
    if len(wrong):
        raise DataError(
            f"{len(wrong)} of {len(marks)} clips do not have exactly one label (row {wrong[0]} has {counts[wrong[0]]})",
            cure="Evaluate these data as multi-label, with map.",
        )
    return marks.argmax(axis=1).astype(np.int64)


def _class_mean(metric: str, values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    if len(known) == 0:
        raise DataError(
            f"{metric} is not defined: no class has both positive and negative clips"
            if metric != "map"
            else "map is not defined: no class has a positive clip",
            cure="Evaluate clips of at least two classes.",
        )
    return float(known.mean())


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
