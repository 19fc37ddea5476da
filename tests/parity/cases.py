"""What each kind of parity case runs. A kind is the case's `model` field; RUN maps it to {output name: array}."""

from __future__ import annotations

import math
from collections.abc import Callable

import cases_ast
import cases_beats
import cases_compression
import cases_heads
import cases_htsat
import cases_sed
import cases_ssast
import torch
from deterministic import relative_error
from inputs import Case, Outputs, features, frontend_of, load_strictly, loaded, raw_log_mel, wave_of
from tables import RUN_TABLES, Line, kind_of
from torch import Tensor

from c2ftool.frontend.build import build_frontend
from c2ftool.models.build import build_classifier, build_eat
from c2ftool.objectives.eat import EatObjective, EatStudent
from c2ftool.objectives.ema import EmaTeacher
from c2ftool.spec import objective as spec_objective
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.resolved import ResolvedTeacher, Tokens

# Published name -> ours, of the tensors whose gradients are recorded.
GRADIENTS = {
    "blocks.0.attn.qkv.weight": "backbone.blocks.0.attn.qkv.weight",
    "extra_tokens": "backbone.cls_token",
    "decoder.blocks.0.0.weight": "decoder.blocks.0.conv.weight",
    "local_encoder.proj.weight": "backbone.patch_embed.proj.weight",
}

# Relative errors that are allowed: of models, of features, of plain arithmetic in float64.
MODEL, FEATURES, ARITHMETIC = 1e-4, 2e-5, 1e-6
FRONT_END = ("features", "normalized", "normalised")  # outputs that no model had a part in


def allowed(case: Case, output: str) -> float:
    """The largest relative error of an output of the case."""
    given, has_model = case["input"]["kind"], "tensors" in case
    if output.startswith("position_embedding_"):  # a table resized
        return ARITHMETIC
    if given == "kernel" and not output.endswith("_tokens"):  # those come of a convolution in float32
        return ARITHMETIC
    if given == "waveform" and (output in FRONT_END or not has_model):
        return FEATURES
    return MODEL


def check(case: Case) -> list[Line]:
    """Every recorded output against what we compute. Raises KeyError for a kind that is not in RUN or RUN_TABLES."""
    kind = kind_of(case)
    torch.manual_seed(0)
    if kind in RUN_TABLES:
        return RUN_TABLES[kind](case)
    outputs = RUN[kind](case)
    lines = []
    for name, recorded in case["outputs"].items():
        computed = outputs.get(name)
        error = math.inf if computed is None else relative_error(computed.detach().numpy(), recorded)
        lines.append(Line(name, error, allowed(case, name)))
    return lines


def patches(frames: int) -> Tokens:
    """The tokens of EAT's 16 x 16 patches at full resolution."""
    return tokens_of(frames, 128, (16, 16))


@torch.no_grad()
def eat_frontend(case: Case) -> Outputs:
    config, wave = case["config"], wave_of(case["input"])
    spec = frontend_of(config["mean"], config["std"], config["target_frames"])
    normalised = build_frontend(spec)(wave, torch.tensor([wave.shape[1]]))
    return {"features": raw_log_mel(wave, spec), "normalised": normalised[0]}


@torch.no_grad()
def eat_base(case: Case) -> Outputs:
    start, x = loaded(case), features(case["input"])
    backbone = build_eat(Model(backbone="eat_base"), patches(x.shape[1])).eval()
    load_strictly(backbone, start.backbone)
    kept: dict[int, Tensor] = {}
    handles = [
        block.get_submodule("mlp").register_forward_hook(
            lambda _module, _given, out, place=place: kept.update({place: out})
        )
        for place, block in enumerate(backbone.blocks)
    ]
    outputs: Outputs = {"embedding_sequence": backbone(x)}
    for handle in handles:
        handle.remove()
    for name in case["outputs"]:
        if name.startswith("mlp_output_block_"):
            outputs[name] = kept[int(name.rsplit("_", 1)[1])]
    return outputs


@torch.no_grad()
def eat_base_classifier(case: Case) -> Outputs:
    start, x = loaded(case), features(case["input"])
    outputs: Outputs = {}
    heads = {"logits": ClipHead(kind="clip", pool="cls"), "logits_mean_pooling": ClipHead(kind="clip", pool="mean")}
    for name, head in heads.items():
        model = Model(backbone="eat_base", head=head)
        classifier = build_classifier(model, patches(x.shape[1]), case["config"]["classes"]).eval()
        load_strictly(classifier.backbone, start.backbone)
        load_strictly(classifier.head, start.head)
        outputs[name] = classifier(x)
    return outputs


def eat_base_pretraining_step(case: Case) -> Outputs:
    start, x = loaded(case), features(case["input"])
    visible = torch.tensor(case["input"]["visible_tokens"])
    spec = spec_objective.Eat(kind="eat", utterance_sequences=len(visible), mask_noise=case["config"]["mask_noise_std"])
    student = EatStudent(Model(backbone="eat_base"), patches(x.shape[1]), spec)
    load_strictly(student.backbone, start.backbone)
    load_strictly(student.decoder, start.decoder)
    objective = EatObjective(student, spec)
    objective._teacher = EmaTeacher(student.backbone)
    objective._ema = ResolvedTeacher(kind="ema", decay=0.9998, final_decay=0.99999, over=1, layers=list(range(12)))
    load_strictly(objective._teacher.module, start.teacher)

    whole: list[Tensor] = []
    handle = student.decoder.register_forward_pre_hook(lambda _module, given: whole.append(given[0].detach()))
    sums = objective.loss_given(x, visible, torch.zeros(1, 1, 1))
    handle.remove()
    grid = student.backbone.grid(x.shape[1])
    rows, tokens = len(visible), grid[0] * grid[1]
    norms = {"frame": rows * (tokens - visible.shape[1]), "utterance": rows}
    terms = {name: objective.weights[name] * sums[name] / norms[name] for name in sums}
    total = terms["frame"] + terms["utterance"]
    total.backward()
    with torch.no_grad():
        decoded = student.decoder(whole[0], grid)
    target_deviation, prediction_deviation = objective.deviations()
    parameters = dict(student.named_parameters())
    outputs: Outputs = {
        "target": objective.teacher_target(x),
        "decoder_output": decoded,
        "frame_loss_per_masked_token": terms["frame"].reshape(1),
        "utterance_loss_summed_over_clones": terms["utterance"].reshape(1),
        "total": total.reshape(1),
        "target_var": target_deviation.reshape(1),
        "pred_var": prediction_deviation.reshape(1),
    }
    for published, ours in GRADIENTS.items():
        gradient = parameters[ours].grad
        assert gradient is not None
        outputs[f"grad_{published}"] = gradient
    return outputs


RUN: dict[str, Callable[[Case], Outputs]] = (
    {
        "eat_frontend": eat_frontend,
        "eat_base": eat_base,
        "eat_base_classifier": eat_base_classifier,
        "eat_base_pretraining_step": eat_base_pretraining_step,
    }
    | cases_compression.RUN
    | cases_ast.RUN
    | cases_ssast.RUN
    | cases_htsat.RUN
    | cases_beats.RUN
    | cases_sed.RUN
    | cases_heads.RUN
)
