"""One clip from one audio file: mono int16 at the rate of the prepared set. No file stops a job.

A file is put aside (quarantined), with its reason, when it is

- `unreadable`: it cannot be opened (gone, no permission, an input error);
- `empty`: no bytes, or no frames (a truncated Ogg Vorbis file reads as none);
- `corrupt`: not audio that libsndfile reads (WAV, FLAC, OGG, MP3), or decoding fails in its first half;
- `truncated`: less than half of the declared length is there;
- `channels`: more than 64; `sample rate`: outside 1 kHz .. 768 kHz;
- `not finite`: NaN or infinite samples; `out of scale`: floats beyond 8 times full scale (18 dB);
- `too short`: below 0.05 s; `too long`: above two hours;
- `kills the decoder`: it brought a worker process down twice (see `workers`).

It is kept, and counted as handled, when it is

- `averaged to mono`: several channels, of which the mean is taken;
- `resampled`: another rate, converted by soxr at its HQ setting;
- `clipped`: samples beyond full scale (after averaging and resampling) are set to it;
- `truncated`: at least half of the declared length is there (and more than 0.05 s lack): what is there is kept;
- `silent`: every stored sample is zero; the clip and its labels are kept, its frames are not measured.

Samples are rounded to 16 bit to the nearest, halves to even; 16-bit mono files at the set's rate pass unchanged. Files
are read in blocks, so that a header that lies about its length costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from c2ftool.data.coding import Int16, declared_wav_frames

if TYPE_CHECKING:
    import soundfile

SHORTEST = 0.05
LONGEST = 7200.0
MOST_CHANNELS = 64
RATES = (1_000, 768_000)
LOUDEST = 8.0
KEPT_SHARE = 0.5
_BLOCK = 8_192  # small, since a block in which the decoder gives up is lost
_UNKNOWN_LENGTH = 1 << 62


class Unusable(Exception):
    """A file that must be put aside: one of the reasons above, and what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Decoded:
    """A clip's samples (int16, mono, at the asked rate), its file's own rate, and how it was handled."""

    samples: Int16
    source_rate: int
    handled: tuple[str, ...]


def resampler() -> str:
    """The name, setting and version of the resampler, for the record of a prepared set."""
    import soxr

    return f"soxr HQ {soxr.__version__}"


def decode(path: Path, rate: int, start: float | None = None, stop: float | None = None) -> Decoded:
    """The clip of a file, or of its part from `start` to `stop` seconds; raises Unusable with the reason."""
    mono, source_rate, channels, truncated = _read(path, start, stop)
    handled = ["averaged to mono"] if channels > 1 else []
    if truncated:
        handled.append("truncated")
    if not np.isfinite(mono).all():
        raise Unusable("not finite", f"{int((~np.isfinite(mono)).sum())} of {len(mono)} samples")
    if (peak := float(np.abs(mono).max())) > LOUDEST:
        raise Unusable("out of scale", f"peak {peak:.3g} where 1 is full scale")
    if source_rate != rate:
        import soxr

        mono = soxr.resample(mono, source_rate, rate, quality="HQ")
        handled.append("resampled")
    scaled = np.rint(mono.astype(np.float64) * 32768)
    # +1.0 is full scale in files of floats though 16 bit ends one step below it; it is no clipping.
    if scaled.max() > 32768 or scaled.min() < -32768:
        handled.append("clipped")
    samples = np.clip(scaled, -32768, 32767).astype(np.int16)
    if not samples.any():
        handled.append("silent")
    return Decoded(samples, source_rate, tuple(handled))


def _read(path: Path, start: float | None, stop: float | None) -> tuple[npt.NDArray[np.float32], int, int, bool]:
    """(mono samples, rate, channels, whether part of what the header declares is not there)."""
    import soundfile

    try:
        if path.stat().st_size == 0:
            raise Unusable("empty", "no bytes")
        with _open(path) as file:
            rate, channels = file.samplerate, file.channels
            if channels > MOST_CHANNELS:
                raise Unusable("channels", f"{channels} channels, at most {MOST_CHANNELS}")
            if not RATES[0] <= rate <= RATES[1]:
                raise Unusable("sample rate", f"{rate} Hz, outside {RATES[0]}..{RATES[1]} Hz")
            declared = _declared(path, file)
            first = round((start or 0.0) * rate)
            last = round(stop * rate) if stop is not None else None
            if first and (declared is None or first >= declared or file.seek(first) != first):
                raise Unusable("too short", f"the part begins at {start} s and the file ends before it")
            wanted = min((end for end in (declared, last) if end is not None), default=None)
            mono, failure = _collect(file, None if wanted is None else wanted - first, rate)
    except soundfile.LibsndfileError as error:
        raise Unusable("corrupt", error.error_string) from error
    except OSError as error:
        raise Unusable("unreadable", error.strerror or str(error)) from error
    if not len(mono):
        raise Unusable("corrupt" if failure else "empty", failure or "no frames")
    expected = None if declared is None else min(declared, last if last is not None else declared) - first
    share = 1.0 if expected is None or expected <= 0 else len(mono) / expected
    if share < KEPT_SHARE:
        length = f"{len(mono)} of {expected} frames are there"
        raise Unusable("corrupt" if failure else "truncated", f"{length} ({failure})" if failure else length)
    if len(mono) < SHORTEST * rate:
        raise Unusable("too short", f"{len(mono) / rate:.3f} s, at least {SHORTEST} s")
    lacking = 0 if expected is None else expected - len(mono)
    return mono, rate, channels, lacking > SHORTEST * rate or failure is not None


def _open(path: Path) -> soundfile.SoundFile:
    """The file for reading onwards.

    soundfile seeks after each read of a seekable file, which libsndfile refuses at the end of FLAC files whose header
    holds another length or none (as written to a pipe); told that it cannot seek, it reads what is there.
    """
    import soundfile

    class Onwards(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    return Onwards(str(path))


def _declared(path: Path, file: soundfile.SoundFile) -> int | None:
    """The number of frames that the header declares, or None where it declares none."""
    if file.format == "WAV" and (frames := declared_wav_frames(path)) is not None:
        return max(frames, file.frames)
    return file.frames if file.frames < _UNKNOWN_LENGTH else None


def _collect(file: soundfile.SoundFile, frames: int | None, rate: int) -> tuple[npt.NDArray[np.float32], str | None]:
    """The mono samples of at most `frames` frames, and the decoder's complaint where it stopped early."""
    import soundfile

    blocks: list[npt.NDArray[np.float32]] = []
    read, failure = 0, None
    try:
        for block in _blocks(file, frames):
            blocks.append(block)
            read += len(block)
            if read > LONGEST * rate:
                raise Unusable("too long", f"more than {LONGEST / 3600:g} hours")
    except soundfile.LibsndfileError as error:
        failure = error.error_string
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32), failure


def _blocks(file: soundfile.SoundFile, frames: int | None) -> Iterator[npt.NDArray[np.float32]]:
    left = frames
    while left is None or left > 0:
        block = file.read(_BLOCK if left is None else min(_BLOCK, left), dtype="float32", always_2d=True)
        if not len(block):
            return
        with np.errstate(invalid="ignore"):
            yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float64).astype(np.float32)
        left = None if left is None else left - len(block)
