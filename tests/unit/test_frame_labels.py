"""Events of a prepared set as labels of frames: crops, classes, weak clips, streams with both kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.data.batch import FrameLabels, HostBatch
from c2ftool.data.frame_labels import LabelGrid, centre_bounds, class_places, weights_by_active_time
from c2ftool.data.loader import Pieces, TrainLoader
from c2ftool.data.order import Order, Stream
from c2ftool.data.store import PreparedSet, find_set
from c2ftool.spec.data import ActiveTime, Uniform

UNIFORM = Uniform(kind="uniform")
ONE_HOP = 640  # samples of a label frame at 16 kHz


@pytest.fixture(scope="module")
def scenes(data_root) -> PreparedSet:
    return PreparedSet.open(find_set("scenes", data_root))


def grid(scenes: PreparedSet, frames: int = 75, classes: list[int] | None = None) -> LabelGrid:
    count = len(scenes.info.classes)
    chosen = np.arange(count) if classes is None else np.asarray(classes)
    return LabelGrid(frames, 40.0, ONE_HOP, class_places(chosen, count))


def plain(scenes: PreparedSet, row: int, frames: int, start: int = 0) -> np.ndarray:
    """(C, T) labels of a clip by loops."""
    out = np.zeros((len(scenes.info.classes), frames), np.float32)
    events = scenes.events(row)
    for onset, offset, label in zip(*events, strict=True):
        first, last = int(np.floor(onset * 16000 / 160 / 4)), int(np.ceil(offset * 16000 / 160 / 4))
        for frame in range(first, last):
            if 0 <= frame - start < frames:
                out[label, frame - start] = 1
    return out


def painted(scenes, rows, strong=None, starts=None, frames=75, classes=None):
    rows = np.asarray(rows)
    strong = np.ones(len(rows), bool) if strong is None else np.asarray(strong)
    labels = grid(scenes, frames, classes).labels(scenes, rows, strong, starts)
    count = len(scenes.info.classes) if classes is None else len(classes)
    none = torch.zeros(len(rows), dtype=torch.int64)
    batch = HostBatch(none, none[:, None], none, torch.zeros(len(rows), count), frames=labels)
    return batch.targets()["frame"].numpy()


def test_events_become_frames(scenes):
    rows = scenes.rows(["scenes_train"])[:8]
    for place, labels in enumerate(painted(scenes, rows)):
        assert np.array_equal(labels, plain(scenes, rows[place], 75)) and labels.any()


def test_labels_move_with_a_crop_by_whole_frames(scenes):
    rows = scenes.rows(["scenes_train"])[:4]
    starts = np.array([0, 10, 25, 60]) * ONE_HOP
    for place, labels in enumerate(painted(scenes, rows, starts=starts, frames=30)):
        assert np.array_equal(labels, plain(scenes, rows[place], 30, starts[place] // ONE_HOP))


def test_other_classes_and_weak_clips_have_no_frames(scenes):
    rows = scenes.rows(["scenes_train"])[:6]
    kept = painted(scenes, rows, classes=[3, 0])
    for place, row in enumerate(rows):
        assert np.array_equal(kept[place], plain(scenes, row, 75)[[3, 0]])
    hidden = painted(scenes, rows, strong=[True, False, True, False, True, True])
    assert [bool(clip.any()) for clip in hidden] == [True, False, True, False, True, True]


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_centres_are_those_that_an_event_covers(times):
    onset = np.array([min(pair) for pair in times]) / 1000
    offset = np.array([max(pair) for pair in times]) / 1000
    first, last = centre_bounds(onset, offset, 75)
    for event in range(len(times)):
        covered = [k for k in range(75) if min(times[event]) <= 40 * k + 20 <= max(times[event])]
        assert list(range(first[event], last[event])) == covered


def test_an_ensemble_is_mixed_into_the_labels_where_it_is_known():
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    events = FrameLabels(
        *(torch.tensor(v) for v in ([0, 1], [0, 1], [0, 1], [2, 3])), torch.ones(2, dtype=torch.bool), 3
    )
    logits = torch.zeros(2, 2, 3, dtype=torch.float16)
    logits[0, 1] = 4.0
    known = torch.tensor([[True, True], [True, False]])
    none = torch.zeros(2, dtype=torch.int64)
    batch = HostBatch(none, none[:, None], none, labels, frames=events, logits=logits, known=known)
    hard, soft = batch.targets()["frame"], batch.targets(0.9)["frame"]
    assert torch.equal(batch.targets(0.9)["clip"], labels)
    expected = 0.1 * hard + 0.9 * logits.float().sigmoid()
    assert torch.allclose(soft[0], expected[0]) and torch.allclose(soft[1, 0], expected[1, 0])
    assert torch.equal(soft[1, 1], hard[1, 1])  # no teacher for this class of this clip
    clips = HostBatch(none, none[:, None], none, labels, logits=logits[:, :, 0], known=known).targets(0.5)["clip"]
    assert torch.allclose(clips, torch.tensor([[0.75, 0.5 * 0 + 0.5 / (1 + np.exp(-4.0))], [0.25, 1.0]]).float())


@given(st.integers(1, 6), st.integers(0, 3), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_weak_clips_lie_in_the_middle_and_mirror_each_other(pairs, weak_pairs, step):
    size, weak = 2 * (pairs + weak_pairs), 2 * weak_pairs
    order, other = Order(np.arange(50), 1, 0, UNIFORM), Order(np.arange(100, 130), 1, 0, UNIFORM, purpose="weak")
    stream = Stream(order, other if weak else None, weak)
    rows, strong = stream.batch(step, size)
    assert (~strong).sum() == weak and np.array_equal(strong, strong[::-1])
    assert np.array_equal(rows < 100, strong)
    partners = stream.partners(step, size)
    assert np.array_equal(partners < 100, strong)
    assert np.array_equal(stream.partners(step, size), partners)


def test_an_epoch_repeats_clips_as_often_as_asked():
    order = Order(np.arange(5), 1, 0, Uniform(kind="uniform", repeat=3))
    assert order.epoch_clips == 15
    assert sorted(order.epoch(0)) == sorted([*range(5)] * 3)


def test_weights_by_active_time_are_those_of_the_published_sampler(scenes):
    rows = scenes.rows(["scenes_train"])
    classes = np.arange(len(scenes.info.classes))
    active = np.stack([plain(scenes, row, 75).sum(1) for row in rows])
    expected = (active * 1000 / (30 + active.sum(0))).sum(1)
    assert weights_by_active_time(scenes, rows, classes, 75, 40.0, 30.0) == pytest.approx(expected)
    order = Order(rows, 0, 0, ActiveTime(kind="active_time", clips=7), expected)
    assert order.epoch_clips == 7 and set(order.epoch(0)) <= set(rows)


def test_a_loader_brings_events_weak_clips_and_partners(scenes):
    strong, weak = scenes.rows(["scenes_train"]), scenes.rows(["train"])
    stream = Stream(Order(strong, 3, 0, UNIFORM), Order(weak, 3, 0, UNIFORM, purpose="weak"), 4)
    loader = TrainLoader(
        source=scenes, stream=stream, batch=8, places=np.arange(8), samples=32_000, random_crop=True,
        classes=np.arange(len(scenes.info.classes)), threads=0, pin=False, grid=grid(scenes, 50), partners=True,
    )  # fmt: skip
    batch = loader.load(5)
    rows, known = stream.batch(5, 8)
    targets = batch.targets()
    assert targets["strong"].tolist() == known.tolist() == [True, True, False, False, False, False, True, True]
    assert np.array_equal(targets["clip"].numpy(), scenes.targets(rows))
    assert targets["frame"].shape == (8, len(scenes.info.classes), 50)
    assert not targets["frame"][2:6].any() and targets["frame"][[0, 1, 6, 7]].any()
    assert batch.partners is not None and batch.partners.waveforms.shape == (8, 32_000)
    assert not torch.equal(batch.partners.waveforms, batch.waveforms)
    again = loader.load(5)
    assert torch.equal(again.waveforms, batch.waveforms) and torch.equal(again.targets()["frame"], targets["frame"])


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=8), st.integers(1, 900))
@settings(max_examples=60, deadline=None)
def test_slices_cover_every_clip_once(lengths, step):
    pieces = Pieces.slices(np.asarray(lengths), step)
    for row, length in enumerate(lengths):
        starts = pieces.start[pieces.row == row]
        assert np.array_equal(starts, np.arange(0, max(length, 1), step))
    shares = [pieces.of_rank(rank, 3) for rank in range(3)]
    assert sum(len(share) for share in shares) == len(pieces)
