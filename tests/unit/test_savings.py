"""Savings against a baseline: the published table, and what a reader must not be told wrongly."""

import dataclasses
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2ftool.costs.savings import Control, Point, best, control, first_beat, savings

# Forward multiply-accumulates of one clip, AST base; factor -> cost
SHORT = {1: 48627141888, 2: 23190785280, 4: 11378576640}  # fshift, avg_pool, max_pool: fewer frames
WIDE = {1: 48627141888, 2: 23241116928, 4: 11454074112}  # patch_*: wider patches
# Feng et al., Tables 2 and 4: data set, method, factors, epochs of the phases, the baseline's best epoch, saving in %
PUBLISHED = """
vggsound fshift 4,1 5,3 10 58.3002
voxceleb fshift 4,1 5,4 9 42.5558
kinetics_sounds fshift 4,1 5,4 9 42.5558
audioset fshift 4,1 1,3 5 35.3201
vggsound fshift 2,1 5,3 10 46.1545
voxceleb fshift 2,1 5,3 9 40.1716
kinetics_sounds fshift 2,1 5,3 9 40.1716
audioset fshift 2,1 1,3 5 30.4618
vggsound avg_pool 4,1 5,3 10 58.3002
voxceleb avg_pool 4,1 5,5 9 31.4446
kinetics_sounds avg_pool 4,1 5,5 9 31.4446
audioset avg_pool 4,1 1,3 5 35.3201
vggsound max_pool 4,1 5,3 10 58.3002
voxceleb max_pool 4,1 5,3 9 53.6669
kinetics_sounds max_pool 4,1 5,5 9 31.4446
audioset max_pool 4,1 1,3 5 35.3201
vggsound avg_pool 2,1 5,3 10 46.1545
voxceleb avg_pool 2,1 5,3 9 40.1716
kinetics_sounds avg_pool 2,1 5,4 9 29.0605
audioset avg_pool 2,1 1,3 5 30.4618
vggsound max_pool 2,1 5,3 10 46.1545
voxceleb max_pool 2,1 5,3 9 40.1716
kinetics_sounds max_pool 2,1 5,5 9 17.9494
audioset max_pool 2,1 1,3 5 30.4618
vggsound patch_bl 4,1 5,3 10 58.2226
voxceleb patch_bl 4,1 5,5 9 31.3584
kinetics_sounds patch_bl 4,1 5,5 9 31.3584
audioset patch_bl 4,1 1,3 5 35.289
vggsound patch_pi 4,1 5,3 10 58.2226
voxceleb patch_pi 4,1 5,6 9 20.2473
kinetics_sounds patch_pi 4,1 5,5 9 31.3584
audioset patch_pi 4,1 1,3 5 35.289
vggsound patch_bl 2,1 5,3 10 46.1027
voxceleb patch_bl 2,1 5,3 9 40.1141
kinetics_sounds patch_bl 2,1 5,4 9 29.003
audioset patch_bl 2,1 1,3 5 30.4411
vggsound patch_pi 2,1 5,3 10 46.1027
voxceleb patch_pi 2,1 5,3 9 40.1141
kinetics_sounds patch_pi 2,1 5,4 9 29.003
audioset patch_pi 2,1 1,3 5 30.4411
vggsound fshift 4,2,1 3,3,2 10 58.6728
voxceleb fshift 4,2,1 3,3,4 9 31.8587
kinetics_sounds fshift 4,2,1 3,3,3 9 42.9698
vggsound avg_pool 4,2,1 3,3,2 10 58.6728
voxceleb avg_pool 4,2,1 3,3,3 9 42.9698
kinetics_sounds avg_pool 4,2,1 3,3,3 9 42.9698
vggsound max_pool 4,2,1 3,3,2 10 58.6728
voxceleb max_pool 4,2,1 3,3,3 9 42.9698
kinetics_sounds max_pool 4,2,1 3,3,4 9 31.8587
vggsound patch_bl 4,2,1 3,3,2 10 58.5952
voxceleb patch_bl 4,2,1 3,3,5 9 20.6613
kinetics_sounds patch_bl 4,2,1 3,3,3 9 42.8835
vggsound patch_pi 4,2,1 3,3,2 10 58.5952
voxceleb patch_pi 4,2,1 3,3,4 9 31.7724
kinetics_sounds patch_pi 4,2,1 3,3,3 9 42.8835
"""


def point(epoch, value, *, final=True, phase="fine", flops=None, seconds=None, rate=None):
    """An evaluation after `epoch` epochs; every amount is the epoch unless given."""
    flops, seconds, rate = (epoch if amount is None else amount for amount in (flops, seconds, rate))
    return Point(phase, final, float(epoch), float(flops), float(seconds), float(rate), value)


def line(*values, **amounts):
    """A run of one phase, evaluated once per epoch."""
    return [point(epoch, value, **amounts) for epoch, value in enumerate(values, 1)]


