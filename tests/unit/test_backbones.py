"""Every backbone at its smallest size: shapes, order of time, another grid, groups of layers, first weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.backbone import Backbone
from c2ftool.models.build import build_backbone
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Rules
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import Compression, FrameShift, NoCompression, Patch
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import compressed, full_frontend
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import Tokens

SMALL = ["eat_tiny", *(name for name in BACKBONES if name.endswith("_micro"))]
FULL = NoCompression(method="none")
HALF = FrameShift(method="fshift", factor=2)
WIDE = Patch(method="patch", factor=2)


def tokens_in(name: str, frames: int, compression: Compression = FULL) -> Tokens:
    size = BACKBONES[name]
    front = full_frontend(Frontend(frames=frames), size, 0.0, 1.0)
    return compressed(front, compression, size, size.patch)[1]


def built(name: str, frames: int = 129, compression: Compression = FULL, drop_path: float = 0.0) -> Backbone:
    backbone = build_backbone(Model(backbone=name, drop_path=drop_path), tokens_in(name, frames, compression))
    initialise(backbone, 1)
    return backbone.eval()


def features(backbone: Backbone, clips: int = 2) -> Tensor:
    shape = (clips, backbone.tokens.frames, backbone.tokens.mels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def every_family() -> set[str]:
    return {size.family for size in BACKBONES.values()}


def test_there_is_a_small_size_of_every_family() -> None:
    assert {BACKBONES[name].family for name in SMALL} == every_family()


@pytest.mark.parametrize("name", SMALL)
def test_outputs_have_the_stated_shapes(name: str) -> None:
    backbone = built(name)
    x = features(backbone)
    with torch.no_grad():
        out, sequence, clip = backbone(x), backbone.sequence(x), backbone.clip(x)
    time, frequency = backbone.grid(x.shape[1])
    assert out.shape == (2, backbone.prefix + time * frequency, backbone.width)
    assert sequence.shape == (2, time, backbone.width)
    assert clip.shape == (2, backbone.width)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", SMALL)
def test_a_clip_does_not_depend_on_the_others(name: str) -> None:
    backbone = built(name)
    x = features(backbone, 3)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[1:2], backbone(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_the_sequence_is_in_the_order_of_time(name: str) -> None:
    """A change at the end of the clip moves the last step most, one at its start the first."""
    backbone = built(name, 257)
    x = features(backbone, 1)
    with torch.no_grad():
        before = backbone.sequence(x)
        moved = {}
        for place, part in (("start", slice(0, 24)), ("end", slice(-24, None))):
            changed = x.clone()
            changed[:, part] += 4.0
            moved[place] = (backbone.sequence(changed) - before).norm(dim=2)[0]
    half = len(moved["start"]) // 2
    assert moved["start"][:half].mean() > moved["start"][-half:].mean()
    assert moved["end"][-half:].mean() > moved["end"][:half].mean()


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns(name: str) -> None:
    backbone = built(name).train()
    out = backbone(features(backbone))
    pooled = backbone.embedding(out)
    (out.square().sum() + (pooled * torch.randn(pooled.shape)).sum()).backward()
    idle = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize("name", SMALL)
def test_first_weights_are_set_and_depend_on_the_seed_alone(name: str) -> None:
    first, again, other = (build_backbone(Model(backbone=name), tokens_in(name, 129)) for _ in range(3))
    for module, seed in ((first, 3), (again, 3), (other, 4)):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(float("nan"))
        initialise(module, seed)
    for (n, a), b in zip(first.named_parameters(), again.parameters(), strict=True):
        assert torch.isfinite(a).all() and torch.equal(a, b), n
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("compression", [HALF, WIDE], ids=["fshift", "patch"])
@pytest.mark.parametrize("name", SMALL)
def test_weights_cross_a_border_into_what_is_built_there(name: str, compression: Compression) -> None:
    if compression.method not in BACKBONES[name].compressions:
        pytest.skip(f"{name} has no {compression.method}")
    coarse, fine = built(name, 257, compression), built(name, 257)
    changes = coarse.resize(fine.tokens, Rules())
    assert {change.kind for change in changes} <= {"resized", "recomputed"}
    assert {n: v.shape for n, v in coarse.state_dict().items()} == {n: v.shape for n, v in fine.state_dict().items()}
    sized = {change.name for change in changes if change.kind == "resized"}
    assert sized <= set(fine.sized)
    with torch.no_grad():
        assert torch.isfinite(coarse(features(fine))).all()
    fine.load_state_dict(coarse.state_dict())
    x = features(fine)
    with torch.no_grad():
        torch.testing.assert_close(fine(x), coarse(x))  # nothing but the weights crosses


@pytest.mark.parametrize("name", SMALL)
def test_an_input_of_the_same_grid_leaves_weights_alone(name: str) -> None:
    backbone = built(name)
    before = copy.deepcopy(backbone.state_dict())
    assert backbone.resize(backbone.tokens, Rules()) == []
    for n, value in backbone.state_dict().items():
        assert torch.equal(value, before[n])


@pytest.mark.parametrize("name", SMALL)
def test_layers_are_numbered_from_first_to_last(name: str) -> None:
    backbone = built(name)
    layers = {n: backbone.layer_of(n) for n, _ in backbone.named_parameters()}
    numbers = {layer for layer in layers.values() if layer is not None}
    assert numbers == set(range(backbone.depth))
    outside = {n for n, layer in layers.items() if layer is None}
    assert bool(outside) != backbone.size.joined
    if "norm.weight" in layers and backbone.size.joined:
        assert layers["norm.weight"] == backbone.depth - 1


@pytest.mark.parametrize("name", [n for n in SMALL if BACKBONES[n].family != "cnn14"])
def test_skipped_branches_are_a_function_of_row_and_step(name: str) -> None:
    backbone = built(name, drop_path=0.6)
    x, rows = features(backbone, 4), torch.arange(4)
    plain = backbone(x)
    backbone.blocks.train()  # batch norm in front of the blocks stays as it is
    backbone.training = True
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        whole = backbone(x, Draw(1, 0, 5, rows))
        part = backbone(x[2:], Draw(1, 0, 5, rows[2:]))
        later = backbone(x, Draw(1, 0, 6, rows))
    torch.testing.assert_close(whole[2:], part, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole, later) and not torch.allclose(whole, plain)
