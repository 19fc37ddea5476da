"""PSDS without thresholds against sed_scores_eval and against its definition, written out."""

from dataclasses import replace

import numpy as np
import pandas
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from psds_eval import PSDSEval
from sed_scores_eval import intersection_based
from sed_scores_eval.base_modules.scores import create_score_dataframe

from c2ftool.metrics import psds_50 as psds_50_module
from c2ftool.metrics.psds import PSDS1, PSDS2, PsdsSettings, psds
from c2ftool.metrics.psds_50 import psds_50
from c2ftool.metrics.psds_changes import Criteria
from c2ftool.metrics.psds_detections import Detections, count, intersection_f1, psds_of_detections, rates
from c2ftool.metrics.psds_runs import changes_in_count, runs
from c2ftool.metrics.tables import FrameScores, Truth

SETTINGS = [
    PSDS1,
    PSDS1.penalised(1.0),
    PSDS2,
    PSDS2.penalised(1.0),
    PsdsSettings(1.0, 1.0),
    PsdsSettings(0.5, 0.3),
    PsdsSettings(0.5, 0.5, 0.25, 1.0, 0.5),
]
LIMITS = [100.0, 1000.0, 5000.0, 30_000.0, 1e6]  # of false positives per hour: the clips below are short


def merged(events):
    """Of (clip, label, onset, offset): no two of a clip and class overlap or touch."""
    kept = []
    for event in sorted(events):
        if kept and kept[-1][:2] == event[:2] and event[2] <= kept[-1][3]:
            kept[-1] = (*kept[-1][:3], max(kept[-1][3], event[3]))
        else:
            kept.append(event)
    return kept


def make(values, events, durations, frames=None, frame=0.04):
    """Scores and truth of unnamed clips and classes; events are (clip, label, onset, offset)."""
    clips, classes, length = values.shape
    ids, names = tuple(f"clip{i}" for i in range(clips)), tuple(f"class{c}" for c in range(classes))
    clip, label, onset, offset = zip(*events, strict=True) if events else ((), (), (), ())
    truth = Truth(
        ids, names, np.asarray(durations, float), np.array(clip, np.int64), np.array(label, np.int64),
        np.array(onset, float), np.array(offset, float),
    )  # fmt: skip
    frames = np.full(clips, length) if frames is None else np.asarray(frames)
    return FrameScores(ids, names, values, frames, frame), truth


def library(scores, truth, setting):
    """sed_scores_eval's (PSDS, of each class, NaN where it has no event), absent classes dropped for it."""
    present = np.flatnonzero(truth.events_per_class())
    names = [truth.classes[c] for c in present]
    tables, events = {}, {name: [] for name in truth.ids}
    assert np.isfinite(scores.values).all()  # the library cannot do without a finite score
    for row, name in enumerate(truth.ids):
        frames = scores.frames[row]
        borders = np.arange(frames + 1) * scores.frame
        tables[name] = create_score_dataframe(scores.values[row][present, :frames].T.astype(float), borders, names)
    for clip, label, onset, offset in zip(truth.clip, truth.label, truth.onset, truth.offset, strict=True):
        events[truth.ids[clip]].append((float(onset), float(offset), truth.classes[label]))
    value, single, _, _ = intersection_based.psds(
        tables, events, dict(zip(truth.ids, truth.durations.tolist(), strict=True)),
        dtc_threshold=setting.dtc, gtc_threshold=setting.gtc, cttc_threshold=setting.cttc,
        alpha_ct=setting.alpha_ct, alpha_st=setting.alpha_st, max_efpr=setting.max_efpr,
    )  # fmt: skip
    per_class = np.full(len(truth.classes), np.nan)
    per_class[present] = [single[name] for name in names]
    return value, per_class


def detections(row, threshold, frame):
    """(onset, offset) of the maximal runs of frames with a score >= threshold."""
    found, start = [], None
    for k, score in enumerate([*row, -np.inf]):
        if score >= threshold and score > -np.inf:
            start = k if start is None else start
        elif start is not None:
            found.append((start * frame, k * frame))
            start = None
    return found


def shared(a, b):
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


def at_least(seconds, share, interval):
    return round(seconds, 6) >= round(share * (interval[1] - interval[0]), 6)


