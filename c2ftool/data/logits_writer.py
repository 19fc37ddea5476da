"""Writing logits of teachers in the published HDF5 layout (see logits.py), in any order and in any number of sessions.

The HDF5 file is made whole at once, its logits as one piece that is yet empty, under the name PATH.partial. From then
on rows are written into that piece directly, and HDF5's own structures are never touched again; a second file beside
it, PATH.partial.rows, has a byte for every clip, which is set once the clip's logits are on the disk. So a process, or
a machine, that stops at any moment loses the rows of one call of `write`, and no row that counts as done is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from c2ftool.data.logits import (
    CLASSES,
    CLIPS,
    LARGEST,
    NAMES,
    PARTIAL,
    RECORD,
    STRONG,
    Int64,
    LogitsFile,
    differences,
    made_of,
    repeated,
    some,
)
from c2ftool.errors import DataError, RunError, UsageError
from c2ftool.files import free_space_check, lock, to_disk, translate_failure, write_atomically

_DONE, _CLIPPED = 1, 2  # what a clip's byte says
_Bytes = npt.NDArray[np.uint8]


class LogitsWriter:
    """A logits file in the making; a context manager, one process at a time.

    N clips, C classes, T frames. resumed: clips that an earlier session had done.
    """

    def __init__(
        self,
        path: Path,
        ids: Sequence[str],
        classes: Sequence[str],
        frames: int | None,
        record: Mapping[str, Any],
        *,
        anew: bool = False,
    ) -> None:
        """Begin, or go on with what was begun of the same clips, classes, frames and record (JSON values).

        frames: None for logits of clips, (N, C). anew: drop what was begun, and replace a finished file in the end.
        Raises UsageError where the file exists or another process writes it, DataError where what was begun is of
        something else or a name stands there twice, RunError where there is no room.
        """
        self.path, self.ids, self.resumed = path, list(ids), 0
        self.shape = (len(classes),) if frames is None else (len(classes), frames)
        self._partial = path.with_name(path.name + PARTIAL)
        self._marks_path = path.with_name(path.name + PARTIAL + ".rows")
        self._open = ExitStack()
        _check(self.ids, classes, self.shape, path)
        made = made_of(self.ids, classes, frames, record)
        with translate_failure(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._open.enter_context(lock(path.with_name(f".{path.name}.lock")))
        try:
            self._begin(classes, record, made, anew)
        except BaseException:
            self.close()
            raise

    def _begin(self, classes: Sequence[str], record: Mapping[str, Any], made: dict[str, str], anew: bool) -> None:
        if self.path.exists() and not anew:
            raise UsageError("the file exists", place=str(self.path), cure="Read it, or write another.")
        begun = self._partial.is_file() and not anew
        if begun and (other := differences(LogitsFile.open(self._partial, unfinished=True).made, made)):
            raise DataError(
                f"what was begun is of another {', another '.join(other)}",
                place=str(self._partial),
                cure="Go on with what it was begun with, remove it, or write to another path.",
            )
        size = len(self.ids) * int(np.prod(self.shape)) * 2
        there = self._partial.stat().st_blocks * 512 if begun else 0
        free_space_check(self.path.parent, max(0, size - there))
        with translate_failure(self._partial):
            if not begun:
                self._marks_path.unlink(missing_ok=True)  # before there is another file that it could belong to
                about = json.dumps({"record": dict(record), "made": made}, ensure_ascii=False, allow_nan=False)
                write_atomically(self._partial, lambda temporary: self._create(temporary, classes, about))
            marks = self._marks_path.read_bytes() if self._marks_path.is_file() else b""
            if len(marks) != len(self.ids):
                marks = bytes(len(self.ids))
                write_atomically(self._marks_path, marks)
            self._marks: _Bytes = np.frombuffer(marks, np.uint8).copy()
            self.resumed = int(np.count_nonzero(self._marks))
            with h5py.File(self._partial, "r", locking=False) as file:
                self._offset = int(file[self._dataset].id.get_offset())
            self._data, self._rows = (self._handle(path) for path in (self._partial, self._marks_path))

    @property
    def _dataset(self) -> str:
        return STRONG if len(self.shape) == 2 else CLIPS[0]

    def _create(self, path: Path, classes: Sequence[str], about: str) -> None:
        """The whole file, with room for the logits, which are not written."""
        with h5py.File(path, "w", locking=False) as file:
            file.create_dataset(NAMES, data=np.array([name.encode() for name in self.ids], np.bytes_))
            file.create_dataset(CLASSES, data=np.array([name.encode() for name in classes], np.bytes_))
            file.attrs[RECORD] = about
            kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            kind.set_layout(h5py.h5d.CONTIGUOUS)
            kind.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            kind.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple((len(self.ids), *self.shape))
            h5py.h5d.create(file.id, self._dataset.encode(), h5py.h5t.py_create(np.dtype(np.float16)), space, kind)

    def _handle(self, path: Path) -> int:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._open.callback(os.close, handle)
        return handle

    def todo(self) -> Int64:
        """The rows that are not yet done, in order."""
        return np.flatnonzero(self._marks == 0)

    @property
    def clipped(self) -> int:
        """The clips, of all sessions, with logits beyond float16, which were made its largest."""
        return int(np.count_nonzero(self._marks == _CLIPPED))

    def write(self, rows: npt.ArrayLike, logits: npt.NDArray[np.floating[Any]]) -> None:
        """Write (B, C, T) logits of these rows; they are done when it returns, each call flushes the disk.

        Raises DataError naming the clip where a logit is not finite: then nothing is written. RunError where the disk
        is full or refuses: the rows are then not done.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        if logits.shape != (len(chosen), *self.shape):
            raise ValueError(f"logits of the shape {logits.shape}, not {(len(chosen), *self.shape)}")
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self.ids)):
            raise IndexError(f"rows {chosen.min()}..{chosen.max()} of {len(self.ids)}")
        flat = logits.reshape(len(chosen), -1)
        if not (finite := np.isfinite(flat).all(1)).all():
            name = self.ids[int(chosen[int(np.argmin(finite))])]
            cure = "The teachers' scores overflow or are not numbers: let them compute in float32, or choose others."
            raise DataError(f"logits of {name} are not finite", place=str(self.path), cure=cure)
        large = (np.abs(flat) > LARGEST).any(1)
        halves = (flat.clip(-LARGEST, LARGEST) if large.any() else flat).astype(np.float16)
        with translate_failure(self.path):
            for row, half in zip(chosen.tolist(), halves, strict=True):
                _put(self._data, half.data, self._offset + row * half.nbytes)
            os.fdatasync(self._data)  # before anything says that they are there
            for row, mark in zip(chosen.tolist(), np.where(large, _CLIPPED, _DONE).tolist(), strict=True):
                _put(self._rows, memoryview(bytes([mark])), row)
                self._marks[row] = mark

    def finish(self) -> None:
        """Give the file its name. Raises RunError where clips are not done; then it can be gone on with."""
        if len(left := self.todo()):
            names = some([self.ids[row] for row in left])
            cure = "Give the same command again: it goes on where it stopped."
            raise RunError(f"{len(left)} clips have no logits: {names}", place=str(self._partial), cure=cure)
        with translate_failure(self.path):
            os.fsync(self._data)
            self._partial.replace(self.path)
            to_disk(self.path.parent)
            self._marks_path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """End the session; what is done stays."""
        self._open.close()

    def __enter__(self) -> LogitsWriter:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()


def _check(ids: Sequence[str], classes: Sequence[str], shape: tuple[int, ...], path: Path) -> None:
    if not ids or not all(shape):
        raise ValueError(f"no logits of {len(ids)} clips with {shape} each")
    for what, names in (("clips", ids), ("classes", classes)):
        if wrong := [name for name in names if not _storable(name)]:
            cure = "Names are UTF-8 text, without the character 0."
            raise DataError(f"names of {what} that cannot be stored: {some(wrong)!r}", place=str(path), cure=cure)
        if twice := repeated(names):
            cure = "Logits are found by name: each must stand for one."
            raise DataError(f"names of {what} more than once: {some(twice)}", place=str(path), cure=cure)


def _storable(name: str) -> bool:
    try:
        return bool(name) and b"\0" not in name.encode()
    except UnicodeEncodeError:
        return False


def _put(handle: int, content: memoryview, place: int) -> None:
    """Write all of it at that place of the file."""
    left = content.cast("B")
    while left:
        count = os.pwrite(handle, left, place)
        left, place = left[count:], place + count
