"""`teachers`: who gives the targets. Built by c2ftool/objectives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.amounts import Length
from c2ftool.spec.base import Section


class EmaTeacher(Section):
    """An exponential moving average of the student (Chen et al., EAT, section 3.2)."""

    kind: Literal["ema"]
    decay: float = Field(0.9998, gt=0, lt=1, description="Decay at the first step.")
    final_decay: float = Field(0.99999, gt=0, le=1, description="Decay after `over`, and from there on.")
    over: Length = Field(Length.parse("25 %"), description="Part of the phase over which the decay rises, linearly.")
    layers: Literal["all"] | Annotated[list[int], Field(min_length=1)] = Field(
        "all", description="Blocks whose outputs are averaged to the target, from 0."
    )


Teacher = EmaTeacher
