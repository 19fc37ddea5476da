"""Median filter over time, exact, by minima and maxima of whole rows.

Equal to `scipy.ndimage.median_filter` along the last axis with mode "reflect": beyond its ends a row is continued by
its mirror image, the edge value repeated; of an even window the upper of the two middle values is taken, and such a
window reaches one frame further back than forward. (torch.median takes the lower one.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2ftool.errors import DataError
from c2ftool.metrics.median_network import MAXIMUM, medians

Int64 = NDArray[np.int64]

_BLOCK = 1 << 15  # values filtered at once: with what a window needs besides, they stay in the processor's cache
_INFINITY = 0x7C00  # float16 +inf as bits; what is above is NaN


def median_filter(
    values: NDArray[np.floating],
    window: int | Int64,
    *,
    lengths: Int64 | None = None,
    out: NDArray[np.floating] | None = None,
) -> NDArray[np.floating]:
    """The values (.., T) filtered over the last axis, in the same type (float16, float32 or float64).

    window: frames, or (C,) one for each class of values (N, C, T). lengths: (N,) for values (N, .., T), the frames that
    each first index has: they are filtered as if cut there, and what is beyond is left as it is. out: where the result
    goes; it may be `values`.
    Raises DataError if a value that counts is NaN, ValueError for other shapes, types or windows below 1.
    """
    if values.dtype not in (np.float16, np.float32, np.float64) or values.ndim == 0:
        raise ValueError(f"values must be float16, float32 or float64 with a time axis, not {values.dtype}")
    if out is None:
        out = np.empty(values.shape, values.dtype)
    elif out.shape != values.shape or out.dtype != values.dtype:
        raise ValueError(f"out is {out.dtype} {out.shape}, values are {values.dtype} {values.shape}")
    if lengths is not None and (lengths.shape != values.shape[:1] or values.ndim < 2):
        raise ValueError(f"lengths {lengths.shape} do not fit values {values.shape}")
    if lengths is not None and len(lengths) and not 0 <= lengths.min() <= lengths.max() <= values.shape[-1]:
        raise ValueError(f"lengths must be 0 to {values.shape[-1]}")
    windows = np.atleast_1d(np.asarray(window))
    if np.ndim(window) and (values.ndim != 3 or windows.shape != values.shape[1:2]):
        raise ValueError(f"{len(windows)} windows do not fit values {values.shape}")
    if not np.issubdtype(windows.dtype, np.integer) or (windows < 1).any():
        raise ValueError(f"windows must be whole numbers from 1, not {window}")
    for size in np.unique(windows):
        chosen: Any = slice(None) if np.ndim(window) == 0 else np.flatnonzero(windows == size)
        _filter(values, out, chosen, int(size), lengths)
    return out


def _filter(
    values: NDArray[np.floating], out: NDArray[np.floating], chosen: Any, window: int, lengths: Int64 | None
) -> None:
    """Writes the filtered rows of the chosen second indices, in blocks of first indices with the same length."""
    frames = values.shape[-1]
    if lengths is None:
        groups: list[tuple[int, Any]] = [(frames, slice(None))]
    else:
        groups = [(int(length), np.flatnonzero(lengths == length)) for length in np.unique(lengths)]
    for length, rows in groups:
        program = _Program(window, length, values.dtype) if length and window > 1 else None
        whole = isinstance(rows, slice) and isinstance(chosen, slice)
        if program and whole and values.flags.c_contiguous and out.flags.c_contiguous:
            program.run(values.reshape(-1, frames), out.reshape(-1, frames))
            continue
        rows = np.arange(len(values)) if isinstance(rows, slice) else rows
        step = max(1, 16 * _BLOCK // max(1, values[:1].size))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            index = some if isinstance(chosen, slice) else np.ix_(some, chosen)
            block = values[index]
            result = block.copy()
            if program:
                cut = np.ascontiguousarray(block[..., :length]).reshape(-1, length)
                done = np.empty_like(cut)
                program.run(cut, done)
                result[..., :length] = done.reshape(*block.shape[:-1], length)
            elif np.isnan(block[..., :length]).any():
                raise _not_numbers()
            out[index] = result


def _not_numbers() -> DataError:
    return DataError(
        "scores to be filtered are not numbers",
        cure="The weights or the clips hold NaN; evaluate an earlier checkpoint.",
    )


class _Program:
    """The steps of a window on blocks of rows of one length, with the memory that they need.

    A block is a flat array of rows with their continuations, its even and its odd places apart: a step runs over all
    rows at once, and what it takes across a row's end is never read.
    """

    def __init__(self, window: int, frames: int, dtype: np.dtype[Any]) -> None:
        self.frames, self.dtype = frames, dtype
        plan = medians(window)
        half = (frames + window) // 2  # of a row with its continuations, rounded up to an even number of places
        self.rows = max(1, _BLOCK // half)
        kind = np.dtype(np.int16) if dtype == np.float16 else dtype
        place = np.arange(2 * half) - window // 2
        self.left = window // 2
        self.source = np.where(place % (2 * frames) < frames, place, -1 - place) % frames
        self.padded = np.zeros((self.rows, 2 * half), kind)
        self.places = self.padded.reshape(-1)[::2], self.padded.reshape(-1)[1::2]
        values = [np.zeros(self.rows * half, kind) for _ in range(2)]
        self.inputs = tuple(values)
        last_use = {}
        for number, step in enumerate(plan.steps):
            last_use[step.first[0]] = last_use[step.second[0]] = number
        free: list[NDArray[Any]] = []
        self.calls = []
        for number, step in enumerate(plan.steps):
            target = free.pop() if free else np.zeros(self.rows * half, kind)
            known = len(target) - step.reach
            first, second = (values[value][at : at + known] for value, at in (step.first, step.second))
            self.calls.append((np.maximum if step.kind == MAXIMUM else np.minimum, first, second, target[:known]))
            values.append(target)
            results = (plan.even[0], plan.odd[0])
            for value in {step.first[0], step.second[0]} - {0, 1, *results}:
                if last_use[value] == number:
                    free.append(values[value])
        self.results = tuple(values[value][at:] for value, at in (plan.even, plan.odd))

    def run(self, rows: NDArray[np.floating], out: NDArray[np.floating]) -> None:
        """Writes the filtered rows (R, T)."""
        for start in range(0, len(rows), self.rows):
            block = rows[start : start + self.rows]
            self._load(block, self.padded[: len(block)])
            for places, value in zip(self.places, self.inputs, strict=True):
                np.copyto(value, places)
            for function, first, second, target in self.calls:
                function(first, second, target)
            for places, value in zip(self.places, self.results, strict=True):
                np.copyto(places[: len(value)], value)
            self._store(self.padded[: len(block), : self.frames], out[start : start + len(block)])

    def _load(self, block: NDArray[Any], padded: NDArray[Any]) -> None:
        """Writes a block's rows, as ordered values, with their mirror images on both sides."""
        left, frames = self.left, self.frames
        inside = padded[:, left : left + frames]
        if self.dtype == np.float16:
            bits = np.ascontiguousarray(block).view(np.int16)
            if int((bits & 0x7FFF).max()) > _INFINITY:
                raise _not_numbers()
            np.bitwise_xor(bits, (bits >> 15) & 0x7FFF, out=inside)
        else:
            if np.isnan(block.max()):
                raise _not_numbers()
            inside[:] = block
        for side in (slice(0, left), slice(left + frames, None)):
            source = self.source[side]
            backwards = len(source) and source[0] - source[-1] == len(source) - 1
            if backwards and source[-1] >= 0:
                padded[:, side] = inside[:, source[-1] : source[0] + 1][:, ::-1]
            else:
                padded[:, side] = inside[:, source]

    def _store(self, ordered: NDArray[Any], out: NDArray[Any]) -> None:
        if self.dtype == np.float16:
            ordered ^= (ordered >> 15) & 0x7FFF
            out.view(np.int16)[:] = ordered
        else:
            out[:] = ordered
