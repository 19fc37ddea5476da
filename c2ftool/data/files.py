"""Files that appear whole or not at all: a temporary name beside the final one, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from c2ftool.errors import RunError, UsageError


class HashingFile:
    """A writable binary file that keeps the SHA-256 and the size of what went through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self.size += len(view)
        self._file.write(view)
        return len(view)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[HashingFile]:
    """A file to write that becomes `path` when the block ends well and vanishes when it does not."""
    temporary = path.with_name(f"{path.name}.tmp-{socket.gethostname()}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield HashingFile(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file whole, keys in the order given."""
    with written_whole(path) as file:
        file.write((json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Makes renames in the folder lasting."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Holds the lock file; raises UsageError at once where another process holds it and `wait` is off.

    The lock ends with the process, however it ends. The file stays: removing it would race with a waiting process.
    """
    with path.open("a") as file:
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(file, how)
        except BlockingIOError as error:
            raise UsageError(
                "another `c2f prepare` is writing this set",
                place=str(path),
                cure="wait for it, or give another --name; parts of one job array (--part i/n) may run together",
            ) from error
        yield


@contextlib.contextmanager
def disk_faults(place: Path) -> Iterator[None]:
    """Turns the faults of an output folder (full, read-only, not permitted) into RunError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise RunError(
            "the disk is full" if full else f"cannot write: {error.strerror or error}",
            place=str(place),
            cure="make room and give the same command again: finished shards are kept"
            if full
            else "give --to a folder that can be written, or set C2F_DATA",
        ) from error
