"""From scores of frames and true events to named results: what is left out, what is said, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from c2ftool.errors import DataError, UsageError
from c2ftool.metrics.definitions import METRICS
from c2ftool.metrics.detection import evaluate_detection, evaluate_found
from c2ftool.metrics.measured import DetectionSettings, median_frames
from c2ftool.metrics.tables import FrameScores, Truth, all_finite, are_probabilities
from c2ftool.spec.running import CLIP_METRICS

OF_EVENTS = [name for name in METRICS if name not in CLIP_METRICS]
PLAIN = DetectionSettings()


def truth() -> Truth:
    """Four clips of 2 s: dog and rain sound; no clip has cat, and the last has nothing."""
    return Truth(
        ids=("a", "b", "c", "d"),
        classes=("cat", "dog", "rain"),
        durations=np.full(4, 2.0),
        clip=np.array([0, 0, 1, 2]),
        label=np.array([1, 2, 1, 2]),
        onset=np.array([0.4, 0.0, 1.0, 0.8]),
        offset=np.array([0.8, 1.2, 1.6, 2.0]),
    )


def perfect(events: Truth, frames: int = 50, high: float = 4.0) -> FrameScores:
    values = np.full((len(events.ids), len(events.classes), frames), -high, np.float32)
    for clip, label, onset, offset in zip(events.clip, events.label, events.onset, events.offset, strict=True):
        values[clip, label, round(onset / 0.04) : round(offset / 0.04)] = high
    return FrameScores(events.ids, events.classes, values, np.full(len(events.ids), frames))


def test_perfect_scores_reach_the_best_of_every_metric():
    results = evaluate_detection(perfect(truth()), truth(), OF_EVENTS, PLAIN)
    worst = {"segment_error": 0.0}
    assert results.values() == pytest.approx({name: worst.get(name, 1.0) for name in OF_EVENTS})
    assert results.classes == ("dog", "rain") and results.events.tolist() == [2, 2]
    assert results.absent == ("cat",) and results.without_events == 1 and results.past_end == 0
    assert any("No clip has an event of cat" in note for note in results.notes())
    assert results.by_class() == ([("dog", pytest.approx(1.0)), ("rain", pytest.approx(1.0))], OF_EVENTS[0])


def test_events_past_the_end_of_their_clip_are_kept_and_said():
    late = replace(truth(), offset=np.array([0.8, 1.2, 1.6, 2.2]))
    results = evaluate_detection(perfect(late), late, ["psds1"], PLAIN)
    assert results.past_end == 1 and "1 events last beyond the end of their clip." in results.notes()


def test_clips_without_events_count_only_where_they_are_kept():
    scores = perfect(truth())
    scores.values[3, 1, 10:20] = 5.0  # a dog where there is none, above all others
    left_out = evaluate_detection(scores, truth(), ["psds1"], PLAIN)
    kept = evaluate_detection(scores, truth(), ["psds1"], replace(PLAIN, keep_empty=True))
    assert (left_out.clips, kept.clips) == (3, 4)
    assert left_out.values()["psds1"] == pytest.approx(1.0) and kept.values()["psds1"] < 1 - 1e-3


def test_a_threshold_is_of_probabilities_and_logits_alike():
    logits = perfect(truth(), high=1.0)  # probability 0.73
    chances = replace(logits, values=(1 / (1 + np.exp(-logits.values))).astype(np.float32))
    for level, expected in ((0.7, 1.0), (0.75, 0.0)):
        settings = replace(PLAIN, threshold=level)
        for scores, probabilities in ((logits, False), (chances, True)):
            found = evaluate_detection(scores, truth(), ["event_f1"], settings, probabilities=probabilities)
            assert found.values()["event_f1"] == pytest.approx(expected)


def test_the_filter_smooths_before_anything_is_measured():
    scores = perfect(truth())
    scores.values[0, 1, 14] = -9.0  # one frame lost in the middle of an event
    settings = [PLAIN, replace(PLAIN, median=0.12)]
    rough, smooth = (evaluate_detection(scores, truth(), ["event_f1"], s).values()["event_f1"] for s in settings)
    assert rough < smooth == pytest.approx(1.0)
    assert scores.values[0, 1, 14] == -9.0  # what was given is left alone


@pytest.mark.parametrize(("seconds", "frames"), [(0, 1), (0.36, 9), (0.48, 12), (0.25, 6), (0.15, 4), (0.28, 7)])
def test_filters_are_whole_frames(seconds, frames):
    assert median_frames(seconds, 0.04) == frames


def test_tables_of_detections_are_measured_as_what_they_are():
    events = truth()
    results = evaluate_found([events], events, ["psds1", "event_f1", "segment_f1"], PLAIN)
    assert results.values() == pytest.approx({"psds1": 1.0, "event_f1": 1.0, "segment_f1": 1.0})
    assert "of one operating point" in results.scores["psds1"].definition
    two = evaluate_found([events, events], events, ["psds1"], PLAIN)
    assert "of 2 operating points" in two.scores["psds1"].definition
    with pytest.raises(UsageError, match="F measures are of one table"):
        evaluate_found([events, events], events, ["event_f1"], PLAIN)
    with pytest.raises(UsageError, match="pauroc is computed from scores"):
        evaluate_found([events], events, ["pauroc"], PLAIN)


def test_what_cannot_be_measured_is_refused():
    scores, events = perfect(truth()), truth()
    with pytest.raises(UsageError, match="map is of clips with labels"):
        evaluate_detection(scores, events, ["map"], PLAIN)
    with pytest.raises(DataError, match="no clip has an event"):
        silent = FrameScores(("d",), events.classes, scores.values[3:], scores.frames[3:])
        evaluate_detection(silent, events.of_clips(np.array([3])), ["psds1"], PLAIN)
    with pytest.raises(DataError, match="no probabilities"):
        evaluate_detection(scores, events, ["psds1"], PLAIN, probabilities=True)
    broken = replace(scores, values=scores.values.copy())
    broken.values[1, 0, 3] = np.nan
    for settings in (PLAIN, replace(PLAIN, median=0.2)):
        assert evaluate_detection(broken, events, ["psds1"], settings).clips == 3  # of a class that is not scored
    broken.values[1, 1, 3] = np.nan
    for settings in (PLAIN, replace(PLAIN, median=0.2)):
        with pytest.raises(DataError, match="clip number 1 is not finite"):
            evaluate_detection(broken, events, ["psds1"], settings)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_halves_are_looked_at_by_their_bits(kind):
    values = np.array([[[0.0, -0.0, 1.0, 0.5]]], kind)
    scores = FrameScores(("a",), ("x",), values, np.array([4]))
    assert all_finite(values) and are_probabilities(scores)
    for bad in (np.nan, np.inf, -np.inf):
        assert not all_finite(np.array([0.0, bad], kind))
    for outside in (-0.001, 1.01, -5.0, 7.0):
        other = values.copy()
        other[0, 0, 1] = outside
        assert not are_probabilities(replace(scores, values=other))
