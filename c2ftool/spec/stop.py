"""`stop` of a phase: rules that end it before its `length`. Built by c2ftool/engine/stopping.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from c2ftool.spec.amounts import Duration
from c2ftool.spec.base import Section
from c2ftool.spec.running import Metric


class Surpasses(Section):
    """At the first evaluation above a value: the paper's "earliest surpass" (Feng et al., ICASSP 2024, Table 2)."""

    kind: Literal["surpasses"]
    metric: Metric | None = Field(None, description="Of the validation clips; the one that selects if not given.")
    value: float | None = Field(
        None, description="What must be exceeded; the best of the run of `savings.baseline` if not given."
    )


class Plateau(Section):
    """When the metric has not risen for some evaluations."""

    kind: Literal["plateau"]
    metric: Metric | None = Field(None, description="Of the validation clips; the one that selects if not given.")
    patience: int = Field(3, ge=1, description="Evaluations without a rise after which the phase ends.")
    min_delta: float = Field(0.0, ge=0, description="What counts as a rise: more than this above the best so far.")


class Budget(Section):
    """When so much has been spent on training: at the first step that reaches it."""

    kind: Literal["budget"]
    flops: float | None = Field(None, gt=0, description="Training FLOPs, front end not included.")
    time: Duration | None = Field(
        None, description="Time in training steps. The step at which it runs out differs from run to run."
    )
    of: Literal["phase", "run"] = Field("phase", description="What is counted: this phase, or the run so far.")


Stop = Annotated[Surpasses | Plateau | Budget, Field(discriminator="kind")]
