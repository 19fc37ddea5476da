"""The sounds of the built-in demo set, in float64 from counted random words.

Every random number is a word of NumPy's Philox bit generator, whose stream is guaranteed never to change; none comes
from `numpy.random.Generator`, whose distributions may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
RATE = 16_000
_FADE = 0.01
_BELL = ((1.0, 1.0), (2.0, 0.6), (2.76, 0.45), (5.4, 0.25))  # partials of a bell: frequency ratio, amplitude


class Dice:
    """Random numbers that are a function of the parts given at the start and of the number drawn before."""

    def __init__(self, *parts: int | str) -> None:
        text = "\x1f".join(map(str, parts))
        key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
        self._words = np.random.Philox(key=key)

    def uniforms(self, count: int) -> Float64:
        """(count,) in [0, 1), 53 random bits each."""
        return (self._words.random_raw(count) >> 11).astype(np.float64) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.uniforms(1)[0])

    def log_between(self, low: float, high: float) -> float:
        return low * (high / low) ** float(self.uniforms(1)[0])

    def below(self, bound: int) -> int:
        return int(self.uniforms(1)[0] * bound)

    def permutation(self, count: int) -> list[int]:
        return np.argsort(self.uniforms(count), kind="stable").tolist()


def background(dice: Dice, samples: int) -> Float64:
    """Coloured noise and hum with a slow drift of amplitude, at an RMS of 1."""
    noise = _coloured(dice, samples, power=dice.between(0.5, 1.5))
    t = np.arange(samples) / RATE
    mains = 50.0 if dice.uniforms(1)[0] < 0.5 else 60.0
    hum = sum(
        dice.between(0.0, 1.0) / k * np.sin(2 * np.pi * ((mains * k * t + dice.between(0.0, 1.0)) % 1.0))
        for k in range(1, 6)
    )
    drift = 1 + 0.4 * np.sin(2 * np.pi * (dice.between(0.1, 0.5) * t + dice.between(0.0, 1.0)))
    return unit(drift * (noise + dice.between(0.0, 0.5) * hum))


def event(name: str, dice: Dice, samples: int) -> Float64:
    """One event of a class, faded in and out, at an RMS of 1."""
    sound = EVENTS[name](dice, samples)
    fade = min(round(_FADE * RATE), samples // 4)
    ramp = np.sin(0.5 * np.pi * (np.arange(fade) + 0.5) / fade) ** 2
    sound[:fade] *= ramp
    sound[samples - fade :] *= ramp[::-1]
    return unit(sound)


def unit(sound: Float64) -> Float64:
    """The sound at an RMS of 1."""
    return sound / np.sqrt(np.mean(sound * sound) + 1e-20)


def _tone(dice: Dice, frequency: Float64, harmonics: int = 1, odd: bool = False) -> Float64:
    """A tone along a frequency track (Hz) with harmonics of random strength below the Nyquist rate."""
    phase = (np.cumsum(frequency) / RATE + dice.between(0.0, 1.0)) % 1.0
    highest = min(harmonics, int(0.45 * RATE / float(frequency.max())))
    sound = np.sin(2 * np.pi * phase)
    for k in range(3 if odd else 2, highest + 1, 2 if odd else 1):
        sound = sound + dice.between(0.4, 1.0) / k * np.sin(2 * np.pi * ((k * phase) % 1.0))
    return sound


def _coloured(dice: Dice, samples: int, power: float) -> Float64:
    """Noise whose power falls with frequency as f ** -power, at an RMS of 1."""
    spectrum = np.fft.rfft(dice.uniforms(samples) - 0.5)
    f = np.fft.rfftfreq(samples, 1 / RATE)
    return unit(np.fft.irfft(spectrum * np.maximum(f, 40.0) ** (-power / 2), samples))


def _chirp(dice: Dice, samples: int, direction: float) -> Float64:
    octaves = dice.between(0.5, 1.4) * direction
    place = np.linspace(-0.5, 0.5, samples)
    return _tone(dice, dice.log_between(500.0, 2400.0) * 2.0 ** (octaves * place))


def _pulses(dice: Dice, samples: int, per_second: float) -> Float64:
    """An envelope of smooth pulses at a rhythm; half of each period is loud."""
    phase = np.arange(samples) / RATE * per_second + dice.between(0.0, 1.0)
    return 1 / (1 + np.exp(-12 * np.sin(2 * np.pi * (phase % 1.0))))


def _bursts(dice: Dice, samples: int, per_second: float) -> Float64:
    return _pulses(dice, samples, per_second) * _tone(
        dice, np.full(samples, dice.log_between(350.0, 1400.0)), 9, odd=True
    )


def _hiss(dice: Dice, samples: int, per_second: float) -> Float64:
    return _pulses(dice, samples, per_second) * _coloured(dice, samples, dice.between(-0.5, 1.5))


def _clicks(dice: Dice, samples: int) -> Float64:
    """Short decaying resonances at irregular times."""
    resonance = dice.log_between(1500.0, 5000.0)
    length = round(dice.between(0.004, 0.012) * RATE)
    t = np.arange(4 * length)
    click = np.exp(-t / length) * np.sin(2 * np.pi * ((resonance / RATE * t) % 1.0))
    train = np.zeros(samples + len(click))
    step = RATE / dice.between(7.0, 16.0)
    at = dice.between(0.0, 0.5) * step
    while at < samples:
        train[int(at) : int(at) + len(click)] += dice.between(0.5, 1.0) * click
        at += step * dice.between(0.4, 1.6)
    return train[:samples]


def _vibrato(dice: Dice, samples: int) -> Float64:
    wave = np.sin(2 * np.pi * ((np.arange(samples) / RATE * dice.between(4.0, 7.5)) % 1.0))
    return _tone(dice, dice.log_between(200.0, 800.0) * (1 + dice.between(0.04, 0.1) * wave), 8)


def _bell(dice: Dice, samples: int) -> Float64:
    t = np.arange(samples) / RATE
    pitch, decay = dice.log_between(600.0, 2000.0), dice.log_between(0.12, 0.35)
    return sum(
        (
            amplitude * np.exp(-t * ratio**0.5 / decay) * np.sin(2 * np.pi * ((pitch * ratio * t) % 1.0))
            for ratio, amplitude in _BELL
            if pitch * ratio < 0.45 * RATE
        ),
        np.zeros(samples),
    )


EVENTS: dict[str, Callable[[Dice, int], Float64]] = {
    "rising_chirp": lambda dice, n: _chirp(dice, n, 1.0),
    "falling_chirp": lambda dice, n: _chirp(dice, n, -1.0),
    "slow_bursts": lambda dice, n: _bursts(dice, n, dice.between(3.0, 5.0)),
    "fast_bursts": lambda dice, n: _bursts(dice, n, dice.between(9.0, 14.0)),
    "slow_hiss": lambda dice, n: _hiss(dice, n, dice.between(3.0, 5.0)),
    "fast_hiss": lambda dice, n: _hiss(dice, n, dice.between(9.0, 14.0)),
    "clicks": _clicks,
    "vibrato_tone": _vibrato,
    "bell": _bell,
    "swell": lambda dice, n: _bell(dice, n)[::-1].copy(),  # a bell played backwards: the same mean spectrum
}
