"""One clip from one audio file: mono int16 at the rate of the prepared set. No file stops a job.

A file is put aside (quarantined), with its reason, when it is

- `unreadable`: it cannot be opened (gone, no permission, an input error);
- `empty`: no bytes, or no frames (a truncated Ogg Vorbis file reads as none);
- `corrupt`: not audio that libsndfile reads (WAV, FLAC, OGG, MP3), or decoding fails in its first half; in an HDF5
  file, no floats of one channel;
- `truncated`: less than half of the declared length (of a part of a file, of the part) is there;
- `channels`: more than 64; `sample rate`: outside 1 kHz .. 768 kHz;
- `not finite`: NaN or infinite samples; `out of scale`: floats beyond 8 times full scale (18 dB);
- `too short`: below 0.05 s, or a part that begins after the file's end; `too long`: above two hours;
- `kills the decoder`: it brought a worker process down twice (see `workers`).

It is kept, and counted as handled, when it is

- `averaged to mono`: several channels, of which the mean is taken;
- `resampled`: another rate, converted by soxr at its HQ setting;
- `clipped`: samples beyond full scale (after averaging and resampling) are set to it;
- `truncated`: at least half of the declared length, or of the part, is there (and more than 0.05 s lack): what is
  there is kept;
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
from c2ftool.data.sources.listing import Inside

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


@dataclass(frozen=True)
class _Sound:
    """What was read of a file: mono samples, its rate and channels, how many samples should be there (None: it does
    not say), and the decoder's complaint where it stopped early."""

    mono: npt.NDArray[np.float32]
    rate: int
    channels: int
    expected: int | None
    failure: str | None = None


def decode(
    path: Path, rate: int, start: float | None = None, stop: float | None = None, inside: Inside | None = None
) -> Decoded:
    """The clip of a file, or of its part from `start` to `stop` seconds; raises Unusable with the reason.

    inside: the data set that holds the samples, of a file that is an HDF5 file. A part begins and ends at the nearest
    samples of the file: seconds that are a whole number of them cut exactly there.
    """
    sound = _read(path, start, stop, inside)
    mono, source_rate = sound.mono, sound.rate
    handled = ["averaged to mono"] if sound.channels > 1 else []
    lacking = 0 if sound.expected is None else sound.expected - len(mono)
    if lacking > SHORTEST * source_rate or sound.failure is not None:
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


def _read(path: Path, start: float | None, stop: float | None, inside: Inside | None) -> _Sound:
    """What is asked for of a file, where enough of it is there; raises Unusable where it is not."""
    import soundfile

    try:
        if path.stat().st_size == 0:
            raise Unusable("empty", "no bytes")
        sound = _of_file(path, start, stop) if inside is None else _of_data_set(path, inside, start, stop)
    except soundfile.LibsndfileError as error:
        raise Unusable("corrupt", error.error_string) from error
    except OSError as error:
        raise Unusable("unreadable", error.strerror or str(error)) from error
    count, expected, failure = len(sound.mono), sound.expected, sound.failure
    if not count:
        raise Unusable("corrupt" if failure else "empty", failure or "no frames")
    share = 1.0 if expected is None or expected <= 0 else count / expected
    if share < KEPT_SHARE:
        length = f"{count} of {expected} frames are there"
        raise Unusable("corrupt" if failure else "truncated", f"{length} ({failure})" if failure else length)
    if count < SHORTEST * sound.rate:
        raise Unusable("too short", f"{count / sound.rate:.3f} s, at least {SHORTEST} s")
    return sound


def _of_file(path: Path, start: float | None, stop: float | None) -> _Sound:
    """Of an audio file; raises Unusable, OSError, or what soundfile raises where it cannot be opened."""
    with _open(path) as file:
        rate, channels = file.samplerate, file.channels
        if channels > MOST_CHANNELS:
            raise Unusable("channels", f"{channels} channels, at most {MOST_CHANNELS}")
        if not RATES[0] <= rate <= RATES[1]:
            raise Unusable("sample rate", f"{rate} Hz, outside {RATES[0]}..{RATES[1]} Hz")
        declared = _declared(path, file)
        first, last = _part(start, stop, rate)
        if first and (declared is None or first >= declared or file.seek(first) != first):
            raise _begins_late(first / rate)
        wanted = min((end for end in (declared, last) if end is not None), default=None)
        mono, failure = _collect(file, None if wanted is None else wanted - first, rate)
    end = last if last is not None else declared
    return _Sound(mono, rate, channels, None if end is None else end - first, failure)


def _of_data_set(path: Path, inside: Inside, start: float | None, stop: float | None) -> _Sound:
    """Of a data set of floats in an HDF5 file; raises Unusable, or OSError where it cannot be read."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:  # a lock that network file systems refuse
        data = file.get(inside.name)
        if not isinstance(data, h5py.Dataset):
            raise Unusable("unreadable", f"there is no data set {inside.name}")
        if data.ndim != 1 or data.dtype.kind != "f":
            raise Unusable("corrupt", f"{data.dtype} of the shape {data.shape}, not floats of one channel")
        first, last = _part(start, stop, inside.rate)
        if first and first >= len(data):
            raise _begins_late(first / inside.rate)
        end = len(data) if last is None else last
        if min(end, len(data)) - first > LONGEST * inside.rate:
            raise _too_long()
        # of a large data set only what is asked for is read
        return _Sound(data[first:end].astype(np.float32), inside.rate, 1, end - first)


def _part(start: float | None, stop: float | None, rate: int) -> tuple[int, int | None]:
    """The first sample of a part, and the one after its last (None: the file's end)."""
    return round((start or 0.0) * rate), round(stop * rate) if stop is not None else None


def _begins_late(seconds: float) -> Unusable:
    return Unusable("too short", f"the part begins at {seconds:.3f} s and the file ends before it")


def _too_long() -> Unusable:
    return Unusable("too long", f"more than {LONGEST / 3600:g} hours")


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
                raise _too_long()
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
