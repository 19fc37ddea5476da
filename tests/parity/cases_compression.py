"""Parity cases of the phase boundary: patch kernels resized over time, and the inputs of compressed phases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from deterministic import fill, spectrogram
from inputs import Case, Outputs, frontend_of, raw_log_mel, wave_of
from torch import Tensor
from torch.nn import functional as F

from c2ftool.compression.pool import Reduce
from c2ftool.compression.resize import KernelRule, Resize, axis_map, kernel_map
from c2ftool.frontend.build import build_frontend
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import Compression, FrameShift, Pool
from c2ftool.spec.layout import compressed
from c2ftool.spec.resolved import ResolvedFrontend

PATCH = (16, 16)  # AST's; it plays no part in front ends
# output of a kernel -> (rule, antialias)
KERNELS: dict[str, tuple[KernelRule, bool]] = {
    "pi_plain": ("pi", False),
    "pi_antialias": ("pi", True),
    "bl_plain": ("bilinear", False),
    "bl_antialias": ("bilinear", True),
}
TOKENS: dict[str, KernelRule] = {"pi_tokens": "pi", "bl_tokens": "bilinear"}  # with each rule's own antialias
POOLED: dict[str, Literal["input", "log_mel"]] = {"after": "input", "before": "log_mel"}  # than padding
REDUCE: tuple[Reduce, ...] = ("avg", "max")


def patch_kernel_resize(case: Case) -> Outputs:
    outputs: Outputs = {}
    for kernel in case["kernels"]:
        name, (_, _, mels, old), (_, new) = kernel["name"], kernel["shape"], kernel["new"]
        published = torch.from_numpy(fill(name, tuple(kernel["shape"])))  # (embed, 1, mel, time)
        bias = torch.from_numpy(fill(name.replace("weight", "bias"), published.shape[:1]))
        image = torch.from_numpy(spectrogram(case["input"]["seed"], (1, 1, mels, 4 * new)))

        def resized(rule: KernelRule, antialias: bool | None, weight: Tensor = published, new: int = new) -> Tensor:
            *_, mels, old = weight.shape
            over_time = Resize(kernel_map(old, new, rule, antialias=antialias), axis_map(mels, mels, "bilinear"))
            return over_time(weight.transpose(2, 3)).transpose(2, 3)

        about = f"{mels}x{old}_to_{mels}x{new}"
        for output, (rule, antialias) in KERNELS.items():
            outputs[f"{about}_{output}"] = resized(rule, antialias)
        for output, rule in TOKENS.items():
            made = F.conv2d(image, resized(rule, None), bias, stride=(mels, new))
            outputs[f"{about}_{output}"] = made.flatten(2).transpose(1, 2)
    return outputs


@torch.no_grad()
def temporal_compression(case: Case) -> Outputs:
    config, wave = case["config"], wave_of(case["input"])
    full = frontend_of(-4.2677393, 4.5689974, config["frames_at_factor_1"])

    def front(compression: Compression) -> ResolvedFrontend:
        return compressed(full, compression, BACKBONES["ast_base"], PATCH)[0]

    def raw(compression: Compression) -> Tensor:
        return raw_log_mel(wave, front(compression))

    def tokenised(compression: Compression) -> Tensor:
        frontend = build_frontend(front(compression))
        return frontend.compress(frontend(wave, torch.tensor([wave.shape[1]])))[0]

    outputs: Outputs = {}
    for factor in config["factors"]:
        kept = FrameShift(method="fshift", factor=factor)
        scaled = FrameShift(method="fshift", factor=factor, window="scaled")
        outputs[f"fshift_{factor}_features"] = raw(kept)
        outputs[f"fshift_{factor}_normalized"] = tokenised(kept)
        outputs[f"fshift_{factor}_window_scaled_features"] = raw(scaled)
        for reduce in REDUCE:
            for where, at in POOLED.items():
                pooling = Pool(method="pool", factor=factor, reduce=reduce, at=at)
                outputs[f"{reduce}_pool_{factor}_{where}_padding"] = tokenised(pooling)
    return outputs


RUN: dict[str, Callable[[Case], Outputs]] = {
    "patch_kernel_resize": patch_kernel_resize,
    "temporal_compression": temporal_compression,
}
