"""BEATs' encoder: what it is made of, any length, first weights, half precision on hard inputs, counted skips."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
import torchaudio
from torch import Tensor, nn

from c2ftool.costs.flops import clip_flops
from c2ftool.draws import Draw
from c2ftool.frontend.build import build_frontend
from c2ftool.models.beats import Beats, PositionConv
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Rules
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import full_frontend, tokens_of
from c2ftool.spec.resolved import Tokens

FIXTURES = Path(__file__).parent.parent / "fixtures" / "parity"
MICRO = BACKBONES["beats_micro"]
FRAMES, MELS = 96, 64  # 6 x 4 tokens


def tokens(frames: int = FRAMES, patch: tuple[int, int] = (16, 16)) -> Tokens:
    return tokens_of(frames, MELS, patch)


def encoder(drop_path: float = 0.0, seed: int = 0) -> Beats:
    built = Beats(MICRO, tokens(), drop_path)
    initialise(built, seed)
    return built.eval()


def clips(count: int = 2, frames: int = FRAMES, seed: int = 0) -> Tensor:
    return torch.randn(count, frames, MELS, generator=torch.Generator().manual_seed(seed))


def test_the_published_size_has_the_published_parameters():
    size = BACKBONES["beats_base"]
    with torch.device("meta"):
        built = Beats(size, tokens_of(998, 128, size.patch))
    case = json.loads((FIXTURES / "beats_sed_10s.json").read_text())
    again = case["tied_tensors"]["map"].keys() - set(case["tied_tensors"]["map"].values())
    stored = {name: math.prod(shape) for name, shape in case["tensors"] if "_head." not in name}
    published = sum(count for name, count in stored.items() if name not in again)
    assert sum(p.numel() for p in built.parameters()) == published == 90_311_792
    assert built.tokens.grid == (62, 8)


def test_tokens_are_in_time_order_and_any_length_will_do():
    model = encoder()
    for frames, time in ((FRAMES, 6), (16, 1), (331, 20)):
        x = clips(frames=frames)
        out = model(x)
        assert out.shape == (2, time * 4, 96)
        assert torch.equal(model.published_sequence(x), out)
        torch.testing.assert_close(model.sequence(x), out.view(2, time, 4, 96).mean(2))
        torch.testing.assert_close(model.clip(x), out.mean(1))
    x = clips()
    patches = model.patch_embed(x)
    changed = x.clone()
    changed[:, 32:48, 16:32] += 1  # third time patch, second from below
    differs = (model.patch_embed(changed) - patches).abs().amax((0, 2)) > 0
    assert differs.nonzero().flatten().tolist() == [2 * 4 + 1]


def test_a_clip_does_not_depend_on_the_others():
    model, x = encoder(), clips(3)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-5, atol=1e-5)


def test_every_block_weighs_the_residual_and_shares_one_table():
    model, x = encoder(), torch.randn(2, 24, 96)
    block, bias = model.blocks[1], model.relative(24)
    first = block.norm1(6**0.25 * x + block.attn(x, bias))
    torch.testing.assert_close(block(x, bias), block.norm2(6**0.25 * first + block.mlp(first)))
    assert [name for name, _ in model.named_parameters() if "table" in name] == ["relative.table"]
    assert all(type(b).__name__.endswith("Block") for b in model.blocks)


@pytest.mark.parametrize("length", [1, 5, 24])
def test_the_position_convolution_is_torchs_own_with_weight_norm(length):
    ours = PositionConv(12, 8, 3)
    theirs = nn.utils.parametrizations.weight_norm(nn.Conv1d(12, 12, 8, padding=4, groups=3), dim=2)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
        theirs.bias.copy_(ours.bias)
        theirs.parametrizations.weight.original0.copy_(ours.gain)
        theirs.parametrizations.weight.original1.copy_(ours.direction)
    x = torch.randn(2, length, 12)
    expected = nn.functional.gelu(theirs(x.mT)[..., :-1]).mT
    torch.testing.assert_close(ours(x), expected)


def test_first_weights_are_by_the_published_rule():
    model = encoder()
    deviations = {
        "attn.q.weight": (2 / (96 + 96)) ** 0.5,
        "attn.v.weight": (2 / (96 + 96)) ** 0.5 * 24**-0.25,
        "attn.proj.weight": (2 / (96 + 96)) ** 0.5 * 24**-0.25,
        "mlp.fc1.weight": (2 / (96 + 384)) ** 0.5 * 24**-0.25,
        "mlp.fc2.weight": (2 / (96 + 384)) ** 0.5 * 24**-0.25,
    }
    for name, expected in deviations.items():
        assert float(model.blocks[0].get_parameter(name).detach().std()) == pytest.approx(expected, rel=0.05), name
    assert float(model.blocks[0].attn.gate.weight.detach().std()) == pytest.approx(0.02, rel=0.15)
    assert float(model.relative.table.detach().std()) == pytest.approx(0.02, rel=0.25)
    assert torch.equal(model.blocks[2].attn.gate_scale, torch.ones(1, 3, 1, 1))
    assert model.patch_embed.proj.weight.abs().max() <= 1 / 16
    torch.testing.assert_close(model.position.weight(), model.position.direction)  # its gain is its norm
    assert float(model.position.direction.detach().std()) == pytest.approx(2 / (16 * 96) ** 0.5, rel=0.05)
    zero = [p for name, p in model.named_parameters() if name.endswith("bias") and not name.startswith("patch_proj")]
    assert not any(p.any() for p in zero)


def test_another_patch_changes_the_kernel_alone():
    model = encoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changes = model.resize(tokens(patch=(32, 16)), Rules())
    assert [(change.name, change.kind) for change in changes] == [("patch_embed.proj.weight", "resized")]
    assert model.patch_embed.proj.weight.shape == (48, 1, 32, 16)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items() if n != "patch_embed.proj.weight")
    assert model(clips()).shape == (2, 12, 96)
    assert model.resize(tokens(frames=48, patch=(32, 16)), Rules()) == []  # nothing is tied to the grid


def test_layers_learn_with_their_block_and_the_rest_with_the_first():
    model = encoder()
    assert {model.layer_of(name) for name, _ in model.named_parameters() if not name.startswith("blocks.")} == {0}
    assert model.layer_of("blocks.2.attn.gate_scale") == 2


def test_branches_are_skipped_by_counted_draws():
    model, x = encoder(drop_path=0.9).train(), clips(8)
    draw = Draw(1, 0, 3, torch.arange(8))
    dropped = model(x, draw)
    assert torch.equal(dropped, model(x, draw))
    assert not torch.allclose(dropped, model(x, Draw(1, 0, 4, torch.arange(8))))
    torch.testing.assert_close(dropped[4:], model(x[4:], draw.select(slice(4, 8))), rtol=1e-4, atol=1e-4)
    assert torch.equal(model(x), model.eval()(x, draw))


def test_operations_are_those_of_the_products():
    """Per token and layer 12 D^2 multiply-adds, the scores 2 N D; embedding, position kernel and gate on top."""
    flops = clip_flops(lambda: Beats(MICRO, tokens()), lambda model: model(torch.empty(1, FRAMES, MELS)))
    count, width, patch = 24, 96, 48
    block = 12 * count * width**2 + 2 * count**2 * width + count * width * 2
    embedding = count * patch * (256 + width) + (count + 1) * width * (width // 4) * 16
    assert flops.forward == 2 * (3 * block + embedding)
    assert 2.8 * flops.forward < flops.training < 3 * flops.forward  # the features have no gradient


def test_a_compiled_block_is_the_block():
    model = encoder()
    block, x, bias = model.blocks[0], torch.randn(2, 24, 96), model.relative(24).detach()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, bias), block(x, bias))


# --- half precision ---------------------------------------------------------------------------------------------------

SECONDS = torch.arange(16_000 * 2) / 16_000
WAVES = {
    "silence": torch.zeros(16_000 * 2),
    "square": torch.sign(torch.sin(2 * torch.pi * 440 * SECONDS)),  # full scale
    "click": torch.eye(1, 16_000 * 2)[0],
    "noise": torch.randn(16_000 * 2, generator=torch.Generator().manual_seed(0)) * 0.1,
}
HALVES = [torch.float16, torch.bfloat16]


def heard(wave: Tensor) -> Tensor:
    """(1, frames, mels) features of two seconds."""
    front = full_frontend(Frontend(frames=198), BACKBONES["beats_base"], 0.0, 1.0)
    return build_frontend(front)(wave[None], torch.tensor([len(wave)]))


@pytest.mark.parametrize("wave", WAVES)
def test_the_front_end_is_finite_where_the_public_one_is_not(wave):
    samples = WAVES[wave]
    with torch.autocast("cpu", torch.float16):
        public = torchaudio.compliance.kaldi.fbank(samples[None] * 32768, num_mel_bins=128, sample_frequency=16_000)
        ours = heard(samples)
    if wave != "silence":
        assert not public.isfinite().all()  # the fault itself: microsoft/unilm, issue 1569
    assert ours.isfinite().all() and torch.equal(ours, heard(samples))


def step(model: Beats, x: Tensor, autocast: torch.dtype | None = None) -> dict[str, Tensor]:
    """The output and all gradients of a forward and backward pass."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        out = model(x)
    out.float().square().mean().mul(8.0).backward()
    return {"out": out.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def hard(model: Beats, scale: float) -> Beats:
    """With queries and keys so large that logits are, at a scale of 300, beyond what float16 holds."""
    with torch.no_grad():
        for block in model.blocks:
            block.attn.q.weight.mul_(scale)
            block.attn.k.weight.mul_(scale)
            block.attn.gate.weight.mul_(scale)
    return model


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("wave", WAVES)
def test_no_input_and_no_logit_makes_autocast_infinite(wave, scale, dtype):
    x = heard(WAVES[wave])
    model = Beats(MICRO, tokens_of(198, 128, (16, 16)))
    initialise(model, 1)
    exact = step(hard(model, scale), x)
    for name, value in step(model, x, dtype).items():
        assert value.isfinite().all(), name
        if scale == 1.0 and name == "out":
            assert (value - exact[name]).norm() <= {torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype] * exact[
                name
            ].norm()


def test_the_logits_of_that_test_are_beyond_float16():
    model = hard(encoder(), 300.0)
    x = model.embed(clips())
    attention = model.blocks[0].attn
    q, k = (layer(x).unflatten(2, (3, -1)).transpose(1, 2) for layer in (attention.q, attention.k))
    assert (q @ k.mT / 32**0.5).abs().max() > 65504


@pytest.mark.parametrize("dtype", HALVES)
def test_a_model_that_is_half_precision_throughout_is_close(dtype):
    model = encoder()
    exact = step(model, clips())
    found = step(copy.deepcopy(model).to(dtype), clips().to(dtype))
    assert found["out"].dtype == dtype and found.keys() == exact.keys()
    for name, value in found.items():
        assert value.isfinite().all(), name
    error = (found["out"].float() - exact["out"]).norm() / exact["out"].norm()
    assert error <= {torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("value", [0.0, 1e6, -1e6])
def test_equal_or_huge_features_are_finite_in_half_precision(dtype, value):
    """All tokens alike but for their position; the patch kernel is outside of autocast, and a norm follows it."""
    model = encoder()
    x = torch.full((2, FRAMES, MELS), value)
    for features in (x, x * clips().sign()):
        for name, found in step(model, features, dtype).items():
            assert found.isfinite().all(), name


def test_one_step_gives_the_same_bits_every_time():
    model = encoder()
    first, again = step(model, clips(4)), step(model, clips(4))
    assert all(torch.equal(first[name], again[name]) for name in first)
