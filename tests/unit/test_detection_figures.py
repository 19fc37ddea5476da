"""Figures of sound event detection: they decode, say what they show, and cope with nothing, much and odd input."""

import io
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from c2ftool.metrics import roc_figure, timeline_figure
from c2ftool.metrics.figures import class_figure
from c2ftool.metrics.roc_figure import _apart, psd_roc_figure

NAN = ([math.nan], [math.nan])
HALF = ([0.0, 40.0], [0.25, 0.75])  # over 100 per hour: area 0.4 x 0.25 + 0.6 x 0.75 = 0.55
ODD = ["a $\\bad{ name", "日本", "_x_", "Vehicle horn, car horn, honking"]


def size(content):
    """(height, width) of a picture that has something on it and fits a report."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    picture = imread(io.BytesIO(content), format="png")
    assert 300 < picture.shape[0] < 1400 and 1000 < picture.shape[1] < 1600
    assert (picture[..., :3] < 0.9).any(axis=-1).mean() > 0.005
    return picture.shape[:2]


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that were drawn."""
    figures: list[Figure] = []
    for module in (roc_figure, timeline_figure):
        png_bytes = module.png_bytes
        monkeypatch.setattr(module, "png_bytes", lambda f, draw=png_bytes: figures.append(f) or draw(f))
    return figures


def random_curves(count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        points = int(rng.integers(1, 30))
        yield np.sort(rng.uniform(0, 140, points)), np.sort(rng.uniform(0, 1, points))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def names_beside(axes):
    return [text.get_text() for text in axes.texts]


def line_at(line, place):
    return line.get_ydata()[np.searchsorted(line.get_xdata(), place, side="right") - 1]


def test_curves_are_steps_and_areas_stand_at_the_names(drawn):
    size(psd_roc_figure([HALF, NAN], ["dog", "cat"], HALF, 0.55, 100.0, "PSDS1"))
    (axes,) = drawn[0].axes
    one, whole = axes.lines
    for line in (one, whole):
        assert line.get_drawstyle() == "steps-post"
        assert [line_at(line, at) for at in (0, 39.5, 40.5, 100)] == [0.25, 0.25, 0.75, 0.75]
    assert whole.get_linewidth() > 2 * one.get_linewidth()
    assert names_beside(axes) == ["dog  0.550"]
    assert legend(drawn[0])[-1] == "PSDS1: 0.5500"
    assert axes.get_title() == "PSD-ROC, 1 class; not defined for 1"
    assert axes.get_xlim() == (0, 100)


def test_a_curve_is_zero_before_its_first_point_and_beyond_the_axis_it_does_not_count(drawn):
    curves = [([60.0, 100.0, 250.0, math.inf], [0.5, 0.6, 0.9, 1.0])]
    size(psd_roc_figure(curves, ["late"], ([], []), math.nan, 100.0))
    (axes,) = drawn[0].axes
    assert line_at(axes.lines[0], 59.0) == 0
    assert names_beside(axes) == ["late  0.200"]
    assert legend(drawn[0])[-1] == "PSDS: not defined"


@pytest.mark.parametrize("count", [1, 20])
def test_few_classes_are_all_named(count, drawn):
    names = (ODD * 5)[:count]
    size(psd_roc_figure(list(random_curves(count)), names, HALF, 0.55, 100.0))
    (axes,) = drawn[0].axes
    assert sorted(text.rsplit("  ", 1)[0].rstrip("…") for text in names_beside(axes)) == sorted(n[:25] for n in names)
    assert len(axes.lines) == count + 1


@pytest.mark.parametrize("count", [22, 500])
def test_of_many_classes_quantiles_are_shown_and_both_ends_named(count, drawn):
    curves = [([0.0], [number / count]) for number in range(count)]
    curves[3] = NAN
    size(psd_roc_figure(curves, [f"class {number}" for number in range(count)], HALF, 0.55, 100.0))
    (axes,) = drawn[0].axes
    assert len(axes.lines) == 8 + 2  # both ends, the median, the effective curve
    kept = [number for number in range(count) if number != 3]
    assert {text.split("  ")[0] for text in names_beside(axes)} == {f"class {n}" for n in kept[:4] + kept[-4:]}
    band = np.quantile(np.array(kept) / count, [0.1, 0.9])
    edges = axes.collections[0].get_paths()[0].get_extents()
    assert (edges.ymin, edges.ymax) == pytest.approx(tuple(band))
    median = next(line for line in axes.lines if line.get_label() == "median")
    assert line_at(median, 50.0) == pytest.approx(np.median(np.array(kept) / count))


def test_a_roc_without_curves_says_so(drawn):
    size(psd_roc_figure([], [], ([], []), math.nan, 100.0))
    size(psd_roc_figure([NAN] * 30, ["x"] * 30, NAN, math.nan, 50.0))
    assert all("no class has a curve" in names_beside(figure.axes[0]) for figure in drawn)
    assert drawn[1].axes[0].get_title() == "PSD-ROC, 0 classes; not defined for 30"


def test_rocs_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="1 curves for 2 names"):
        psd_roc_figure([HALF], ["a", "b"], HALF, 0.5, 100.0)
    with pytest.raises(ValueError, match="2 eFPR for 1 TPR"):
        psd_roc_figure([([0.0, 1.0], [0.5])], ["a"], HALF, 0.5, 100.0)
    for wrong in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="max_efpr"):
            psd_roc_figure([HALF], ["a"], HALF, 0.5, wrong)


