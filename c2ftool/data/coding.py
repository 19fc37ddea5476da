"""The two codings of a stored clip: PCM 16 in a WAV with a 44-byte header, and FLAC; both mono, both exact."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt

Int16 = npt.NDArray[np.int16]
Coding = Literal["wav", "flac"]
HEADER = 44
# Writers to a pipe cannot know the length and leave a value of this order in the header (0xFFFFFFFF, 0x7FFFF000, ..).
_UNKNOWN = 0x7FFF0000
_PLAIN = (1, 3, 0xFFFE)  # format tags of PCM, floats and the extensible header


def encode(samples: Int16, rate: int, coding: Coding) -> bytes:
    """The bytes of a mono clip of int16 samples."""
    match coding:
        case "wav":
            data = np.ascontiguousarray(samples, dtype="<i2").tobytes()
            return wav_header(len(samples), rate) + data
        case "flac":
            import soundfile

            target = io.BytesIO()
            soundfile.write(target, samples, rate, format="FLAC", subtype="PCM_16")
            return target.getvalue()
        case _:
            assert_never(coding)


def wav_header(samples: int, rate: int) -> bytes:
    """The 44 bytes before the samples of a mono PCM 16 WAV."""
    size = 2 * samples
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size
    )


def decode_flac(data: bytes) -> Int16:
    """The int16 samples of a stored FLAC clip."""
    import soundfile

    return soundfile.read(io.BytesIO(data), dtype="int16")[0]


def declared_wav_frames(path: Path) -> int | None:
    """The number of frames that the header of a WAV of PCM or floats declares, or None where it declares none.

    libsndfile takes what the file holds for what it declares, so that a shortened WAV passes without a word.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        align = 0
        while len(chunk := file.read(8)) == 8:
            kind, size = struct.unpack("<4sI", chunk)
            if kind == b"data":
                return None if size >= _UNKNOWN or size == 0 or align == 0 else size // align
            body = file.read(16) if kind == b"fmt " else b""
            if len(body) == 16 and struct.unpack("<H", body[:2])[0] in _PLAIN:
                align = struct.unpack("<H", body[12:14])[0]
            file.seek(size + size % 2 - len(body), 1)
    return None