def published_run(factors, epochs, costs, values):
    """One evaluation per epoch; `values` are those of the last phase, the phases before score above any baseline."""
    points, spent, trained = [], 0, 0
    for number, (factor, count) in enumerate(zip(factors, epochs, strict=True), 1):
        final = number == len(factors)
        for epoch in range(count):
            spent, trained = spent + costs[factor], trained + 1
            value = values[epoch] if final else 0.99
            points.append(point(trained, value, final=final, phase=f"factor {factor}", flops=spent, seconds=2 * spent))
    return points


@pytest.mark.parametrize("row", PUBLISHED.split("\n")[1:-1])
def test_the_rule_gives_the_published_savings(row):
    _, method, *columns, top, expected = row.split()
    factors, epochs = ([int(number) for number in column.split(",")] for column in columns)
    costs = WIDE if method.startswith("patch") else SHORT
    # both go on after the evaluation that counts, as the published runs did
    rising = [*(0.1 + 0.01 * epoch for epoch in range(int(top) - 1)), 0.5, 0.5, 0.4]
    baseline = published_run([1], [int(top) + 2], costs, rising)
    last = [*(0.5 - 0.01 * epoch for epoch in range(epochs[-1] - 1)), 0.51, 0.6]
    run = published_run(factors, [*epochs[:-1], epochs[-1] + 1], costs, last)
    saved = savings(run, baseline, "first_beat")
    assert saved.reached and saved.flops is not None and saved.seconds is not None
    assert 100 * saved.flops == pytest.approx(float(expected), abs=1e-3)
    assert saved.seconds == pytest.approx(saved.flops, abs=1e-12)
    assert (saved.baseline.epochs, saved.run and saved.run.epochs) == (int(top), sum(epochs))


def test_the_table_is_whole():
    assert len(PUBLISHED.split("\n")[1:-1]) == 55


def test_a_run_that_passes_is_described_in_a_sentence():
    baseline = line(0.3, 0.8123, 0.8)
    run = [point(1, 0.2, final=False, phase="coarse"), point(2, 0.5), point(2.5, 0.8124), point(20, 0.9)]
    saved = savings(run, baseline, "first_beat")
    assert saved.note == "passed the baseline's best (0.812, epoch 2) at epoch 2.5 of 20"
    assert saved.run is run[2] and saved.baseline is baseline[1]
    assert saved.flops == pytest.approx(-0.25)  # it cost more: negative, and said so


@pytest.mark.parametrize(
    "run, note",
    [
        ([], "not reached: no evaluation in the last phase to compare with 0.812"),
        (line(0.7, 0.79, math.nan), "not reached: best 0.79 against 0.812"),
        (line(0.81199), "not reached: best 0.81199 against 0.812"),
        (line(0.812), "not reached: best 0.812 against 0.812, a tie"),
        (line(math.nan, math.inf), "not reached: no finite value in the last phase to compare with 0.812"),
        (
            [point(1, 0.9, final=False, phase="coarse"), point(2, 0.5)],
            "not reached: best 0.5 against 0.812 (0.9 in phase coarse does not count: it is not the last)",
        ),
        (line(0.6, final=False), "not reached: no evaluation in the last phase to compare with 0.812"),
    ],
)
def test_not_reached_is_an_answer_with_its_reason(run, note):
    saved = savings(run, line(0.5, 0.812, 0.812), "first_beat")
    assert (saved.reached, saved.flops, saved.seconds, saved.run) == (False, None, None, None)
    assert saved.note == note


def test_of_equal_values_the_earliest_is_the_best_and_nan_never_is():
    points = line(math.nan, 0.5, 0.7, 0.7, math.inf, -math.inf)
    assert best(points) is points[2]
    assert best(line(math.nan)) is None and best([]) is None


def test_a_baseline_at_its_best_from_the_start_is_compared_there():
    saved = savings(line(0.1, 0.95), line(0.9, 0.8), "first_beat")
    assert saved.baseline.epochs == 1 and saved.flops == -1


def test_a_baseline_at_its_best_before_training_has_no_cost_to_save():
    saved = savings(line(0.95), [point(0, 0.9), point(1, 0.8)], "first_beat")
    assert saved.reached and saved.flops is None and saved.seconds is None
    assert saved.note == (
        "passed the baseline's best (0.9, epoch 0) at epoch 1 of 1"
        "; no share of FLOPs, as the baseline had not trained by then"
    )


def test_amounts_that_are_not_known_give_no_share():
    saved = savings(line(0.95, flops=math.nan, seconds=0), line(0.9, 0.8, seconds=0), "first_beat")
    assert saved.reached and saved.flops is None and saved.seconds is None
    assert saved.note.endswith("; no share of FLOPs, as they are not known for both")


