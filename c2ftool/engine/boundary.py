"""Crossing from one phase into the next: weights fitted to its grid, moments kept where asked, all accounted for.

(Feng et al., ICASSP 2024, section 2: weights carry over, tensors whose shape depends on the token count or the patch
are resized, optimiser and schedule start anew.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from c2ftool.engine.optimizer import Moments, moments, moved
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Change, Positions, Rules
from c2ftool.objectives.base import Objective
from c2ftool.spec.backbones import Backbone as Size
from c2ftool.spec.compression import Compression, Patch
from c2ftool.spec.entering import Enter
from c2ftool.spec.resolved import ResolvedPhase, ResolvedTeacher


@dataclass(frozen=True)
class Crossing:
    """What became of the state at a border. moments: kept for the next phase's optimiser. reset: in words."""

    changes: list[Change]
    moments: Moments
    reset: list[str]

    @property
    def replaced(self) -> bool:
        """Whether parameters are other objects than before."""
        return any(change.kind != "recomputed" for change in self.changes)

    def lines(self, carried: str) -> list[str]:
        """The account for people. carried: what was kept besides."""
        by_kind = {
            kind: [c.what if c.kind == "recomputed" else f"{c.name}: {c.what}" for c in self.changes if c.kind == kind]
            for kind in ("resized", "created", "recomputed")
        }
        out = [f"carried over: {carried}"]
        out += [f"{kind}: {'; '.join(what)}" for kind, what in by_kind.items() if what]
        if not self.changes:
            out.append("resized: nothing, no tensor has the shape of the grid or the patch")
        dropped = [f"the values of {change.name}" for change in self.changes if change.kind == "created"]
        return [*out, f"starting afresh: {', '.join(self.reset)}; dropped: {', '.join(dropped) or 'nothing'}"]


def start_rules(phase: ResolvedPhase, size: Size, resampled: bool = False) -> Rules:
    """How starting weights are fitted: by the family's published rule where the spec names none.

    resampled: whether they are of a run at another compression; its positions are interpolated as at a border.
    """
    if resampled:
        return _rules(phase.enter, "bilinear", phase.compression)
    rules = _rules(phase.enter, size.fitted, phase.compression)
    if size.fitted == "bicubic" and rules.antialias is None:  # as F.interpolate does it, and so the published code
        return replace(rules, antialias=False)
    return rules


def border_rules(before: ResolvedPhase, phase: ResolvedPhase) -> Rules:
    """How weights are fitted from one phase to the next: bilinear where the spec names no rule."""
    return _rules(phase.enter, "bilinear", phase.compression, before.compression)


def rescoring_rules(phase: ResolvedPhase, compression: Compression) -> Rules:
    """How the weights of a phase are fitted to another compression, to be scored there."""
    return _rules(phase.enter, "bilinear", compression, phase.compression)


def _rules(enter: Enter, positions: Positions, *compressions: Compression) -> Rules:
    """The spec's rules; for kernels else that of the patch compression entered, else of the one left."""
    wide = next((c.resize for c in compressions if isinstance(c, Patch)), None)
    return Rules(enter.positions or positions, enter.patch_kernel or wide or "pi", enter.antialias)


def cross(
    objective: Objective,
    optimizer: torch.optim.Optimizer | None,
    before: ResolvedPhase,
    phase: ResolvedPhase,
    seed: int,
) -> Crossing:
    """Fit the objective's student (and teacher) to the phase; created tensors get their first values from the seed."""
    changes = objective.resize(phase.tokens, border_rules(before, phase))
    created = {change.name for change in changes if change.kind == "created"}
    if created:
        initialise(objective.student, seed, only=created)
    reset = ["learning-rate schedule"]
    kept: Moments = {}
    if "optimizer" in phase.enter.carry and optimizer is not None:
        kept, fresh = moved(moments(optimizer), changes)
        reset += [f"moments of {name}" for name in fresh]
    else:
        reset.append("optimiser moments")
    if isinstance(phase.teacher, ResolvedTeacher):
        reset.append("decay of the EMA teacher")
    return Crossing(changes, kept, reset)
