"""Published files of HTS-AT, Swin and CNN14: every tensor has its account, grids are told, exports are as published."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.models.cnn14 import Cnn14
from c2ftool.models.htsat import HtsAt
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Rules
from c2ftool.models.public import ast, cnn14, deit, eat, htsat
from c2ftool.models.token_semantic import TokenSemanticHead
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of

CASES = Path(__file__).parents[1] / "fixtures" / "parity"
CLASSES = 527
COMPUTED = re.compile(r"extractor\.|attn_mask|relative_position_index|(^|\.)head\.")
REASONS = {
    "a layer that HTS-AT never uses",
    "constants of the front end",
    "constants that follow from the image's size",
}


def recorded(case: str) -> dict[str, list[int]]:
    """Names and shapes of a published file, in its order."""
    return dict(json.loads((CASES / f"{case}_audioset_10s.json").read_text())["tensors"])


def filled(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Tensors of those shapes; whole numbers where a file has them."""
    generator = torch.Generator().manual_seed(3)
    whole = ("num_batches_tracked", "relative_position_index")
    return {
        name: torch.full(shape, 4) if name.endswith(whole) else torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A file of HTS-AT: its constants as they are."""
    constants = {htsat.PREFIX + name: value for name, value in cnn14.front_end_constants().items()}
    return filled(recorded("htsat")) | constants


def swin() -> dict[str, Tensor]:
    """Swin-T/C24 for images of 256 px, in the layout of its authors."""
    shapes = {name.removeprefix(htsat.PREFIX): shape for name, shape in recorded("htsat").items()}
    for name in list(shapes):
        if name.startswith(("spectrogram", "logmel", "bn0", "tscam")):
            del shapes[name]
    return filled(shapes | {"patch_embed.proj.weight": [96, 3, 4, 4], "head.weight": [9, 768], "head.bias": [9]})


# --- HTS-AT -----------------------------------------------------------------------------------------------------------


def test_a_published_htsat_loads_whole_and_goes_back_as_it_was(published: dict[str, Tensor]) -> None:
    assert htsat.is_htsat(published) and not htsat.is_swin(published)
    adapted = htsat.to_native(published)
    report = adapted.report
    assert report.clean and set(report.ignored.values()) == REASONS and not report.notes
    assert (report.layout, report.backbone) == ("HTS-AT", "htsat_base")
    assert (adapted.grid, adapted.patch) == ((256, 16), (4, 4))
    assert set(report.ignored) == {name for name in published if COMPUTED.search(name)}

    backbone = HtsAt(BACKBONES["htsat_base"], tokens_of(1001, 64, (4, 4), None, "image"))
    backbone.load_state_dict(adapted.backbone, strict=True)
    TokenSemanticHead(768, CLASSES, 2).load_state_dict(adapted.head, strict=True)
    assert adapted.backbone["bn0.num_batches_tracked"] == 4

    public = htsat.to_public(backbone.state_dict(), adapted.head)
    assert list(public) == list(published)
    for name, tensor in published.items():
        assert public[name].shape == tensor.shape and public[name].dtype == tensor.dtype, name
        if not COMPUTED.search(name):
            assert torch.equal(public[name], tensor), name


def test_exported_masks_and_indexes_are_those_of_another_swin(published: dict[str, Tensor]) -> None:
    adapted = htsat.to_native(published)
    public = htsat.to_public(adapted.backbone, adapted.head)
    other = timm.models.swin_transformer.SwinTransformer(
        img_size=256, in_chans=1, embed_dim=24, depths=(2, 2, 6, 2), num_heads=(1, 2, 4, 8), window_size=8
    )
    buffers = {name: value for name, value in other.named_buffers() if value is not None}
    compared = 0
    for name, value in public.items():
        if name.endswith(("attn_mask", "relative_position_index")):
            torch.testing.assert_close(value, buffers[name.removeprefix(htsat.PREFIX)], rtol=0, atol=0)
            compared += 1
    assert compared == 12 + 5


def test_names_without_prefix_and_no_head_are_known(published: dict[str, Tensor]) -> None:
    bare = {name.removeprefix(htsat.PREFIX): t.half() for name, t in published.items() if "tscam" not in name}
    adapted = htsat.to_native(bare)
    assert htsat.is_htsat(bare) and adapted.report.clean and not adapted.head
    assert adapted.report.layout == "HTS-AT without its head"
    assert all(t.dtype in (torch.float32, torch.int64) for t in adapted.backbone.values())


def test_what_is_missing_or_left_over_is_named(published: dict[str, Tensor]) -> None:
    tensors = published | {f"{htsat.PREFIX}layers.0.blocks.0.attn.bias_table": torch.zeros(225, 4)}
    del tensors[f"{htsat.PREFIX}layers.2.blocks.5.mlp.fc2.bias"]
    del tensors[f"{htsat.PREFIX}layers.1.downsample.reduction.weight"], tensors[f"{htsat.PREFIX}bn0.running_var"]
    report = htsat.to_native(tensors).report
    assert report.unexpected == [f"{htsat.PREFIX}layers.0.blocks.0.attn.bias_table"]
    assert report.missing == [
        "backbone.blocks.9.mlp.fc2.bias", "backbone.bn0.running_var", "backbone.merges.1.reduction.weight",
    ]  # fmt: skip


def test_a_file_of_another_front_end_says_so(published: dict[str, Tensor]) -> None:
    bank = {f"{htsat.PREFIX}{cnn14.MEL_BANK}": published[f"{htsat.PREFIX}{cnn14.MEL_BANK}"].roll(1, 0)}
    ignored = htsat.to_native(published | bank).report.ignored
    assert ignored[next(iter(bank))] == "constants of another front end than its default: set frontend"


@pytest.mark.parametrize("frames", [1001, 251, 64])
def test_the_grid_is_told_by_the_tables(frames: int) -> None:
    backbone = HtsAt(BACKBONES["htsat_micro"], tokens_of(frames, 64, (4, 4), None, "image"))
    initialise(backbone, 1)
    head = TokenSemanticHead(192, 3, 2)
    public = htsat.to_public(backbone.state_dict(), head.state_dict(), backbone.tokens.grid)
    adapted = htsat.to_native(public)
    assert adapted.grid == backbone.tokens.grid and adapted.report.backbone == "htsat_micro"
    backbone.load_state_dict(adapted.backbone, strict=True)
    if frames == 1001:
        return
    with pytest.raises(ValueError, match="no weights of 16 x 256 patches"):
        htsat.to_public(backbone.state_dict(), head.state_dict())
    del public[f"{htsat.PREFIX}layers.3.blocks.0.attn.relative_position_bias_table"]
    adapted = htsat.to_native(public)
    assert adapted.grid is None and "its grid of tokens is not known" in str(adapted.report)


def test_weights_of_an_image_that_is_not_square_have_no_published_layout() -> None:
    backbone = HtsAt(BACKBONES["htsat_micro"], tokens_of(501, 64, (4, 4), None, "image"))
    with pytest.raises(ValueError, match="no weights of 16 x 128 patches"):
        htsat.to_public(backbone.state_dict(), TokenSemanticHead(192, 3, 2).state_dict(), (128, 16))


def test_swins_imagenet_weights_start_an_htsat() -> None:
    tensors = swin()
    assert htsat.is_swin(tensors) and not htsat.is_htsat(tensors)
    adapted = htsat.to_native(tensors)
    assert adapted.report.clean and not adapted.head and adapted.report.backbone == "htsat_base"
    assert "its batch norm over mel bands starts afresh" in str(adapted.report)
    assert adapted.report.ignored["head.weight"] == "ImageNet's classes, which HTS-AT does not use"
    # grey light, equal in all colours, is answered a third as strongly as the three colours together
    kernel, image = tensors["patch_embed.proj.weight"], torch.randn(1, 1, 8, 8)
    grey = F.conv2d(image.expand(-1, 3, -1, -1), kernel)
    torch.testing.assert_close(F.conv2d(image, adapted.backbone["patch_embed.proj.weight"]), grey / 3)
    # and it fits a phase of fewer frames, whose last windows are smaller
    backbone = HtsAt(BACKBONES["htsat_base"], tokens_of(1001, 64, (4, 4), None, "image"))
    backbone.load_state_dict(adapted.backbone, strict=True)
    assert adapted.grid == backbone.tokens.grid
    changes = backbone.resize(tokens_of(251, 64, (4, 4), None, "image"), Rules("bicubic"))
    assert [change.name for change in changes if change.kind == "resized"] == [
        "blocks.10.attn.bias_table", "blocks.11.attn.bias_table",
    ]  # fmt: skip


# --- CNN14 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def panns() -> dict[str, Tensor]:
    """A file of CNN14: its constants as they are."""
    return filled(recorded("cnn14")) | cnn14.front_end_constants()


def test_a_published_cnn14_loads_whole_and_goes_back_as_it_was(panns: dict[str, Tensor]) -> None:
    assert cnn14.is_cnn14(panns)
    adapted = cnn14.to_native(panns)
    assert adapted.report.clean and set(adapted.report.ignored.values()) == {"constants of the front end"}
    assert (adapted.report.layout, adapted.report.backbone, adapted.grid) == ("CNN14", "cnn14", None)
    with torch.device("meta"):
        backbone = Cnn14(BACKBONES["cnn14"], tokens_of(1001, 64, (32, 32), None, "halves"))
    backbone.load_state_dict(adapted.backbone, strict=True, assign=True)
    assert list(adapted.head) == ["fc.weight", "fc.bias"]
    public = cnn14.to_public(backbone.state_dict(), adapted.head)
    assert list(public) == list(panns)
    assert all(torch.equal(public[name], tensor) for name, tensor in panns.items())


def test_what_is_missing_or_left_over_of_cnn14_is_named(panns: dict[str, Tensor]) -> None:
    tensors = panns | {"conv_block7.conv1.weight": torch.zeros(1), "fc2.weight": torch.zeros(1)}
    del tensors["conv_block3.bn2.running_mean"], tensors["fc_audioset.bias"], tensors["fc1.weight"]
    report = cnn14.to_native(tensors).report
    assert report.unexpected == ["conv_block7.conv1.weight", "fc2.weight"]
    assert report.missing == ["backbone.blocks.2.bn2.running_mean", "backbone.fc1.weight", "head.fc.bias"]
    assert report.backbone is None


def test_exported_kernels_and_bank_make_the_published_front_end() -> None:
    constants, wave = cnn14.front_end_constants(), torch.randn(1, 4096)
    spectrum = torch.stft(wave, 1024, 320, window=torch.hann_window(1024), return_complex=True)
    padded = F.pad(wave[None], (512, 512), mode="reflect")
    for part, expected in (("real", spectrum.real), ("imag", spectrum.imag)):
        kernel = constants[f"spectrogram_extractor.stft.conv_{part}.weight"]
        torch.testing.assert_close(F.conv1d(padded, kernel, stride=320), expected, rtol=1e-4, atol=1e-3)
    bank = torchaudio.functional.melscale_fbanks(513, 50.0, 14000.0, 64, 32000, norm="slaney", mel_scale="slaney")
    torch.testing.assert_close(constants["logmel_extractor.melW"], bank, rtol=1e-3, atol=1e-6)


# --- both -------------------------------------------------------------------------------------------------------------


def test_files_of_one_kind_are_not_taken_for_another(published: dict[str, Tensor], panns: dict[str, Tensor]) -> None:
    kinds = (htsat.is_htsat, htsat.is_swin, cnn14.is_cnn14, ast.is_ast, eat.is_eat, deit.is_deit, deit.is_plain_vit)
    claimed = [[kind.__name__ for kind in kinds if kind(file)] for file in (published, swin(), panns)]
    assert claimed == [["is_htsat"], ["is_swin"], ["is_cnn14"]]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.lists(st.integers(0, 3), max_size=4)))
def test_any_names_and_shapes_are_accounted_for(shapes: dict[str, list[int]]) -> None:
    stems = ("{}", "sed_model.{}", "layers.0.blocks.0.{}", "layers.3.blocks.17.attn.{}", "bn0.{}", "conv_block1.{}")
    names = {stem.format(name): shape for name, shape in shapes.items() for stem in stems}
    names |= {"layers.2.blocks.1.attn.relative_position_bias_table": [], "patch_embed.proj.weight": [1]}
    names |= {"logmel_extractor.melW": [2], "fc1.weight": [], "patch_embed.norm.weight": [], "bn0.weight": [0]}
    tensors = {name: torch.zeros(shape) for name, shape in names.items()}
    for adapted in (htsat.to_native(tensors), cnn14.to_native(tensors)):
        report = adapted.report
        assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(names)
        assert report.missing and report.backbone is None
