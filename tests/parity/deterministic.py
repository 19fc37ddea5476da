"""The weights, inputs and comparison that parity cases are made with: functions of a name, a shape or a seed.

Everything comes from NumPy's legacy generator, whose bits are frozen. A case holds no weights: both sides
draw the same.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

SAMPLED = 512  # values of an output that a case records


def fill(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A tensor's weights: scales about 1, other vectors about 0, tokens and tables 0.2, matrices 1 / sqrt(fan in)."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        drawn = 1.0 + 0.1 * np.abs(drawn)
    elif len(shape) < 2:
        drawn = 0.1 * drawn + float(name.endswith(("weight", "gamma")))
    elif shape[0] == 1:
        drawn = 0.2 * drawn
    else:
        drawn = drawn / np.sqrt(math.prod(shape[1:]))
    return np.asarray(drawn, np.float32)


def spectrogram(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Normalised features: normal, standard deviation 0.5."""
    return (0.5 * np.random.RandomState(seed).standard_normal(shape)).astype(np.float32)


def waveform(seed: int, seconds: float, rate: int) -> NDArray[np.float32]:
    """(samples,) three chirps over noise. The order of the draws is part of the rule."""
    generator = np.random.RandomState(seed)
    count = round(seconds * rate)
    time = np.arange(count) / rate
    wave = 0.02 * generator.standard_normal(count)
    for _ in range(3):
        low, high = generator.uniform(80, 0.4 * rate, size=2)
        begin = generator.uniform(0, 0.6) * seconds
        length = generator.uniform(0.2, 0.4) * seconds
        since = time - begin
        sounding = (since >= 0) & (time < begin + length)
        cycles = low * since + 0.5 * (high - low) / length * since**2
        wave += sounding * 0.25 * np.sin(2 * np.pi * cycles)
    return np.clip(wave, -1, 1).astype(np.float32)


def relative_error(output: NDArray[np.float32], recorded: dict) -> float:
    """|output - recorded| / |recorded| over the recorded positions; infinite where the shapes differ."""
    if list(output.shape) != recorded["shape"]:
        return math.inf
    flat = output.astype(np.float64).ravel()
    if flat.size > SAMPLED:
        flat = flat[np.sort(np.random.RandomState(0).permutation(flat.size)[:SAMPLED])]
    expected = np.asarray(recorded["values"])
    error = float(np.linalg.norm(flat - expected) / np.linalg.norm(expected))
    return error if math.isfinite(error) else math.inf
