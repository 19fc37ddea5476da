"""Scoring clips, or their frames, with a model: all rows, in order, shared by the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from c2ftool.data.loader import Clips, Pieces, evaluation_batches
from c2ftool.data.order import Rows
from c2ftool.data.store import PreparedSet
from c2ftool.engine.device import Device
from c2ftool.events import merged
from c2ftool.frontend.build import build_frontend
from c2ftool.metrics.tables import FrameScores, Truth
from c2ftool.spec.resolved import ResolvedFrontend, ResolvedPhase

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Scored:
    """Scores of some rows. N clips, C classes."""

    rows: Rows
    scores: NDArray[np.float32]  # (N, C) logits
    targets: NDArray[np.float32]  # (N, C) multi-hot


@dataclass(frozen=True)
class FramesScored:
    """Logits of the frames of some rows, and their events of the run's classes.

    left_out: events of classes that the run does not have, by class.
    """

    rows: Rows
    scores: FrameScores
    truth: Truth
    left_out: dict[str, int]


@dataclass(frozen=True)
class Scorer:
    """A front end and a model in evaluation, over pieces of clips."""

    model: nn.Module
    frontend: ResolvedFrontend
    source: Clips
    batch: int
    device: Device
    threads: int

    def outputs(
        self, rows: Rows, pieces: Pieces, take: Callable[[Any], Tensor], watch: Watch | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """(places among the pieces, float32 scores), batch by batch, of all ranks' pieces on every rank.

        take: what is kept of the model's output to a batch of features. The model is in eval mode meanwhile, and in its
        former mode afterwards.
        """
        device = self.device
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        features = build_frontend(self.frontend).to(device.torch)
        mine = pieces.of_rank(device.rank, device.world)
        most = math.ceil(len(pieces) / device.world)  # of a rank
        rounds = math.ceil(most / self.batch)
        batches = evaluation_batches(
            self.source,
            rows,
            mine,
            batch=self.batch,
            samples=self.frontend.samples,
            threads=self.threads,
            pin=device.cuda,
        )
        done, shape = 0, None
        try:
            for _ in range(rounds):
                host = next(batches, None)
                scores: Tensor | None = None
                if host is not None:
                    waveforms = host.waveforms.to(device.torch, non_blocking=True)
                    lengths = host.lengths.to(device.torch, non_blocking=True)
                    with torch.no_grad(), device.autocast():
                        made = features.compress(features(waveforms, lengths))
                        scores = take(self.model(made)).float()
                    shape = scores.shape[1:]
                    done += len(host.places)
                places = np.zeros(0, np.int64) if host is None else host.places
                for rank, (theirs, part) in enumerate(device.gathered(places, scores, shape)):
                    if len(theirs):
                        yield rank + device.world * theirs, part
                if watch is not None:
                    watch(done, len(mine))
        finally:
            batches.close()  # type: ignore[attr-defined]
            for module, mode in modes:  # one by one: a frozen body may be in evaluation while its head learns
                module.training = mode


def score_rows(
    classifier: nn.Module,
    source: Clips,
    rows: Rows,
    *,
    frontend: ResolvedFrontend,
    classes: Rows,
    batch: int,
    device: Device,
    threads: int,
    progress: Watch | None = None,
) -> Scored:
    """The classifier's logits for the rows, in their order; every rank returns all of them."""
    scorer = Scorer(classifier, frontend, source, batch, device, threads)
    scores = np.zeros((len(rows), len(classes)), np.float32)
    for places, part in scorer.outputs(rows, Pieces.starts(len(rows)), lambda logits: logits, progress):
        scores[places] = part
    return Scored(rows, scores, source.targets(rows)[:, classes])


def score_frames(
    detector: nn.Module,
    source: PreparedSet,
    rows: Rows,
    *,
    phase: ResolvedPhase,
    frontend: ResolvedFrontend,
    classes: Rows,
    sliced: bool,
    batch: int,
    device: Device,
    threads: int,
    progress: Watch | None = None,
) -> FramesScored | None:
    """The detector's logits of the rows' frames, in their order; on ranks beside the first None.

    sliced: clips longer than the input are scored whole, in slices that follow one another, and have as many frames as
    begin before they end; otherwise of every clip the input's frames are scored, padding included.
    """
    scorer = Scorer(detector, frontend, source, batch, device, threads)
    span = phase.label_frames * phase.label_hop
    lengths = source.samples[rows]
    pieces = Pieces.slices(lengths, span) if sliced else Pieces.starts(len(rows))
    frames = np.full(len(rows), phase.label_frames, np.int64)
    if sliced:
        frames = np.maximum(frames, -(-lengths // phase.label_hop))
    whole = phase.label_frames * int(np.bincount(pieces.row, minlength=1).max())
    values = np.zeros((len(rows) if device.main else 0, len(classes), whole), np.float32)
    for places, part in scorer.outputs(rows, pieces, lambda output: output[0], progress):
        first = pieces.start[places] // phase.label_hop
        if not device.main:
            continue
        for row, start, scores in zip(pieces.row[places], first, part, strict=True):
            values[row, :, start : start + phase.label_frames] = scores
    if not device.main:
        return None
    values = values[:, :, : int(frames.max())]
    truth, left_out = truth_of(source, rows, classes)
    seconds = phase.label_hop / frontend.sample_rate
    return FramesScored(rows, FrameScores(truth.ids, truth.classes, values, frames, seconds), truth, left_out)


def truth_of(source: PreparedSet, rows: Rows, classes: Rows) -> tuple[Truth, dict[str, int]]:
    """(the rows' events of some of the set's classes, merged; how many there are of each other class)."""
    clip, events = source.events_of(rows)
    clip, label, onset, offset = merged(clip, events.label, events.onset, events.offset)
    whole = Truth(
        ids=tuple(source.ids[row] for row in rows),
        classes=tuple(source.info.classes),
        durations=source.samples[rows] / source.info.sample_rate,
        clip=clip,
        label=label,
        onset=onset,
        offset=offset,
    )
    others = np.bincount(label, minlength=len(whole.classes))
    others[classes] = 0
    left_out = {whole.classes[number]: int(others[number]) for number in np.flatnonzero(others)}
    return whole.of_classes(classes), left_out
