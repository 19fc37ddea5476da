"""How many tokens an input makes. Integers only: specs are resolved with it before any tensor exists."""

from __future__ import annotations


def token_grid(frames: int, mels: int, patch: tuple[int, int]) -> tuple[int, int]:
    """(time, frequency) tokens of an input cut into patches of (time, mel) size without overlap.

    What does not fill a patch is left out, as a convolution does. Raises ValueError where no token is left.
    """
    time, frequency = frames // patch[0], mels // patch[1]
    if time < 1 or frequency < 1:
        raise ValueError(f"{frames} frames x {mels} mel bands leave no {patch[0]} x {patch[1]} patch")
    return time, frequency


def frame_shift(frames: int, hop: int, factor: int) -> tuple[int, int]:
    """(frames, hop) of a phase with a `factor` times longer hop (Feng et al., ICASSP 2024, section 2).

    The analysis window stays. Frames are cut to whole ones: 1024 at factor 4 are 256. Raises ValueError for none.
    """
    if frames < factor:
        raise ValueError(f"{frames} frames compressed {factor} to 1 leave none")
    return frames // factor, hop * factor
