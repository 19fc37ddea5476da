"""EAT's loss against a slow plain twin: float64, a clone and a clip at a time, nothing shared with c2ftool/models."""

import math

import pytest
import torch
from torch import Tensor

from c2ftool.models.initialise import initialise
from c2ftool.objectives.eat import EatObjective, EatStudent
from c2ftool.objectives.ema import EmaTeacher
from c2ftool.spec import objective as spec_objective
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import Model
from c2ftool.spec.resolved import ResolvedTeacher

WIDTH, DEPTH, HEADS, PATCH = 96, 4, 3, 16  # eat_tiny
Weights = dict[str, Tensor]


def layer_norm(x: Tensor, weight: Tensor | float = 1.0, bias: Tensor | float = 0.0, eps: float = 1e-6) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def embed_clip(features: Tensor, w: Weights) -> Tensor:
    """(N, D) of one clip's (frames, mels)."""
    time, frequency = features.shape[0] // PATCH, features.shape[1] // PATCH
    kernel = w["patch_embed.proj.weight"].reshape(WIDTH, -1)
    rates = [10000.0 ** (-k / (WIDTH // 4)) for k in range(WIDTH // 4)]
    tokens = []
    for t in range(time):
        for f in range(frequency):
            patch = features[t * PATCH : (t + 1) * PATCH, f * PATCH : (f + 1) * PATCH].reshape(-1)
            place = [fn(i * r) for i in (f, t) for fn in (math.sin, math.cos) for r in rates]
            tokens.append(kernel @ patch + w["patch_embed.proj.bias"] + torch.tensor(place, dtype=torch.float64))
    return torch.stack(tokens)


def encode_clip(tokens: Tensor, w: Weights) -> tuple[Tensor, list[Tensor]]:
    """((1 + n, D) with CLS first, MLP output of each block)."""
    x = torch.cat([w["cls_token"][0], tokens])
    x = layer_norm(x, w["norm_pre.weight"], w["norm_pre.bias"])
    outputs = []
    for n in range(DEPTH):
        b = f"blocks.{n}."
        q, k, v = linear(x, w, b + "attn.qkv").split(WIDTH, dim=1)
        size = WIDTH // HEADS
        heads = []
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=1)
            heads.append(weights @ v[:, part])
        attended = linear(torch.cat(heads, dim=1), w, b + "attn.proj")
        x = layer_norm(x + attended, w[b + "norm1.weight"], w[b + "norm1.bias"])
        branch = linear(gelu(linear(x, w, b + "mlp.fc1")), w, b + "mlp.fc2")
        outputs.append(branch)
        x = layer_norm(x + branch, w[b + "norm2.weight"], w[b + "norm2.bias"])
    return x, outputs


def decode_clip(tokens: Tensor, grid: tuple[int, int], w: Weights, layers: int, groups: int) -> Tensor:
    """(N, D) -> (N, D): every output token is a sum over its 3 x 3 neighbours, group by group."""
    time, frequency = grid
    x = tokens
    size = WIDTH // groups
    for n in range(layers):
        kernel, bias = w[f"blocks.{n}.conv.weight"], w[f"blocks.{n}.conv.bias"]
        mixed = []
        for t in range(time):
            for f in range(frequency):
                total = bias.clone()
                for dt in (-1, 0, 1):
                    for df in (-1, 0, 1):
                        if 0 <= t + dt < time and 0 <= f + df < frequency:
                            there = x[(t + dt) * frequency + f + df].reshape(groups, size, 1)
                            tap = kernel[:, :, dt + 1, df + 1].reshape(groups, size, size)
                            total = total + (tap @ there).reshape(-1)
                mixed.append(total)
        x = x + gelu(layer_norm(torch.stack(mixed), eps=1e-5))
    return linear(x, w, "proj")


def plain_target(features: Tensor, w: Weights, layers: list[int]) -> Tensor:
    """(N, D) of one clip."""
    outputs = encode_clip(embed_clip(features, w), w)[1]
    total = torch.zeros_like(outputs[0][1:])
    for layer in layers:
        tokens = outputs[layer][1:]
        centred = tokens - tokens.mean(0)
        total += centred / (centred.square().mean(0) + 1e-5).sqrt()
    return layer_norm(total / len(layers), eps=1e-5)


def plain_loss(features, visible, fill, student: Weights, decoder: Weights, teacher: Weights, layers, spec):
    """(frame, utterance) summed over clones."""
    clones = len(visible) // len(features)
    grid = (features.shape[1] // PATCH, features.shape[2] // PATCH)
    frame = utterance = torch.zeros((), dtype=torch.float64)
    for row, seen in enumerate(visible.tolist()):
        clip = features[row // clones]
        target = plain_target(clip, teacher, layers).detach()
        encoded = encode_clip(embed_clip(clip, student)[seen], student)[0]
        whole = fill[row].clone()
        for place, token in enumerate(seen):
            whole[token] = encoded[1 + place]
        predicted = decode_clip(whole, grid, decoder, spec.layers, spec.groups)
        for token in range(grid[0] * grid[1]):
            if token not in seen:
                frame = frame + (predicted[token] - target[token]).square().sum() / math.sqrt(WIDTH)
        utterance = utterance + (encoded[0] - target.mean(0)).square().sum() / math.sqrt(WIDTH)
    return frame, utterance


def doubled(module: torch.nn.Module) -> Weights:
    return {name: p.detach().double().requires_grad_() for name, p in module.named_parameters()}


@pytest.mark.parametrize(("frames", "mels", "layers"), [(64, 48, [0, 1, 2, 3]), (50, 32, [1, 3])])
def test_losses_and_gradients_are_the_plain_twins(frames, mels, layers):
    generator = torch.Generator().manual_seed(frames)
    tokens = tokens_of(frames, mels, (16, 16))
    spec = spec_objective.Eat(kind="eat", decoder=spec_objective.Decoder(layers=2, groups=8))
    student = EatStudent(Model(backbone="eat_tiny"), tokens, spec)
    initialise(student, 1)
    objective = EatObjective(student, spec)
    objective._teacher = EmaTeacher(student.backbone)
    initialise(objective._teacher.module, 2)
    with torch.no_grad():  # so that norms' scales, biases and attention matter
        for module in (student, objective._teacher.module):
            for p in module.parameters():
                p += 0.1 * torch.randn(p.shape, generator=generator)
    objective._ema = ResolvedTeacher(kind="ema", decay=0.9, final_decay=0.9, over=1, layers=layers)

    clips, clones = 2, 3
    features = torch.randn(clips, frames, mels, generator=generator)
    tokens = (frames // PATCH) * (mels // PATCH)
    order = torch.rand(clips * clones, tokens, generator=generator).argsort(1)
    visible = order[:, : max(1, tokens // 4)].sort(1).values
    fill = torch.randn(clips * clones, tokens, WIDTH, generator=generator)

    sums = objective.loss_given(features, visible, fill)
    (sums["frame"] + 3 * sums["utterance"]).backward()

    body, decoder = doubled(student.backbone), doubled(student.decoder)
    teacher = doubled(objective._teacher.module)
    frame, utterance = plain_loss(
        features.double(), visible, fill.double(), body, decoder, teacher, layers, spec.decoder
    )
    (frame + 3 * utterance).backward()

    assert sums["frame"].item() == pytest.approx(frame.item(), rel=1e-5)
    assert sums["utterance"].item() == pytest.approx(utterance.item(), rel=1e-5)
    for part, weights in ((student.backbone, body), (student.decoder, decoder)):
        for name, p in part.named_parameters():
            error = (p.grad.double() - weights[name].grad).norm() / weights[name].grad.norm()
            assert error < 2e-4, name
    assert all(p.grad is None for p in objective._teacher.module.parameters())
