"""What is left of a run when it ends: scores of the test clips, the report, one summary."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from c2ftool.engine.clock import Clock
from c2ftool.engine.cost import PhaseCost, against_whole, count_parameters, memory
from c2ftool.engine.detection_report import Pictures, detection_pictures, save_detection
from c2ftool.engine.evaluation import FramesScored, Scored
from c2ftool.engine.metrics_log import curves
from c2ftool.engine.run_folder import RunFolder
from c2ftool.engine.savings import Saved
from c2ftool.engine.scoring import Scoring, detection_settings
from c2ftool.engine.selection import Selection
from c2ftool.files import write_atomically
from c2ftool.metrics import report_page
from c2ftool.metrics.outcome import Results
from c2ftool.metrics.report import write_report
from c2ftool.metrics.spread import Spread
from c2ftool.models.weights import load_into, read_weights
from c2ftool.spec.adapters import words
from c2ftool.spec.resolved import Resolved, ResolvedPhase


@dataclass(frozen=True)
class Outcome:
    """What a finished run says. scores: metric -> value on the test clips, empty for pre-training."""

    run: Path
    task: str
    device: str
    scores: dict[str, float]
    weights: str  # which weights were scored: average, best or last
    weights_phase: str  # the phase that they are of
    phases: list[dict[str, Any]]  # name, steps, clips, seconds, waited, flops, frontend_flops
    losses: list[float]  # logged training losses, in order
    tracking: str | None
    savings: list[tuple[str, str]] = field(default_factory=list)  # what is compared, and what came of it
    saved: dict[str, Any] | None = None  # the same as plain data
    groups: dict[str, dict[str, Spread]] = field(default_factory=dict)
    children: list[Outcome] = field(default_factory=list)

    @property
    def flops(self) -> float:
        """Training FLOPs of the run."""
        return float(sum(p["flops"] for p in self.phases))

    @property
    def seconds(self) -> float:
        """Seconds spent in training steps."""
        return float(sum(p["seconds"] for p in self.phases))

    def summary(self) -> dict[str, Any]:
        """The outcome as plain data."""
        return {
            "run": str(self.run),
            "task": self.task,
            "device": self.device,
            "scores": self.scores,
            "weights": self.weights,
            "weights_phase": self.weights_phase,
            "flops": self.flops,
            "seconds": round(self.seconds, 3),
            "first_loss": self.losses[0] if self.losses else None,
            "last_loss": self.losses[-1] if self.losses else None,
            "phases": self.phases,
            "tracking": self.tracking,
            **({"savings": self.saved} if self.saved is not None else {}),
            **({"children": [child.summary() for child in self.children]} if self.children else {}),
        }


def final_score(
    student: nn.Module,
    run: Path,
    resolved: Resolved,
    selection: Selection,
    scoring: Scoring,
    taken: Collection[str] = (),
) -> tuple[str, str, Results | None, Scored | FramesScored | None]:
    """(which weights, their phase, results, scores) on the test clips.

    The averaged weights where the last phase has an average, else the best where a metric chose them, else the last.
    taken: tensors that stay the parent's, which files of the run leave out.
    """
    if not resolved.supervised or not len(selection.test):
        return "last", resolved.phases[-1].name, None, None
    which = "last"
    if resolved.phases[-1].average is not None and _weights_file(run, "average").exists():
        which = "average"
    elif resolved.select is not None and _weights_file(run, "best").exists():
        which = "best"
    phase = resolved.phases[-1]
    if which != "last":
        state, record = read_weights(_weights_file(run, which))
        phase = phase_called(resolved, record["phase"])  # the best may lie in a coarser phase
        student.backbone.lay_tokens(phase.tokens)  # type: ignore[union-attr, operator]
        load_into(student, state, where=str(_weights_file(run, which)), allow_missing=tuple(taken))
    if resolved.by_frame:
        student.head.frames = phase.label_frames  # type: ignore[union-attr]
    results, scored = scoring.results(student, phase, selection.test)
    return which, phase.name, results, scored


def _weights_file(run: Path, which: str) -> Path:
    return run / "checkpoints" / f"weights-{which}.safetensors"


def phase_called(resolved: Resolved, name: str) -> ResolvedPhase:
    """The run's phase of this name."""
    return next(phase for phase in resolved.phases if phase.name == name)


