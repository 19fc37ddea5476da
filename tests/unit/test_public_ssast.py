"""Published SSAST files: every tensor is accounted for, the input's size tells the grid, others read our exports."""

from __future__ import annotations

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from c2ftool.models.build import build_classifier
from c2ftool.models.public.ast import is_ast
from c2ftool.models.public.deit import is_deit
from c2ftool.models.public.eat import is_eat
from c2ftool.models.public.ssast import is_ssast, to_native, to_public
from c2ftool.models.weights import load_into
from c2ftool.objectives.ssast import SsastStudent
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.objective import Ssast

INPUT = {"module.p_input_fdim", "module.p_input_tdim"}
IMAGENET_HEADS = {f"module.v.{head}.{kind}" for head in ("head", "head_dist") for kind in ("weight", "bias")}
PATCH, FRAME = (16, 16), (2, 128)  # (time, mel)


def network(patch: tuple[int, int] = PATCH, frames: int = 1024, classes: int = 0, depth: int = 12) -> nn.Module:
    """SSAST as its authors build it, and as DataParallel saves it; with classes, as fine-tuning saves it."""
    time, mel = patch
    inner = nn.Module()
    if not classes:
        inner.p_input_fdim = nn.Parameter(torch.tensor(128), requires_grad=False)
        inner.p_input_tdim = nn.Parameter(torch.tensor(frames), requires_grad=False)
        inner.mask_embed = nn.Parameter(torch.zeros(1, 1, 192))
    inner.v = timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False, depth=depth)
    inner.v.patch_embed.proj = nn.Conv2d(1, 192, (mel, time), stride=(mel, time))
    inner.v.pos_embed = nn.Parameter(torch.zeros(1, 2 + (128 // mel) * (frames // time), 192))
    if classes:
        inner.mlp_head = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, classes))
    else:
        pixels = mel * time
        inner.cpredlayer = nn.Sequential(nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, pixels))
        inner.gpredlayer = nn.Sequential(nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, pixels))
    outer = nn.Module()
    outer.module = inner
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in outer.parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return outer


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return dict(network().state_dict())


def same(public: dict[str, Tensor], published: dict[str, Tensor]) -> None:
    """Order, shapes and values, but for the ImageNet classifiers, which are zeros."""
    assert list(public) == list(published)
    for name, tensor in published.items():
        expected = torch.zeros_like(tensor) if name in IMAGENET_HEADS else tensor
        assert public[name].dtype == tensor.dtype and torch.equal(public[name], expected), name


@pytest.mark.parametrize(
    ("patch", "frames", "grid", "name"),
    [
        (PATCH, 1024, (64, 8), "ssast_patch_tiny"),
        (FRAME, 1024, (512, 1), "ssast_frame_tiny"),
        (PATCH, 256, (16, 8), "ssast_patch_tiny"),  # of 4 times the hop
        ((32, 16), 1024, (32, 8), "ssast_patch_tiny"),  # compressed patches
    ],
)
def test_a_pretrained_file_loads_whole_and_goes_back_as_it_was(patch, frames, grid, name):
    published = dict(network(patch, frames).state_dict())
    adapted = to_native(published)
    assert is_ssast(published) and not is_eat(published) and not is_deit(published)
    assert adapted.report.clean and adapted.report.notes == () and adapted.report.layout == "SSAST"
    assert (adapted.grid, adapted.patch, adapted.report.backbone) == (grid, patch, name)
    assert adapted.report.ignored.keys() == IMAGENET_HEADS | INPUT
    student = SsastStudent(Model(backbone=name), tokens_of(frames, 128, patch), Ssast(kind="ssast"))
    for part, state in ((student.backbone, adapted.backbone), (student.decoder, adapted.decoder)):
        assert load_into(part, state, where="test").unexpected == []
    assert torch.equal(student.decoder.generative[2].weight, published["module.gpredlayer.2.weight"])
    assert torch.equal(student.decoder.discriminative[0].bias, published["module.cpredlayer.0.bias"])

    public = to_public(student.backbone.state_dict(), None, decoder=student.decoder.state_dict(), grid=grid)
    same(public, published)
    network(patch, frames).load_state_dict(public, strict=True)


