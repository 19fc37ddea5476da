"""DESED: where its splits, tables and audio are found, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from c2ftool.data.sources import find
from c2ftool.data.sources.desed import CLASSES
from c2ftool.errors import DataError, MissingError

STRONG = "filename\tonset\toffset\tevent_label"
WEAK = "filename\tevent_labels"


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))


def place(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def desed(folder: Path) -> None:
    write(
        folder / "metadata/train/synthetic21_train/soundscapes.tsv",
        STRONG,
        "1.wav\t0.5\t2\tDog",
        "0.wav\t0\t1\tSpeech",
        "0.wav\t1\t3\tSpeech",
    )
    write(folder / "metadata/train/synthetic20.tsv", STRONG, "0.jams\t0\t1\tCat")
    write(folder / "metadata/train/weak.tsv", WEAK, "Yaaaaaaaaaaa_30.000_40.000.wav\tSpeech,Dog", "Yb.wav\tCat")
    write(folder / "metadata/train/unlabel_in_domain.tsv", "filename", "Yc.wav")
    write(
        folder / "metadata/train/audioset_strong.tsv",
        STRONG,
        "Yb.wav\t0\t1\tCat",
        "Yppppppppppp_120.000_130.000.wav\t0\t1\tDog",
        "Yvvvvvvvvvvv_0.000_10.000.wav\t0\t1\tDog",
    )
    write(
        folder / "metadata/validation/validation.tsv",
        STRONG,
        "Yvvvvvvvvvvv_0.000_10.000.wav\t\t\t",
        "Yd.wav\t0\t10\tFrying",
    )
    write(folder / "metadata/validation/synthetic20/soundscapes.tsv", STRONG, "0.wav\t1\t2\tBlender")
    write(folder / "metadata/eval/public.tsv", STRONG, "ppppppppppp_120_130.wav\t0\t1\tDog")
    place(
        folder,
        "audio/train/synthetic21_train/soundscapes/0.wav",
        "audio/train/synthetic21_train/soundscapes/0_events/1.wav",  # an event by itself, as Scaper saves it
        "audio/train/synthetic21_train/soundscapes_16k/0.wav",
        "audio/train/synthetic21_train/soundscapes_16k/1.wav",
        "audio/train/synthetic20/0.wav",
        "audio/train/weak_16k/Yaaaaaaaaaaa_30.000_40.000.wav",
        "audio/train/weak/Yb.flac",
        "audio/train/strong_label_real/Yb.wav",
        "audio/train/strong_label_real/Yppppppppppp_120.000_130.000.wav",
        "audio/validation/validation/Yvvvvvvvvvvv_0.000_10.000.wav",
        "audio/validation/synthetic20/soundscapes/0.wav",
        "audio/eval/public/ppppppppppp_120_130.wav",
    )


def test_desed_lists_its_splits(tmp_path: Path) -> None:
    desed(tmp_path / "data/dataset")
    listing = find("desed", tmp_path / "data")
    assert listing.classes == CLASSES
    assert [
        (clip.split, clip.id, clip.path.removeprefix("dataset/audio/"), [CLASSES[label] for label in clip.labels])
        for clip in listing.clips
    ] == [
        ("synthetic", "synthetic20/0", "train/synthetic20/0.wav", ["Cat"]),
        ("synthetic", "synthetic21_train/1", "train/synthetic21_train/soundscapes_16k/1.wav", ["Dog"]),
        ("synthetic", "synthetic21_train/0", "train/synthetic21_train/soundscapes/0.wav", ["Speech"]),
        ("weak", "Yaaaaaaaaaaa_30.000_40.000", "train/weak_16k/Yaaaaaaaaaaa_30.000_40.000.wav", ["Dog", "Speech"]),
        ("weak", "Yb", "train/weak/Yb.flac", ["Cat"]),
        ("real", "real/Yb", "train/strong_label_real/Yb.wav", ["Cat"]),
        ("synthetic_validation", "synthetic20_validation/0", "validation/synthetic20/soundscapes/0.wav", ["Blender"]),
        ("validation", "Yvvvvvvvvvvv_0.000_10.000", "validation/validation/Yvvvvvvvvvvv_0.000_10.000.wav", []),
        ("public", "ppppppppppp_120_130", "eval/public/ppppppppppp_120_130.wav", ["Dog"]),
    ]
    assert [len(clip.events) for clip in listing.clips] == [1, 1, 1, 0, 0, 1, 1, 0, 1]
    assert listing.train_splits == ("synthetic", "weak", "real")
    assert listing.missing == [("validation", "Yd")]
    assert listing.extra["labels"] == {
        split: "weak" if split == "weak" else "strong"
        for split in ("synthetic", "weak", "real", "synthetic_validation", "validation", "public")
    }
    assert listing.extra["left_out"] == {"real": ["Yppppppppppp_120.000_130.000", "Yvvvvvvvvvvv_0.000_10.000"]}
    assert listing.notes == [
        "1 of 10 events were merged with another of their class in the same clip, which they overlap or touch",
        "validation: 1 clips without events, kept",
        "2 clips of real are also in the tables of validation or public: left out of real",
        "1 clips are in weak and in real, with labels of either kind",
        "not read: dataset/metadata/train/unlabel_in_domain.tsv",
    ]


def test_desed_reads_pairs_of_metadata_and_audio_together(tmp_path: Path) -> None:
    synthetic = tmp_path / "dataset/dcase_synth"
    write(synthetic / "metadata/train/synthetic21_train/soundscapes.tsv", STRONG, "0.wav\t0\t1\tDog")
    place(synthetic, "audio/train/synthetic21_train/soundscapes/0.wav")
    write(tmp_path / "dataset/metadata/validation/validation.csv", STRONG, "a.wav\t0\t1\tDog")
    place(tmp_path / "dataset", "audio/validation/a.wav")
    listing = find("desed", tmp_path / "dataset")
    assert [(clip.id, clip.path) for clip in listing.clips] == [
        ("synthetic21_train/0", "dcase_synth/audio/train/synthetic21_train/soundscapes/0.wav"),
        ("a", "audio/validation/a.wav"),
    ]
    write(synthetic / "metadata/validation/validation.tsv", STRONG, "b.wav\t0\t1\tDog")
    with pytest.raises(
        DataError, match=r"several tables of validation: metadata/validation/validation\.csv, dcase_synth/"
    ):
        find("desed", tmp_path / "dataset")


def test_desed_reports_every_fault_of_its_tables(tmp_path: Path) -> None:
    write(
        tmp_path / "metadata/train/weak.tsv", WEAK, "a.wav\tDog,Dgo", "a.wav\tDog", "b.wav\tDog", "b.wav\tCat", "\tDog"
    )
    write(
        tmp_path / "metadata/validation/validation.tsv",
        STRONG,
        "a.wav\t0\t1\t",
        "a.wav\t1\t0\tDog",
        "a.wav\t\t1\tSpeach",
    )
    with pytest.raises(DataError) as caught:
        find("desed", tmp_path)
    for part in (
        "7 faults",
        "metadata/train/weak.tsv, line 2: 'Dgo' is none of the ten classes",
        "metadata/train/weak.tsv, line 5: clip b stands there more than once",
        "metadata/train/weak.tsv, line 6: no filename",
        "metadata/validation/validation.tsv, line 2: no event_label",
        "metadata/validation/validation.tsv, line 3: offset 0 is before onset 1",
        "metadata/validation/validation.tsv, line 4: onset '' is not a time in seconds",
        "metadata/validation/validation.tsv, line 4: 'Speach' is none of the ten classes",
    ):
        assert part in str(caught.value)


def test_desed_says_where_it_looked(tmp_path: Path) -> None:
    write(tmp_path / "metadata/eval/500ms.tsv", STRONG)
    with pytest.raises(
        MissingError, match=r"train/weak\.tsv(.|\n)*found metadata/; tables there: metadata/eval/500ms\.tsv"
    ):
        find("desed", tmp_path)
    write(tmp_path / "metadata/train/weak.tsv", WEAK, "a.wav\tDog")
    place(tmp_path, "audio/weak/a.wav")
    with pytest.raises(MissingError, match=r"none of the 1 clips of metadata/train/weak\.tsv is in audio/train/weak\n"):
        find("desed", tmp_path)
