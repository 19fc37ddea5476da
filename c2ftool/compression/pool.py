"""Pooling of log-mels: fewer frames, or fewer mel bands, for the same sound (Feng et al., ICASSP 2024, equations 1, 2).

Written as one addition or one maximum per place of the kernel, each over all kernels at once, which takes about as long
as a copy of the input. torch's pooling layers go kernel by kernel: on a CPU they take up to 20 times as long, so that
the maximum costs half as much as the log-mel itself. Nothing is copied before.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduce = Literal["avg", "max"]


def pool(features: Tensor, reduce: Reduce, time: int, mel: int) -> Tensor:
    """(B, T // time, M // mel) means or maxima of (B, T, M) features, in their type; kernel = stride = (time, mel).

    Frames and bands that do not fill a kernel are left out. Means are summed in float32 at least. A kernel of 1 x 1
    returns the features themselves. Raises ValueError where nothing is left, for a kernel below 1 x 1, for features of
    another shape or not of floating point, and for an unknown `reduce`.
    """
    if features.ndim != 3 or not features.is_floating_point():
        raise ValueError(f"features must be (clips, frames, mels) floats, not {tuple(features.shape)} {features.dtype}")
    if reduce not in ("avg", "max"):
        raise ValueError(f"unknown pooling {reduce!r}: avg or max")
    frames, mels = features.shape[1:]
    if time < 1 or mel < 1 or frames < time or mels < mel:
        raise ValueError(f"pooling {frames} frames x {mels} mel bands by {time} x {mel} leaves nothing")
    if time == mel == 1:
        return features
    # time first: its passes run along whole rows, and leave less to those over mel, which do not
    if reduce == "max":
        return _maxima(_maxima(features, 1, time), 2, mel)
    return _sums(_sums(features, 1, time), 2, mel).div_(time * mel).to(features.dtype)


def _places(x: Tensor, axis: int, factor: int) -> tuple[Tensor, ...]:
    """Views of x: of every kernel along the axis its first place, its second, ..."""
    whole = x.shape[axis] // factor
    return x.narrow(axis, 0, whole * factor).unflatten(axis, (whole, factor)).unbind(axis + 1)


def _maxima(x: Tensor, axis: int, factor: int) -> Tensor:
    first, *rest = _places(x, axis, factor)
    for place in rest:
        first = torch.maximum(first, place)
    return first


def _sums(x: Tensor, axis: int, factor: int) -> Tensor:
    first, *rest = _places(x, axis, factor)
    if rest:
        first = first.to(torch.promote_types(x.dtype, torch.float32))
    for place in rest:
        first = first + place
    return first