def test_a_fine_tuned_file_is_an_asts_and_is_written_as_one():
    published = dict(network(classes=7).state_dict())
    assert is_ast(published) and not is_ssast(published)  # nothing in it tells
    adapted = to_native(published)
    assert adapted.report.clean and adapted.report.layout == "fine-tuned SSAST" and not adapted.decoder
    assert (adapted.grid, adapted.report.backbone) == ((64, 8), "ssast_patch_tiny")
    model = Model(backbone="ssast_patch_tiny", head=ClipHead(kind="clip"))
    classifier = build_classifier(model, tokens_of(1024, 128, PATCH), 7)
    assert load_into(classifier.head, adapted.head, where="test").unexpected == []
    same(to_public(adapted.backbone, adapted.head), published)


def test_a_pretrained_file_with_a_classifier_beside_it_keeps_both(published):
    more = {n: t for n, t in network(classes=7).state_dict().items() if "mlp_head" in n}
    adapted = to_native(published | more)
    assert adapted.report.clean and len(adapted.decoder) == 9
    assert set(adapted.head) == {"norm.weight", "norm.bias", "fc.weight", "fc.bias"}


def test_an_ast_file_is_none_of_ssasts_and_an_ssast_file_must_be_asked_for_first(published):
    assert is_ssast(published) and is_ast(published)
    assert not is_ssast({n: t for n, t in published.items() if "mask_embed" not in n})


def test_every_tensor_of_an_ssast_is_accounted_for(published):
    tensors = published | {
        "module.v.fc_norm.weight": torch.ones(1),
        "epoch": torch.ones(()),
        "x.mask_embed": torch.ones(1),
    }
    del tensors["module.v.blocks.5.mlp.fc2.bias"], tensors["module.gpredlayer.2.bias"]
    report = to_native(tensors).report
    assert report.unexpected == ["module.v.fc_norm.weight", "epoch", "x.mask_embed"]
    assert report.missing == ["backbone.blocks.5.mlp.fc2.bias", "decoder.generative.2.bias"] and not report.clean
    assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(tensors)


def test_names_without_module_and_half_precision_are_known(published):
    bare = {n.removeprefix("module."): t.half() if t.is_floating_point() else t for n, t in published.items()}
    adapted = to_native(bare)
    assert is_ssast(bare) and adapted.report.clean and adapted.grid == (64, 8)
    assert all(t.dtype == torch.float32 for t in (*adapted.backbone.values(), *adapted.decoder.values()))
    twice = to_native(published | {"p_input_tdim": torch.tensor(256), "mask_embed": torch.zeros(1, 1, 192)})
    assert twice.report.unexpected == ["p_input_tdim", "mask_embed"] and twice.grid == (64, 8)


@pytest.mark.parametrize("sizes", [(), (128, 1000), (128.0, 1024.0), ([128, 1], [1024, 1])])
def test_without_the_size_of_the_input_the_grid_is_asts_guess_and_that_is_said(published, sizes):
    given_sizes = dict(zip(("module.p_input_fdim", "module.p_input_tdim"), map(torch.tensor, sizes), strict=False))
    tensors = {n: t for n, t in published.items() if n not in INPUT} | given_sizes
    adapted = to_native(tensors)
    assert adapted.grid == (64, 8) and adapted.report.clean
    assert "its 512 positions are not those of an input of" in str(adapted.report)


def test_a_size_that_is_none_of_ours_has_no_name():
    report = to_native(dict(network(depth=11).state_dict())).report
    assert report.backbone is None and report.clean


def test_a_pretrained_layout_needs_the_grid_and_the_decoder(published):
    adapted = to_native(published)
    with pytest.raises(ValueError, match="the grid of tokens is not known"):
        to_public(adapted.backbone, None, decoder=adapted.decoder)
    with pytest.raises(KeyError, match="mask_token"):
        to_public(adapted.backbone, None, grid=(64, 8))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.lists(st.integers(0, 3), max_size=4)))
def test_any_ssast_names_and_shapes_are_accounted_for(shapes):
    names = {key: value for n, value in shapes.items() for key in (n, f"module.v.{n}", f"cpredlayer.{n}", f"v.{n}")}
    names |= {
        "v.pos_embed": [0],
        "module.v.patch_embed.proj.weight": [1, 1, 0, 2],
        "mask_embed": [],
        "p_input_fdim": [0],
    }
    report = to_native({name: torch.zeros(shape) for name, shape in names.items()}).report
    assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(names)
    assert report.missing and report.notes
