"""Checks across sections: combinations that cannot work are refused here, with the reason, before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from c2ftool.spec.amounts import samples
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.check_adapters import adapters, frozen
from c2ftool.spec.check_detection import augmented, metrics
from c2ftool.spec.check_objective import NO_SHARE, Finding, objective, parts
from c2ftool.spec.compression import Compression
from c2ftool.spec.data import Uniform
from c2ftool.spec.layout import compressed, full_frontend, refusal, strides
from c2ftool.spec.masks import masked_count
from c2ftool.spec.model import ClipHead, TokenSemanticHead
from c2ftool.spec.objective import Ssast
from c2ftool.spec.root import Phase, Spec
from c2ftool.spec.stop import Budget, Surpasses
from c2ftool.spec.train import Average, Cosine, Linear, Milestones, Step

_RESERVED = ("best", "last", "last-teacher", "average")


def check(spec: Spec) -> Iterator[Finding]:
    """Every finding in a spec whose sections are valid by themselves."""
    yield from objective(spec)
    yield from _data(spec)
    yield from _evaluate(spec)
    yield from _model(spec)
    yield from _savings(spec)
    yield from _average(spec)
    yield from metrics(spec)
    yield from adapters(spec)
    names = Counter(phase.name.lower() for phase in spec.phases)  # they name files
    for place, phase in enumerate(spec.phases):
        if names[phase.name.lower()] > 1:
            yield (
                ("phases", place, "name"),
                f'{names[phase.name.lower()]} phases are called "{phase.name}"',
                "names are unique",
            )
        if phase.name.lower() in _RESERVED:
            message = f'"{phase.name}" is the name of other weights of a run'
            yield ("phases", place, "name"), message, "choose another name"
        yield from _phase(spec, phase, place)


def _data(spec: Spec) -> Iterator[Finding]:
    data = spec.data
    if data.fold is not None and data.folds is not None:
        yield ("data", "fold"), "`fold` is one run and `folds` a study", "keep one of them"
    if (data.fold is not None or data.folds is not None) and (data.valid or data.test):
        key = "valid" if data.valid else "test"
        yield ("data", key), "with folds, the held-out fold is the validation and test data", f"remove data.{key}"
    for place, name in enumerate(spec.backbones or []):
        if name not in BACKBONES:
            yield ("backbones", place), f"unknown backbone {name!r}", "see `c2f specs ls --backbones`"
    if data.valid_fold == "next" and data.fold is None and data.folds is None:
        yield ("data", "valid_fold"), "there is no fold that is held out", "give data.fold or data.folds"
    if data.folds is not None and spec.seeds is not None:
        yield ("seeds",), "a study is over folds or over seeds, not both", "give one, and the other as an override"
    lists: list[tuple[tuple[str, ...], str, list[int] | list[str] | None]] = [
        (("data", "folds"), "fold", data.folds),
        (("seeds",), "seed", spec.seeds),
        (("data", "classes"), "class", data.classes if isinstance(data.classes, list) else None),
        (("data", "train"), "split", [*data.train, *data.weak]),
        (("backbones",), "backbone", spec.backbones),
    ]
    for path, word, items in lists:
        for item, count in Counter[int | str](items or []).items():
            if count > 1:
                yield path, f"{word} {item!r} is named {count} times", ""
    if data.also and spec.task != "pretrain":
        yield ("data", "also"), "only pre-training joins sets: their labels are not the same", "remove it"
    elif data.also and not isinstance(data.sampler, Uniform):
        yield ("data", "sampler"), "joined sets have no labels to balance", "remove it"
    elif data.also and (data.classes is not None or data.valid or data.test or data.fold or data.folds):
        yield ("data", "also"), "joined sets have neither classes nor held-out clips", "keep only train and also"
    if data.dataset in (names := [other.dataset for other in data.also]) or len(set(names)) < len(names):
        yield ("data", "also"), "a set is joined with itself", "name each set once, with all its splits"
    for split in sorted({*data.train, *data.weak} & {*data.valid, *data.test}):
        yield ("data", "train"), f"split {split!r} is trained on and scored", "hold it out"


def _evaluate(spec: Spec) -> Iterator[Finding]:
    evaluate, data = spec.evaluate, spec.data
    if evaluate.every.unit == "%":
        yield ("evaluate", "every"), *NO_SHARE
    if spec.checkpoints.every is not None and spec.checkpoints.every.unit == "%":
        yield ("checkpoints", "every"), *NO_SHARE
    if evaluate.select is not None:
        if spec.task == "pretrain":
            yield ("evaluate", "select"), "pre-training is not scored, so nothing can be selected", "remove it"
        elif evaluate.metrics is not None and evaluate.select not in evaluate.metrics:
            message = f"{evaluate.select} is not among evaluate.metrics"
            yield ("evaluate", "select"), message, f"known: {', '.join(evaluate.metrics)}"
        elif not (data.valid or data.fold is not None or data.folds is not None):
            yield ("evaluate", "select"), "there are no validation clips to select by", "name data.valid or data.fold"


def _phase(spec: Spec, phase: Phase, place: int) -> Iterator[Finding]:
    here: tuple[str | int, ...] = ("phases", place)
    if phase.length.unit == "%" or phase.length.value == 0:
        yield (*here, "length"), f"a phase cannot be `{phase.length}` long", "write steps, epochs or clips above 0"
    yield from augmented(spec, phase, here)
    schedule = phase.schedule or spec.train.schedule
    where: tuple[str | int, ...] = (*here, "schedule") if phase.schedule else ("train", "schedule")
    if isinstance(schedule, Step) and schedule.every.value == 0:
        yield (*where, "every"), "the rate cannot fall every `0`", "write steps, epochs or clips above 0"
    if isinstance(schedule, Milestones):
        moments = [(moment.unit, moment.value) for moment in schedule.at]
        if len(schedule.factors) != len(moments):
            message = f"{len(moments)} moments and {len(schedule.factors)} factors"
            yield (*where, "factors"), message, "give one factor for each moment"
        elif len({unit for unit, _ in moments}) > 1 or moments != sorted(set(moments)):
            yield (*where, "at"), "moments follow one another, in one unit", "write at: [10 epochs, 20 epochs]"
        elif any(factor < 0 for factor in schedule.factors):
            yield (*where, "factors"), "a rate is not below 0", ""
    peak = (phase.optimizer or spec.train.optimizer).lr
    if isinstance(schedule, Cosine | Linear) and schedule.min_lr > peak:
        yield (*where, "min_lr"), f"the rate would rise: min_lr {schedule.min_lr:g} is above lr {peak:g}", ""
    if place == 0 and phase.enter is not None and phase.enter.carry:
        yield (*here, "enter", "carry"), "there is no phase before the first to carry from", "remove it"
    if place + 1 < len(spec.phases) and phase.average is not None and phase.average != spec.train.average:
        yield (*here, "average"), "only the last phase is averaged", "give it there, or in train"
    yield from _stop(spec, phase, here)
    yield from _grid(spec, phase, here)


def _grid(spec: Spec, phase: Phase, here: tuple[str | int, ...]) -> Iterator[Finding]:
    size = BACKBONES[spec.model.backbone]
    given = phase.frontend or spec.frontend
    rate = given.sample_rate or size.frontend.sample_rate
    for key, duration in (("frame_length", given.frame_length), ("hop", given.hop)):
        if duration is not None and samples(duration, rate) < 1:
            place = (*here, "frontend", key) if phase.frontend else ("frontend", key)
            yield place, f"`{duration}` is less than a sample at {rate} Hz", ""
    compression = phase.compression or spec.compression
    small = compression.factor * compression.mel_factor == 1
    where: tuple[str | int, ...] = (*here, "compression") if phase.compression else (*here, "length")
    if small and given.frames is not None:
        where = (*here, "frontend", "frames") if phase.frontend else ("frontend", "frames")
    if refused := refusal(size, compression):
        if phase.compression is not None:
            yield where, *refused
        elif phase is spec.phases[0]:  # the spec's own, told once
            yield ("compression",), *refused
        return
    try:
        _, tokens = compressed(full_frontend(given, size, 0.0, 1.0), compression, size, strides(spec.model, size))
    except ValueError as error:
        cause = str(error) if small else f"compression by {_factors(compression)}: {error}"
        yield where, cause, "raise frontend.frames or frontend.mels" + ("" if small else ", or lower the factor")
        return
    if size.fixed_mels and tokens.mels != size.frontend.mels:
        message = f"{size.name} is made for {size.frontend.mels} mel bands, not {tokens.mels}"
        if given.mels is not None:
            where = (*here, "frontend", "mels") if phase.frontend else ("frontend", "mels")
        yield where, message, "leave frontend.mels out"
    if size.family == "eat" and tokens.time > 768:
        yield where, f"{tokens.time} time patches; EAT's positions end at 768", "lower frontend.frames"
    masks = phase.masks or spec.masks
    if spec.task == "pretrain" and tokens.count < 2:
        message = f"a grid of {tokens.time} x {tokens.frequency} tokens leaves nothing to mask"
        yield where, message, "raise frontend.frames or lower the compression"
    elif isinstance(spec.objective, Ssast) and masks is not None and masked_count(masks, tokens.count) < 2:
        message = f"{tokens.count} tokens masked by {masks.ratio:g} leave none to tell a masked one from"
        yield where, message, "raise masks.ratio or frontend.frames, or lower the compression"


def _factors(compression: Compression) -> str:
    over_mels = f" (mel axis {compression.mel_factor})" if compression.mel_factor > 1 else ""
    return f"{compression.factor}{over_mels}"


def _model(spec: Spec) -> Iterator[Finding]:
    size, stride = BACKBONES[spec.model.backbone], spec.model.stride
    if stride is not None and any(step > side for step, side in zip(stride, size.patch, strict=True)):
        message = (
            f"a stride of {stride[0]} x {stride[1]} leaves gaps between patches of {size.patch[0]} x {size.patch[1]}"
        )
        yield ("model", "stride"), message, "choose one up to the patch's size"
    if size.family == "eat":
        for path, part in parts(spec):
            if part.enter is not None and part.enter.positions is not None:
                message = f"the positions of {size.name} are computed for any grid, not fitted"
                yield (*path, "enter", "positions"), message, "remove it"
    if stride is not None and size.grid != "patches":
        yield ("model", "stride"), f"the patches of {size.name} do not overlap", "remove it"
    if spec.model.drop_path and size.family == "cnn14":
        yield ("model", "drop_path"), f"{size.name} has no branches to skip", "remove it"
    if spec.train.micro_batch is not None and size.batch_norm and not frozen(spec):
        message = f"{size.name} has batch norm, whose statistics would be those of a micro-batch"
        yield ("train", "micro_batch"), message, "leave it out: losses must not depend on it"
    yield from _head(spec)
    yield from _frontend(spec)


def _head(spec: Spec) -> Iterator[Finding]:
    size, head = BACKBONES[spec.model.backbone], spec.model.head
    match head:
        case ClipHead():
            if head.pool == "cls" and not size.prefix:
                yield ("model", "head", "pool"), f"{size.name} has no token in front to pool by", "use pool: mean"
            if size.pool == "embedding" and head.pool not in (None, "embedding"):
                message = f"{size.name} pools its tokens itself; its last layer would not learn"
                yield ("model", "head", "pool"), message, "use pool: embedding"
            if head.pool == "embedding" and size.pool != "embedding":
                message = f"{size.name} has no clip embedding of its own"
                yield ("model", "head", "pool"), message, f"use pool: {size.pool}"
        case TokenSemanticHead():
            if size.family != "htsat":
                message = f"the token-semantic head is HTS-AT's, not {size.name}'s"
                yield ("model", "head", "kind"), message, "use kind: clip"


def _frontend(spec: Spec) -> Iterator[Finding]:
    size = BACKBONES[spec.model.backbone]
    published = size.frontend
    for path, part in parts(spec):
        given = part.frontend
        if given is None:
            continue
        if given.window is not None and published.spectrum.kind != "kaldi":
            message = f"the front end of {size.name} has a periodic Hann window"
            yield (*path, "frontend", "window"), message, "remove it"
        if given.jitter is not None and published.spectrum.jitter is None:
            message = f"the front end of {size.name} has no jitter"
            yield (*path, "frontend", "jitter"), message, "remove it"
        if given.normalize is not None and given.normalize.measured and published.mean is not None:
            message = f"measured statistics are those of Kaldi's log-mel, and {size.name} has another front end"
            yield (*path, "frontend", "normalize"), message, "remove it, or give {mean, std}"


def _stop(spec: Spec, phase: Phase, here: tuple[str | int, ...]) -> Iterator[Finding]:
    stop, data = phase.stop, spec.data
    if isinstance(stop, Budget):
        if (stop.flops is None) == (stop.time is None):
            yield (
                (*here, "stop"),
                "a budget is of `flops` or of `time`",
                "give one of them: {kind: budget, flops: 1e15}",
            )
        elif stop.time is not None and stop.time.value == 0:
            yield (*here, "stop", "time"), "a budget of `0` leaves no step", "write a time above 0"
    elif stop is not None:
        if spec.task == "pretrain":
            yield (*here, "stop"), f"{stop.kind} needs a metric, and pre-training is not scored", "use kind: budget"
        elif not (data.valid or data.fold is not None or data.folds is not None):
            message = f"{stop.kind} needs a metric on validation clips, and there are none"
            yield (*here, "stop"), message, "name data.valid or data.fold, or use kind: budget"
        elif stop.metric is not None and spec.evaluate.metrics is not None and stop.metric not in spec.evaluate.metrics:
            yield (*here, "stop", "metric"), f"{stop.metric} is not among evaluate.metrics", "add it there"
        elif spec.evaluate.every.value == 0:
            yield (*here, "stop"), f"{stop.kind} needs evaluations, and there are none", "set evaluate.every above 0"
        if isinstance(stop, Surpasses) and stop.value is None and spec.savings is None:
            message = "surpasses needs something to surpass"
            yield (*here, "stop"), message, "give a `value`, or name a run in savings.baseline"


def _savings(spec: Spec) -> Iterator[Finding]:
    savings = spec.savings
    if savings is None:
        return
    if savings.metric is not None and spec.evaluate.metrics is not None and savings.metric not in spec.evaluate.metrics:
        yield ("savings", "metric"), f"{savings.metric} is not among evaluate.metrics", "add it there"
    for key, length in (("baseline_best", savings.baseline_best), ("reached", savings.reached)):
        if length is not None and length.unit == "%":
            yield ("savings", key), *NO_SHARE
    if (savings.baseline_best is None) != (savings.reached is None):
        missing = "reached" if savings.reached is None else "baseline_best"
        yield ("savings",), f"baseline_best and reached belong together; {missing} is not given", ""
    data = spec.data
    if savings.at == "first_beat" and spec.task == "pretrain":
        message = "first_beat needs a metric, and pre-training is not scored"
        yield ("savings", "at"), message, "use at: end"
    elif savings.at == "first_beat" and not (data.valid or data.fold is not None or data.folds is not None):
        message = "first_beat needs a metric on validation clips, and there are none"
        yield ("savings", "at"), message, "name data.valid or data.fold, or use at: end"


def _average(spec: Spec) -> Iterator[Finding]:
    named: list[tuple[tuple[str | int, ...], Average]] = []
    if spec.train.average is not None:
        named.append((("train", "average"), spec.train.average))
    for place, phase in enumerate(spec.phases):
        if phase.average is not None and phase.average != spec.train.average:
            named.append((("phases", place, "average"), phase.average))
    for path, average in named:
        for key, length in (("start", average.start), ("every", average.every)):
            if length.unit == "%":
                yield (*path, key), *NO_SHARE
            elif length.value == 0:
                yield (*path, key), "an average has no moment `0`", "write steps, epochs or clips above 0"
