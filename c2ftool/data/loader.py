"""Batches of waveforms: rows of the memory map copied into one int16 tensor by threads, ahead of the training loop.

Threads, not processes: copying from the memory map and decoding FLAC release the interpreter lock, so there is nothing
to pickle and nothing to fork, and the batches do not depend on how many threads there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2ftool.data.joined import JoinedSets
from c2ftool.data.order import Order, Rows
from c2ftool.data.store import PreparedSet
from c2ftool.draws import counted_generator

Clips = PreparedSet | JoinedSets


@dataclass(frozen=True)
class HostBatch:
    """Part of a step's batch, on the host. B clips, S samples, C classes."""

    places: Tensor  # (B,) int64: places in the step's whole batch
    waveforms: Tensor  # (B, S) int16, zero beyond each clip's length
    lengths: Tensor  # (B,) int64
    labels: Tensor  # (B, C) float32 multi-hot

    def to(self, device: torch.device) -> HostBatch:
        """The same batch on the device; the copy from pinned memory does not block."""
        moved = (t.to(device, non_blocking=True) for t in (self.places, self.waveforms, self.lengths, self.labels))
        return HostBatch(*moved)


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
    """The training batches of one phase on one rank."""

    source: Clips
    order: Order
    batch: int  # clips in the step's whole batch
    places: Rows  # (B,) the places this rank works on
    samples: int  # samples read of a clip
    random_crop: bool
    classes: Rows  # (C,) the set's class numbers, in the order the run uses
    threads: int
    pin: bool

    def load(self, step: int) -> HostBatch:
        """The batch of a step; a function of the step alone."""
        rows = self.order.batch(step, self.batch)[self.places]
        waveforms, lengths = gather_waveforms(self.source, rows, self.samples, self._starts(rows, step), self.pin)
        labels = torch.from_numpy(self.source.targets(rows)[:, self.classes])
        return HostBatch(torch.from_numpy(self.places.copy()), waveforms, lengths, labels)

    def _starts(self, rows: Rows, step: int) -> NDArray[np.int64] | None:
        if not self.random_crop:
            return None
        spare = np.maximum(self.source.samples[rows] - self.samples, 0)
        drawn = [
            counted_generator(self.order.seed, "crop", self.order.phase, step, int(place)).random()
            for place in self.places
        ]
        return np.floor(np.asarray(drawn) * (spare + 1)).astype(np.int64)

    def steps(self, first: int, last: int) -> Iterator[HostBatch]:
        """The batches of steps first .. last - 1, loaded ahead."""
        yield from _ahead((lambda s=s: self.load(s) for s in range(first, last)), self.threads)


def evaluation_batches(
    source: Clips, rows: Rows, *, batch: int, samples: int, classes: Rows, threads: int, pin: bool
) -> Iterator[HostBatch]:
    """The rows in order, `batch` at a time; `places` are the places among `rows`."""

    def load(start: int) -> HostBatch:
        chosen = rows[start : start + batch]
        waveforms, lengths = gather_waveforms(source, chosen, samples, pin=pin)
        places = torch.arange(start, start + len(chosen))
        return HostBatch(places, waveforms, lengths, torch.from_numpy(source.targets(chosen)[:, classes]))

    yield from _ahead((lambda s=s: load(s) for s in range(0, len(rows), batch)), threads)


def _ahead(jobs: Iterator[object], threads: int) -> Iterator[HostBatch]:
    """Results of the jobs in order, at most threads + 2 of them under way or waiting; 0 threads: in this thread."""
    if threads == 0:
        for job in jobs:
            yield job()  # type: ignore[operator]
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="c2f-loader")
    waiting: deque[Future[HostBatch]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))  # type: ignore[arg-type]
            if len(waiting) >= threads + 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
