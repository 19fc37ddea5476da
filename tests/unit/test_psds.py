"""PSDS: what scores and detections reach, what is refused, and what the result tells."""

from dataclasses import replace

import numpy as np
import pytest

from c2ftool.errors import DataError, UsageError
from c2ftool.metrics import psds_50 as psds_50_module
from c2ftool.metrics import psds_classes, psds_scores
from c2ftool.metrics.psds import PSDS1, PSDS2, PsdsSettings, psds
from c2ftool.metrics.psds_50 import psds_50
from c2ftool.metrics.psds_curve import Curve, class_curve, effective_curve
from c2ftool.metrics.psds_detections import Detections, intersection_f1, psds_of_detections
from c2ftool.metrics.tables import FrameScores, Truth

# --- what scores reach ---------------------------------------------------------------------------------------------


def one_class(values, events=((0, 0.2, 0.6),), durations=None, dtype=np.float32):
    """Scores (clips, frames) of one class and events (clip, onset, offset)."""
    values = np.asarray(values, dtype)[:, None]
    ids = tuple(f"clip{i}" for i in range(len(values)))
    clip, onset, offset = (np.array(column) for column in zip(*events, strict=True))
    durations = np.full(len(ids), 36.0) if durations is None else np.asarray(durations, float)
    truth = Truth(ids, ("dog",), durations, clip, np.zeros(len(clip), np.int64), onset.astype(float), offset)
    return FrameScores(ids, ("dog",), values, np.full(len(ids), values.shape[2]), 0.1), truth


def test_a_system_that_finds_all_and_nothing_else_has_1():
    scores, truth = one_class([[0, 0, 1, 1, 1, 1, 0, 0]])
    assert psds(scores, truth, PSDS1).value == 1.0


def test_false_positives_before_the_event_delay_the_curve():
    quiet, loud = [0.0] * 8, [0, 9, 0, 0, 0, 0, 0, 0]
    scores, truth = one_class([[0, 0, 1, 1, 1, 1, 0, 0], loud, quiet])
    result = psds(scores, truth, PSDS1)
    hours = 3 * 36 / 3600
    np.testing.assert_allclose(result.curves[0].efpr, [0, 1 / hours])
    np.testing.assert_array_equal(result.curves[0].tpr, [0, 1])
    assert result.value == pytest.approx(1 - 1 / hours / 100)
    assert psds(scores, truth, replace(PSDS1, max_efpr=30.0)).value == 0.0


def test_frames_beyond_a_clips_duration_are_false_positives_and_frames_that_it_lacks_are_not():
    scores, truth = one_class([[0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 9]], durations=[36, 0.5])
    assert psds(scores, truth, PSDS1).value < 0.1
    cut = replace(scores, frames=np.array([8, 5]))
    assert psds(cut, truth, PSDS1).value == 1.0


def test_an_event_beyond_the_scores_cannot_be_found_and_one_half_beyond_can():
    scores, truth = one_class([[0, 0, 0, 0, 0, 0, 1, 1]], events=((0, 5.0, 6.0), (0, 0.6, 1.0)))
    assert psds(scores, truth, PSDS1).value == 0.0
    assert psds(scores, truth, PsdsSettings(0.5, 0.5)).value == 0.5


@pytest.mark.parametrize("short", [(3.0, 3.0), (0.75, 0.75 + 4e-7)])
def test_an_event_without_length_is_found_with_the_first_detection_of_its_clip_and_class(short):
    scores, truth = one_class([[0, 0, 1, 1, 1, 1, 0, 5]], events=((0, 0.2, 0.6), (0, *short)), durations=[3600])
    result = psds(scores, truth, PSDS1)
    np.testing.assert_array_equal(result.curves[0].efpr, [0, 1])  # with that detection comes a false positive
    np.testing.assert_array_equal(result.curves[0].tpr, [0, 1])
    nothing = replace(scores, values=np.full_like(scores.values, -np.inf))
    assert psds(nothing, truth, PSDS1).value == 0.0


def test_an_event_without_length_beside_a_found_one_counts_once():
    scores, truth = one_class([[0, 0, 1, 1, 1, 1, 1, 0]], events=((0, 0.2, 0.6), (0, 0.65, 0.65 + 4e-7)))
    np.testing.assert_array_equal(psds(scores, truth, PSDS1).curves[0].tpr, [1])


