"""What a run says, in one place: metrics.jsonl, the screen, MLflow. Ranks beside the first are silent."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from c2ftool.engine.boundary import Crossing
from c2ftool.engine.clock import Clock
from c2ftool.engine.cost import PhaseCost
from c2ftool.engine.metrics_log import MetricsLog
from c2ftool.engine.progress import Progress
from c2ftool.engine.run_folder import RunFolder
from c2ftool.engine.tracking import Tracker
from c2ftool.spec.compression import words
from c2ftool.spec.resolved import Resolved, ResolvedPhase, ResolvedTeacher


@dataclass
class Outlets:
    """Where the first rank reports to."""

    folder: RunFolder
    metrics: MetricsLog
    progress: Progress
    tracker: Tracker | None


class Reporter:
    """The loop's only way to say something."""

    def __init__(self, resolved: Resolved, costs: list[PhaseCost], outlets: Outlets | None) -> None:
        self._resolved = resolved
        self._costs = costs
        self._out = outlets
        self._values: dict[str, float] = {}
        self._shown = 0.0

    def phase_started(self, index: int, phase: ResolvedPhase, clock: Clock) -> None:
        if self._out is None:
            return
        cost = self._costs[index]
        grid = f"{phase.tokens.frequency} x {phase.tokens.time} tokens"
        compressed = f", {words(phase.compression)}" if phase.compression.method != "none" else ""
        resumed = f" from step {clock.step}" if clock.step else ""
        self._out.progress.say(
            f"phase {phase.name} ({index + 1} of {len(self._costs)}): {phase.steps} steps of {phase.batch} clips"
            f"{resumed}, {grid}{compressed}, {cost.clip.training / 1e9:.3g} GFLOPs a clip"
        )
        if self._out.tracker is not None:
            self._out.tracker.phase(phase.name, self._phase_params(phase, cost))

    def crossed(self, clock: Clock, phase: ResolvedPhase, crossing: Crossing) -> None:
        """A phase begins with the weights of the one before."""
        if self._out is None:
            return
        teacher = ", EMA teacher" if isinstance(phase.teacher, ResolvedTeacher) else ""
        kept = "weights" + teacher + (", moments" if crossing.moments else "")
        self._out.progress.say(f"from phase {self._resolved.phases[clock.phase - 1].name} to {phase.name}:")
        for line in crossing.lines(kept):
            self._out.progress.say(f"  {line}")
        kinds = [change.kind for change in crossing.changes]
        values = {kind: float(kinds.count(kind)) for kind in ("resized", "created", "recomputed")}
        self._out.metrics.write("border", clock.total, phase.name, values)

    def spent(self, clock: Clock) -> list[float]:
        """Training FLOPs of each phase so far."""
        costs = zip(self._costs, self._resolved.phases, clock.steps, strict=False)
        return [float(cost.clip.training * steps * phase.batch) for cost, phase, steps in costs]

    def phase_ended(self, clock: Clock) -> None:
        if self._out is None:
            return
        phase, cost = self._resolved.phases[clock.phase], self._costs[clock.phase]
        clips = clock.steps[clock.phase] * phase.batch
        values = {
            "training_flops": float(cost.clip.training * clips),
            "frontend_flops": float(cost.frontend * clips),
            "seconds": clock.seconds[clock.phase],
            "waited_seconds": clock.waited[clock.phase],
            "clips": float(clips),
            "stopped_early": float(clock.ended[clock.phase] != "length"),
        }
        if clock.ended[clock.phase] != "length":
            self._out.progress.say(
                f"phase {phase.name} ends after {clock.step} of {phase.steps} steps: {clock.ended[clock.phase]}"
            )
        if self._costed != clock.total:
            self._cost(clock, phase.name)
        self._out.metrics.write("phase", clock.total, phase.name, values)
        if self._out.tracker is not None:
            self._out.tracker.phase_summary(phase.name, values)

    def step(self, clock: Clock, values: dict[str, float], clips: int) -> None:
        """A step is done; kept for `log`, shown now and then."""
        self._values = values
        if self._out is None:
            return
        phase = self._resolved.phases[clock.phase]
        waited = clock.waited[clock.phase] - self._last_waited(clock)
        self._out.progress.step(clock.seconds[clock.phase] - self._last_seconds(clock), waited, clips)
        self._before = (clock.phase, clock.seconds[clock.phase], clock.waited[clock.phase])
        if time.monotonic() - self._shown > 0.25 or clock.step == phase.steps:
            self._shown = time.monotonic()
            shown = {k: v for k, v in values.items() if k != "gradient_norm"}
            at = f"{clock.phase + 1}/{len(self._resolved.phases)}"
            self._out.progress.show(phase.name, at, clock.step, phase.steps, self._left(clock), shown)

    def _left(self, clock: Clock) -> int:
        """Steps that are left if no further rule ends a phase early."""
        return sum(phase.steps for phase in self._resolved.phases[clock.phase :]) - clock.step

    _costed: int = -1
    _before: tuple[int, float, float] = (-1, 0.0, 0.0)

    def _last_seconds(self, clock: Clock) -> float:
        return self._before[1] if self._before[0] == clock.phase else 0.0

    def _last_waited(self, clock: Clock) -> float:
        return self._before[2] if self._before[0] == clock.phase else 0.0

    def due(self, total: int) -> bool:
        """Whether the step's values are logged."""
        return total % self._resolved.tracking.every == 0

    def log(self, clock: Clock, further: dict[str, float]) -> None:
        """Write the step's values and the objective's own figures."""
        if self._out is not None:
            name = self._resolved.phases[clock.phase].name
            self._out.metrics.write("train", clock.total, name, self._values | further)

    def evaluated(self, clock: Clock, values: dict[str, float], best: bool) -> None:
        if self._out is None:
            return
        phase = self._resolved.phases[clock.phase].name
        self._out.metrics.write("evaluate", clock.total, phase, values)
        self._cost(clock, phase)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items() if not math.isnan(value))
        self._out.progress.say(f"  step {clock.total}: valid {shown}" + ("  (best)" if best else ""))

    def _cost(self, clock: Clock, phase: str) -> None:
        """What the run has taken so far: the other axis of every accuracy."""
        assert self._out is not None
        cost = {
            "flops": sum(self.spent(clock)),
            "seconds": sum(clock.seconds),
            "epochs": clock.clips / self._resolved.phases[clock.phase].clips_per_epoch,
            "rates": clock.rates,
        }
        self._out.metrics.write("cost", clock.total, phase, cost)
        self._costed = clock.total

    def tested(self, clock: Clock, phase: str, values: dict[str, float]) -> None:
        """The test clips are scored with weights of a phase."""
        if self._out is not None:
            self._out.metrics.write("test", clock.total, phase, values)

    def saved(self, clock: Clock, values: dict[str, float]) -> None:
        """The shares saved against the baseline."""
        if self._out is not None and values:
            self._out.metrics.write("savings", clock.total, self._resolved.phases[-1].name, values)

    def interrupted(self, clock: Clock, why: str) -> None:
        if self._out is not None:
            self._out.folder.mark_interrupted(why, clock.total)

    def warn(self, text: str) -> None:
        if self._out is not None:
            self._out.progress.say(f"warning: {text}")

    def sync(self) -> None:
        """See to it that the metrics are on the disk before a checkpoint says that they are."""
        if self._out is not None:
            self._out.metrics.sync()

    def _phase_params(self, phase: ResolvedPhase, cost: PhaseCost) -> dict[str, Any]:
        return {
            "steps": phase.steps,
            "batch": phase.batch,
            "compression": words(phase.compression),
            "grid": f"{phase.tokens.frequency}x{phase.tokens.time}",
            "lr": phase.optimizer.lr,
            "flops_per_clip": cost.clip.training,
        }
