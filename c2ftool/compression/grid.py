"""How many tokens an input makes. Integers only: specs are resolved with it before any tensor exists."""

from __future__ import annotations


def token_grid(
    frames: int, mels: int, patch: tuple[int, int], stride: tuple[int, int] | None = None
) -> tuple[int, int]:
    """(time, frequency) tokens of an input cut into patches of (frames, mel bands); without overlap if no stride.

    What does not fill a patch is left out, as a convolution does. Raises ValueError where no token is left.
    """
    step = stride or patch
    time, frequency = (frames - patch[0]) // step[0] + 1, (mels - patch[1]) // step[1] + 1
    if frames < patch[0] or mels < patch[1]:
        raise ValueError(f"{frames} frames x {mels} mel bands leave no {patch[0]} x {patch[1]} patch")
    return time, frequency


def stem_grid(frames: int, mels: int) -> tuple[int, int]:
    """(time, frequency) of fPaSST: two strides of 2 that count a last half, and one row of all mel bands."""
    if not frames or not mels:
        raise ValueError(f"{frames} frames x {mels} mel bands leave no token")
    return (frames + 3) // 4, 1


def chunk_grid(frames: int, mels: int, patch: tuple[int, int], chunk: int) -> tuple[int, int]:
    """(time, frequency) of M2D: chunks of so many frames, the last one padded to a whole patch; no more than a chunk's.

    Raises ValueError where no token is left.
    """
    _, frequency = token_grid(patch[0], mels, patch)
    if not frames:
        raise ValueError("0 frames leave no token")
    full = chunk // patch[0]
    chunks, rest = divmod(frames, chunk)
    return chunks * full + min(full, -(-rest // patch[0])), frequency


def image_frames(frames: int) -> int:
    """The frames that HTS-AT stretches an input to: the next power of two, at least 32."""
    return max(32, 1 << max(0, frames - 1).bit_length())


def image_grid(frames: int, mels: int, patch: tuple[int, int]) -> tuple[int, int]:
    """(time, frequency) of HTS-AT's patches, before they are laid out as an image.

    Raises ValueError where three halvings leave less than a token, or the mel bands are no power of two.
    """
    time, frequency = token_grid(image_frames(frames), mels, patch)
    if time < 8 or frequency < 8 or frequency & (frequency - 1):
        raise ValueError(f"{frames} frames x {mels} mel bands in patches of {patch[0]} x {patch[1]} leave no token")
    return time, frequency


def halved_grid(frames: int, mels: int, halvings: int = 5) -> tuple[int, int]:
    """(time, frequency) after so many halvings that leave odd ones out (CNN14). Raises ValueError for none left."""
    time, frequency = frames >> halvings, mels >> halvings
    if not time or not frequency:
        raise ValueError(f"{frames} frames x {mels} mel bands halved {halvings} times leave none")
    return time, frequency


def shorter(length: int, factor: int, what: str = "frames") -> int:
    """A length compressed by a factor, cut to whole ones: 1024 frames at factor 4 are 256. Raises ValueError for none.

    (Feng et al., ICASSP 2024, section 2.)
    """
    if length < factor:
        raise ValueError(f"{length} {what} compressed {factor} to 1 leave none")
    return length // factor
