"""From a spec to a resolved spec: defaults filled, lengths in steps, front ends with their compression. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from c2ftool.errors import DataError, SpecError
from c2ftool.spec.adapters import decided
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import NoCompression
from c2ftool.spec.data import Data
from c2ftool.spec.layout import compressed, full_frontend, strides
from c2ftool.spec.masks import masked_count
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.objective import Classify, Eat
from c2ftool.spec.resolved import (
    Resolved,
    ResolvedAverage,
    ResolvedEnsemble,
    ResolvedFrontend,
    ResolvedPhase,
    ResolvedSchedule,
    ResolvedStop,
    ResolvedTeacher,
)
from c2ftool.spec.root import Phase, Spec
from c2ftool.spec.running import ERRORS, Metric
from c2ftool.spec.stop import Budget, Plateau, Stop, Surpasses
from c2ftool.spec.teachers import EnsembleTeacher, Teacher
from c2ftool.spec.train import Average, Constant, Cosine, Linear, Milestones, Schedule, Step


@dataclass(frozen=True)
class DataFacts:
    """What resolving needs to know of the data. mean, std: of the prepared set's log-mel."""

    name: str
    classes: list[str]
    sample_rate: int
    multi_label: bool
    mean: float
    std: float
    fingerprint: str
    clips_train: int  # in an epoch
    clips_valid: int
    clips_test: int
    baseline_best: dict[str, float] = field(default_factory=dict)  # metric -> best of the baseline's run, if it has one
    teachers: str = ""  # fingerprint of the ensemble that is learned from


def resolve(spec: Spec, facts: DataFacts) -> Resolved:
    """The spec with every value decided. Raises SpecError where it does not fit the data."""
    if misfits := list(_misfits(spec, facts)):
        raise SpecError("\n\n".join(f"{message}\n    {cure}" for message, cure in misfits))
    metrics = _metrics(spec, facts)
    select = _select(spec, metrics, facts)
    return Resolved(
        name=spec.name,
        task=spec.task,
        about=spec.about,
        seed=spec.seed,
        data=spec.data,
        classes=facts.classes,
        multi_label=facts.multi_label,
        data_fingerprint=facts.fingerprint,
        model=_model(spec),
        adapters=decided(spec.adapters, BACKBONES[spec.model.backbone].block_widths),
        objective=spec.objective,
        phases=[_phase(spec, phase, facts, select or _first(metrics)) for phase in spec.phases],
        metrics=metrics,
        select=select,
        evaluate_batch=spec.evaluate.batch or 2 * spec.train.batch,
        checkpoints=spec.checkpoints,
        tracking=spec.tracking,
        savings=spec.savings,
        micro_batch=spec.train.micro_batch,
        precision=spec.train.precision,
        compile=spec.train.compile,
        workers=spec.train.workers,
        non_finite=spec.train.non_finite,
        postprocess=spec.evaluate.postprocess,
        empty=spec.evaluate.empty,
        clips_shown=spec.evaluate.clips_shown,
    )


def _misfits(spec: Spec, facts: DataFacts) -> Iterator[tuple[str, str]]:
    """(message, cure) of everything in the spec that does not go with the data."""
    fronts = [spec.frontend, *(phase.frontend for phase in spec.phases if phase.frontend is not None)]
    rates = {f.sample_rate or BACKBONES[spec.model.backbone].frontend.sample_rate for f in fronts}
    for rate in sorted(rates - {facts.sample_rate}):
        message = f"the front end works at {rate} Hz and data set {facts.name!r} is stored at {facts.sample_rate} Hz"
        yield message, f"Prepare it again with --rate {rate}."
    frame = spec.data.frame
    if spec.data.labels == "frame" and (frame.value <= 0 or (frame.exact * facts.sample_rate).denominator > 1):
        yield f"a label frame of {frame} is no whole number of samples at {facts.sample_rate} Hz", "Use 40 ms."
    if spec.task != "pretrain" and not facts.classes:
        yield f"data set {facts.name!r} has no classes: it is for pre-training", "Choose a set with labels."
        return
    several = f"clips of {facts.name!r} have none or several"
    if isinstance(spec.objective, Classify) and spec.objective.loss == "ce" and facts.multi_label:
        message = f"objective.loss ce is for one label per clip, and {several}"
        yield message, "Use objective.loss=bce, or choose splits or classes with one label per clip."
    measured = _metrics(spec, facts)
    for phase in spec.phases:
        metric = getattr(phase.stop, "metric", None)
        if isinstance(phase.stop, Plateau | Surpasses) and metric is None and _first(measured) is None:
            message = f"phase {phase.name} stops by a metric of which more is better, and none is measured"
            yield message, "Add one to evaluate.metrics."
        if metric is not None and metric not in measured:
            message = f"phase {phase.name} stops by {metric}, which is not measured"
            yield message, f"Set evaluate.metrics=[{', '.join([*measured, metric])}]."
    if spec.savings is not None and spec.savings.metric is not None and spec.savings.metric not in measured:
        wanted = ", ".join([*measured, spec.savings.metric])
        yield f"savings compare by {spec.savings.metric}, which is not measured", f"Set evaluate.metrics=[{wanted}]."
    for metric in measured:
        if metric in ("accuracy", "top5") and facts.multi_label and spec.data.labels == "clip":
            yield f"evaluate.metrics: {metric} is for one label per clip, and {several}", "Use map, auc or d_prime."
        elif metric == "top5" and len(facts.classes) <= 5:
            yield f"evaluate.metrics: top5 is always 1 with {len(facts.classes)} classes", "Use accuracy."


