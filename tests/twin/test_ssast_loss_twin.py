"""SSAST's losses against a slow plain twin: float64, a clip and a patch at a time, nothing shared with the package."""

import math

import pytest
import torch
from torch import Tensor

from c2ftool.models.initialise import initialise
from c2ftool.objectives.ssast import SsastObjective, SsastStudent
from c2ftool.spec import objective as spec_objective
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import Model

DEPTH, HEADS = 4, 3  # ssast_*_micro
Weights = dict[str, Tensor]


def layer_norm(x: Tensor, w: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def patches_of(clip: Tensor, patch: tuple[int, int]) -> list[Tensor]:
    """The pixels of each patch of (frames, mels): band by band, the frames of each in order; so are the patches."""
    length, height = patch
    return [
        torch.stack([clip[t : t + length, f + band] for band in range(height)]).reshape(-1)
        for f in range(0, clip.shape[1] - height + 1, height)
        for t in range(0, clip.shape[0] - length + 1, length)
    ]


def encode_clip(clip: Tensor, masked: list[int], patch: tuple[int, int], w: Weights) -> Tensor:
    """(2 + N, D) of one clip, both tokens in front."""
    kernel = w["backbone.patch_embed.proj.weight"]
    width, positions = len(kernel), w["backbone.pos_embed"][0]
    rows = [w["backbone.cls_token"][0, 0] + positions[0], w["backbone.dist_token"][0, 0] + positions[1]]
    for place, pixels in enumerate(patches_of(clip, patch)):
        shown = kernel.reshape(width, -1) @ pixels + w["backbone.patch_embed.proj.bias"]
        rows.append((w["decoder.mask_token"][0, 0] if place in masked else shown) + positions[2 + place])
    x = torch.stack(rows)
    size = width // HEADS
    for n in range(DEPTH):
        block = f"backbone.blocks.{n}."
        q, k, v = linear(layer_norm(x, w, block + "norm1"), w, block + "attn.qkv").split(width, dim=1)
        heads = []
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            heads.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=1) @ v[:, part])
        x = x + linear(torch.cat(heads, dim=1), w, block + "attn.proj")
        inner = linear(layer_norm(x, w, block + "norm2"), w, block + "mlp.fc1")
        x = x + linear(0.5 * inner * (1 + torch.erf(inner / math.sqrt(2))), w, block + "mlp.fc2")
    return layer_norm(x, w, "backbone.norm")


def plain_losses(features: Tensor, masked: Tensor, patch: tuple[int, int], w: Weights) -> tuple[Tensor, Tensor, float]:
    """(InfoNCE summed over masked patches, squared error summed over their pixels, accuracy)."""
    nce = error = torch.zeros((), dtype=torch.float64)
    right = 0
    for clip, places in zip(features, masked.tolist(), strict=True):
        outputs = encode_clip(clip, places, patch, w)
        pixels = patches_of(clip, patch)
        told, made = (
            [
                linear(linear(outputs[2 + p], w, f"decoder.{name}.0").clamp(min=0), w, f"decoder.{name}.2")
                for p in places
            ]
            for name in ("discriminative", "generative")
        )
        shares = []
        for place, own in zip(places, range(len(places)), strict=True):
            scores = torch.stack([pixels[place] @ prediction for prediction in told])
            shares.append(torch.softmax(scores, 0))
            nce = nce - shares[-1][own].log()
            error = error + (made[own] - pixels[place]).square().sum()
        best = [
            max(range(len(places)), key=lambda row, column=c: shares[row][column].item()) for c in range(len(places))
        ]
        right += sum(row == column for column, row in enumerate(best))
    return nce, error, right / masked.numel()


@pytest.mark.parametrize(
    ("backbone", "patch", "frames", "mels"),
    [
        ("ssast_patch_micro", (16, 16), 70, 48),  # 4 x 3, frames left over
        ("ssast_patch_micro", (32, 16), 96, 32),
        ("ssast_frame_micro", (2, 32), 20, 32),
    ],
)
def test_losses_accuracy_and_gradients_are_the_plain_twins(backbone, patch, frames, mels):
    generator = torch.Generator().manual_seed(frames)
    tokens = tokens_of(frames, mels, patch)
    student = SsastStudent(Model(backbone=backbone), tokens, spec_objective.Ssast(kind="ssast"))
    initialise(student, 1)
    with torch.no_grad():  # so that norms' scales, biases and attention matter
        for p in student.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    objective = SsastObjective(student, spec_objective.Ssast(kind="ssast"))
    features = 0.5 * torch.randn(3, frames, mels, generator=generator)
    masked = torch.rand(3, tokens.count, generator=generator).argsort(1)[:, : tokens.count * 2 // 3].sort(1).values

    sums = objective.loss_given(features, masked)
    (sums["discriminative"] + 10 * sums["generative"]).backward()

    twin = {name: p.detach().double().requires_grad_() for name, p in student.named_parameters()}
    nce, error, accuracy = plain_losses(features.double(), masked, patch, twin)
    (nce + 10 * error).backward()

    assert sums["discriminative"].item() == pytest.approx(nce.item(), rel=1e-5)
    assert sums["generative"].item() == pytest.approx(error.item(), rel=1e-5)
    assert objective.watch(1)["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    for name, p in student.named_parameters():
        assert p.grad is not None, name
        wanted = twin[name].grad
        # a bias that all predictions share is in all scores of a target alike: its gradient is nothing but rounding
        limit = 1e-4 if name == "decoder.discriminative.2.bias" else 2e-4 * wanted.norm()
        assert (p.grad.double() - wanted).norm() < limit, name