def by_definition(scores, truth, setting):
    """(PSDS, of each class): every threshold tried, every detection looked at."""
    events = [(c, label, (on, off)) for c, label, on, off in
              zip(truth.clip, truth.label, truth.onset, truth.offset, strict=True)]  # fmt: skip
    present = np.flatnonzero(truth.events_per_class())
    lengths = [sum(e[1] - e[0] for _, label, e in events if label == o) for o in range(len(truth.classes))]
    hours = truth.durations.sum() / 3600
    curves = {}
    for c in present:
        points = {(0.0, 0.0)}
        for threshold in np.unique(scores.values[:, c]):
            false, found, crossed = 0, 0, dict.fromkeys(present, 0)
            for row in range(len(truth.ids)):
                mine = [e for clip, label, e in events if clip == row and label == c]
                all_found = detections(scores.values[row, c, : scores.frames[row]], threshold, scores.frame)
                relevant = [d for d in all_found if at_least(sum(shared(d, e) for e in mine), setting.dtc, d)]
                wrong = [d for d in all_found if d not in relevant]
                false += len(wrong)
                found += sum(at_least(sum(shared(d, e) for d in relevant), setting.gtc, e) for e in mine)
                for o in present if setting.cttc else []:
                    others = [e for clip, label, e in events if clip == row and label == o and o != c]
                    crossed[o] += sum(at_least(sum(shared(d, e) for e in others), setting.cttc, d) for d in wrong)
            ct = [crossed[o] / lengths[o] * 3600 for o in present if o != c]
            efpr = false / hours + (setting.alpha_ct * np.mean(ct) if setting.alpha_ct and ct else 0.0)
            points.add((efpr, found / truth.events_per_class()[c]))
        curves[c] = points
    grid = sorted({efpr for points in curves.values() for efpr, _ in points if efpr <= setting.max_efpr})
    rates = np.array([[max(t for e, t in curves[c] if e <= x) for x in grid] for c in present])
    widths = np.diff([*grid, setting.max_efpr]) / setting.max_efpr
    per_class = np.full(len(truth.classes), np.nan)
    per_class[present] = rates @ widths
    return np.maximum(rates.mean(0) - setting.alpha_st * rates.std(0), 0) @ widths, per_class


@st.composite
def cases(draw, longest=8, bottom=-np.inf, spare=False):
    """A few clips, classes and frames; most scores tied; events on, between and beyond frame borders.

    spare: one more clip without events, with the lowest score of all in every class.
    """
    clips, classes, frames = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, longest))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    levels = draw(st.lists(st.sampled_from([bottom, -3.0, -1.5, -0.0, 0.0, 0.25, 1.0, 7.0]), min_size=1, max_size=6))
    picks = draw(
        st.lists(st.sampled_from(levels), min_size=clips * classes * frames, max_size=clips * classes * frames)
    )
    time = st.integers(0, 50).map(lambda k: k / 125) | st.integers(0, 450).map(lambda k: k / 1000)
    event = st.tuples(st.integers(0, clips - 1), st.integers(0, classes - 1), time, time)
    events = draw(st.lists(event, min_size=1, max_size=10))
    events = merged([(c, label, min(a, b), max(a, b)) for c, label, a, b in events if abs(a - b) > 1e-4])
    if not events:
        events = [(0, 0, 0.0, 0.1)]
    durations = draw(st.lists(st.sampled_from([0.2, 1.0, 10.0]), min_size=clips, max_size=clips))
    cut = draw(st.lists(st.integers(1, frames), min_size=clips, max_size=clips))
    values = np.array(picks, dtype).reshape(clips, classes, frames)
    if spare:
        values = np.concatenate((values, np.full_like(values[:1], -20)))
        durations, cut = [*durations, 1.0], [*cut, frames]
    return make(values, events, durations, cut)


