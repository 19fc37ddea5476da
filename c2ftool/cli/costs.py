"""How costs, savings and measured steps are printed and drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from c2ftool.cli.listings import print_rows
from c2ftool.metrics.report_page import flops_text, seconds_text

if TYPE_CHECKING:
    from c2ftool.engine.measure import Measured
    from c2ftool.engine.plan import Plan, PlannedSavings
    from c2ftool.spec.resolved import ResolvedPhase


@dataclass(frozen=True)
class Timed:
    """Measured steps. matmul: FLOPs per second of a large matrix product in the same run."""

    steps: list[Measured]
    matmul: float
    device: str


def print_all(plan: Plan, compared: tuple[Plan, PlannedSavings] | None, timed: Timed | None, as_json: bool) -> None:
    """FLOPs per clip, phase and run; savings and measured steps where they were asked for."""
    if as_json:
        typer.echo(json.dumps(as_plain(plan, compared, timed), indent=1))
        return
    print_cost(plan)
    if compared is not None:
        _print_savings(plan, *compared)
    if timed is not None:
        _print_timed(plan, compared, timed)


def print_cost(plan: Plan) -> None:
    """A row for each phase, and the whole."""
    rows = [
        {
            "phase": cost.name,
            "tokens": f"{phase.tokens.frequency} x {phase.tokens.time}",
            "clips": f"{cost.clips:,}",
            "forward per clip": flops_text(cost.clip.forward),
            "training per clip": flops_text(cost.clip.training),
            "front end per clip": flops_text(cost.frontend),
            "training": flops_text(cost.training),
        }
        for phase, cost in zip(plan.resolved.phases, plan.costs, strict=True)
    ]
    print_rows(rows)
    runs = f" in {plan.children} runs" if plan.children else ""
    total = flops_text(plan.flops * max(1, plan.children))
    typer.echo(f"whole: {total} of training{runs} (2 x multiply-adds; front end not included)")
    if stops := [phase.name for phase in plan.resolved.phases if phase.stop is not None]:
        typer.echo(f"counted at full length, though a rule may end it: {', '.join(stops)}")
    if plan.selection is None:
        typer.echo(f"data set {plan.resolved.data.dataset!r} is not prepared here: its published counts are taken")


def _print_savings(plan: Plan, baseline: Plan, saved: PlannedSavings) -> None:
    each = " in each run" if plan.children else ""
    typer.echo(f"baseline {saved.baseline}: {flops_text(baseline.flops)} of training{each}")
    typer.echo(f"saved, whole runs: {saved.end:.2%} of the FLOPs")
    if saved.first_beat is not None:
        typer.echo(f"first beat: {saved.lengths}")
        typer.echo(f"saved, first beat: {saved.first_beat:.2%} of the forward FLOPs, as the paper counts")
        typer.echo(f"saved, first beat: {saved.first_beat_training:.2%} of forward and backward")
    else:
        typer.echo("saved, first beat: known when both have run (c2f evaluate)")
    typer.echo("control, the same phases without compression: control=restart")


def _paces(plan: Plan, compared: tuple[Plan, PlannedSavings] | None, timed: Timed) -> tuple[float, float | None]:
    """(seconds of the whole run at the measured pace, of the baseline; None where its steps were not timed)."""
    phases = list(zip(plan.resolved.phases, timed.steps, strict=True))
    run = sum(phase.steps * measured.seconds for phase, measured in phases)
    if compared is None:
        return run, None
    ours, baseline = plan.resolved, compared[0].resolved
    if (ours.model, ours.objective) != (baseline.model, baseline.objective):
        return run, None
    known = {_same_step(phase): measured.seconds for phase, measured in phases}
    theirs = [(phase.steps, known.get(_same_step(phase))) for phase in baseline.phases]
    if any(seconds is None for _, seconds in theirs):
        return run, None
    return run, sum(steps * (seconds or 0.0) for steps, seconds in theirs)


def _same_step(phase: ResolvedPhase) -> str:
    """What must be equal for two phases' steps to take the same time."""
    parts = (phase.tokens, phase.frontend, phase.batch, phase.augment, phase.masks, phase.optimizer.kind)
    return " ".join(map(str, parts))


