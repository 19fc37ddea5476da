"""What a finished run saved: against its baseline, and beside the control, from the runs' own metrics.jsonl."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from c2ftool.costs.savings import Control, Point, Savings, best, control, savings
from c2ftool.engine.baseline import child_of, find_baseline, finished_run, points, require_same_clips
from c2ftool.errors import C2FError
from c2ftool.metrics.cost_figure import CostCurve, cost_figure
from c2ftool.metrics.report_page import flops_text, seconds_text
from c2ftool.spec.resolve import read_resolved
from c2ftool.spec.resolved import Resolved


@dataclass(frozen=True)
class Saved:
    """A run's evaluations beside those of its baseline and control, as far as these have run."""

    metric: str
    run: list[Point]
    phases: list[tuple[str, float, float]]  # name, FLOPs at its start and end
    rule: str | None = None  # the one that the spec asks for
    baseline_name: str = ""
    baseline: list[Point] | None = None
    train_baseline: str = ""  # why it is not there, and how to make it
    control_name: str = ""  # empty for a run without compression, which has none
    control: list[Point] | None = None
    control_fault: str = ""  # why a run of that name is none

    @property
    def first_beat(self) -> Savings | None:
        """By the paper's rule; None without a baseline that has been scored."""
        known = self.baseline is not None and best(self.baseline) is not None
        return savings(self.run, self.baseline or [], "first_beat") if known else None

    @property
    def end(self) -> Savings | None:
        """Over whole runs."""
        return savings(self.run, self.baseline, "end") if self.baseline else None

    @property
    def beside(self) -> Control | None:
        """The control at equal cost and at equal summed learning rate."""
        return control(self.run, self.control) if self.control else None

    def rows(self) -> list[tuple[str, str]]:
        """What is compared and what came of it, in words; the spec's own rule first."""
        if self.rule is None:
            return []
        if self.baseline is None:
            return [("baseline", f"{self.baseline_name} {self.train_baseline}")]
        top = best(self.baseline)
        rows = [("baseline", f"{self.baseline_name}, {_about(self.baseline[-1], top, self.metric)}")]
        rules = {"first_beat": self.first_beat, "end": self.end}
        for rule in sorted(rules, key=lambda rule: rule != self.rule):
            found = rules[rule]
            name = "first beat (the paper's rule)" if rule == "first_beat" else "whole runs"
            if found is not None:
                rows.append((f"saved, {name}", _shares(found) + found.note))
            elif rule == self.rule:
                rows.append((f"saved, {name}", "not known: the baseline has no evaluation"))
        beside = self.beside
        if not self.control_name:
            return rows
        if self.control is None or beside is None:
            why = self.control_fault or f"has not been run: add control=restart --run {self.control_name}"
            rows.append(("control", f"{self.control_name} {why}"))
        else:
            rows.append(
                ("control", f"{self.control_name}, {_about(self.control[-1], best(self.control), self.metric)}")
            )
            rows.append(("control, at this run's cost", _reached(beside.at_equal_cost, self.metric)))
            rows.append(("control, at this run's summed rate", _reached(beside.at_equal_rate, self.metric)))
        return rows

    def values(self) -> dict[str, float]:
        """The shares as numbers, for metrics.jsonl and MLflow; those not reached are left out."""
        out: dict[str, float] = {}
        for name, found in (("first_beat", self.first_beat), ("end", self.end)):
            for what in ("flops", "seconds"):
                share = None if found is None else getattr(found, what)
                if share is not None:
                    out[f"{name}_{what}"] = share
        return out

    def summary(self) -> dict[str, Any] | None:
        """As plain data; None where the spec names no baseline."""
        if self.rule is None:
            return None
        out: dict[str, Any] = {"metric": self.metric, "at": self.rule, "baseline": self.baseline_name}
        out |= {
            name: None if s is None else _plain(s) for name, s in (("first_beat", self.first_beat), ("end", self.end))
        }
        beside = self.beside
        out["control"] = self.control_name
        out["control_at"] = None if beside is None else asdict(beside)
        return out

    def figure(self) -> bytes | None:
        """The metric over training FLOPs; None where the run was not scored."""
        mark = self.first_beat.run if self.first_beat is not None else None
        curves = [CostCurve("this run", _pairs(self.run), "run", _pair(mark) if mark is not None else None)]
        if self.baseline:
            curves.append(CostCurve(f"baseline {self.baseline_name}", _pairs(self.baseline), "baseline"))
        if self.control:
            curves.append(CostCurve(f"control {self.control_name}", _pairs(self.control), "control"))
        return cost_figure(curves, self.metric, self.phases) if best(self.run) is not None else None


