"""CNN14: order of its tokens, embedding, any length, what is dropped in training, first weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.models.build import build_classifier
from c2ftool.models.cnn14 import Cnn14, ConvBlock
from c2ftool.models.heads import ClipClassifier
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Rules
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.resolved import Tokens

MICRO = BACKBONES["cnn14_micro"]


def tokens(frames: int = 128) -> Tokens:
    return tokens_of(frames, 64, (32, 32), None, "halves")


def cnn14(frames: int = 128) -> Cnn14:
    backbone = Cnn14(MICRO, tokens(frames))
    initialise(backbone, 3)
    return backbone.eval()


def classifier(classes: int = 5) -> ClipClassifier:
    built = build_classifier(Model(backbone="cnn14_micro", head=ClipHead(kind="clip")), tokens(), classes)
    initialise(built, 3)
    return built


def normal(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw(first: int = 0, step: int = 3, rows: int = 2) -> Draw:
    return Draw(7, 0, step, torch.arange(first, first + rows))


def watched(backbone: Cnn14, what: str) -> list[Tensor]:
    """What a module will be given."""
    seen: list[Tensor] = []
    backbone.get_submodule(what).register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    return seen


def test_channels_double_from_block_to_block() -> None:
    assert [block.conv2.weight.shape[0] for block in cnn14().blocks] == [4, 8, 16, 32, 64, 128]
    with torch.device("meta"):
        published = Cnn14(BACKBONES["cnn14"], tokens(1001))
    assert [block.conv2.weight.shape[0] for block in published.blocks] == [64, 128, 256, 512, 1024, 2048]
    # as published: 80,753,615 with the 527 classes' layer (Kong et al., table XV)
    assert sum(p.numel() for p in published.parameters()) == 80_753_615 - (2048 * 527 + 527)


def test_tokens_are_the_last_blocks_positions_in_order_of_time() -> None:
    backbone, x = cnn14(), normal(2, 130, 64)
    seen: list[Tensor] = []
    backbone.blocks[5].register_forward_hook(lambda _m, _g, out: seen.append(out))
    out = backbone(x)
    assert backbone.grid(130) == (4, 2) and seen[0].shape == (2, 128, 4, 2) and out.shape == (2, 8, 128)
    for t in range(4):
        for f in range(2):
            torch.testing.assert_close(out[:, t * 2 + f], seen[0][:, :, t, f])
    torch.testing.assert_close(backbone.sequence(x), seen[0].mean(3).transpose(1, 2))


def test_a_block_is_two_convolutions_and_a_mean_of_what_fills_two_by_two() -> None:
    block, x = ConvBlock(3, 5, pool=True).eval(), normal(1, 3, 7, 6)
    image = x
    for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        image = F.conv2d(image, conv.weight, padding=1) / (1 + norm.eps) ** 0.5
        image = image.clamp(min=0)
    expected = (
        image[:, :, 0:6:2, 0::2] + image[:, :, 1:6:2, 0::2] + image[:, :, 0:6:2, 1::2] + image[:, :, 1:6:2, 1::2]
    ) / 4
    torch.testing.assert_close(block(x), expected)


def test_the_embedding_is_the_mean_over_mel_and_largest_and_mean_over_time() -> None:
    backbone, x = cnn14(), normal(2, 128, 64)
    grid = backbone(x).view(2, 4, 2, 128)
    over_time = (grid[:, :, 0] + grid[:, :, 1]) / 2
    expected = F.relu(backbone.fc1(over_time.max(1).values + over_time.sum(1) / 4))
    torch.testing.assert_close(backbone.embedding(backbone(x)), expected)
    torch.testing.assert_close(backbone.clip(x), expected)


def test_the_batch_norm_in_front_has_one_mean_for_each_mel_band() -> None:
    backbone, x = cnn14().train(), normal(4, 128, 64) * 7 - 20 + torch.arange(64)
    image = watched(backbone, "blocks.0")
    backbone(x)
    torch.testing.assert_close(image[0].mean((0, 1, 2)), torch.zeros(64), rtol=0, atol=1e-5)
    torch.testing.assert_close(backbone.bn0.running_mean, 0.1 * x.mean((0, 1)))


@pytest.mark.parametrize("frames", [32, 63, 251, 1001])
def test_any_length_has_the_same_weights(frames: int) -> None:
    backbone = cnn14()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert backbone.resize(tokens(frames), Rules()) == []
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert backbone.tokens == tokens(frames)
    assert backbone(normal(1, frames, 64)).shape == (1, frames // 32 * 2, 128)
    assert backbone.clip(normal(1, frames, 64)).shape == (1, 128)


# --- dropout ----------------------------------------------------------------------------------------------------------


def frozen_norms(backbone: Any) -> Any:
    """In training, but for batch norm: what differs between passes is what is dropped."""
    backbone.train()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.eval()
    return backbone


def test_nothing_is_dropped_in_evaluation_or_without_a_draw() -> None:
    model, x = classifier().eval(), normal(2, 128, 64)
    whole = model(x)
    assert torch.equal(model(x, draw()), whole)
    torch.testing.assert_close(frozen_norms(model)(x), whole)


def test_a_fifth_is_dropped_after_every_block_and_half_before_the_embedding() -> None:
    model, x = frozen_norms(classifier()), normal(8, 128, 64)
    inputs = [watched(model.backbone, f"blocks.{n}") for n in range(1, 6)] + [watched(model.backbone, "fc1")]
    outputs: list[Tensor] = []
    for block in model.backbone.blocks:
        block.register_forward_hook(lambda _m, _g, out: outputs.append(out))
    model(x, draw(rows=8))
    for given, out in zip(inputs[:5], outputs, strict=False):
        positive = out > 0
        dropped = (given[0] == 0) & positive
        assert dropped.sum() / positive.sum() == pytest.approx(0.2, abs=0.06)
        kept = positive & ~dropped
        torch.testing.assert_close(given[0][kept], out[kept] / 0.8)
    assert (inputs[5][0] == 0).float().mean() == pytest.approx(0.5, abs=0.08)


def test_what_is_dropped_is_a_function_of_the_draw_and_of_no_global_state() -> None:
    model, x = frozen_norms(classifier()), normal(2, 128, 64)
    torch.manual_seed(1)
    first, state = model(x, draw()), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(model(x, draw()), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # not drawn from
    for other in (draw(first=2), draw(step=4)):
        assert not torch.allclose(model(x, other), first)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_all_parameters_learn() -> None:
    model = classifier()
    model(normal(4, 128, 64), draw(rows=4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_the_embeddings_layer_learns_with_the_last_block() -> None:
    layer = cnn14().layer_of
    assert [layer(name) for name in ("bn0.weight", "blocks.0.conv1.weight", "blocks.4.bn2.bias", "fc1.bias")] == [
        0, 0, 4, 5,
    ]  # fmt: skip


def test_first_values_are_pannss() -> None:
    state = cnn14().state_dict()
    bound = (6 / (9 * 64 + 9 * 128)) ** 0.5
    assert 0.95 * bound < state["blocks.5.conv1.weight"].abs().max() <= bound
    assert (state["fc1.bias"] == 0).all() and (state["blocks.2.bn1.weight"] == 1).all()
    assert {"bn0.running_mean", "blocks.5.bn2.num_batches_tracked"} <= state.keys()