@pytest.mark.parametrize("count", [0, 1, 2, 8, 20, 40])
def test_names_are_moved_apart_in_their_order_and_no_farther_than_needed(count):
    heights = np.random.default_rng(count).beta(0.2, 0.2, count).tolist()
    places = np.array(_apart(heights, 0.048))
    order = np.argsort(heights, kind="stable")
    assert (np.diff(places[order]) > 0.048 - 1e-9).all()
    if 0 < count <= 20:
        assert places.min() >= 0 and places.max() <= 1 + 1e-9
    free = np.linspace(0.1, 0.9, 9).tolist()
    assert _apart(free, 0.048) == pytest.approx(free)
    assert _apart([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


FEATURES = np.random.default_rng(2).normal(size=(998, 128)).astype(np.float32)


def draw_timeline(truth=(), detections=(), scores=None, names=("dog", "cat"), features=FEATURES, title="clip"):
    scores = np.full((len(names), 250), 0.01) if scores is None else scores
    return timeline_figure.timeline_figure(features, 0.01, truth, detections, scores, names, 0.04, title)


def lanes(figure):
    return [text.get_text() for text in figure.axes[1].get_yticklabels()]


def bars(figure, colour):
    """(left, right, middle) of the bars of a colour, shading left out."""
    from matplotlib.colors import to_rgb

    found = [p for p in figure.axes[1].patches if p.get_facecolor()[:3] == to_rgb(colour) and p.get_height() < 0.5]
    return [(p.get_x(), p.get_x() + p.get_width(), p.get_y() + p.get_height() / 2) for p in found]


def test_bars_and_scores_lie_where_their_times_say_in_the_lane_of_their_class(drawn):
    scores = np.zeros((2, 250))
    scores[0, 50:75] = 0.8
    size(draw_timeline([(2.0, 3.0, "dog")], [(2.04, 2.96, "dog"), (5.0, 6.0, "cat")], scores))
    (figure,) = drawn
    assert lanes(figure) == ["dog", "cat"]  # the first lane is the upper one: from 1 to 2
    ((left, right, height),) = bars(figure, timeline_figure.BLUE)
    assert (left, right) == (2.0, 3.0) and 1 < height < 2
    found = bars(figure, timeline_figure.ORANGE)
    assert [(left, right) for left, right, _ in found] == [(2.04, 2.96), (5.0, pytest.approx(6.0))]
    assert 1 < found[0][2] < 2 and 0 < found[1][2] < 1
    upper = next(line for line in figure.axes[1].lines if line.get_ydata().max() > 1.3 and len(line.get_xdata()) == 251)
    raised = upper.get_xdata()[upper.get_ydata() > 1.3]
    assert (raised.min(), raised.max()) == pytest.approx((2.0, 2.96))  # frame 50 to frame 74, drawn as steps
    assert upper.get_drawstyle() == "steps-post" and upper.get_ydata().max() < height - 0.2
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 10), (0, 10)]


