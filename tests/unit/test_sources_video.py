"""The layouts of sets cut from online videos: VGGSound, VoxCeleb1, Kinetics-Sounds."""

from __future__ import annotations

import csv
import gzip
import os
import subprocess
import wave
from pathlib import Path

import pytest

from c2ftool.data.prepare import Settings, prepare
from c2ftool.data.sources import find
from c2ftool.data.sources.listing import Listing
from c2ftool.errors import DataError, MissingError


def sounds(folder: Path, *names: str) -> None:
    """A tenth of a second of a tone under each name; the tone goes with the name's place."""
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(b"".join((2000 * (i % (place + 2))).to_bytes(2, "little") for i in range(800)))


def write(path: Path, *lines: str, end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())


def clips(listing: Listing) -> list[tuple[str, str, str, str]]:
    """(id, path, split, the one class) of each clip."""
    return [(clip.id, clip.path, clip.split, listing.classes[clip.labels[0]]) for clip in listing.clips]


# Lines of the test list of VGGSound's repository (CC BY 4.0), whose lines end as those of DOS.
VGG_TEST = [
    "2XQzahrQ_tE_000025.mp4,sea waves",
    "2XQzahrQ_tE_000075.mp4,sea waves",
    '0_8-g2rof7E_000049.mp4,"heart sounds, heartbeat"',
    '1PAb2MoavDc_000210.mp4,"bee, wasp, etc. buzzing"',
    "-Tok_g_jgE0_000268.mp4,rope skipping",
    "145N68nh4m0_000130.mp4,police car (siren)",
    "_jB-IM_77lI_000000.mp4,playing tennis",
    "si_IAMPOXlQ_000170.mp4,playing timpani",
    "s6ZrQ73zxdw_000131.mp4,playing tympani",
    "gEbqh2WEfKU_000156.mp4,train horning",
    "Bik1ZmiW7gI_008104.mp4,orchestra",
]
VGG_CLASSES = [
    "bee, wasp, etc. buzzing",
    "heart sounds, heartbeat",
    "orchestra",
    "playing tennis",
    "playing timpani",
    "playing tympani",
    "police car (siren)",
    "rope skipping",
    "sea waves",
    "train horning",
]


def whole_list(folder: Path, *more: str) -> None:
    """`vggsound.csv` with the clips of VGG_TEST, those of even places as training."""
    lines = []
    for place, (name, label) in enumerate(csv.reader(VGG_TEST)):
        label = f'"{label}"' if "," in label else label
        lines.append(f"{name[:11]},{int(name[12:18])},{label},{'test' if place % 2 else 'train'}")
    write(folder / "vggsound.csv", *lines, *more)


def test_vggsound_reads_the_whole_list(tmp_path: Path) -> None:
    whole_list(tmp_path)
    sounds(
        tmp_path,
        "Bik1ZmiW7gI_008104.wav",
        "deep/er/_jB-IM_77lI_000000.wav",
        "-Tok_g_jgE0_000268.wav",
        "1PAb2MoavDc_000210.wav",
        "gEbqh2WEfKU_000156.wav",
    )
    listing = find("vggsound", tmp_path)
    assert listing.classes == VGG_CLASSES
    assert clips(listing) == [
        ("-Tok_g_jgE0_000268", "-Tok_g_jgE0_000268.wav", "train", "rope skipping"),
        ("_jB-IM_77lI_000000", "deep/er/_jB-IM_77lI_000000.wav", "train", "playing tennis"),
        ("Bik1ZmiW7gI_008104", "Bik1ZmiW7gI_008104.wav", "train", "orchestra"),
        ("1PAb2MoavDc_000210", "1PAb2MoavDc_000210.wav", "test", "bee, wasp, etc. buzzing"),
        ("gEbqh2WEfKU_000156", "gEbqh2WEfKU_000156.wav", "test", "train horning"),
    ]
    assert [split for split, _ in listing.missing] == ["train"] * 3 + ["test"] * 3
    assert ("train", "2XQzahrQ_tE_000025") in listing.missing
    assert listing.train_splits == ("train",)
    notes = "\n".join(listing.notes)
    assert "vggsound.csv: 10 labels; VGGSound has 309" in notes
    assert "1 videos have clips in train and in test" in notes
    assert "5 of the 10 classes have no clip here: heart sounds, heartbeat; playing timpani;" in notes


