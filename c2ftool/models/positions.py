"""Fixed positions: the two-dimensional sine-cosine table of EAT."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

MAX_TIME = 768  # patches; about two minutes at 10 ms and 16 frames a patch


@lru_cache(maxsize=16)
def sincos_2d(time: int, frequency: int, width: int, device: torch.device) -> Tensor:
    """(time * frequency, width) float32, time-major: row t * frequency + f.

    The first half of the width encodes the frequency index, the second the time index; each half is [sin | cos] with
    rates 10000^(-k / (width / 4)), k = 0 .. width / 4 - 1. A row depends on t and f alone, so any length is the first
    rows of a longer one. Source: EAT, utils/pos_embed (facts), after He et al., MAE. Raises ValueError beyond 768.
    """
    if width % 4:
        raise ValueError(f"width {width} is not a multiple of 4")
    if time > MAX_TIME:
        raise ValueError(f"{time} time patches; EAT's positions end at {MAX_TIME}")
    with torch.device("cpu"):  # the table is cached: it must not become one of the meta device
        return _table(time, frequency, width).to(device)


def _table(time: int, frequency: int, width: int) -> Tensor:
    rates = torch.pow(10000.0, -torch.arange(width // 4, dtype=torch.float64) / (width / 4))

    def half(index: Tensor) -> Tensor:
        angle = index[:, None] * rates
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    t = torch.arange(time, dtype=torch.float64).repeat_interleave(frequency)
    f = torch.arange(frequency, dtype=torch.float64).repeat(time)
    return torch.cat([half(f), half(t)], dim=1).float()