def random_case(seed, clips=40, classes=5, frames=60, dtype=np.float32, offset=0.0):
    rng = np.random.default_rng(seed)
    values = (np.cumsum(rng.normal(size=(clips, classes, frames)), -1) / 2 + offset).astype(dtype)
    clip, label = np.divmod(rng.choice(clips * (classes - 1), clips, replace=False), classes - 1)
    onset = rng.integers(0, 2000, clips) / 1000
    length = rng.integers(100, 1500, clips) / 1000
    for c, name, a, b in zip(clip, label, onset, onset + length, strict=True):
        values[c, name, int(a / 0.04) : int(np.ceil(b / 0.04))] += dtype(4)
    ids, names = tuple(f"clip{i}" for i in range(clips)), tuple(f"class{i}" for i in range(classes))
    truth = Truth(ids, names, rng.uniform(30, 60, clips), clip, label, onset, onset + length)
    return FrameScores(ids, names, values, rng.integers(frames // 2, frames + 1, clips)), truth


def test_a_class_without_events_is_named_and_left_out():
    scores, truth = random_case(0)
    result = psds(scores, truth, PSDS2.penalised(1))
    assert result.absent == ("class4",)
    assert np.isnan(result.per_class[4])
    assert len(result.curves[4].efpr) == 0
    assert result.macro == pytest.approx(result.per_class[:4].mean())
    without = psds(scores, truth.of_classes(np.arange(4)), PSDS2.penalised(1))
    assert without.value == result.value


def test_a_penalty_is_taken_from_the_same_curves():
    scores, truth = random_case(1)
    plain = psds(scores, truth, PSDS1)
    assert plain.value == pytest.approx(plain.macro)
    penalised = psds(scores, truth, PSDS1.penalised(1))
    assert penalised.value < plain.value - 0.01
    assert plain.penalised(1).value == penalised.value
    assert plain.penalised(1).definition == penalised.definition
    assert penalised.value == pytest.approx(penalised.effective.area(100))
    assert "alpha_st 1" in penalised.definition and "all thresholds" in penalised.definition


@pytest.mark.parametrize("settings", [PSDS1, PSDS2])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_results_do_not_depend_on_order_names_kept_or_blocks(settings, dtype, monkeypatch):
    scores, truth = random_case(2, dtype=dtype)
    whole = psds(scores, truth, settings)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(40), rng.permutation(5)
    shuffled = replace(
        scores,
        ids=(*(scores.ids[row] for row in rows), "another"),
        classes=("another", *(scores.classes[column] for column in columns)),
        values=np.full((41, 6, 60), np.nan, dtype),
        frames=np.append(scores.frames[rows], 60),
    )
    shuffled.values[:40, 1:] = scores.values[np.ix_(rows, columns)]
    shuffled.values[40:], shuffled.values[:, :1] = 99, 99
    monkeypatch.setattr(psds_classes, "_BLOCK", 200)
    monkeypatch.setattr(psds_classes, "_HELD", 3000)
    monkeypatch.setattr(psds_scores, "_BLOCK", 1000)
    monkeypatch.setattr(psds_scores, "_GATHERED", 500)
    result = psds(shuffled, truth, settings)
    assert result.value == pytest.approx(whole.value, abs=1e-12)
    np.testing.assert_allclose(result.per_class, whole.per_class, rtol=0, atol=1e-12)


def test_scores_are_not_changed():
    scores, truth = random_case(3)
    before = scores.values.copy()
    psds(scores, truth, PSDS1)
    np.testing.assert_array_equal(scores.values, before)


def test_only_the_order_of_scores_counts():
    scores, truth = random_case(4, dtype=np.float64)
    logits = psds(scores, truth, PSDS1)
    probabilities = psds(replace(scores, values=1 / (1 + np.exp(-scores.values))), truth, PSDS1)
    assert probabilities.value == logits.value


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", [(0.5, 0.9), (0.6, 0.9), (0.1, 0.3)])
def test_events_of_a_class_that_overlap_or_touch_are_refused_by_name(second):
    scores, truth = one_class([[0.0] * 8], events=((0, 0.2, 0.6), (0, *second)))
    with pytest.raises(DataError, match=r"clip 'clip0', class 'dog'.*\n.*[Mm]erge"):
        psds(scores, truth, PSDS1)


def test_scores_that_are_not_numbers_are_refused_by_name():
    for dtype in (np.float16, np.float32):
        scores, truth = random_case(5, dtype=dtype)
        scores.values[7, 2, scores.frames[7] - 1] = np.nan
        with pytest.raises(DataError, match=r"'clip7', class 'class2'"):
            psds(scores, truth, PSDS1)
        scores.values[7, 2, scores.frames[7] - 1] = 0
        scores.values[7, 2, scores.frames[7] :] = np.nan  # beyond the clip's frames there is nothing
        assert np.isfinite(psds(scores, truth, PSDS1).value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"onset": np.array([-0.1])}, "no valid times"),
        ({"onset": np.array([0.7])}, "no valid times"),
        ({"offset": np.array([np.nan])}, "no valid times"),
        ({"durations": np.array([0.0])}, "durations"),
        ({"ids": ("other",)}, "1 of 1 clips.*'other'"),
        ({"classes": ("cat",)}, "1 of 1 classes.*'cat'"),
    ],
)
def test_truths_that_cannot_be_evaluated_against_are_refused(change, message):
    scores, truth = one_class([[0.0] * 8])
    with pytest.raises(DataError, match=message):
        psds(scores, replace(truth, **change), PSDS1)