def test_vggsound_reads_the_lists_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test.csv.gz").write_bytes(gzip.compress("".join(f"{line}\r\n" for line in VGG_TEST).encode()))
    sounds(tmp_path, "2XQzahrQ_tE_000025.wav", "2XQzahrQ_tE_000075.wav", "0_8-g2rof7E_000049.wav")
    listing = find("vggsound", tmp_path)
    assert listing.classes == VGG_CLASSES
    assert [(clip.id, clip.split) for clip in listing.clips] == [
        ("2XQzahrQ_tE_000025", "test"),
        ("2XQzahrQ_tE_000075", "test"),
        ("0_8-g2rof7E_000049", "test"),
    ]
    assert (listing.train_splits, listing.metadata_files) == (("test",), ["data/test.csv.gz"])
    assert "train.csv is not there" in listing.notes
    assert "there is no split train: the statistics are measured on test" in listing.notes

    write(tmp_path / "train.csv", "abcdefghijk_000001.mp4,sea waves")
    sounds(tmp_path, "abcdefghijk_000001.wav")
    listing = find("vggsound", tmp_path)
    assert [clip.split for clip in listing.clips] == ["train", "test", "test", "test"]
    assert listing.train_splits == ("train",)


def test_vggsound_prefers_the_folder_of_the_split_and_knows_trains(tmp_path: Path) -> None:
    write(tmp_path / "vggsound.csv", "gEbqh2WEfKU,156,train horning,train", "abcdefghijk,1,sea waves,test")
    name = "gEbqh2WEfKU_000156.wav"
    sounds(tmp_path, f"a/test/train horning/{name}", f"b/Train/train horning/{name}", "train/abcdefghijk_000001.wav")
    listing = find("vggsound", tmp_path)
    assert [clip.path for clip in listing.clips] == [f"b/Train/train horning/{name}", "train/abcdefghijk_000001.wav"]
    assert [clip.split for clip in listing.clips] == ["train", "test"]
    assert any("1 clips have several audio files" in note for note in listing.notes)


def test_vggsound_leaves_out_the_label_that_is_no_class(tmp_path: Path) -> None:
    whole_list(tmp_path, "abcdefghijk,7,extending ladders,train", "2XQzahrQ_tE,25,extending ladders,test")
    sounds(tmp_path, "2XQzahrQ_tE_000025.wav", "abcdefghijk_000007.wav")
    listing = find("vggsound", tmp_path)
    assert listing.classes == VGG_CLASSES
    assert [clip.id for clip in listing.clips] == ["2XQzahrQ_tE_000025"]
    assert any(note.startswith("2 clips labelled `extending ladders` were left out") for note in listing.notes)


def test_vggsound_reports_every_fault_of_its_list(tmp_path: Path) -> None:
    whole_list(
        tmp_path,
        "YouTube ID,start seconds,label,split",
        "short,1,sea waves,train",
        "abcdefghijk,1.5,sea waves,train",
        "abcdefghijk,1,bee, wasp, etc. buzzing,train",
        "abcdefghijk,1,sea waves,valid",
        "2XQzahrQ_tE,25,rope skipping,test",
    )
    with pytest.raises(DataError) as caught:
        find("vggsound", tmp_path)
    for part in (
        "6 faults",
        "vggsound.csv, line 12: expected `ID, start in seconds, label, train or test`, not 'YouTube ID,",
        "line 13",
        "line 14",
        "line 15",
        "line 16",
        "vggsound.csv, line 17: clip 2XQzahrQ_tE_000025 (rope skipping, test) stands already in vggsound.csv, line 1 "
        "(sea waves, train)",
    ):
        assert part in str(caught.value)


def test_a_clip_in_both_lists_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", VGG_TEST[0])
    write(tmp_path / "test.csv", VGG_TEST[0], "2XQzahrQ_tE_25.mp4,sea waves")
    with pytest.raises(DataError, match=r"2 faults(.|\n)*test\.csv, line 2(.|\n)*already in train\.csv, line 1"):
        find("vggsound", tmp_path)


