"""Crossing from one phase into the next: weights fitted to its grid, moments kept where asked, all accounted for.

(Feng et al., ICASSP 2024, section 2: weights carry over, tensors whose shape depends on the token count or the patch
are resized, optimiser and schedule start anew.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from c2ftool.engine.optimizer import Moments, moments, moved
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Change, Rules
from c2ftool.objectives.base import Objective
from c2ftool.spec.compression import Patch
from c2ftool.spec.resolved import ResolvedPhase


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
            out.append("resized: nothing, the token grid and the patch stay")
        return [*out, f"starting afresh: {', '.join(self.reset)}; dropped: nothing"]


def start_rules(phase: ResolvedPhase) -> Rules:
    """How starting weights are fitted: by AST's rule where the spec names none."""
    return Rules(phase.enter.positions or "cut", _kernel_rule(phase))


def border_rules(before: ResolvedPhase, phase: ResolvedPhase) -> Rules:
    """How weights are fitted from one phase to the next: bilinear where the spec names no rule."""
    return Rules(phase.enter.positions or "bilinear", _kernel_rule(phase, before))


def _kernel_rule(*phases: ResolvedPhase):  # type: ignore[no-untyped-def]
    """The rule for patch kernels: of the phase entered, else of the patch compression entered or left."""
    if phases[0].enter.patch_kernel is not None:
        return phases[0].enter.patch_kernel
    return next((p.compression.resize for p in phases if isinstance(p.compression, Patch)), "pi")


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
    return Crossing(changes, kept, reset)
