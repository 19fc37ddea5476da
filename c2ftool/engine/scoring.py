"""Metrics of a model on the run's validation and test clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from c2ftool.data.order import Rows
from c2ftool.data.store import PreparedSet
from c2ftool.engine.device import Device
from c2ftool.engine.evaluation import FramesScored, Scored, score_frames, score_rows
from c2ftool.engine.selection import Selection
from c2ftool.metrics.detection import evaluate_detection
from c2ftool.metrics.measured import DetectionSettings
from c2ftool.metrics.outcome import Results
from c2ftool.metrics.results import evaluate_clips
from c2ftool.spec.resolved import Resolved, ResolvedFrontend, ResolvedPhase


def improves(value: float | None, best: dict[str, Any] | None) -> bool:
    """Whether an evaluation is the best so far; every metric here is better when larger, and ties keep the earlier."""
    if value is None or math.isnan(value):
        return False
    return best is None or value > best["value"]


def detection_settings(resolved: Resolved) -> DetectionSettings:
    """What a run does to scores of frames before they are measured."""
    return DetectionSettings.of(resolved.postprocess, resolved.empty)


@dataclass(frozen=True)
class Scoring:
    """Scores rows of the selection with the run's metrics."""

    selection: Selection
    resolved: Resolved
    device: Device
    threads: int

    def validate(self, student: nn.Module, phase: ResolvedPhase) -> dict[str, float]:
        """Metric name -> value on the validation clips."""
        return self.results(student, phase, self.selection.valid)[0].values()

    def results(
        self,
        student: nn.Module,
        phase: ResolvedPhase,
        rows: Rows,
        metrics: list[str] | None = None,
        frontend: ResolvedFrontend | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Results, Scored | FramesScored | None]:
        """All metrics, tables and the scores themselves on some rows; scores of frames on the first rank alone.

        frontend: in place of the phase's.
        """
        wanted = list(metrics or self.resolved.metrics)
        if self.resolved.by_frame:
            return self._frames(student, phase, rows, wanted, frontend or phase.frontend, progress)
        scored = score_rows(
            student,
            self.selection.source,
            rows,
            frontend=frontend or phase.frontend,
            classes=self.selection.classes,
            batch=self.resolved.evaluate_batch,
            device=self.device,
            threads=self.threads,
            progress=progress,
        )
        results = evaluate_clips(
            scored.targets, scored.scores, self.selection.names, wanted, multi_label=self.resolved.multi_label
        )
        return results, scored

    def _frames(
        self,
        student: nn.Module,
        phase: ResolvedPhase,
        rows: Rows,
        metrics: list[str],
        frontend: ResolvedFrontend,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[Results, FramesScored | None]:
        assert isinstance(self.selection.source, PreparedSet)
        scored = score_frames(
            student,
            self.selection.source,
            rows,
            phase=phase,
            frontend=frontend,
            classes=self.selection.classes,
            sliced=self.resolved.data.long == "slices",
            batch=self.resolved.evaluate_batch,
            device=self.device,
            threads=self.threads,
            progress=progress,
        )

        def measure() -> Results:
            assert scored is not None
            settings = detection_settings(self.resolved)
            return evaluate_detection(scored.scores, scored.truth, metrics, settings, left_out=scored.left_out)

        return self.device.from_main(measure), scored
