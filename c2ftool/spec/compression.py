"""`compression`: fewer time tokens, so a cheaper step. Built by c2ftool/compression."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.base import Section


class NoCompression(Section):
    """Full resolution."""

    method: Literal["none"]
    factor: Literal[1] = Field(1, description="None.")


class FrameShift(Section):
    """A `factor` times longer hop; the analysis window stays (Feng et al., ICASSP 2024, section 2)."""

    method: Literal["fshift"]
    factor: Literal[1, 2, 4, 8, 16] = Field(description="How many times fewer frames.")


Compression = Annotated[NoCompression | FrameShift, Field(discriminator="method")]
