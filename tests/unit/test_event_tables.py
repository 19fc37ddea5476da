"""Tables of events on disk: DCASE's layouts, what is merged and counted, and all faults of a table at once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.errors import DataError, MissingError
from c2ftool.metrics.event_tables import (
    clip_id,
    read_detections,
    read_durations,
    read_truth,
    write_durations,
    write_events,
)
from c2ftool.metrics.tables import Truth

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources")
HEAD = "filename\tonset\toffset\tevent_label\n"
DURATIONS = {"a": 10.0, "b.c_30.000": 9.5, "quiet": 2.0}


def written(path: Path, text):
    path.write_text(text)
    return path


def rows(table):
    return [
        (table.ids[clip], onset, offset, table.classes[label])
        for clip, onset, offset, label in zip(
            table.clip.tolist(), table.onset.tolist(), table.offset.tolist(), table.label.tolist(), strict=True
        )
    ]


def test_true_events_are_read_with_and_without_a_suffix(tmp_path: Path):
    text = HEAD + "b.c_30.000.wav\t0.5\t1\tCat\na\t2\t3.25\tDog, barking\na.wav\t1\t2\tCat\nquiet.wav\t\t\t\n"
    table = read_truth(written(tmp_path / "t.tsv", text), DURATIONS)
    assert rows(table.truth) == [("a", 1, 2, "Cat"), ("a", 2, 3.25, "Dog, barking"), ("b.c_30.000", 0.5, 1, "Cat")]
    assert table.truth.ids == tuple(DURATIONS) and table.truth.durations.tolist() == [10.0, 9.5, 2.0]
    assert table.truth.classes == ("Cat", "Dog, barking")
    assert (table.merged, table.past_end, table.unlisted, table.notes()) == (0, 0, (), [])


def test_the_classes_and_their_order_may_be_given(tmp_path: Path):
    path = written(tmp_path / "t.tsv", HEAD + "a\t1\t2\tCat\n")
    assert read_truth(path, DURATIONS, ["Dog", "Cat"]).truth.label.tolist() == [1]
    with pytest.raises(DataError, match="line 2: no class 'Cat'"):
        read_truth(path, DURATIONS, ["Dog"])


def test_what_was_decided_is_counted(tmp_path: Path):
    text = HEAD + (
        "a\t1\t2\tCat\na\t2\t3\tCat\na\t2.5\t2.75\tCat\na\t2\t3\tDog\n"  # two touch, one lies within
        "b.c_30.000\t9\t9.6\tCat\nb.c_30.000\t4\t4\tDog\n"
    )
    table = read_truth(written(tmp_path / "t.tsv", text), DURATIONS)
    assert rows(table.truth)[:2] == [("a", 1, 3, "Cat"), ("a", 2, 3, "Dog")]
    assert rows(table.truth)[2:] == [("b.c_30.000", 4, 4, "Dog"), ("b.c_30.000", 9, 9.6, "Cat")]  # not cut at 9.5
    assert (table.merged, table.past_end, table.unlisted) == (2, 1, ("quiet",))
    merged, past, unlisted = table.notes()
    assert "2 events overlap" in merged and "1 events last beyond" in past and "1 clips have no row" in unlisted


def test_all_faults_of_a_table_are_named_at_once(tmp_path: Path):
    text = HEAD + (
        "a\t-0.5\t1\tCat\na\t3\t2\tCat\nz.wav\t1\t2\tCat\na\tx\t2\tCat\na\t1\tinf\tCat\na\t5\t6\t\n"
        "a\t4\t5\tCat\na.wav\t4.0\t5\tCat\nquiet\t\t\t\nquiet\t1\t1.5\tCat\n\t1\t2\tCat\na\t8\n"
    )
    path = written(tmp_path / "t.tsv", text)
    with pytest.raises(DataError) as fault:
        read_truth(path, DURATIONS)
    assert fault.value.place == str(path)
    for words in (
        "11 faults:",
        "line 2: onset -0.5 is negative",
        "line 3: offset 2 lies before onset 3",
        "line 4: no duration is known of clip 'z'",
        "line 5: onset 'x' and offset '2' must be numbers",
        "line 6: onset '1' and offset 'inf' must be numbers",
        "line 7: times without a class",
        "line 9: the same as line 8",
        "line 10: clip 'quiet' is said to have no events, and has some",
        "line 12: no filename",
        "line 13: onset '8' and offset '' must be numbers",
        "line 13: times without a class",
    ):
        assert words in fault.value.message


def test_many_faults_are_counted_and_twenty_shown(tmp_path: Path):
    path = written(tmp_path / "t.tsv", HEAD + "".join(f"a\t{n + 1}\t{n}\tCat\n" for n in range(30)))
    with pytest.raises(DataError, match="30 faults") as fault:
        read_truth(path, DURATIONS)
    assert "and 10 more" in fault.value.message and fault.value.message.count("lies before") == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column filename, onset, offset, event_label; the first line has nothing"),
        ("filename\tonset\toffset\n", "no column event_label; the first line has filename, onset, offset"),
        ("filename,onset,offset,event_label\n", "no column filename"),
    ],
)
def test_a_table_without_its_columns_is_refused(tmp_path: Path, text, message):
    path = written(tmp_path / "t.tsv", text)
    with pytest.raises(DataError, match=message) as fault:
        read_truth(path, DURATIONS)
    assert fault.value.place == f"{path}:1"


def test_a_file_that_is_no_table_is_refused(tmp_path: Path):
    with pytest.raises(MissingError, match="no such file"):
        read_truth(tmp_path / "no.tsv", DURATIONS)
    (tmp_path / "t.tsv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "t.tsv", tmp_path):
        with pytest.raises(DataError, match="not a tab-separated UTF-8 table"):
            read_truth(path, DURATIONS)


def test_durations_are_read_in_order_and_their_faults_at_once(tmp_path: Path):
    path = written(tmp_path / "d.tsv", "filename\tduration\nb.wav\t2.5\na\t10\n")
    assert list(read_durations(path).items()) == [("b", 2.5), ("a", 10.0)]
    path.write_text("filename\tduration\nb.wav\t2.5\nb\t3\nc\t0\nd\tnan\ne\tlong\n\t1\n")
    with pytest.raises(DataError) as fault:
        read_durations(path)
    for words in (
        "5 faults",
        "line 3: clip 'b' a second time",
        "line 4",
        "not 'nan'",
        "not 'long'",
        "line 7: no filename",
    ):
        assert words in fault.value.message


@pytest.mark.parametrize(
    ("filename", "clip"),
    [
        ("a.wav", "a"),
        ("a.FLAC", "a"),
        ("a_30.000", "a_30.000"),
        ("a_30.000.wav", "a_30.000"),
        (".wav", ".wav"),
        ("a", "a"),
    ],
)
def test_only_suffixes_of_audio_are_taken_from_a_name(filename, clip):
    assert clip_id(filename) == clip


def test_detections_keep_their_order_and_scores(tmp_path: Path):
    truth = read_truth(written(tmp_path / "t.tsv", HEAD + "a\t1\t2\tCat\n"), DURATIONS, ["Cat", "Dog"]).truth
    text = "score\t" + HEAD + "0.5\tb.c_30.000\t3\t4\tDog\n0.25\ta.wav\t1\t2\tCat\n1e-3\ta\t2\t3\tCat\n"
    found, scores = read_detections(written(tmp_path / "d.tsv", text), truth)
    assert rows(found) == [("b.c_30.000", 3, 4, "Dog"), ("a", 1, 2, "Cat"), ("a", 2, 3, "Cat")]  # not merged
    assert scores.tolist() == [0.5, 0.25, 0.001]
    found, scores = read_detections(written(tmp_path / "d.tsv", HEAD), truth)
    assert rows(found) == [] and scores is None
    text = "score\t" + HEAD + "nan\ta\t3\t4\tDog\n0.2\ta\t3\t4\tCow\n0.1\tx\t3\t4\tCat\n"
    with pytest.raises(
        DataError, match=r"3 faults:\n  line 2: score 'nan'.*\n  line 3: no class 'Cow'\n  line 4: no dur"
    ):
        read_detections(written(tmp_path / "d.tsv", text), truth)


def test_clips_whose_names_end_like_files_are_found(tmp_path: Path):
    path = written(tmp_path / "t.tsv", HEAD + "a.wav\t1\t2\tCat\n")
    assert rows(read_truth(path, {"a.wav": 3.0}).truth) == [("a.wav", 1, 2, "Cat")]


@st.composite
def tables(draw):
    """Events that do not touch each other within a class."""
    clips = draw(st.integers(1, 4))
    names = draw(
        st.lists(
            st.text("aé'\", \\.-", min_size=1, max_size=5).map(str.strip).filter(bool),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    events = []
    for clip in range(clips):
        for label in range(len(names)):
            times = draw(st.lists(st.floats(0, 1e4), max_size=6, unique=True).map(sorted))
            events += [(clip, label, *pair) for pair in zip(times[::2], times[1::2], strict=False)]
    columns = np.array(sorted(events, key=lambda e: (e[0], e[2], e[1])), np.float64).reshape(-1, 4).T
    return Truth(
        tuple(f"clip {number}" for number in range(clips)), tuple(names), np.full(clips, 1e4),
        columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2], columns[3],
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(["", ".wav"]))
def test_events_are_written_and_read_to_the_bit(tmp_path_factory, events, suffix):
    folder = tmp_path_factory.mktemp("tables")
    write_events(folder / "t.tsv", events, suffix=suffix, silent_clips=True)
    write_durations(folder / "d.tsv", events, suffix=suffix)
    table = read_truth(folder / "t.tsv", read_durations(folder / "d.tsv"), events.classes)
    assert rows(table.truth) == rows(events)
    assert table.truth.ids == events.ids and table.truth.durations.tolist() == events.durations.tolist()
    assert table.unlisted == () and table.merged == 0
    scores = np.linspace(0.1, 1, len(events.clip))
    write_events(folder / "f.tsv", events, scores, suffix=suffix)
    found, read = read_detections(folder / "f.tsv", events)
    assert rows(found) == rows(events) and read.tolist() == scores.tolist()


def test_tables_are_read_by_sed_scores_eval(tmp_path: Path):
    from sed_scores_eval.base_modules.io import read_audio_durations, read_ground_truth_events

    events = Truth(
        ("a", "b"), ("Cat", "Dog, barking"), np.array([10.0, 9.75]),
        np.array([0, 0]), np.array([1, 0]), np.array([0.1, 0.28]), np.array([1.0, 2.0]),
    )  # fmt: skip
    write_events(tmp_path / "t.tsv", events, suffix=".wav", silent_clips=True)
    write_durations(tmp_path / "d.tsv", events, suffix=".wav")
    expected = {"a": [[0.1, 1.0, "Dog, barking"], [0.28, 2.0, "Cat"]], "b": []}
    assert read_ground_truth_events(tmp_path / "t.tsv") == expected
    assert read_audio_durations(tmp_path / "d.tsv") == {"a": 10.0, "b": 9.75}
    write_events(tmp_path / "f.tsv", events)
    assert (tmp_path / "f.tsv").read_text() == HEAD + "a\t0.1\t1.0\tDog, barking\na\t0.28\t2.0\tCat\n"
    with pytest.raises(ValueError, match="1 scores for 2 events"):
        write_events(tmp_path / "f.tsv", events, [0.5])
