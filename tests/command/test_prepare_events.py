"""`c2f prepare` of sets with events, as users run it on audio of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from c2ftool.data.store import PreparedSet

HEADER = "filename\tonset\toffset\tevent_label"


def sound(path: Path, seconds: float, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(len(path.name)).normal(0, 0.1, round(seconds * rate)), rate)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    return path


def test_events_of_ones_own(tmp_path: Path, c2f) -> None:
    for name in ("one", "two", "quiet"):
        sound(tmp_path / f"yard/audio/{name}.wav", 2.0)
    table = write(
        tmp_path / "yard/yard.tsv",
        f"{HEADER}\tsplit",
        "one.wav\t0.25\t0.75\tDog\ttrain",
        "one.wav\t0.75\t1\tDog\ttrain",
        "one.wav\t1.5\t2.5\tWind, rustling\ttrain",
        "quiet.wav\t\t\t\ttrain",
        "two.wav\t1\t1.5\tDog\ttest",
    )
    root = {"C2F_DATA": str(tmp_path / "data")}
    done = c2f("prepare", "events", "--from", table, "--jobs", 1, env=root)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if "│" in line]
    assert ["clips", "2", "1"] in rows
    assert ["events", "2", "1"] in rows
    assert ["Wind, rustling", "1", "0"] in rows
    for line in (
        "handled: 1 events past their clip's end",
        "note: 1 of 4 events were merged with another of their class in the same clip, which they overlap or touch",
        "note: 1 clips have no events, kept",
    ):
        assert line in done.stdout
    prepared = PreparedSet.open(tmp_path / "data/yard")
    assert (prepared.ids, prepared.info.classes) == (["one", "quiet", "two"], ["Dog", "Wind, rustling"])
    assert [values.tolist() for values in prepared.events(0)] == [[0.25, 1.5], [1.0, 2.5], [0, 1]]
    assert prepared.info.events == {"train": {"0": 1, "1": 1}, "test": {"0": 1}}
    assert prepared.info.sources["labels"] == {"train": "strong", "test": "strong"}


def test_desed_with_strong_and_weak_clips(tmp_path: Path, c2f) -> None:
    dataset = tmp_path / "dcase/dataset"
    write(
        dataset / "metadata/train/synthetic21_train/soundscapes.tsv",
        HEADER,
        "0.wav\t0.1\t0.9\tSpeech",
        "1.wav\t0\t1\tCat",
    )
    write(dataset / "metadata/train/weak.tsv", "filename\tevent_labels", "Ya_0.000_10.000.wav\tCat,Speech")
    write(dataset / "metadata/validation/validation.tsv", HEADER, "Yb_0.000_10.000.wav\t0\t1\tFrying")
    for name in ("train/synthetic21_train/soundscapes/0", "train/weak/Ya_0.000_10.000"):
        sound(dataset / f"audio/{name}.wav", 1.0)
    sound(dataset / "audio/validation/validation/Yb_0.000_10.000.wav", 1.0, 44_100)
    root = {"C2F_DATA": str(tmp_path / "data")}
    done = c2f("prepare", "desed", "--from", tmp_path / "dcase", "--jobs", 1, "--json", env=root)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["splits"] == {"synthetic": 1, "weak": 1, "validation": 1}
    assert summary["events"] == {"synthetic": {"8": 1}, "validation": {"6": 1}}
    assert summary["missing"] == {"count": 1, "splits": {"synthetic": 1}, "first": ["synthetic21_train/1"]}
    assert summary["measured"] == ["synthetic", "weak"]
    assert summary["sources"]["labels"] == {"synthetic": "strong", "weak": "weak", "validation": "strong"}
    prepared = PreparedSet.open(tmp_path / "data/desed")
    assert prepared.ids == ["synthetic21_train/0", "Ya_0.000_10.000", "Yb_0.000_10.000"]
    assert [labels.tolist() for labels in prepared.labels] == [[8], [2, 8], [6]]


@pytest.mark.parametrize(
    ("layout", "lines", "message"),
    [
        ("events", (HEADER, "one.wav\t2\t1\tDog", "gone.wav\t0\t1\tDog"), "2 faults"),
        ("events", ("file\tonset", "one.wav\t0"), "no column filename, offset, event_label"),
        ("desed", (HEADER,), "not in the layout of DESED"),
        ("audioset_strong", (HEADER,), "not in the layout of AudioSet Strong"),
        ("maestro", (HEADER,), "labelvocabulary.csv"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_written(
    tmp_path: Path, c2f, layout: str, lines: tuple[str, ...], message: str
) -> None:
    sound(tmp_path / "in/one.wav", 1.0)
    write(tmp_path / "in/x.tsv", *lines)
    done = c2f("prepare", layout, "--from", tmp_path / "in", env={"C2F_DATA": str(tmp_path / "data")})
    assert (done.returncode, message in done.stderr) == (3, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
