"""Which clip of the batch a clip is mixed with. Axes: B clips, on one device.

Devices share a batch so that places i and batch - 1 - i are on one of them, in rows i and B - 1 - i. So fours of rows
2j, 2j + 1, B - 1 - 2j, B - 2 - 2j hold the same clips for any number of devices that leaves each a multiple of 4, and
the three ways to pair four clips give three kinds of mixing partners of their own: a clip that is mixed with one in the
waveform is mixed with another in the log-mel. Clips move between steps, so partners are random all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mirror(clips: int, device: torch.device) -> Tensor:
    """(B,) the row at the mirror place. Raises ValueError for an odd batch, whose middle clip is its own partner."""
    if clips % 2:
        raise ValueError(f"mixup needs an even batch, not {clips} clips")
    return torch.arange(clips - 1, -1, -1, device=device)


def neighbour(clips: int, device: torch.device) -> Tensor:
    """(B,) the other row of each two. Raises ValueError where the batch is not made of fours."""
    return torch.arange(_fours(clips), device=device) ^ 1


def diagonal(clips: int, device: torch.device) -> Tensor:
    """(B,) the mirror place's neighbour. Raises ValueError where the batch is not made of fours."""
    return _fours(clips) - 1 - (torch.arange(clips, device=device) ^ 1)


def _fours(clips: int) -> int:
    if clips % 4:
        raise ValueError(f"clips are mixed in fours, and {clips} on a device are no multiple of 4")
    return clips
