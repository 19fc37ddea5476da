"""Scores over time on disk: the field's folders of tables, and one compact file.

A folder holds a tab-separated table for each clip, `CLIP.tsv`: onset and offset of each frame in seconds, then a column
for each class, as sed_scores_eval reads and writes them. The compact file is HDF5: `ids` (N,), `classes` (C,), `scores`
(N, C, T) float16 or float32, `frames` (N,) that each clip has, and the attribute `frame_seconds`.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from c2ftool.errors import DataError, MissingError
from c2ftool.files import publish_folder, temporary_name, translate_failure, write_atomically
from c2ftool.metrics.tables import FrameScores

_DECIMALS = 6
_ROUNDED = 0.499e-6  # seconds: what rounding to microseconds may do to a time
_NEAR = 2e-6  # seconds: what rounding may do to a frame's length, and a little more
_MEMBERS = ("ids", "classes", "scores", "frames")
_BLOCK = 1 << 24  # scores looked at together


def read_score_tables(folder: Path, dtype: DTypeLike = np.float32) -> FrameScores:
    """The scores of a folder of tables, clips sorted by name; clips with fewer frames are filled up with zeros.

    dtype: what the numbers are rounded to. float32 tells apart what was written from float32; float64 keeps what a
    table of doubles tells apart.

    Raises MissingError without the folder or without tables in it; DataError, naming file and line, for other files in
    it, for no numbers, for classes other than the first table's, and for frames that are not in order, not next to
    each other, not from 0 or not of one length.
    """
    import pyarrow as pa

    if not folder.is_dir():
        raise MissingError("no such folder of score tables", place=str(folder), cure="give the folder's path")
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not paths:
        raise MissingError("no score tables in the folder", place=str(folder), cure="it should hold CLIP.tsv files")
    kind = pa.from_numpy_dtype(_written(np.dtype(dtype)))
    classes: list[str] | None = None
    tables: list[NDArray[np.floating]] = []
    lengths: list[float] = []
    for path in paths:
        if path.suffix != ".tsv" or not path.is_file():
            _fault(path, None, "not a score table", "keep only CLIP.tsv files in the folder")
        names = _class_names(path)
        if classes is not None and names != classes:
            different = sorted(set(names) ^ set(classes))[:5]
            what = f"they differ in {', '.join(different)}" if different else "they are in another order"
            _fault(
                path, 1, f"{len(names)} classes, the first table has {len(classes)}: {what}", "score the same classes"
            )
        classes = names
        times, values = _table(path, len(names), kind)
        lengths.append(_frame_length(path, times))
        tables.append(values)
    frames = np.array([table.shape[1] for table in tables], np.int64)
    frame = lengths[int(frames.argmax())]  # the longest table tells it best
    for path, length, count in zip(paths, lengths, frames, strict=True):
        if abs(length - frame) * count > _NEAR:
            _fault(path, 2, f"frames of {length:.9g} s, elsewhere of {frame:.9g} s", "score all clips alike")
    result = np.zeros((len(tables), len(classes or ()), int(frames.max())), dtype)
    while tables:  # taken away as they are copied, so that the scores are not held twice
        table = tables.pop()
        result[len(tables), :, : table.shape[1]] = table
    return FrameScores(
        tuple(path.name.removesuffix(".tsv") for path in paths), tuple(classes or ()), result, frames, frame
    )


def write_score_tables(folder: Path, scores: FrameScores) -> None:
    """Writes a folder of tables that `read_score_tables` and sed_scores_eval read; it appears whole or not at all.

    Numbers have the digits that tell them apart in their own precision. Raises RunError where the file system refuses
    or the folder holds something already; ValueError for scores that are not finite, clips that cannot be files' names,
    and classes with a backslash or a line break, which sed_scores_eval refuses.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    _check(scores)
    bad = [name for name in scores.ids if not name or name.startswith(".") or "/" in name or "\0" in name]
    bad += [name for name in scores.classes if not name.strip() or any(sign in name for sign in "\\\r\n")]
    if bad:
        raise ValueError(f"cannot be the name of a table or of a column: {', '.join(map(repr, bad[:5]))}")
    heading = io.StringIO(newline="")
    csv.writer(heading, delimiter="\t", lineterminator="\n").writerow(["onset", "offset", *scores.classes])
    options = arrow_csv.WriteOptions(include_header=False, delimiter="\t")
    borders = np.round(np.arange(scores.values.shape[2] + 1) * scores.frame, _DECIMALS)
    temporary = temporary_name(folder)
    try:
        with translate_failure(folder):
            temporary.mkdir()
            for name, values, count in zip(scores.ids, scores.values, scores.frames.tolist(), strict=True):
                block = values[:, :count]
                columns = [borders[:count], borders[1 : count + 1], *(block.astype(_written(block.dtype)))]
                with (temporary / f"{name}.tsv").open("wb") as file:
                    file.write(heading.getvalue().encode())
                    table = pa.table([pa.array(c) for c in columns], names=[str(n) for n in range(len(columns))])
                    arrow_csv.write_csv(table, file, options)
        publish_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_scores(path: Path, scores: FrameScores) -> None:
    """Writes the compact file, whole or not at all; float64 scores become float32.

    Raises RunError where the file system refuses; ValueError for scores that are not finite.
    """
    import h5py

    _check(scores)
    dtype = np.float16 if scores.values.dtype == np.float16 else np.float32

    def write(place: Path) -> None:
        with h5py.File(place, "w") as file:
            file["ids"] = np.array(scores.ids, h5py.string_dtype())
            file["classes"] = np.array(scores.classes, h5py.string_dtype())
            file["frames"] = scores.frames.astype(np.int64)
            file.attrs["frame_seconds"] = scores.frame
            file.create_dataset("scores", data=np.asarray(scores.values, dtype))  # contiguous, so that it can be mapped

    write_atomically(path, write)


