"""Fetching published checkpoints into a cache, once, whole and checked.

The cache is C2F_CACHE, or ~/.cache/c2ftool/weights. C2F_WEIGHTS_MIRROR names the address of a folder (http or https)
that is asked first, by file name; HF_ENDPOINT, a mirror of Hugging Face that takes its place. A download that broke off
goes on where it stopped, in this call or a later one. Of an archive the one checkpoint on record is taken out.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from c2ftool.errors import DataError, MissingError, UsageError
from c2ftool.files import free_space_check, lock, sha256, translate_failure, write_atomically
from c2ftool.models.public.record import PublicWeights, Source

Progress = Callable[[int, int | None], None]  # bytes there, bytes of the whole file if known

_HUGGING_FACE = "https://huggingface.co"
_ATTEMPTS = 5
_PAUSE = 1.0  # seconds before the second attempt; doubled for each further one
_TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 1 << 20
_DAMAGED = "The file was changed or damaged on its way. Fetch it from elsewhere and name it as file:PATH."
# What hosts answer in place of a file (log-ins, quotas, errors) and Git LFS pointers; their types do not always tell.
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"version https://git-lfs")
# While an answer is read; errors of the disk are RunError by then.
_BROKEN = (OSError, http.client.HTTPException)


class _Unusable(Exception):
    """This address does not give the file, and asking again would not help."""


class _NoSuchPart(ConnectionError):
    """The file ends where the part that was asked for would begin, or before."""

    def __init__(self, total: str) -> None:
        super().__init__("the server has no such part of the file")
        self.total = total


def cache_folder() -> Path:
    """Where downloaded checkpoints are kept: C2F_CACHE, or ~/.cache/c2ftool/weights."""
    return Path(os.environ.get("C2F_CACHE") or Path.home() / ".cache" / "c2ftool" / "weights")


def fetch(record: PublicWeights, *, progress: Progress | None = None) -> Path:
    """The path of the checkpoint's file, downloaded if it is not in the cache.

    Raises MissingError naming the address and where to place the file by hand if no source can be reached, DataError if
    what came is not the file on record (it is deleted), RunError if the disk is full or cannot be written.
    """
    folder = cache_folder()
    for source in record.sources:
        if (folder / source.file).exists():
            return _checked(folder / source.file, source)
    with translate_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for source in record.sources:
        final = folder / source.file
        with lock(folder / f".{source.file}.lock", wait=True):  # other processes of the same job want it too
            if final.exists():
                return _checked(final, source)
            for url, packed in _addresses(source):
                try:
                    _download(url, final, source, packed, progress)
                except _Unusable as reason:
                    failures.append(f"{url}: {reason}")
                    continue
                return final
            if source.browser:
                failures.append(f"{source.page}: only a browser gets the file from there")
    raise MissingError(
        f"public weights {record.name!r} could not be downloaded:\n      " + "\n      ".join(failures),
        cure=f"{_by_hand(record.sources[0], folder)}, or name a mirror's folder in C2F_WEIGHTS_MIRROR.",
    )


def _by_hand(source: Source, folder: Path) -> str:
    """What to do where a file cannot be downloaded."""
    final = folder / source.file
    if source.member:
        return f"Download {source.called} from {source.page}, take {source.member} out of it and place that as {final}"
    return f"Download {source.called or 'the file'} from {source.page} and place it as {final}"


def _addresses(source: Source) -> Iterator[tuple[str, bool]]:
    """(where to ask for a file, whether it comes in an archive), the mirror first."""
    if mirror := _server("C2F_WEIGHTS_MIRROR"):
        yield f"{mirror}/{quote(source.file)}", False
    if source.browser:
        return
    hub = _server("HF_ENDPOINT") if source.url.startswith(f"{_HUGGING_FACE}/") else None
    yield source.url if hub is None else hub + source.url.removeprefix(_HUGGING_FACE), bool(source.member)


def _server(variable: str) -> str | None:
    """The address in an environment variable; None if it is not set. Raises UsageError if it is none."""
    address = os.environ.get(variable)
    if not address:
        return None
    if urlsplit(address).scheme not in ("http", "https"):
        raise UsageError(f"{variable}={address!r} is no http or https address", cure="Correct or unset it.")
    return address.rstrip("/")


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _checked(path: Path, source: Source) -> Path:
    """The path, if its hash is the one on record or the one of its first use; raises DataError if not."""
    with translate_failure(path):
        found = sha256(path)
    kept = _hash_file(path)
    expected = source.sha256
    if expected is None and kept.exists():
        expected = kept.read_text().split(maxsplit=1)[0]
    if expected is not None and found != expected:
        raise DataError(
            f"the file has changed: SHA-256 {found}, expected {expected}",
            place=str(path),
            cure="Delete it to download it again; to use it as it is, name it as file:PATH.",
        )
    if not kept.exists():
        write_atomically(kept, f"{found}  {path.name}\n")
    return path


def _download(url: str, final: Path, source: Source, packed: bool, progress: Progress | None) -> None:
    """Put the file at `final`, whole and checked. Raises _Unusable, DataError or RunError."""
    name = f".{final.name}{'.zip' if packed else ''}"
    partial, tag = final.with_name(f"{name}.partial"), final.with_name(f"{name}.etag")
    for attempt in range(_ATTEMPTS):
        try:
            _continue(url, partial, tag, progress)
            break
        except _BROKEN as fault:
            if attempt + 1 == _ATTEMPTS:
                there = partial.stat().st_size if partial.exists() else 0
                raise _Unusable(f"the connection broke {_ATTEMPTS} times ({fault}), {there} bytes kept") from fault
            time.sleep(_PAUSE * 2**attempt)
    whole = _unpack(partial, url, final, source.member) if packed else partial
    with translate_failure(whole):
        found = sha256(whole)
        if source.sha256 is not None and found != source.sha256:
            whole.unlink()
            partial.unlink(missing_ok=True)
            tag.unlink(missing_ok=True)
            raise DataError(
                f"what came from there has SHA-256 {found}, not {source.sha256}; it was deleted",
                place=url,
                cure=_DAMAGED,
            )
        with whole.open("rb+") as file:
            os.fsync(file.fileno())
        whole.replace(final)
        partial.unlink(missing_ok=True)
        tag.unlink(missing_ok=True)
    write_atomically(_hash_file(final), f"{found}  {final.name}\n")


def _unpack(archive: Path, url: str, final: Path, member: str) -> Path:
    """The path of what was taken out of the archive, which stays. Raises DataError if it is none or holds no such file.

    member: a file's name, in whichever folder of the archive.
    """
    whole = final.with_name(f".{final.name}.partial")
    try:
        with translate_failure(whole), zipfile.ZipFile(archive) as files:
            found = [entry for entry in files.infolist() if PurePosixPath(entry.filename).name == member]
            if len(found) != 1:
                raise zipfile.BadZipFile(f"it holds {len(found)} files {member}")
            free_space_check(whole.parent, found[0].file_size)
            with files.open(found[0]) as packed, whole.open("wb") as out:
                shutil.copyfileobj(packed, out, _BLOCK)  # raises where the archive's own checksum does not fit
    except (zipfile.BadZipFile, zlib.error, EOFError) as fault:
        whole.unlink(missing_ok=True)
        archive.unlink()
        raise DataError(
            f"what came from there is no archive with the checkpoint ({fault}); it was deleted",
            place=url,
            cure=_DAMAGED,
        ) from None
    return whole


def _continue(url: str, partial: Path, tag: Path, progress: Progress | None) -> None:
    """Read what is missing of the file. Raises one of _BROKEN if the connection ends early, or _Unusable."""
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "c2ftool"}
    if start and tag.exists():  # without a tag the parts could be of two versions of the file
        headers |= {"Range": f"bytes={start}-", "If-Range": tag.read_text()}
    request = urllib.request.Request(url, headers=headers)
    try:
        opened = _open(request)
    except _NoSuchPart as fault:
        if fault.total == f"bytes */{start}":  # it was whole, and only the renaming was missing
            return
        tag.unlink()
        raise
    with opened as answer:
        resumed = answer.status == 206
        if resumed:
            sent = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if sent is None or int(sent[1]) != start:
                tag.unlink()  # the next attempt asks for the whole file
                raise ConnectionError("the server sent another part than was asked for")
            total = None if sent[2] == "*" else int(sent[2])
        else:
            start = 0
            length = answer.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise _Unusable("a web page came instead of the file")
        there, block = start, answer.read(_BLOCK)
        if not resumed and block[:256].lstrip().lower().startswith(_PAGES):
            raise _Unusable("a web page or a pointer came instead of the file")
        with translate_failure(partial):
            if total is not None:
                free_space_check(partial.parent, total - start)
            tag.unlink(missing_ok=True)
            file = partial.open("ab" if resumed else "wb")
        with file:
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            if version and not version.startswith("W/"):  # weak tags do not promise equal bytes
                with translate_failure(tag):  # after the file was emptied: it never stands beside another version
                    tag.write_text(version)
            while block:
                with translate_failure(partial):
                    file.write(block)
                there += len(block)
                if progress is not None:
                    progress(there, total)
                block = answer.read(_BLOCK)
            with translate_failure(partial):
                file.flush()
        if total is not None and there != total:
            raise ConnectionError(f"{there} of {total} bytes came")


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    """The server's answer. Raises ConnectionError where asking again may help, _Unusable where it would not."""
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as fault:
        if fault.code == 416:
            raise _NoSuchPart(fault.headers.get("Content-Range", "")) from fault
        if fault.code in (408, 429) or fault.code >= 500:
            raise ConnectionError(f"HTTP {fault.code} {fault.reason}") from fault
        raise _Unusable(f"HTTP {fault.code} {fault.reason}") from fault
    except urllib.error.URLError as fault:
        passing = isinstance(fault.reason, ConnectionError | TimeoutError)
        if passing and not isinstance(fault.reason, ConnectionRefusedError):
            raise ConnectionError(str(fault.reason)) from fault
        raise _Unusable(f"not reachable ({fault.reason})") from fault
