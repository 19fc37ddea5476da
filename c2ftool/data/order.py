"""Which clip comes when: the order of an endless stream of clips, counted from the seed.

Clip number p of a phase is number p mod n of epoch p div n, and each epoch's order is a function of
(seed, phase, epoch). Step s of batch B takes numbers s B .. s B + B - 1. So nothing has to be stored to resume, no
clip is dropped at the end of an epoch, and any step can be asked for by any thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from c2ftool.draws import counted_generator
from c2ftool.errors import UsageError
from c2ftool.spec.data import ActiveTime, ClassBalanced, Sampler, Uniform

Rows = NDArray[np.int64]


def class_balanced_weights(targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) weights of clips with multi-hot targets (N, C): the sum over a clip's classes of 1000 / (count + 0.01).

    Source: Gong et al., AST, egs/audioset/gen_weight_file.py (facts in the paper's public code).
    """
    counts = targets.sum(axis=0, dtype=np.float64)
    return targets.astype(np.float64) @ (1000.0 / (counts + 0.01))


@dataclass
class Order:
    """The stream of a phase. rows: (n,) row numbers of the set. weights: (n,) for a sampler that draws by weight.

    purpose: names the draws, where a phase has several streams.
    """

    rows: Rows
    seed: int
    phase: int
    sampler: Sampler
    weights: NDArray[np.float64] | None = None
    purpose: str = "order"
    _epochs: dict[int, Rows] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.sampler, ClassBalanced | ActiveTime):
            if self.weights is None or len(self.weights) != len(self.rows):
                raise ValueError("an order by weight needs one weight for each row")
            drawable = int(np.count_nonzero(self.weights))
            if not drawable:
                raise UsageError(
                    f"data.sampler {self.sampler.kind} draws clips by their labels, and no training clip has any",
                    cure="Choose splits or classes with labels, or data.sampler={kind: uniform}.",
                )
            if not self.sampler.replacement and self.epoch_clips > drawable:
                raise UsageError(
                    f"data.sampler draws {self.epoch_clips} clips an epoch without replacement, {drawable} have labels",
                    cure="Lower data.sampler.clips, or set data.sampler.replacement=true.",
                )

    @property
    def epoch_clips(self) -> int:
        """Clips in an epoch."""
        if isinstance(self.sampler, Uniform):
            return len(self.rows) * self.sampler.repeat
        return self.sampler.clips or len(self.rows)

    def batch(self, step: int, size: int) -> Rows:
        """(size,) rows of step `step`, from 0."""
        numbers = np.arange(step * size, (step + 1) * size)
        out = np.empty(size, np.int64)
        epochs, places = np.divmod(numbers, self.epoch_clips)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            out[chosen] = self.epoch(int(epoch))[places[chosen]]
        return out

    def epoch(self, epoch: int) -> Rows:
        """(epoch_clips,) rows of an epoch in order."""
        with self._lock:
            drawn = self._epochs.pop(epoch, None)
            drawn = self._draw(epoch) if drawn is None else drawn
            self._epochs[epoch] = drawn  # last used comes last; a batch may span two epochs
            for old in list(self._epochs)[:-2]:
                del self._epochs[old]
            return drawn

    def _draw(self, epoch: int) -> Rows:
        generator = counted_generator(self.seed, self.purpose, self.phase, epoch)
        if isinstance(self.sampler, Uniform) or self.weights is None:
            return self.rows[generator.permutation(self.epoch_clips) % len(self.rows)]
        uniform = generator.random(self.epoch_clips if self.sampler.replacement else len(self.rows))
        if self.sampler.replacement:
            cumulated = np.cumsum(self.weights)
            return self.rows[np.searchsorted(cumulated, uniform * cumulated[-1], side="right")]
        # Efraimidis and Spirakis (2006): the k largest u^(1/w) are a weighted draw without replacement
        with np.errstate(divide="ignore"):
            keys = np.log(uniform) / self.weights
        return self.rows[np.argsort(-keys, kind="stable")[: self.epoch_clips]]


@dataclass(frozen=True)
class Stream:
    """The clips of a phase's steps: those of `order`, and in each batch `weak_clips` of `weak`, in its middle.

    Places that mirror each other, and the fours that mixing is done in, so hold clips of one kind.
    """

    order: Order
    weak: Order | None = None
    weak_clips: int = 0

    @property
    def seed(self) -> int:
        return self.order.seed

    @property
    def phase(self) -> int:
        return self.order.phase

    def batch(self, step: int, size: int) -> tuple[Rows, NDArray[np.bool_]]:
        """((size,) rows of a step, (size,) whether each is of `order`)."""
        strong = self._strong(size)
        rows = np.empty(size, np.int64)
        rows[strong] = self.order.batch(step, int(strong.sum()))
        if self.weak is not None:
            rows[~strong] = self.weak.batch(step, self.weak_clips)
        return rows, strong

    def partners(self, step: int, size: int) -> Rows:
        """(size,) further rows, drawn uniformly from the clips of the same kind as at each place."""
        generator = counted_generator(self.seed, "partner", self.phase, step)
        drawn, strong = generator.random(size), self._strong(size)
        out = self.order.rows[(drawn * len(self.order.rows)).astype(np.int64)]
        if self.weak is not None:
            out = np.where(strong, out, self.weak.rows[(drawn * len(self.weak.rows)).astype(np.int64)])
        return out

    def _strong(self, size: int) -> NDArray[np.bool_]:
        first = (size - self.weak_clips + 1) // 2
        strong = np.ones(size, np.bool_)
        strong[first : first + self.weak_clips] = False
        return strong


def local_places(batch: int, rank: int, world: int, unit: int) -> Rows:
    """The places in the step's batch that a rank works on, ascending.

    unit: 1, or 2 or 4 clips that are mixed with one another; then place i and place batch - 1 - i fall on the same
    rank, and of four neighbours 2j and 2j + 1, so that mixing needs no exchange and takes the same partners for any
    number of devices. Raises UsageError where the batch does not divide.
    """
    if batch % world or (world > 1 and batch % (unit * world)):
        raise UsageError(
            f"batch {batch} cannot be shared by {world} devices" + (" with mixup" if unit > 1 else ""),
            cure=f"Choose train.batch as a multiple of {unit * world}.",
        )
    if unit == 1 or world == 1:
        share = batch // world
        return np.arange(rank * share, (rank + 1) * share)
    half = batch // (2 * world)
    first = np.arange(rank * half, (rank + 1) * half)
    return np.concatenate([first, batch - 1 - first[::-1]])
