"""Strong labels in tables: what becomes of times and events, and what AudioSet Strong lists."""

from __future__ import annotations

import csv
import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from c2ftool.data.prepare import Settings, prepare
from c2ftool.data.sources import find
from c2ftool.data.sources.strong import EventTable, bare, seconds, span, table_rows
from c2ftool.data.store import PreparedSet
from c2ftool.errors import DataError, MissingError

HEADER = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
STRONG = "filename\tonset\toffset\tevent_label"


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))


def place(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def sound(path: Path, duration: float, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(3).normal(0, 0.1, round(duration * rate)), rate)


# times and tables


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 20), st.integers(0, 6)), max_size=20),
    st.randoms(use_true_random=False),
)
def test_events_of_a_class_become_the_stretches_they_cover(rows, random) -> None:
    table = EventTable()
    random.shuffle(rows)
    for clip, label, onset, length in rows:
        table.add(("train", str(clip)), label, onset / 4, (onset + length) / 4)
    kept = 0
    for (_, name), events in table.by_clip().items():
        assert [(event.onset, event.label) for event in events] == sorted((e.onset, e.label) for e in events)
        for label in range(3):
            of_class = [event for event in events if event.label == label]
            assert all(left.offset < right.onset for left, right in pairwise(of_class))
            own = [row for row in rows if (str(row[0]), row[1]) == (name, label)]
            for eighth in range(0, 56) if own else ():  # instants at and between the borders
                time = eighth / 8
                before = any(onset / 4 <= time <= (onset + length) / 4 for _, _, onset, length in own)
                assert any(event.onset <= time <= event.offset for event in of_class) == before
            kept += len(of_class)
    merged = [note for note in table.notes() if "merged" in note]
    assert merged == (
        [f"{len(rows) - kept} of {len(rows)} events were merged with another of their class in the same clip, "
         "which they overlap or touch"] if kept < len(rows) else []
    )  # fmt: skip


def test_clips_keep_their_order_and_may_be_without_events() -> None:
    table = EventTable()
    table.name(("b", "quiet"))
    table.add(("a", "x"), 1, 2.0, 2.0)
    table.add(("a", "x"), 0, 0.5, 1.0)
    events = table.by_clip()
    assert list(events) == [("b", "quiet"), ("a", "x")]
    assert events["b", "quiet"] == ()
    assert [vars(event) for event in events["a", "x"]] == [
        {"onset": 0.5, "offset": 1.0, "label": 0},
        {"onset": 2.0, "offset": 2.0, "label": 1},
    ]
    assert table.notes() == ["1 events have no length: they are kept (one frame each, none on a frame border)"]


@pytest.mark.parametrize(
    ("onset", "offset", "fault"),
    [
        ("", "1", "onset '' is not a time in seconds"),
        ("nan", "1", "onset 'nan' is not a time in seconds"),
        ("0", "inf", "offset 'inf' is not a time in seconds"),
        ("1_0", "20", "onset '1_0' is not a time in seconds"),
        ("0,5", "1", "onset '0,5' is not a time in seconds"),
        ("-0.001", "1", "onset -0.001 is before the start of the clip"),
        ("2.5", "2.499", "offset 2.499 is before onset 2.5"),
    ],
)
def test_times_that_are_none_are_faults(onset: str, offset: str, fault: str) -> None:
    faults: list[str] = []
    span(onset, offset, faults)
    assert faults == [fault]


@given(st.floats(0, 1e6))
def test_times_are_read_to_the_last_bit(value: float) -> None:
    faults: list[str] = []
    assert (seconds(repr(value), "onset", faults), faults) == (value, [])


@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=5), min_size=3, max_size=3
        ),
        max_size=5,
    ),
    st.sampled_from("\t;,"),
)
def test_what_a_csv_writer_writes_is_read_back(tmp_path_factory, rows, delimiter) -> None:
    path = tmp_path_factory.mktemp("table") / "table.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([["a", "b", "c"], *rows])
    faults: list[str] = []
    read = [cells for _, cells in table_rows(path, "table", ("c", "a"), faults, ("gone",))]
    assert faults == []
    assert read == [[row[2], row[0], ""] for row in rows if any(row)]


