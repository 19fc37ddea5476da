"""Parity cases that are tables of numbers, without a model to fill. RUN_TABLES maps a kind to its lines.

Such a case has no `model` field: it is recognised by the list it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import cases_augment
import torch
from inputs import Case, backbone_named, frontend_of, time_first
from pydantic import TypeAdapter
from torch import nn

from c2ftool.costs.flops import Flops, clip_flops
from c2ftool.costs.savings import Point, savings
from c2ftool.models.build import build_classifier
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import Compression
from c2ftool.spec.layout import compressed, tokens_of
from c2ftool.spec.model import ClipHead, Model, TokenSemanticHead
from c2ftool.spec.resolved import Tokens

LISTS = {"cases": "forward_macs", "rows": "coarse_to_fine_savings"}  # the list that a table holds -> its kind
PATCH, CLASSES = (16, 16), 527  # of the published savings
COMPRESSIONS = {  # published name -> ours, without its factor
    "fshift": {"method": "fshift"},
    "avg_pool": {"method": "pool", "reduce": "avg"},
    "max_pool": {"method": "pool", "reduce": "max"},
    "patch_bl": {"method": "patch", "resize": "bilinear"},
    "patch_pi": {"method": "patch", "resize": "pi"},
}
# What is compared: (the FLOPs of ours, the saving of the row, percentage points that are allowed). Published savings
# follow from forward passes. Training is 3 times that, less the patch embedding's input gradient, which is never made
# and as large for wide patches as for narrow ones: so a coarse phase of wide patches is rid of a larger share of its
# cost, and saves a little more than published.
SAVINGS: dict[str, tuple[Literal["forward", "training"], str, float]] = {
    "published": ("forward", "published_flops_saving", 0.02),
    "computed": ("forward", "computed_flops_saving", 0.001),
    "training": ("training", "published_flops_saving", 0.02),
}
WIDE_PATCHES = 0.03  # allowed of `training` where the patch was widened


@dataclass(frozen=True)
class Line:
    """One output of a case: its error, relative unless its kind says otherwise, and what is allowed.

    skipped: why nothing was computed; such a line is neither good nor wrong.
    """

    output: str
    error: float
    allowed: float
    skipped: str | None = None

    @property
    def good(self) -> bool:
        return self.skipped is None and self.error <= self.allowed

    @property
    def wrong(self) -> bool:
        return self.skipped is None and not self.good


def kind_of(case: Case) -> str:
    """A case's kind: its `model` field, or of a table what it lists. Raises KeyError where it has neither."""
    listed = [kind for field, kind in LISTS.items() if isinstance(case.get(field), list)]
    return listed[0] if "model" not in case and listed else case["model"]


def forward_macs(case: Case) -> list[Line]:
    """Multiply-accumulates of one clip, counted as c2ftool counts FLOPs; they must be equal."""
    lines = []
    for row in case["cases"]:
        sizes = [f"{name} {row[name]}" for name in ("frames", "image_size", "stride") if name in row]
        about = " ".join([row["model"], *sizes])
        recorded = [name for name in ("forward_macs", "forward_backward_macs") if name in row]
        if (backbone := backbone_named(row["model"], row)) is None:
            lines += [Line(f"{about} {name}", 0.0, 0.0, "no such backbone yet") for name in recorded]
            continue
        counted = _macs(backbone, row)
        lines += [Line(f"{about} {name}", abs(counted[name] / row[name] - 1), 0.0) for name in recorded]
    return lines


