"""Learning rates per step."""

import itertools
import math

import pytest

from c2ftool.engine.schedule import learning_rate
from c2ftool.spec.resolved import ResolvedSchedule


def test_warm_up_reaches_the_peak_and_cosine_the_minimum():
    schedule = ResolvedSchedule(kind="cosine", steps=100, warmup=10, min_lr=1e-6)
    rates = [learning_rate(schedule, 1e-3, s) for s in range(100)]
    assert rates[0] == pytest.approx(1e-4) and rates[9] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(1e-3) and rates[-1] == pytest.approx(1e-6)
    middle = 10 + (99 - 10) / 2
    assert learning_rate(schedule, 1e-3, middle) == pytest.approx((1e-3 + 1e-6) / 2)  # type: ignore[arg-type]
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_step_schedule_halves_at_start_and_every_after():
    schedule = ResolvedSchedule(kind="step", steps=50, warmup=0, start=20, every=10, factor=0.5)
    assert [learning_rate(schedule, 1.0, s) for s in (0, 19, 20, 29, 30, 40)] == [1, 1, 0.5, 0.5, 0.25, 0.125]


def test_a_phase_of_one_step_has_a_rate():
    for kind in ("cosine", "constant"):
        assert math.isfinite(learning_rate(ResolvedSchedule(kind=kind, steps=1, warmup=0), 1e-3, 0))


def test_milestones_are_factors_of_the_peak():
    schedule = ResolvedSchedule(kind="milestones", steps=30, warmup=2, milestones=[10, 20], factors=[0.05, 0.01])
    rates = [learning_rate(schedule, 2.0, s) for s in (0, 1, 9, 10, 19, 20, 29)]
    assert rates == pytest.approx([1.0, 2.0, 2.0, 0.1, 0.1, 0.02, 0.02])
