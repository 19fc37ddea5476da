"""PSDS of the 50 thresholds 0.01, 0.03, .. 0.99 on probabilities: what papers before threshold-free PSDS report.

It is lower than PSDS over all thresholds, and the more so the less a model's probabilities spread; the two are not to
be compared. Computed here by the rules of psds_eval (`psds_detections`), to whose 0.5.3 it is equal within 1e-9, or
by psds_eval itself.

Axes: N clips, C classes, T frames, D detections.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module, metadata
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from c2ftool.errors import DataError, UsageError
from c2ftool.metrics.psds import Psds, PsdsSettings, results
from c2ftool.metrics.psds_changes import Criteria
from c2ftool.metrics.psds_curve import NO_CURVE, class_curve
from c2ftool.metrics.psds_detections import Counts, Detections, count, psds_of_counts
from c2ftool.metrics.psds_events import check_truth
from c2ftool.metrics.psds_runs import ordered
from c2ftool.metrics.psds_scores import Scores
from c2ftool.metrics.tables import FrameScores, Truth

Int64 = NDArray[np.int64]

THRESHOLDS: Final = np.linspace(0.01, 0.99, 50)
_BLOCK = 1 << 22  # scores worked on at once


def psds_50(
    probabilities: FrameScores,
    truth: Truth,
    settings: PsdsSettings,
    backend: Literal["c2ftool", "psds_eval"] = "c2ftool",
) -> Psds:
    """PSDS of 50 operating points: a detection is a run of frames with a probability above the threshold.

    backend: whose computation; the definition of the result names it with its version.
    Raises DataError for scores that are no probabilities, missing clips or classes, and what `check_truth` refuses;
    UsageError if psds_eval is asked for and cannot be imported.
    """
    check_truth(truth)
    view = Scores.of(probabilities, truth)
    _check_probabilities(view)
    if backend == "psds_eval":
        return _by_psds_eval(view, truth, settings)
    criteria = Criteria(settings.dtc, settings.gtc, settings.cttc)
    totals: list[Counts] = []
    step = max(1, _BLOCK // max(1, len(truth.classes) * view.frames))
    for start in range(0, len(truth.ids), step):
        clip = np.arange(start, min(start + step, len(truth.ids)))
        part = truth.of_clips(clip)
        block = view.block(clip)
        counts = [count(_detections(view, block, threshold), part, criteria) for threshold in THRESHOLDS]
        totals = counts if not totals else [total + more for total, more in zip(totals, counts, strict=True)]
    name = f"PSDS of {len(THRESHOLDS)} thresholds 0.01 to 0.99 by the rules of psds_eval 0.5.3"
    return psds_of_counts(totals, truth, settings, own_class="left out", name=name)


def _check_probabilities(view: Scores) -> None:
    highest = view.highest()[:, view.scores.frames[view.clip] > 0]
    one = ordered(np.ones(1, view.scores.values.dtype))[0][0]
    zero = ordered(np.zeros(1, view.scores.values.dtype))[0][0]
    if highest.size and (highest.max() > one or highest.min() < zero):
        raise DataError(
            "scores are not between 0 and 1, so that thresholds from 0.01 to 0.99 mean nothing",
            cure="Give probabilities: the sigmoid of logits.",
        )


def _detections(view: Scores, block: NDArray[Any], threshold: float) -> Detections:
    """Runs of frames above the threshold, a float64, of a block of clips (R, C, T) of ordered values."""
    kind = view.scores.values.dtype
    limit = np.asarray([threshold], kind)
    if limit.astype(np.float64)[0] > threshold:
        limit = np.nextafter(limit, np.asarray([-np.inf], kind))  # what is above this one is above the threshold
    rows = block.reshape(-1, block.shape[2])
    some = np.flatnonzero(rows.max(axis=1) > ordered(limit)[0][0]) if rows.size else np.zeros(0, np.int64)
    active = np.zeros((len(some), block.shape[2] + 2), np.bool_)
    np.greater(rows[some], ordered(limit)[0][0], out=active[:, 1:-1])
    border = np.flatnonzero(active.reshape(-1)[1:] != active.reshape(-1)[:-1])
    row, frame = np.divmod(border, block.shape[2] + 2)
    clip, label = np.divmod(some[row[::2]], block.shape[1])
    return Detections(clip, label, view.borders[frame[::2]], view.borders[frame[1::2]])


def _by_psds_eval(view: Scores, truth: Truth, settings: PsdsSettings) -> Psds:
    try:
        package, pandas = import_module("psds_eval"), import_module("pandas")
    except ImportError as error:
        raise UsageError(
            f"psds_eval cannot be imported: {error}",
            cure="pip install 'psds_eval==0.5.3' 'pandas<3', or leave the backend at c2ftool, which computes the same.",
        ) from None

    def table(clip: Int64, label: Int64, onset: Any, offset: Any) -> Any:
        names = {
            "filename": np.array(truth.ids, object)[clip],
            "onset": onset,
            "offset": offset,
            "event_label": np.array(truth.classes, object)[label],
        }
        return pandas.DataFrame(names)

    evaluation = package.PSDSEval(
        settings.dtc,
        settings.gtc,
        1.0 if settings.cttc is None else settings.cttc,
        ground_truth=table(truth.clip, truth.label, truth.onset, truth.offset),
        metadata=pandas.DataFrame({"filename": truth.ids, "duration": truth.durations}),
    )
    for threshold in THRESHOLDS:
        found = _detections(view, view.block(np.arange(len(truth.ids))), threshold)
        evaluation.add_operating_point(table(found.clip, found.label, found.onset, found.offset))
    value = evaluation.psds(settings.alpha_ct, settings.alpha_st, settings.max_efpr)
    _, _, by_class = evaluation.psd_roc_curves(settings.alpha_ct)
    rows = dict(zip(evaluation.class_names, by_class.yp, strict=False))
    curves = tuple(
        class_curve(by_class.xp, rows[name], settings.max_efpr) if name in rows else NO_CURVE for name in truth.classes
    )
    ours = results(curves, truth.classes, settings, "")
    name = f"PSDS of {len(THRESHOLDS)} thresholds 0.01 to 0.99 by psds_eval {metadata.version('psds_eval')}"
    return replace(ours, value=float(value.value), definition=f"{name}: {settings}")
