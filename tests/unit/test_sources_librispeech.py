"""LibriSpeech: its folders as unpacked, without classes, through `prepare` to batches, from real FLAC files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from c2ftool.data.loader import TrainLoader
from c2ftool.data.order import Order, Stream
from c2ftool.data.prepare import Settings, prepare
from c2ftool.data.sources import find
from c2ftool.data.store import PreparedSet
from c2ftool.errors import DataError, MissingError
from c2ftool.spec.data import Uniform

SECONDS = {"19-198-0000": 0.5, "19-198-0001": 0.3, "26-495-0000": 0.4, "84-121123-0000": 0.2}
SPLIT = {"84": "dev-clean", "19": "train-clean-100", "26": "train-clean-100"}


def speech(folder: Path, under: str = "") -> None:
    """Four utterances of three speakers, FLAC at 16 kHz, with transcripts as published."""
    for place, (name, seconds) in enumerate(SECONDS.items()):
        speaker, chapter, _ = name.split("-")
        here = folder / under / SPLIT[speaker] / speaker / chapter
        here.mkdir(parents=True, exist_ok=True)
        wave = np.sin(np.arange(int(16_000 * seconds)) * (0.05 + 0.03 * place))
        soundfile.write(here / f"{name}.flac", 0.3 * wave, 16_000, subtype="PCM_16")
        (here / f"{speaker}-{chapter}.trans.txt").write_text(f"{name} NORTHANGER ABBEY\n")
    (folder / under / "SPEAKERS.TXT").write_text("; the speakers\n")


@pytest.mark.parametrize("under", ["", "LibriSpeech"])
def test_librispeech_is_read_as_unpacked(tmp_path: Path, under: str) -> None:
    speech(tmp_path, under)
    listing = find("librispeech", tmp_path)
    prefix = f"{under}/" if under else ""
    assert [(clip.id, clip.path, clip.split, clip.labels) for clip in listing.clips] == [
        ("19-198-0000", f"{prefix}train-clean-100/19/198/19-198-0000.flac", "train-clean-100", ()),
        ("19-198-0001", f"{prefix}train-clean-100/19/198/19-198-0001.flac", "train-clean-100", ()),
        ("26-495-0000", f"{prefix}train-clean-100/26/495/26-495-0000.flac", "train-clean-100", ()),
        ("84-121123-0000", f"{prefix}dev-clean/84/121123/84-121123-0000.flac", "dev-clean", ()),
    ]
    assert (listing.classes, listing.train_splits, listing.metadata_files) == ([], ("train-clean-100",), [])


def test_librispeech_says_what_is_not_there(tmp_path: Path) -> None:
    speech(tmp_path)
    for stray in ("train-clean-100/19/198/20-198-0000.flac", "train-clean-100/a.wav", "music/19/198/19-198-0009.flac"):
        (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stray).write_bytes(b"")
    listing = find("librispeech", tmp_path)
    assert len(listing.clips) == 4
    assert listing.notes == [
        "train-clean-100: 3 clips; LibriSpeech has 28,539",
        "dev-clean: 1 clips; LibriSpeech has 2,703",
        "splits that are not there: train-clean-360, train-other-500, dev-other, test-clean, test-other",
        "3 audio files that are no clip of a split were left out",
    ]


def test_librispeech_without_training_is_measured_on_what_there_is(tmp_path: Path) -> None:
    speech(tmp_path / "all")
    (tmp_path / "all" / "dev-clean").rename(tmp_path / "dev-clean")
    listing = find("librispeech", tmp_path)  # all/ is no place where splits lie
    assert [clip.id for clip in listing.clips] == ["84-121123-0000"] and listing.train_splits == ("dev-clean",)
    assert "there is no split for training: the statistics are measured on dev-clean" in listing.notes


def test_another_folder_is_no_librispeech(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    with pytest.raises(MissingError, match=r"not in the layout of LibriSpeech: expected .*train-clean-100.*found wav/"):
        find("librispeech", tmp_path)
    with pytest.raises(MissingError, match="no such folder"):
        find("librispeech", tmp_path / "gone")


def test_an_utterance_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    speech(tmp_path)
    speech(tmp_path, "LibriSpeech")
    with pytest.raises(DataError, match="4 faults:\n  clip 19-198-0000 is there more than once"):
        find("librispeech", tmp_path)


@pytest.mark.parametrize("coding", ["wav", "flac"])
def test_a_set_without_classes_is_prepared_and_gives_batches(tmp_path: Path, coding) -> None:
    speech(tmp_path / "raw")
    info = prepare(find("librispeech", tmp_path / "raw"), tmp_path / "librispeech", Settings(coding=coding))
    assert info is not None and info.classes == [] and info.counts == {"train-clean-100": {}, "dev-clean": {}}
    assert info.splits == {"train-clean-100": 3, "dev-clean": 1} and info.quarantine == []
    assert info.rates == {"16000": 4} and info.seconds == {"train-clean-100": pytest.approx(1.2), "dev-clean": 0.2}
    prepared = PreparedSet.open(tmp_path / "librispeech")
    rows = prepared.rows(["train-clean-100"])
    assert prepared.targets(rows).shape == (3, 0)
    samples, _ = soundfile.read(tmp_path / "raw/train-clean-100/26/495/26-495-0000.flac", dtype="int16")
    assert np.array_equal(prepared.waveform(2), samples)

    order = Order(rows, seed=1, phase=0, sampler=Uniform(kind="uniform"))
    loader = TrainLoader(
        source=prepared, stream=Stream(order), batch=3, places=np.arange(3), samples=4_000, random_crop=True,
        classes=np.arange(0), threads=0, pin=False,
    )  # fmt: skip
    batch = next(iter(loader.steps(0, 1)))
    assert batch.waveforms.shape == (3, 4_000) and batch.labels.shape == (3, 0)
    assert batch.lengths.tolist() == [4_000] * 3  # the longer ones are cropped
