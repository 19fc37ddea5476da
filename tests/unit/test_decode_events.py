"""Scores to events: a plain twin, HEAR's and sed_scores_eval's conventions, gaps, short events and short clips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from c2ftool.metrics import decode as module
from c2ftool.metrics.decode import decode
from c2ftool.metrics.tables import FrameScores

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources")


def scores_of(values, frames=None, frame=0.04, dtype=np.float32):
    values = np.asarray(values, dtype)
    clips, classes, most = values.shape
    return FrameScores(
        tuple(f"clip{number}" for number in range(clips)),
        tuple(f"class{number}" for number in range(classes)),
        values,
        np.full(clips, most) if frames is None else np.asarray(frames, np.int64),
        frame,
    )


def rows(events):
    """(clip, class, onset, offset) of each event."""
    return list(
        zip(events.clip.tolist(), events.label.tolist(), events.onset.tolist(), events.offset.tolist(), strict=True)
    )


def one_by_one(scores, levels, least, gap, times):
    """The same, frame by frame; least and gap in frames."""
    found = []
    for clip, classes in enumerate(scores.values):
        for label, curve in enumerate(classes):
            runs = []
            for number in range(scores.frames[clip]):
                if not (curve[number] > levels[label] if times == "centre" else curve[number] >= levels[label]):
                    continue
                if runs and (number == runs[-1][1] + 1 or number - runs[-1][1] - 1 < gap):
                    runs[-1][1] = number
                else:
                    runs.append([number, number])
            for first, last in runs:
                if times == "frame" and last + 1 - first >= least:
                    found.append((clip, label, round(first * scores.frame, 6), round((last + 1) * scores.frame, 6)))
                if times == "centre" and last - first >= least:
                    middle = (first + 0.5) * scores.frame, (last + 0.5) * scores.frame
                    found.append((clip, label, round(middle[0], 6), round(middle[1], 6)))
    return sorted(found, key=lambda row: (row[0], row[2], row[1]))


@st.composite
def clips_of_scores(draw):
    shape = draw(st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 14)))
    dtype = draw(st.sampled_from([np.float32, np.float16, np.float64]))
    values = draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 3))) / 3
    frames = draw(st.lists(st.integers(0, shape[2]), min_size=shape[0], max_size=shape[0]))
    return scores_of(values, frames, draw(st.sampled_from([0.04, 0.016, 1.0])), dtype)


@settings(deadline=None)
@given(
    scores=clips_of_scores(),
    places=st.lists(st.integers(-1, 4), min_size=3, max_size=3),
    least=st.integers(0, 4),
    gap=st.integers(0, 4),
    times=st.sampled_from(["frame", "centre"]),
    block=st.sampled_from([1, 50, 1 << 25]),
)
def test_events_are_those_of_a_plain_loop(scores, places, least, gap, times, block):
    levels = np.array(places[: len(scores.classes)]) / 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        events = decode(scores, levels, least * scores.frame, gap * scores.frame, times)
    assert rows(events) == one_by_one(scores, levels.astype(scores.values.dtype), least, gap, times)
    assert events.durations.tolist() == [round(count * scores.frame, 6) for count in scores.frames.tolist()]
    assert (events.ids, events.classes) == (scores.ids, scores.classes)


def test_events_of_frames_are_those_of_sed_scores_eval():
    from sed_scores_eval.base_modules.detection import scores_to_event_list
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    rng = np.random.default_rng(0)
    scores = scores_of(rng.random((3, 4, 250)))
    events = decode(scores, [0.2, 0.4, 0.6, 0.8])
    for clip in range(3):
        table = create_score_dataframe(
            scores.values[clip].T, np.round(np.arange(251) * 0.04, 6), [str(label) for label in range(4)]
        )
        expected = scores_to_event_list(table, np.array([0.2, 0.4, 0.6, 0.8]))
        assert sorted((on, off, str(label)) for c, label, on, off in rows(events) if c == clip) == expected


def by_hear(predictions, threshold, shortest_ms):
    """HEAR's rule for one clip, (T, C) predictions at 20, 60, .. ms: (class, start, end) in ms."""
    found = []
    timestamps = 20.0 + 40.0 * np.arange(len(predictions))
    for label in range(predictions.shape[1]):
        active = np.flatnonzero(predictions[:, label] > threshold)
        for group in np.split(active, np.flatnonzero(np.diff(active) > 1) + 1):
            if len(group) and timestamps[group[-1]] - timestamps[group[0]] >= shortest_ms:
                found.append((label, timestamps[group[0]], timestamps[group[-1]]))
    return found


