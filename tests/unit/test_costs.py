"""FLOPs as mathematics counts them; memory as autograd holds it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from c2ftool.costs.flops import Flops, clip_flops, count
from c2ftool.costs.frontend_flops import frontend_flops
from c2ftool.costs.memory import saved_bytes, training_memory


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(x)))


class Transformer(nn.Module):
    """AST's shape: 16 x 16 patches, two prefix tokens, classes from one token."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, classes: int = 527) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 16, 16)
        self.prefix = nn.Parameter(torch.zeros(1, 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.head = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.patch(features).flatten(2).transpose(1, 2)
        return self.head(self.blocks(torch.cat([self.prefix.expand(len(tokens), -1, -1), tokens], 1))[:, 0])


# multiply-adds counted on the public AST code: 12 blocks, 768 wide, 128 mels, 527 classes
@pytest.mark.parametrize(
    ("frames", "forward", "training"),
    [(1024, 48_627_141_888, 145_780_762_368), (512, 23_190_785_280, 69_522_024_192), (256, 11_378_576_640, None)],
)
def test_ast_base_costs_what_the_public_code_counts(frames, forward, training):
    flops = clip_flops(Transformer, lambda m: m(torch.empty(1, 1, 128, frames)))
    assert flops.forward == 2 * forward
    if training is not None:
        assert flops.training == 2 * training


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_block_costs_its_formula_forward_and_twice_that_backward(dropout):
    n, d = 37, 48
    macs = 12 * n * d**2 + 2 * n**2 * d
    flops = clip_flops(
        lambda: nn.Sequential(nn.Linear(5, d), Block(d, 4, dropout)), lambda m: m(torch.empty(1, n, 5)) ** 2
    )
    entry = n * d * 5  # its input needs no gradient
    assert flops == Flops(2 * (macs + entry), 2 * (3 * macs + 2 * entry))


def test_counts_are_equal_to_torchs_own_counter_on_meta():
    with torch.device("meta"):
        model, features = Transformer(64, 2, 4, 10), torch.empty(3, 1, 32, 64)
    with FlopCounterMode(display=False) as own:
        model(features).sum().backward()
    assert count(lambda: model(features).sum().backward()) == own.get_total_flops()


def test_attention_counts_the_same_on_cpu_as_on_meta():
    # torch's counter alone sees no attention on the CPU, where it is fused
    def attend(device: str) -> int:
        q = torch.zeros(2, 3, 10, 8, device=device, requires_grad=True)
        return count(lambda: F.scaled_dot_product_attention(q, q, q).sum().backward())

    one_product = 2 * 2 * 3 * 10 * 10 * 8
    assert attend("cpu") == attend("meta") == 6 * one_product


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_grouped_convolution_costs_twice_its_forward_pass_backward(groups, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d

    def step(module: nn.Module) -> Tensor:
        return module(torch.empty(2, 6, 10, 9, requires_grad=True))

    flops = clip_flops(lambda: kind(6, 12, 3, padding=1, groups=groups), step)
    assert flops.forward == 2 * 2 * (6 * 12 // groups) * 9 * 10 * 9
    assert flops.training == 3 * flops.forward


@pytest.mark.parametrize("transposed", [False, True])
def test_ungrouped_convolution_is_counted_as_torch_does(transposed):
    kind = nn.ConvTranspose1d if transposed else nn.Conv1d
    with torch.device("meta"):
        module, x = kind(5, 7, 4, stride=3, padding=1), torch.empty(2, 5, 31, requires_grad=True)
    with FlopCounterMode(display=False) as own:
        module(x).sum().backward()
    assert count(lambda: module(x).sum().backward()) == own.get_total_flops()


def test_frozen_parameters_save_their_gradients_cost():
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
        model[0].requires_grad_(False)
        return model

    flops = clip_flops(build, lambda m: m(torch.empty(3, 8)))
    assert flops == Flops(2 * 3 * (8 * 16 + 16 * 4), 2 * 3 * (8 * 16 + 2 * 16 * 4))


def test_a_teacher_without_gradient_counts_once():
    def step(m: nn.Module) -> Tensor:
        x = torch.empty(3, 8)
        with torch.no_grad():
            target = m(x)
        return (m(x) - target) ** 2

    flops = clip_flops(lambda: nn.Linear(8, 16), step)
    assert flops == Flops(2 * 2 * 3 * 8 * 16, 3 * 2 * 3 * 8 * 16)


def test_recurrent_layers_are_counted():
    flops = clip_flops(
        lambda: nn.GRU(8, 16, bidirectional=True, batch_first=True), lambda m: m(torch.empty(1, 20, 8))[0]
    )
    assert flops.forward == 2 * 2 * 20 * 3 * 16 * (8 + 16)


def test_frontend_flops_follow_the_stated_convention():
    # 4 frames of 8 samples, 5 bins, 3 mels
    parts = frontend_flops(4, 8, 3)
    assert (parts.window, parts.transform, parts.power) == (4 * 5 * 8, 4 * 2.5 * 8 * 3, 4 * 3 * 5)
    assert (parts.mel, parts.scale) == (4 * 2 * 5 * 3, 4 * 3 * 3)
    assert parts.total == 160 + 240 + 60 + 120 + 36
    assert frontend_flops(4, 8, 3, frame_length=6).window == 4 * 5 * 6
    assert frontend_flops(1024, 512, 128).total < 0.002 * 48_627_141_888
    with pytest.raises(ValueError, match="frames of 9 samples"):
        frontend_flops(4, 8, 3, frame_length=9)


def test_memory_counted_on_meta_is_what_autograd_holds_on_the_cpu():
    def step(m: nn.Module) -> Tensor:
        return m(torch.zeros(3, 1, 32, 64)).square().mean()

    def build() -> nn.Module:
        return Transformer(32, 2, 4, 10)

    counted = training_memory(build, step)
    model = build()
    assert counted.activations == saved_bytes(model, lambda: step(model))
    parameters = sum(p.numel() for p in model.parameters())
    assert (counted.weights, counted.gradients, counted.optimizer) == (4 * parameters, 4 * parameters, 8 * parameters)
    assert counted.total == 16 * parameters + counted.activations


def test_memory_of_a_known_graph():
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, 4))
        model[2].requires_grad_(False)
        return model

    held = training_memory(build, lambda m: m(torch.empty(5, 8)).sum(), optimizer_states=1)
    # the input of the first layer and the sigmoid's result; the frozen layer needs its weight alone
    assert held.activations == 4 * (5 * 8 + 5 * 16)
    assert held.gradients == held.optimizer == 4 * (8 * 16 + 16)
    assert held.weights == 4 * (8 * 16 + 16 + 16 * 4 + 4)


def test_activations_grow_with_the_clips():
    sizes = [
        training_memory(lambda: Block(16, 2), lambda m, n=n: m(torch.empty(n, 9, 16)).sum()).activations
        for n in (1, 2, 4)
    ]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0]) > 0
