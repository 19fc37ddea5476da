"""Logits of teachers on the disk, in the published HDF5 layout, read a few clips at a time.

    filenames       (N,) names of clips, bytes or text
    strong_logits   (N, C, T) floats, float16 as published, class before frame; or of clips `logits` or `weak_logits`,
                    (N, C)
    classes         (C,) names of the classes, in our files only
    attribute c2f   JSON, in our files only: what the file was made of

The layout is that of the pseudo-labels of Schmid et al. (ICASSP 2025; fschmid56/PretrainedSED), whose files have no
names of classes: they are taken to be those of the run, in its order. N clips, B clips of a batch, C classes, T frames.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from c2ftool.errors import DataError, MissingError

Half = npt.NDArray[np.float16]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NAMES, STRONG, CLIPS, CLASSES, RECORD = "filenames", "strong_logits", ("logits", "weak_logits"), "classes", "c2f"
LARGEST = 65504.0  # of float16
PARTIAL = ".partial"  # added to the name while a file is written
_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".mp4", ".webm")
_LAYOUT = f"The layout is: {NAMES} (N,) names, {STRONG} (N, classes, frames) floats, or {CLIPS[0]} (N, classes)."
_SHOWN = 5


class _Rows(Protocol):
    """Where rows come from."""

    def read(self, row: int, out: npt.NDArray[Any]) -> None:
        """Fill `out`, which has the file's type and a row's shape."""


class _Plain:
    """Rows of a dataset that lies in the file as one piece, read from there.

    Not by a memory map: what was read of one stays in the process's memory, and a disk that fails ends the process.
    """

    def __init__(self, path: Path, offset: int, row_bytes: int) -> None:
        self._path, self._offset, self._row_bytes = path, offset, row_bytes
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._handle)

    def read(self, row: int, out: npt.NDArray[Any]) -> None:
        left, place = out.view(np.uint8).data.cast("B"), self._offset + row * self._row_bytes
        while left:
            count = os.preadv(self._handle, [left], place)
            if not count:
                raise DataError("the file ends early", place=str(self._path), cure="Copy or write it again.")
            left, place = left[count:], place + count


class _Pieces:
    """Rows of a dataset that is compressed or lies in pieces, read by h5py, which lets one thread in at a time."""

    def __init__(self, path: Path, dataset: str) -> None:
        self._path, self._file = path, _opened(path)
        weakref.finalize(self, self._file.close)
        self._dataset = self._file[dataset]

    def read(self, row: int, out: npt.NDArray[Any]) -> None:
        try:
            self._dataset.read_direct(out, np.s_[row])
        except OSError as fault:
            raise DataError(f"cannot be read: {fault}", place=str(self._path), cure="Copy or write it again.") from None


class LogitsFile:
    """The logits of a file, by row.

    names: of the clips, as the file has them. classes: the names of its columns; None where it has none. shape: of a
    row, (C, T) or (C,). record: what the writer of a file of ours said of it. made: see `made_of`; None for others'.
    """

    def __init__(
        self,
        path: Path,
        names: list[str],
        classes: list[str] | None,
        dataset: tuple[tuple[int, ...], np.dtype[Any], int | None, str],
        about: Mapping[str, Any] | None,
    ) -> None:
        """dataset: (shape of a row, type, where it begins in the file if it is one piece, name)."""
        self.path, self.names, self.classes = path, names, classes
        self.shape, self._type, offset, name = dataset
        self.record: dict[str, Any] | None = None if about is None else about.get("record")
        self.made: dict[str, str] | None = None if about is None else about.get("made")
        self._by_name, self._by_clip = _numbered(names)
        row_bytes = int(np.prod(self.shape)) * self._type.itemsize
        self._rows: _Rows = _Pieces(path, name) if offset is None else _Plain(path, offset, row_bytes)

    @classmethod
    def open(cls, path: Path, *, unfinished: bool = False) -> LogitsFile:
        """The file, of which only the names are read. Raises MissingError, or DataError for what cannot be used.

        unfinished: also one that is being written (`LogitsWriter`), where not all rows hold logits.
        """
        begun = path.with_name(path.name + PARTIAL)
        if not path.is_file():
            more = f"; {begun.name} was begun and not finished" if begun.is_file() else ""
            cure = "Give the command that stores the teachers' logits (again), or check the path."
            raise MissingError(f"no such logits file{more}", place=str(path), cure=cure)
        if path.name.endswith(PARTIAL) and not unfinished:
            raise DataError("it is not finished", place=str(path), cure="Give the command that writes it again.")
        with _opened(path) as file:
            name = _logits_name(file, path)
            dataset = file[name]
            names = _texts(_dataset(file, NAMES, path), path)
            shape = tuple(int(side) for side in dataset.shape)
            if dataset.dtype.kind != "f":
                raise _unusable(path, f"{name} holds {dataset.dtype}, not floats")
            wanted = 3 if name == STRONG else 2
            if len(shape) != wanted or not all(shape):
                axes = "(clips, classes, frames)" if wanted == 3 else "(clips, classes)"
                raise _unusable(path, f"{name} has the shape {shape}, not {axes}")
            if shape[0] != len(names):
                raise _unusable(path, f"{len(names)} {NAMES}, and {name} of {shape[0]} clips")
            classes = _texts(_dataset(file, CLASSES, path), path) if CLASSES in file else None
            if classes is not None and len(classes) != shape[1]:
                raise _unusable(path, f"{len(classes)} {CLASSES}, and {name} of {shape[1]}")
            for what, texts in ((NAMES, names), (CLASSES, classes or [])):
                if twice := repeated(texts):
                    raise _unusable(path, f"{what} more than once: {some(twice)}")
            offset = _offset(dataset, path)
            about = _about(file, path)
            return cls(path, names, classes, (shape[1:], dataset.dtype, offset, name), about)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def frames(self) -> int | None:
        """The frames of a clip; None for logits of clips."""
        return self.shape[1] if len(self.shape) == 2 else None

    def find(self, ids: Sequence[str]) -> Int64:
        """The rows of these clips, -1 for those that the file lacks.

        Names are compared as they are, else without a suffix of an audio file at their end (`clip_name`).
        """
        rows = (self._by_name.get(name, self._by_clip.get(clip_name(name), -1)) for name in ids)
        return np.fromiter(rows, np.int64, len(ids))

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of these clips that the file lacks."""
        return [name for name, row in zip(ids, self.find(ids), strict=True) if row < 0]

    def read(self, rows: npt.ArrayLike, out: Half | None = None) -> Half:
        """(B, C, T) float16 logits of these rows, or (B, C); any number of threads may read.

        out: filled and returned, where it is given. Values beyond float16 are its largest. Raises DataError naming the
        clip where a logit is not finite; IndexError for a row that there is not.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(f"rows {chosen.min()}..{chosen.max()} of {len(self)}")
        made = np.empty((len(chosen), *self.shape), np.float16) if out is None else out
        if made.shape != (len(chosen), *self.shape) or made.dtype != np.float16 or not made.flags.c_contiguous:
            raise ValueError(f"out must be {(len(chosen), *self.shape)} float16 in one piece")
        whole = np.empty(self.shape, self._type) if self._type != np.float16 else None
        bits = np.empty(self.shape, np.uint16)
        for place in np.argsort(chosen, kind="stable"):  # in the disk's order
            row = int(chosen[place])
            if whole is None:
                self._rows.read(row, made[place])
                # infinities and NaN have all bits of the exponent set; numpy's own test of halves takes far longer
                finite = np.bitwise_and(made[place].view(np.uint16), 0x7C00, out=bits).max() < 0x7C00
            else:
                self._rows.read(row, whole)
                finite = bool(np.isfinite(whole).all())
                made[place] = whole.clip(-LARGEST, LARGEST) if finite else 0
            if not finite:
                cure = "Store the teachers' logits again."
                raise DataError(f"logits of {self.names[row]} are not finite", place=str(self.path), cure=cure)
        return made

    def align(self, run_classes: Sequence[str]) -> tuple[Int64, Bools]:
        """`align_classes` of this file's columns."""
        return align_classes(self.classes, run_classes, count=self.shape[0], place=str(self.path))