@pytest.mark.parametrize("shortest", [0, 50, 120, 125, 250])
def test_events_between_centres_are_those_of_hear(shortest):
    rng = np.random.default_rng(shortest)
    # runs of some length, exact halves among them: a score of the threshold itself is silent
    values = np.repeat(np.round(rng.random((1, 5, 300)) * 4) / 4, 3, axis=2)[:, :, :750]
    events = decode(scores_of(values), 0.5, shortest / 1000, times="centre")
    expected = sorted(by_hear(values[0].T, 0.5, shortest))
    assert sorted((label, round(on * 1000), round(off * 1000)) for _, label, on, off in rows(events)) == expected
    assert len(expected) > 20


def test_a_minimum_of_125_ms_between_centres_is_five_frames():
    values = np.zeros((1, 2, 20))
    values[0, 0, 3:7] = values[0, 1, 10:15] = 1
    assert rows(decode(scores_of(values), 0.5, 0.125, times="centre")) == [(0, 1, 0.42, 0.58)]
    # 0.28 / 0.04 is 7.000000000000001, and 7 frames are enough
    assert len(rows(decode(scores_of(np.ones((1, 1, 7))), 0.5, 0.28))) == 1
    assert len(rows(decode(scores_of(values), 0.5, 0.12, times="centre"))) == 2
    assert len(rows(decode(scores_of(values), 0.5, 0.16))) == 2


def test_the_threshold_itself_counts_by_frames_and_not_between_centres():
    scores = scores_of([[[0.3, 0.3, 0.1]]])
    assert rows(decode(scores, 0.3)) == rows(decode(scores, [0.3])) == [(0, 0, 0.0, 0.08)]
    assert rows(decode(scores, 0.3, times="centre")) == []
    # 0.2 in half precision is a little less than 0.2: it is the threshold that is rounded
    assert len(rows(decode(scores_of([[[0.2]]], dtype=np.float16), 0.2))) == 1


def test_gaps_are_closed_before_short_events_are_left_out():
    values = np.array([[[1, 0, 1, 0, 0, 1, 0, 0, 0, 1]]])
    assert rows(decode(scores_of(values, frame=1.0), 0.5, 3.0, 2.0)) == [(0, 0, 0.0, 3.0)]
    assert rows(decode(scores_of(values, frame=1.0), 0.5, 3.0)) == []
    assert len(rows(decode(scores_of(values, frame=1.0), 0.5, 0.0, 99.0))) == 1


def test_frames_beyond_a_clip_are_no_events_and_times_are_whole_microseconds():
    events = decode(scores_of(np.ones((2, 1, 7)), [7, 3]), 0.0)
    assert rows(events) == [(0, 0, 0.0, 0.28), (1, 0, 0.0, 0.12)]  # 7 x 0.04 is 0.28000000000000003
    assert events.durations.tolist() == [0.28, 0.12]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": [0.1, 0.2, 0.3]}, "for each of 2 classes"),
        ({"threshold": [[0.1, 0.2]]}, "for each of 2 classes"),
        ({"threshold": float("nan")}, "NaN"),
        ({"threshold": 0.5, "min_duration": -1.0}, "min_duration must be 0 s or more"),
        ({"threshold": 0.5, "min_gap": float("inf")}, "min_gap must be 0 s or more"),
    ],
)
def test_decoding_refuses_what_is_no_threshold_or_duration(options, message):
    with pytest.raises(ValueError, match=message):
        decode(scores_of(np.zeros((1, 2, 3))), **options)
