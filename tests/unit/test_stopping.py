"""Rules that end a phase early: when they fire, what they say, and what survives a resume."""

from __future__ import annotations

import math
from typing import Any

import pytest

from c2ftool.engine.clock import Clock
from c2ftool.engine.stopping import by_budget, by_metric
from c2ftool.spec.resolved import ResolvedStop


def budget(**given: Any) -> ResolvedStop:
    return ResolvedStop(kind="budget", **given)


def surpasses(value: float | None, metric: Any = "accuracy") -> ResolvedStop:
    return ResolvedStop(kind="surpasses", metric=metric, value=value)


def plateau(patience: int = 2, min_delta: float = 0.0) -> ResolvedStop:
    return ResolvedStop(kind="plateau", metric="accuracy", patience=patience, min_delta=min_delta)


def clock(phase: int = 0, seconds: tuple[float, ...] = (0.0,)) -> Clock:
    return Clock(phase=phase, seconds=[*seconds])


def ended_at(rule: ResolvedStop, values: list[float], at: Clock | None = None) -> int | None:
    """The evaluation, from 1, at which the rule fires."""
    at = at or clock()
    return next((n for n, v in enumerate(values, 1) if by_metric(rule, at, {"accuracy": v, "map": 0.0})), None)


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_a_budget_of_flops_fires_at_the_step_that_reaches_it() -> None:
    rule = budget(flops=1e15)
    assert by_budget(rule, clock(), [0.99e15]) is None
    assert by_budget(rule, clock(), [1e15]) == "budget of 1e+15 FLOPs"
    assert by_budget(rule, clock(), [2e15]) == "budget of 1e+15 FLOPs"


def test_a_budget_of_time_fires_at_the_step_that_reaches_it() -> None:
    rule = budget(seconds=90.0)
    assert by_budget(rule, clock(seconds=(89.9,)), [1e30]) is None
    assert by_budget(rule, clock(seconds=(90.0,)), [0.0]) == "budget of 90 s"


def test_a_budget_is_of_the_phase_or_of_the_run_so_far() -> None:
    later = clock(phase=1, seconds=(50.0, 45.0))
    spent = [6e9, 5e9]
    assert by_budget(budget(flops=10e9), later, spent) is None
    assert by_budget(budget(flops=10e9, of="run"), later, spent) == "budget of 1e+10 FLOPs of the run"
    assert by_budget(budget(flops=5e9), later, spent) == "budget of 5e+09 FLOPs"  # the phase before does not count
    assert by_budget(budget(seconds=90.0), later, spent) is None
    assert by_budget(budget(seconds=90.0, of="run"), later, spent) == "budget of 90 s of the run"
    # what a phase after this one has spent (there is none in a run) would not count either
    assert by_budget(budget(flops=10e9, of="run"), clock(phase=0, seconds=(1.0,)), [6e9]) is None


@pytest.mark.parametrize("rule", [None, surpasses(0.5), plateau()])
def test_other_rules_are_no_budget(rule: ResolvedStop | None) -> None:
    assert by_budget(rule, clock(seconds=(1e9,)), [1e30]) is None


# --- surpasses --------------------------------------------------------------------------------------------------------


def test_surpassing_is_strict_and_says_what_was_surpassed() -> None:
    rule = surpasses(0.443)
    assert by_metric(rule, clock(), {"accuracy": 0.443}) is None
    assert by_metric(rule, clock(), {"accuracy": 0.4431, "map": 0.9}) == "surpasses accuracy 0.443"
    assert ended_at(rule, [0.1, 0.5, 0.2]) == 2


def test_nothing_surpasses_what_is_not_known_or_not_measured() -> None:
    assert ended_at(surpasses(None), [0.9, 1.0]) is None
    assert ended_at(surpasses(0.1, "auc"), [0.9, 1.0]) is None
    assert ended_at(surpasses(0.1), [math.nan, math.nan]) is None
    assert ended_at(surpasses(-0.5), [-1.0, 0.0]) == 2


# --- plateau ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "patience", "fires"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, None),
        ([0.5, 0.5], 1, 2),  # as large as the best is no rise
        ([0.5, 0.4, 0.45], 2, 3),  # what rises, but not above the best, is no rise
        ([0.5, 0.4, 0.6, 0.5, 0.5], 2, 5),  # a rise counts from anew
        ([0.5, 0.4, 0.6, 0.5], 2, None),
        ([0.5, 0.4, 0.3, 0.2], 3, 4),
        ([math.nan, math.nan, math.nan, 0.2, 0.1], 1, 5),  # nothing has been measured yet
        ([0.2, math.nan, math.nan], 2, 3),  # a value that is none is no rise
        ([-0.3, -0.2, -0.25], 1, 3),
    ],
)
def test_a_plateau_is_so_many_evaluations_without_a_rise(values: list[float], patience: int, fires: int | None) -> None:
    assert ended_at(plateau(patience), values) == fires


def test_small_rises_count_only_above_the_least_one() -> None:
    rule = plateau(2, min_delta=0.1)
    assert ended_at(rule, [0.5, 0.55, 0.6]) == 3  # against the best that counted, 0.5
    assert ended_at(rule, [0.5, 0.55, 0.601, 0.65, 0.7]) == 5
    at = clock()
    assert ended_at(rule, [0.5, 0.59], at) is None and at.plateau == {"value": 0.5, "since": 1}


def test_a_plateau_says_its_height() -> None:
    at = clock()
    said = [by_metric(plateau(1), at, {"accuracy": value}) for value in (0.25, 0.81234, 0.5)]
    assert said == [None, None, "plateau of accuracy at 0.8123"]


def test_a_resumed_plateau_goes_on_counting_and_the_next_phase_starts_afresh() -> None:
    values = [0.5, 0.4, 0.3, 0.2]
    at = clock()
    assert ended_at(plateau(3), values[:3], at) is None
    resumed = Clock.restore(at.state())
    assert resumed.plateau == {"value": 0.5, "since": 2} and resumed.plateau is not at.plateau
    assert ended_at(plateau(3), values[3:], resumed) == 1
    resumed.enter(1)
    assert resumed.plateau is None and ended_at(plateau(3), [0.1, 0.0, 0.0], resumed) is None


@pytest.mark.parametrize("rule", [None, budget(flops=1.0)])
def test_a_budget_is_no_rule_of_a_metric(rule: ResolvedStop | None) -> None:
    at = clock()
    assert ended_at(rule, [0.5, 0.1, 0.1], at) is None if rule else by_metric(rule, at, {"accuracy": 1.0}) is None
    assert at.plateau is None
