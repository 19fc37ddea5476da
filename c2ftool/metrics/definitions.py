"""The metrics by name, as plain data: what a spec may ask for, what the command line lists.

Imports nothing heavy, so that specs can be checked and metrics listed without numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from c2ftool.errors import UsageError

METRICS: Final[dict[str, str]] = {
    "accuracy": "Share of clips whose label has the highest score; of equal scores the first class's counts.",
    "top5": "Share of clips whose label has one of the five highest scores; of equal scores the first classes' count.",
    "map": "Average precision by class, equal scores taken together; the mean over the classes with a positive clip.",
    "auc": "Area under the ROC curve by class; the mean over the classes with a positive and a negative clip.",
    "d_prime": "Distance of two unit normal distributions whose AUC is `auc`: sqrt(2) times its normal quantile.",
}

ONE_LABEL: Final = ("accuracy", "top5")
"""Metrics that need exactly one label per clip."""


def misfit(metric: str, *, multi_label: bool, classes: int) -> str | None:
    """Why the metric says nothing about such data, or None where it fits. Raises UsageError for an unknown name."""
    if metric not in METRICS:
        near = get_close_matches(metric, METRICS, 1)
        raise UsageError(
            f"there is no metric {metric!r}",
            cure=(f"Did you mean {near[0]!r}? " if near else "") + f"The metrics are {', '.join(METRICS)}.",
        )
    if multi_label and metric in ONE_LABEL:
        return f"{metric} needs exactly one label per clip, and these clips may have several"
    if metric == "top5" and classes <= 5:
        return f"top5 is always 1 with {classes} classes"
    return None


def check_metrics(metrics: Sequence[str], *, multi_label: bool, classes: int) -> None:
    """Nothing, if every metric is known and fits the data; otherwise raises UsageError naming all that do not."""
    reasons = [reason for m in metrics if (reason := misfit(m, multi_label=multi_label, classes=classes))]
    if reasons:
        fitting = [m for m in METRICS if misfit(m, multi_label=multi_label, classes=classes) is None]
        raise UsageError("; ".join(reasons), cure=f"Choose from {', '.join(fitting)}.")