@pytest.mark.parametrize("name", ["-Tok_g_jgE0_000268", "a folder/si_IAMPOXlQ_000170"])
def test_where_there_are_only_videos_the_message_extracts_them(tmp_path: Path, name: str) -> None:
    write(tmp_path / "test.csv", *VGG_TEST, end="\r\n")
    write(tmp_path / f"{name}.mp4", "a video")
    with pytest.raises(MissingError, match=r"none of the 11 clips(.|\n)*1 \.mp4 files: their audio must") as caught:
        find("vggsound", tmp_path)
    # the command that the message gives, with a converter that copies
    write(tmp_path / "bin/ffmpeg", "#!/bin/sh", 'test "$1 $2 $4 $5 $6" = "-nostdin -i -vn -ac 1" && cp "$3" "$7"')
    (tmp_path / "bin/ffmpeg").chmod(0o755)
    command = str(caught.value.cure).removeprefix("in that folder: ")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    assert [clip.path for clip in find("vggsound", tmp_path).clips] == [f"{name}.wav"]


def test_audio_under_other_names_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "test.csv", *VGG_TEST)
    sounds(tmp_path, "2XQzahrQ_tE_25.wav")
    with pytest.raises(MissingError, match=r"among 1 audio files \(the first is 2XQzahrQ_tE_25\.wav\)"):
        find("vggsound", tmp_path)


@pytest.mark.parametrize("layout", ["vggsound", "voxceleb1", "kinetics_sounds"])
def test_a_folder_of_another_kind(tmp_path: Path, layout: str) -> None:
    sounds(tmp_path, "dog/a.wav")
    with pytest.raises(MissingError, match=r"expected (.|\n)*found dog/(.|\n)*missing: "):
        find(layout, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(MissingError, match="no such folder; expected"):
        find(layout, tmp_path / "nowhere")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layout", "name"), [("vggsound", "vggsound.csv"), ("voxceleb1", "iden_split.txt"), ("kinetics_sounds", "test.csv")]
)
def test_an_empty_list_is_refused(tmp_path: Path, layout: str, name: str) -> None:
    write(tmp_path / name, "label,youtube_id,time_start,time_end" if layout == "kinetics_sounds" else "")
    with pytest.raises(DataError, match=r"there are no (clips|lines|rows)"):
        find(layout, tmp_path)  # type: ignore[arg-type]


IDEN = [
    "3 id10003/na8-QEFmj44/00003.wav",
    "1 id10003/tCq2LcKO6xY/00002.wav",
    "1 id10003/tCq2LcKO6xY/00010.wav",
    "2 id10001/-_bcdefghij/00001.wav",
    "1 id10001/1zcIwhmdeo4/00001.wav",
    "1 id10270/5r0dWxy17C8/00001.wav",
]


@pytest.mark.parametrize("places", [("wav/", "wav/"), ("", ""), ("dev/wav/", "test/wav/")])
def test_voxceleb1_splits_by_its_list_alone(tmp_path: Path, places: tuple[str, str]) -> None:
    write(tmp_path / "iden_split.txt", *IDEN)
    dev, test = places
    names = [line.split()[1] for line in IDEN]
    sounds(tmp_path, *(f"{dev}{name}" for name in names[:4]), f"{test}{names[5]}", f"{dev}id10003/other/00001.wav")
    listing = find("voxceleb1", tmp_path)
    assert listing.classes == ["id10001", "id10003", "id10270"]
    assert clips(listing) == [
        ("id10003/tCq2LcKO6xY/00002", f"{dev}{names[1]}", "train", "id10003"),
        ("id10003/tCq2LcKO6xY/00010", f"{dev}{names[2]}", "train", "id10003"),
        ("id10270/5r0dWxy17C8/00001", f"{test}{names[5]}", "train", "id10270"),
        ("id10001/-_bcdefghij/00001", f"{dev}{names[3]}", "valid", "id10001"),
        ("id10003/na8-QEFmj44/00003", f"{dev}{names[0]}", "test", "id10003"),
    ]
    assert listing.missing == [("train", "id10001/1zcIwhmdeo4/00001")]
    assert "1 audio files that iden_split.txt does not name were left out" in listing.notes
    assert "iden_split.txt: 3 speakers; VoxCeleb1 has 1,251" in listing.notes
    assert listing.metadata_files == ["iden_split.txt"]


