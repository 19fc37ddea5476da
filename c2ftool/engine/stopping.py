"""Rules that end a phase before its length (`stop`), asked after steps and after evaluations."""

from __future__ import annotations

import math

from c2ftool.engine.clock import Clock
from c2ftool.spec.resolved import ResolvedStop


def by_budget(stop: ResolvedStop | None, clock: Clock, flops: list[float]) -> str | None:
    """Why the phase ends after this step; None if it goes on. flops: spent in each phase so far."""
    if stop is None or stop.kind != "budget":
        return None
    phases = [clock.phase] if stop.of == "phase" else range(clock.phase + 1)
    where = "" if stop.of == "phase" else " of the run"
    if stop.flops is not None and sum(flops[p] for p in phases) >= stop.flops:
        return f"budget of {stop.flops:g} FLOPs{where}"
    if stop.seconds is not None and sum(clock.seconds[p] for p in phases) >= stop.seconds:
        return f"budget of {stop.seconds:g} s{where}"
    return None


def by_metric(stop: ResolvedStop | None, clock: Clock, values: dict[str, float]) -> str | None:
    """Why the phase ends after an evaluation; None if it goes on. Keeps what a plateau needs in the clock."""
    if stop is None or stop.metric is None:
        return None
    value = values.get(stop.metric, math.nan)
    if stop.kind == "surpasses":
        passed = stop.value is not None and value > stop.value
        return f"surpasses {stop.metric} {stop.value:.4g}" if passed else None
    if stop.kind == "plateau":
        best = clock.plateau
        if best is None or value > best["value"] + stop.min_delta:
            clock.plateau = {"value": value, "since": 0} if not math.isnan(value) else best
            return None
        best["since"] += 1
        if best["since"] >= stop.patience:
            return f"plateau of {stop.metric} at {best['value']:.4g}"
    return None
