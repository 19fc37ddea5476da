"""Scores on disk: what is written is read back exactly, sed_scores_eval reads it too, and what is wrong is named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.errors import DataError, MissingError, RunError
from c2ftool.metrics.score_tables import load_scores, read_score_tables, save_scores, write_score_tables
from c2ftool.metrics.tables import FrameScores

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources")


def some_scores(dtype=np.float32, frames=(5, 3), frame=0.04, classes=("Dog", "Bark, howl", 'say "hey"')):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(frames), len(classes), max(frames))).astype(dtype)
    for clip, count in enumerate(frames):
        values[clip, :, count:] = 0
    ids = tuple(f"Y{number}_30.000" for number in range(len(frames)))
    return FrameScores(ids, tuple(classes), values, np.array(frames), frame)


def assert_equal(read, written):
    assert (read.ids, read.classes, read.frame) == (written.ids, written.classes, written.frame)
    assert read.frames.dtype == np.int64 and read.frames.tolist() == written.frames.tolist()
    np.testing.assert_array_equal(read.values, written.values)


# --- a folder of tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("frame", [0.04, 0.064, 1 / 15, 0.3])
def test_tables_are_read_back_to_the_bit(tmp_path: Path, dtype, frame):
    scores = some_scores(dtype, (250, 1, 249), frame)
    write_score_tables(tmp_path / "scores", scores)
    read = read_score_tables(tmp_path / "scores", dtype)
    assert read.values.dtype == dtype and read.frame == pytest.approx(frame, abs=1e-8)
    np.testing.assert_array_equal(np.round(np.arange(251) * read.frame, 6), np.round(np.arange(251) * frame, 6))
    np.testing.assert_array_equal(read.values, scores.values)
    assert (read.ids, read.classes, read.frames.tolist()) == (scores.ids, scores.classes, [250, 1, 249])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_any_finite_score_is_written_and_read(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("scores")
    scores = FrameScores(("a",), ("b",), np.array(numbers, np.float32)[None, None], np.array([len(numbers)]), 0.04)
    write_score_tables(folder, scores)  # an empty folder may be there already
    assert_equal(read_score_tables(folder), scores)


def test_tables_are_those_of_sed_scores_eval(tmp_path: Path):
    from sed_scores_eval.base_modules.io import lazy_sed_scores_loader, read_sed_scores, write_sed_scores

    scores = some_scores(frames=(25, 250), frame=0.04)
    write_score_tables(tmp_path / "ours", scores)
    theirs = read_sed_scores(tmp_path / "ours")
    assert list(lazy_sed_scores_loader(tmp_path / "ours").keys()) == list(scores.ids)
    for clip, name in enumerate(scores.ids):
        assert list(theirs[name].columns) == ["onset", "offset", *scores.classes]
        values = theirs[name].to_numpy()
        np.testing.assert_array_equal(values[:, 2:].astype(np.float32).T, scores.values[clip, :, : len(values)])
        np.testing.assert_array_equal(values[:, 0], np.round(np.arange(len(values)) * 0.04, 6))
    write_sed_scores(theirs, tmp_path / "theirs")
    assert_equal(read_score_tables(tmp_path / "theirs"), scores)


def test_doubles_are_told_apart_if_asked(tmp_path: Path):
    values = np.array([[[0.5, 0.5 + 1e-12]]])
    write_score_tables(tmp_path / "a", FrameScores(("x",), ("y",), values, np.array([2]), 0.04))
    assert len(np.unique(read_score_tables(tmp_path / "a", np.float64).values)) == 2
    assert len(np.unique(read_score_tables(tmp_path / "a").values)) == 1


GOOD = "onset\toffset\ta\tb\n0.0\t0.04\t0.1\t0.2\n0.04\t0.08\t0.3\t0.4\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "not nothing"),
        ("start\tend\ta\n0\t1\t2\n", 1, "onset, offset and the classes, not start, end, a"),
        ("onset\toffset\n0\t1\n", 1, "onset, offset and the classes"),
        ("onset\toffset\ta\ta\n0\t1\t2\t3\n", 1, "a column twice: a"),
        ("onset\toffset\ta\tb\n", None, "no frames"),
        (GOOD + "0.08\t0.12\t0.3\n", 4, "3 columns, the first line has 4"),
        (GOOD + "\n0.08\t0.12\t0.3\tx\n", 5, "'x' is no number"),
        (GOOD + "0.08\t0.12\t0.3\t\n", 4, "'' is no number"),
        (GOOD + "0.08\t0.12\tnan\t1\n", 4, "not finite"),
        (GOOD + "\n0.08\t0.12\t1\tinf\n", 5, "not finite"),
        (GOOD + "0.0\t0.04\t1\t1\n", 4, "not in order"),
        (GOOD + "0.12\t0.16\t1\t1\n", 4, "0.12 where 0.08 should follow"),
        (GOOD + "0.06\t0.10\t1\t1\n", 4, "0.06 where 0.08 should follow"),
        (GOOD.replace("0.0\t", "0.02\t"), 2, "0.02 where 0 should follow"),
        (GOOD + "0.08\t0.08\t1\t1\n", 4, "offset 0.08 is not after onset 0.08"),
        (GOOD + "0.08\t0.13\t1\t1\n0.13\t0.17\t1\t1\n", 4, "a frame of 0.05 s, others of 0.04 s"),
        (GOOD.replace("\tb", "\tc"), 1, "they differ in b, c"),
        (GOOD.replace("a\tb", "b\ta"), 1, "in another order"),
        (GOOD.replace("0.04", "0.05").replace("0.08", "0.1"), 2, "frames of 0.05 s, elsewhere of 0.04 s"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path: Path, text, line, message):
    (tmp_path / "a.tsv").write_text(GOOD + "0.08\t0.12\t1\t1\n")
    (tmp_path / "b.tsv").write_text(text)
    with pytest.raises(DataError, match=message) as fault:
        read_score_tables(tmp_path)
    assert fault.value.place == str(tmp_path / "b.tsv") + (f":{line}" if line else "")


def test_a_folder_of_tables_holds_nothing_else(tmp_path: Path):
    with pytest.raises(MissingError, match="no such folder"):
        read_score_tables(tmp_path / "no")
    with pytest.raises(MissingError, match="no score tables"):
        read_score_tables(tmp_path)
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "a.tsv").write_text(GOOD)
    assert read_score_tables(tmp_path).ids == ("a",)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match="not a score table") as fault:
        read_score_tables(tmp_path)
    assert fault.value.place == str(tmp_path / "notes.txt")


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path):
    folder = tmp_path / "scores"
    folder.mkdir()
    (folder / "old.tsv").write_text(GOOD)
    with pytest.raises(RunError, match="cannot be written"):
        write_score_tables(folder, some_scores())
    assert [path.name for path in tmp_path.rglob("*")] == ["scores", "old.tsv"]


@pytest.mark.parametrize("write", [write_score_tables, save_scores])
def test_scores_that_cannot_be_read_back_are_not_written(tmp_path: Path, write):
    scores = some_scores()
    scores.values[1, 2, 4] = np.nan  # beyond the clip's three frames: nothing
    write(tmp_path / "fine", scores)
    scores.values[1, 2, 2] = np.inf
    with pytest.raises(ValueError, match=r"clip 'Y1_30.000', class 'say \"hey\"', frame 2 is not finite"):
        write(tmp_path / "out", scores)
    twice = FrameScores(("a", "a"), scores.classes, scores.values, scores.frames, 0.04)
    with pytest.raises(ValueError, match="a name twice: 'a'"):
        write(tmp_path / "out", twice)
    with pytest.raises(ValueError, match="3 ids"):
        write(tmp_path / "out", FrameScores(("a", "b", "c"), scores.classes, scores.values, scores.frames, 0.04))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("ids", "classes"), [(("a/b",), ("c",)), ((".a",), ("c",)), (("a",), ("c\\d",))])
def test_names_that_no_table_can_have_are_refused(tmp_path: Path, ids, classes):
    scores = FrameScores(ids, classes, np.zeros((1, 1, 2), np.float32), np.array([2]), 0.04)
    with pytest.raises(ValueError, match="cannot be the name"):
        write_score_tables(tmp_path / "out", scores)
    save_scores(tmp_path / "out.h5", scores)
    assert_equal(load_scores(tmp_path / "out.h5"), scores)


# --- one compact file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_compact_file_is_mapped_and_not_copied(tmp_path: Path, dtype):
    scores = some_scores(dtype)
    save_scores(tmp_path / "scores.h5", scores)
    read = load_scores(tmp_path / "scores.h5")
    assert isinstance(read.values, np.memmap) and read.values.dtype == dtype
    assert_equal(read, scores)


def test_a_compressed_file_is_read_through_hdf5(tmp_path: Path):
    import h5py

    scores = some_scores()
    save_scores(tmp_path / "scores.h5", scores)
    with h5py.File(tmp_path / "scores.h5", "a") as file:
        del file["scores"]
        file.create_dataset("scores", data=scores.values, chunks=(1, 3, 5), compression="gzip")
        del file["ids"]
        file["ids"] = np.array([name.encode() for name in scores.ids])  # as bytes of fixed length
    read = load_scores(tmp_path / "scores.h5")
    assert not isinstance(read.values, np.memmap)
    assert_equal(read, scores)


def test_a_compact_file_may_hold_no_clip_and_other_orders_of_bytes(tmp_path: Path):
    import h5py

    empty = FrameScores((), ("a",), np.zeros((0, 1, 250), np.float16), np.zeros(0, np.int64), 0.04)
    save_scores(tmp_path / "empty.h5", empty)
    assert_equal(load_scores(tmp_path / "empty.h5"), empty)
    scores = some_scores()
    save_scores(tmp_path / "big.h5", scores)
    with h5py.File(tmp_path / "big.h5", "a") as file:
        del file["scores"]
        file["scores"] = scores.values.astype(">f4")
    assert_equal(load_scores(tmp_path / "big.h5"), scores)


def replaced(name, value):
    def change(file):
        if name in file.attrs:
            del file.attrs[name]
            if value is not None:
                file.attrs[name] = value
            return
        del file[name]
        if value is not None:
            file[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("scores", None), "has no scores; it has classes, frames, ids"),
        (replaced("frame_seconds", None), "has no the attribute frame_seconds"),
        (replaced("frame_seconds", 0.0), "frame_seconds must be above 0"),
        (replaced("scores", np.zeros((2, 4, 5))), r"2 ids, 3 classes, scores \(2, 4, 5\)"),
        (replaced("scores", np.zeros((2, 3, 5), np.int32)), "int32"),
        (replaced("frames", np.array([5, 6])), "2 numbers from 0 to 5"),
        (replaced("frames", np.array([5])), "2 numbers from 0 to 5"),
        (replaced("ids", np.array([b"a", b"a"])), "ids and classes must differ"),
        (replaced("ids", np.array([1, 2])), "not a file of scores, or damaged"),
    ],
)
def test_a_compact_file_that_lacks_something_is_refused(tmp_path: Path, change, message):
    import h5py

    save_scores(tmp_path / "scores.h5", some_scores())
    with h5py.File(tmp_path / "scores.h5", "a") as file:
        change(file)
    with pytest.raises(DataError, match=message) as fault:
        load_scores(tmp_path / "scores.h5")
    assert fault.value.place == str(tmp_path / "scores.h5")


def test_a_file_that_is_cut_off_or_not_there_is_refused(tmp_path: Path):
    with pytest.raises(MissingError, match="no such file"):
        load_scores(tmp_path / "scores.h5")
    save_scores(tmp_path / "scores.h5", some_scores())
    whole = (tmp_path / "scores.h5").read_bytes()
    for part in (b"", whole[:100], whole[:-40]):
        (tmp_path / "cut.h5").write_bytes(part)
        with pytest.raises(DataError, match="not a file of scores, or damaged"):
            load_scores(tmp_path / "cut.h5")
