"""What labels of frames ask of a spec's data, augmentation and metrics. Part of check.py."""

from __future__ import annotations

from collections.abc import Iterator

from c2ftool.spec.check_objective import Finding, parts
from c2ftool.spec.data import ActiveTime, Data
from c2ftool.spec.mixing import mixing
from c2ftool.spec.root import Phase, Spec
from c2ftool.spec.running import CLIP_METRICS, ERRORS, Metric, Postprocess
from c2ftool.spec.stop import Plateau, Surpasses


def metrics(spec: Spec) -> Iterator[Finding]:
    """Metrics, and data, that do not go with the kind of labels."""
    data, evaluate = spec.data, spec.evaluate
    frames = data.labels == "frame"
    judging = list(_judging(spec))
    for path, metric in [*((("evaluate", "metrics", n), m) for n, m in enumerate(evaluate.metrics or [])), *judging]:
        if (metric in CLIP_METRICS) == frames:
            kind = "clips" if metric in CLIP_METRICS else "events in time"
            message = f"{metric} is of {kind}, and data.labels is {data.labels}"
            yield path, message, "see `c2f specs ls --metrics`"
    for path, metric in judging:
        if metric in ERRORS:
            yield path, f"of {metric} less is better; the best is the largest", "use segment_f1"
    if frames:
        yield from _padding(spec)
        return
    only: list[tuple[tuple[str | int, ...], bool]] = [
        (("data", "weak"), bool(data.weak)),
        (("data", "long"), data.long != "start"),
        (("data", "covers"), data.covers != "any"),
        (("data", "sampler"), isinstance(data.sampler, ActiveTime)),
        (("evaluate", "postprocess"), evaluate.postprocess != Postprocess()),
    ]
    for path, given in only:
        if given:
            yield path, f"{path[-1]} is for labels of frames, and data.labels is clip", "set data.labels: frame"


def _judging(spec: Spec) -> Iterator[tuple[tuple[str | int, ...], Metric]]:
    """The metrics by which runs are chosen, stopped and compared."""
    if spec.evaluate.select is not None:
        yield ("evaluate", "select"), spec.evaluate.select
    for place, phase in enumerate(spec.phases):
        if isinstance(phase.stop, Plateau | Surpasses) and phase.stop.metric is not None:
            yield ("phases", place, "stop", "metric"), phase.stop.metric
    if spec.savings is not None and spec.savings.metric is not None:
        yield ("savings", "metric"), spec.savings.metric


def _padding(spec: Spec) -> Iterator[Finding]:
    """Clips that are filled up with themselves, whose events then come again."""
    for path, part in parts(spec):
        if part.frontend is not None and part.frontend.pad == "repeat":
            message = "labels of frames do not follow clips that are repeated"
            yield (*path, "frontend", "pad"), message, "use silence or log_mel"


def augmented(spec: Spec, phase: Phase, here: tuple[str | int, ...]) -> Iterator[Finding]:
    """Mixing that the batch cannot be shared out for, and changes that labels of frames would not follow."""
    augment = phase.augment or spec.augment
    batch = phase.batch or spec.train.batch
    path = (*here, "batch") if phase.batch else ("train", "batch")
    mixed = mixing(augment)
    unit = mixed.unit
    weak = weak_clips(spec.data, batch)
    if batch % unit:
        size = {2: "pairs", 4: "fours"}[unit]
        hint = "choose an even batch" if unit == 2 else "choose a multiple of 4"
        yield path, f"{mixed.key} mixes the clips of a batch in {size}, and {batch} is no multiple", hint
    elif weak is not None and (weak % unit or not 0 < weak < batch):
        message = f"{weak} of {batch} clips are weakly labelled, and mixing takes clips of one kind in {unit}s"
        hint = f"choose a share of the batch that is a multiple of {unit}"
        if not 0 < weak < batch:
            message, hint = f"{weak} of {batch} clips are weakly labelled", "choose another share, or a larger batch"
        yield ("data", "weak_share"), message, hint
    if spec.data.labels != "frame":
        for key in ("time_roll", "time_mask"):
            if getattr(augment, key) is not None:
                yield (*_at(phase, here), key), f"{key} moves labels of frames, and data.labels is clip", "remove it"
        return
    if augment.roll is not None:
        yield (*_at(phase, here), "roll"), "labels of frames do not follow a shift of the waveform", "use time_roll"
    if augment.noise is not None and augment.noise.shift:
        yield (*_at(phase, here), "noise", "shift"), "labels of frames do not follow this shift", "set it to 0"


def weak_clips(data: Data, batch: int) -> int | None:
    """Clips of a batch that come from the weak splits; None where there are none."""
    return round(data.weak_share * batch) if data.weak else None


def _at(phase: Phase, here: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return (*here, "augment") if phase.augment is not None else ("augment",)