def test_lanes_go_to_truth_then_detections_then_high_scores(drawn):
    scores = np.zeros((5, 250))
    scores[:, 7] = [0.05, 0.3, 0.9, 0.1, 1.0]
    size(draw_timeline([(4, 5, "e"), (0, 1, "unscored")], [(2, 3, "a")], scores, ["a", "b", "c", "d", "e"]))
    assert lanes(drawn[0]) == ["unscored", "e", "a", "c", "b"]


def test_lanes_that_find_no_room_are_counted(drawn):
    names = [f"class {number}" for number in range(500)]
    scores = np.linspace(0.2, 0.9, 500)[:, None] * np.ones(250)
    size(draw_timeline([(0, 10, "class 0")], [], scores, names))
    assert lanes(drawn[0]) == ["class 0"] + [f"class {n}" for n in range(499, 488, -1)]
    assert drawn[0].axes[1].get_xlabel() == "seconds (488 more classes are not shown)"
    size(draw_timeline([(0, 1, name) for name in names[:13]]))
    assert drawn[1].axes[1].get_xlabel() == "seconds (1 more class is not shown)"


@pytest.mark.parametrize("scores", [np.zeros((2, 250)), np.full((2, 250), np.nan), np.zeros((2, 0)), []])
def test_a_clip_with_nothing_in_it_is_drawn(scores, drawn):
    size(draw_timeline(scores=scores, names=["a", "b"]))
    assert [text.get_text() for text in drawn[0].axes[1].texts] == ["no event, no detection, no score above 0.1"]


def test_gaps_in_scores_silence_and_odd_names_are_drawn(drawn):
    scores = np.full((4, 250), 0.5)
    scores[0, 10:20] = np.nan
    silent = FEATURES.copy()
    silent[500:] = -9.0
    silent[0] = -np.inf
    size(draw_timeline([(0.0, 0.0, ODD[0]), (9.0, 30.0, ODD[1])], [], scores, ODD, silent, title="$Y_{a"))  # fmt: skip
    assert lanes(drawn[0])[:2] == ODD[:2]
    assert drawn[0].axes[1].get_xlim() == (0, 10)  # an event past the clip's end does not stretch the axis
    size(draw_timeline(names=["one"], scores=np.ones((1, 1)), features=np.zeros((1, 1))))
    low, high = drawn[0].axes[0].images[0].get_clim()
    assert -9 <= low < -1 and 2 < high < 4


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 rows of scores for 2 names"):
        draw_timeline(scores=np.zeros((3, 250)))
    with pytest.raises(ValueError, match="features must be"):
        draw_timeline(features=np.zeros(5))


def test_figures_are_the_same_bytes_each_time():
    curves = list(random_curves(30))
    first, again = (psd_roc_figure(curves, ["x"] * 30, HALF, 0.5, 100.0) for _ in range(2))
    assert first == again
    assert draw_timeline([(1, 2, "dog")]) == draw_timeline([(1, 2, "dog")])


def test_scores_by_class_are_readable_for_the_classes_of_audioset_strong():
    values = [(f"a class, its name being long {number}", number / 407 if number % 9 else None) for number in range(407)]
    size(class_figure(values, "PSDS1"))
