"""The built-in demo set: the same everywhere, exact in its labels, and not solved by mean spectra."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from c2ftool.data.demo import CLASSES, SPLITS, build_demo, make_clip, make_demo
from c2ftool.data.sounds import EVENTS, RATE, Dice, event
from c2ftool.data.store import PreparedSet, find_set
from c2ftool.errors import DataError


def test_the_demo_is_this_demo() -> None:
    """Prepared demos, published figures and their fingerprints rest on it: a change needs a new DEMO_VERSION."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for index in range(3):
            clip, samples = make_clip(split, index)
            told = [getattr(clip, name) for name in ("id", "split", "fold", "labels", "events")]
            digest.update(repr(told).encode() + samples.tobytes())
    assert digest.hexdigest() == "924aed48730db8796a92230f46296f867d8438c9ddba7170ffa9882820638575"


def test_clips_have_the_stated_form() -> None:
    for index in range(40):
        clip, samples = make_clip("train", index)
        assert (samples.dtype, samples.shape) == (np.int16, (48_000,))
        assert clip.labels == (index % len(CLASSES),)
        assert 1 <= len(clip.events) <= 4
        assert {item.label for item in clip.events} == set(clip.labels)
        times = [time for item in clip.events for time in (item.onset, item.offset)]
        assert times == sorted(times), "events of one class follow each other"
        assert times[0] >= 0
        assert times[-1] <= 3.0
        assert np.abs(samples).max() < 32767


def test_scenes_have_several_classes() -> None:
    overlapping = 0
    for index in range(40):
        clip, _ = make_clip("scenes_train", index)
        assert 2 <= len(clip.events) <= 4
        assert len(clip.labels) == len(clip.events)
        assert list(clip.labels) == sorted(clip.labels)
        ends = [item.offset for item in clip.events]
        overlapping += any(later.onset < end for end, later in zip(ends, clip.events[1:], strict=False))
    assert overlapping > 10


def test_events_are_where_the_labels_say() -> None:
    for index in range(20):
        clip, samples = make_clip("test", index)
        loud = np.zeros(len(samples), bool)
        for item in clip.events:
            loud[round(item.onset * RATE) : round(item.offset * RATE)] = True
        power = samples.astype(np.float64) ** 2
        assert power[loud].mean() > 3 * power[~loud].mean(), "events are 6 dB and more above the background"


@pytest.mark.parametrize("name", list(EVENTS))
def test_sounds_are_a_function_of_their_dice(name: str) -> None:
    first, again, other = (event(name, Dice("x", seed), 12_000) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert np.sqrt(np.mean(first**2)) == pytest.approx(1.0)


def test_it_is_made_once_however_many_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def small(folder: Path) -> None:
        made.append(folder)
        make_demo(folder, {"train": 4, "test": 3, "scenes_test": 2})

    monkeypatch.setattr("c2ftool.data.demo.make_demo", small)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: build_demo(tmp_path), range(4)))
    assert (paths, len(made)) == ({tmp_path / "demo"}, 1)
    prepared = PreparedSet.open(find_set("demo", tmp_path))
    assert prepared.info.splits == {"train": 4, "test": 3, "scenes_test": 2}
    assert prepared.info.multi_label
    assert not prepared.multi_label(prepared.rows(["train"]))
    clip, samples = make_clip("scenes_test", 1)
    np.testing.assert_array_equal(prepared.waveform(8), samples)
    assert prepared.events(8).onset.tolist() == [item.onset for item in clip.events]
    assert not list(tmp_path.glob("*.partial"))


def test_another_set_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    make_demo(tmp_path / "demo", {"train": 2})
    record = (tmp_path / "demo" / "c2f.json").read_text()
    (tmp_path / "demo" / "c2f.json").write_text(record.replace('"layout": "demo"', '"layout": "folder"'))
    with pytest.raises(DataError, match="rename its folder"):
        find_set("demo", tmp_path)


@pytest.mark.slow
def test_mean_spectra_do_not_solve_it(tmp_path: Path) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    scaling = pytest.importorskip("sklearn.preprocessing")
    pipeline = pytest.importorskip("sklearn.pipeline")
    import torch

    from c2ftool.frontend.kaldi import log_mel

    def spectra(split: str) -> tuple[np.ndarray, np.ndarray]:
        clips = [make_clip(split, index) for index in range(SPLITS[split])]
        waveforms = torch.from_numpy(np.stack([samples for _, samples in clips]).astype(np.float32) / 32768)
        waveforms -= waveforms.mean(1, keepdim=True)
        features = log_mel(waveforms, sample_rate=RATE, mels=128, frame_length=400, hop=160, window="hanning")
        return features.mean(1).numpy(), np.array([clip.labels[0] for clip, _ in clips])

    probe = pipeline.make_pipeline(scaling.StandardScaler(), linear.LogisticRegression(C=0.1, max_iter=2000))
    accuracy = probe.fit(*spectra("train")).score(*spectra("test"))
    assert 0.35 <= accuracy <= 0.75
