"""Tensors of any weights file: safetensors, torch's zip format, torch's legacy format.

Nothing in a file is ever run. What is no weights file (an HTML page saved by mistake, a cut-off download, a TorchScript
program) is refused with one DataError that says what it is.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from c2ftool.errors import DataError, MissingError
from c2ftool.models.public.archive import DamagedArchive, Inert, StoredTensor, read_archive

# Where training programs put the weights in the dictionary they save; optimiser state beside them is not read.
_WRAPPERS = ("model", "state_dict", "model_state_dict")
_DEEPEST = 8
_CURE = "Download or copy the file again; if it comes from another program, save its tensors as safetensors."
# Classes whose state weights do not need, met in legacy files; zip files need no list.
_LEGACY_INERT = (
    "argparse.Namespace",
    "collections.defaultdict",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "typing.Any",
)


@dataclass(frozen=True)
class PublicFile:
    """What a weights file holds. tensors: by name, nested dictionaries joined with dots. wrapper: how it was packed."""

    tensors: dict[str, Tensor]
    wrapper: str


def read_tensors(path: Path) -> PublicFile:
    """The tensors of a safetensors or torch file, on the CPU, as stored.

    Raises MissingError if there is no such file, DataError if it is damaged or something else.
    """
    match kind_of(path):
        case "safetensors":
            return PublicFile(_safetensors(path), "safetensors")
        case "zip":
            return _zip(path)
        case _:
            return _legacy(path)


def kind_of(path: Path) -> str:
    """`safetensors`, `zip` or `legacy`, by the file's first bytes. Raises MissingError; DataError for anything else."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
        size = path.stat().st_size
    except FileNotFoundError:
        raise MissingError("no such weights file", place=str(path), cure="Check the path.") from None
    except OSError as fault:
        raise DataError(f"cannot be read: {fault.strerror or fault}", place=str(path), cure="Check the path.") from None
    if not head:
        raise _damaged(path, "the file is empty")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") < 100_000_000:
        if int.from_bytes(head[:8], "little") + 8 > size:
            raise _damaged(path, "the safetensors file is cut off")
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "legacy"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        what = "it is a web page, not weights: the address asked for a log-in or a confirmation"
    elif text.startswith(b"version https://git-lfs"):
        what = "it is a Git LFS pointer, not the weights themselves"
    elif head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"\xfd7zXZ")):
        what = "it is a compressed file; unpack it first"
    else:
        what = "it is neither a safetensors nor a torch file"
    raise _damaged(path, what)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"cannot be used as weights: {what}", place=str(path), cure=_CURE)


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file. Raises DataError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as fault:
        raise _damaged(path, f"the safetensors file is damaged or cut off ({fault})") from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
    except (SafetensorError, OSError, ValueError) as fault:
        raise _damaged(path, f"the safetensors file is damaged or cut off ({fault})") from None


def _zip(path: Path) -> PublicFile:
    try:
        root, contents = read_archive(path)
        with contents:
            inner, wrapper = _unwrapped(root)
            found = _flat(inner, StoredTensor)
            return PublicFile(_some({name: contents.tensor(t) for name, t in found.items()}, path), wrapper)
    except DamagedArchive as fault:
        raise _damaged(path, str(fault)) from None
    except OSError as fault:
        raise _damaged(path, f"it cannot be read ({fault.strerror or fault})") from None


def _legacy(path: Path) -> PublicFile:
    """The format of torch before 1.6. Its tensors are made by torch, from classes that are all inert or torch's own."""
    try:
        inert = torch.serialization.safe_globals([(Inert, name) for name in _LEGACY_INERT])
        with inert, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol: it is refused or read, whatever that is
            # the argument must be given: an environment variable overrides its default
            root = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        first = str(fault).split("GLOBAL ", 1)
        asked = (
            f"it asks for {first[1].split()[0]}, which could run code" if len(first) > 1 else "it is no weights file"
        )
        raise _damaged(path, f"in torch's legacy format, {asked}") from None
    except Exception as fault:  # a cut-off or garbled pickle can raise nearly anything
        raise _damaged(path, f"in torch's legacy format, damaged or cut off ({type(fault).__name__})") from None
    inner, wrapper = _unwrapped(root)
    tensors = _flat(inner, Tensor)
    for name, tensor in tensors.items():
        dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not dense or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise _damaged(
                path, f"tensor {name!r} of shape {list(tensor.shape)} is larger than the bytes stored for it"
            )
    return PublicFile(_some({n: t.detach().contiguous() for n, t in tensors.items()}, path), wrapper)


def _some(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    if not tensors:
        raise _damaged(path, "it holds no tensors")
    return tensors


def _unwrapped(root: Any) -> tuple[Any, str]:
    """(the part that holds the weights, what it is called)."""
    if isinstance(root, Mapping):
        for key in _WRAPPERS:
            if isinstance(root.get(key), Mapping):
                return root[key], f"torch dictionary, {key!r}"
    return root, "torch dictionary"


def _flat(value: Any, leaf: type, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """The leaves of nested dictionaries, their keys joined with dots; anything else is passed over."""
    found: dict[str, Any] = {}
    if isinstance(value, Mapping) and depth < _DEEPEST:
        for key, item in value.items():
            if not isinstance(key, str):
                continue
            if isinstance(item, leaf):
                found[prefix + key] = item
            elif isinstance(item, Mapping):
                found |= _flat(item, leaf, f"{prefix}{key}.", depth + 1)
    return found