def load_scores(path: Path) -> FrameScores:
    """The scores of a compact file: mapped, not copied, where they lie in one piece; otherwise read into memory.

    Raises MissingError without the file; DataError, naming it, for a file that is no HDF5, is cut off, or lacks
    something.
    """
    import h5py

    if not path.is_file():
        raise MissingError("no such file of scores", place=str(path), cure="give the path of an HDF5 file of scores")
    try:
        with h5py.File(path, "r") as file:
            absent = [name for name in _MEMBERS if not isinstance(file.get(name), h5py.Dataset)]
            if absent or "frame_seconds" not in file.attrs:
                absent += [] if "frame_seconds" in file.attrs else ["the attribute frame_seconds"]
                _fault(path, None, f"has no {', '.join(absent)}; it has {', '.join(file) or 'nothing'}", _SAVED)
            ids, classes = (tuple(file[name].asstr()[()].tolist()) for name in ("ids", "classes"))
            frames = file["frames"][()].astype(np.int64)
            result = FrameScores(ids, classes, _values(path, file), frames, float(file.attrs["frame_seconds"]))
    except (OSError, TypeError, ValueError) as fault:
        _fault(path, None, f"not a file of scores, or damaged ({fault})", _SAVED)
    shape = result.values.shape
    if result.values.dtype.kind != "f" or shape[:2] != (len(ids), len(classes)) or len(shape) != 3:
        _fault(path, None, f"{len(ids)} ids, {len(classes)} classes, scores {shape} {result.values.dtype}", _SAVED)
    if frames.shape != (len(ids),) or (len(ids) and not 0 <= frames.min() <= frames.max() <= shape[2]):
        _fault(path, None, f"frames must be {len(ids)} numbers from 0 to {shape[2]}", _SAVED)
    if len(set(ids)) < len(ids) or len(set(classes)) < len(classes) or not 0 < result.frame < np.inf:
        _fault(path, None, "ids and classes must differ, frame_seconds must be above 0", _SAVED)
    return result


_SAVED = "write it as the module c2ftool.metrics.score_tables describes, or fetch it again"


def _values(path: Path, file: Any) -> NDArray[np.floating]:
    """The scores, mapped if the file holds them in one piece and in the processor's own order of bytes."""
    stored = file["scores"]
    offset = stored.id.get_offset()
    if offset is None or file.userblock_size or not stored.dtype.isnative or not stored.size:
        return np.asarray(stored[()])
    return np.memmap(path, stored.dtype, "r", offset, stored.shape)


def _check(scores: FrameScores) -> None:
    """Raises ValueError unless the shapes fit, names are used once and the clips' own frames are finite."""
    clips, classes, most = scores.values.shape
    if (clips, classes) != (len(scores.ids), len(scores.classes)) or scores.frames.shape != (clips,):
        raise ValueError(f"{len(scores.ids)} ids and {len(scores.classes)} classes for scores {scores.values.shape}")
    for names in (scores.ids, scores.classes):
        if len(set(names)) < len(names):
            raise ValueError(f"a name twice: {Counter(names).most_common(1)[0][0]!r}")
    width = max(1, _BLOCK // max(classes * most, 1))
    for first in range(0, clips, width):
        rows = slice(first, first + width)
        wrong = ~np.isfinite(scores.values[rows]) & (np.arange(most) < scores.frames[rows, None, None])
        if wrong.any():
            clip, label, frame = np.argwhere(wrong)[0]
            name = scores.ids[first + clip]
            raise ValueError(
                f"the score of clip {name!r}, class {scores.classes[label]!r}, frame {frame} is not finite"
            )


def _written(dtype: np.dtype) -> np.dtype:
    """What numbers are written and read as: float16 has no text of its own."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _class_names(path: Path) -> list[str]:
    """The classes that the first line names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter="\t"), [])
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        _fault(path, 1, f"not a tab-separated UTF-8 table ({fault})", "write the table again")
    if names[:2] != ["onset", "offset"] or len(names) < 3:
        found = ", ".join(names[:4]) or "nothing"
        _fault(path, 1, f"the columns must be onset, offset and the classes, not {found}", "write the table again")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        _fault(path, 1, f"a column twice: {', '.join(twice)}", "write the table again")
    return names[2:]


