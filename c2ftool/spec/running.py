"""`evaluate`, `checkpoints`, `tracking`: what is measured, kept and reported. Built by c2ftool/engine."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from c2ftool.spec.amounts import Duration, Length
from c2ftool.spec.base import Section

Metric = Literal[
    "accuracy",
    "top5",
    "map",
    "auc",
    "d_prime",
    "psds1",
    "psds2",
    "psds1_variance",
    "psds2_variance",
    "psds1_50",
    "psds2_50",
    "pauroc",
    "segment_f1",
    "segment_error",
    "event_f1",
    "onset_f1_20ms",
    "onset_f1_50ms",
    "onset_f1_200ms",
    "onset_offset_f1_50ms",
    "intersection_f1",
]


CLIP_METRICS: Final = ("accuracy", "top5", "map", "auc", "d_prime")
"""Metrics of clips with labels; the others are of events in time."""

ERRORS: Final = ("segment_error",)
"""Metrics of which less is better."""


class Postprocess(Section):
    """From scores of frames to what is measured: a median filter, then, for F measures, events."""

    median: Duration = Field(
        Duration.parse("0 s"), description="Length of the median filter over a class's scores, rounded to whole frames."
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability from which on a frame is part of an event.")
    min_duration: Duration = Field(Duration.parse("0 s"), description="Shorter events are left out.")
    times: Literal["frame", "centre"] = Field(
        "frame",
        description="An event lasts from the start of its first `frame` to the end of its last, or from `centre` to "
        "centre (HEAR).",
    )


class Evaluate(Section):
    """Scores of the validation data while training, and of the test data at the end."""

    metrics: list[Metric] | None = Field(
        None,
        min_length=1,
        description="accuracy for one label per clip, map for several, psds1 for frame labels, if not given.",
    )
    every: Length = Field(Length.parse("1 epochs"), description="How often the validation data are scored.")
    select: Metric | None = Field(
        None,
        description="The metric that chooses the best checkpoint. Not given: the first of `metrics` where there are "
        "validation clips, and none with a held-out fold.",
    )
    batch: int | None = Field(None, ge=1, description="Clips per forward pass; twice the training batch if not given.")
    postprocess: Postprocess = Field(Postprocess(), description="What becomes of scores of frames.")
    empty: Literal["leave_out", "keep"] = Field(
        "leave_out",
        description="Clips without an event of a class that is scored: left out, as DESED and AudioSet Strong are "
        "evaluated, or kept, so that what is detected in them counts as false (frame labels).",
    )
    clips_shown: int = Field(
        6,
        ge=0,
        description="Clips that the report shows: their events over time; of adapters the attention (three at most).",
    )


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