def test_a_truth_without_events_is_refused():
    scores, truth = random_case(0)
    with pytest.raises(DataError, match="no event"):
        psds(scores, truth.of_classes(np.array([4])), PSDS1)


@pytest.mark.parametrize(
    "values",
    [
        (0.0, 0.5),
        (0.5, 1.5),
        (0.5, 0.5, 0.3),
        (0.5, 0.5, None, 0.5),
        (0.5, 0.5, None, 0, -1),
        (0.5, 0.5, None, 0, 0, 0),
    ],
)
def test_settings_without_a_meaning_are_refused(values):
    with pytest.raises(ValueError):
        PsdsSettings(*values)


# --- detections, thresholds, curves --------------------------------------------------------------------------------


def test_a_class_never_found_counts_as_0_in_the_macro_f1_and_one_without_events_not_at_all():
    truth = Truth(
        ("a",), ("cat", "dog", "owl"), np.array([10.0]), np.array([0, 0]), np.array([0, 1]), np.array([1.0, 5.0]),
        np.array([2.0, 6.0]),
    )  # fmt: skip
    found = Detections(np.array([0, 0]), np.array([0, 2]), np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    result = intersection_f1(found, truth, 0.5, 0.5)
    np.testing.assert_array_equal(result.per_class, [1, 0, np.nan])
    assert (result.macro, result.absent) == (0.5, ("owl",))


def test_events_and_detections_of_no_length_do_not_count_at_operating_points():
    _, truth = one_class([[0.0] * 8], events=((0, 0.2, 0.6), (0, 3.0, 3.0)))
    zeros = np.zeros(2, np.int64)
    found = Detections(zeros, zeros, np.array([0.2, 4.0]), np.array([0.6, 4.0]))
    assert psds_of_detections([found], truth, PSDS1).value == 1.0
    assert intersection_f1(found, truth, 0.5, 0.5).macro == 1.0


def test_detections_with_impossible_times_are_refused():
    _, truth = one_class([[0.0] * 8])
    backwards = Detections(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([1.0]), np.array([0.5]))
    with pytest.raises(DataError, match="detection"):
        psds_of_detections([backwards], truth, PSDS1)


def test_50_thresholds_need_probabilities():
    scores, truth = random_case(6, offset=3.0)
    with pytest.raises(DataError, match="between 0 and 1"):
        psds_50(scores, truth, PSDS1)


def test_50_thresholds_say_who_computed_them(monkeypatch):
    scores, truth = random_case(6)
    scores = replace(scores, values=1 / (1 + np.exp(-scores.values)))
    result = psds_50(scores, truth, PSDS1)
    assert result.definition.startswith("PSDS of 50 thresholds 0.01 to 0.99 by the rules of psds_eval 0.5.3")
    assert result.value < psds(scores, truth, PSDS1).value

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(psds_50_module, "import_module", missing)
    with pytest.raises(UsageError, match="pip install"):
        psds_50(scores, truth, PSDS1, backend="psds_eval")


def test_a_curve_keeps_the_best_points_only():
    curve = class_curve(np.array([5.0, 3.0, 3.0, 9.0, 4.0, 200.0]), np.array([0.5, 0.2, 0.3, 0.5, 0.1, 1.0]), 100.0)
    np.testing.assert_array_equal(curve.efpr, [0, 3, 5])
    np.testing.assert_array_equal(curve.tpr, [0, 0.3, 0.5])
    np.testing.assert_array_equal(curve.at(np.array([0.0, 2.9, 3.0, 50.0])), [0, 0, 0.3, 0.5])


def test_the_effective_curve_does_not_fall_below_0():
    curves = [Curve(np.array([0.0, 10.0]), np.array([0.0, 1.0])), Curve(np.zeros(1), np.zeros(1))]
    np.testing.assert_array_equal(effective_curve(curves, 1.0, 100.0).tpr, [0, 0])
    np.testing.assert_array_equal(effective_curve(curves, 3.0, 100.0).tpr, [0, 0])
    np.testing.assert_array_equal(effective_curve(curves, 0.5, 100.0).tpr, [0, 0.25])
