"""Scoring finished runs again: other metrics, other clips, other weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from c2ftool.data.store import PreparedSet
from c2ftool.engine.attention_report import attention_pictures
from c2ftool.engine.device import open_device
from c2ftool.engine.evaluation import truth_of
from c2ftool.engine.metrics_log import read_metrics
from c2ftool.engine.recompress import is_compression, recompressed
from c2ftool.engine.result import report
from c2ftool.engine.run_folder import RECORD, RunFolder, children_of, find_runs, newest_finished
from c2ftool.engine.savings import saved
from c2ftool.engine.score_files import averaged
from c2ftool.engine.scoring import Scoring, detection_settings
from c2ftool.engine.selection import facts, select
from c2ftool.engine.trained import load_trained, outcome_of, require_partial
from c2ftool.errors import MissingError, UsageError
from c2ftool.files import lock
from c2ftool.metrics.definitions import METRICS, check_metrics
from c2ftool.metrics.detection import evaluate_detection
from c2ftool.metrics.spread import mean_and_spread
from c2ftool.models.backbone import Backbone
from c2ftool.spec.overrides import apply
from c2ftool.spec.read import Fault, fail, plain, read_text
from c2ftool.spec.resolve import read_resolved
from c2ftool.spec.resolved import Resolved

_PARENT = "model.weights="  # where the body of adapters lies now


@dataclass(frozen=True)
class Rescored:
    """A run's scores and what it took. spread: standard deviation over the children of a study."""

    name: str
    folder: Path
    task: str
    scores: dict[str, float]
    spread: dict[str, float]
    definitions: dict[str, str]
    clips: int
    weights: str
    flops: float
    seconds: float
    device: str
    first_loss: float | None
    last_loss: float | None
    tracking: str | None
    savings: list[tuple[str, str]] = field(default_factory=list)
    saved: dict[str, Any] | None = None
    report: Path | None = None
    children: list[Rescored] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As plain data."""
        keys = ("name", "task", "scores", "spread", "clips", "weights", "flops", "seconds", "device", "first_loss")
        out = {key: getattr(self, key) for key in (*keys, "last_loss", "tracking", "saved")}
        return out | {"folder": str(self.folder), "children": [c.summary() for c in self.children]}


def rescore_all(
    names: list[str],
    *,
    runs_root: Path,
    data_root: Path,
    metrics: list[str] | None,
    weights: str | None,
    overrides: list[str],
    device: str | None,
    say: Callable[[str], None],
    ensemble: bool = False,
) -> list[Rescored]:
    """Each run scored; the newest finished one if none is named. A name may be a pattern, as `teacher-*`.

    ensemble: the runs' averaged logits are scored besides, as one more.
    """
    if unknown := [m for m in metrics or [] if m not in METRICS]:
        raise UsageError(f"unknown metric {unknown[0]!r}", cure=f"Known: {', '.join(METRICS)}.")
    if names:
        folders = [folder for name in names for folder in find_runs(name, runs_root)]
    else:
        folders = [newest_finished(runs_root)]
        say(f"the newest finished run: {folders[0]}")
    settings = _Settings(runs_root, data_root, metrics, weights, overrides, device, say)
    scored = [_study(f, settings) if children_of(f) else _run(f, settings) for f in folders]
    if all(run.task == "pretrain" for run in scored) and (overrides or metrics or weights):
        names = [run.name for run in scored]
        raise UsageError(f"{', '.join(names)}: pre-training has no scores", cure="Name the runs without arguments.")
    if ensemble:
        scored.append(_ensemble(scored, settings))
    return scored


def _ensemble(scored: list[Rescored], settings: _Settings) -> Rescored:
    """The mean of the runs' logits, scored as one: of frames, as they were just saved."""
    members = [child for run in scored for child in run.children or [run]]
    if len(members) < 2:
        raise UsageError("an ensemble is of two runs or more", cure="Name several runs, or a study.")
    files = [member.report.parent / "scores.hdf5" for member in members if member.report is not None]
    if lacking := [m.name for m in members if m.report is None or not (m.report.parent / "scores.hdf5").is_file()]:
        raise UsageError(f"{', '.join(lacking)}: scores no frames", cure="Name runs with labels of frames.")
    resolved = _overridden(read_resolved(members[0].folder / "resolved.yaml"), _of_scoring(settings.overrides))
    mean = averaged(files)
    selection = select(resolved.data, settings.data_root)
    assert isinstance(selection.source, PreparedSet)
    truth, left_out = truth_of(selection.source, selection.test, selection.classes)
    metrics = list(settings.metrics or resolved.metrics)
    results = evaluate_detection(mean, truth, metrics, detection_settings(resolved), left_out=left_out)
    first = members[0]
    return Rescored(
        name=f"ensemble of {len(members)}",
        folder=first.folder,
        task="ensemble",
        scores=results.values(),
        spread={},
        definitions=first.definitions,
        clips=results.clips,
        weights="mean logits",
        flops=sum(member.flops for member in members),
        seconds=sum(member.seconds for member in members),
        device=first.device,
        first_loss=None,
        last_loss=None,
        tracking=None,
        report=None,
    )


