"""Segment-based figures against sed_eval, partial areas against sed_scores_eval, and where segments end."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.events import merged
from c2ftool.metrics.detection import evaluate_detection
from c2ftool.metrics.measured import DetectionSettings
from c2ftool.metrics.segments import mean_partial_auroc, partial_auroc, segment_based, segment_scores
from c2ftool.metrics.tables import FrameScores, Truth

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources")


def table(rows, durations, classes=1):
    """A table of (clip, class, onset, offset) rows."""
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return Truth(
        tuple(f"clip{number}" for number in range(len(durations))),
        tuple(f"class{number}" for number in range(classes)),
        np.array(durations, np.float64),
        columns[0].astype(np.int64),
        columns[1].astype(np.int64),
        columns[2],
        columns[3],
    )


def by_sed_eval(truth, found, seconds, within_clips):
    """sed_eval's results, accumulated file by file."""
    from sed_eval.sound_event import SegmentBasedMetrics

    def listed(events, clip):
        return [
            {
                "file": events.ids[clip],
                "event_label": events.classes[events.label[number]],
                "event_onset": float(events.onset[number]),
                "event_offset": float(events.offset[number]),
            }
            for number in np.flatnonzero(events.clip == clip)
        ]

    metrics = SegmentBasedMetrics(list(truth.classes), time_resolution=seconds)
    for clip, duration in enumerate(truth.durations):
        length = {"evaluated_length_seconds": float(duration)} if within_clips else {}
        metrics.evaluate(listed(truth, clip), listed(found, clip), **length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # means over classes of which none is known
        return metrics.results()


def assert_same(figures, theirs):
    wanted = [theirs["f_measure"][name] for name in ("f_measure", "precision", "recall")]
    np.testing.assert_allclose([figures.f1, figures.precision, figures.recall], wanted, rtol=0, atol=1e-9)
    np.testing.assert_allclose(figures.error_rate, theirs["error_rate"]["error_rate"], rtol=1e-12, atol=1e-9)


@st.composite
def two_tables(draw):
    """Truth and detections of up to 3 clips and 3 classes; events may overlap, be empty and outlast their clip."""
    classes = draw(st.integers(1, 3))
    durations = draw(st.lists(st.sampled_from([0.5, 2.0, 3.04, 4.999]), min_size=1, max_size=3))
    row = st.tuples(
        st.integers(0, len(durations) - 1), st.integers(0, classes - 1), st.integers(0, 25), st.integers(0, 20)
    ).map(lambda r: (r[0], r[1], round(r[2] / 5, 6), round((r[2] + r[3]) / 5, 6)))
    tables = [table(draw(st.lists(row, max_size=10)), durations, classes) for _ in range(2)]
    return tables[0], tables[1]


@settings(max_examples=80, deadline=None)
@given(two_tables(), st.sampled_from([1.0, 0.1, 0.3, 2.0]), st.booleans())
def test_segment_figures_are_sed_evals(tables, seconds, within_clips):
    truth, found = tables
    expected = by_sed_eval(truth, found, seconds, within_clips)
    agreement = segment_based(truth, found, seconds, within_clips)
    assert_same(agreement.overall(), expected["overall"])
    assert_same(agreement.macro(), expected["class_wise_average"])
    by_class = agreement.per_class()
    for number, name in enumerate(truth.classes):
        row = type(by_class)(*(getattr(by_class, field)[number] for field in by_class.__dataclass_fields__))
        assert_same(row, expected["class_wise"][name])


def test_many_segments_agree_with_sed_eval():
    rng = np.random.default_rng(1)

    def some(count):
        onset = np.round(rng.uniform(0, 9, count), 2)
        length = rng.exponential(1.0, count).round(2)
        rows = np.stack([rng.integers(0, 8, count), rng.integers(0, 6, count), onset, onset + length], 1)
        return table(rows, np.full(8, 9.3), 6)

    truth, found = some(150), some(120)
    for within_clips in (False, True):
        agreement = segment_based(truth, found, 1.0, within_clips)
        expected = by_sed_eval(truth, found, 1.0, within_clips)
        assert min(agreement.substitutions, agreement.deletions, agreement.insertions) > 10
        assert_same(agreement.overall(), expected["overall"])
        assert_same(agreement.macro(), expected["class_wise_average"])


def test_a_clip_of_broken_length_ends_with_a_whole_segment():
    truth, found = table([(0, 0, 2.1, 2.3)], [2.5]), table([(0, 0, 2.4, 4.5)], [2.5])
    # the third segment, 2 to 3, is there whole; detections beyond it count unless they are cut
    assert segment_based(truth, found).detected.tolist() == [3]
    assert segment_based(truth, found, within_clips=True).detected.tolist() == [1]
    assert segment_based(truth, found, within_clips=True).correct.tolist() == [1]


def test_a_wrong_class_is_one_substitution_in_a_segment():
    truth, found = table([(0, 0, 0, 1), (0, 1, 1, 2)], [3], 2), table([(0, 1, 0, 1), (0, 1, 2, 3)], [3], 2)
    agreement = segment_based(truth, found)
    assert (agreement.substitutions, agreement.deletions, agreement.insertions) == (1, 1, 1)
    assert agreement.overall().error_rate == pytest.approx(1.5)


def test_segments_of_no_length_and_other_clips_are_refused():
    one, other = table([], [1.0]), table([], [1.0, 1.0])
    for refused in (lambda: segment_based(one, one, 0.0), lambda: segment_scores(scores_of([[[1]]]), one, math.nan)):
        with pytest.raises(ValueError, match="more than 0 s"):
            refused()
    with pytest.raises(ValueError, match="ids of the truth"):
        segment_based(one, other)
    with pytest.raises(ValueError, match="ids of the truth"):
        partial_auroc(scores_of([[[1]]]), other)
    with pytest.raises(ValueError, match="max_fpr"):
        partial_auroc(scores_of([[[1]]]), one, max_fpr=0)


# --- partial area under the ROC curve -------------------------------------------------------------------------------


def scores_of(values, frames=None, frame=0.25, dtype=np.float32):
    values = np.asarray(values, dtype)
    clips, classes, most = values.shape
    return FrameScores(
        tuple(f"clip{number}" for number in range(clips)),
        tuple(f"class{number}" for number in range(classes)),
        values,
        np.full(clips, most) if frames is None else np.asarray(frames),
        frame,
    )


def by_sed_scores_eval(scores, truth, seconds, max_fpr):
    """The library's areas by class, equal false positive rates kept in the order of their true positives."""
    from sed_scores_eval.base_modules import curves
    from sed_scores_eval.base_modules.scores import create_score_dataframe
    from sed_scores_eval.segment_based import auroc

    frames = {
        name: create_score_dataframe(
            scores.values[clip, :, : scores.frames[clip]].T.astype(np.float64),
            np.round(np.arange(scores.frames[clip] + 1) * scores.frame, 6),
            list(scores.classes),
        )
        for clip, name in enumerate(scores.ids)
    }
    events = {name: [] for name in truth.ids}
    apart = merged(truth.clip, truth.label, truth.onset, truth.offset)  # the library refuses what touches
    for clip, label, onset, offset in zip(*apart, strict=True):
        events[truth.ids[clip]].append((float(onset), float(offset), truth.classes[label]))
    durations = dict(zip(truth.ids, truth.durations.tolist(), strict=True))

    class Stable:
        """numpy, whose argsort swaps equal values on some processors: the curve is sorted by both rates before it."""

        def __getattr__(self, name):
            return getattr(np, name)

        @staticmethod
        def argsort(values):
            return np.argsort(values, kind="stable")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "np", Stable())
        areas, _ = auroc(frames, events, durations, segment_length=seconds, max_fpr=max_fpr)
    return areas


