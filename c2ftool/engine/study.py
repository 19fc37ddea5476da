"""A study: one spec, several child runs (a held-out fold or a seed each), one table of mean and spread."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from c2ftool.engine.device import Device
from c2ftool.engine.result import Outcome
from c2ftool.engine.train import Options, train_one
from c2ftool.files import write_atomically
from c2ftool.metrics.spread import mean_and_spread
from c2ftool.spec.load import Loaded
from c2ftool.spec.resolve import children
from c2ftool.spec.root import Spec


def is_study(spec: Spec) -> bool:
    """Whether the spec names several folds or seeds."""
    return bool(spec.data.folds or spec.seeds)


def run_study(loaded: Loaded, options: Options, device: Device) -> Outcome | None:
    """Train the children one after the other; with --resume finished ones are only scored again."""
    name = options.run or loaded.spec.name
    outcomes: list[Outcome] = []
    for suffix, overrides in children(loaded.spec):
        child = loaded.with_overrides(overrides)
        outcome = train_one(child, replace(options, run=f"{name}/{suffix}"), device)
        if outcome is not None:
            outcomes.append(outcome)
    if not outcomes:
        return None  # a rank beside the first
    spread = {m: mean_and_spread(o.scores[m] for o in outcomes) for m in outcomes[0].scores}
    folder = options.runs_root / name
    summary = {
        "children": [o.run.name for o in outcomes],
        "scores": {m: {"mean": s.mean, "std": s.std, "n": s.n} for m, s in spread.items()},
        "by_child": {o.run.name: o.scores for o in outcomes},
    }
    write_atomically(folder / "study.json", json.dumps(summary, indent=1) + "\n")
    first = outcomes[0]
    return Outcome(
        run=folder,
        task=first.task,
        device=first.device,
        scores={m: s.mean for m, s in spread.items()},
        weights=first.weights,
        phases=[_together([o.phases[i] for o in outcomes]) for i in range(len(first.phases))],
        losses=first.losses,
        tracking=first.tracking,
        children=outcomes,
    )


def _together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One phase of all children: what it took is added up, why it ended is listed, steps are those of the first."""
    added = ("clips", "flops", "frontend_flops", "seconds", "waited")
    ended = "; ".join(dict.fromkeys(str(row["ended"]) for row in rows))
    return rows[0] | {key: sum(row[key] for row in rows) for key in added} | {"ended": ended}