def _table(path: Path, classes: int, kind: Any) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """((2, T) onsets and offsets, (C, T) scores) of a table whose first line was read."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = [str(number) for number in range(classes + 2)]
    kinds = dict.fromkeys(names, kind) | dict.fromkeys(names[:2], pa.float64())
    try:
        table = arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(use_threads=False, skip_rows=1, column_names=names),
            arrow_csv.ParseOptions(delimiter="\t"),
            arrow_csv.ConvertOptions(column_types=kinds, null_values=[]),
        )
    except pa.ArrowInvalid as fault:
        _refuse_line(path, classes, str(fault))
    columns = [column.to_numpy() for column in table.columns]
    values = np.stack(columns[2:])
    if not table.num_rows:
        _fault(path, None, "no frames", "write the table again, or leave the clip out")
    for part in (np.stack(columns[:2]), values):
        if not np.isfinite(part).all():
            _fault(
                path, _line(path, int(np.argwhere(~np.isfinite(part).all(0))[0, 0])), "a number is not finite", _AGAIN
            )
    return np.stack(columns[:2]), values


_AGAIN = "score the clip again"


def _frame_length(path: Path, times: NDArray[np.float64]) -> float:
    """Seconds of a frame. Raises DataError, naming the line, unless frames follow each other from 0 and are alike."""
    onset, offset = times
    lengths = offset - onset
    usual = float(np.median(lengths))
    faults: list[tuple[NDArray[np.bool_], Callable[[int], str]]] = [
        (np.diff(onset, prepend=-np.inf) <= 0, lambda n: f"onset {onset[n]:g} after {onset[n - 1]:g}: not in order"),
        (lengths <= 0, lambda n: f"offset {offset[n]:g} is not after onset {onset[n]:g}"),
        (
            np.abs(onset - np.append(0.0, offset[:-1])) > _NEAR,
            lambda n: f"onset {onset[n]:g} where {offset[n - 1] if n else 0:g} should follow: a gap or an overlap",
        ),
        (np.abs(lengths - usual) > _NEAR, lambda n: f"a frame of {lengths[n]:.6g} s, others of {usual:.6g} s"),
    ]
    for wrong, words in faults:
        if wrong.any():
            number = int(wrong.argmax())
            cure = "frames must start at 0, follow each other and be of one length"
            _fault(path, _line(path, number), words(number), cure)
    # whatever gives these times when multiplied and rounded to microseconds; of that the number with fewest digits
    count = np.arange(1, len(offset) + 1)
    low, high = ((offset - _ROUNDED) / count).max(), ((offset + _ROUNDED) / count).min()
    middle = float(low + high) / 2
    plain = (round(middle, digits) for digits in range(1, 13))
    return next((length for length in plain if low <= length <= high), middle)


def _refuse_line(path: Path, classes: int, words: str) -> NoReturn:
    """Raises DataError naming the first line that does not have so many numbers."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter="\t")
        next(reader, None)
        for row in reader:
            if row and len(row) != classes + 2:
                _fault(path, reader.line_num, f"{len(row)} columns, the first line has {classes + 2}", _AGAIN)
            for text in row:
                try:
                    float(text)
                except ValueError:
                    _fault(path, reader.line_num, f"{text!r} is no number", _AGAIN)
    _fault(path, None, words, _AGAIN)


def _line(path: Path, row: int) -> int:
    """The line of a row of numbers, counted without empty lines."""
    with path.open(encoding="utf-8", errors="replace") as file:
        filled: Sequence[int] = [number for number, text in enumerate(file, 1) if text.strip("\r\n")]
    return filled[row + 1]


def _fault(path: Path, line: int | None, message: str, cure: str) -> NoReturn:
    raise DataError(message, place=str(path) if line is None else f"{path}:{line}", cure=cure)
