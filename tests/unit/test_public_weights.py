"""Published EAT files: every tensor is accounted for, and they are written back bit by bit."""

from __future__ import annotations

import argparse
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from c2ftool.models.public.eat import to_native, to_public
from c2ftool.models.public.reading import read_tensors
from c2ftool.models.public.records import PUBLIC_WEIGHTS
from c2ftool.spec.backbones import BACKBONES

IMAGE = "modality_encoders.IMAGE."
WIDTH, DEPTH, CLASSES = 96, 4, 7  # eat_tiny


def filled(name: str, *shape: int) -> torch.Tensor:
    """A tensor that depends on its name and shape alone."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(drawn.astype(np.float32))


def body(prefix: str = "", decoder: bool = False) -> dict[str, torch.Tensor]:
    """The encoder's tensors as published, in the published order."""
    shapes: dict[str, tuple[int, ...]] = {
        f"{IMAGE}extra_tokens": (1, 1, WIDTH),
        f"{IMAGE}local_encoder.proj.weight": (WIDTH, 1, 16, 16),
        f"{IMAGE}local_encoder.proj.bias": (WIDTH,),
        f"{IMAGE}fixed_positional_encoder.positions": (1, 6144, WIDTH),
        f"{IMAGE}context_encoder.norm.weight": (WIDTH,),
        f"{IMAGE}context_encoder.norm.bias": (WIDTH,),
    }
    for n in range(6 if decoder else 0):
        shapes[f"{IMAGE}decoder.blocks.{n}.0.weight"] = (WIDTH, WIDTH // 16, 3, 3)
        shapes[f"{IMAGE}decoder.blocks.{n}.0.bias"] = (WIDTH,)
    if decoder:
        shapes[f"{IMAGE}decoder.proj.weight"] = (WIDTH, WIDTH)
        shapes[f"{IMAGE}decoder.proj.bias"] = (WIDTH,)
    for n in range(DEPTH):
        for layer, out, width in (
            ("norm1", WIDTH, None),
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("norm2", WIDTH, None),
            ("mlp.fc1", 4 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 4 * WIDTH),
        ):
            shapes[f"blocks.{n}.{layer}.weight"] = (out,) if width is None else (out, width)
            shapes[f"blocks.{n}.{layer}.bias"] = (out,)
    tensors = {prefix + name: filled(name, *shape) for name, shape in shapes.items()}
    tensors[f"{prefix}{IMAGE}fixed_positional_encoder.positions"] = positions()
    return tensors


def positions() -> torch.Tensor:
    """EAT's table, written out: frequency in the first half of the width, time in the second, each [sin | cos]."""
    rates = 10000.0 ** (-np.arange(WIDTH // 4) / (WIDTH // 4))
    table = np.zeros((6144, WIDTH))
    for token in range(6144):
        t, f = divmod(token, 8)
        table[token] = np.concatenate([np.sin(f * rates), np.cos(f * rates), np.sin(t * rates), np.cos(t * rates)])
    return torch.from_numpy(table[None].astype(np.float32))


def pretrained() -> dict[str, object]:
    return body(decoder=True) | {"_ema": {name: tensor + 1 for name, tensor in body().items() if "fixed" not in name}}


def finetuned() -> dict[str, torch.Tensor]:
    head = {
        "fc_norm.weight": (WIDTH,),
        "fc_norm.bias": (WIDTH,),
        "head.weight": (CLASSES, WIDTH),
        "head.bias": (CLASSES,),
    }
    return body("model.") | {name: filled(name, *shape) for name, shape in head.items()}


class Meter:
    """A class that the reader must not need, and whose methods must not run."""

    def __init__(self) -> None:
        self.values = [1, 2]

    def __setstate__(self, state: object) -> None:
        raise AssertionError("a class of the file was run")


def fairseq(model: object, path: Path, **torch_save: object) -> Path:
    """A file as fairseq writes it: weights among objects of other packages."""
    extra = {
        "args": argparse.Namespace(arch="eat", lr=[0.1]),
        "cfg": {"model": argparse.Namespace(depth=4), "path": Path("x"), "numbers": np.arange(3), "meter": Meter()},
        "optimizer_history": [{"num_updates": np.float64(4)}],
        "task_state": OrderedDict(a=Meter()),
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(5)}}},
    }
    torch.save({"model": model, **extra}, path, **torch_save)  # type: ignore[arg-type]
    return path


def same(mine: dict, theirs: dict) -> None:
    assert list(mine) == list(theirs)
    for name, tensor in theirs.items():
        if isinstance(tensor, dict):
            assert isinstance(mine[name], dict)
            continue
        assert mine[name].shape == tensor.shape and mine[name].dtype == tensor.dtype
        if "positions" in name:  # computed here by other operations than in the test
            torch.testing.assert_close(mine[name], tensor, rtol=0, atol=1e-4)
        else:
            assert torch.equal(mine[name], tensor), name


