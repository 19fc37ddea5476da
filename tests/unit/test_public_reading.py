"""Weights files of any kind are read without running anything in them; what is none is refused in one sentence."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from c2ftool.errors import DataError, MissingError
from c2ftool.models.public import archive as public_archive
from c2ftool.models.public.reading import read_tensors


def test_old_torch_files_are_read_too(tmp_path):
    plain = {"a.weight": torch.randn(5, 3), "a.bias": torch.arange(5), "half": torch.ones(2).half()}
    torch.save({"model": plain, "args": argparse.Namespace(lr=1)}, tmp_path / "x", _use_new_zipfile_serialization=False)
    read = read_tensors(tmp_path / "x").tensors
    assert all(torch.equal(read[n], t) for n, t in plain.items()) and read.keys() == plain.keys()


def test_parameters_views_and_all_number_kinds_are_read(tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
    tensors = {
        "parameter": torch.nn.Parameter(base.clone()),
        "transposed": base.t(),
        "part": base[1:3, 2:4],
        "tied": base,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        **{str(kind): base.to(kind) for kind in kinds},
    }
    torch.save({"state_dict": OrderedDict(tensors)}, tmp_path / "x.pt")
    read = read_tensors(tmp_path / "x.pt").tensors
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor.detach()) and read[name].dtype == tensor.dtype, name
        assert read[name].is_contiguous()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"mkdir {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("force_full_pickle", [False, True])
def test_code_in_a_file_never_runs(tmp_path, monkeypatch, zipped, force_full_pickle):
    if force_full_pickle:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "ran"
    content = {"model": {"a": torch.ones(3), "b": Evil(mark)}, "cfg": Evil(mark)}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    if zipped:  # what is not a tensor is passed over
        assert read_tensors(tmp_path / "x.pt").tensors.keys() == {"a"}
    else:
        with pytest.raises(DataError, match=r"asks for .*system"):
            read_tensors(tmp_path / "x.pt")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))  # the trap works
    assert mark.exists()


def archive(path: Path, content: bytes, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("x/data.pkl", content)
        for key, data in storages.items():
            file.writestr(f"x/data/{key}", data)
    return path


def described(shape: str, stride: str, offset: int = 0) -> bytes:
    """A pickle of {'model': {'a': tensor}} with any shape and stride, over storage '0'."""
    return (
        b"(dVmodel\n(dVa\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\ntQ"
        + f"I{offset}\n{shape}{stride}I00\nccollections\nOrderedDict\n)RtRss.".encode()
    )


def test_a_described_tensor_is_read_if_it_is_honest(tmp_path):
    path = archive(tmp_path / "x", described("(I2\nI2\nt", "(I1\nI2\nt"), {"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert read_tensors(path).tensors["a"].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ("(I1000000\nI1000000\nt", "(I0\nI0\nt", 0),  # 10^12 elements over one number
        ("(I5\nt", "(I1\nt", 0),
        ("(I2\nI2\nt", "(I2\nI1\nt", 1),
        ("(I2\nt", "(I100\nt", 0),
        ("(I2\nt", "(I-1\nt", 3),
        ("(I-2\nt", "(I1\nt", 0),
        ("(I2\nI2\nt", "(I1\nt", 0),
    ],
)
def test_tensors_larger_than_their_bytes_are_refused(tmp_path, shape, stride, offset):
    path = archive(tmp_path / "x", described(shape, stride, offset), {"0": bytes(16)})
    with pytest.raises(DataError, match="cannot be used as weights"):
        read_tensors(path)


def test_a_stride_of_zero_in_an_old_file_is_refused(tmp_path):
    bomb = {"a": torch.zeros(1).expand(1_000_000, 1_000_000)}
    torch.save(bomb, tmp_path / "old", _use_new_zipfile_serialization=False)
    torch.save(bomb, tmp_path / "new")
    for name in ("old", "new"):
        with pytest.raises(DataError, match="larger than the bytes"):
            read_tensors(tmp_path / name)


def test_a_zip_that_expands_is_refused(tmp_path):
    path = archive(
        tmp_path / "x", described("(I4\nt", "(I1\nt"), {"0": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="compressed"):
        read_tensors(path)


def test_many_small_expansions_are_refused_too(tmp_path):
    storages = {"0": bytes(16), "1": np.random.RandomState(0).bytes(10_000)}
    path = archive(tmp_path / "x", described("(I4\nt", "(I1\nt"), storages, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="compressed"):
        read_tensors(path)


def test_a_file_sets_no_attributes(tmp_path):
    state = b"NX\x06\x00\x00\x00markedK\x01"
    content = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + state[:1] + b"}" + state[1:] + b"s\x86b."
    with pytest.raises(DataError, match="no tensors"):
        read_tensors(archive(tmp_path / "x", content, {}))
    assert not hasattr(public_archive._tensor, "marked")


def test_a_stated_size_takes_no_memory(tmp_path):
    path = archive(tmp_path / "x", b"\x80\x05\x96" + struct.pack("<Q", 400_000_000) + b"few.", {})
    tracemalloc.start()
    with pytest.raises(DataError):
        read_tensors(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x02}r\xff\xff\xff\xffX\x05\x00\x00\x00model}s.",  # a memo index of four billion
        b"\x80\x02cbuiltins\neval\nX\x0b\x00\x00\x00exit('ran!')\x85R.",
        b"(" * 300_000,
        b"",
    ],
)
def test_hostile_pickles_do_nothing(tmp_path, content):
    with pytest.raises(DataError, match="cannot be used as weights"):
        read_tensors(archive(tmp_path / "x", content, {}))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Google Drive - Virus scan warning</html>", "web page"),
        (b"\n <html><body>401</body>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "Git LFS"),
        (b"\x1f\x8b\x08\x00abc", "compressed"),
        (b"RIFF....WAVEfmt ", "neither"),
        (b"PK\x03\x04 and no more", "zip"),
        (b"\x80\x02 no pickle", "legacy"),
        (struct.pack("<Q", 1000) + b'{"a":', "cut off"),
        (struct.pack("<Q", 5) + b'{"a":' + bytes(100), "damaged"),
    ],
)
def test_what_is_no_weights_file_is_said_in_a_sentence(tmp_path, content, says):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_tensors(path)
    assert caught.value.place == str(path) and caught.value.cure
    with pytest.raises(MissingError):
        read_tensors(tmp_path / "none")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_cut_off_files_are_refused_wherever_they_end(tmp_path, kind):
    tensors = {"a": torch.arange(1000.0), "b": torch.ones(10)}
    path = tmp_path / "x"
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save({"model": tensors}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    assert read_tensors(path).tensors.keys() == {"a", "b"}
    for end in (1, 9, 30, 200, len(whole) // 2, len(whole) - 50, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError):
            read_tensors(path)


def test_a_flipped_bit_in_a_torch_file_is_noticed(tmp_path):
    buffer = io.BytesIO()
    torch.save({"model": {"a": torch.arange(1000.0)}}, buffer)
    content = bytearray(buffer.getvalue())
    content[content.index(struct.pack("<3f", 500, 501, 502)) + 2] ^= 1
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_tensors(tmp_path / "x")
