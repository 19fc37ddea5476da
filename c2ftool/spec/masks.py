"""`masks`: which tokens the student does not see. Built by c2ftool/masks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.base import Section

Side = Annotated[int, Field(ge=1, le=64)]
Shape = Annotated[list[Side], Field(min_length=2, max_length=2)]


class InverseBlock(Section):
    """Blocks that stay visible, the rest masked (Chen et al., EAT, section 3.3)."""

    kind: Literal["inverse_block"]
    ratio: float = Field(
        0.8, gt=0, lt=1, description="Share of tokens masked; the visible count is exactly int(L (1 - ratio))."
    )
    block: Shape = Field([5, 5], description="Kept block, [time, frequency] tokens.")
    blocks: list[Shape] | None = Field(
        None,
        min_length=2,
        description="Block shapes of which each clip picks one, in place of `block` ([[6, 4], [5, 5], [8, 3]]).",
    )
    surplus: float = Field(
        0.07, ge=0, lt=1, description="Share added to the visible share when block centres are counted."
    )
    clones: int = Field(16, ge=1, le=1024, description="Masked copies of each clip in a step.")


class Cluster(Section):
    """Blocks that are masked (Gong et al., SSAST, section 2.3): several small ones, until enough tokens are."""

    kind: Literal["cluster"]
    ratio: float = Field(
        0.78125, gt=0, lt=1, description="Share of tokens masked, to the nearest whole one (400 of 512; also 250)."
    )
    size: Shape = Field([3, 5], description="Least and largest side of a block in tokens; each clip picks one.")


class Random(Section):
    """Tokens masked one by one (SSAST's frame patches)."""

    kind: Literal["random"]
    ratio: float = Field(0.78125, gt=0, lt=1, description="Share of tokens masked, to the nearest whole one.")


Masks = Annotated[InverseBlock | Cluster | Random, Field(discriminator="kind")]


def masked_count(masks: InverseBlock | Cluster | Random, tokens: int) -> int:
    """How many of so many tokens are masked; one at least is seen."""
    match masks:
        case InverseBlock():
            return tokens - max(1, int(round(tokens * (1 - masks.ratio), 6)))
        case Cluster() | Random():
            return min(tokens - 1, max(1, round(tokens * masks.ratio)))
