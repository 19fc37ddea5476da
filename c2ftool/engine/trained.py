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
from c2ftool.models.weights import load_into, read_weights, weights_of_run
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


def load_trained(folder: Path, name: str, which: str | None = None) -> Trained:
    """The model of a supervised run, on the CPU. which: other weights than the run was scored with.

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
    load_into(model, state, where=str(folder))
    return Trained(folder, resolved, phase, model, which, outcome)


def build_scoring_model(resolved: Resolved, phase: ResolvedPhase) -> nn.Module:
    """The classifier, or the detector, of a run in one of its phases."""
    if resolved.by_frame:
        return build_detector(resolved.model, phase.tokens, len(resolved.classes), phase.label_frames)
    return build_classifier(resolved.model, phase.tokens, len(resolved.classes))
