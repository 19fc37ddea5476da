"""`savings`: what a run is compared with. Built by c2ftool/costs/savings.py and the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from c2ftool.spec.amounts import Length
from c2ftool.spec.base import Section
from c2ftool.spec.running import Metric


class Savings(Section):
    """Cost against a baseline, by the paper's rule or over whole runs."""

    baseline: str = Field(
        description="A spec, by path or name, whose run has the spec's own name; or `run:NAME`.", min_length=1
    )
    at: Literal["first_beat", "end"] = Field(
        "first_beat",
        description="`first_beat`: the cost until the last phase first passes the baseline's best, against the "
        "baseline's cost up to its best (Feng et al.). `end`: whole runs.",
    )
    metric: Metric | None = Field(None, description="Of the validation clips; the one that selects if not given.")
    control: str | None = Field(
        None, min_length=1, description="The run of the control, `control: restart`; RUN-restart if not given."
    )
    baseline_best: Length | None = Field(
        None, description="When the baseline was at its best, as published; for `c2f flops`, which has no run to ask."
    )
    reached: Length | None = Field(
        None, description="Length of the last phase until it passed the baseline's best, as published; likewise."
    )
