"""What a run is compared with: the spec and the run that `savings.baseline` or `--baseline` names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from c2ftool.costs.savings import Point, best
from c2ftool.engine.metrics_log import read_metrics
from c2ftool.engine.run_folder import RECORD
from c2ftool.errors import MissingError, UsageError
from c2ftool.spec.data import Data
from c2ftool.spec.find import named_specs
from c2ftool.spec.load import Loaded, load_spec
from c2ftool.spec.resolve import read_resolved
from c2ftool.spec.resolved import Resolved

_SAME = ("dataset", "train", "valid", "test", "labels", "classes", "min_length")


@dataclass(frozen=True)
class Baseline:
    """A spec, a run, or both. name: of the run's folder under the runs, whether it is there or not."""

    reference: str
    name: str
    loaded: Loaded | None
    run: Path | None

    @property
    def lasting(self) -> str:
        """A reference that holds in any folder: the name of a known spec, else the file's whole path."""
        if self.loaded is None:
            return self.reference
        known = {path.resolve(): name for name, path in named_specs().items()}
        path = self.loaded.path.resolve()
        return known.get(path, str(path))

    @property
    def train_it(self) -> str:
        """The command that makes the run."""
        return (
            f"c2f finetune {self.reference}" if self.loaded is None else f"c2f {self.loaded.spec.task} {self.reference}"
        )


def find_baseline(reference: str, runs_root: Path, child: str | None = None, beside: Path | None = None) -> Baseline:
    """The baseline that a reference names: a spec, or `run:NAME`. Raises MissingError where there is neither.

    child: the last part of the run's own name (`fold-2`, `seed-1`): a child of a study is compared with the same child.
    beside: the folder of the spec that names it, looked in first, as for `extends`.
    """
    kind, colon, rest = reference.partition(":")
    if colon and kind == "run":
        folder = finished_run(runs_root, rest, child)
        if folder is None:
            raise MissingError(f"the baseline, run {rest!r}, is no finished run in {runs_root}", cure="Train it first.")
        return Baseline(reference, rest, None, folder)
    near = None if beside is None else beside / reference
    loaded = load_spec(str(near) if near is not None and near.is_file() else reference)
    return Baseline(reference, loaded.spec.name, loaded, finished_run(runs_root, loaded.spec.name, child))


def finished_run(runs_root: Path, name: str, child: str | None) -> Path | None:
    """The folder of the finished run; of a study the same child's."""
    for folder in ([runs_root / name / child] if child else []) + [runs_root / name]:
        if (folder / RECORD).exists() and json.loads((folder / RECORD).read_text())["state"] == "finished":
            return folder
    return None


def child_of(run: str) -> str | None:
    """The last part of a run's name inside a study."""
    return run.rpartition("/")[2] if "/" in run else None


def require_same_data(ours: Data, baseline: Baseline) -> None:
    """Raises UsageError where a baseline has other data: its cost and scores say nothing about ours.

    Its run counts where there is one, else its spec, of which any fold may be the one that is run.
    """
    if baseline.run is not None:
        require_same_clips(ours, read_resolved(baseline.run / "resolved.yaml").data, baseline.name)
        return
    assert baseline.loaded is not None
    theirs = baseline.loaded.spec.data
    folded = theirs.fold is not None or theirs.folds is not None
    fold = ours.fold if folded else None
    require_same_clips(
        ours, theirs.model_copy(update={"fold": fold, "folds": ours.folds if folded else None}), baseline.reference
    )


def require_same_clips(ours: Data, theirs: Data, name: str) -> None:
    """Raises UsageError where two runs are not trained and scored on the same clips."""
    differing = [key for key in (*_SAME, "fold", "folds") if getattr(ours, key) != getattr(theirs, key)]
    if differing:
        told = "; ".join(
            f"data.{key}: {getattr(theirs, key)!r} there, {getattr(ours, key)!r} here" for key in differing
        )
        raise UsageError(
            f"the baseline {name} has other data ({told})",
            cure="Name a baseline on the same data: a spec, or a run as savings.baseline=run:NAME.",
        )


def best_of_run(run: Path) -> dict[str, float]:
    """Metric -> the best of a run's evaluations on the validation clips."""
    names = {n for e in read_metrics(run / "metrics.jsonl") if e["kind"] == "evaluate" for n in e["values"]}
    tops = {name: best(points(run, read_resolved(run / "resolved.yaml"), name)) for name in names}
    return {name: top.value for name, top in tops.items() if top is not None}


def points(run: Path, resolved: Resolved, metric: str) -> list[Point]:
    """A run's evaluations with what its training had taken, and its end, where no evaluation was."""
    entries = read_metrics(run / "metrics.jsonl")
    values = {e["step"]: e["values"].get(metric, float("nan")) for e in entries if e["kind"] == "evaluate"}
    last = resolved.phases[-1].name
    return [
        Point(
            phase=entry["phase"],
            final=entry["phase"] == last,
            epochs=entry["values"]["epochs"],
            flops=entry["values"]["flops"],
            seconds=entry["values"]["seconds"],
            rate_sum=entry["values"]["rates"],
            value=values.get(entry["step"], float("nan")),
        )
        for entry in entries
        if entry["kind"] == "cost"
    ]
