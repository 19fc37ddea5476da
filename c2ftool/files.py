"""Files that appear whole or not at all, locks, and what a full disk says.

A file is written under a temporary name in its own folder, flushed to the disk and renamed, so that a process killed at
any moment leaves the old file or the new one. Errors of the file system become RunError (exit code 1).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from c2ftool.errors import C2FError, RunError, UsageError

_counter = itertools.count()
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# torch.save reports a full disk as a RuntimeError without errno; safetensors gives the number in its message only.
_TORCH_FULL = ("unexpected pos", "PytorchStreamWriter failed writing")
_NUMBER = re.compile(r"\(os error (\d+)\)")


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_name(path: Path) -> Path:
    """A hidden name beside `path` that no other process or call uses."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{next(_counter)}.partial")


@contextlib.contextmanager
def translate_failure(place: Path) -> Iterator[None]:
    """Turns a full disk, a folder that cannot be written and other file system errors into RunError naming `place`."""
    try:
        yield
    except C2FError:
        raise
    except Exception as fault:
        number = _number(fault)
        cut_off = not isinstance(fault, OSError) and any(words in str(fault) for words in _TORCH_FULL)
        if number is None and not cut_off and not isinstance(fault, OSError):
            raise
        words = os.strerror(number) if number is not None else str(fault)
        if number in _FULL or cut_off:
            message = "disk full" if cut_off else f"disk full ({words})"
            cure = "Make room or write elsewhere, then give the same command again."
        elif number in _REFUSED:
            message = f"cannot be written: {words}"
            cure = "Choose a folder that you may write to, or change its permissions."
        else:
            message = f"cannot be written: {words}"
            cure = "Check that the folder exists, that no part of its path is a file, and the file system."
        raise RunError(message, place=str(place), cure=cure) from fault


def _number(fault: BaseException) -> int | None:
    """The system's error number, as far as the fault tells; None for a fault of another kind."""
    seen: BaseException | None = fault
    while seen is not None:  # torch raises its own error while handling the one with the number
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen.errno
        if told := _NUMBER.search(str(seen)):
            return int(told[1])
        seen = seen.__cause__ or seen.__context__
    return None


def write_atomically(path: Path, content: bytes | str | Callable[[Path], object]) -> None:
    """Write a file whole: bytes, text (UTF-8), or what a callback writes to the temporary path it is given.

    The folder must exist. Whatever goes wrong, `path` keeps what it held and nothing else stays behind. Raises RunError
    where the file system refuses or is full.
    """
    temporary = temporary_name(path)
    with translate_failure(path):
        try:
            if callable(content):
                temporary.touch()
                mode = temporary.stat().st_mode
                content(temporary)
                temporary.chmod(stat.S_IMODE(mode))  # safetensors puts a file there that only its owner may read
            else:
                temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            to_disk(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        to_disk(path.parent)


def publish_folder(temporary: Path, final: Path) -> None:
    """Give a finished folder its final name, its files flushed first; `final` must not exist or be an empty folder.

    Raises RunError where the file system refuses or is full.
    """
    with translate_failure(final):
        for folder, _, names in os.walk(temporary):
            for name in names:
                to_disk(Path(folder) / name)
            to_disk(Path(folder))
        temporary.rename(final)
        to_disk(final.parent)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole, keys in the order given. Raises RunError where the file system refuses or is full."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def to_disk(path: Path) -> None:
    """Flush a file or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_space_check(folder: Path, needed: int) -> None:
    """Raises RunError if the disk of `folder` (which need not exist yet) has fewer than `needed` bytes free."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise RunError(
            f"disk full: {needed / 1e9:.3g} GB are needed, {free / 1e9:.3g} GB are free",
            place=str(folder),
            cure="Make room or write elsewhere, then give the same command again.",
        )


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Holds a lock on the file `path`, which is made if it is not there and says who holds it.

    Exclusive, or `shared` with others that ask for it so.

    Held by another process: waits for it (`wait`), or raises UsageError naming the process and its host. The system
    releases the lock when the process ends, however it ends; the file stays, since removing it would race.
    """
    with translate_failure(path):
        file = path.open("a+")
    with file:
        try:
            with translate_failure(path):
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except RunError as fault:
            if isinstance(fault.__cause__, BlockingIOError):
                raise UsageError(
                    f"in use by {_holder(file)}", place=str(path), cure="Wait for it to end, or use another name."
                ) from None
            raise
        _write_holder(file, {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")})
        try:
            yield
        finally:
            _write_holder(file, None)


def _holder(file: TextIO) -> str:
    """Who holds a lock, as far as its file tells."""
    try:
        file.seek(0)
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # the holder is just writing it
        return "another process"


def _write_holder(file: TextIO, holder: dict[str, object] | None) -> None:
    """The note is for people only, so a full disk must not fail the lock."""
    with contextlib.suppress(OSError):
        file.truncate(0)
        if holder is not None:
            file.write(json.dumps(holder))
        file.flush()