def _of_scoring(overrides: list[str]) -> list[str]:
    """The arguments that say what is scored, and how."""
    return [text for text in overrides if not is_compression(text) and not text.startswith(("savings.", _PARENT))]


@dataclass(frozen=True)
class _Settings:
    runs_root: Path
    data_root: Path
    metrics: list[str] | None
    weights: str | None
    overrides: list[str]
    device: str | None
    say: Callable[[str], None]

    def name(self, folder: Path) -> str:
        inside = folder.resolve().is_relative_to(self.runs_root.resolve())
        return str(folder.resolve().relative_to(self.runs_root.resolve())) if inside else str(folder)


def _study(folder: Path, settings: _Settings) -> Rescored:
    names = children_of(folder)
    states = {name: json.loads((folder / name / RECORD).read_text())["state"] for name in names}
    if unfinished := [name for name, state in states.items() if state != "finished"]:
        settings.say(f"warning: {settings.name(folder)}: left out, not finished: {', '.join(unfinished)}")
    children = [_run(folder / name, settings) for name in names if name not in unfinished]
    if not children:
        raise MissingError(f"no run in {settings.name(folder)} is finished", cure="Go on with them: --resume.")
    first = children[0]
    if any((c.task, c.scores.keys()) != (first.task, first.scores.keys()) for c in children):
        raise UsageError(
            f"the runs in {settings.name(folder)} have different tasks or metrics", cure="Score them one by one."
        )
    spread = {m: mean_and_spread(c.scores[m] for c in children) for m in first.scores}
    return Rescored(
        name=settings.name(folder),
        folder=folder,
        task=first.task,
        scores={m: s.mean for m, s in spread.items()},
        spread={m: s.std for m, s in spread.items() if s.std is not None},
        definitions=first.definitions,
        clips=sum(c.clips for c in children),
        weights=first.weights,
        flops=sum(c.flops for c in children),
        seconds=sum(c.seconds for c in children),
        device=first.device,
        first_loss=first.first_loss,
        last_loss=first.last_loss,
        tracking=first.tracking,
        children=children,
    )