def phase_rows(resolved: Resolved, costs: list[PhaseCost], clock: Clock) -> list[dict[str, Any]]:
    """What each phase took, as plain data. Steps count over the run from 1."""
    rows, first = [], 1
    for place, (phase, cost) in enumerate(zip(resolved.phases, costs, strict=True)):
        steps = clock.steps[place]
        clips = steps * phase.batch
        rows.append(
            {
                "name": phase.name,
                "first_step": first,
                "last_step": first + steps - 1,
                "clips": clips,
                "flops": float(cost.clip.training * clips),
                "frontend_flops": float(cost.frontend * clips),
                "seconds": clock.seconds[place],
                "waited": clock.waited[place],
                "ended": clock.ended[place],
            }
        )
        first += steps
    return rows


def report(
    folder: RunFolder,
    resolved: Resolved,
    entries: list[dict[str, Any]],
    phases: list[dict[str, Any]],
    results: Results | None,
    scored: Scored | FramesScored | None,
    selection: Selection,
    device: str,
    saved: Saved | None = None,
    into: Path | None = None,
    pictures: Pictures | None = None,
) -> list[Path]:
    """Write the report folder, or `into` another; returns its files. pictures: beside those of what was scored."""
    into = into or folder.report
    shown = {n: c for n, c in curves(entries).items() if n.startswith(("loss", "valid/")) or n.endswith("deviation")}
    costs = [
        report_page.PhaseCost(
            name=p["name"],
            first_step=p["first_step"],
            last_step=p["last_step"],
            flops=p["flops"],
            seconds=p["seconds"],
            clips=p["clips"],
            frontend_flops=p["frontend_flops"],
            ended=p["ended"],
        )
        for p in phases
    ]
    extras: dict[str, str | float | int | None] = {
        "task": resolved.task,
        "backbone": resolved.model.backbone,
        "starting weights": resolved.model.weights or "random",
        **trained_parameters(resolved),
        "data": f"{resolved.data.dataset}, {len(selection.train)} training clips, {len(resolved.classes)} classes",
        "seed": resolved.seed,
        "device": device,
    }
    picture = None if saved is None else saved.figure()
    rows = [] if saved is None else saved.rows()
    drawn = detection_pictures(results, scored, resolved, selection, detection_settings(resolved))
    files = write_report(
        into,
        folder.path.name,
        results,
        shown,
        costs,
        extras,
        cost=picture,
        savings=rows,
        pictures=drawn | (pictures or {}),
    )
    if isinstance(scored, Scored):
        files.append(_save_scores(into / "scores.npz", scored, selection))
    elif scored is not None:
        files += save_detection(into, scored, detection_settings(resolved))
    return files


def trained_parameters(resolved: Resolved) -> dict[str, str]:
    """What a report says of a frozen body; nothing of one that learns as a whole."""
    if resolved.model.freeze != "body":
        return {}
    row = {"trained parameters": count_parameters(resolved).words()}
    if (against := against_whole(resolved)) is not None:
        held = max(memory(resolved, phase).total for phase in resolved.phases)
        row["a step"] = (
            f"{against[0]:.2f} of the FLOPs and {against[1]:.2f} of the memory (estimated: {held / 1e9:.2g} GB) of one "
            "that trains the whole network"
        )
    named = [f"{item.name}: {words(item)}" for item in resolved.adapters]
    return ({"adapters": "; ".join(named)} if named else {}) | row


def _save_scores(path: Path, scored: Scored, selection: Selection) -> Path:
    """Each test clip's id, logits and labels, so that other metrics need no second forward pass."""
    held = io.BytesIO()
    ids = np.asarray([selection.source.ids[row] for row in scored.rows])
    np.savez_compressed(
        held, ids=ids, scores=scored.scores, targets=scored.targets, classes=np.asarray(selection.names)
    )
    write_atomically(path, held.getvalue())
    return path