def test_pretrained_file_loads_whole_and_goes_back_bit_by_bit(tmp_path):
    public = pretrained()
    read = read_tensors(fairseq(public, tmp_path / "eat.pt"))
    assert "model" in read.wrapper
    adapted = to_native(read.tensors)
    report = adapted.report
    assert report.clean and report.backbone == "eat_tiny" and report.layout == "pre-trained EAT"
    assert len(report.loaded) + len(report.ignored) == len(read.tensors)
    assert list(report.ignored) == [f"{IMAGE}fixed_positional_encoder.positions"]
    assert set(report.ignored.values()) == {"positions are recomputed"}
    assert not adapted.head and adapted.decoder.keys() == {
        *(f"blocks.{n}.conv.{kind}" for n in range(6) for kind in ("weight", "bias")),
        "proj.weight",
        "proj.bias",
    }
    back = to_public(adapted.backbone, decoder=adapted.decoder, teacher=adapted.teacher)
    ema = public.pop("_ema")
    teacher = back.pop("_ema")
    same(back, public)
    assert isinstance(ema, dict)
    same({n: t for n, t in teacher.items() if "positions" not in n}, ema)
    assert teacher[f"{IMAGE}fixed_positional_encoder.positions"].shape == (1, 6144, WIDTH)


def test_finetuned_file_loads_whole_and_goes_back_bit_by_bit(tmp_path):
    public = finetuned()
    adapted = to_native(read_tensors(fairseq(public, tmp_path / "eat.pt")).tensors)
    assert adapted.report.clean and adapted.report.layout == "fine-tuned EAT"
    assert adapted.head.keys() == {"norm.weight", "norm.bias", "fc.weight", "fc.bias"}
    assert torch.equal(adapted.head["fc.weight"], public["head.weight"])
    same(to_public(adapted.backbone, head=adapted.head), public)


def test_transformers_names_of_the_authors_are_known(tmp_path):
    public = finetuned()
    renamed = {
        "model." + n.removeprefix("model.").removeprefix(IMAGE).replace("context_encoder.norm", "pre_norm"): t
        for n, t in public.items()
    }
    assert "model.pre_norm.weight" in renamed and "model.extra_tokens" in renamed and "model.fc_norm.bias" in renamed
    save_file(renamed, tmp_path / "model.safetensors")
    adapted = to_native(read_tensors(tmp_path / "model.safetensors").tensors)
    assert adapted.report.clean and "transformers" in adapted.report.layout
    same(to_public(adapted.backbone, head=adapted.head), public)


def test_half_precision_becomes_float32():
    adapted = to_native({n: t.half() for n, t in finetuned().items()})
    assert adapted.report.clean and adapted.backbone["cls_token"].dtype == torch.float32
    assert set(adapted.report.ignored.values()) == {"positions are recomputed"}


def test_what_is_left_over_or_lacking_is_named():
    tensors = finetuned()
    del tensors["model.blocks.2.attn.qkv.bias"]
    tensors["model.alibi_scale"] = torch.zeros(1)
    tensors["model.blocks.99999999.norm1.weight"] = torch.zeros(1)
    report = to_native(tensors).report
    assert report.missing == ["backbone.blocks.2.attn.qkv.bias"]
    assert report.unexpected == ["model.alibi_scale", "model.blocks.99999999.norm1.weight"]
    assert "1 missing" in str(report) and "alibi_scale" in str(report) and not report.clean


def test_another_table_of_positions_is_reported():
    tensors = finetuned()
    name = f"model.{IMAGE}fixed_positional_encoder.positions"
    tensors[name] = tensors[name][:, :512]
    assert to_native(tensors).report.ignored == {name: "positions are recomputed"}  # a shorter one is its beginning
    tensors[name] = tensors[name].flip(2)
    assert "differs by up to" in to_native(tensors).report.ignored[name]
    tensors[name] = tensors[name][:, :511]
    assert "another shape" in to_native(tensors).report.ignored[name]


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.lists(st.integers(0, 3), max_size=4)))
def test_any_names_and_shapes_are_accounted_for(shapes):
    names = {
        key: value for n, value in shapes.items() for key in (n, f"_ema.{n}", f"model.blocks.0.{n}", f"{IMAGE}{n}")
    }
    names |= {"extra_tokens": [], "model.head.weight": [0]}
    report = to_native({name: torch.zeros(shape) for name, shape in names.items()}).report
    assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(names)
    assert report.missing


def test_records_name_known_backbones_and_whole_addresses():
    for name, record in PUBLIC_WEIGHTS.items():
        assert record.name == name and record.backbone in BACKBONES and record.sources and record.licence
        assert (record.classes == 0) == (record.task == "pretrained")
        for source in record.sources:
            assert source.url.startswith("https://") and source.page.startswith("https://")
            assert source.file.startswith(name) and "/" not in source.file
            assert source.sha256 is None or len(bytes.fromhex(source.sha256)) == 32
    files = [source.file for record in PUBLIC_WEIGHTS.values() for source in record.sources]
    assert len(files) == len(set(files))
