"""What a report shows of scored frames: PSD-ROC, timelines of some clips, and the scores and events as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from c2ftool.data.store import PreparedSet
from c2ftool.engine.evaluation import FramesScored, Scored
from c2ftool.engine.selection import Selection
from c2ftool.frontend.build import build_frontend
from c2ftool.metrics.decode import decode
from c2ftool.metrics.detection import DetectionResults
from c2ftool.metrics.event_tables import write_durations, write_events
from c2ftool.metrics.measured import DetectionSettings, logit, median_frames
from c2ftool.metrics.median import median_filter
from c2ftool.metrics.outcome import Results
from c2ftool.metrics.roc_figure import psd_roc_figure
from c2ftool.metrics.score_tables import save_scores
from c2ftool.metrics.tables import FrameScores, Truth
from c2ftool.metrics.timeline_figure import TimedEvent, timeline_figure
from c2ftool.spec.resolved import Resolved

Pictures = dict[str, tuple[bytes, str]]


def detection_pictures(
    results: Results | None,
    scored: Scored | FramesScored | None,
    resolved: Resolved,
    selection: Selection,
    settings: DetectionSettings,
) -> Pictures:
    """file -> (PNG, caption): none where frames were not scored."""
    if not isinstance(results, DetectionResults) or not isinstance(scored, FramesScored):
        return {}
    pictures: Pictures = {}
    if results.roc is not None:
        roc = results.roc
        curves = [(curve.efpr, curve.tpr) for curve in roc.curves]
        effective = (roc.effective.efpr, roc.effective.tpr)
        image = psd_roc_figure(
            curves, results.classes, effective, roc.value, roc.settings.max_efpr, "PSDS1 with a penalty on variance"
        )
        pictures["psd_roc.png"] = image, "PSD-ROC of PSDS1: events found over false positives per hour, by class"
    for place, clip in enumerate(_shown(scored.truth, resolved.clips_shown)):
        name = scored.truth.ids[clip]
        caption = f"{name}: log-mel; truth (blue), detections (orange) and scores over time"
        pictures[f"timeline-{place + 1}.png"] = _timeline(clip, scored, resolved, selection, settings), caption
    return pictures


def save_detection(folder: Path, scored: FramesScored, settings: DetectionSettings) -> list[Path]:
    """Scores as one HDF5 file, and the events that they show at the threshold beside the true ones.

    `c2f evaluate --scores` reads them again.
    """
    detections = _detections(scored.scores, settings)
    names = ("scores.hdf5", "truth.tsv", "durations.tsv", "detections.tsv")
    scores, truth, durations, found = (folder / name for name in names)
    save_scores(scores, scored.scores)
    write_events(truth, scored.truth, silent_clips=True)
    write_durations(durations, scored.truth)
    write_events(found, detections)
    return [scores, truth, durations, found]


def _shown(truth: Truth, count: int) -> list[int]:
    """Clips with events, evenly from the first to the last."""
    having = np.unique(truth.clip)
    places = np.unique(np.linspace(0, len(having) - 1, min(count, len(having))).round().astype(int))
    return [int(having[place]) for place in places] if len(having) else []


def _timeline(
    clip: int, scored: FramesScored, resolved: Resolved, selection: Selection, settings: DetectionSettings
) -> bytes:
    assert isinstance(selection.source, PreparedSet)
    front = resolved.phases[-1].full_frontend
    waveform = torch.from_numpy(selection.source.waveform(int(scored.rows[clip])).copy())[None]
    frames = max(1, round(waveform.shape[1] / front.hop))
    picture = build_frontend(front.model_copy(update={"frames": frames}))
    with torch.no_grad():
        features = picture(waveform, torch.tensor([waveform.shape[1]]))[0]
    row = np.array([clip])
    one = replace(
        scored.scores,
        ids=(scored.truth.ids[clip],),
        values=scored.scores.values[row].astype(np.float32),
        frames=scored.scores.frames[row],
    )
    smooth = _smooth(one, settings)
    with np.errstate(over="ignore"):
        probabilities = 1 / (1 + np.exp(-smooth.values[0, :, : int(smooth.frames[0])].astype(np.float64)))
    return timeline_figure(
        features.numpy(),
        front.hop / front.sample_rate,
        _timed(scored.truth.of_clips(row)),
        _timed(_detections(one, settings)),
        probabilities,
        scored.truth.classes,
        scored.scores.frame,
        scored.truth.ids[clip],
    )


def _smooth(scores: FrameScores, settings: DetectionSettings) -> FrameScores:
    window = median_frames(settings.median, scores.frame)
    return replace(scores, values=median_filter(scores.values, window, lengths=scores.frames))


def _detections(scores: FrameScores, settings: DetectionSettings) -> Truth:
    return decode(_smooth(scores, settings), logit(settings.threshold), settings.min_duration, times=settings.times)


def _timed(table: Truth) -> list[TimedEvent]:
    return [
        (float(onset), float(offset), table.classes[label])
        for onset, offset, label in zip(table.onset, table.offset, table.label, strict=True)
    ]