def _model(spec: Spec) -> Model:
    """The section with the head's pooling decided, and what is frozen."""
    model, size = spec.model, BACKBONES[spec.model.backbone]
    if model.freeze is None:
        model = model.model_copy(update={"freeze": "body" if spec.adapters else "none"})
    if not isinstance(model.head, ClipHead):
        return model
    norm = size.head_norm if model.head.norm is None else model.head.norm
    head = model.head.model_copy(update={"pool": model.head.pool or size.pool, "norm": norm})
    return model.model_copy(update={"head": head})


def _metrics(spec: Spec, facts: DataFacts) -> list[Metric]:
    if spec.task == "pretrain":
        return []
    if spec.evaluate.metrics is not None:
        return spec.evaluate.metrics
    usual: Metric = "psds1" if spec.data.labels == "frame" else "map" if facts.multi_label else "accuracy"
    return [usual] if spec.evaluate.select in (None, usual) else [usual, spec.evaluate.select]


def _select(spec: Spec, metrics: list[Metric], facts: DataFacts) -> Metric | None:
    """The metric that chooses the best weights. With a held-out fold only where the spec says so: choosing on the
    clips that are reported makes the figure look better than it is."""
    if not metrics or not facts.clips_valid:
        return None
    if spec.evaluate.select is not None:
        return spec.evaluate.select
    return None if spec.data.fold is not None else _first(metrics)


def _first(metrics: list[Metric]) -> Metric | None:
    """The first metric of which more is better."""
    return next((metric for metric in metrics if metric not in ERRORS), None)


def _phase(spec: Spec, phase: Phase, facts: DataFacts, metric: Metric | None) -> ResolvedPhase:
    """metric: what stop rules look at where they name none."""
    batch = phase.batch or spec.train.batch
    per_epoch = facts.clips_train
    steps = phase.length.steps(batch=batch, clips=per_epoch)
    lengths = {"batch": batch, "clips": per_epoch}
    size = BACKBONES[spec.model.backbone]
    compression = phase.compression or spec.compression
    if spec.control == "restart":
        compression = NoCompression(method="none")
    full = full_frontend(phase.frontend or spec.frontend, size, facts.mean, facts.std)
    frontend, tokens = compressed(full, compression, size, strides(spec.model, size))
    pretraining = spec.task == "pretrain"
    masks = phase.masks or spec.masks
    visible = tokens.count - masked_count(masks, tokens.count) if pretraining and masks else None
    teachers = phase.teachers or spec.teachers
    every = spec.evaluate.every.steps(**lengths)
    saves = spec.checkpoints.every.steps(**lengths) if spec.checkpoints.every else 0
    return ResolvedPhase(
        name=phase.name,
        steps=steps,
        batch=batch,
        clips_per_epoch=per_epoch,
        optimizer=phase.optimizer or spec.train.optimizer,
        schedule=_schedule(phase.schedule or spec.train.schedule, steps, lengths),
        clip=phase.clip if phase.clip is not None else spec.train.clip,
        # what a mean over a coarse phase would be good for is not clear, and it would cost a copy of the weights
        average=_average(phase.average or spec.train.average, lengths) if phase is spec.phases[-1] else None,
        full_frontend=full,
        frontend=frontend,
        compression=compression,
        tokens=tokens,
        enter=phase.enter or spec.enter,
        stop=_stop(phase.stop, metric, facts),
        masks=masks if pretraining else None,
        visible=visible,
        teacher=_teacher(teachers[0], steps, size.depth, lengths, facts) if teachers else None,
        augment=phase.augment or spec.augment,
        label_frames=label_frames(full, spec.data) if spec.data.labels == "frame" else 0,
        label_hop=int(spec.data.frame.exact * full.sample_rate) if spec.data.labels == "frame" else 0,
        evaluate_every=every if facts.clips_valid and spec.task != "pretrain" else 0,
        checkpoint_every=saves,
        collapse_after=spec.objective.collapse.after.steps(**lengths) if isinstance(spec.objective, Eat) else 0,
    )


def _average(average: Average | None, lengths: dict[str, int]) -> ResolvedAverage | None:
    if average is None:
        return None
    start, every = average.start.exact_steps(**lengths), average.every.exact_steps(**lengths)
    return ResolvedAverage(start=str(start), every=str(every))


