"""Metrics of a classifier on the run's validation and test clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from c2ftool.data.order import Rows
from c2ftool.engine.device import Device
from c2ftool.engine.evaluation import Scored, score_rows
from c2ftool.engine.selection import Selection
from c2ftool.metrics.results import ClipResults, evaluate_clips
from c2ftool.spec.resolved import Resolved, ResolvedFrontend


def improves(value: float | None, best: dict[str, Any] | None) -> bool:
    """Whether an evaluation is the best so far; every metric here is better when larger, and ties keep the earlier."""
    if value is None or math.isnan(value):
        return False
    return best is None or value > best["value"]


@dataclass(frozen=True)
class Scoring:
    """Scores rows of the selection with the run's metrics."""

    selection: Selection
    resolved: Resolved
    device: Device
    threads: int

    def validate(self, student: nn.Module, frontend: ResolvedFrontend) -> dict[str, float]:
        """Metric name -> value on the validation clips."""
        results = self.results(student, frontend, self.selection.valid)[0]
        return results.values()

    def results(
        self,
        student: nn.Module,
        frontend: ResolvedFrontend,
        rows: Rows,
        metrics: list[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[ClipResults, Scored]:
        """All metrics, tables and the scores themselves on some rows."""
        scored = score_rows(
            student,
            self.selection.source,
            rows,
            frontend=frontend,
            classes=self.selection.classes,
            batch=self.resolved.evaluate_batch,
            device=self.device,
            threads=self.threads,
            progress=progress,
        )
        wanted = list(metrics or self.resolved.metrics)
        results = evaluate_clips(
            scored.targets, scored.scores, self.selection.names, wanted, multi_label=self.resolved.multi_label
        )
        return results, scored