def _print_timed(plan: Plan, compared: tuple[Plan, PlannedSavings] | None, timed: Timed) -> None:
    last = timed.steps[-1]
    rows = [
        {
            "phase": m.phase,
            "step": seconds_text(m.seconds),
            "waiting for data": f"{m.waited / m.seconds:.1%}",
            "clips/s": f"{m.clips / m.seconds:.4g}",
            "rate": f"{flops_text(m.rate)}/s",
            "of matmul": f"{m.rate / timed.matmul:.0%}",
            f"FLOPs / {last.phase}": f"{m.flops / m.clips / (last.flops / last.clips):.4f}",
            f"time / {last.phase}": f"{m.seconds / m.clips / (last.seconds / last.clips):.4f}",
        }
        for m in timed.steps
    ]
    print_rows(rows)
    matmul = f"{flops_text(timed.matmul)}/s"
    typer.echo(f"medians of real steps, per clip in the last columns; matmul {matmul}; {timed.device}")
    run, base = _paces(plan, compared, timed)
    saved = "" if not base else f", the baseline for {seconds_text(base)}: {1 - run / base:.2%} of the time saved"
    typer.echo(f"at this pace the run trains for {seconds_text(run)}{saved}")


def as_plain(
    plan: Plan, compared: tuple[Plan, PlannedSavings] | None = None, timed: Timed | None = None
) -> dict[str, Any]:
    """Costs, savings and measured steps as plain data."""
    phases = [
        {
            "name": cost.name,
            "tokens": {"time": phase.tokens.time, "frequency": phase.tokens.frequency},
            "steps": phase.steps,
            "clips": cost.clips,
            "forward_per_clip": cost.clip.forward,
            "training_per_clip": cost.clip.training,
            "frontend_per_clip": cost.frontend,
            "training": cost.training,
        }
        for phase, cost in zip(plan.resolved.phases, plan.costs, strict=True)
    ]
    runs = max(1, plan.children)
    out: dict[str, Any] = {"phases": phases, "training": plan.flops * runs, "runs": runs}
    out["published_counts"] = plan.selection is None
    if compared is not None:
        baseline, saved = compared
        out["savings"] = {
            "baseline": saved.baseline,
            "baseline_training": baseline.flops * runs,
            "end": saved.end,
            "first_beat": saved.first_beat,
            "first_beat_training": saved.first_beat_training,
        }
    if timed is not None:
        run, base = _paces(plan, compared, timed)
        out["measured"] = {
            "device": timed.device,
            "run_seconds": run,
            "baseline_seconds": base,
            "matmul_flops_per_second": timed.matmul,
            "phases": [
                {"name": m.phase, "steps": m.steps, "seconds": m.seconds, "waited": m.waited, "clips": m.clips}
                | {"flops_per_second": m.rate}
                for m in timed.steps
            ],
        }
    return out


def draw(path: Path, plan: Plan, compared: tuple[Plan, PlannedSavings] | None) -> None:
    """Write the picture of cost over epochs. Raises RunError where it cannot be written."""
    from c2ftool.files import translate_failure, write_atomically
    from c2ftool.metrics.cost_figure import plan_figure

    plans = [(plan.resolved.name, plan)]
    if compared is not None:
        plans.append((f"baseline {compared[1].baseline}", compared[0]))
    lines = [
        (
            label,
            [
                (phase.name, cost.clips / phase.clips_per_epoch, float(cost.training))
                for phase, cost in zip(p.resolved.phases, p.costs, strict=True)
            ],
        )
        for label, p in plans
    ]
    with translate_failure(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, plan_figure(lines))
    typer.echo(f"picture: {path}", err=True)