def test_voxceleb1_leaves_out_m4a_and_says_what_is_gone(tmp_path: Path) -> None:
    write(tmp_path / "meta/iden_split.txt", *IDEN, end="\r\n")
    write(tmp_path / "vox1_meta.csv", "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet")
    write(tmp_path / "wav/id10270/5r0dWxy17C8/00001.m4a", "")
    with pytest.raises(MissingError, match=r"1 \.m4a files(.|\n)*-name '\*\.m4a'(.|\n)*\$\{0%\.m4a\}\.wav"):
        find("voxceleb1", tmp_path)
    sounds(tmp_path, "wav/id10003/tCq2LcKO6xY/00002.wav", "old/id10003/tCq2LcKO6xY/00002.wav")
    listing = find("voxceleb1", tmp_path)
    assert [clip.path for clip in listing.clips] == ["old/id10003/tCq2LcKO6xY/00002.wav"]
    assert listing.metadata_files == ["meta/iden_split.txt", "vox1_meta.csv"]
    assert listing.notes == [
        "not read: 1 .m4a (only .wav, .flac, .ogg, .mp3)",
        "none of the 1 clips of valid was found: there is no split valid",
        "none of the 1 clips of test was found: there is no split test",
        "1 clips have several audio files: the first by name was taken",
        "2 of the 3 classes have no clip here: id10001; id10270",
        "iden_split.txt: 3 speakers; VoxCeleb1 has 1,251",
    ]


def test_voxceleb1_reports_every_fault_of_its_list(tmp_path: Path) -> None:
    old = "1 A.J._Buckley/1zcIwhmdeo4/0000001.wav"
    write(tmp_path / "iden_split.txt", *IDEN, old, "4 id10003/na8-QEFmj44/00004.wav", "1 id10003/na8-QEFmj44/00003.wav")
    with pytest.raises(DataError) as caught:
        find("voxceleb1", tmp_path)
    for part in (
        "3 faults",
        "line 7: expected `1 id10001/VIDEO/00001.wav`",
        "line 8",
        "line 9: clip id10003/na8-QEFmj44/00003 (id10003, train) stands already in line 1 (id10003, test)",
        "first release has names",
    ):
        assert part in str(caught.value)


HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


def test_kinetics_sounds_from_one_table(tmp_path: Path) -> None:
    write(
        tmp_path / "kinetics_sounds.csv",
        HEADER,
        "tap dancing,-3B32lodo2M,59,69,val,0",
        '"playing drums",_dbcJuKJQNs,40,50,train,0',
        "singing,abcdefghijk,0,10,validate,0",
        "singing,abcdefghij1,5.0,15.0,test,0",
        "bowling,gonegonegon,1,11,train,0",
    )
    sounds(
        tmp_path,
        "val/tap dancing/-3B32lodo2M_000059_000069.wav",
        "train/-3B32lodo2M_000059_000069.wav",
        "_dbcJuKJQNs.wav",
        "abcdefghijk_000000_000010.wav",
        "abcdefghij1_000005_000015.wav",
    )
    listing = find("kinetics_sounds", tmp_path)
    assert listing.classes == ["bowling", "playing drums", "singing", "tap dancing"]
    assert clips(listing) == [
        ("_dbcJuKJQNs_000040_000050", "_dbcJuKJQNs.wav", "train", "playing drums"),
        ("-3B32lodo2M_000059_000069", "val/tap dancing/-3B32lodo2M_000059_000069.wav", "valid", "tap dancing"),
        ("abcdefghijk_000000_000010", "abcdefghijk_000000_000010.wav", "valid", "singing"),
        ("abcdefghij1_000005_000015", "abcdefghij1_000005_000015.wav", "test", "singing"),
    ]
    assert listing.missing == [("train", "gonegonegon_000001_000011")]
    assert listing.notes == [
        "4 classes, as kinetics_sounds.csv has them; the lists in use have 31 to 34",
        "1 files are named by the video alone and taken as they are: nothing is cut out of them",
        "1 clips have several audio files: one in a folder of the split "
        "(train/, val/, valid/, validate/, validation/, test/) was preferred",
        "1 of the 4 classes have no clip here: bowling",
    ]


