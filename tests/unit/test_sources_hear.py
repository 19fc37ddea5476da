"""The event detection tasks of HEAR: DCASE 2016 task 2 and MAESTRO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from c2ftool.data.sources import find
from c2ftool.errors import DataError, MissingError


def event(label: Any, start: Any, end: Any) -> dict[str, Any]:
    return {"label": label, "start": start, "end": end}


def task(folder: Path, labels: list[str], **files: Any) -> None:
    """A task's folder: the vocabulary, stored in another order than its numbers, and the JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f'{number},"{label}"' for number, label in enumerate(labels)]
    (folder / "labelvocabulary.csv").write_text("\n".join(["idx,label", *reversed(rows)]))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))


def place(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def office(folder: Path) -> None:
    task(
        folder,
        ["speech", "phone, ringing", "knock"],
        train={
            "dev_1_ebr_-6_nec_1_poly_0.wav": [
                event("knock", 500.0, 1250.5),
                event("speech", 0, 119999.9),
                event("knock", 1250.5, 1300),
            ]
        },
        valid={"v.wav": []},
        test={"t.wav": [event("phone, ringing", 2000, 2000)], "gone.wav": [event("knock", 1, 2)]},
    )


def test_dcase2016_lists_events_in_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "hear-2021.0.6/tasks/dcase2016_task2-hear2021-full"
    office(folder)
    place(folder, "16000/train/dev_1_ebr_-6_nec_1_poly_0.wav", "16000/valid/v.flac", "16000/test/t.wav")
    place(folder, "16000/train/silent.wav", "48000/train/dev_1_ebr_-6_nec_1_poly_0.wav")
    listing = find("dcase2016_task2", tmp_path)
    assert listing.folder == folder
    assert listing.classes == ["speech", "phone, ringing", "knock"]
    assert [
        (clip.id, clip.path, clip.split, clip.fold, clip.labels, [tuple(vars(item).values()) for item in clip.events])
        for clip in listing.clips
    ] == [
        (
            "dev_1_ebr_-6_nec_1_poly_0",
            "16000/train/dev_1_ebr_-6_nec_1_poly_0.wav",
            "train",
            0,
            (0, 2),
            [(0.0, 119.9999, 0), (0.5, 1.3, 2)],
        ),
        ("v", "16000/valid/v.flac", "valid", 0, (), []),
        ("t", "16000/test/t.wav", "test", 0, (1,), [(2.0, 2.0, 1)]),
    ]
    assert (listing.missing, listing.train_splits) == ([("test", "gone")], ("train",))
    assert listing.extra == {"labels": {"train": "strong", "valid": "strong", "test": "strong"}}
    assert listing.notes == [
        "the audio of 16000/ is read, not that of 48000/",
        "1 audio files that the JSON files do not name were left out",
        "labelvocabulary.csv: 3 classes; dcase2016_task2 has 11",
        "1 of 5 events were merged with another of their class in the same clip, which they overlap or touch",
        "1 events have no length: they are kept (one frame each, none on a frame border)",
    ]


@pytest.mark.parametrize(
    ("rate", "read"), [(8_000, "16000"), (16_000, "16000"), (32_000, "44100"), (44_100, "44100"), (96_000, "48000")]
)
def test_audio_of_the_sets_rate_or_the_next_higher_is_read(tmp_path: Path, rate: int, read: str) -> None:
    office(tmp_path)
    place(tmp_path, *(f"{number}/test/t.wav" for number in (16_000, 44_100, 48_000)))
    (tmp_path / "96000").mkdir()
    assert [clip.path for clip in find("dcase2016_task2", tmp_path, rate).clips] == [f"{read}/test/t.wav"]


def test_maestro_has_folds_and_keys(tmp_path: Path) -> None:
    keys = [str(key) for key in range(21, 109)]
    folds = {f"fold{number:02d}": {f"p{number}.wav": [event(21 + number, 0.0, 500.0)]} for number in range(5)}
    folds["fold03"] = {"p3.wav": [event(108.0, 100.0, 90000.0), event("60", 1, 2)]}
    task(tmp_path, keys, **folds)
    place(tmp_path, *(f"16000/fold{number:02d}/p{number}.wav" for number in range(5)))
    listing = find("maestro", tmp_path)
    assert listing.classes == keys
    assert [(clip.id, clip.split, clip.fold, clip.labels) for clip in listing.clips] == [
        ("p0", "train", 1, (0,)),
        ("p1", "train", 2, (1,)),
        ("p2", "train", 3, (2,)),
        ("p3", "train", 4, (39, 87)),
        ("p4", "train", 5, (4,)),
    ]
    assert (listing.notes, listing.train_splits) == ([], ("train",))
    (tmp_path / "fold04.json").unlink()
    assert find("maestro", tmp_path).notes[0] == "4 folds: fold00, fold01, fold02, fold03; MAESTRO in HEAR has 5"


def test_every_fault_of_the_json_files_is_reported(tmp_path: Path) -> None:
    task(
        tmp_path,
        ["knock"],
        train={
            "a.wav": [event("knok", 0, 1), event("knock", -1, "x"), event("knock", 2, 1), event("knock", True, None)],
            "b.wav": ["knock"],
            "c.wav": "knock",
            "c.flac": [],
        },
        valid='{"a.wav": [], "d.wav": [], "d.wav": [{"label": "knock", "start": NaN, "end": 1}]}',
        test=[],
    )
    with pytest.raises(DataError) as caught:
        find("dcase2016_task2", tmp_path)
    for part in (
        "12 faults",
        "train.json: clip c stands there more than once",
        "train.json, a.wav, event 1 (ms): label 'knok' is not in labelvocabulary.csv",
        "train.json, a.wav, event 2 (ms): onset -1 is before the start of the clip",
        "train.json, a.wav, event 2 (ms): offset 'x' is not a time in seconds",
        "train.json, a.wav, event 3 (ms): offset 1 is before onset 2",
        "train.json, a.wav, event 4 (ms): onset 'true' is not a time",
        "train.json, a.wav, event 4 (ms): offset 'null' is not a time",
        "train.json, b.wav, event 1: expected label, start and end, not knock",
        "train.json, c.wav: expected a list of events, not knock",
        "valid.json: 'd.wav' stands there more than once",
        "valid.json, d.wav, event 1 (ms): onset 'NaN' is not a time",
        "test.json: expected file names with their events",
    ):
        assert part in str(caught.value)


def test_a_clip_of_two_splits_is_refused(tmp_path: Path) -> None:
    task(tmp_path, ["knock"], train={"a.wav": []}, test={"a.wav": []})
    with pytest.raises(DataError, match="clip a is in several JSON files"):
        find("dcase2016_task2", tmp_path)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("0,a\n2,b", r"the numbers are not 0 \.\. 1"),
        ("0,a\n0,b", "idx '0' is no number, or stands there more than once"),
        ("0,a\n1,a", "label 'a' stands there more than once"),
        ("0,", "line 2: no label"),
        ("", "no rows under the header"),
    ],
)
def test_a_vocabulary_must_number_its_labels(tmp_path: Path, rows: str, fault: str) -> None:
    task(tmp_path, [], train={})
    (tmp_path / "labelvocabulary.csv").write_text(f"idx,label\n{rows}\n")
    with pytest.raises(DataError, match=fault):
        find("dcase2016_task2", tmp_path)


