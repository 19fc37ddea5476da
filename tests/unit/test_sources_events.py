"""One's own tables of events: where files are found, what is refused, and which clips come out of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.data.sources import find
from c2ftool.data.sources.listing import Listing
from c2ftool.errors import DataError, MissingError

HEADER = "filename\tonset\toffset\tevent_label"


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    return path


def place(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def shown(listing: Listing) -> list[tuple]:
    return [
        (clip.id, clip.path, clip.split, [listing.classes[label] for label in clip.labels], len(clip.events))
        for clip in listing.clips
    ]


def test_one_table_with_splits_and_folds(tmp_path: Path) -> None:
    table = write(
        tmp_path / "clips.tsv",
        "split\tevent_label\tfilename\tonset\toffset\tfold\tremark",
        "test\tDog\tb.wav\t0\t1\t2\tloud",
        "train\tCat\tsub/a.wav\t1.5\t2\t1",
        "test\tCat\tb.wav\t0.5\t1\t2",
        "train\t\tquiet\t\t\t1",
    )
    place(tmp_path, "b.wav", "sub/a.wav", "quiet.flac", "audio/b.wav")
    for source in (table, tmp_path):
        listing = find("events", source)
        assert shown(listing) == [
            ("sub/a", "sub/a.wav", "train", ["Cat"], 1),
            ("quiet", "quiet.flac", "train", [], 0),
            ("b", "b.wav", "test", ["Cat", "Dog"], 2),
        ]
        assert [clip.fold for clip in listing.clips] == [1, 1, 2]
        assert [tuple(vars(event).values()) for event in listing.clips[2].events] == [(0.0, 1.0, 1), (0.5, 1.0, 0)]
        assert (listing.classes, listing.train_splits) == (["Cat", "Dog"], ("train",))
        assert listing.notes == ["1 clips have no events, kept"]
        assert listing.extra == {"labels": {"test": "strong", "train": "strong"}}
        assert listing.metadata_files == ["clips.tsv"]


def test_several_tables_are_splits_with_audio_in_folders_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "metadata/train.tsv", HEADER, "0.wav\t0\t1\tDog", "only.wav\t0\t1\tDog")
    write(tmp_path / "metadata/test.tsv", HEADER, "0.wav\t0\t1\tCat")
    write(tmp_path / "metadata/durations.tsv", "filename\tduration", "0.wav\t10")
    write(tmp_path / "metadata/classes.txt", "Dog", "Cat", "", "Owl")
    place(
        tmp_path, "audio/train/0.wav", "audio/only.wav", "weak/1.wav", "2.wav", "audio/test/0.wav", "audio/weak/3.ogg"
    )
    write(tmp_path / "metadata/weak.csv", "filename,event_labels", '1.mp3,"Dog, Cat"', "2.wav,", "3,Cat")
    listing = find("events", tmp_path)
    assert shown(listing) == [
        ("train/0", "audio/train/0.wav", "train", ["Dog"], 1),
        ("train/only", "audio/only.wav", "train", ["Dog"], 1),
        ("test/0", "audio/test/0.wav", "test", ["Cat"], 1),
        ("weak/1", "weak/1.wav", "weak", ["Dog", "Cat"], 0),
        ("weak/2", "2.wav", "weak", [], 0),
        ("weak/3", "audio/weak/3.ogg", "weak", ["Cat"], 0),
    ]
    assert listing.classes == ["Dog", "Cat", "Owl"]
    assert listing.folder == tmp_path
    assert listing.extra == {"labels": {"train": "strong", "weak": "weak", "test": "strong"}}
    assert listing.notes == [
        "not read: durations.tsv (none of the columns of events)",
        "files of one name are in several splits: the clips' ids have the split in front",
        "1 clips have no labels, kept",
    ]
    assert listing.metadata_files == [
        f"metadata/{name}" for name in ("test.tsv", "train.tsv", "weak.csv", "classes.txt")
    ]


def test_one_table_may_hold_both_kinds_of_labels(tmp_path: Path) -> None:
    table = write(
        tmp_path / "all.csv",
        "filename,split,onset,offset,event_label,event_labels",
        'w.wav,tagged,,,,"10,9"',
        "s.wav,trained,0,1,10,",
        "n.wav,trained,,,,",
    )
    place(tmp_path, "audio/w.wav", "audio/s.wav", "audio/n.wav")
    listing = find("events", table)
    assert listing.classes == ["9", "10"], "class numbers stand in their order"
    assert [(row[0], *row[2:]) for row in shown(listing)] == [
        ("s", "trained", ["10"], 1),
        ("n", "trained", [], 0),
        ("w", "tagged", ["9", "10"], 0),
    ]
    assert listing.extra["labels"] == {"tagged": "weak", "trained": "strong"}
    assert listing.train_splits == ("trained",)
    assert listing.notes[-1] == "no split is named train: the statistics are measured on trained"


def test_a_table_without_splits_says_so(tmp_path: Path) -> None:
    place(tmp_path, "a.wav")
    notes = find("events", write(tmp_path / "x.tsv", HEADER, "./a.wav\t0\t1\tDog", "a.wav\t3\t4\tDog")).notes
    assert notes == ["the table has no column split: all clips are in the split train"]


def test_every_fault_is_reported_with_its_line(tmp_path: Path) -> None:
    place(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    write(tmp_path / "classes.txt", "Dog", "Cat", "Dog")
    table = write(
        tmp_path / "x.tsv",
        "filename\tonset\toffset\tevent_label\tevent_labels\tsplit\tfold",
        "a.wav\t0\t1\tDog\t\ttrain\t1",
        "a.wav\t0\t1\tDog\t\ttrain\t2",
        "a.wav\t-1\tx\tDog\t\ttrain\t1",
        "a.wav\t\t\t\tDog\ttrain\t1",
        "b.wav\t0\t1\tDgo\t\ttrain\t0",
        "b.wav\t0\t1\t\t\t\t1",
        "gone.wav\t2\t1\tDog\t\ttrain\t1",
        "\t0\t1\tDog\t\ttrain\t1",
        "a.wav\t0\t1\tDog\t\ttest\t1",
        "c.wav\t0\t1\tDog\tCat\ttest\t1",
        "d.wav\t\t\t\tDog\ttest\t1",
        "d.wav\t\t\t\tCat\ttest\t1",
        "a.wav\t0\t1\tDog\t\ttrain\t1\textra",
    )
    with pytest.raises(DataError) as caught:
        find("events", table)
    for part in (
        "17 faults",
        "line 3: fold 2, and 1 in x.tsv, line 2",
        "line 4: onset -1 is before the start of the clip",
        "line 4: offset 'x' is not a time in seconds",
        "line 5: the clip has weak labels, and events (x.tsv, line 2)",
        "line 6: fold '0' is not a number from 1",
        "line 6: 'Dgo' is not in classes.txt",
        "line 7: no split",
        "line 7: no event_label",
        "line 8: no such file: gone.wav",
        "line 8: offset 1 is before onset 2",
        "line 9: no filename",
        "line 11: an event and event_labels in one row",
        "line 13: the clip stands already in x.tsv, line 12",
        "line 14: 8 cells where the header has 7",
        "classes.txt: 'Dog' stands there more than once",
        "x.tsv, line 10: a.wav (test) is also a clip in x.tsv, line 2 (train)",
        "split test has clips with events (x.tsv, line 10) and with weak labels (x.tsv, line 12)",
        "Audio is looked for",
    ):
        assert part in str(caught.value)


def test_what_is_no_table_of_events_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file or folder; expected a table with the columns filename, onset"):
        find("events", tmp_path / "nowhere")
    with pytest.raises(MissingError, match="no table of events here"):
        find("events", tmp_path)
    write(tmp_path / "a.tsv", "filename\tonset\tend\tevent_label", "a.wav\t0\t1\tDog")
    with pytest.raises(DataError, match="no column offset; the header has filename, onset, end, event_label"):
        find("events", tmp_path)
    write(tmp_path / "a.tsv", HEADER)
    with pytest.raises(DataError, match="no rows under the header"):
        find("events", tmp_path)
    place(tmp_path, "a.wav")
    write(tmp_path / "a.tsv", HEADER, "a.wav")
    with pytest.raises(DataError, match="no row has an event or a label"):
        find("events", tmp_path)
    write(tmp_path / "a.tsv", "filename\tonset\tonset", "a.wav")
    with pytest.raises(DataError, match="column onset more than once"):
        find("events", tmp_path)
    write(tmp_path / "a.tsv", HEADER + "\tsplit", "a.wav\t0\t1\tDog\ttrain")
    write(tmp_path / "b.tsv", HEADER, "a.wav\t0\t1\tDog")
    with pytest.raises(DataError, match="a column split, where each of several tables is the split of its name"):
        find("events", tmp_path)
    (tmp_path / "a.tsv").rename(tmp_path / "b.csv")
    with pytest.raises(DataError, match="several tables are named b"):
        find("events", tmp_path)


CELLS = st.one_of(
    st.sampled_from(
        ["a.wav", "b.wav", "a", "gone.wav", "../a.wav", "", "0", "1.5", "-1", "nan", "1e400", "Dog", '"', "Cat"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=6),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(CELLS, max_size=7), max_size=6), st.permutations(["filename", "onset", "offset", "event_label"])
)
def test_any_table_is_listed_or_refused(tmp_path_factory: pytest.TempPathFactory, rows, header) -> None:
    folder = tmp_path_factory.mktemp("any", numbered=True)
    place(folder, "a.wav", "audio/b.wav")
    table = folder / "t.tsv"
    table.write_text("\n".join("\t".join(cells) for cells in [header, *rows]))
    try:
        listing = find("events", table)
    except (DataError, MissingError):
        return
    assert {clip.path for clip in listing.clips} <= {"a.wav", "audio/b.wav", f"../{folder.name}/a.wav"}
    assert len({clip.id for clip in listing.clips}) == len(listing.clips)
    for clip in listing.clips:
        assert clip.labels == tuple(sorted({event.label for event in clip.events}))
        assert all(0 <= event.onset <= event.offset < float("inf") for event in clip.events)
