"""Figures of costs: they decode, cope with odd names and few points, and keep their texts apart."""

import io
import math
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from c2ftool.metrics import cost_figure as module
from c2ftool.metrics.cost_figure import CostCurve, cost_figure, plan_figure

NAMES = ["cost $x_1$", "a $\\bad{ formula", "_hidden", "an exceedingly long name of a phase that has no room", "日本"]
RUN = [(2e14, 0.2), (4e14, 0.35), (1.4e15, 0.5), (2.4e15, 0.62)]
BASELINE = [(1e15 * epoch, 0.6 - 0.5 / epoch) for epoch in range(1, 7)]
PHASES = [("coarse", 0.0, 4e14), ("fine", 4e14, 2.4e15)]
CURVES = [
    CostCurve("c2f", RUN, "run", RUN[-1]),
    CostCurve("base", BASELINE, "baseline", BASELINE[-1]),
    CostCurve("c2f-restart", BASELINE[:3], "control"),
]
PLANS = [
    ("two phases", [("coarse", 5, 1.4e15), ("fine", 20, 2.4e16)]),
    ("baseline", [("train", 20, 2.4e16)]),
]


def decoded(content, lowest=0.01):
    """(height, width, 4) of a picture that has something on it."""
    picture = imread(io.BytesIO(content), format="png")
    assert 400 < picture.shape[0] < 2200 and 800 < picture.shape[1] < 2200
    assert (picture[..., :3] < 0.9).any(axis=-1).mean() > lowest
    return picture


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that were drawn."""
    figures: list[Figure] = []
    png_bytes = module.png_bytes
    monkeypatch.setattr(module, "png_bytes", lambda figure: figures.append(figure) or png_bytes(figure))
    return figures


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def notes(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_a_run_its_baseline_and_its_control_are_told_apart_in_words(drawn):
    decoded(cost_figure(CURVES, "accuracy", PHASES))
    (figure,) = drawn
    assert legend_texts(figure) == [
        "c2f; star: 0.62 at 2.4 PFLOP",
        "base (baseline); dashed: its best, 0.5167; star: 0.5167 at 6 PFLOP",
        "c2f-restart (control)",
    ]
    (axes,) = figure.axes
    assert axes.get_xlabel() == "training so far (PFLOP)" and axes.get_ylabel() == "accuracy"
    assert notes(figure) == ["coarse", "fine"]
    level = [line for line in axes.lines if np.ptp(line.get_ydata()) == 0 and list(line.get_xdata()) == [0, 1]]
    assert [line.get_ydata()[0] for line in level] == [BASELINE[-1][1]]  # a line across the whole figure
    low, high = axes.get_xlim()
    assert low == 0 and 6 < high < 6.5


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name, drawn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded(cost_figure([CostCurve(name, RUN, "run")], name, [(name, 0, 2.4e15)]))
        decoded(plan_figure([(name, [(name, 1, 1e12), (name, 2, 3e12)])]), lowest=0.005)
    start = name.lstrip("_")[:20]
    assert all(legend_texts(figure)[0].startswith(start) for figure in drawn)
    assert notes(drawn[0])[0].startswith(name[:20])
    assert any(text.startswith(name[:20]) for text in notes(drawn[1]))


def test_one_evaluation_is_enough():
    decoded(cost_figure([CostCurve("c2f", [(3e9, 0.5)], "run", (3e9, 0.5))], "map", []))
    decoded(cost_figure([CostCurve("c2f", [(0.0, 0.5)], "baseline")], "map", [("coarse", 0, 0)]))


def test_values_that_are_not_finite_are_gaps(drawn):
    odd = [(1e12, math.nan), (2e12, 0.5), (math.nan, 0.9), (3e12, math.inf)]
    curves = [CostCurve("a", odd, "baseline", (math.nan, 0.5)), CostCurve("b", [], "control")]
    decoded(cost_figure(curves, "map", PHASES[:1]))
    assert legend_texts(drawn[0]) == ["a (baseline); dashed: its best, 0.5", "b (control)"]
    decoded(cost_figure([CostCurve("a", [(1e12, math.nan)], "baseline")], "map", []))


def test_evaluations_are_drawn_in_the_order_of_their_cost(drawn):
    shuffled = [(3e12, 0.3), (math.nan, 0.9), (1e12, 0.5), (2e12, 0.1)]
    cost_figure([CostCurve("c2f", shuffled, "run")], "map", [])
    np.testing.assert_allclose(drawn[0].axes[0].lines[0].get_xydata(), [(1, 0.5), (2, 0.1), (3, 0.3)])


def test_many_phases_and_many_evaluations_stay_within_a_page(drawn):
    phases = [(f"phase number {i}", i * 1e12, (i + 1) * 1e12) for i in range(30)]
    decoded(cost_figure([CostCurve("c2f", [(i * 3e10, i / 1000) for i in range(1000)], "run")], "map", phases))
    assert notes(drawn[0]) == [str(number) for number in range(1, 31)]  # no room for names
    decoded(plan_figure([("many", [(f"phase number {i}", 1, 1e12 * i) for i in range(1, 31)])]))
    assert set(notes(drawn[1])) <= {"465 TFLOP", *map(str, range(1, 31))} and len(notes(drawn[1])) > 20


def test_the_same_figures_are_the_same_bytes():
    assert cost_figure(CURVES, "accuracy", PHASES) == cost_figure(CURVES, "accuracy", PHASES)
    assert plan_figure(PLANS) == plan_figure(PLANS)


def test_nothing_to_draw_is_refused():
    for curves in ([], [CostCurve("c2f", [], "run")], [CostCurve("c2f", [(math.nan, 0.5)], "run", (1.0, 0.5))]):
        with pytest.raises(ValueError, match="no evaluation"):
            cost_figure(curves, "map", PHASES)
    for plans in ([], [("c2f", [])]):
        with pytest.raises(ValueError, match="no phase"):
            plan_figure(plans)


def test_plans_say_their_phases_and_totals(drawn):
    decoded(plan_figure(PLANS), lowest=0.005)
    (figure,) = drawn
    assert notes(figure) == ["25.4 PFLOP", "24 PFLOP", "coarse", "fine", "train"]
    assert legend_texts(figure) == ["two phases", "baseline"]
    first, second = (line.get_xydata() for line in figure.axes[0].lines)
    np.testing.assert_allclose(first, [(0, 0), (5, 1.4), (25, 25.4)])
    np.testing.assert_allclose(second, [(0, 0), (20, 24)])


@pytest.mark.parametrize(
    "plans",
    [
        PLANS,
        [(f"plan {i}", [("coarse", 5, 1.4e15 + i * 1e13), ("fine", 20, 2.4e16)]) for i in range(5)],
        [("same", [("all", 3, 1e12)])] * 4,
    ],
)
def test_totals_are_all_written_and_keep_clear_of_each_other(plans, drawn):
    plan_figure(plans)
    (figure,) = drawn
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if not text.get_rotation()]
    assert len([text for text in texts if text.get_text().endswith("FLOP")]) == len(plans)
    places = [(*text.xy, *text.xyann) for text in figure.axes[0].texts]
    assert len(set(places)) == len(places)  # names of lines that cover each other stand apart too
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_plan_of_nothing_is_still_drawn():
    decoded(plan_figure([("empty", [("nothing", 0, 0), ("again", 0, 0)])]), lowest=0.004)
