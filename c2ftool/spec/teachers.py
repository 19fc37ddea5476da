"""`teachers`: who gives the targets. Built by c2ftool/objectives and, of stored logits, c2ftool/engine/ensemble.py."""

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


class EnsembleTeacher(Section):
    """Trained models whose averaged logits are stored once and learned from (Schmid et al., ICASSP 2025)."""

    kind: Literal["ensemble"]
    members: list[str] = Field(
        [],
        description="Runs whose logits are averaged, as `run:NAME`; `*` and `?` stand for parts of a name, and of a "
        "study every child counts.",
    )
    logits: str | None = Field(
        None, description="In place of members: an HDF5 file of logits in the published layout (docs/methods/sed.md)."
    )
    weight: float = Field(0.9, ge=0, le=1, description="Share of the teacher in the loss; the rest is of the labels.")
    missing: Literal["error", "labels"] = Field(
        "error", description="For a clip without stored logits: an `error`, or its `labels` alone, at full weight."
    )


Teacher = Annotated[EmaTeacher | EnsembleTeacher, Field(discriminator="kind")]
