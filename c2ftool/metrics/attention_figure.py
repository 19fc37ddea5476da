"""Where a network looks in one clip, before and after adaptation, as PNG bytes (Figure 3 of Yeo et al., 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from c2ftool.metrics.canvas import new_figure, png_bytes, shortened


def attention_figure(
    features: ArrayLike, seconds: float, maps: Sequence[tuple[str, ArrayLike]], title: str, clip: float | None = None
) -> bytes:
    """The log-mel of a clip and, below it, maps of attention laid over it, as a PNG.

    features: (frames, mels) normalised log-mel. seconds: of the frames together. clip: seconds of the clip, where
    padding follows it, which is not shown. maps: (name, (F, T) attention that sums to one), low frequencies first. A
    map's colour is the attention over what an even one would be; all maps have one scale.
    Raises ValueError where shapes do not fit.
    """
    picture = np.asarray(features, np.float64)
    if picture.ndim != 2 or not picture.size:
        raise ValueError(f"features must be (frames, mels), not {picture.shape}")
    shares = [(name, np.asarray(values, np.float64)) for name, values in maps]
    if bad := [name for name, values in shares if values.ndim != 2 or not values.size]:
        raise ValueError(f"no (frequency, time) map: {bad[0]}")
    shares = [(name, values * values.size) for name, values in shares]
    figure = new_figure(9.0, 1.9 * (1 + len(shares)))
    axes = np.atleast_1d(figure.subplots(1 + len(shares), 1, sharex=True, sharey=True))
    extent = (0.0, seconds, 0.0, float(picture.shape[1]))
    heard = picture[: max(1, round(len(picture) * min(1.0, (clip or seconds) / seconds)))]
    low, high = np.percentile(heard, [1, 99.5])
    for axis in axes:
        axis.imshow(
            picture.T, origin="lower", aspect="auto", extent=extent, cmap="gray_r", vmin=low, vmax=max(high, low + 1e-9)
        )
        axis.set_ylabel("mel band", fontsize=9)
    axes[0].set_title(shortened(title, 90), fontsize=11, parse_math=False)
    most = max([2.0, *(float(values.max()) for _, values in shares)])
    for axis, (name, values) in zip(axes[1:], shares, strict=True):
        drawn = axis.imshow(
            values, origin="lower", aspect="auto", extent=extent, cmap="inferno", alpha=0.65, vmin=0, vmax=most,
            interpolation="bilinear",
        )  # fmt: skip
        axis.set_title(name, fontsize=10, loc="left", parse_math=False)
    axes[-1].set_xlim(0, min(clip or seconds, seconds))
    axes[-1].set_xlabel("time in s", fontsize=9)
    if shares:
        figure.colorbar(drawn, ax=list(axes), label="attention, times the even share", fraction=0.025, pad=0.02)
    return png_bytes(figure)
