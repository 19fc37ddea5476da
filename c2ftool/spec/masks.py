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


Masks = InverseBlock
