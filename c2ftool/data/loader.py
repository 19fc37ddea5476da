"""Batches of waveforms: rows of the memory map copied into one int16 tensor by threads, ahead of the training loop.

Threads, not processes: copying from the memory map and decoding FLAC release the interpreter lock, so there is nothing
to pickle and nothing to fork, and the batches do not depend on how many threads there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2ftool.data.batch import FrameLabels, HostBatch
from c2ftool.data.frame_labels import LabelGrid
from c2ftool.data.joined import JoinedSets
from c2ftool.data.order import Rows, Stream
from c2ftool.data.store import PreparedSet
from c2ftool.data.taught import Taught
from c2ftool.draws import counted_generator

Clips = PreparedSet | JoinedSets
Loaded = TypeVar("Loaded")


def gather_waveforms(
    source: Clips, rows: Rows, samples: int, starts: NDArray[np.int64] | None = None, pin: bool = False
) -> tuple[Tensor, Tensor]:
    """((B, samples) int16, (B,) int64 lengths) of some rows, cut to `samples` from `starts` (0 if not given)."""
    out = torch.empty((len(rows), samples), dtype=torch.int16, pin_memory=pin)
    lengths = torch.empty(len(rows), dtype=torch.int64)
    view = out.numpy()
    for place, row in enumerate(rows):
        waveform = source.waveform(int(row))
        start = 0 if starts is None else int(starts[place])
        piece = waveform[start : start + samples]
        view[place, : len(piece)] = piece
        view[place, len(piece) :] = 0
        lengths[place] = len(piece)
    return out, lengths


@dataclass(frozen=True)
class TrainLoader:
    """The training batches of one phase on one rank.

    grid: of frame labels, where there are any. taught: stored logits to learn from. partners: whether each clip comes
    with a further one to be mixed with.
    """

    source: Clips
    stream: Stream
    batch: int  # clips in the step's whole batch
    places: Rows  # (B,) the places this rank works on
    samples: int  # samples read of a clip
    random_crop: bool
    classes: Rows  # (C,) the set's class numbers, in the order the run uses
    threads: int
    pin: bool
    grid: LabelGrid | None = None
    taught: Taught | None = None
    partners: bool = False

    def load(self, step: int) -> HostBatch:
        """The batch of a step; a function of the step alone."""
        rows, strong = self.stream.batch(step, self.batch)
        own = self._part(rows[self.places], strong[self.places], step, "crop")
        if not self.partners:
            return own
        others = self.stream.partners(step, self.batch)
        return own.with_partners(self._part(others[self.places], strong[self.places], step, "crop of the partner"))

    def _part(self, rows: Rows, strong: NDArray[np.bool_], step: int, purpose: str) -> HostBatch:
        starts = self._starts(rows, step, purpose)
        waveforms, lengths = gather_waveforms(self.source, rows, self.samples, starts, self.pin)
        labels = torch.from_numpy(self.source.targets(rows)[:, self.classes])
        frames: FrameLabels | None = None
        if self.grid is not None:
            assert isinstance(self.source, PreparedSet)
            frames = self.grid.labels(self.source, rows, strong, starts)
        logits, known = (None, None) if self.taught is None else self.taught.read(rows)
        return HostBatch(
            torch.from_numpy(self.places.copy()), waveforms, lengths, labels, frames=frames, logits=logits, known=known
        )

    def _starts(self, rows: Rows, step: int, purpose: str) -> NDArray[np.int64] | None:
        """The samples that random crops begin at; with frame labels on the border of a frame."""
        if not self.random_crop:
            return None
        unit = 1 if self.grid is None else self.grid.frame_samples
        spare = np.maximum(self.source.samples[rows] - self.samples, 0) // unit
        drawn = [
            counted_generator(self.stream.seed, purpose, self.stream.phase, step, int(place)).random()
            for place in self.places
        ]
        return np.floor(np.asarray(drawn) * (spare + 1)).astype(np.int64) * unit

    def steps(self, first: int, last: int) -> Iterator[HostBatch]:
        """The batches of steps first .. last - 1, loaded ahead."""
        yield from _ahead((partial(self.load, step) for step in range(first, last)), self.threads)


@dataclass(frozen=True)
class Pieces:
    """What is scored of some clips. row, start: (P,) the place of each piece's clip, and its first sample."""

    row: Rows
    start: Rows

    @classmethod
    def starts(cls, count: int) -> Pieces:
        """The starts of so many clips."""
        return cls(np.arange(count), np.zeros(count, np.int64))

    @classmethod
    def slices(cls, lengths: Rows, step: int) -> Pieces:
        """All of clips of such lengths, a piece every `step` samples; one of an empty clip."""
        counts = np.maximum(1, -(-lengths // step))
        row = np.repeat(np.arange(len(lengths)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return cls(row, within * step)

    def __len__(self) -> int:
        return len(self.row)

    def of_rank(self, rank: int, world: int) -> Pieces:
        """Every `world`-th piece, from `rank`."""
        return Pieces(self.row[rank::world], self.start[rank::world])


@dataclass(frozen=True)
class PieceBatch:
    """Pieces to score: their places among all that were asked for, and their waveforms."""

    places: Rows
    waveforms: Tensor  # (B, S) int16
    lengths: Tensor  # (B,) int64


def evaluation_batches(
    source: Clips, rows: Rows, pieces: Pieces, *, batch: int, samples: int, threads: int, pin: bool
) -> Iterator[PieceBatch]:
    """The pieces of the rows in order, `batch` at a time."""

    def load(first: int) -> PieceBatch:
        places = np.arange(first, min(first + batch, len(pieces)))
        chosen, starts = rows[pieces.row[places]], pieces.start[places]
        return PieceBatch(places, *gather_waveforms(source, chosen, samples, starts, pin))

    yield from _ahead((partial(load, first) for first in range(0, len(pieces), batch)), threads)


def _ahead(jobs: Iterator[Callable[[], Loaded]], threads: int) -> Iterator[Loaded]:
    """Results of the jobs in order, at most threads + 2 of them under way or waiting; 0 threads: in this thread."""
    if threads == 0:
        for job in jobs:
            yield job()
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="c2f-loader")
    waiting: deque[Future[Loaded]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) >= threads + 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
