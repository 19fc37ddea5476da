"""Metrics of clips with exactly one label. Among equal scores the lowest class index wins, as in `argmax`.

Axes: N clips, C classes. `labels` are class indices, (N,); `scores` are (N, C).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Counts = NDArray[np.int64]


def label_ranks(labels: Labels, scores: NDArray[np.floating]) -> Labels:
    """How many classes are ahead of each clip's label, (N,): 0 where the label wins.

    A class is ahead with a higher score, or with an equal score and a lower index.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def top_k_accuracy(labels: Labels, scores: NDArray[np.floating], k: int = 1) -> float:
    """Share of clips whose label is among their k highest scores. Raises ValueError without clips or for k < 1."""
    if len(labels) == 0 or k < 1:
        raise ValueError(f"top-{k} accuracy of {len(labels)} clips is not defined")
    return float((label_ranks(labels, scores) < k).mean())


def confusion_matrix(labels: Labels, scores: NDArray[np.floating]) -> Counts:
    """Clips by label (row) and by the class with the highest score (column), (C, C) int64."""
    classes = scores.shape[1]
    return np.bincount(labels * classes + scores.argmax(axis=1), minlength=classes * classes).reshape(classes, classes)


def recall_per_class(confusion: Counts) -> NDArray[np.float64]:
    """Share of each class's clips that were given that class (per-class accuracy), (C,); NaN for a class without."""
    return _share(np.diagonal(confusion), confusion.sum(axis=1))


def precision_per_class(confusion: Counts) -> NDArray[np.float64]:
    """Share of the clips given each class that belong to it, (C,); NaN for a class that no clip was given."""
    return _share(np.diagonal(confusion), confusion.sum(axis=0))


def _share(part: Counts, whole: Counts) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