def _run(folder: Path, settings: _Settings) -> Rescored:
    record = json.loads((folder / RECORD).read_text())
    outcome = outcome_of(folder, settings.name(folder))
    common = {
        "name": settings.name(folder),
        "folder": folder,
        "task": record["task"],
        "spread": {},
        "flops": outcome["flops"],
        "seconds": outcome["seconds"],
        "device": outcome["device"],
        "first_loss": outcome["first_loss"],
        "last_loss": outcome["last_loss"],
        "tracking": outcome["tracking"],
    }
    if record["task"] == "pretrain":
        return Rescored(scores={}, definitions={}, clips=0, weights="", **common)
    arguments = [text for text in settings.overrides if text.startswith("savings.")]
    trained = _overridden(read_resolved(folder / "resolved.yaml"), arguments)
    resolved = _overridden(trained, _of_scoring(settings.overrides))
    parent = next((text.partition("=")[2] for text in settings.overrides if text.startswith(_PARENT)), None)
    if parent is not None:
        require_partial(folder, settings.name(folder), settings.weights)
    loaded = load_trained(folder, settings.name(folder), settings.runs_root, settings.weights, parent)
    which, phase, classifier = loaded.which, loaded.phase, loaded.model
    selection = select(resolved.data, settings.data_root)
    known = facts(selection, resolved.data)
    if known.fingerprint != resolved.data_fingerprint:
        settings.say(f"warning: data set {known.name!r} has changed since run {common['name']} was trained")
    if (resolved.data.labels, resolved.data.frame) != (trained.data.labels, trained.data.frame):
        raise UsageError("data.labels and data.frame belong to the weights", cure="Leave them as they were trained.")
    if known.sample_rate != phase.frontend.sample_rate:
        raise UsageError(
            f"run {common['name']} hears {phase.frontend.sample_rate} Hz, and data set {known.name!r} is stored at "
            f"{known.sample_rate} Hz",
            cure=f"Prepare it again with --rate {phase.frontend.sample_rate}.",
        )
    if known.classes != resolved.classes:
        raise UsageError(
            "the data have other classes than the run was trained on", cure="Choose the run's own data set."
        )
    if not len(selection.test):
        raise UsageError(f"run {common['name']} names no test clips", cure="Name a split: data.test=[valid]")
    resolved = resolved.model_copy(update={"multi_label": known.multi_label})
    metrics = list(settings.metrics or resolved.metrics)
    check_metrics(metrics, multi_label=known.multi_label, classes=len(known.classes), frames=resolved.by_frame)
    device = open_device(settings.device, resolved.precision, "off")
    frontend, tokens = phase.frontend, phase.tokens
    if compression := [text for text in settings.overrides if is_compression(text)]:
        frontend, tokens, rules = recompressed(resolved.model, phase, compression)
        assert isinstance(classifier.backbone, Backbone)
        for change in classifier.backbone.resize(tokens, rules):
            settings.say(f"{common['name']}: {change.name}: {change.what}")
    classifier.to(device.torch)
    scoring = Scoring(selection, resolved, device, threads=2)
    results, scored = scoring.results(classifier, phase, selection.test, metrics, frontend)
    compared = saved(folder, trained, settings.runs_root)
    # what was scored otherwise than the run's own end does not replace its report
    otherwise = [text for text in settings.overrides if not text.startswith(("savings.", _PARENT))]
    if which != outcome["weights"]:
        otherwise.append(f"weights={which}")
    into = folder / f"report-{_slug(otherwise)}" if otherwise else folder / "report"
    with lock(folder / ".lock"):
        report(
            RunFolder(folder),
            resolved,
            read_metrics(folder / "metrics.jsonl"),
            outcome["phases"],
            results,
            scored,
            selection,
            outcome["device"],
            compared,
            into,
            pictures=attention_pictures(classifier, resolved, phase, selection) if frontend is phase.frontend else {},
        )
    return Rescored(
        scores=results.values(),
        definitions={name: score.definition for name, score in results.scores.items()},
        clips=results.clips,
        weights=which,
        savings=[] if compared is None or otherwise else compared.rows(),
        saved=None if compared is None else compared.summary(),
        report=into / "index.html",
        **common,
    )


def _slug(overrides: list[str]) -> str:
    """Arguments as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(overrides)).strip("-").lower()[:80]


def _overridden(resolved: Resolved, overrides: list[str]) -> Resolved:
    """The resolved spec with `data.*` and `savings.*` put in; others, but for `compression`, belong to the weights."""
    if not overrides:
        return resolved
    overrides = [text.removeprefix("evaluate.") for text in overrides]
    for text in overrides:
        if not text.startswith(("data.", "savings.", "postprocess.", "empty=")):
            raise UsageError(
                f"{text!r}: only model.weights (where the body of adapters lies now), data.*, postprocess.*, empty, "
                "savings.* and compression can differ when a run is scored",
                cure='For example: data.test=[valid], or compression="{method: fshift, factor: 2}"',
            )
    faults: list[Fault] = []
    root = read_text(resolved.model_dump_json(), "resolved.yaml")
    changed = apply(root, overrides, faults)
    if faults:
        raise fail(faults)
    try:
        return Resolved.model_validate_json(json.dumps(plain(changed)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}: {first['msg']}", cure="docs/specs.md lists the keys of `data`.") from None
