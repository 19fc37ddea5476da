"""`evaluate`, `checkpoints`, `tracking`: what is measured, kept and reported. Built by c2ftool/engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from c2ftool.spec.amounts import Duration, Length
from c2ftool.spec.base import Section

Metric = Literal["accuracy", "top5", "map", "auc", "d_prime"]


class Evaluate(Section):
    """Scores of the validation data while training, and of the test data at the end."""

    metrics: list[Metric] | None = Field(
        None, min_length=1, description="accuracy for one label per clip, map for several, if not given."
    )
    every: Length = Field(Length.parse("1 epochs"), description="How often the validation data are scored.")
    select: Metric | None = Field(
        None,
        description="The metric that chooses the best checkpoint. Not given: the first of `metrics` where there are "
        "validation clips, and none with a held-out fold.",
    )
    batch: int | None = Field(None, ge=1, description="Clips per forward pass; twice the training batch if not given.")


class Checkpoints(Section):
    """When the exact state is saved, besides at phase ends, at the end and on a signal."""

    every: Length | None = Field(None, description="A save every so many steps, epochs or clips.")
    minutes: Duration = Field(Duration.parse("30 min"), description="A save at the latest after this time.")
    keep: int = Field(
        2, ge=1, description="Newest states kept; the best and the phases' last weights are kept besides."
    )


class Tracking(Section):
    """Where metrics are mirrored to; `metrics.jsonl` in the run folder is the truth."""

    kind: Literal["mlflow", "none"] = Field("mlflow", description="`none`: only the run folder.")
    uri: str | None = Field(None, description="MLFLOW_TRACKING_URI, or a SQLite store beside the runs, if not given.")
    experiment: str = Field("c2ftool", min_length=1, description="Name of the MLflow experiment.")
    every: int = Field(10, ge=1, description="Steps between two lines of losses in metrics.jsonl and on the screen.")
