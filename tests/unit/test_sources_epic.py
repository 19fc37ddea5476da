"""The layout of EPIC-SOUNDS: segments of long videos, whose audio is in one HDF5 file or in a file for each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from c2ftool.data.decode import Unusable, decode
from c2ftool.data.prepare import Settings, prepare
from c2ftool.data.sources import find
from c2ftool.data.sources.listing import ClipRef, Inside, Listing
from c2ftool.data.store import PreparedSet
from c2ftool.errors import DataError, MissingError

RATE = 24_000
HEADER = (
    "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample,description,"
    "class,class_id"
)
TRAIN, VALID = "EPIC_Sounds_train.csv", "EPIC_Sounds_validation.csv"
TEST = "EPIC_Sounds_recognition_test_timestamps.csv"
NAMES = {0: "metal-only collision", 1: "scrub / scrape / scour / wipe", 4: "rustle", 7: "footstep", 43: "drink / eat"}
SECONDS = {"P01_01": 3, "P01_02": 2, "P02_01": 1}
Row = tuple[str, str, int, int, int]  # id, video, first sample, the one after the last, class_id


def row(name: str, video: str, start: object, stop: object, number: object, label: str | None = None) -> str:
    """A line of a table, with a comma and a quote in the description as annotators write them."""
    label = NAMES[int(str(number))] if label is None else label
    return (
        f'{name},{video[:3]},{video},00:00:00.000,00:00:01.000,{start},{stop},"a ""thing"", put down",{label},{number}'
    )


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


def sounds() -> dict[str, np.ndarray]:
    """Noise for each video, int16: no two of its stretches are alike."""
    rng = np.random.default_rng(11)
    return {video: rng.integers(-9_000, 9_000, n * RATE).astype(np.int16) for video, n in SECONDS.items()}


def write_hdf5(path: Path, videos: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for video, samples in videos.items():
            file[video] = (samples / 32768).astype(np.float32)


TRAINING: list[Row] = [
    (f"P01_01_{n}", "P01_01", 1_001 + 997 * n, 2_301 + 1_311 * n, (0, 7, 4)[n % 3]) for n in range(16)
]
LATER: list[Row] = [
    ("P01_02_0", "P01_02", 0, 48_000, 1),
    ("P01_02_1", "P01_02", 5_000, 5_000, 4),  # of no length
    ("P01_02_2", "P01_02", 5_000, 6_199, 4),  # one sample below 0.05 s
    ("P01_02_3", "P01_02", 5_000, 6_200, 4),
    ("P01_02_4", "P01_02", 48_000, 60_000, 4),  # begins where the video ends
    ("P01_02_5", "P01_02", 24_000, 72_000, 4),  # half of it is there
    ("P01_02_6", "P01_02", 24_001, 72_001, 4),  # one sample less than that
    ("P01_03_0", "P01_03", 0, 24_000, 0),  # no such video
]
VALIDATION: list[Row] = [("P02_01_0", "P02_01", 12_000, 24_000, 43), ("P02_02_0", "P02_02", 12_000, 24_000, 1)]
PUT_ASIDE = [
    ("P01_02_1", "empty", "no frames"),
    ("P01_02_2", "too short", "0.050 s, at least 0.05 s"),
    ("P01_02_4", "too short", "the part begins at 2.000 s and the file ends before it"),
    ("P01_02_6", "truncated", "23999 of 48000 frames are there"),
]


def tables(folder: Path, under: str = "") -> None:
    """Tables for SECONDS; what is wrong with LATER is not wrong with the tables."""
    write(folder / under / TRAIN, HEADER, *(row(*one) for one in TRAINING + LATER))
    write(folder / under / VALID, HEADER, *(row(*one) for one in VALIDATION))


def wavs(folder: Path) -> None:
    """The videos as files, below folders of the participants; one of them is FLAC."""
    for video, samples in sounds().items():
        place = folder / "audio" / video[:3] / f"{video}.{'flac' if video == 'P01_02' else 'wav'}"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, samples, RATE, subtype="PCM_16")


def expected() -> list[tuple[str, str, str, list[int]]]:
    """(id, split, class, samples) of the clips that the set must have."""
    videos, aside = sounds(), {name for name, _, _ in PUT_ASIDE}
    rows = [(one, "train") for one in TRAINING + LATER] + [(one, "valid") for one in VALIDATION]
    return [
        (name, split, NAMES[number], videos[video][start:stop].tolist())
        for (name, video, start, stop, number), split in rows
        if video in videos and name not in aside
    ]


def stored(folder: Path) -> list[tuple[str, str, str, list[int]]]:
    """The same of a prepared set."""
    made = PreparedSet.open(folder)
    return [
        (made.ids[n], str(made.splits[n]), made.info.classes[int(made.labels[n][0])], made.waveform(n).tolist())
        for n in range(len(made.ids))
        if len(made.labels[n]) == 1
    ]


def test_both_forms_of_the_audio_make_the_same_set_exact_to_the_sample(
    tmp_path: Path, c2f: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    hdf5, files = tmp_path / "hdf5", tmp_path / "files"
    tables(hdf5)
    tables(files, "annotations")
    write(hdf5 / TEST, "annotation_id,video_id", "P03_01_0,P03_01", "P03_01_1,P03_01")
    write_hdf5(hdf5 / "EPIC_audio.hdf5", sounds())
    wavs(files)
    done = c2f("prepare", "epic_sounds", "--from", hdf5, "--to", tmp_path, "--rate", str(RATE), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    one = PreparedSet.open(tmp_path / "epic_sounds").info
    two = prepare(find("epic_sounds", files), tmp_path / "two", Settings(RATE), jobs=1)
    again = prepare(find("epic_sounds", hdf5), tmp_path / "again", Settings(RATE, "wav"), jobs=1)
    assert two is not None and again is not None
    assert len(one.shards) > 1 and one.fingerprint == again.fingerprint

    assert stored(tmp_path / "epic_sounds") == stored(tmp_path / "two") == expected()
    for info in (one, two):
        assert info.layout == "epic_sounds" and info.classes == list(NAMES.values())
        assert (info.splits, info.multi_label, info.measured) == ({"train": 19, "valid": 1}, False, ["train"])
        assert info.missing == {"count": 2, "splits": {"train": 1, "valid": 1}, "first": ["P01_03_0", "P02_02_0"]}
        assert info.rates == {str(RATE): 20} and info.handled == {"truncated": 1}
        assert [(item["id"], item["reason"], item["detail"]) for item in info.quarantine] == PUT_ASIDE
    assert (one.mean, one.std) == (two.mean, two.std)
    assert {item["path"] for item in one.quarantine} == {"EPIC_audio.hdf5/P01_02"}
    assert {item["path"] for item in two.quarantine} == {"audio/P01/P01_02.flac"}
    assert list(two.sources["metadata"]) == [f"annotations/{TRAIN}", f"annotations/{VALID}"]

    assert one.notes == [
        f"the 2 segments of {TEST} were left out: they have no labels",
        "the audio is that of EPIC_audio.hdf5, taken to be at 24000 Hz; other audio files are not read",
        "2 of the 5 videos are not there: P01_03, P02_02",
        f"{TRAIN} and {VALID}: 5 classes, numbered in the order of class_id; EPIC-SOUNDS has 44",
    ]
    assert two.notes == one.notes[2:]
    for line in (
        "missing: 2 clips (1 of train, 1 of valid), as P01_03_0",
        "put aside: 2 too short",
        "  EPIC_audio.hdf5/P01_02 (P01_02_6): truncated: 23999 of 48000 frames are there",
        f"note: {one.notes[0]}",
    ):
        assert line in done.stdout.splitlines()


def clip_of(listing: Listing, name: str) -> ClipRef:
    return next(clip for clip in listing.clips if clip.id == name)


@pytest.mark.parametrize("rate", [48_000, 16_000])
def test_in_files_of_another_rate_the_indices_are_scaled(tmp_path: Path, rate: int) -> None:
    samples = np.random.default_rng(3).integers(-9_000, 9_000, 2 * rate).astype(np.int16)
    soundfile.write(tmp_path / "P01_02.wav", samples, rate)
    write(tmp_path / TRAIN, HEADER, row("P01_02_0", "P01_02", 10_001, 40_003, 0))
    clip = clip_of(find("epic_sounds", tmp_path), "P01_02_0")
    cut = decode(tmp_path / clip.path, rate, clip.start, clip.stop, clip.inside)
    first, last = (20_002, 80_006) if rate == 48_000 else (6_667, 26_669)
    np.testing.assert_array_equal(cut.samples, samples[first:last])
    assert cut.source_rate == rate and cut.handled == ()


def test_indices_at_the_end_of_a_long_video_are_exact(tmp_path: Path) -> None:
    length = 90_000_007  # more than an hour
    with h5py.File(tmp_path / "EPIC_audio.hdf5", "w") as file:
        data = file.create_dataset("P01_01", (length,), "float32", chunks=(1 << 20,))
        data[-5_000:] = np.arange(5_000) / 32768
    write(tmp_path / TRAIN, HEADER, row("P01_01_0", "P01_01", length - 3_001, length - 1, 0))
    clip = clip_of(find("epic_sounds", tmp_path), "P01_01_0")
    cut = decode(tmp_path / clip.path, RATE, clip.start, clip.stop, clip.inside)
    np.testing.assert_array_equal(cut.samples, np.arange(1_999, 4_999))


def test_tables_may_be_gzipped_in_a_clone_and_name_one_split(tmp_path: Path) -> None:
    write(tmp_path / "epic-sounds-annotations" / VALID, HEADER, *(row(*one) for one in VALIDATION))
    subprocess.run(["gzip", tmp_path / "epic-sounds-annotations" / VALID], check=True)
    write_hdf5(tmp_path / "audio/EPIC_audio.hdf5", sounds())
    listing = find("epic_sounds", tmp_path)
    assert [(clip.id, clip.split, clip.labels) for clip in listing.clips] == [("P02_01_0", "valid", (1,))]
    assert clip_of(listing, "P02_01_0").inside == Inside("P02_01", RATE)
    assert listing.classes == [NAMES[1], NAMES[43]] and listing.train_splits == ("valid",)
    assert listing.metadata_files == [f"epic-sounds-annotations/{VALID}.gz"]
    assert listing.notes[0] == f"{TRAIN} is not there"
    assert "there is no split train: the statistics are measured on valid" in listing.notes
    assert f"1 of the 2 classes have no clip here: {NAMES[1]}" in listing.notes


def test_a_video_twice_and_in_both_splits_is_said(tmp_path: Path) -> None:
    write(tmp_path / TRAIN, HEADER, row("P02_01_0", "P02_01", "0.0", "2400.0", 7))
    write(tmp_path / VALID, HEADER, row("P02_01_1", "P02_01", 2_400, 4_800, 7))
    for name in ("b/P02_01.wav", "a/P02_01.flac"):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, sounds()["P02_01"], RATE)
    listing = find("epic_sounds", tmp_path)
    assert {clip.path for clip in listing.clips} == {"a/P02_01.flac"}
    assert "1 videos have segments in train and in valid, as the tables say" in listing.notes
    assert "2 clips have several audio files: the first by name was taken" in listing.notes


def test_every_fault_of_the_tables_is_reported_at_once(tmp_path: Path) -> None:
    write(
        tmp_path / TRAIN,
        HEADER,
        row("P01_01_0", "P01_01", 0, 2_400, 7),
        row("", "", 0, 2_400, 7),
        row("P01_01_1", "P01_01", "-1", 2_400, 7),
        row("P01_01_2", "P01_01", 0, "00:00:01", 7),
        row("P01_01_3", "P01_01", 2_400, 2_399, 7),
        row("P01_01_4", "P01_01", 0, 2_400, 44, "new"),
        row("P01_01_5", "P01_01", 0, 2_400, "one", "new"),
        row("P01_01_6", "P01_01", 0, 2_400, 7, ""),
        row("P01_01_7", "P01_01", 0, 2_400, 7, "steps"),
        row("P01_01_8", "P01_01", 0, 2_400, 7, "steps"),
    )
    write(
        tmp_path / VALID,
        HEADER,
        row("P01_01_0", "P02_01", 0, 2_400, 1),
        row("P02_01_1", "P02_01", 0, 2_400, 8, "footstep"),
    )
    wavs(tmp_path)
    with pytest.raises(DataError) as caught:
        find("epic_sounds", tmp_path)
    assert str(caught.value.message).splitlines() == [
        "11 faults:",
        f"  {TRAIN}, line 3: no annotation_id",
        f"  {TRAIN}, line 3: no video_id",
        f"  {TRAIN}, line 4: start_sample '-1' is not a whole number from 0",
        f"  {TRAIN}, line 5: stop_sample '00:00:01' is not a whole number from 0",
        f"  {TRAIN}, line 6: stop_sample 2399 is before start_sample 2400",
        f"  {TRAIN}, line 7: class_id 44 is none of 0 .. 43",
        f"  {TRAIN}, line 8: class_id 'one' is not a whole number from 0",
        f"  {TRAIN}, line 9: no class",
        f"  {TRAIN}, line 10: class_id 7 is 'steps' here and 'footstep' in {TRAIN}, line 2",
        f"  {VALID}, line 3: 'footstep' has class_id 8 here and 7 in {TRAIN}, line 2",
        f"  {VALID}, line 2: clip P01_01_0 ({NAMES[1]}, valid) stands already in {TRAIN}, line 2 (footstep, train)",
    ]


def test_tables_without_samples_or_rows_are_refused(tmp_path: Path) -> None:
    wavs(tmp_path)
    write(tmp_path / TRAIN, HEADER)
    with pytest.raises(DataError, match="there are no rows under the header"):
        find("epic_sounds", tmp_path)
    write(tmp_path / TRAIN, HEADER.replace("start_sample,stop_sample,", ""))
    with pytest.raises(DataError, match="no column start_sample, stop_sample; the header has annotation_id"):
        find("epic_sounds", tmp_path)


def test_without_the_tables_the_message_says_which(tmp_path: Path) -> None:
    write(tmp_path / "EPIC_Sounds_train.pkl", "not read")
    with pytest.raises(
        MissingError, match=rf"found EPIC_Sounds_train\.pkl(.|\n)*{TRAIN} and {VALID} \(the \.csv files"
    ):
        find("epic_sounds", tmp_path)
    with pytest.raises(MissingError, match="no such folder; expected"):
        find("epic_sounds", tmp_path / "nowhere")


def test_where_there_are_only_videos_the_message_extracts_their_audio(tmp_path: Path) -> None:
    tables(tmp_path)
    write(tmp_path / "P01/videos/P01_01.MP4", "a video")
    with pytest.raises(MissingError, match=r"none of the 26 clips(.|\n)*1 \.MP4 files: their audio must") as caught:
        find("epic_sounds", tmp_path)
    # the command that the message gives, with a converter that copies
    write(tmp_path / "bin/ffmpeg", "#!/bin/sh", 'cp "$3" "$7"')
    (tmp_path / "bin/ffmpeg").chmod(0o755)
    command = str(caught.value.cure).removeprefix("in that folder: ")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    assert {clip.path for clip in find("epic_sounds", tmp_path).clips} == {"P01/videos/P01_01.wav"}


def test_an_hdf5_file_of_other_videos_or_none_is_refused(tmp_path: Path) -> None:
    tables(tmp_path)
    write_hdf5(tmp_path / "data/EPIC_audio.hdf5", {"P99_01": sounds()["P02_01"]})
    with pytest.raises(MissingError, match=r"none of the 5 videos of .* \(the first is P01_01\) is in data/EPIC_audio"):
        find("epic_sounds", tmp_path)
    write(tmp_path / "data/EPIC_audio.hdf5", "a page that says to log in")
    with pytest.raises(DataError, match="not an HDF5 file that can be read"):
        find("epic_sounds", tmp_path)


def test_data_sets_that_are_no_sound_are_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "EPIC_audio.hdf5"
    with h5py.File(path, "w") as file:
        file["whole"] = np.zeros(RATE, np.int32)
        file["stereo"] = np.zeros((2, RATE), np.float32)
        file["nan"] = np.full(RATE, np.nan, np.float32)
        file["long"] = file.create_dataset("x", (7201 * RATE,), "float16", chunks=(RATE,))
        file.create_group("folder")
        file["double"] = np.linspace(-1, 1, RATE)
    for name, reason in {
        "whole": "corrupt: int32 of the shape (24000,), not floats of one channel",
        "stereo": "corrupt: float32 of the shape (2, 24000), not floats of one channel",
        "nan": "not finite: 24000 of 24000 samples",
        "long": "too long: more than 2 hours",
        "folder": "unreadable: there is no data set folder",
        "gone": "unreadable: there is no data set gone",
    }.items():
        with pytest.raises(Unusable) as caught:
            decode(path, RATE, inside=Inside(name, RATE))
        assert str(caught.value) == reason
    assert len(decode(path, 16_000, 0.5, inside=Inside("double", RATE)).samples) == 8_000
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(Unusable, match="unreadable"):
        decode(path, RATE, inside=Inside("double", RATE))
