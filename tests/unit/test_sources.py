"""What each layout lists, and what it says of folders that are not in it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from c2ftool.data.sources import find
from c2ftool.data.sources.audioset import file_id
from c2ftool.errors import DataError, MissingError


def place(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def esc50(folder: Path, *rows: str) -> None:
    place(folder, "meta/esc50.csv")
    (folder / "meta/esc50.csv").write_text("\n".join(["filename,fold,target,category,esc10,src_file,take", *rows]))


def test_esc50_numbers_classes_by_target_without_gaps(tmp_path: Path) -> None:
    esc50(tmp_path, "b.wav,1,41,chainsaw,True,1,A", "a.wav,2,0,dog,True,2,A", "c.wav,5,12,fire,True,3,A")
    place(tmp_path, "audio/a.wav", "audio/b.flac", "audio/c.ogg", "audio/unused.wav")
    listing = find("esc50", tmp_path)
    assert listing.classes == ["dog", "fire", "chainsaw"]
    assert [(clip.id, clip.path, clip.split, clip.fold, clip.labels) for clip in listing.clips] == [
        ("b", "audio/b.flac", "train", 1, (2,)),
        ("a", "audio/a.wav", "train", 2, (0,)),
        ("c", "audio/c.ogg", "train", 5, (1,)),
    ]
    assert listing.notes == ["1 audio files that meta/esc50.csv does not name were left out"]


def test_esc50_counts_missing_clips_and_stops_where_none_is_there(tmp_path: Path) -> None:
    esc50(tmp_path, "a.wav,1,0,dog,True,1,A", "b.wav,2,0,dog,True,2,A")
    place(tmp_path, "audio/a.wav")
    assert find("esc50", tmp_path).missing == [("train", "b")]
    (tmp_path / "audio/a.wav").unlink()
    with pytest.raises(MissingError, match="none of the 2 clips"):
        find("esc50", tmp_path)


def test_esc50_reports_all_faults_of_its_table(tmp_path: Path) -> None:
    esc50(
        tmp_path, "a.wav,0,0,dog,True,1,A", "b.wav,1,x,dog,True,2,A", "c.wav,1,0,cat,True,3,A", "c.wav,1,0,cat,True,3,A"
    )
    place(tmp_path, "audio/a.wav")
    with pytest.raises(DataError) as caught:
        find("esc50", tmp_path)
    for part in ("line 2: fold '0'", "line 3: target 'x'", "clip c stands there more than once"):
        assert part in str(caught.value)


def test_the_wrong_layout_names_what_was_expected_and_found(tmp_path: Path) -> None:
    place(tmp_path, "dog/a.wav", "readme.txt")
    with pytest.raises(MissingError, match=r"meta/esc50\.csv(.|\n)*found dog/, readme\.txt"):
        find("esc50", tmp_path)
    with pytest.raises(MissingError, match=r"(.|\n)*missing: validation_list\.txt, testing_list\.txt"):
        find("speech_commands", tmp_path)
    with pytest.raises(MissingError, match=r"class_labels_indices\.csv"):
        find("audioset", tmp_path)
    with pytest.raises(MissingError, match="no table here"):
        find("csv", tmp_path)
    with pytest.raises(MissingError, match="no such folder"):
        find("folder", tmp_path / "nowhere")


def test_speech_commands_splits_by_its_lists(tmp_path: Path) -> None:
    place(tmp_path, "yes/a.wav", "yes/b.wav", "no/a.wav", "no/c.wav", "_background_noise_/n.wav", "LICENSE")
    (tmp_path / "validation_list.txt").write_text("yes/b.wav\nyes/gone.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/c.wav\n")
    listing = find("speech_commands", tmp_path)
    assert listing.classes == ["no", "yes"]
    assert [(clip.id, clip.split, clip.labels) for clip in listing.clips] == [
        ("no/a", "train", (0,)),
        ("yes/a", "train", (1,)),
        ("yes/b", "valid", (1,)),
        ("no/c", "test", (0,)),
    ]
    assert listing.missing == [("valid", "yes/gone.wav")]


def test_speech_commands_refuses_a_clip_in_both_lists(tmp_path: Path) -> None:
    place(tmp_path, "yes/a.wav")
    for name in ("validation_list.txt", "testing_list.txt"):
        (tmp_path / name).write_text("yes/a.wav\n")
    with pytest.raises(DataError, match="both lists"):
        find("speech_commands", tmp_path)


AUDIOSET_ROWS = [
    "# Segments csv created Sun Mar  5 10:54:31 2017",
    "# num_ytids=4, num_segs=4, num_unique_labels=2, num_positive_labels=5",
    "# YTID, start_seconds, end_seconds, positive_labels",
    '--4gqARaEJE, 0.000, 10.000, "/m/b,/m/a"',
    '_abcdefghij, 30.000, 40.000, "/m/a"',
    'Yabcdefghij, 1.500, 11.500, "/m/b"',
    'gonegonegon, 0.000, 10.000, "/m/b"',
]


def audioset(folder: Path) -> None:
    index = 'index,mid,display_name\n0,/m/a,"Male speech, man speaking"\n1,/m/b,Dog\n'
    (folder / "class_labels_indices.csv").write_text(index)
    with gzip.open(folder / "eval_segments.csv.gz", "wt") as file:
        file.write("\n".join(AUDIOSET_ROWS))


def test_audioset_finds_the_names_that_audio_comes_under(tmp_path: Path) -> None:
    audioset(tmp_path)
    place(tmp_path, "eval/Y--4gqARaEJE.wav", "_abcdefghij_30000.flac", "Yabcdefghij.mp3", "Yabcdefghij_9000.wav")
    listing = find("audioset", tmp_path)
    assert listing.classes == ["Male speech, man speaking", "Dog"]
    assert [(clip.id, clip.path, clip.split, clip.labels) for clip in listing.clips] == [
        ("--4gqARaEJE", "eval/Y--4gqARaEJE.wav", "eval", (0, 1)),
        ("_abcdefghij", "_abcdefghij_30000.flac", "eval", (0,)),
        ("Yabcdefghij", "Yabcdefghij.mp3", "eval", (1,)),
    ]
    assert listing.missing == [("eval", "gonegonegon")]
    assert listing.train_splits == ("eval",)


def test_audioset_prefers_the_folder_of_the_split(tmp_path: Path) -> None:
    audioset(tmp_path)
    rows = "\n".join([*AUDIOSET_ROWS[:3], '--4gqARaEJE, 0.000, 10.000, "/m/b"'])
    (tmp_path / "eval_segments.csv.gz").unlink()
    (tmp_path / "balanced_train_segments.csv").write_text(rows)
    place(tmp_path, "audio/unbalanced_train/Y--4gqARaEJE.wav", "audio/zz_balanced_train/--4gqARaEJE.wav")
    listing = find("audioset", tmp_path)
    assert [clip.path for clip in listing.clips] == ["audio/zz_balanced_train/--4gqARaEJE.wav"]
    assert listing.train_splits == ("balanced",)


def test_audioset_without_audio_says_what_it_looked_for(tmp_path: Path) -> None:
    audioset(tmp_path)
    with pytest.raises(MissingError, match=r"none of the 4 clips(.|\n)*ID_STARTMS\.flac"):
        find("audioset", tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("abcdefghijk", ("abcdefghijk", None)),
        ("-bcdefghijk", ("-bcdefghijk", None)),
        ("Yabcdefghij", ("Yabcdefghij", None)),
        ("Y_bcdefghijk", ("_bcdefghijk", None)),
        ("YYabcdefghij", ("Yabcdefghij", None)),
        ("abc_efghi_k_30000", ("abc_efghi_k", 30000)),
        ("Yabcdefghijk_0", ("abcdefghijk", 0)),
        ("abc", None),
    ],
)
def test_audioset_file_names(name: str, expected: tuple[str, int | None] | None) -> None:
    assert file_id(f"some/where/{name}.wav") == expected


def test_folder_takes_a_class_from_each_folder(tmp_path: Path) -> None:
    place(tmp_path, "dog/a.wav", "cat/deep/b.flac", "cat/c.m4a", "loose.wav", ".hidden/x.wav")
    listing = find("folder", tmp_path)
    assert [(clip.id, clip.split, clip.labels) for clip in listing.clips] == [
        ("cat/deep/b", "train", (0,)),
        ("dog/a", "train", (1,)),
    ]
    assert listing.classes == ["cat", "dog"]
    assert any("1 .m4a" in note for note in listing.notes)
    assert any("1 audio files outside" in note for note in listing.notes)


def test_folder_with_split_folders(tmp_path: Path) -> None:
    place(tmp_path, "test/dog/a.wav", "train/dog/b.wav", "valid/cat/c.wav")
    listing = find("folder", tmp_path)
    assert [(clip.path, clip.split) for clip in listing.clips] == [
        ("train/dog/b.wav", "train"),
        ("valid/cat/c.wav", "valid"),
        ("test/dog/a.wav", "test"),
    ]
    assert listing.notes == ["class cat has no clip in train"]
    place(tmp_path, "extra/dog/d.wav")
    with pytest.raises(DataError, match="beside others"):
        find("folder", tmp_path)


def test_csv_with_several_labels_and_parts_of_files(tmp_path: Path) -> None:
    place(tmp_path, "my files/a b.wav", "c.wav")
    (tmp_path / "clips.csv").write_text(
        'path,labels,split,start,stop\nmy files/a b.wav,dog;cat,train,,\nc.wav,"cat, dog",test,1.5,2\nc.wav,,test,0,1\n'
    )
    listing = find("csv", tmp_path)
    assert listing.classes == ["cat", "dog"]
    assert [(clip.id, clip.split, clip.labels, clip.start, clip.stop) for clip in listing.clips] == [
        ("my files/a b", "train", (0, 1), None, None),
        ("c@1.5-2", "test", (0, 1), 1.5, 2.0),
        ("c@0-1", "test", (), 0.0, 1.0),
    ]


def test_csv_with_folds_and_numbered_classes(tmp_path: Path) -> None:
    place(tmp_path, "a.wav", "b.wav")
    (tmp_path / "clips.tsv").write_text("path\tlabel\tfold\na.wav\t10\t1\nb.wav\t9\t2\n")
    listing = find("csv", tmp_path / "clips.tsv")
    assert listing.classes == ["9", "10"]
    assert [(clip.fold, clip.labels) for clip in listing.clips] == [(1, (1,)), (2, (0,))]
    assert any("no column split" in note for note in listing.notes)


def test_csv_reports_every_fault_at_once(tmp_path: Path) -> None:
    place(tmp_path, "a.wav")
    (tmp_path / "clips.csv").write_text(
        "path,label,split,start,stop\na.wav,dog,,,\ngone.wav,dog,train,,\na.wav,,train,,\na.wav,dog,train,2,1\n,dog,train,x,\n"
    )
    with pytest.raises(DataError) as caught:
        find("csv", tmp_path)
    for part in (
        "6 faults",
        "line 2: no split",
        "line 3: no such file: gone.wav",
        "line 4: no label",
        "line 5: stop 1.0 is not after start 2.0",
        "line 6: no path",
        "line 6: start 'x'",
    ):
        assert part in str(caught.value)


def test_csv_needs_its_columns(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file,class\na.wav,dog\n")
    with pytest.raises(DataError, match="no column path, label or labels"):
        find("csv", tmp_path)


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_bytes(b"\xff\xfe\x00p\x00a")
    with pytest.raises(DataError, match="not a UTF-8 text file"):
        find("csv", tmp_path)
