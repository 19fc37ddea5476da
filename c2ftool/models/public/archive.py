"""Tensors of a torch zip file, read without running anything the file asks for.

torch.load(weights_only=True) refuses published files whose configuration holds objects of other packages (argparse,
omegaconf, fairseq), and allowing these classes would run their code. Here the pickle is interpreted by a reader that
knows tensors and plain containers; every other class becomes an inert placeholder. Shapes and strides are checked
against the stored bytes before any memory is taken, and the zip's checksums are verified while reading.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

_LARGEST_PICKLE = 256 * 2**20
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class DamagedArchive(Exception):
    """The file is not a readable torch zip file; the message says what is wrong with it."""


class Inert:
    """Stands for an object of a class that weights do not need. It takes anything and does nothing."""

    def __new__(cls, *_: object, **__: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setitem__(self, _: object, __: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass

    def append(self, _: object) -> None:
        """Drops the item."""

    def add(self, _: object) -> None:
        """Drops the item."""

    def extend(self, _: object) -> None:
        """Drops the items."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A storage class: what its elements are."""

    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Storage:
    kind: _Kind
    key: str


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that is described and not read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(*arguments: object) -> StoredTensor:
    """What `torch._utils._rebuild_tensor_v2` becomes: a checked description."""
    match arguments:
        case (_Storage() as storage, int(offset), tuple(shape), tuple(stride), *_) if len(shape) == len(stride) <= 16:
            if not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *stride)):
                raise DamagedArchive("a tensor has an impossible shape")
            return StoredTensor(storage, offset, shape, stride)
    raise DamagedArchive("a tensor is described in an unknown way")


def _parameter(data: object = None, *_: object) -> object:
    """What `torch._utils._rebuild_parameter` becomes: the tensor."""
    return data


_KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): _Kind(dtype) for name, dtype in _DTYPES.items()},
}


class _Reader(pickle._Unpickler):
    """Knows tensors and containers. Plain Python: the C unpickler takes memory for any memo index a file states."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    del dispatch[pickle.BYTEARRAY8[0]]  # takes as much memory as a file states, before anything is read

    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _Kind() as kind, str(key), str(), int()):
                return _Storage(kind, key)
            case ("storage", *_):
                raise DamagedArchive("it holds tensors of a kind that is not supported")
        raise DamagedArchive("it refers to objects outside the file")

    def load_build(self) -> None:
        """Drops the state instead of setting it: no attribute of anything is ever set by a file."""
        self.stack.pop()  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build


def read_archive(path: Path) -> tuple[Any, Contents]:
    """(what the file holds, with StoredTensor for tensors; how to read these). Raises DamagedArchive or OSError."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as fault:
        raise DamagedArchive(f"the zip file is damaged or cut off ({fault})") from fault
    contents = Contents(archive, path.stat().st_size)
    try:
        raw = contents.pickle()
        return _Reader(io.BytesIO(raw)).load(), contents
    except DamagedArchive:
        archive.close()
        raise
    except RecursionError as fault:
        archive.close()
        raise DamagedArchive("its contents are nested too deeply") from fault
    except Exception as fault:  # a garbled pickle can raise nearly anything
        archive.close()
        raise DamagedArchive(f"its list of contents cannot be read ({type(fault).__name__}: {fault})") from fault


class Contents:
    """The storages of an open torch zip file. Close it when the tensors are read."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._size = size
        names = [info.filename for info in archive.infolist()]
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(roots) != 1:
            raise DamagedArchive("it is a zip file, but not one that torch.save wrote")
        self._root = roots[0]
        if f"{self._root}constants.pkl" in names:
            raise DamagedArchive("it is a TorchScript program, not weights")
        self._read: dict[str, bytearray] = {}

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def pickle(self) -> bytes:
        """The list of contents."""
        order = f"{self._root}byteorder"
        if order in self._archive.namelist() and self._bytes(order) != b"little":
            raise DamagedArchive("it was written on a big-endian machine")
        return bytes(self._bytes(f"{self._root}data.pkl", _LARGEST_PICKLE))

    def tensor(self, stored: StoredTensor) -> Tensor:
        """The tensor, contiguous; names tied in the file share memory. Raises DamagedArchive if bytes are missing."""
        dtype = stored.storage.kind.dtype
        itemsize = dtype.itemsize
        name = f"{self._root}data/{stored.storage.key}"
        available = self._size_of(name) // itemsize
        count = math.prod(stored.shape)
        last = stored.offset + sum((n - 1) * s for n, s in zip(stored.shape, stored.stride, strict=True))
        # a stride of 0 can declare any number of elements over a few bytes
        if count > available or (count and last >= available):
            raise DamagedArchive(f"a tensor of shape {list(stored.shape)} is larger than the bytes stored for it")
        if not count:
            return torch.empty(stored.shape, dtype=dtype)
        if name not in self._read:
            self._read[name] = self._bytes(name)
        flat = torch.frombuffer(self._read[name], dtype=dtype, count=available)
        view = flat.as_strided(stored.shape, stored.stride, stored.offset)
        return view.contiguous() if count == available else view.clone(memory_format=torch.contiguous_format)

    def _size_of(self, name: str) -> int:
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            raise DamagedArchive(f"{name} is missing in it") from None
        # torch never compresses, so a compressed entry is no weights file (it could expand to any size)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size or info.flag_bits & 1:
            raise DamagedArchive(f"{name} is compressed, encrypted or larger than the file")
        return info.file_size

    def _bytes(self, name: str, most: int | None = None) -> bytearray:
        size = self._size_of(name)
        if most is not None and size > most:
            raise DamagedArchive(f"{name} is implausibly large ({size / 1e6:.0f} MB)")
        data = bytearray(size)
        try:
            with self._archive.open(name) as file:
                filled = 0
                while filled < size and (count := file.readinto(memoryview(data)[filled:])):  # type: ignore[attr-defined]
                    filled += count
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as fault:
            raise DamagedArchive(f"{name}: {fault}") from fault
        if filled != size:
            raise DamagedArchive(f"{name} is cut off")
        return data