def test_lines_that_would_swallow_others_are_faults(tmp_path: Path) -> None:
    write(tmp_path / "t.tsv", "a\tb", '"x\t1', "y\t2", "z\t3\t4", "short", "last\t5\t")
    faults: list[str] = []
    rows = list(table_rows(tmp_path / "t.tsv", "T", ("a", "b"), faults))
    assert rows == [("T, line 3", ["y", "2"]), ("T, line 5", ["short", ""]), ("T, line 6", ["last", "5"])]
    assert faults == [
        "T, line 2: a quote is not closed: '\"x\\t1'",
        "T, line 4: 3 cells where the header has 2: 'z\\t3\\t4'",
    ]
    with pytest.raises(DataError, match="no column c; the header has a, b"):
        list(table_rows(tmp_path / "t.tsv", "T", ("a", "c"), faults))


def test_only_the_suffix_of_a_file_is_taken_off_a_name() -> None:
    names = ["a.wav", "Y0_30.000_40.000.wav", "Y0_30.000_40.000", "12.jams", "x/a.b.flac", "./a.mp3"]
    assert [bare(name) for name in names] == ["a", "Y0_30.000_40.000", "Y0_30.000_40.000", "12", "x/a.b", "a"]


# AudioSet Strong


def audioset_strong(folder: Path, train: list[str], evaluation: list[str]) -> None:
    write(folder / "mid_to_display_name.tsv", "/m/z\tAir brake", "/m/a\tWind, rustling", "/m/b\tDog", "/m/c\tSilence")
    write(folder / "meta/audioset_train_strong.tsv", HEADER, *train)
    with gzip.open(folder / "audioset_eval_strong.tsv.gz", "wt") as file:
        file.write("\n".join([HEADER, *evaluation]))


TRAIN = [
    "--4gqARaEJE_0\t0.000\t1.500\t/m/a",
    "--4gqARaEJE_0\t1.500\t2.000\t/m/a",
    "_abcdefghij_30000\t2.0\t10.0\t/m/z",
    "--4gqARaEJE_0\t0.200\t9.000\t/m/b",
]
EVAL = ["gonegonegon_0\t0\t1\t/m/c", "Yabcdefghij_1500\t3.0\t3.0\t/m/b"]


def test_audioset_strong_lists_events_by_clip(tmp_path: Path) -> None:
    audioset_strong(tmp_path, TRAIN, EVAL)
    place(tmp_path, "train/Y--4gqARaEJE.wav", "_abcdefghij_30000.flac", "Yabcdefghij.mp3", "eval/--4gqARaEJE.wav")
    place(tmp_path, "eval_segments.csv", "class_labels_indices.csv")
    listing = find("audioset_strong", tmp_path)
    assert listing.classes == ["Air brake", "Dog", "Silence", "Wind, rustling"]
    assert [
        (clip.id, clip.path, clip.split, clip.labels, [tuple(vars(event).values()) for event in clip.events])
        for clip in listing.clips
    ] == [
        ("Y--4gqARaEJE", "train/Y--4gqARaEJE.wav", "train", (1, 3), [(0.0, 2.0, 3), (0.2, 9.0, 1)]),
        ("Y_abcdefghij", "_abcdefghij_30000.flac", "train", (0,), [(2.0, 10.0, 0)]),
        ("YYabcdefghij", "Yabcdefghij.mp3", "eval", (1,), [(3.0, 3.0, 1)]),
    ]
    assert listing.missing == [("eval", "Ygonegonegon")]
    assert listing.train_splits == ("train",)
    assert listing.extra == {
        "named": {"train": [0, 1, 3], "eval": [1, 2]},  # Silence, though its one clip is gone
        "labels": {"train": "strong", "eval": "strong"},
    }
    assert listing.notes == [
        "1 of 6 events were merged with another of their class in the same clip, which they overlap or touch",
        "1 events have no length: they are kept (one frame each, none on a frame border)",
        "1 clips have several audio files: one in a folder named after the split was preferred",
        "mid_to_display_name.tsv: 4 classes; AudioSet Strong has 456",
        "eval_segments.csv not read: clips and labels are those of the tables of events",
    ]
    assert listing.metadata_files == [
        "mid_to_display_name.tsv",
        "meta/audioset_train_strong.tsv",
        "audioset_eval_strong.tsv.gz",
    ]