def _macs(backbone: str, row: Case) -> dict[str, int]:
    if "front_end_frames" in row:  # HTS-AT: its image follows from the frames of the front end
        size = BACKBONES[backbone]
        tokens = tokens_of(row["front_end_frames"], size.frontend.mels, size.patch, grid=size.grid)
        chunks = tokens.time * tokens.patch[0] // row["image_size"]
        if chunks * size.frontend.mels != row["image_size"]:
            raise AssertionError(f"{row['front_end_frames']} frames make no image of {row['image_size']} x itself")
    else:
        tokens = tokens_of(row["frames"], row["mel_bins"], time_first(row["patch"]), time_first(row["stride"]))
    flops = _cost(backbone, tokens, row["classes"])
    return {"forward_macs": flops.forward // 2, "forward_backward_macs": flops.training // 2}


def _cost(backbone: str, tokens: Tokens, classes: int) -> Flops:
    """FLOPs of one clip, as c2ftool counts a phase of fine-tuning."""
    htsat = BACKBONES[backbone].family == "htsat"
    head = TokenSemanticHead(kind="token_semantic") if htsat else ClipHead(kind="clip", pool="cls")
    model = Model(backbone=backbone, head=head)

    def step(classifier: nn.Module) -> torch.Tensor:
        return classifier(torch.empty(1, tokens.frames, tokens.mels))

    return clip_flops(lambda: build_classifier(model, tokens, classes), step)


def coarse_to_fine_savings(case: Case) -> list[Line]:
    """Savings in per cent by our costs and our rule; errors are in percentage points.

    SSAST has the tokens of AST, and so its ratios.
    """
    costs: dict[tuple[str, int], Flops] = {}

    def cost(method: str, factor: int) -> Flops:
        if (method, factor) not in costs:
            costs[method, factor] = _cost("ast_base", _compressed_tokens(method, factor), CLASSES)
        return costs[method, factor]

    lines = []
    for row in case["rows"]:
        method, model = row["method"], row.get("model", "ast")
        about = f"table {row['table']} {row['dataset']} {method} {'-'.join(str(factor) for factor in row['factors'])}"
        for name, (kind, recorded, allowed) in SAVINGS.items():
            wide = kind == "training" and method.startswith("patch_")
            line = Line(f"{about} {name}", 0.0, WIDE_PATCHES if wide else allowed)
            if method not in COMPRESSIONS or model not in ("ast", "ssast"):
                lines.append(replace(line, skipped=f"no {method} of {model} yet"))
                continue
            *phases, full = [getattr(cost(method, factor), kind) for factor in (*row["factors"], 1)]
            saved = _saving(row, phases, full)
            lines.append(replace(line, error=math.inf if saved is None else abs(100 * saved - row[recorded])))
    return lines


def _compressed_tokens(method: str, factor: int) -> Tokens:
    compression: Compression = TypeAdapter(Compression).validate_python(COMPRESSIONS[method] | {"factor": factor})
    return compressed(frontend_of(0.0, 1.0), compression, BACKBONES["ast_base"], PATCH)[1]


def _saving(row: Case, phases: list[int], full: int) -> float | None:
    """The share saved of a run that passes the baseline's best where the row says, after phases of these costs.

    One evaluation per epoch (SSAST: per as many iterations as divide all of its lengths). The baseline goes on after
    its best; earlier phases score above it, which must not count. None: not reached.
    """
    unit = "iterations" if "iterations" in row else "epochs"
    lengths, best = row[unit], row[f"baseline_{unit}"]
    step = math.gcd(*lengths, best)
    baseline = [_point(n * step, n * step * full, -abs(n * step - best)) for n in range(1, 2 * best // step + 1)]
    run: list[Point] = []
    for phase, (length, cost) in enumerate(zip(lengths, phases, strict=True)):
        final = phase == len(lengths) - 1
        for n in range(1, length // step + 1):
            done, spent = (run[-1].epochs, run[-1].flops) if run else (0.0, 0.0)
            passed = not final or n == length // step
            run.append(_point(done + step, spent + step * cost, 1.0 if passed else -1.0, final))
    return savings(run, baseline, "first_beat").flops


def _point(trained: float, flops: float, value: float, final: bool = True) -> Point:
    return Point("fine" if final else "coarse", final, trained, flops, 0.0, 0.0, value)


def _in_lines(compare: Callable[[Case], list[tuple[str, float, float]]]) -> Callable[[Case], list[Line]]:
    return lambda case: [Line(*compared) for compared in compare(case)]


RUN_TABLES: dict[str, Callable[[Case], list[Line]]] = {
    "forward_macs": forward_macs,
    "coarse_to_fine_savings": coarse_to_fine_savings,
} | {kind: _in_lines(compare) for kind, compare in cases_augment.RUN.items()}
