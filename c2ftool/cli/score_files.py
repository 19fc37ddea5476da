"""`c2f evaluate --scores` and `--detections`: what any system wrote, measured; and `--save-scores`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from c2ftool.engine.rescore import Rescored
from c2ftool.engine.score_files import Measured, measure_detections, measure_scores
from c2ftool.errors import UsageError
from c2ftool.metrics.measured import DetectionSettings
from c2ftool.metrics.score_tables import load_scores, write_score_tables
from c2ftool.spec.overrides import apply
from c2ftool.spec.read import Fault, fail, plain, read_text
from c2ftool.spec.running import Evaluate


def measure(
    scores: Path | None,
    detections: list[Path],
    truth: Path | None,
    durations: Path | None,
    metrics: list[str] | None,
    overrides: list[str],
    backend: str,
) -> Measured:
    """The files measured. Raises UsageError for what is missing or does not go together."""
    if backend not in ("c2ftool", "psds_eval"):
        raise UsageError(f"there is no backend {backend!r}", cure="Give c2ftool or psds_eval.")
    if truth is None or durations is None:
        missing = "--truth" if truth is None else "--durations"
        raise UsageError(f"{missing} is missing", cure="Give --truth TRUTH.tsv --durations DURATIONS.tsv")
    if scores is not None and detections:
        raise UsageError("--scores and --detections are given", cure="Give one of them.")
    settings = replace(_settings(overrides), backend=backend)
    wanted = metrics or ["psds1"]
    if scores is not None:
        return measure_scores(scores, truth, durations, wanted, settings)
    return measure_detections(detections, truth, durations, wanted, settings)


def save(scored: list[Rescored], folder: Path) -> None:
    """Write the scores of one run as tables."""
    if len(scored) != 1 or scored[0].children or scored[0].report is None:
        raise UsageError("--save-scores is for one run", cure="Name one run.")
    file = scored[0].report.parent / "scores.hdf5"
    if not file.is_file():
        raise UsageError(f"run {scored[0].name} scores no frames", cure="Name a run with labels of frames.")
    write_score_tables(folder, load_scores(file))
    typer.echo(f"scores: {folder}", err=True)


def _settings(overrides: list[str]) -> DetectionSettings:
    """What KEY=VALUE arguments make of the defaults of `evaluate`."""
    texts = [text.removeprefix("evaluate.") for text in overrides]
    for text in texts:
        if not text.startswith(("postprocess.", "empty=")):
            raise UsageError(
                f"{text!r}: of files only postprocess.* and empty can be set", cure="postprocess.median='0.36 s'"
            )
    faults: list[Fault] = []
    changed = apply(read_text("{}", "arguments"), texts, faults)
    if faults:
        raise fail(faults)
    given: dict[str, Any] = plain(changed)
    try:
        evaluate = Evaluate.model_validate_json(json.dumps(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}: {first['msg']}", cure="docs/specs.md lists the keys of `evaluate`.") from None
    return DetectionSettings.of(evaluate.postprocess, evaluate.empty)
