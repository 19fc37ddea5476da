"""PSD-ROC curves: from operating points to staircases, over classes to the effective curve, to an area.

eFPR: effective false positives per hour; TPR: share of a class's events found. A staircase holds its value from one
eFPR up to the next, so that every point on it was reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
_POINTS = 1 << 12  # points of the effective curve worked on at once: bounds the classes x points table


@dataclass(frozen=True)
class Curve:
    """A staircase: from efpr[i] on (false positives per hour, rising, from 0) the rate is tpr[i]. Both (P,)."""

    efpr: Float64
    tpr: Float64

    def at(self, efpr: Float64) -> Float64:
        """The rate at each eFPR, in the shape given; a curve without points is 0 everywhere."""
        if len(self.efpr) == 0:
            return np.zeros_like(efpr)
        return self.tpr[np.searchsorted(self.efpr, efpr, "right") - 1]

    def area(self, until: float) -> float:
        """Mean of the staircase from 0 to `until`, which is the PSDS of this curve."""
        if len(self.efpr) == 0:
            return 0.0
        inside = self.efpr <= until
        widths = np.diff(np.append(self.efpr[inside], until))
        return float(np.sum(self.tpr[inside] * widths) / until)


NO_CURVE = Curve(np.zeros(0), np.zeros(0))
"""Of a class without an event."""


def class_curve(efpr: Float64, tpr: Float64, until: float) -> Curve:
    """The best staircase through operating points (P,) in any order, and through nothing found at no cost.

    A point that another one beats or equals in both rates is left out, and so is what lies beyond `until`.
    """
    efpr, tpr = np.append(efpr, 0.0), np.append(tpr, 0.0)
    order = np.lexsort((-tpr, efpr))  # of points at the same eFPR the best first
    efpr, tpr = efpr[order], tpr[order]
    best_before = np.concatenate(([-1.0], np.maximum.accumulate(tpr)[:-1]))
    kept = (tpr > best_before) & (efpr <= until)
    return Curve(efpr[kept], tpr[kept])


def effective_curve(curves: Sequence[Curve], alpha_st: float, until: float) -> Curve:
    """The mean of class curves less alpha_st times their (population) standard deviation, not below 0.

    On the union of the curves' eFPRs; not rising everywhere where alpha_st is not 0. No curves: nothing is found.
    """
    if not curves:
        return Curve(np.zeros(1), np.zeros(1))
    union = np.unique(np.concatenate([curve.efpr for curve in curves]))
    union = union[union <= until]
    tpr = np.empty(len(union))
    for start in range(0, len(union), _POINTS):
        part = slice(start, start + _POINTS)
        table = np.stack([curve.at(union[part]) for curve in curves])
        tpr[part] = np.maximum(table.mean(axis=0) - alpha_st * table.std(axis=0), 0.0)
    return Curve(union, tpr)