def test_another_folder_names_what_was_expected_and_found(tmp_path: Path) -> None:
    task(tmp_path / "tasks/esc50-v2.0.0-full", ["dog"])
    with pytest.raises(MissingError, match=r"labelvocabulary\.csv(.|\n)*found tasks/; tasks there: tasks/esc50-v2\.0"):
        find("dcase2016_task2", tmp_path)
    with pytest.raises(MissingError, match=r"expected fold00\.json(.|\n)*missing: the folds' JSON files"):
        find("maestro", tmp_path / "tasks/esc50-v2.0.0-full")
    office(tmp_path / "a/dcase2016_task2-hear2021-full")
    office(tmp_path / "b/dcase2016_task2-hear2021-small")
    with pytest.raises(DataError, match=r"several folders of the task: a/dcase2016_task2-hear2021-full, b/"):
        find("dcase2016_task2", tmp_path)
    place(tmp_path, "a/dcase2016_task2-hear2021-full/16000/train/x.wav")
    with pytest.raises(
        MissingError, match=r"none of the 4 clips of train\.json, valid\.json, test\.json is in 16000/train/"
    ):
        find("dcase2016_task2", tmp_path / "a")
    (tmp_path / "a/dcase2016_task2-hear2021-full/train.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        find("dcase2016_task2", tmp_path / "a")
