"""Where a run stands: one object for all counters. It is part of every checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Clock:
    """Counters of a run. Steps are optimiser steps; seconds are spent in training steps, waiting for data included."""

    phase: int = 0  # index of the current phase
    step: int = 0  # steps done in the current phase
    total: int = 0  # steps done in the run
    clips: int = 0  # clips trained on in the run
    skipped: int = 0  # steps skipped in a row because something was not finite
    skipped_total: int = 0
    steps: list[int] = field(default_factory=list)  # done in each phase
    seconds: list[float] = field(default_factory=list)  # for each phase
    waited: list[float] = field(default_factory=list)  # for each phase: seconds without data
    rates: float = 0.0  # learning rate summed over the run, times epochs
    ended: list[str] = field(default_factory=list)  # why each finished phase ended: "length", or the rule that fired
    plateau: dict[str, Any] | None = None  # {"value", "since"} of the phase's plateau rule
    best: dict[str, Any] | None = None  # {"metric", "value", "step", "phase"} of the best evaluation

    def enter(self, phase: int) -> None:
        """Start the phase with this index."""
        self.phase, self.step, self.plateau = phase, 0, None
        self._room(phase)

    @property
    def finished(self) -> bool:
        """Whether the current phase has ended."""
        return len(self.ended) > self.phase

    def tick(self, clips: int, seconds: float, waited: float, rates: float = 0.0) -> None:
        """Count one step. rates: the step's learning rate times the share of an epoch that it is."""
        self._room(self.phase)
        self.step += 1
        self.total += 1
        self.clips += clips
        self.rates += rates
        self.steps[self.phase] += 1
        self.seconds[self.phase] += seconds
        self.waited[self.phase] += waited

    def _room(self, phase: int) -> None:
        while len(self.seconds) <= phase:
            self.steps.append(0)
            self.seconds.append(0.0)
            self.waited.append(0.0)

    def state(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Clock:
        return cls(**state)