def assert_equal(result, value, per_class):
    assert result.value == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(result.per_class, per_class, rtol=0, atol=1e-9)
    assert result.macro == pytest.approx(np.nanmean(per_class), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(case=cases(), setting=st.sampled_from(SETTINGS), limit=st.sampled_from(LIMITS))
def test_psds_is_its_definition(case, setting, limit):
    setting = replace(setting, max_efpr=limit)
    assert_equal(psds(*case, setting), *by_definition(*case, setting))


# the library fails where nothing ever changes in a class, hence the spare clip
@settings(max_examples=100, deadline=None)
@given(
    case=cases(longest=30, bottom=-9.0, spare=True), setting=st.sampled_from(SETTINGS), limit=st.sampled_from(LIMITS)
)
def test_psds_is_that_of_sed_scores_eval(case, setting, limit):
    setting = replace(setting, max_efpr=limit)
    assume(setting.cttc is None or (case[1].events_per_class() > 0).sum() > 1)  # its rate is NaN without another class
    assert_equal(psds(*case, setting), *library(*case, setting))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("limit", [60.0, 1000.0])  # fewer false positives than clips, and more
@pytest.mark.parametrize("setting", SETTINGS)
def test_psds_of_many_clips_is_that_of_sed_scores_eval(setting, dtype, limit):
    rng = np.random.default_rng([SETTINGS.index(setting), dtype().itemsize])
    clips, classes, frames = 60, 6, 250
    values = (np.cumsum(rng.normal(size=(clips, classes, frames)), -1) / 3).astype(dtype)
    values[:20] = np.round(values[:20])  # plateaus
    values[20:30, 0] = 0  # nothing but one plateau
    events = []
    for clip, label in np.argwhere(rng.random((clips, classes - 1)) < 0.3):  # the last class has none
        cuts = np.sort(rng.choice(10_500, 2 * rng.integers(1, 5), replace=False)) / 1000
        if clip % 2:
            cuts = np.unique(np.round(cuts / 0.04)) * 0.04  # on frame borders
            cuts = cuts[: len(cuts) // 2 * 2]
        events += [(int(clip), int(label), float(a), float(b)) for a, b in cuts.reshape(-1, 2)]
    for clip, label, onset, offset in events:
        values[clip, label, int(onset / 0.04) : int(np.ceil(offset / 0.04))] += dtype(rng.choice([0, 2, 5]))
    durations = np.where(rng.random(clips) < 0.3, rng.uniform(1, 10, clips), 10.0)
    case = make(values, merged(events), durations)
    setting = replace(setting, max_efpr=limit)
    value, per_class = library(*case, setting)
    assert np.nanmax(per_class) > 0
    assert_equal(psds(*case, setting), value, per_class)


@given(data=st.data())
def test_runs_are_those_of_every_threshold(data):
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 12)))
    rows = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
    rows = rows.reshape(shape).astype(data.draw(st.sampled_from([np.int16, np.float32])))
    floor = rows.dtype.type(data.draw(st.integers(-4, 3)))
    clamped = np.maximum(rows, floor)
    found = runs(clamped, floor)
    more, fewer = changes_in_count(clamped, floor)
    for threshold in range(int(floor) + 1, 4):
        expected = [
            (row, round(on), round(off)) for row in range(len(rows)) for on, off in detections(rows[row], threshold, 1)
        ]
        alive = (found.death < threshold) & (found.birth >= threshold)
        columns = (found.row[alive], found.first[alive], found.last[alive])
        assert sorted(zip(*(column.tolist() for column in columns), strict=True)) == sorted(expected)
        assert (more >= threshold).sum() - (fewer >= threshold).sum() == len(expected)


# --- operating points, against psds_eval ---------------------------------------------------------------------------


@st.composite
def tables(draw):
    """A truth of up to 3 clips and 3 classes, and some operating points; times on a coarse grid, so that shares tie."""
    clips, classes = draw(st.integers(1, 3)), draw(st.integers(2, 3))
    time = st.integers(0, 12).map(lambda k: k / 4)
    event = st.tuples(st.integers(0, clips - 1), st.integers(0, classes - 1), time, time)

    def drawn(most):
        rows = draw(st.lists(event, max_size=most))
        return merged([(c, label, min(a, b), max(a, b)) for c, label, a, b in rows if a != b])

    truth = make(np.zeros((clips, classes, 1)), drawn(8) or [(0, 0, 0.0, 1.0)], draw(st.permutations([1.0, 2.5, 3.0])))
    durations = truth[1].durations[:clips]
    points = [np.array(rows).reshape(-1, 4) for rows in (drawn(9) for _ in range(draw(st.integers(1, 3)))) if rows]
    return replace(truth[1], durations=durations), [
        Detections(rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2], rows[:, 3]) for rows in points
    ]


