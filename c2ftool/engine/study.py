"""A study: one spec, several child runs (a held-out fold or a seed each), one table of mean and spread."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from c2ftool.engine.device import Device
from c2ftool.engine.result import Outcome
from c2ftool.engine.train import Options, run_name, train_one
from c2ftool.files import write_atomically
from c2ftool.metrics.spread import Spread, mean_and_spread
from c2ftool.spec.load import Loaded
from c2ftool.spec.resolve import children
from c2ftool.spec.root import Spec


def is_study(spec: Spec) -> bool:
    """Whether the spec names several folds or seeds."""
    return bool(spec.data.folds or spec.seeds or spec.backbones)


def run_study(loaded: Loaded, options: Options, device: Device) -> Outcome | None:
    """Train the children one after the other; with --resume finished ones are only scored again."""
    name = run_name(loaded.spec, options)
    outcomes: list[Outcome] = []
    for suffix, overrides in children(loaded.spec):
        child = loaded.with_overrides(overrides)
        outcome = train_one(child, replace(options, run=f"{name}/{suffix}"), device)
        if outcome is not None:
            outcomes.append(outcome)
    if not outcomes:
        return None  # a rank beside the first
    spread = {m: mean_and_spread(o.scores[m] for o in outcomes) for m in outcomes[0].scores}
    groups = _by_backbone(loaded.spec, outcomes)
    folder = options.runs_root / name
    summary = {
        "children": [o.run.name for o in outcomes],
        "scores": {m: {"mean": s.mean, "std": s.std, "n": s.n} for m, s in spread.items()},
        "by_child": {o.run.name: o.scores for o in outcomes},
        "by_backbone": {name: {m: s._asdict() for m, s in spreads.items()} for name, spreads in groups.items()},
        "savings": {o.run.name: o.saved for o in outcomes if o.saved is not None},
    }
    write_atomically(folder / "study.json", json.dumps(summary, indent=1) + "\n")
    first = outcomes[0]
    return Outcome(
        run=folder,
        task=first.task,
        device=first.device,
        scores={m: s.mean for m, s in spread.items()},
        weights=first.weights,
        weights_phase=first.weights_phase,
        savings=_savings(outcomes),
        phases=[_together([o.phases[i] for o in outcomes]) for i in range(len(first.phases))],
        losses=first.losses,
        tracking=first.tracking,
        groups=groups,
        children=outcomes,
    )


def _by_backbone(spec: Spec, outcomes: list[Outcome]) -> dict[str, dict[str, Spread]]:
    """Backbone -> metric -> mean and spread over its children, of a study over backbones and seeds or folds."""
    if not spec.backbones or not (spec.seeds or spec.data.folds):
        return {}
    groups = {name: [o for o in outcomes if o.run.name.startswith(f"{name}-")] for name in spec.backbones}
    return {
        name: {m: mean_and_spread(o.scores[m] for o in ours) for m in ours[0].scores}
        for name, ours in groups.items()
        if ours
    }


def _savings(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """Mean shares saved by the children that were compared, and how many of them passed their baseline's best."""
    found = [o.saved for o in outcomes if o.saved is not None]
    rows: list[tuple[str, str]] = []
    for rule, name in (("end", "whole runs"), ("first_beat", "first beat (the paper's rule)")):
        compared = [s[rule] for s in found if s[rule] is not None]
        shares = [c["flops"] for c in compared if c["flops"] is not None]
        if compared:
            mean = f"{sum(shares) / len(shares):.2%} of the FLOPs in the mean of " if shares else ""
            rows.append((f"saved, {name}", f"{mean}{len(shares)} of {len(outcomes)} runs"))
    if found and not rows:
        rows.append(("baseline", f"{found[0]['baseline']} has not been run"))
    return rows


def _together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One phase of all children: what it took is added up, why it ended is listed, steps are those of the first."""
    added = ("clips", "flops", "frontend_flops", "seconds", "waited")
    ended = "; ".join(dict.fromkeys(str(row["ended"]) for row in rows))
    return rows[0] | {key: sum(row[key] for row in rows) for key in added} | {"ended": ended}