@pytest.mark.parametrize("rule", ["first_beat", "end"])
def test_a_baseline_without_evaluation_is_refused(rule):
    with pytest.raises(ValueError, match="the baseline has no evaluation"):
        savings(line(0.5), [], rule)


def test_a_baseline_without_a_finite_value_has_no_best_but_an_end():
    baseline = line(math.nan, math.nan)
    with pytest.raises(ValueError, match="finite"):
        savings(line(0.5), baseline, "first_beat")
    saved = savings(line(math.nan), baseline, "end")
    assert saved.flops == 0.5 and saved.note == "whole runs compared: 1 against 2 epochs"


def test_the_end_compares_whole_runs_and_says_how_well_they_did():
    saved = savings(line(0.79, 0.7), line(0.5, 0.812, 0.6, 0.6), "end")
    assert saved.reached and saved.flops == 0.5 and saved.seconds == 0.5
    assert saved.note == "whole runs compared: 2 against 4 epochs; best 0.79 against 0.812"
    unknown = savings([], line(0.5), "end")
    assert (unknown.reached, unknown.flops, unknown.run) == (False, None, None)
    assert unknown.note == "not reached: the run has no evaluation"


def test_the_control_is_its_best_within_the_runs_cost_and_within_its_rate():
    run = [point(1, 0.5, final=False, flops=1, rate=1), point(2, 0.9, flops=4, rate=0.3)]
    run[1] = dataclasses.replace(run[1], rate_sum=0.1 + 0.2 + 0.7)
    points = [
        point(1, 0.6, flops=2, rate=0.4),
        point(2, 0.7, flops=4, rate=0.8),
        point(3, 0.8, flops=6, rate=1.0),
        point(4, 0.9, flops=8, rate=1.2),
    ]
    assert control(run, points) == Control(points[1], points[2])
    assert control(run[:1], points) == Control(None, points[2])
    assert control([], points) == control(run, []) == Control(None, None)


def test_rounding_of_sums_does_not_cost_the_control_its_last_evaluation():
    run = [point(3, 0.5, flops=3 * 0.1, rate=0.3)]
    other = [point(3, 0.6, flops=0.1 + 0.1 + 0.1, rate=0.1 + 0.2)]
    assert other[0].flops > 0.3 and control(run, other) == Control(other[0], other[0])


amounts = st.floats(1e-3, 1e9)
values = st.one_of(st.floats(0, 1), st.sampled_from([0.5, math.nan, math.inf, -math.inf]))


@st.composite
def runs(draw, last_phase=True):
    """Evaluations of a run of up to three phases, with costs that grow."""
    count = draw(st.integers(1, 12))
    start = draw(st.integers(0, count if not last_phase else count - 1))
    flops = seconds = 0.0
    points = []
    for number in range(count):
        flops, seconds = flops + draw(amounts), seconds + draw(amounts)
        final = number >= start
        points.append(
            Point("fine" if final else "coarse", final, number + 1.0, flops, seconds, number + 1.0, draw(values))
        )
    return points


@given(runs())
def test_a_run_equal_to_its_baseline_saves_nothing(run):
    saved = savings(run, run, "end")
    assert (saved.reached, saved.flops, saved.seconds) == (True, 0, 0)
    if best(run) is not None:
        assert not savings(run, run, "first_beat").reached  # it does not exceed itself


@given(runs(last_phase=False), st.floats(allow_nan=True))
def test_only_the_last_phase_passes_and_only_by_exceeding(run, target):
    point = first_beat(run, target)
    passing = [p for p in run if p.final and p.value > target and p.value != math.inf]
    assert point is (passing[0] if passing else None)
    assert point is None or (point.final and math.isfinite(point.value))


@given(runs(last_phase=False), runs(), st.sampled_from(["first_beat", "end"]), st.floats(1e-6, 1e12))
def test_another_unit_of_cost_leaves_shares_alone(run, baseline, rule, scale):
    def scaled(points):
        return [dataclasses.replace(p, flops=p.flops * scale, seconds=p.seconds * scale) for p in points]

    if rule == "first_beat" and best(baseline) is None:
        return
    first, second = savings(run, baseline, rule), savings(scaled(run), scaled(baseline), rule)
    assert (first.reached, first.note) == (second.reached, second.note)
    if first.flops is not None and first.seconds is not None:
        assert second.flops == pytest.approx(first.flops, rel=1e-9, abs=1e-9)
        assert second.seconds == pytest.approx(first.seconds, rel=1e-9, abs=1e-9)


@given(runs(last_phase=False), runs())
def test_figures_in_a_note_tell_different_values_apart(run, baseline):
    if best(baseline) is None:
        return
    note = savings(run, baseline, "first_beat").note
    if (found := re.match(r"not reached: best (\S+) against ([^ ,]+)(, a tie)?", note)) is not None:
        assert (found[1] == found[2]) == (found[3] is not None)