def test_audioset_strong_tells_clips_of_one_video_apart(tmp_path: Path) -> None:
    rows = ["abcdefghijk_0\t0\t1\t/m/a", "abcdefghijk_20000\t0\t1\t/m/b"]
    audioset_strong(tmp_path, rows, ["abcdefghijk_20000\t0\t1\t/m/b"])
    place(tmp_path, "Yabcdefghijk.wav", "abcdefghijk_20000.wav")
    listing = find("audioset_strong", tmp_path)
    assert [(clip.id, clip.path) for clip in listing.clips] == [
        ("Yabcdefghijk", "Yabcdefghijk.wav"),
        ("Yabcdefghijk_20000", "abcdefghijk_20000.wav"),
        ("Yabcdefghijk_20000_eval", "abcdefghijk_20000.wav"),
    ]
    assert listing.notes[0].startswith("2 clips are of a video that the tables name before")


def test_audioset_strong_reports_every_fault_of_its_tables(tmp_path: Path) -> None:
    train = [
        "short_0\t0\t1\t/m/a",
        "abcdefghijk_0\t-1\t1\t/m/a",
        "abcdefghijk_0\t2\t1\t/m/a",
        "abcdefghijk_0\tx\t1\t/m/q",
        "abcdefghijk_0\t0",
    ]
    audioset_strong(tmp_path, train, ["abcdefghijk_x\t0\t1\t/m/a"])
    with pytest.raises(DataError) as caught:
        find("audioset_strong", tmp_path)
    for part in (
        "8 faults",
        "audioset_train_strong.tsv, line 2: segment id 'short_0' is not ID_STARTMS",
        "audioset_train_strong.tsv, line 3: onset -1 is before the start of the clip",
        "audioset_train_strong.tsv, line 4: offset 1 is before onset 2",
        "audioset_train_strong.tsv, line 5: onset 'x' is not a time in seconds",
        "audioset_train_strong.tsv, line 5: label '/m/q' is not in mid_to_display_name.tsv",
        "audioset_train_strong.tsv, line 6: offset '' is not a time in seconds",
        "audioset_train_strong.tsv, line 6: label '' is not in mid_to_display_name.tsv",
        "audioset_eval_strong.tsv.gz, line 2: segment id 'abcdefghijk_x' is not ID_STARTMS",
    ):
        assert part in str(caught.value)
    write(tmp_path / "mid_to_display_name.tsv", "/m/a\tDog", "/m/a\tCat", "/m/b\tDog", "Dog")
    with pytest.raises(
        DataError, match=r"/m/a stands there more(.|\n)*not 'Dog'(.|\n)*several mids have the name 'Dog'"
    ):
        find("audioset_strong", tmp_path)


def test_audioset_strong_says_what_it_expects(tmp_path: Path) -> None:
    place(tmp_path, "audio/x.wav")
    with pytest.raises(MissingError, match=r"audioset_train_strong\.tsv and audioset_eval(.|\n)*found audio/"):
        find("audioset_strong", tmp_path)
    audioset_strong(tmp_path, TRAIN, EVAL)
    with pytest.raises(MissingError, match=r"none of the 4 clips of audioset_train_strong\.tsv and audioset_eval"):
        find("audioset_strong", tmp_path)


# packing


def test_events_past_the_end_are_kept_and_counted(tmp_path: Path) -> None:
    rows = ["a.wav\t0.5\t1.0004\tDog", "a.wav\t0.9\t1.3\tCat", "a.wav\t1.0\t2\tSpeech", "a.wav\t0\t9\tBlender"]
    write(tmp_path / "dataset/metadata/validation/validation.tsv", STRONG, *rows, "quiet.wav")
    sound(tmp_path / "dataset/audio/validation/a.wav", 1.0, 44_100)
    sound(tmp_path / "dataset/audio/validation/quiet.wav", 1.0)
    info = prepare(find("desed", tmp_path), tmp_path / "set", Settings(16_000, "wav"), jobs=1)
    assert info is not None
    assert info.handled == {"events past their clip's end": 2, "events wholly past their clip's end": 1, "resampled": 1}
    assert info.events == {"validation": {"1": 1, "2": 1, "4": 1, "8": 1}}
    assert info.sources["labels"] == {"validation": "strong"}
    prepared = PreparedSet.open(tmp_path / "set")
    assert prepared.info == info
    assert prepared.events(0).offset.tolist() == [9.0, 1.0004, 1.3, 2.0]
    assert [len(values) for values in prepared.events(1)] == [0, 0, 0]
    assert prepared.labels[1].tolist() == []