def as_table(truth, clip, label, onset, offset):
    columns = {"filename": [truth.ids[c] for c in clip], "onset": onset, "offset": offset}
    return pandas.DataFrame(columns | {"event_label": [truth.classes[c] for c in label]})


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=25, deadline=None)
@given(case=tables(), setting=st.sampled_from(SETTINGS))
def test_operating_points_are_counted_as_psds_eval_counts_them(case, setting):
    truth, points = case
    present = np.flatnonzero(truth.events_per_class())
    assume(len(present) > 1 and points)
    truth = truth.of_classes(present)
    place = {old: new for new, old in enumerate(present)}
    points = [
        replace(point, label=np.array([place.get(label, -1) for label in point.label], np.int64)) for point in points
    ]
    setting = replace(setting, max_efpr=3000.0)
    cttc = setting.cttc or 0.3
    oracle = PSDSEval(
        setting.dtc, setting.gtc, cttc,
        ground_truth=as_table(truth, truth.clip, truth.label, truth.onset, truth.offset),
        metadata=pandas.DataFrame({"filename": truth.ids, "duration": truth.durations}),
    )  # fmt: skip
    for point in points:
        known = point.label >= 0
        table = as_table(truth, point.clip[known], point.label[known], point.onset[known], point.offset[known])
        oracle.add_operating_point(table)
        counts, tpr, fpr, _ = oracle._evaluate_detections(oracle._init_det_table(table))
        ours = count(point, truth, Criteria(setting.dtc, setting.gtc, cttc))
        np.testing.assert_array_equal(ours.crossed + np.diag(ours.found), counts[:-1, :-1])
        np.testing.assert_array_equal(ours.false, counts[:-1, -1])
        np.testing.assert_allclose(rates(ours, truth).tpr, tpr)
        np.testing.assert_allclose(rates(ours, truth).fpr, fpr)
        f1 = intersection_f1(point, truth, setting.dtc, setting.gtc)
        _, by_class = oracle.compute_macro_f_score(table)
        for name, value in zip(truth.classes, f1.per_class, strict=True):
            assert value == pytest.approx(np.nan_to_num(by_class[name]))
    expected = oracle.psds(setting.alpha_ct, setting.alpha_st, setting.max_efpr).value
    assert psds_of_detections(points, truth, setting).value == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("setting", [PSDS1.penalised(1), replace(PSDS2.penalised(1), max_efpr=500.0)])
def test_50_thresholds_are_those_of_psds_eval(setting, dtype, monkeypatch):
    rng = np.random.default_rng(3)
    clips, classes, frames = 12, 4, 100
    values = np.cumsum(rng.normal(size=(clips, classes, frames)), -1) / 3 - 1
    events = [(clip, int(rng.integers(3)), float(a), float(a + rng.uniform(0.3, 1.5)))
              for clip in range(clips) for a in (rng.uniform(0, 1), rng.uniform(2, 3))]  # fmt: skip
    events = merged(events)
    for clip, label, onset, offset in events:
        values[clip, label, int(onset / 0.04) : int(np.ceil(offset / 0.04))] += 3
    probabilities = np.round(1 / (1 + np.exp(-values)), 2).astype(dtype)  # many are at a threshold, to the last bit
    case = make(probabilities, events, rng.uniform(2.5, 4.5, clips), rng.integers(60, frames + 1, clips))
    monkeypatch.setattr(psds_50_module, "_BLOCK", 3000)
    ours, theirs = psds_50(*case, setting), psds_50(*case, setting, backend="psds_eval")
    assert ours.value == pytest.approx(theirs.value, abs=1e-9)
    assert 0 < ours.value < 1
    np.testing.assert_allclose(ours.per_class, theirs.per_class, rtol=0, atol=1e-9)
    plain = []
    for threshold in np.linspace(0.01, 0.99, 50):
        found = [
            (clip, label, *run)
            for clip, label in np.ndindex(clips, classes)
            for run in detections(probabilities[clip, label, : case[0].frames[clip]], np.nextafter(threshold, 2), 0.04)
        ]
        rows = np.array(found).reshape(-1, 4)
        plain.append(Detections(rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2], rows[:, 3]))
    assert ours.value == pytest.approx(psds_of_detections(plain, case[1], setting).value, abs=1e-12)
    assert "psds_eval 0.5" in theirs.definition and ours.absent == ("class3",)
