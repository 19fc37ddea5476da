"""Scores over time: the GRU of teachers, weak scores by attention, detectors, and their files."""

from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from c2ftool.costs.flops import clip_flops, count
from c2ftool.costs.memory import training_memory
from c2ftool.draws import Draw
from c2ftool.models.backbone import Backbone
from c2ftool.models.build import build_backbone
from c2ftool.models.frames import FrameDetector, FrameHead, align, attended, sequence_width
from c2ftool.models.initialise import initialise
from c2ftool.models.public import atst
from c2ftool.models.public.account import State
from c2ftool.models.public.writing import Parts, published
from c2ftool.models.recurrent import BiGru
from c2ftool.models.weights import starting_weights
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import NoCompression
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import compressed, full_frontend
from c2ftool.spec.model import Model

TEACHER = Path(__file__).parents[1] / "fixtures" / "parity" / "bigru_head_sed_teacher.json"
DETECTORS = ("beats", "atst", "fpasst", "m2d", "asit")
SMALL = [name for name in BACKBONES if name.endswith("_micro")] + ["eat_tiny"]


def encoder(name: str, frames: int | None = 129, drop_path: float = 0.0) -> Backbone:
    size = BACKBONES[name]
    front = full_frontend(Frontend() if frames is None else Frontend(frames=frames), size, 0.0, 1.0)
    tokens = compressed(front, NoCompression(method="none"), size, size.patch)[1]
    return build_backbone(Model(backbone=name, drop_path=drop_path), tokens)


def detector(name: str, frames: int | None = 129, drop_path: float = 0.0, sequence="published", **kinds):
    backbone = encoder(name, frames, drop_path)
    made = FrameDetector(backbone, FrameHead(sequence_width(backbone, sequence), 4, 250, **kinds), sequence)
    initialise(made, 3)
    return made


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gru(width: int = 6, layers: int = 2, hidden: int = 5) -> BiGru:
    made = BiGru(width, layers, hidden)
    initialise(made, 1)
    return made


# --- the recurrent network --------------------------------------------------------------------------------------------


