"""The metrics by name, as plain data: what a spec may ask for, what the command line lists.

Imports nothing heavy, so that specs can be checked and metrics listed without numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from c2ftool.errors import UsageError
from c2ftool.spec.running import CLIP_METRICS

METRICS: Final[dict[str, str]] = {
    "accuracy": "Share of clips whose label has the highest score; of equal scores the first class's counts.",
    "top5": "Share of clips whose label has one of the five highest scores; of equal scores the first classes' count.",
    "map": "Average precision by class, equal scores taken together; the mean over the classes with a positive clip.",
    "auc": "Area under the ROC curve by class; the mean over the classes with a positive and a negative clip.",
    "d_prime": "Distance of two unit normal distributions whose AUC is `auc`: sqrt(2) times its normal quantile.",
    "psds1": "PSDS1 over all thresholds (Ebbers et al., ICASSP 2022): DTC 0.7, GTC 0.7, up to 100 false positives per "
    "hour; the mean of the classes' own scores, without a penalty on their variance.",
    "psds2": "PSDS2 over all thresholds: DTC 0.1, GTC 0.1, CTTC 0.3, alpha_CT 0.5, up to 100 false positives per "
    "hour; the mean of the classes' own scores, without a penalty on their variance.",
    "psds1_variance": "PSDS1 over all thresholds with alpha_ST 1: at each rate of false positives the mean of the "
    "classes less their standard deviation.",
    "psds2_variance": "PSDS2 over all thresholds with alpha_ST 1: at each rate of false positives the mean of the "
    "classes less their standard deviation.",
    "psds1_50": "PSDS1 at 50 thresholds, 0.01 to 0.99, as psds_eval 0.5.3 computes it (Bilen et al., ICASSP 2020), "
    "alpha_ST 0; not comparable with psds1.",
    "psds2_50": "PSDS2 at 50 thresholds, 0.01 to 0.99, as psds_eval 0.5.3 computes it (Bilen et al., ICASSP 2020), "
    "alpha_ST 0; not comparable with psds2.",
    "pauroc": "Area under the ROC curve up to a false positive rate of 0.1, over 0.1 (chance is 0.05), in segments of "
    "1 s (sed_scores_eval 0.0.4); the mean over classes.",
    "segment_f1": "F measure in segments of 1 s at the threshold of evaluate.postprocess, the mean over classes, 0 for "
    "one without detections (sed_eval, class-wise average, zero_score).",
    "segment_error": "Error rate in segments of 1 s, all classes together (sed_eval, overall); less is better.",
    "event_f1": "F measure of events by onset (200 ms) and offset (200 ms or 20 % of the length), the mean over "
    "classes, 0 for one without detections (sed_eval, class-wise average, zero_score).",
    "onset_f1_20ms": "F measure of events by their onset, within 20 ms, all classes together (sed_eval, overall).",
    "onset_f1_50ms": "F measure of events by their onset, within 50 ms, all classes together (sed_eval, overall).",
    "onset_f1_200ms": "F measure of events by their onset, within 200 ms, all classes together (sed_eval, overall).",
    "onset_offset_f1_50ms": "F measure of events by onset (50 ms) and offset (50 ms or 20 % of the length), all "
    "classes together (sed_eval, overall).",
    "intersection_f1": "F measure of events by intersection (DTC 0.5, GTC 0.5), the mean over classes, 0 for one "
    "of which nothing is found (psds_eval leaves such a class out).",
}

ONE_LABEL: Final = ("accuracy", "top5")
"""Metrics that need exactly one label per clip."""


def misfit(metric: str, *, multi_label: bool, classes: int, frames: bool = False) -> str | None:
    """Why the metric says nothing about such data, or None where it fits. Raises UsageError for an unknown name."""
    if metric not in METRICS:
        near = get_close_matches(metric, METRICS, 1)
        raise UsageError(
            f"there is no metric {metric!r}",
            cure=(f"Did you mean {near[0]!r}? " if near else "") + f"The metrics are {', '.join(METRICS)}.",
        )
    if frames != (metric not in CLIP_METRICS):
        return f"{metric} is of clips with labels" if frames else f"{metric} is of events in time, and these are clips"
    if multi_label and metric in ONE_LABEL:
        return f"{metric} needs exactly one label per clip, and these clips may have several"
    if metric == "top5" and classes <= 5:
        return f"top5 is always 1 with {classes} classes"
    return None


def check_metrics(metrics: Sequence[str], *, multi_label: bool, classes: int, frames: bool = False) -> None:
    """Nothing, if every metric is known and fits the data; otherwise raises UsageError naming all that do not."""
    reasons = [
        reason for m in metrics if (reason := misfit(m, multi_label=multi_label, classes=classes, frames=frames))
    ]
    if reasons:
        fitting = [m for m in METRICS if misfit(m, multi_label=multi_label, classes=classes, frames=frames) is None]
        raise UsageError("; ".join(reasons), cure=f"Choose from {', '.join(fitting)}.")
