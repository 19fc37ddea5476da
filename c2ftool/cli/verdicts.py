"""Printing scored runs, and holding them to `--expect`."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import typer

from c2ftool.cli.listings import print_rows
from c2ftool.engine.rescore import Rescored
from c2ftool.engine.score_files import Measured
from c2ftool.errors import RunError, UsageError
from c2ftool.metrics.report_page import flops_text, seconds_text

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Demand:
    """`metric>=value`."""

    metric: str
    compare: str
    value: float


def read_demand(text: str) -> Demand:
    """The demand in a text such as `accuracy>=0.9`; raises UsageError for anything else."""
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+\d.eE]+)\s*", text)
    try:
        if match is not None:
            return Demand(match[1], match[2], float(match[3]))
    except ValueError:
        pass
    raise UsageError(f"--expect {text!r} is not METRIC>=VALUE", cure='For example: --expect "accuracy>=0.9"')


def print_scored(scored: list[Rescored], as_json: bool) -> None:
    """One row for a run, definitions below."""
    if as_json:
        typer.echo(json.dumps([run.summary() for run in scored], indent=1))
        return
    metrics = list(dict.fromkeys(name for run in scored for name in run.scores))
    rows = []
    for run in scored:
        row = {"run": run.name, "task": run.task}
        if any(r.first_loss is not None and r.task == "pretrain" for r in scored):
            falls = run.task == "pretrain" and run.first_loss is not None and run.last_loss is not None
            row["loss"] = f"{run.first_loss:.4g} -> {run.last_loss:.4g}" if falls else ""
        for name in metrics:
            spread = run.spread.get(name)
            value = run.scores.get(name)
            shown = "" if value is None else f"{value:.4f}"
            row[f"test {name}"] = shown + (f" ± {spread:.4f} (n = {len(run.children)})" if spread is not None else "")
        row |= {
            "clips scored": str(run.clips or ""),
            "weights": run.weights,
            "training FLOPs": flops_text(run.flops),
            "training time": seconds_text(run.seconds),
        }
        if any(one.saved is not None for r in scored for one in r.children or [r]):
            row |= _saved(run)
        rows.append(row)
    print_rows(rows)
    for name in metrics:
        definition = next(run.definitions[name] for run in scored if name in run.definitions)
        typer.echo(f"{name}: {definition}")
    for run in scored:
        for child in run.children:
            typer.echo(f"{child.name}: " + "  ".join(f"{n} {v:.4f}" for n, v in child.scores.items()))
    for run in scored:
        for what, came in run.savings:
            typer.echo(f"{run.name}, {what}: {came}")
    typer.echo("device: " + ", ".join(dict.fromkeys(run.device for run in scored)))
    for run in scored:
        for one in run.children or [run]:
            if one.task != "ensemble":
                typer.echo(f"report: {one.report or one.folder / 'report' / 'index.html'}")
    for uri in dict.fromkeys(run.tracking for run in scored if run.tracking):
        typer.echo(f"tracking: mlflow ui --backend-store-uri {uri}")


def print_measured(measured: Measured, as_json: bool) -> None:
    """What was measured of files: a row, definitions, notes, classes."""
    results = measured.results
    head, rows = results.class_table()
    if as_json:
        by_class = [dict(zip(head, row, strict=True)) for row in rows]
        out = {"name": measured.name, "scores": measured.scores, "clips": results.clips, "notes": measured.notes}
        typer.echo(json.dumps(out | {"settings": results.settings, "by_class": by_class}, indent=1))
        return
    shown = {name: f"{value:.6f}" for name, value in measured.scores.items()}
    print_rows([{"scores": measured.name, **shown, "clips scored": str(results.clips)}])
    for score in results.scores.values():
        typer.echo(f"{score.name}: {score.definition}")
    typer.echo(f"settings: {results.settings}")
    for note in measured.notes:
        typer.echo(f"note: {note}")


def _saved(run: Rescored) -> dict[str, str]:
    """The shares of FLOPs saved, of a study the means; how often the baseline was beaten."""
    found = [one.saved for one in run.children or [run] if one.saved is not None]
    ends = [s["end"]["flops"] for s in found if s["end"] is not None and s["end"]["flops"] is not None]
    asked = [s["first_beat"] for s in found if s["first_beat"] is not None]
    beats = [b["flops"] for b in asked if b["reached"] and b["flops"] is not None]
    first = f"{sum(beats) / len(beats):.1%}" if beats else "not reached" if asked else ""
    return {
        "FLOPs saved": f"{sum(ends) / len(ends):.1%}" if ends else "",
        "at first beat": first + (f" ({len(beats)} of {len(asked)})" if asked and run.children else ""),
    }


def require(demands: list[Demand], scored: Sequence[Rescored | Measured]) -> None:
    """Raises RunError where a demand does not hold for a run that was scored."""
    failed = []
    for demand in demands:
        held = [run for run in scored if demand.metric in run.scores]
        if not held:
            failed.append(f"{demand.metric} was not measured")
        for run in held:
            value = run.scores[demand.metric]
            if math.isnan(value) or not _COMPARE[demand.compare](value, demand.value):
                failed.append(f"{run.name}: {demand.metric} is {value:.6g}, not {demand.compare} {demand.value:g}")
    if failed:
        raise RunError("expectation not met: " + "; ".join(failed))
