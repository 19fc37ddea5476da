"""Published ATST-Frame, fPaSST, M2D and ASiT files: every tensor accounted for, every wrapping known, exports fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.models.asit import Asit
from c2ftool.models.atst import Atst
from c2ftool.models.backbone import PatchBackbone
from c2ftool.models.fpasst import Fpasst
from c2ftool.models.initialise import initialise
from c2ftool.models.m2d import M2d
from c2ftool.models.public import asit, atst, fpasst, m2d, sed
from c2ftool.models.public.account import Adapted
from c2ftool.models.public.layouts import LAYOUTS
from c2ftool.models.weights import starting_weights
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of

State = dict[str, Tensor]
CASES = Path(__file__).parents[1] / "fixtures" / "parity"
ADAPTERS: dict[str, Any] = {"atst": atst, "fpasst": fpasst, "m2d": m2d, "asit": asit}
BUILT: dict[str, type[PatchBackbone]] = {"atst": Atst, "fpasst": Fpasst, "m2d": M2d, "asit": Asit}
PREFIX = {"atst": "model.atst.", "fpasst": "model.", "m2d": "model.backbone.", "asit": "model."}
DETECTORS = {layout.family: layout.recognises for layout in LAYOUTS}
every = pytest.mark.parametrize("family", ADAPTERS)


def ours(family: str, frames: int | None = None) -> tuple[State, State]:
    """(backbone, heads) of a small network of ours, at the published length."""
    size = BACKBONES[f"{family}_micro"]
    tokens = tokens_of(frames or size.frontend.frames, size.frontend.mels, size.patch, size.patch, size.grid)
    backbone = BUILT[family](size, tokens)
    initialise(backbone, 1)
    state = {name: tensor.detach() + 0.01 for name, tensor in backbone.named_parameters()}
    width = 480 if family == "m2d" else 96
    generator = torch.Generator().manual_seed(2)
    shapes = {"strong.weight": (7, width), "strong.bias": (7,), "weak.weight": (5, width), "weak.bias": (5,)}
    head = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return state, head


def published(family: str, heads: bool = True) -> State:
    """A small file in the layout of the sound-event files."""
    backbone, head = ours(family)
    public: State = ADAPTERS[family].to_public(backbone, head if heads else None)
    return public


def body(tensors: Mapping[str, Tensor], family: str) -> State:
    """The encoder of a file, without its prefix."""
    prefix = PREFIX[family]
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def behind(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- there and back ---------------------------------------------------------------------------------------------------


@every
def test_ours_goes_out_and_comes_back_as_it_was(family: str) -> None:
    backbone, head = ours(family)
    adapted: Adapted = ADAPTERS[family].to_native(published(family))
    assert adapted.report.clean and same(adapted.backbone, backbone) and same(adapted.head, head)
    assert not adapted.decoder and not adapted.teacher
    assert adapted.report.backbone == f"{family}_micro"
    # told by its kernel; of fPaSST, which has one of its own, there is nothing to fit
    assert adapted.patch == (None if family == "fpasst" else BACKBONES[f"{family}_micro"].patch)
    assert adapted.grid == {"atst": (250, 1), "fpasst": (250, 1), "m2d": (62, 5), "asit": (62, 8)}[family]


@every
def test_an_export_has_names_shapes_and_order_of_the_published_file(family: str) -> None:
    case = json.loads((CASES / f"{'atst_frame' if family == 'atst' else family}_sed_10s.json").read_text())
    shapes = [(name, tuple(shape)) for name, shape in case["tensors"]]
    constants = [(name, tuple(shape)) for name, shape in case.get("derived_tensors", {}).get("tensors", [])]
    # no memory behind them: one number each
    file = {name: torch.ones(()).expand(shape) for name, shape in shapes + constants}
    assert [name for name, known in DETECTORS.items() if known(file)] == [family]
    adapted: Adapted = ADAPTERS[family].to_native(file)
    assert adapted.report.clean and adapted.report.backbone == f"{family}_base"
    assert adapted.report.ignored.keys() >= dict(constants).keys()
    public: State = ADAPTERS[family].to_public(adapted.backbone, adapted.head)
    assert [(n, tuple(t.shape)) for n, t in public.items() if n not in dict(constants)] == shapes
    assert {(n, tuple(t.shape)) for n, t in public.items() if n in dict(constants)} == {*constants}
    assert all(torch.equal(public[n], file[n]) for n in adapted.report.loaded if not n.endswith("atst.pos_embed"))


@every
def test_every_tensor_is_accounted_for(family: str) -> None:
    tensors = published(family) | {"epoch": torch.ones(()), f"{PREFIX[family]}blocks.0.attn.scale": torch.ones(1)}
    del tensors[f"{PREFIX[family]}blocks.1.mlp.fc2.bias"], tensors["weak_head.weight"]
    report = ADAPTERS[family].to_native(tensors).report
    assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(tensors)
    assert sorted(report.unexpected) == sorted(["epoch", f"{PREFIX[family]}blocks.0.attn.scale"])
    assert report.missing == ["backbone.blocks.1.mlp.fc2.bias", "head.weak.weight"]


@every
def test_a_file_without_heads_half_precision_and_unknown_size_are_known(family: str) -> None:
    tensors = {name: tensor.half() for name, tensor in published(family, heads=False).items()}
    tensors = {name: tensor for name, tensor in tensors.items() if "blocks.3." not in name}
    adapted: Adapted = ADAPTERS[family].to_native(tensors)
    assert adapted.report.clean and not adapted.head and adapted.report.layout.endswith("without a head")
    assert adapted.report.backbone is None
    assert all(tensor.dtype == torch.float32 for tensor in adapted.backbone.values())


@every
def test_a_teachers_recurrent_network_belongs_to_the_heads(family: str) -> None:
    network = torch.nn.GRU(8, 6, num_layers=2, bidirectional=True).state_dict()
    backbone, head = ours(family)
    head |= behind("rnn.", network)
    public: State = ADAPTERS[family].to_public(backbone, head)
    assert [name for name in public if name.startswith("seq_model")] == [f"seq_model.rnn.{name}" for name in network]
    assert list(public)[-4:] == ["strong_head.weight", "strong_head.bias", "weak_head.weight", "weak_head.bias"]
    adapted: Adapted = ADAPTERS[family].to_native(public)
    assert adapted.report.clean and same(adapted.head, head)
    del public["seq_model.rnn.bias_hh_l1_reverse"]
    assert ADAPTERS[family].to_native(public).report.missing == ["head.rnn.bias_hh_l1_reverse"]


@every
def test_a_family_claims_no_other_familys_file(family: str) -> None:
    tensors = published(family)
    assert [name for name, known in DETECTORS.items() if known(tensors)] == [family]
    for others in (timm.create_model("deit_tiny_distilled_patch16_224", depth=1).state_dict(),
                   timm.create_model("vit_tiny_patch16_224", depth=1).state_dict()):  # fmt: skip
        for wrapped in (others, behind("module.v.", others)):
            assert not DETECTORS[family](wrapped)


@every
@settings(max_examples=50, deadline=None)
@given(shapes=st.dictionaries(st.text(max_size=12), st.lists(st.integers(0, 3), max_size=4)))
def test_any_names_and_shapes_are_accounted_for(family: str, shapes: dict[str, list[int]]) -> None:
    stems = ["pos_embed", "patch_embed.proj.weight", "patch_embed.patch_embed.weight", "time_new_pos_embed",
             "freq_new_pos_embed", "new_pos_embed", "norm.weight", "norm_frame.weight", "cls_token"]  # fmt: skip
    sides = list(shapes.values()) or [[1]]
    names = {f"{PREFIX[family]}{stem}": sides[place % len(sides)] for place, stem in enumerate(stems)}
    for name, shape in shapes.items():
        names |= dict.fromkeys((name, f"{PREFIX[family]}{name}", f"model.blocks.0.{name}", f"seq_model.{name}"), shape)
    tensors = {name: torch.zeros(shape) for name, shape in names.items()}
    for read in (ADAPTERS[family].to_native, fpasst.from_deit):
        report = read(tensors).report
        assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(names)


@every
def test_the_loader_takes_files_as_training_programs_save_them(family: str, tmp_path: Path) -> None:
    plain = published(family, heads=False)
    inside = body(plain, family)
    wrapped: dict[str, dict[str, Any]] = {
        "atst": {"state_dict": behind("model.teacher.encoder.", inside), "epoch": 3},
        "fpasst": {"model": inside},
        "m2d": {"model": inside},
        "asit": {"student": behind("module.backbone.", inside), "teacher": behind("backbone.", inside), "epoch": 3,
                 "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}},
    }  # fmt: skip
    for place, content in enumerate((plain, wrapped[family])):
        torch.save(content, tmp_path / f"{place}.pt")
        start = starting_weights(tmp_path / f"{place}.pt")
        assert (start.family, start.backbone_name, start.head) == (family, f"{family}_micro", None)
        assert same(start.backbone, ours(family)[0])


# --- ATST-Frame -------------------------------------------------------------------------------------------------------


def test_atsts_linear_patches_are_our_convolution() -> None:
    tensors = published("atst")
    adapted = atst.to_native(tensors)
    weight = tensors["model.atst.patch_embed.patch_embed.weight"]
    assert weight.shape == (96, 256)
    patch = torch.randn(64, 4)  # mel, time
    kernel = adapted.backbone["patch_embed.proj.weight"]
    torch.testing.assert_close(F.conv2d(patch[None, None], kernel).flatten(), weight @ patch.flatten())


def test_atsts_mask_token_and_first_position_are_read_by_nothing_and_exported_as_zeros() -> None:
    tensors = published("atst")
    assert not tensors["model.atst.mask_embed"].any() and not tensors["model.atst.pos_embed"][:, 0].any()
    changed = tensors | {"model.atst.mask_embed": torch.ones(1, 1, 96)}
    changed["model.atst.pos_embed"] = tensors["model.atst.pos_embed"].clone()
    changed["model.atst.pos_embed"][:, 0] = 1
    adapted = atst.to_native(changed)
    assert same(adapted.backbone, atst.to_native(tensors).backbone)
    assert "model.atst.mask_embed" in adapted.report.ignored and "first row of its positions" in str(adapted.report)


@pytest.mark.parametrize(
    ("prefix", "norm"),
    [("model.teacher.encoder.", "norm"), ("encoder.encoder.", "norm_frame"),
     ("encoder.encoder.frame_encoder.", "norm_frame")],
)  # fmt: skip
def test_atsts_own_files_are_known(prefix: str, norm: str) -> None:
    expected = published("atst", heads=False)
    inside = {name.replace("norm_frame", norm): tensor for name, tensor in body(expected, "atst").items()}
    extra = behind(prefix, {"cls_token": torch.ones(1, 1, 96)})
    if prefix.startswith("model."):
        extra |= behind("model.student.encoder.", inside) | {"model.teacher.projector.0.weight": torch.ones(2, 2)}
    if "frame_encoder" in prefix:
        extra |= behind("encoder.encoder.teacher_module.", inside)
    tensors = extra | behind(prefix, inside)
    assert [name for name, known in DETECTORS.items() if known(tensors)] == ["atst"]
    adapted = atst.to_native(tensors)
    assert adapted.report.clean and same(adapted.backbone, ours("atst")[0])
    assert adapted.report.ignored.keys() == {*extra, f"{prefix}mask_embed"}


def test_atsts_biases_of_queries_are_not_expected() -> None:
    tensors = published("atst") | {"model.atst.blocks.0.norm3.bias": torch.ones(96)}
    report = atst.to_native(tensors).report
    assert report.unexpected == ["model.atst.blocks.0.norm3.bias"] and not report.missing


# --- fPaSST -----------------------------------------------------------------------------------------------------------


def distilled() -> State:
    model = timm.create_model("deit_base_distilled_patch16_384", pretrained=False, depth=2, embed_dim=96, num_heads=3)
    generator = torch.Generator().manual_seed(4)
    return {name: torch.randn(t.shape, generator=generator) for name, t in model.state_dict().items()}


def test_fpasst_starts_from_a_distilled_deit_but_for_its_stem() -> None:
    state = distilled()
    adapted = fpasst.from_deit(state)
    assert adapted.report.clean and adapted.grid == (250, 1) and "three convolutions" in str(adapted.report)
    assert adapted.report.ignored.keys() == {n for n in state if n.startswith("head")}
    own = {name for name in ours("fpasst")[0] if "blocks.2" not in name and "blocks.3" not in name}
    assert own - adapted.backbone.keys() == {
        f"stem.{place}.{kind}" for place in range(3) for kind in ("weight", "bias")
    }
    assert not adapted.backbone.keys() - own

    table = state["pos_embed"]
    square = table[:, 2:].reshape(1, 24, 24, 96).permute(0, 3, 1, 2)
    row = F.interpolate(square, size=(1, 250), mode="bicubic", align_corners=False)[0, :, 0]  # (D, T)
    torch.testing.assert_close(adapted.backbone["time_pos"][0], row.T)
    torch.testing.assert_close(adapted.backbone["freq_pos"][0, 0], row.mean(1))
    assert torch.equal(adapted.backbone["prefix_pos"], table[:, :2])

    kernel, made = state["patch_embed.proj.weight"], adapted.backbone["patch_embed.proj.weight"]
    assert made.shape == (96, 16, 128, 2)
    for channel, band, step in ((0, 0, 0), (4, 9, 1), (15, 127, 0)):
        place = 2 * band + step
        torch.testing.assert_close(made[:, channel, band, step],
                                   kernel[:, channel % 3, place // 16, place % 16] * 3 / 16)  # fmt: skip


def test_a_deit_that_is_not_square_or_not_of_16_pixels_is_told() -> None:
    state = distilled()
    oblong = fpasst.from_deit(state | {"pos_embed": torch.zeros(1, 2 + 8, 96)}).report
    assert "no square grid" in str(oblong) and oblong.missing == ["backbone.freq_pos", "backbone.time_pos"]
    wide = fpasst.from_deit(state | {"patch_embed.proj.weight": torch.zeros(96, 3, 32, 32)}).report
    assert "not one of 16 x 16 in three colours" in str(wide)


@pytest.mark.parametrize("prefix", ["", "model.fpasst."])
def test_fpassts_other_prefixes_are_known(prefix: str) -> None:
    tensors = behind(prefix, body(published("fpasst"), "fpasst"))
    assert fpasst.is_fpasst(tensors) and not asit.is_asit(tensors)
    assert same(fpasst.to_native(tensors).backbone, ours("fpasst")[0])


# --- M2D --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["model.m2d.backbone.", "module.ar.runtime.backbone.", ""])
def test_m2ds_other_prefixes_are_known(prefix: str) -> None:
    tensors = behind(prefix, body(published("m2d"), "m2d"))
    head = {"module.head.mlp.mlp.0.weight": torch.ones(3, 96)} if prefix.startswith("module.") else {}
    tensors |= head
    assert [name for name, known in DETECTORS.items() if known(tensors)] == ["m2d"]
    adapted = m2d.to_native(tensors)
    assert adapted.report.clean and same(adapted.backbone, ours("m2d")[0]) and adapted.grid == (62, 5)
    assert adapted.report.ignored.keys() == {f"{prefix}norm_stats", *head}


def test_m2ds_table_of_another_length_is_told_by_its_rows() -> None:
    backbone, head = ours("m2d", frames=608)
    public = m2d.to_public(backbone, head)
    assert public["model.backbone.pos_embed"].shape[1] == 1 + 38 * 5
    assert m2d.to_native(public).grid == (38, 5)
    odd = m2d.to_native(public | {"model.backbone.pos_embed": torch.zeros(1, 1 + 38 * 5 + 2, 96)})
    assert odd.grid is None and "192 positions are not 5 of each time step" in str(odd.report)


def test_m2ds_constants_are_the_front_ends() -> None:
    constants = m2d.front_end_constants()
    wave = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    padded = F.pad(wave[:, None], (200, 200), mode="reflect")
    sines, cosines = (F.conv1d(padded, constants[f"stft.{name}"], stride=160) for name in ("wsin", "wcos"))
    spectrum = torch.stft(wave, 400, 160, window=torch.hann_window(400), return_complex=True)
    torch.testing.assert_close(cosines, spectrum.real, rtol=0, atol=2e-5)
    torch.testing.assert_close(-sines, spectrum.imag, rtol=0, atol=2e-5)
    torch.testing.assert_close(constants["stft.window_mask"][0, :, 0], torch.hann_window(400), rtol=0, atol=1e-6)
    bank = torchaudio.functional.melscale_fbanks(201, 50, 8000, 80, 16_000, norm="slaney", mel_scale="slaney").T
    torch.testing.assert_close(constants["mel_basis"], bank, rtol=0, atol=1e-6)


# --- ASiT -------------------------------------------------------------------------------------------------------------


def with_table(tensors: State, rows: int) -> State:
    return tensors | {"model.pos_embed": torch.zeros(1, 1 + rows, 96)}


def test_asits_table_is_read_exchanged_where_it_was_trained_so() -> None:
    trained = asit.to_native(with_table(published("asit"), 296))
    assert trained.grid == (8, 37) and "8 steps of 37 bands" in str(trained.report)
    assert asit.to_native(with_table(published("asit", heads=False), 296)).grid == (37, 8)
    for rows, grid in ((496, (62, 8)), (248, (31, 8))):
        assert asit.to_native(with_table(published("asit"), rows)).grid == grid


@pytest.mark.parametrize("inner", ["module.backbone.", "backbone."])
@pytest.mark.parametrize("who", ["teacher", "student"])
def test_asits_pre_training_is_known_and_its_teacher_preferred(inner: str, who: str) -> None:
    expected = with_table(published("asit", heads=False), 296)
    tensors = behind(f"{who}.{inner}", body(expected, "asit"))
    tensors |= {
        f"{who}.{inner.replace('backbone', 'head_cls')}mlp.0.weight": torch.ones(2),
        "loss_cls.center": torch.ones(2),
    }
    if who == "teacher":
        tensors |= {f"student.module.{n}": t + 1 for n, t in behind("backbone.", body(expected, "asit")).items()}
    assert [name for name, known in DETECTORS.items() if known(tensors)] == ["asit"]
    adapted = asit.to_native(tensors)
    assert adapted.report.clean and adapted.grid == (37, 8)
    assert same(adapted.backbone, asit.to_native(expected).backbone)
    assert sorted([*adapted.report.loaded, *adapted.report.ignored]) == sorted(tensors)


def test_heads_names_are_told_exactly() -> None:
    rnn = ("rnn.weight_ih_l0", "rnn.bias_hh_l1_reverse")
    known = {"strong_head.weight": "strong.weight", "weak_head.bias": "weak.bias"} | {f"seq_model.{n}": n for n in rnn}
    assert {name: sed.head_name(name) for name in known} == known
    for name in ("strong_head.scale", "model.strong_head.weight", "seq_model.rnn.weight_ih", "seq_model.fc.weight"):
        assert sed.head_name(name) is None
