"""Counted randomness: every draw is a function of (seed, phase, step, row, purpose) and of nothing else.

A run that resumes at step 1,000 draws what an unbroken run draws there, without any generator state, and a row of the
step's batch draws the same whatever micro-batch, loader worker or rank it falls on (design: section 2, principle 4).

Three sources, by what is asked for:
- `uniform`, `integers`: Philox4x32-10 (Salmon et al., SC 2011) on tensors, the same bits on every device;
- `noise`, `kept`: torch's own generator, seeded anew for each row (in bulk; bits differ between device types);
- `once`, `beta`: NumPy generators on the host, for the few numbers that steer a batch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def counted_key(*parts: int | str) -> int:
    """A 64-bit key made from the parts: equal parts give equal keys on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def counted_generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator that starts at the key of the parts."""
    return np.random.Generator(np.random.Philox(key=counted_key(*parts)))


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four tensors of 32-bit words (in int64) for four tensors of 32-bit counters: Philox4x32-10.

    Products of two 32-bit words wrap in int64; the arithmetic shift and the mask still give the right upper word.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Draw:
    """The draws of some rows of one step's batch.

    rows: (R,) int64 on the device, the rows' numbers in the step's whole batch (over all devices and micro-batches).
    """

    seed: int
    phase: int
    step: int
    rows: Tensor

    def key(self, purpose: str) -> int:
        return counted_key(self.seed, self.phase, self.step, purpose)

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """(R, *shape) float32 in [0, 1), 24 random bits each."""
        return (self._words(purpose, *shape) >> 8).to(torch.float32) * 2.0**-24

    def integers(self, purpose: str, bound: int, *shape: int) -> Tensor:
        """(R, *shape) int64 in [0, bound); the bias is below bound / 2**32."""
        if not 0 < bound <= 2**31:
            raise ValueError(f"bound must lie in 1..2**31, not {bound}")
        return (self._words(purpose, *shape) * bound) >> 32

    def noise(self, purpose: str, *shape: int) -> Tensor:
        """(R, *shape) float32 standard normal draws."""
        out = torch.empty((len(self.rows), *shape), device=self.rows.device)
        generator = torch.Generator(device=self.rows.device)
        for place, row in enumerate(self.rows.tolist()):
            generator.manual_seed(counted_key(self.seed, self.phase, self.step, purpose, row) >> 1)
            out[place].normal_(generator=generator)
        return out

    def kept(self, purpose: str, rate: float, *shape: int) -> Tensor:
        """(R, *shape) float32: 0 with the probability `rate`, else 1 / (1 - rate): a dropout mask."""
        out = torch.empty((len(self.rows), *shape), device=self.rows.device)
        generator = torch.Generator(device=self.rows.device)
        for place, row in enumerate(self.rows.tolist()):
            generator.manual_seed(counted_key(self.seed, self.phase, self.step, purpose, row) >> 1)
            out[place].bernoulli_(1 - rate, generator=generator)
        return out.div_(1 - rate)

    def once(self, purpose: str) -> float:
        """One number in [0, 1) for the whole step."""
        return float(counted_generator(self.key(purpose)).random())

    def beta_once(self, purpose: str, a: float, b: float) -> float:
        """One Beta(a, b) draw for the whole step."""
        return float(counted_generator(self.key(purpose)).beta(a, b))

    def beta(self, purpose: str, a: float, b: float) -> Tensor:
        """(R,) float32 Beta(a, b) draws, one for each row."""
        key = self.key(purpose)
        values = [counted_generator(key, row).beta(a, b) for row in self.rows.tolist()]
        return torch.tensor(values, dtype=torch.float32, device=self.rows.device)

    def clones(self, count: int) -> Draw:
        """The draws of `count` clones of each row, clip-major: row r becomes r * count .. r * count + count - 1."""
        offsets = torch.arange(count, device=self.rows.device)
        return replace(self, rows=(self.rows[:, None] * count + offsets).reshape(-1))

    def select(self, chosen: slice) -> Draw:
        """The draws of a slice of these rows (a micro-batch)."""
        return replace(self, rows=self.rows[chosen])

    def _words(self, purpose: str, *shape: int) -> Tensor:
        count = int(np.prod(shape, dtype=np.int64))
        blocks = (count + 3) // 4
        row = self.rows[:, None]
        index = torch.arange(blocks, device=self.rows.device)[None, :]
        zero = torch.zeros_like(row)
        words = philox((index.expand(len(row), -1), row & _MASK, (row >> 32) & _MASK, zero), self.key(purpose))
        return torch.stack(torch.broadcast_tensors(*words), dim=-1).reshape(len(row), -1)[:, :count].reshape(-1, *shape)
