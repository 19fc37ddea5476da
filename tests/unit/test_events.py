"""Events as frames: borders as the public code has them, merging, painting, and weights by active time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from c2ftool.events import active_frames, active_time_weights, frame_bounds, merged, paint

CLIPS, CLASSES, FRAMES = 3, 4, 20
GRID = np.arange(10_101) / 1000  # 0 .. 10.1 s, every millisecond


def numbers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def seconds(*values: float) -> NDArray[np.float64]:
    return np.array(values, np.float64)


@st.composite
def events(draw: st.DrawFn) -> list[tuple[int, int, float, float]]:
    """(clip, class, onset, offset) on a grid of 10 ms that crowds events, so that many touch and overlap."""
    one = st.tuples(
        st.integers(0, CLIPS - 1), st.integers(0, CLASSES - 1), st.integers(-5, 90), st.integers(0, 30)
    ).map(lambda e: (e[0], e[1], e[2] / 100, (e[2] + e[3]) / 100))
    return draw(st.lists(one, max_size=25))


def arrays(
    given_: list[tuple[int, int, float, float]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    return (
        numbers(*(e[0] for e in given_)),
        numbers(*(e[1] for e in given_)),
        seconds(*(e[2] for e in given_)),
        seconds(*(e[3] for e in given_)),
    )


# --- frame borders ----------------------------------------------------------------------------------------------------


def test_borders_are_the_public_codes_on_every_millisecond() -> None:
    first, last = frame_bounds(GRID, GRID, 250)
    for t, begins, ends in zip(GRID.tolist(), first.tolist(), last.tolist(), strict=True):
        floor, ceiling = math.floor(t * 16000 / 160 / 4), math.ceil(t * 16000 / 160 / 4)
        assert (begins, ends) == (min(floor, 250), min(ceiling, 250))


def test_two_borders_begin_one_frame_early_and_no_other() -> None:
    first, last = frame_bounds(GRID, GRID, 250)
    whole = np.arange(10_101)
    assert GRID[first != np.minimum(whole // 40, 250)].tolist() == [8.04, 8.12]
    assert np.array_equal(last, np.minimum(-(-whole // 40), 250))


@pytest.mark.parametrize("frame_ms", [10.0, 20.0, 40.0, 100.0])
def test_tensors_give_what_arrays_give(frame_ms: float) -> None:
    count = int(10_000 / frame_ms)
    ours = frame_bounds(GRID, GRID[::-1].copy(), count, frame_ms)
    theirs = frame_bounds(torch.from_numpy(GRID), torch.from_numpy(GRID[::-1].copy()), count, frame_ms)
    for array, tensor in zip(ours, theirs, strict=True):
        assert array.dtype == np.int64 and tensor.dtype == torch.int64
        assert np.array_equal(array, tensor.numpy())


@pytest.mark.parametrize(
    ("onset", "offset", "expected"),
    [
        (1.0, 2.0, (25, 50)),
        (1.01, 1.011, (25, 26)),  # a millisecond has a frame
        (4.0, 4.0, (100, 100)),  # nothing, on a border
        (4.01, 4.01, (100, 101)),  # nothing, within a frame
        (9.99, 10.6, (249, 250)),  # beyond the end
        (10.0, 11.0, (250, 250)),
        (12.0, 13.0, (250, 250)),
        (-0.5, 0.05, (0, 2)),  # before the beginning
        (-2.0, -1.0, (0, 0)),
        (3.0, 2.0, (75, 75)),  # ends before it begins
    ],
)
def test_what_events_become(onset: float, offset: float, expected: tuple[int, int]) -> None:
    first, last = frame_bounds(seconds(onset), seconds(offset), 250)
    assert (first[0], last[0]) == expected
    begins, ends = frame_bounds(torch.from_numpy(seconds(onset)), torch.from_numpy(seconds(offset)), 250)
    assert (int(begins), int(ends)) == expected


def test_times_that_were_rounded_to_float32_are_refused() -> None:
    with pytest.raises(TypeError, match="times must be float64, not float32"):
        frame_bounds(seconds(1.0).astype(np.float32), seconds(2.0), 250)
    with pytest.raises(TypeError, match=r"times must be float64, not torch\.float64 and torch\.float32"):
        frame_bounds(torch.ones(1).double(), torch.ones(1), 250)


@pytest.mark.gpu
def test_borders_on_a_gpu_are_those_of_the_cpu() -> None:
    times = torch.from_numpy(GRID)
    for ours, theirs in zip(
        frame_bounds(times.cuda(), times.cuda(), 250), frame_bounds(times, times, 250), strict=True
    ):
        assert torch.equal(ours.cpu(), theirs)


# --- merging ----------------------------------------------------------------------------------------------------------


def plainly_merged(given_: list[tuple[int, int, float, float]]) -> list[tuple[int, float, int, float]]:
    """(clip, onset, class, offset), sorted: event by event."""
    out: list[tuple[int, float, int, float]] = []
    for clip in range(CLIPS):
        for label in range(CLASSES):
            current: list[list[float]] = []
            for onset, offset in sorted((on, off) for c, k, on, off in given_ if (c, k) == (clip, label)):
                if current and current[-1][1] >= onset:
                    current[-1][1] = max(current[-1][1], offset)
                else:
                    current.append([onset, offset])
            out += [(clip, onset, label, offset) for onset, offset in current]
    return sorted(out)


@settings(max_examples=200, deadline=None)
@given(given_=events())
def test_merged_events_are_those_merged_one_by_one(given_: list[tuple[int, int, float, float]]) -> None:
    clip, label, onset, offset = merged(*arrays(given_))
    ours = list(zip(clip.tolist(), onset.tolist(), label.tolist(), offset.tolist(), strict=True))
    assert ours == plainly_merged(given_)
    again = merged(clip, label, onset, offset)
    assert all(np.array_equal(a, b) for a, b in zip((clip, label, onset, offset), again, strict=True))


def test_touching_events_of_a_class_are_one_and_others_are_not() -> None:
    given_ = [(0, 0, 2.0, 3.0), (0, 0, 1.0, 2.0), (0, 1, 2.0, 3.0), (1, 0, 3.0, 4.0), (0, 0, 3.001, 3.002)]
    assert plainly_merged(given_) == [
        (0, 1.0, 0, 3.0), (0, 2.0, 1, 3.0), (0, 3.001, 0, 3.002), (1, 3.0, 0, 4.0)
    ]  # fmt: skip
    clip, label, onset, offset = merged(*arrays(given_))
    assert clip.tolist() == [0, 0, 0, 1] and label.tolist() == [0, 1, 0, 0]
    assert onset.tolist() == [1.0, 2.0, 3.001, 3.0] and offset.tolist() == [3.0, 3.0, 3.002, 4.0]


def test_a_long_event_takes_up_all_that_lie_in_it() -> None:
    *_, onset, offset = merged(*arrays([(0, 0, 0.0, 9.0), (0, 0, 1.0, 2.0), (0, 0, 5.0, 6.0), (0, 0, 9.5, 9.6)]))
    assert onset.tolist() == [0.0, 9.5] and offset.tolist() == [9.0, 9.6]


# --- painting ---------------------------------------------------------------------------------------------------------


def plainly_painted(given_: list[tuple[int, int, float, float]]) -> torch.Tensor:
    out = torch.zeros(CLIPS, CLASSES, FRAMES)
    for clip, label, onset, offset in given_:
        for frame in range(FRAMES):
            if math.floor(onset * 16000 / 160 / 4) <= frame < math.ceil(offset * 16000 / 160 / 4):
                out[clip, label, frame] = 1
    return out


def painted(given_: list[tuple[int, int, float, float]]) -> torch.Tensor:
    clip, label, onset, offset = (torch.from_numpy(each) for each in arrays(given_))
    return paint(clip, label, *frame_bounds(onset, offset, FRAMES), (CLIPS, CLASSES, FRAMES))


@settings(max_examples=200, deadline=None)
@given(given_=events())
def test_a_frame_is_1_where_some_event_covers_it(given_: list[tuple[int, int, float, float]]) -> None:
    out = painted(given_)
    assert out.dtype == torch.float32
    assert torch.equal(out, plainly_painted(given_))
    clip, label, onset, offset = merged(*arrays(given_))
    same = list(zip(clip.tolist(), label.tolist(), onset.tolist(), offset.tolist(), strict=True))
    assert torch.equal(painted(same), out)  # merging changes no frame


@pytest.mark.parametrize(
    ("clip", "label", "message"),
    [(CLIPS, 0, "clip 0 .. 3, there are 3"), (0, CLASSES, "class 0 .. 4, there are 4"), (0, -1, "class -1 .. 0")],
)
def test_events_of_no_clip_or_class_are_not_painted_elsewhere(clip: int, label: int, message: str) -> None:
    first, last = torch.tensor([0, 0]), torch.tensor([1, 1])
    with pytest.raises(ValueError, match=message):
        paint(torch.tensor([0, clip]), torch.tensor([0, label]), first, last, (CLIPS, CLASSES, FRAMES))


def test_nothing_on_a_device_is_waited_for() -> None:
    """On `meta` tensors, which have no values, nothing can be looked at."""
    times = torch.empty(5, dtype=torch.float64, device="meta")
    clip = torch.empty(5, dtype=torch.int64, device="meta")
    assert paint(clip, clip, *frame_bounds(times, times, 250), (2, 3, 250)).shape == (2, 3, 250)


# --- active time ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(given_=events(), offset=st.sampled_from([1.0, 30.0]))
def test_weights_follow_from_the_painted_frames(given_: list[tuple[int, int, float, float]], offset: float) -> None:
    clip, label, onset, end = arrays(given_)
    first, last = frame_bounds(onset, end, FRAMES)
    active = plainly_painted(given_).sum(2).double().numpy()
    where, what, frames = active_frames(clip, label, first, last)
    assert len(set(zip(where.tolist(), what.tolist(), strict=True))) == len(where)
    counted = np.zeros((CLIPS, CLASSES))
    counted[where, what] = frames
    assert np.array_equal(counted, active)
    plain = (active * 1000 / (offset + active.sum(0))).sum(1)
    weights = active_time_weights(clip, label, first, last, CLIPS, CLASSES, offset)
    assert weights.dtype == np.float64
    np.testing.assert_allclose(weights, plain, rtol=1e-12)


def test_a_rare_class_weighs_more_and_a_silent_clip_nothing() -> None:
    clip, label = numbers(0, 1, 2), numbers(0, 0, 1)
    weights = active_time_weights(clip, label, numbers(0, 0, 0), numbers(100, 50, 50), 4, 2)
    assert weights.tolist() == pytest.approx([100_000 / 180, 50_000 / 180, 50_000 / 80, 0])


def test_two_events_within_a_frame_count_it_once() -> None:
    clip, label, onset, offset = merged(*arrays([(0, 0, 1.0, 1.01), (0, 0, 1.02, 1.03)]))
    assert len(clip) == 2  # apart in time
    assert active_frames(clip, label, *frame_bounds(onset, offset, 250))[2].tolist() == [1]


def test_no_events_are_no_fault() -> None:
    none, never = numbers(), seconds()
    assert [len(each) for each in merged(none, none, never, never)] == [0] * 4
    assert [len(each) for each in active_frames(none, none, none, none)] == [0] * 3
    assert active_time_weights(none, none, none, none, 2, 3).tolist() == [0.0, 0.0]
    nothing = torch.zeros(0, dtype=torch.int64)
    assert not paint(nothing, nothing, nothing, nothing, (2, 3, 4)).any()


def test_weights_of_clips_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"clip 0 \.\. 2, there are 2"):
        active_time_weights(numbers(0, 2), numbers(0, 0), numbers(0, 0), numbers(1, 1), 2, 1)