def align_classes(
    file_classes: Sequence[str] | None, run_classes: Sequence[str], *, count: int, place: str | None = None
) -> tuple[Int64, Bools]:
    """((C,) column of each class of the run, (C,) whether there is one); the column of a class without one is 0.

    file_classes: names of the file's columns, in order; None where it does not tell: then its columns are the run's
    classes, in their order. count: columns of the file. Raises DataError where there are more or fewer of them, or
    where no class of the run has a column.
    """
    wanted = len(run_classes)
    if file_classes is None:
        if count != wanted:
            raise DataError(
                f"logits of {count} classes without their names; the run has {wanted} classes",
                place=place,
                cure=f"Choose the classes that the teachers have, or add a dataset `{CLASSES}` with the names of the "
                "columns to the file.",
            )
        return np.arange(wanted), np.ones(wanted, np.bool_)
    columns = {name: column for column, name in enumerate(file_classes)}
    known = np.array([name in columns for name in run_classes], np.bool_)
    if not known.any():
        raise DataError(
            f"no class of the run has logits: it has {some(run_classes)}; the file {some(file_classes)}",
            place=place,
            cure="Choose the teachers, or the classes, to be of the same data.",
        )
    return np.array([columns.get(name, 0) for name in run_classes], np.int64), known


def clip_name(name: str) -> str:
    """The name without a suffix of an audio file at its end."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in _SUFFIXES else name


def made_of(
    ids: Sequence[str], classes: Sequence[str], frames: int | None, record: Mapping[str, Any]
) -> dict[str, str]:
    """What a file of ours is made of: equal for equal clips, classes, frames and records, each in its own entry."""

    def digest(value: object) -> str:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    values: dict[str, object] = {"clips": list(ids), "classes": list(classes), "record": dict(record)}
    return {name: digest(value) for name, value in values.items()} | {"frames": str(frames)}


def differences(made: Mapping[str, str] | None, wanted: Mapping[str, str]) -> list[str]:
    """The entries of `made_of` in which a file is another than the one wanted; none for the same."""
    return [name for name in wanted if made is None or made.get(name) != wanted[name]]


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)  # a lock that network file systems refuse; files are not changed
    except OSError as fault:
        raise _unusable(path, f"not an HDF5 file that can be read ({fault})") from None


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise _unusable(path, f"it has no dataset {name}; there are: {', '.join(file) or 'none'}")
    return found


def _logits_name(file: h5py.File, path: Path) -> str:
    name = next((name for name in (STRONG, *CLIPS) if name in file), STRONG)
    return str(_dataset(file, name, path).name).removeprefix("/")


def _texts(dataset: h5py.Dataset, path: Path) -> list[str]:
    """The texts of a dataset of bytes or text."""
    name = str(dataset.name).removeprefix("/")
    if dataset.ndim != 1 or h5py.check_string_dtype(dataset.dtype) is None:
        raise _unusable(path, f"{name} is no list of names, but {dataset.dtype} of the shape {dataset.shape}")
    try:
        return [text if isinstance(text, str) else bytes(text).decode() for text in dataset[:]]
    except UnicodeDecodeError as fault:
        raise _unusable(path, f"{name} is not UTF-8 ({fault})") from None


def some(names: Sequence[str]) -> str:
    """The first few of the names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def repeated(names: Sequence[str]) -> list[str]:
    """The names that are there more than once, each once."""
    return [name for name, times in Counter(names).items() if times > 1]