def saved(folder: Path, resolved: Resolved, runs_root: Path) -> Saved | None:
    """What a run saved; None for a run that was never scored and names no baseline.

    What cannot be compared is said in the rows: nothing is raised for a baseline that is missing or has other data.
    """
    wanted = resolved.savings
    metric: str = (wanted.metric if wanted else None) or resolved.select or next(iter(resolved.metrics), "")
    run = points(folder, resolved, metric)
    if not run or (wanted is None and best(run) is None):
        return None
    ends = {point.phase: point.flops for point in run}
    starts = [0.0, *ends.values()]
    phases = [(name, start, end) for (name, end), start in zip(ends.items(), starts, strict=False)]
    if wanted is None:
        return Saved(metric, run, phases)
    name = _name(folder, runs_root)
    child = child_of(name)
    own = name.rpartition("/")[0] or name
    compressed = any(phase.compression.method != "none" for phase in resolved.phases)
    control_name = (wanted.control or f"{own}-restart") if compressed else ""
    control_points, control_fault = (
        _control(runs_root, control_name, child, resolved, metric) if compressed else (None, "")
    )
    try:
        found = find_baseline(wanted.baseline, runs_root, child)
        theirs = None if found.run is None else _points_of(found.run, resolved, metric, found.name)
        name, how = found.name, f"has not been run: {found.train_it}"
    except C2FError as error:  # a finished run is not lost over what it is compared with
        theirs, name, how = None, wanted.baseline, f"cannot be compared: {error.message}"
    return Saved(
        metric=metric,
        run=run,
        phases=phases,
        rule=wanted.at,
        baseline_name=name,
        baseline=theirs,
        train_baseline=how,
        control_name=control_name,
        control=control_points,
        control_fault=control_fault,
    )


def _control(
    runs_root: Path, name: str, child: str | None, ours: Resolved, metric: str
) -> tuple[list[Point] | None, str]:
    """(the control's evaluations, why the run of that name is no control)."""
    run = finished_run(runs_root, name, child)
    if run is None:
        return None, ""
    try:
        theirs = read_resolved(run / "resolved.yaml")
        if any(phase.compression.method != "none" for phase in theirs.phases):
            return None, "is no control: it is compressed"
        return _points_of(run, ours, metric, name), ""
    except C2FError as error:
        return None, f"is no control: {error.message}"


def _points_of(run: Path, ours: Resolved, metric: str, reference: str) -> list[Point]:
    theirs = read_resolved(run / "resolved.yaml")
    require_same_clips(ours.data, theirs.data, reference)
    return points(run, theirs, metric)


def _name(folder: Path, runs_root: Path) -> str:
    inside = folder.resolve().is_relative_to(runs_root.resolve())
    return str(folder.resolve().relative_to(runs_root.resolve())) if inside else folder.name


def _pair(point: Point) -> tuple[float, float]:
    return point.flops, point.value


def _pairs(run: list[Point]) -> list[tuple[float, float]]:
    return [_pair(point) for point in run]


def _about(end: Point, top: Point | None, metric: str) -> str:
    whole = f"{flops_text(end.flops)} and {seconds_text(end.seconds)} in {end.epochs:.3g} epochs"
    return whole if top is None else f"best {metric} {top.value:.4f} after {top.epochs:.3g} epochs; {whole}"


def _reached(point: Point | None, metric: str) -> str:
    return "no evaluation" if point is None else f"best {metric} {point.value:.4f} after {flops_text(point.flops)}"


def _shares(found: Savings) -> str:
    if found.flops is None:
        return ""
    time = "" if found.seconds is None else f" and {found.seconds:.2%} of the time"
    return f"{found.flops:.2%} of the FLOPs{time}; ".replace("-0.00%", "0.00%")


def _plain(found: Savings) -> dict[str, Any]:
    return {"reached": found.reached, "flops": found.flops, "seconds": found.seconds, "note": found.note}