def _stop(stop: Stop | None, metric: Metric | None, facts: DataFacts) -> ResolvedStop | None:
    match stop:
        case None:
            return None
        case Budget():
            seconds = stop.time.seconds if stop.time is not None else None
            return ResolvedStop(kind="budget", flops=stop.flops, seconds=seconds, of=stop.of)
        case Plateau():
            metric = stop.metric or metric
            return ResolvedStop(kind="plateau", metric=metric, patience=stop.patience, min_delta=stop.min_delta)
        case Surpasses():
            metric = stop.metric or metric
            value = stop.value if stop.value is not None else facts.baseline_best.get(str(metric))
            return ResolvedStop(kind="surpasses", metric=metric, value=value)


def _schedule(schedule: Schedule, steps: int, lengths: dict[str, int]) -> ResolvedSchedule:
    # longer than the phase it stays below its peak, as the published teachers of sound events do
    warmup = schedule.warmup.steps(whole=steps, **lengths)
    match schedule:
        case Cosine():
            return ResolvedSchedule(kind="cosine", steps=steps, warmup=warmup, min_lr=schedule.min_lr)
        case Constant():
            return ResolvedSchedule(kind="constant", steps=steps, warmup=warmup)
        case Linear():
            return ResolvedSchedule(
                kind="linear",
                steps=steps,
                warmup=warmup,
                min_lr=schedule.min_lr,
                start=schedule.start.steps(whole=steps, **lengths),
                over=schedule.over.steps(whole=steps, **lengths),
            )
        case Milestones():
            at = [moment.steps(whole=steps, **lengths) for moment in schedule.at]
            return ResolvedSchedule(
                kind="milestones", steps=steps, warmup=warmup, milestones=at, factors=schedule.factors
            )
        case Step():
            start = schedule.start.steps(whole=steps, **lengths)
            every = schedule.every.steps(whole=steps, **lengths)
            factor = schedule.factor
            return ResolvedSchedule(kind="step", steps=steps, warmup=warmup, start=start, every=every, factor=factor)


def label_frames(full: ResolvedFrontend, data: Data) -> int:
    """Label frames that an input covers: its length over theirs, to the nearest (998 frames of Kaldi's are 250)."""
    return max(1, round(Fraction(full.samples, full.sample_rate) / data.frame.exact))


def _teacher(
    teacher: Teacher, steps: int, depth: int, lengths: dict[str, int], facts: DataFacts
) -> ResolvedTeacher | ResolvedEnsemble:
    if isinstance(teacher, EnsembleTeacher):
        return ResolvedEnsemble(**teacher.model_dump(), fingerprint=facts.teachers)
    return ResolvedTeacher(
        kind=teacher.kind,
        decay=teacher.decay,
        final_decay=teacher.final_decay,
        over=teacher.over.steps(whole=steps, **lengths),
        layers=list(range(depth)) if teacher.layers == "all" else list(teacher.layers),
    )


def children(spec: Spec) -> list[tuple[str, list[str]]]:
    """(name, arguments) of a study's child runs; empty for a single run."""
    if spec.data.folds is not None:
        inner = [(f"fold-{k}", ["data.folds=null", f"data.fold={k}"]) for k in spec.data.folds]
    else:
        inner = [(f"seed-{s}", ["seeds=null", f"seed={s}"]) for s in spec.seeds or []]
    if spec.backbones is None:
        return inner
    found = []
    for name in spec.backbones:
        of_backbone = ["backbones=null", f"model.backbone={name}"]
        if spec.model.weights is not None:
            of_backbone.append(f"model.weights={json.dumps(spec.model.weights.replace('{backbone}', name))}")
        for suffix, overrides in inner or [("", [])]:
            found.append((f"{name}-{suffix}" if suffix else name, [*of_backbone, *overrides]))
    return found


def as_data(resolved: Resolved) -> dict[str, Any]:
    """The resolved spec as plain data."""
    return json.loads(resolved.model_dump_json())


def resolved_yaml(resolved: Resolved) -> str:
    """The resolved spec as YAML text."""
    return yaml.safe_dump(as_data(resolved), sort_keys=False, allow_unicode=True, width=120)


# What does not decide a run's numbers, and so may differ when it is resumed.
FREE = ("name", "about", "tracking", "checkpoints", "savings", "workers", "micro_batch")


def resolved_hash(resolved: Resolved) -> str:
    """The first 12 digits of the SHA-256 over what decides a run's numbers: not its name, prose, or reporting."""
    data = as_data(resolved)
    for key in FREE:
        del data[key]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def read_resolved(path: Path) -> Resolved:
    """The resolved spec of a run folder. Raises DataError where it cannot be read."""
    try:
        return Resolved.model_validate_json(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise DataError(
            f"not a resolved spec of this version ({type(error).__name__})",
            place=str(path),
            cure="The run was made by another version, or the file was changed.",
        ) from None
