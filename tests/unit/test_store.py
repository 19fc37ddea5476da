"""Opening prepared sets: what is stored comes back exactly, and damage is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from c2ftool.data.coding import Coding, Int16
from c2ftool.data.record import write_record
from c2ftool.data.shard import ShardTask, write_made
from c2ftool.data.sources.listing import ClipRef, Event, Listing
from c2ftool.data.store import PreparedSet, find_set
from c2ftool.data.write import shard_name
from c2ftool.errors import DataError, MissingError

CLASSES = ["dog", "cat", "bird"]
CLIPS = [
    ClipRef("a", "a.wav", "train", 1, (0,)),
    ClipRef("b", "b.wav", "train", 2, (1,), (Event(0.5, 0.75, 1),)),
    ClipRef("c", "c.wav", "test", 0, (0, 2)),
    ClipRef("d", "d.wav", "test", 0, ()),
    ClipRef("é", "e.wav", "train", 2, (2,)),
]


def waveforms() -> list[Int16]:
    generator = np.random.default_rng(0)
    return [generator.integers(-3000, 3000, 800 + 101 * number).astype(np.int16) for number in range(len(CLIPS))]


def make(folder: Path, coding: Coding = "wav", per_shard: int = 2) -> Path:
    folder.mkdir(parents=True)
    shards = -(-len(CLIPS) // per_shard)
    made = list(zip(CLIPS, waveforms(), strict=True))
    reports = [
        write_made(
            ShardTask(index, folder, folder / shard_name(index, shards), (), ("train",), 8000, coding),
            iter(made[index * per_shard : (index + 1) * per_shard]),
        )
        for index in range(shards)
    ]
    write_record(folder, folder.name, Listing("csv", folder, CLIPS, CLASSES, ("train",)), 8000, coding, reports)
    return folder


@pytest.mark.parametrize("coding", ["wav", "flac"])
def test_what_is_stored_comes_back(tmp_path: Path, coding: Coding) -> None:
    prepared = PreparedSet.open(make(tmp_path / "set", coding))
    assert prepared.ids == [clip.id for clip in CLIPS]
    assert prepared.splits.tolist() == [clip.split for clip in CLIPS]
    assert prepared.folds.tolist() == [1, 2, 0, 0, 2]
    assert [labels.tolist() for labels in prepared.labels] == [list(clip.labels) for clip in CLIPS]
    for row, waveform in enumerate(waveforms()):
        np.testing.assert_array_equal(prepared.waveform(row), waveform)
        assert prepared.samples[row] == len(waveform)
    assert [array.tolist() for array in prepared.events(1)] == [[0.5], [0.75], [1]]
    assert [len(array) for array in prepared.events(0)] == [0, 0, 0]
    info = prepared.info
    assert (info.splits, info.folds, info.multi_label, info.classes) == ({"train": 3, "test": 2}, [1, 2], True, CLASSES)
    assert info.counts == {"train": {"0": 1, "1": 1, "2": 1}, "test": {"0": 1, "2": 1}}


def test_wav_is_read_without_a_copy(tmp_path: Path) -> None:
    prepared = PreparedSet.open(make(tmp_path / "set"))
    waveform = prepared.waveform(3)
    assert not waveform.flags.owndata
    assert not waveform.flags.writeable
    assert np.shares_memory(waveform, prepared.waveform(3))


def test_rows_by_split_and_fold(tmp_path: Path) -> None:
    prepared = PreparedSet.open(make(tmp_path / "set"))
    assert prepared.rows(["train"]).tolist() == [0, 1, 4]
    assert prepared.rows(["test", "train"]).tolist() == [0, 1, 2, 3, 4]
    assert prepared.rows(["train"], fold=2).tolist() == [0]
    assert prepared.rows(["train"], fold=2, hold_out=True).tolist() == [1, 4]
    with pytest.raises(DataError, match="no split valid"):
        prepared.rows(["valid"])
    with pytest.raises(DataError, match="no fold 3"):
        prepared.rows(["train"], fold=3)


def test_targets_and_whether_rows_are_multi_label(tmp_path: Path) -> None:
    prepared = PreparedSet.open(make(tmp_path / "set"))
    targets = prepared.targets(np.array([2, 3, 1, 2]))
    assert targets.dtype == np.float32
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert prepared.targets([]).shape == (0, 3)
    assert not prepared.multi_label(prepared.rows(["train"]))
    assert prepared.multi_label([2])
    assert prepared.multi_label([0, 3])


def test_hugging_face_datasets_opens_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_from_disk(str(make(tmp_path / "set")))
    assert loaded.features["labels"].feature.names == CLASSES
    assert loaded["id"][:] == [clip.id for clip in CLIPS]
    row = loaded[1]
    assert (row["labels"], row["events"]) == ([1], [{"onset": 0.5, "offset": 0.75, "label": 1}])
    assert row["audio"]["bytes"][44:] == waveforms()[1].tobytes()


def damage_cut(folder: Path) -> None:
    shard = folder / shard_name(1, 3)
    shard.write_bytes(shard.read_bytes()[:-100])


def damage_gone(folder: Path) -> None:
    (folder / shard_name(1, 3)).unlink()


def damage_zeros(folder: Path) -> None:
    shard = folder / shard_name(1, 3)
    shard.write_bytes(bytes(shard.stat().st_size))


def damage_version(folder: Path) -> None:
    record = json.loads((folder / "c2f.json").read_text())
    (folder / "c2f.json").write_text(json.dumps({**record, "version": 99}))


def damage_record(folder: Path) -> None:
    (folder / "c2f.json").write_text("{}")


@pytest.mark.parametrize("damage", [damage_cut, damage_gone, damage_zeros, damage_version, damage_record])
def test_damage_is_an_error_with_a_cure(tmp_path: Path, damage: object) -> None:
    folder = make(tmp_path / "set")
    damage(folder)  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        PreparedSet.open(folder)
    assert "--overwrite" in str(caught.value)


def test_a_label_beyond_the_classes_is_damage(tmp_path: Path) -> None:
    folder = make(tmp_path / "set")
    record = json.loads((folder / "c2f.json").read_text())
    (folder / "c2f.json").write_text(json.dumps({**record, "classes": ["dog"]}))
    with pytest.raises(DataError, match="class number 2"):
        PreparedSet.open(folder)


def test_sets_are_found_by_name_or_path(tmp_path: Path) -> None:
    folder = make(tmp_path / "root" / "birds")
    assert find_set("birds", tmp_path / "root") == folder
    assert find_set(str(folder), tmp_path) == folder
    with pytest.raises(MissingError, match=r"no prepared set frogs(.|\n)*c2f prepare(.|\n)*birds, demo"):
        find_set("frogs", tmp_path / "root")
    with pytest.raises(MissingError):
        PreparedSet.open(tmp_path / "root")


def test_the_statistics_are_those_of_all_training_frames(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    fbank = pytest.importorskip("torchaudio").compliance.kaldi.fbank
    folder = tmp_path / "set"
    info = PreparedSet.open(make(folder)).info
    frames = []
    for clip, waveform in zip(CLIPS, waveforms(), strict=True):
        if clip.split == "train":
            values = torch.from_numpy(waveform.astype(np.float32) / 32768)[None]
            frames.append(
                fbank(
                    values - values.mean(),
                    htk_compat=True,
                    sample_frequency=8000,
                    use_energy=False,
                    window_type="hanning",
                    num_mel_bins=128,
                    dither=0.0,
                    frame_shift=10,
                )
            )
    stacked = torch.cat(frames).double()
    assert info.frames == len(stacked)
    assert info.mean == pytest.approx(stacked.mean().item(), rel=1e-5)
    assert info.std == pytest.approx(stacked.std(correction=0).item(), rel=1e-5)


def test_the_bytes_do_not_depend_on_the_threads_of_the_caller(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = make(tmp_path / "one" / "set")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    second = make(tmp_path / "two" / "set")
    for path in first.iterdir():
        text = path.read_bytes().replace(b"/one/", b"/two/")
        assert text == (second / path.name).read_bytes()
