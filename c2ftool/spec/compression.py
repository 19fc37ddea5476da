"""`compression`: fewer tokens, so a cheaper step. Built by c2ftool/compression, c2ftool/frontend and the backbones.

`factor` is the paper's C, over time (Feng et al., ICASSP 2024, section 2); `mel_factor`, over the mel axis, is ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.base import Section

Factor = Literal[1, 2, 4, 8, 16]
MelFactor = Literal[1, 2, 4, 8]
_TIME = "How many times fewer tokens over time."
_MEL = "How many times fewer tokens over the mel axis (not in the paper)."


class NoCompression(Section):
    """Full resolution."""

    method: Literal["none"]
    factor: Literal[1] = Field(1, description="None.")
    mel_factor: Literal[1] = Field(1, description="None.")


class FrameShift(Section):
    """A `factor` times longer hop when the log-mel is made; `mel_factor` times fewer mel bands (Fshift)."""

    method: Literal["fshift"]
    factor: Factor = Field(description=_TIME)
    mel_factor: MelFactor = Field(1, description=_MEL)
    window: Literal["kept", "scaled"] = Field(
        "kept", description="Length of the analysis window: as at full resolution (the paper), or `factor` times it."
    )


class Pool(Section):
    """A pooling layer, kernel = stride = factor, between log-mel and tokeniser (equations 1 and 2)."""

    method: Literal["pool"]
    factor: Factor = Field(description=_TIME)
    mel_factor: MelFactor = Field(1, description=_MEL)
    reduce: Literal["avg", "max"] = Field("avg", description="Mean or maximum of the frames of a kernel.")
    at: Literal["input", "log_mel"] = Field(
        "input",
        description="`input`: after padding, normalising and augmentation, the last thing before the tokeniser (the "
        "paper). `log_mel`: the raw log-mel of the clip's own frames, before all of that (the authors' later code).",
    )


class Patch(Section):
    """Patches `factor` times as wide (and their stride); the patch kernel is resized."""

    method: Literal["patch"]
    factor: Factor = Field(description=_TIME)
    mel_factor: MelFactor = Field(1, description=_MEL)
    resize: Literal["pi", "bilinear"] = Field(
        "pi", description="How the kernel is resized on both ways: by the pseudo-inverse (PI), or as a picture (BL)."
    )


Compression = Annotated[NoCompression | FrameShift | Pool | Patch, Field(discriminator="method")]


def words(compression: Compression) -> str:
    """The compression for people: `none`, `fshift 4`, `avg pool 2`, `patch 4 (pi)`, `fshift 2, mel 2`."""
    match compression:
        case NoCompression():
            return "none"
        case FrameShift():
            name = f"fshift {compression.factor}" + (" (window scaled)" if compression.window == "scaled" else "")
        case Pool():
            name = f"{compression.reduce} pool {compression.factor}" + (
                " (log-mel)" if compression.at != "input" else ""
            )
        case Patch():
            name = f"patch {compression.factor} ({compression.resize})"
    return name if compression.mel_factor == 1 else f"{name}, mel {compression.mel_factor}"