def _offset(dataset: h5py.Dataset, path: Path) -> int | None:
    """Where the dataset begins in the file; None where it does not lie there as one piece."""
    if dataset.chunks is not None or dataset.external or dataset.is_virtual:
        return None
    offset = dataset.id.get_offset()
    if offset is not None and offset + dataset.nbytes > path.stat().st_size:
        raise _unusable(path, "the file ends early")
    return None if offset is None else int(offset)


def _about(file: h5py.File, path: Path) -> dict[str, Any] | None:
    """What a file of ours says of itself."""
    text = file.attrs.get(RECORD)
    if text is None:
        return None
    try:
        about = json.loads(text)
    except (TypeError, ValueError):
        about = None
    if not isinstance(about, dict):
        raise _unusable(path, f"its attribute {RECORD} cannot be read")
    return about


def _numbered(names: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """(row of each name, row of each name without suffix where that is only one name's)."""
    by_name = {name: row for row, name in enumerate(names)}
    clips = [clip_name(name) for name in names]
    if clips == names:
        return by_name, by_name
    times = Counter(clips)
    return by_name, {clip: row for row, clip in enumerate(clips) if times[clip] == 1}


def _unusable(path: Path, why: str) -> DataError:
    return DataError(why, place=str(path), cure=_LAYOUT)
