"""Learning rates per step."""

from __future__ import annotations

import math

from c2ftool.spec.resolved import ResolvedSchedule


def learning_rate(schedule: ResolvedSchedule, peak: float, step: int) -> float:
    """The rate of step `step` (from 0) of a phase.

    Warm-up rises linearly and reaches the peak in its last step. A cosine ends at `min_lr` with the phase's last step;
    steps after the end (there are none in a run) keep the last rate.
    """
    if step < schedule.warmup:
        return peak * (step + 1) / schedule.warmup
    match schedule.kind:
        case "constant":
            return peak
        case "cosine":
            span = max(1, schedule.steps - 1 - schedule.warmup)
            progress = min(1.0, (step - schedule.warmup) / span)
            return schedule.min_lr + (peak - schedule.min_lr) * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            fallen = min(1.0, max(0, step - schedule.start) / max(1, schedule.over))
            return peak + (schedule.min_lr - peak) * fallen
        case "step":
            falls = 0 if step < schedule.start else 1 + (step - schedule.start) // schedule.every
            return peak * schedule.factor**falls
        case "milestones":
            passed = sum(step >= moment for moment in schedule.milestones)
            return peak * schedule.factors[passed - 1] if passed else peak
        case other:
            raise ValueError(f"unknown schedule {other!r}")