@st.composite
def scored_clips(draw):
    """Scores and truth of up to 6 clips and 3 classes, with ties, short clips and every class in some segment."""
    clips, classes, most = draw(st.integers(2, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 24))
    frames = draw(st.lists(st.integers(1, most), min_size=clips, max_size=clips))
    frame = draw(st.sampled_from([0.25, 0.04, 0.3, 0.16]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    values = rng.integers(-4, 5, (clips, classes, most)) / draw(st.sampled_from([1, 3]))
    if draw(st.booleans()):
        values += rng.normal(size=values.shape)
    # as long as the scores, a little less or a segment more
    durations = np.maximum(np.round(np.array(frames) * frame + draw(st.sampled_from([0, -0.07, 1.2])), 3), 0.02)
    rows = [(0, label, 0.0, 0.01) for label in range(classes)]
    for _ in range(draw(st.integers(0, 8))):
        clip = int(rng.integers(clips))
        onset = np.round(rng.uniform(0, durations[clip]), 2)
        rows.append((clip, int(rng.integers(classes)), onset, np.round(onset + rng.exponential(0.5), 2)))
    dtype = draw(st.sampled_from([np.float32, np.float16, np.float64]))
    return scores_of(values, frames, frame, dtype), table(rows, durations, classes)


@pytest.mark.filterwarnings("ignore:invalid value")
@settings(max_examples=80, deadline=None)
@given(scored_clips(), st.sampled_from([1.0, 0.5, 0.1]), st.sampled_from([0.1, 0.05, 0.37, 1.0]))
def test_partial_areas_are_those_of_sed_scores_eval(case, seconds, max_fpr):
    scores, truth = case
    expected = by_sed_scores_eval(scores, truth, seconds, max_fpr)
    areas = partial_auroc(scores, truth, seconds, max_fpr)
    np.testing.assert_allclose(areas, [expected[name] for name in scores.classes], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_many_clips_agree_with_sed_scores_eval(dtype):
    rng = np.random.default_rng(0)
    clips, classes = 40, 5
    truth = table(
        [
            (rng.integers(clips), label, onset, onset + rng.uniform(0.1, 3))
            for label in range(classes)
            for onset in rng.uniform(0, 9, 15)
        ],
        rng.uniform(7, 10.3, clips),
        classes,
    )
    values = rng.normal(size=(clips, classes, 250))
    for clip, label, onset, offset in zip(truth.clip, truth.label, truth.onset, truth.offset, strict=True):
        values[clip, label, int(onset * 25) : int(offset * 25)] += 1.5
    scores = scores_of(values, frame=0.04, dtype=dtype)
    expected = by_sed_scores_eval(scores, truth, 1.0, 0.1)
    areas = partial_auroc(scores, truth)
    np.testing.assert_allclose(areas, [expected[name] for name in scores.classes], rtol=0, atol=1e-9)
    assert mean_partial_auroc(scores, truth) == pytest.approx(expected["mean"], abs=1e-9)
    assert 0.2 < mean_partial_auroc(scores, truth) < 0.9


def test_a_segment_has_the_highest_of_its_frames_and_0_without_any():
    # two and a half seconds in frames of 0.3 s, scored for 1.2 s: the fourth frame lies in the first and second second
    values, marks = segment_scores(
        scores_of([[[-5, -4, -3, -2, 9, 9]]], [4], 0.3), table([(0, 0, 1.0, 2.0)], [2.5]), 1.0
    )
    assert values.ravel().tolist() == [-2, -2, 0]
    assert marks.ravel().tolist() == [False, True, False]  # what touches a border is on one side of it


def test_classes_without_positives_or_negatives_have_no_area():
    scores = scores_of(np.arange(24).reshape(1, 3, 8))
    truth = table([(0, 1, 0, 2), (0, 2, 1, 2)], [2.0], 3)
    np.testing.assert_array_equal(partial_auroc(scores, truth, max_fpr=1.0), [np.nan, np.nan, 1])
    assert mean_partial_auroc(scores, truth) == 1
    assert math.isnan(mean_partial_auroc(scores, table([], [2.0], 3)))


def test_areas_do_not_depend_on_how_much_is_taken_at_once(monkeypatch):
    rng = np.random.default_rng(2)
    scores = scores_of(rng.normal(size=(7, 4, 12)), rng.integers(1, 13, 7))
    truth = table([(clip, clip % 4, 0.1, 1.2) for clip in range(7)], np.full(7, 3.0), 4)
    whole = partial_auroc(scores, truth, max_fpr=0.5)
    assert not np.isnan(whole).any()
    monkeypatch.setattr("c2ftool.metrics.segments._BLOCK", 60)
    np.testing.assert_array_equal(partial_auroc(scores, truth, max_fpr=0.5), whole)


def test_a_segment_without_frames_is_the_least_likely_of_logits_too():
    """A clip of 10.01 s has an eleventh segment and no frame in it: 0 would be a probability of one half."""
    values = np.full((2, 1, 250), -8.0, np.float32)
    values[0, 0, :25] = -2.0
    truth = table([(0, 0, 0.0, 1.0)], [10.01, 10.01])
    scores = FrameScores(truth.ids, truth.classes, values, np.array([250, 250]))
    plain = DetectionSettings()
    assert evaluate_detection(scores, truth, ["pauroc"], plain).values() == {"pauroc": 1.0}
    probabilities = replace(scores, values=1 / (1 + np.exp(-values)))
    found = evaluate_detection(probabilities, truth, ["pauroc"], plain, probabilities=True)
    assert found.values() == {"pauroc": 1.0}
    assert partial_auroc(scores, truth)[0] < 1.0
