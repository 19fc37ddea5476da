"""How plans, costs and outcomes are printed: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import typer

from c2ftool.cli.costs import as_plain, print_cost
from c2ftool.cli.listings import print_rows
from c2ftool.engine.plan import Plan
from c2ftool.engine.result import Outcome
from c2ftool.metrics.report_page import flops_text, seconds_text
from c2ftool.spec.adapters import words as adapter_words
from c2ftool.spec.compression import words
from c2ftool.spec.resolve import as_data, resolved_hash
from c2ftool.spec.resolved import ResolvedEnsemble, ResolvedStop


def print_plan(plan: Plan, as_json: bool) -> None:
    """What `--dry-run` shows."""
    resolved, selection = plan.resolved, plan.selection
    assert selection is not None
    if as_json:
        data = as_data(resolved) | {"hash": resolved_hash(resolved), "cost": as_plain(plan), "memory": plan.memory()}
        data["parameters"] = asdict(plan.parameters())
        if (against := plan.against_whole()) is not None:
            data["against_training_all"] = {"flops": against[0], "memory": against[1]}
        data["data_found"] = _counts(plan)
        typer.echo(json.dumps(data, indent=1))
        return
    counts = _counts(plan)
    many = f", first of {plan.children} child runs" if plan.children else ""
    typer.echo(f"{resolved.name}: {resolved.task}{many}, seed {resolved.seed}, hash {resolved_hash(resolved)}")
    typer.echo(
        f"data: {selection.source.info.name} at {selection.source.path}: {counts['train']} clips to train on, "
        f"{counts['valid']} to validate, {counts['test']} to test, {counts['classes']} classes"
        + (f", {counts['weak']} weakly labelled clips beside" if counts["weak"] else "")
    )
    if resolved.by_frame:
        frames = resolved.phases[-1].label_frames
        typer.echo(f"labels: {frames} frames of {resolved.data.frame}; {_longer(plan)}")
    ensembles = [phase.teacher for phase in resolved.phases if isinstance(phase.teacher, ResolvedEnsemble)]
    teachers = (f"teachers: {e.logits or ', '.join(e.members)}, weight {e.weight:g}" for e in ensembles)
    for line in dict.fromkeys(teachers):
        typer.echo(line)
    typer.echo(f"model: {resolved.model.backbone}, trained parameters: {plan.parameters().words()}")
    for item in resolved.adapters:
        typer.echo(f"adapter {item.name}: {adapter_words(item)}")
    if (against := plan.against_whole()) is not None:
        typer.echo(
            f"a step against one that trains the whole network: {against[0]:.2f} of the FLOPs, {against[1]:.2f} of the "
            "memory"
        )
    typer.echo(f"weights: {resolved.model.weights or 'random'}")
    rows = []
    for phase, held in zip(resolved.phases, plan.memory(), strict=True):
        rows.append(
            {
                "phase": phase.name,
                "steps": phase.steps,
                "epochs": f"{phase.steps * phase.batch / phase.clips_per_epoch:.3g}",
                "batch": phase.batch,
                "input": f"{phase.frontend.frames} frames, hop {phase.frontend.hop / phase.frontend.sample_rate:.3g} s",
                "compression": words(phase.compression),
                "tokens": f"{phase.tokens.frequency} x {phase.tokens.time}",
                "seen": phase.visible if phase.visible is not None else phase.tokens.count,
                "lr": phase.optimizer.lr,
                "warm-up": phase.schedule.warmup,
                "memory": f"{held / 1e9:.2g} GB",
            }
        )
    if any(phase.stop is not None for phase in resolved.phases):
        for row, phase in zip(rows, resolved.phases, strict=True):
            row["stop"] = "" if phase.stop is None else _stop(phase.stop)
    print_rows(rows)
    if (average := resolved.phases[-1].average) is not None:
        every = float(Fraction(average.every))
        typer.echo(f"averaged: weights of phase {resolved.phases[-1].name}, every {every:.6g} steps")
    typer.echo(
        "order: decode, crop, roll, waveform mixup, log-mel (fshift, pool at log_mel), time roll, spectrogram mixup, "
        "MixStyle, time mask, FilterAugment, frequency warp, noise, mixup, SpecAugment, pool at input, patches, masks"
    )
    print_cost(plan)


def print_outcome(outcome: Outcome, as_json: bool) -> None:
    """The end of a training command."""
    if as_json:
        typer.echo(json.dumps(outcome.summary(), indent=1))
        return
    rows = [
        {
            "phase": p["name"],
            "clips": f"{p['clips']:,}",
            "FLOPs": flops_text(p["flops"]),
            "time": seconds_text(p["seconds"]),
            "clips/s": f"{p['clips'] / p['seconds']:.3g}" if p["seconds"] else "",
            "waiting for data": f"{p['waited'] / p['seconds']:.1%}" if p["seconds"] else "",
        }
        for p in outcome.phases
    ]
    print_rows(rows)
    for child in outcome.children:
        typer.echo(f"{child.run.name}: {_scores(child)}")
    for name, spreads in outcome.groups.items():
        means = "  ".join(f"{metric} {spread}" for metric, spread in spreads.items())
        typer.echo(f"{name}, mean and deviation: {means}")
    if outcome.scores:
        mean = f" (mean of {len(outcome.children)})" if outcome.children else ""
        typer.echo(f"test {_scores(outcome)}{mean}, {outcome.weights} weights of phase {outcome.weights_phase}")
    elif outcome.losses:
        typer.echo(f"loss {outcome.losses[0]:.4g} at first, {outcome.losses[-1]:.4g} at the end")
    for what, came in outcome.savings:
        typer.echo(f"{what}: {came}")
    typer.echo(
        f"run: {outcome.run}" + ("" if outcome.children else f"   report: {outcome.run / 'report' / 'index.html'}")
    )
    if outcome.tracking:
        typer.echo(f"tracking: mlflow ui --backend-store-uri {outcome.tracking}")


def _stop(stop: ResolvedStop) -> str:
    match stop.kind:
        case "surpasses":
            return f"{stop.metric} above {'the best of the baseline' if stop.value is None else f'{stop.value:.4g}'}"
        case "plateau":
            return f"{stop.metric} at rest for {stop.patience}"
        case "budget":
            return flops_text(stop.flops) if stop.flops is not None else seconds_text(stop.seconds or 0.0)


def _scores(outcome: Outcome) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in outcome.scores.items())


def _counts(plan: Plan) -> dict[str, Any]:
    s = plan.selection
    assert s is not None
    counts = {"train": len(s.train), "valid": len(s.valid), "test": len(s.test), "classes": len(s.names)}
    return counts | {"weak": len(s.weak)}


def _longer(plan: Plan) -> str:
    """What becomes of clips that are longer than the input."""
    s, phase = plan.selection, plan.resolved.phases[-1]
    assert s is not None
    span = phase.label_frames * phase.label_hop
    scored = int((s.source.samples[s.test] >= span + phase.label_hop).sum())
    trained = int((s.source.samples[s.train] >= span + phase.label_hop).sum())
    if not scored and not trained:
        return "no clip is longer"
    how = "whole, in slices" if plan.resolved.data.long == "slices" else "by their start alone (data.long: slices)"
    crop = "random crops" if plan.resolved.data.crop == "random" else "starts alone (data.crop: random)"
    return f"of {trained} longer clips {crop} are trained on, {scored} are scored {how}"
