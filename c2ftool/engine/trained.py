"""A finished run as a model that scores: what evaluation, and students of an ensemble, start from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from c2ftool.engine.result import phase_called
from c2ftool.engine.run_folder import RECORD
from c2ftool.errors import MissingError, UsageError
from c2ftool.models.build import build_classifier, build_detector
from c2ftool.models.weights import load_into, read_weights, weights_of_run, whole
from c2ftool.spec.resolve import read_resolved
from c2ftool.spec.resolved import Resolved, ResolvedPhase


@dataclass(frozen=True)
class Trained:
    """A run's model with the weights chosen. outcome: what the run came to."""

    folder: Path
    resolved: Resolved
    phase: ResolvedPhase
    model: nn.Module
    which: str
    outcome: dict[str, Any]


def outcome_of(folder: Path, name: str) -> dict[str, Any]:
    """What a run came to; raises MissingError where it is not finished."""
    record = json.loads((folder / RECORD).read_text())
    outcome: dict[str, Any] | None = record.get("outcome")
    if outcome is None:
        raise MissingError(
            f"run {name} is {record['state']}, not finished",
            place=str(folder),
            cure="Go on with it (--resume), then evaluate.",
        )
    return outcome


def scored_weights(folder: Path, name: str) -> Path:
    """The file of the weights that a finished run was scored with."""
    return weights_of_run(folder, outcome_of(folder, name)["weights"])


def load_trained(
    folder: Path, name: str, runs_root: Path, which: str | None = None, parent: str | None = None
) -> Trained:
    """The model of a supervised run, on the CPU. which: other weights than the run was scored with.

    parent: where the body lies now that a run of adapters stands on, if not where it lay.

    Raises MissingError or DataError; UsageError for a run of pre-training.
    """
    outcome = outcome_of(folder, name)
    resolved = read_resolved(folder / "resolved.yaml")
    if not resolved.supervised:
        raise UsageError(f"run {name} is pre-training and scores nothing", cure="Name a run of finetune or distill.")
    which = which or outcome["weights"]
    state, record = read_weights(weights_of_run(folder, which))
    phase = phase_called(resolved, record["phase"])
    model = build_scoring_model(resolved, phase)
    state = whole(state, record, resolved.model.backbone, runs_root, where=str(folder), instead=parent)
    load_into(model, state, where=str(folder))
    return Trained(folder, resolved, phase, model, which, outcome)


def require_partial(folder: Path, name: str, which: str | None = None) -> None:
    """Raises UsageError for a run whose weights are whole: they stand on nothing that could lie elsewhere."""
    _, record = read_weights(weights_of_run(folder, which or outcome_of(folder, name)["weights"]))
    if record.get("on") is None:
        raise UsageError(
            f"model.weights says where the body of adapters lies now, and the weights of run {name} are whole",
            cure="Leave it out; other weights of the run: --weights.",
        )


def build_scoring_model(resolved: Resolved, phase: ResolvedPhase) -> nn.Module:
    """The classifier, or the detector, of a run in one of its phases."""
    if resolved.by_frame:
        classes = len(resolved.classes)
        return build_detector(resolved.model, phase.tokens, classes, phase.label_frames, resolved.adapters)
    return build_classifier(resolved.model, phase.tokens, len(resolved.classes), resolved.adapters)
