"""Stored logits of teachers: published files as they come, ours as others read them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.data.logits import LogitsFile, align_classes, clip_name, differences, made_of
from c2ftool.data.logits_writer import LogitsWriter
from c2ftool.errors import DataError, MissingError, RunError, UsageError

N, C, T = 12, 5, 20
IDS = [f"Yclip{n}" for n in range(N)]
NAMES = [f"class {n}, of 'all'" for n in range(C)]
RECORD = {"teachers": ["abc", "def"], "frame_ms": 40}


def logits(clips: int = N, seed: int = 0, shape: tuple[int, ...] = (C, T)) -> np.ndarray:
    return np.random.default_rng(seed).normal(-4, 3, (clips, *shape)).astype(np.float16)


def file_of(path: Path, values: Any = None, names: Any = None, dataset: str = "strong_logits", **how: Any) -> Path:
    """A file as another program writes it."""
    with h5py.File(path, "w", **how.pop("file", {})) as file:
        file.create_dataset(dataset, data=logits() if values is None else values, **how)
        file.create_dataset("filenames", data=np.array(IDS, np.bytes_) if names is None else names)
    return path


def whole_file(path: Path, **options: Any) -> Path:
    with LogitsWriter(path, IDS, NAMES, T, RECORD, **options) as writer:
        writer.write(np.arange(N), logits().astype(np.float32))
        writer.finish()
    return path


# --- reading ----------------------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "one piece": {},
    "compressed": {"chunks": (1, C, T), "compression": "gzip"},
    "chunks of clips": {"chunks": (5, 2, 7), "shuffle": True},
    "user block": {"file": {"userblock_size": 4096}},
    "latest format": {"file": {"libver": "latest"}},
    "big-endian": {"dtype": ">f2"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_that_h5py_reads(kind: str, tmp_path: Path) -> None:
    path = file_of(tmp_path / "teacher.h5", **dict(KINDS[kind]))
    rows = np.array([7, 0, 11, 7, 3])
    with h5py.File(path) as other:
        expected = np.stack([other["strong_logits"][row] for row in rows]).astype(np.float16)
    file = LogitsFile.open(path)
    assert (len(file), file.shape, file.frames, file.classes) == (N, (C, T), T, None)
    made = file.read(rows)
    assert made.dtype == np.float16 and np.array_equal(made, expected)
    out = np.empty((5, C, T), np.float16)
    assert file.read(rows, out) is out and np.array_equal(out, expected)
    assert file.read([]).shape == (0, C, T)


@pytest.mark.parametrize("kind", ["one piece", "compressed"])
def test_many_threads_read_at_once(kind: str, tmp_path: Path) -> None:
    values = logits(64)
    path = file_of(tmp_path / "t.h5", values, np.array([f"c{n}" for n in range(64)], np.bytes_), **dict(KINDS[kind]))
    file, generator = LogitsFile.open(path), np.random.default_rng(1)
    batches = [generator.integers(0, 64, 16) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for rows, made in zip(batches, pool.map(file.read, batches), strict=True):
            assert np.array_equal(made, values[rows])


def test_a_large_file_is_not_read_into_memory(tmp_path: Path) -> None:
    path, clips = tmp_path / "large.h5", 40_000  # 8.9 GB, of which next to nothing is on the disk
    with LogitsWriter(path, [f"c{n}" for n in range(clips)], [str(n) for n in range(447)], 250, {}) as writer:
        values = logits(3, shape=(447, 250))
        writer.write([5, 20_000, 39_999], values)
        file = LogitsFile.open(path.with_name("large.h5.partial"), unfinished=True)
        before = resident()
        assert np.array_equal(file.read([39_999, 5, 20_000]), values[[2, 0, 1]])
        for start in range(0, 2000, 20):  # 447 MB
            file.read(np.arange(start, start + 20))
        assert resident() - before < 50e6


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_logits_of_clips_are_read(tmp_path: Path) -> None:
    for name in ("logits", "weak_logits"):
        values = logits(shape=(C,))
        file = LogitsFile.open(file_of(tmp_path / f"{name}.h5", values, dataset=name))
        assert file.frames is None and np.array_equal(file.read([3, 1]), values[[3, 1]])


def test_wider_floats_become_halves_within_their_range(tmp_path: Path) -> None:
    values = logits().astype(np.float32)
    values[2, 0, :3] = 1e6, -1e6, 65_504
    file = LogitsFile.open(file_of(tmp_path / "wide.h5", values))
    made = file.read([2, 5])
    assert made[0, 0, :3].tolist() == [65_504, -65_504, 65_504] and np.array_equal(made[1], logits()[5])
    values[4, 1, 1] = np.inf
    with pytest.raises(DataError, match="logits of Yclip4 are not finite"):
        LogitsFile.open(file_of(tmp_path / "wide.h5", values)).read([4])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["one piece", "compressed"])
def test_logits_that_are_not_finite_are_told_by_clip(wrong: float, kind: str, tmp_path: Path) -> None:
    values = logits()
    values[9, C - 1, T - 1] = wrong
    file = LogitsFile.open(file_of(tmp_path / "teacher.h5", values, **dict(KINDS[kind])))
    file.read([8, 10])
    with pytest.raises(DataError, match="logits of Yclip9 are not finite"):
        file.read([8, 9])


def test_rows_that_there_are_not_are_refused(tmp_path: Path) -> None:
    file = LogitsFile.open(file_of(tmp_path / "teacher.h5"))
    for rows in ([N], [-1]):
        with pytest.raises(IndexError):
            file.read(rows)
    for out in (
        np.empty((1, C, T), np.float32),
        np.empty((2, C, T), np.float16),
        np.empty((1, T, C), "f2").swapaxes(1, 2),
    ):
        with pytest.raises(ValueError, match="out must be"):
            file.read([0], out)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    path, ids = tmp_path / "teacher.h5", np.array(IDS, np.bytes_)
    with pytest.raises(MissingError, match=r"no such logits file\n"):
        LogitsFile.open(path)
    path.write_bytes(b"not HDF5")
    with pytest.raises(DataError, match="not an HDF5 file"):
        LogitsFile.open(path)
    twice = ids.copy()
    twice[3] = b"Yclip8"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"dataset": "other"}, "no dataset strong_logits; there are: filenames, other"),
        ({"names": ids[:5]}, "5 filenames, and strong_logits of 12 clips"),
        ({"names": twice}, "filenames more than once: Yclip8"),
        ({"names": np.arange(N)}, "filenames is no list of names, but int64"),
        ({"names": ids.reshape(3, 4)}, "filenames is no list of names"),
        ({"names": np.array([b"\xff\xfe%d" % n for n in range(N)])}, "filenames is not UTF-8"),
        ({"values": logits().astype(np.int16)}, "strong_logits holds int16, not floats"),
        ({"values": logits(shape=(C,))}, r"strong_logits has the shape \(12, 5\), not \(clips, classes, frames\)"),
        ({"values": logits(), "dataset": "logits"}, r"logits has the shape \(12, 5, 20\), not \(clips, classes\)"),
        ({"values": logits(0), "names": ids[:0]}, r"strong_logits has the shape \(0, 5, 20\)"),
    ]
    for given_, message in wrong:
        with pytest.raises(DataError, match=message) as told:
            LogitsFile.open(file_of(path, **given_))
        assert "The layout is: filenames" in str(told.value) and str(path) in str(told.value)
    with h5py.File(file_of(path), "a") as file:
        file["classes"] = np.array(NAMES[:-1], np.bytes_)
    with pytest.raises(DataError, match="4 classes, and strong_logits of 5"):
        LogitsFile.open(path)
    with h5py.File(path, "a") as file:
        del file["filenames"]
        file.create_group("filenames")
    with pytest.raises(DataError, match="no dataset filenames"):
        LogitsFile.open(path)


def test_a_file_that_was_cut_off_is_told(tmp_path: Path) -> None:
    path = whole_file(tmp_path / "teacher.h5")
    file = LogitsFile.open(path)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(DataError, match="ends early"):
        file.read([N - 1])
    with pytest.raises(DataError, match=r"ends early|not an HDF5 file that can be read"):
        LogitsFile.open(path)


# --- clips and classes ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_clips_are_found_by_name_with_or_without_a_suffix(data: st.DataObject, tmp_path_factory: Any) -> None:
    suffixes = st.sampled_from(["", ".mp3", ".wav", ".FLAC"])
    stems = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)
    clips = data.draw(st.lists(stems.filter(lambda s: clip_name(s) == s), min_size=1, max_size=8, unique=True))
    names = [clip + data.draw(suffixes) for clip in clips]
    path = tmp_path_factory.mktemp("names") / "teacher.h5"
    text = data.draw(st.booleans())  # of variable length, as h5py writes text
    stored: Any = names if text else np.array([name.encode() for name in names], object)
    with h5py.File(path, "w") as file:
        file.create_dataset("strong_logits", data=logits(len(names)))
        file.create_dataset(
            "filenames", data=stored, dtype=h5py.string_dtype() if text else h5py.special_dtype(vlen=bytes)
        )
    opened = LogitsFile.open(path)
    wanted = data.draw(st.permutations(range(len(names))))
    asked = [clips[row] + data.draw(suffixes) for row in wanted]
    assert opened.find(asked).tolist() == wanted and opened.missing(asked) == []
    others = [f"{clip}x" for clip in clips if f"{clip}x" not in clips]
    assert opened.missing([*others, *asked]) == others


def test_suffixes_are_taken_off_as_suffixes_and_only_where_that_is_unique(tmp_path: Path) -> None:
    assert [clip_name(name) for name in ("Y3mp.mp3", "mp3", ".wav", "a.b", "a.WAV", "a.mp3.wav", "Y-p.3")] == [
        "Y3mp", "mp3", ".wav", "a.b", "a", "a.mp3", "Y-p.3"]  # fmt: skip
    names = ["both.mp3", "both.wav", "Y3mp.mp3", *IDS[3:]]
    file = LogitsFile.open(file_of(tmp_path / "t.h5", names=np.array(names, np.bytes_)))
    assert file.find(["both.wav", "both.mp3", "both", "both.flac", "Y3mp", "Y"]).tolist() == [1, 0, -1, -1, 2, -1]


def test_classes_without_a_teacher_are_masked_and_names_are_needed_where_numbers_differ() -> None:
    columns, known = align_classes(["b", "a", "c"], ["a", "x", "b"], count=3)
    assert columns.tolist() == [1, 0, 0] and known.tolist() == [True, False, True]
    columns, known = align_classes(None, ["a", "x", "b"], count=3)
    assert columns.tolist() == [0, 1, 2] and known.all()
    with pytest.raises(DataError, match="447 classes without their names; the run has 3 classes"):
        align_classes(None, ["a", "x", "b"], count=447)
    with pytest.raises(DataError, match="no class of the run has logits: it has a, x; the file b, c"):
        align_classes(["b", "c"], ["a", "x"], count=2)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_by_plain_h5py_and_by_us(tmp_path: Path) -> None:
    path = whole_file(tmp_path / "new" / "teacher.h5")
    with h5py.File(path) as file:
        assert [name.decode() for name in file["filenames"]] == IDS
        assert file["strong_logits"].dtype == np.float16 and file["strong_logits"].shape == (N, C, T)
        assert all(np.array_equal(file["strong_logits"][row], logits()[row]) for row in range(N))
    ours = LogitsFile.open(path)
    assert ours.names == IDS and ours.classes == NAMES and ours.record == RECORD
    assert np.array_equal(ours.read(ours.find(IDS[::-1])), logits()[::-1])
    assert ours.align(["x", NAMES[3]])[0].tolist() == [0, 3]
    assert differences(ours.made, made_of(IDS, NAMES, T, RECORD)) == []
    assert differences(ours.made, made_of(IDS[1:], NAMES, T, RECORD | {"frame_ms": 20})) == ["clips", "record"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".teacher.h5.lock", "teacher.h5"]


def test_logits_of_clips_are_written(tmp_path: Path) -> None:
    path, values = tmp_path / "clips.h5", logits(shape=(C,))
    with LogitsWriter(path, IDS, NAMES, None, {}) as writer:
        for row in range(N):
            writer.write([row], values[row : row + 1].astype(np.float64))
        writer.finish()
    with h5py.File(path) as file:
        assert np.array_equal(file["logits"][:], values)
    assert np.array_equal(LogitsFile.open(path).read([4]), values[[4]])


def test_a_session_goes_on_where_another_stopped(tmp_path: Path) -> None:
    path, values = tmp_path / "teacher.h5", logits().astype(np.float32)
    values[1, 0, :2] = 7e4, -65_520
    with LogitsWriter(path, IDS, NAMES, T, RECORD) as writer:
        assert writer.resumed == 0 and writer.todo().tolist() == list(range(N))
        writer.write([1, 7], values[[1, 7]])
        with pytest.raises(
            RunError, match="10 clips have no logits: Yclip0, Yclip2, Yclip3, Yclip4, Yclip5 and 5 more"
        ):
            writer.finish()
    with pytest.raises(MissingError, match=r"teacher\.h5\.partial was begun and not finished"):
        LogitsFile.open(path)
    with pytest.raises(DataError, match="not finished"):
        LogitsFile.open(path.with_name("teacher.h5.partial"))
    with LogitsWriter(path, IDS, NAMES, T, RECORD) as writer:
        assert writer.resumed == 2 and writer.clipped == 1
        for row in writer.todo():
            writer.write([row], values[[row]])
        writer.finish()
    made = LogitsFile.open(path).read(np.arange(N))
    assert np.array_equal(made, values.clip(-65_504, 65_504).astype(np.float16))


def test_what_was_begun_of_something_else_is_refused_or_dropped_if_told_so(tmp_path: Path) -> None:
    path = tmp_path / "teacher.h5"
    with LogitsWriter(path, IDS, NAMES, T, RECORD) as writer:
        writer.write([0, 1], logits()[:2])
    others: list[tuple[tuple[Any, ...], str]] = [
        ((IDS, NAMES, T, {}), "of another record"),
        ((IDS[::-1], NAMES, T, RECORD), "of another clips"),
        ((IDS, NAMES[::-1], T, RECORD), "of another classes"),
        ((IDS, NAMES, T + 1, {}), "of another record, another frames"),
    ]
    for other, message in others:
        with pytest.raises(DataError, match=message):
            LogitsWriter(path, *other)
    with LogitsWriter(path, IDS, NAMES, T, RECORD) as writer:
        assert writer.resumed == 2
    with LogitsWriter(path, IDS[::-1], NAMES, T, RECORD, anew=True) as writer:
        assert writer.resumed == 0
        writer.write(np.arange(N), logits())
        writer.finish()
    with pytest.raises(UsageError, match="the file exists"):
        LogitsWriter(path, IDS, NAMES, T, RECORD)
    whole_file(path, anew=True)
    assert LogitsFile.open(path).names == IDS


def test_bytes_of_an_earlier_file_say_nothing_of_a_later_one(tmp_path: Path) -> None:
    path = tmp_path / "teacher.h5"
    with LogitsWriter(path, IDS, NAMES, T, RECORD) as writer:
        writer.write(np.arange(N), logits())
    path.with_name("teacher.h5.partial").unlink()
    with LogitsWriter(path, IDS, NAMES, T, RECORD) as writer:
        assert len(writer.todo()) == N
        writer.write([0], logits()[:1])
    path.with_name("teacher.h5.partial.rows").unlink()
    with LogitsWriter(path, IDS, NAMES, T, RECORD) as writer:
        assert len(writer.todo()) == N


def test_what_is_not_finite_or_does_not_fit_is_not_written(tmp_path: Path) -> None:
    values = logits().astype(np.float32)
    values[3, 2, 1] = np.nan
    with LogitsWriter(tmp_path / "teacher.h5", IDS, NAMES, T, RECORD) as writer:
        with pytest.raises(DataError, match="logits of Yclip3 are not finite"):
            writer.write([2, 3], values[[2, 3]])
        with pytest.raises(ValueError, match="of the shape"):
            writer.write([2], values[:1, :, :-1])
        for row in (-1, N):
            with pytest.raises(IndexError):
                writer.write([row], values[:1])
        assert len(writer.todo()) == N
    path = tmp_path / "other.h5"
    for ids, message in ((["a", "b", "a"], "clips more than once: a"), (["a", ""], "cannot be stored"),
                         (["a", "\udce4"], "cannot be stored"), (["a\0"], "cannot be stored")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            LogitsWriter(path, ids, NAMES, T, {})
    assert not list(tmp_path.glob("*other*"))


def test_one_process_writes_and_a_full_disk_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "teacher.h5"
    with (
        LogitsWriter(path, IDS, NAMES, T, RECORD),
        pytest.raises(UsageError, match="in use by process"),
    ):
        LogitsWriter(path, IDS, NAMES, T, RECORD)
    huge = [f"class {n}" for n in range(10_000)]
    with pytest.raises(RunError, match=r"disk full: .* are needed"):
        LogitsWriter(tmp_path / "huge.h5", [str(n) for n in range(100_000)], huge, 1_000_000, {})

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with LogitsWriter(path, IDS, NAMES, T, RECORD) as writer:
        writer.write([0], logits()[:1])
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(RunError, match="disk full"):
            writer.write([1], logits()[1:2])
        monkeypatch.undo()
        assert writer.todo().tolist() == list(range(1, N))