def test_kinetics_sounds_from_a_table_for_each_split(tmp_path: Path) -> None:
    write(tmp_path / "annotations/train.csv", HEADER, "singing,abcdefghijk,0,10,train,0")
    write(tmp_path / "annotations/validate.csv", HEADER, "singing,abcdefghij1,0,10,validate,0")
    write(tmp_path / "annotations/test.csv", HEADER.removesuffix(",split,is_cc"), "bowling,abcdefghij2,0,10")
    sounds(tmp_path, *(f"abcdefghij{end}_000000_000010.wav" for end in "k12"))
    listing = find("kinetics_sounds", tmp_path)
    assert [(clip.id[:11], clip.split) for clip in listing.clips] == [
        ("abcdefghijk", "train"),
        ("abcdefghij1", "valid"),
        ("abcdefghij2", "test"),
    ]
    assert listing.metadata_files == [f"annotations/{name}.csv" for name in ("train", "validate", "test")]
    write(tmp_path / "kinetics_sounds.csv", HEADER, "singing,abcdefghij1,0,10,train,0")
    listing = find("kinetics_sounds", tmp_path)
    assert [(clip.id[:11], clip.split) for clip in listing.clips] == [("abcdefghij1", "train")]
    assert listing.notes[0] == "train.csv, validate.csv, test.csv not read: kinetics_sounds.csv is there"


def test_kinetics_sounds_reports_every_fault_of_its_tables(tmp_path: Path) -> None:
    write(
        tmp_path / "train.csv",
        HEADER,
        "singing,short,0,10,train,0",
        ",abcdefghijk,0,10,train,0",
        "singing,abcdefghijk,ten,10,train,0",
        "singing,abcdefghijk,10,10,train,0",
        "singing,abcdefghijk,0,10,val,0",
        "singing,abcdefghijk,0,10,holdout,0",
        "singing,abcdefghijk,0,10,train,0",
    )
    write(tmp_path / "val.csv", HEADER, "singing,abcdefghijk,0,10,val,0", "singing,abcdefghijk,20,30,val,0")
    sounds(tmp_path, "abcdefghijk.wav")
    with pytest.raises(DataError) as caught:
        find("kinetics_sounds", tmp_path)
    for part in (
        "8 faults",
        "train.csv, line 2: youtube_id 'short'",
        "train.csv, line 3: no label",
        "train.csv, line 4: time_start 'ten' is not a time in whole seconds",
        "train.csv, line 5: time_end 10 is not after time_start 10",
        "train.csv, line 6: split 'val' in train.csv",
        "train.csv, line 7: split 'holdout' is none of train, val,",
        "val.csv, line 2: clip abcdefghijk_000000_000010 (singing, valid) stands already in train.csv, line 8",
        "abcdefghijk.wav could be any of 2 clips of that video",
    ):
        assert part in str(caught.value)


def test_kinetics_sounds_needs_its_columns(tmp_path: Path) -> None:
    write(tmp_path / "kinetics_sounds.csv", HEADER.replace("split", "part"), "singing,abcdefghijk,0,10,train,0")
    with pytest.raises(DataError, match="no column split"):
        find("kinetics_sounds", tmp_path)


def test_vggsound_becomes_a_prepared_set(tmp_path: Path) -> None:
    whole_list(tmp_path / "source")
    sounds(tmp_path / "source", *(f"{line[:18]}.wav" for line in VGG_TEST[:4]))
    info = prepare(find("vggsound", tmp_path / "source"), tmp_path / "set", Settings(16_000, "wav"), jobs=1)
    assert info is not None
    assert (info.layout, info.splits, info.multi_label) == ("vggsound", {"train": 2, "test": 2}, False)
    assert info.classes == VGG_CLASSES
    assert info.counts == {"train": {"1": 1, "8": 1}, "test": {"0": 1, "8": 1}}
    assert (info.missing["count"], info.missing["splits"]) == (7, {"train": 4, "test": 3})
    assert list(info.sources["metadata"]) == ["vggsound.csv"]