def slow_gru(network: BiGru, x: Tensor) -> Tensor:
    """Step by step, from the published equations: the reset gate is applied after the recurrent product."""
    for layer in range(network.num_layers):
        both = []
        for way in ("", "_reverse"):
            w, u, b, c = (
                getattr(network, f"{kind}_l{layer}{way}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            state, states = x.new_zeros(len(x), network.hidden_size), []
            for frame in x.unbind(1) if not way else reversed(x.unbind(1)):
                (r, z, n), (hr, hz, hn) = (frame @ w.T + b).chunk(3, 1), (state @ u.T + c).chunk(3, 1)
                reset, update = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
                state = (1 - update) * torch.tanh(n + reset * hn) + update * state
                states.append(state)
            both.append(torch.stack(states if not way else states[::-1], 1))
        x = torch.cat(both, 2)
    return x


def test_the_network_is_the_published_equations_with_their_gradients() -> None:
    network, x = gru(), noise(3, 9, 6).requires_grad_()
    fast, slow = network(x), slow_gru(network, x)
    torch.testing.assert_close(fast, slow)
    inputs = [x, *network.parameters()]
    weights = noise(3, 9, 10, seed=1)
    ours = torch.autograd.grad((fast * weights).sum(), inputs)
    for one, other in zip(ours, torch.autograd.grad((slow * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_autocast_leaves_the_network_in_single_precision() -> None:
    network, x = gru(), noise(3, 9, 6)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(x), exact)
        rough = network(x.bfloat16())
        assert rough.dtype == torch.float32 and torch.equal(rough, network(x.bfloat16().float()))
        head = FrameHead(6, 4, 9, recurrent=(1, 5), weak="attention")
        strong, weak = head(x)
    assert strong.dtype == torch.bfloat16 and weak.dtype == torch.float32
    (strong.float().sum() + weak.sum()).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in head.parameters())


def test_first_weights_are_torchs_and_a_function_of_seed_and_name() -> None:
    head = FrameHead(48, 4, 9, recurrent=(2, 64))
    initialise(head, 5)
    first = {name: p.detach().clone() for name, p in head.named_parameters()}
    for name, value in first.items():
        if name.startswith("rnn."):  # biases too
            assert value.abs().max() <= 64**-0.5 and abs(float(value.std()) * math.sqrt(3 * 64) - 1) < 0.2, name
    # the linear layers are those of a head without a network, where their shapes are equal
    plain = FrameHead(128, 4, 9)
    initialise(plain, 5)
    assert torch.equal(plain.strong.weight, first["strong.weight"]) and not plain.strong.bias.any()
    initialise(head, 5)
    assert all(torch.equal(p, first[name]) for name, p in head.named_parameters())
    initialise(head, 6)
    assert not torch.equal(head.rnn.weight_hh_l1, first["rnn.weight_hh_l1"])


def test_copying_compiling_and_data_parallelism_work_without_a_word(tmp_path: Path) -> None:
    head, x = FrameHead(6, 4, 20, recurrent=(2, 5)), noise(2, 9, 6)
    expected = head(x)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copied = copy.deepcopy(head)
        assert torch.equal(copied(x)[0], expected)
        torch.save(head.state_dict(), tmp_path / "state.pt")
        copied.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert torch.equal(torch.compile(copied, backend="eager")(x)[0], expected)
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
        try:
            parallel = nn.parallel.DistributedDataParallel(copied)
            sum(out.sum() for out in parallel(x)).backward()
        finally:
            dist.destroy_process_group()
    assert torch.equal(copied.rnn.weight_hh_l0.grad, torch.autograd.grad(sum(o.sum() for o in head(x)),
                                                                         head.rnn.weight_hh_l0)[0])  # fmt: skip
    assert list(head.state_dict()) == [*(f"rnn.{name}" for name in nn.GRU(6, 5, 2, bidirectional=True).state_dict()),
                                       "strong.weight", "strong.bias", "weak.weight", "weak.bias"]  # fmt: skip


@pytest.mark.gpu
def test_a_gpu_gives_the_same_scores_and_gradients_in_every_mode() -> None:
    head, x = FrameHead(24, 4, 50, recurrent=(2, 32)), noise(2, 50, 24)
    expected = head(x)[0]
    (wanted,) = torch.autograd.grad(expected.square().sum(), head.rnn.weight_hh_l1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for moved in (copy.deepcopy(head).cuda(), copy.deepcopy(copy.deepcopy(head).cuda())):
            for mode in (True, False):  # cuDNN knows no gradient in evaluation mode
                scores = moved.train(mode)(x.cuda())[0]
                (made,) = torch.autograd.grad(scores.square().sum(), moved.rnn.weight_hh_l1)
                torch.testing.assert_close(scores.cpu(), expected, rtol=2e-3, atol=2e-3)
                assert float((made.cpu() - wanted).norm() / wanted.norm()) < 2e-2 and moved.rnn.training is mode
            with torch.autocast("cuda", torch.bfloat16):
                assert moved.rnn(x.cuda()).dtype == torch.float32


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_a_teachers_head_costs_its_products() -> None:
    t, d, h, c = 250, 768, 2048, 447
    first, second, linear = 2 * 3 * h * (d + h) * t, 2 * 3 * h * (2 * h + h) * t, 2 * h * c * (t + 1)
    flops = clip_flops(
        lambda: FrameHead(d, c, t, recurrent=(2, h)),
        lambda head: torch.cat([out.flatten() for out in head(torch.empty(1, t, d, requires_grad=True))]),
    )
    assert flops.forward == 2 * (first + second + linear)
    # the gradients of both factors of each product; none of the state before the first frame, which is zero
    assert flops.training == 3 * flops.forward - 2 * (2 * 2 * 3 * h * h)


@pytest.mark.parametrize(("frozen", "given"), [(False, False), (False, True), (True, True)])
def test_the_meta_device_counts_operations_and_memory_of_torchs_own_loop(frozen: bool, given: bool) -> None:
    class Torchs(nn.GRU):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[0]

    def ours() -> nn.Module:
        return BiGru(8, 2, 16).requires_grad_(not frozen)

    def torchs() -> nn.Module:
        return Torchs(8, 16, num_layers=2, bidirectional=True, batch_first=True).requires_grad_(not frozen)

    def step(module: nn.Module) -> Tensor:
        return module(torch.empty(3, 20, 8, requires_grad=given))

    assert clip_flops(ours, step) == clip_flops(torchs, step)
    kept, wanted = (training_memory(build, step).activations for build in (ours, torchs))
    assert kept == wanted or (frozen and wanted < kept < 1.1 * wanted)  # the stand-in for the states, of no use then
    network, x = gru(8, 2, 16), torch.empty(3, 20, 8)
    on_meta = copy.deepcopy(network).to("meta")
    assert on_meta(x.to("meta")).shape == network(x).shape
    assert count(lambda: on_meta(x.to("meta")).sum().backward()) == count(lambda: network(x).sum().backward())


# --- weak scores by attention -----------------------------------------------------------------------------------------


def direct(strong: Tensor, attention: Tensor) -> Tensor:
    """(B, C) probabilities, as the formula says, in double precision."""
    weight = attention.double().softmax(1).clamp(1e-7, 1)
    return (strong.double().sigmoid() * weight).sum(2) / weight.sum(2)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 6), frames=st.integers(1, 12), scale=st.sampled_from([1, 9]))
def test_the_attentions_logit_is_that_of_the_formula(seed: int, classes: int, frames: int, scale: int) -> None:
    strong, attention = (scale * noise(2, classes, frames, seed=seed + n) for n in (0, 1))
    logits = attended(strong, attention)
    probability = direct(strong, attention).clamp(1e-7, 1 - 1e-7)
    torch.testing.assert_close(logits.double(), torch.logit(probability), rtol=2e-5, atol=2e-5)
    target = noise(2, classes, seed=seed + 2).sigmoid()
    torch.testing.assert_close(
        F.binary_cross_entropy_with_logits(logits, target).double(),
        F.binary_cross_entropy(probability, target.double()),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip


def test_no_logit_is_too_large_for_the_attention() -> None:
    values = torch.tensor([-3e4, -100.0, -20.0, 0.0, 20.0, 100.0, 3e4])
    strong = values.repeat(7, 1)[None].requires_grad_()
    attention = values[:, None].repeat(1, 7)[None].requires_grad_()
    logits = attended(strong, attention)
    loss = F.binary_cross_entropy_with_logits(logits, torch.zeros(1, 7))
    loss.backward()
    assert torch.isfinite(logits).all() and float(logits.detach().abs().max()) <= math.log((1 - 1e-7) / 1e-7) + 1e-5
    probability = direct(strong.detach(), attention.detach()).clamp(1e-7, 1 - 1e-7)
    torch.testing.assert_close(logits.detach().sigmoid().double(), probability, rtol=1e-5, atol=1e-7)
    assert torch.isfinite(strong.grad).all() and torch.isfinite(attention.grad).all()
    sure = attended(torch.full((1, 2, 3), -40.0), torch.zeros(1, 2, 3))  # 4e-18, taken for 1e-7
    torch.testing.assert_close(sure, torch.full((1, 2), math.log(1e-7 / (1 - 1e-7))))


def test_a_head_weighs_its_frames_scores_by_a_softmax_over_classes() -> None:
    head, x = FrameHead(6, 4, 20, weak="attention"), noise(2, 9, 6)
    initialise(head, 2)
    strong, weak = head(x)
    aligned = align(x, 20)
    torch.testing.assert_close(strong, head.strong(aligned).transpose(1, 2))
    torch.testing.assert_close(weak.sigmoid(), direct(strong, head.weak(aligned).transpose(1, 2)).float())
    with pytest.raises(ValueError, match="scores of 4 classes, not of 3"):
        FrameHead(6, 4, 20, weak="attention", weak_classes=3)


def test_a_linear_head_scores_frames_and_their_mean() -> None:
    for steps in (5, 20, 31):
        head, x = FrameHead(6, 4, 20, weak_classes=3), noise(2, steps, 6)
        strong, weak = head(x)
        torch.testing.assert_close(strong, head.strong(align(x, 20)).transpose(1, 2))
        torch.testing.assert_close(weak, head.weak(align(x, 20).mean(1)))
        assert strong.shape == (2, 4, 20) and weak.shape == (2, 3)
    head = FrameHead(6, 4, 20, recurrent=(1, 5))
    frames = head.rnn(align(x, 20))
    torch.testing.assert_close(head(x), (head.strong(frames).transpose(1, 2), head.weak(frames.mean(1))))


# --- detectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", ["published", "time"])
@pytest.mark.parametrize("name", SMALL)
def test_every_backbone_detects(name: str, sequence) -> None:
    made = detector(name, sequence=sequence).eval()
    tokens = made.backbone.tokens
    features = noise(2, tokens.frames, tokens.mels)
    given = made.backbone.published_sequence if sequence == "published" else made.backbone.sequence
    with torch.no_grad():
        strong, weak = made(features)
        torch.testing.assert_close((strong, weak), made.head(given(features)))
    assert strong.shape == (2, 4, 250) and weak.shape == (2, 4)
    assert {name.split(".")[0] for name in made.state_dict()} == {"backbone", "head"}


@pytest.mark.parametrize("sequence", ["published", "time"])
@pytest.mark.parametrize("name", [f"{family}_micro" for family in DETECTORS])
def test_branches_are_skipped_by_the_draw_in_training_only(name: str, sequence) -> None:
    made = detector(name, drop_path=0.9, sequence=sequence)
    tokens, draw = made.backbone.tokens, Draw(7, 0, 3, torch.arange(2))
    features = noise(2, tokens.frames, tokens.mels)
    with torch.no_grad():
        whole, skipped, again = made.train()(features)[0], made(features, draw)[0], made(features, draw)[0]
        assert torch.equal(skipped, again) and not torch.allclose(skipped, whole)
        assert torch.equal(made.eval()(features, draw)[0], made(features)[0])


# --- files ------------------------------------------------------------------------------------------------------------


def state(module: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def equal(ours: State, theirs: State | None) -> bool:
    return theirs is not None and ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("weak", ["mean", "attention"])
@pytest.mark.parametrize("family", DETECTORS)
def test_a_teacher_is_exported_in_the_published_layout_and_comes_back_to_the_bit(
    family: str, weak, tmp_path: Path
) -> None:
    made = detector(f"{family}_micro", None, recurrent=(2, 8), weak=weak)
    written = published(family, Parts(state(made.backbone), state(made.head)))
    assert written.report.clean and not written.notes
    case = json.loads(TEACHER.read_text())
    assert [name for name in written.content if not name.startswith("model.")] == [name for name, _ in case["tensors"]]
    torch.save(written.content, tmp_path / "teacher.pt")
    start = starting_weights(tmp_path / "teacher.pt")
    assert (start.family, start.backbone_name) == (family, f"{family}_micro")
    assert equal(state(made.backbone), start.backbone) and equal(state(made.head), start.head)
    assert start.head is not None
    other = FrameHead(sequence_width(made.backbone, "published"), 4, 250, recurrent=(2, 8))
    other.load_state_dict(start.head)


def test_a_file_whose_network_lacks_a_layer_is_refused() -> None:
    made = detector("atst_micro", None, recurrent=(2, 8))
    head = {name: tensor for name, tensor in state(made.head).items() if "_l0" not in name}
    with pytest.raises(KeyError, match=r"rnn\.weight_ih_l0"):
        published("atst", Parts(state(made.backbone), head))
    whole = published("atst", Parts(state(made.backbone), state(made.head))).content
    cut = {name: tensor for name, tensor in whole.items() if not name.endswith("weight_hh_l0")}
    assert atst.to_native(cut).report.missing == ["head.rnn.weight_hh_l0"]
    cut = {name: tensor for name, tensor in whole.items() if "_l0" not in name}
    assert len(atst.to_native(cut).report.missing) == 8


@pytest.mark.parametrize("name", ["eat_tiny", "ast_micro", "ssast_patch_micro"])
def test_a_layout_of_clips_has_no_place_for_scores_over_time(name: str) -> None:
    made = detector(name)
    with pytest.raises(ValueError, match="a head of clips, and these weights have one of frames"):
        published(BACKBONES[name].family, Parts(state(made.backbone), state(made.head), grid=(8, 8)))
