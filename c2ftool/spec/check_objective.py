"""What each objective asks of the rest of a spec. Part of check.py."""

from __future__ import annotations

from collections.abc import Iterator

from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.masks import Cluster, InverseBlock, Random
from c2ftool.spec.model import FrameHead, Model
from c2ftool.spec.objective import Classify, Detect, Eat, Ssast
from c2ftool.spec.root import Phase, Spec
from c2ftool.spec.teachers import EmaTeacher, EnsembleTeacher

Finding = tuple[tuple[str | int, ...], str, str]  # path, message, hint
NO_SHARE = ("a share has no meaning here", "write steps, epochs or clips")


def objective(spec: Spec) -> Iterator[Finding]:
    """What is wrong with the spec for its objective."""
    match spec.objective:
        case Eat():
            yield from _eat(spec, spec.objective)
        case Ssast():
            yield from _ssast(spec)
        case Classify():
            yield from _classify(spec, spec.objective)
        case Detect():
            yield from _detect(spec)


def _eat(spec: Spec, eat: Eat) -> Iterator[Finding]:
    size = BACKBONES[spec.model.backbone]
    yield from _pretraining(spec, "eat", "eat", "masks: {kind: inverse_block}")
    for path, part in parts(spec):
        if part.masks is not None and not isinstance(part.masks, InverseBlock):
            yield (*path, "masks"), f"objective eat has masks of kind inverse_block, not {part.masks.kind}", ""
    if not spec.teachers and any(not phase.teachers for phase in spec.phases):
        hint = "teachers: [{kind: ema, decay: 0.9998, final_decay: 0.99999}]"
        yield ("objective",), "objective eat needs an EMA teacher", hint
    groups, kernel = eat.decoder.groups, eat.decoder.kernel
    if size.width % groups:
        hint = f"choose one of {', '.join(str(n) for n in range(1, size.width + 1) if size.width % n == 0)}"
        message = f"{groups} decoder groups do not divide the width {size.width} of {size.name}"
        yield ("objective", "decoder", "groups"), message, hint
    if kernel % 2 == 0:
        yield ("objective", "decoder", "kernel"), f"the decoder's kernel is odd, not {kernel}", ""
    if eat.collapse.after.unit == "%":
        yield ("objective", "collapse", "after"), *NO_SHARE
    for path, part in parts(spec):
        for place, teacher in enumerate(part.teachers or []):
            if isinstance(teacher, EnsembleTeacher):
                yield (*path, "teachers"), "objective eat learns from an EMA teacher", "write kind: ema"
                continue
            for layer in teacher.layers if isinstance(teacher.layers, list) else []:
                if not 0 <= layer < size.depth:
                    message = f"{size.name} has blocks 0 to {size.depth - 1}, not {layer}"
                    yield (*path, "teachers", place, "layers"), message, ""


def _ssast(spec: Spec) -> Iterator[Finding]:
    yield from _pretraining(spec, "ssast", "ssast", "masks: {kind: cluster}")
    size = BACKBONES[spec.model.backbone]
    if spec.model.stride is not None and tuple(spec.model.stride) != size.patch:
        message = "patches that are to be predicted do not overlap"
        yield ("model", "stride"), message, "remove it; fine-tuning may have another stride"
    for path, part in parts(spec):
        if part.teachers:
            yield (*path, "teachers"), "objective ssast has no teachers", "remove the section"
        if part.masks is not None and not isinstance(part.masks, Cluster | Random):
            message = f"objective ssast has masks of kind cluster or random, not {part.masks.kind}"
            yield (*path, "masks"), message, ""
        if isinstance(part.masks, Cluster) and part.masks.size[0] > part.masks.size[1]:
            yield (*path, "masks", "size"), "the least side of a block is above the largest", ""


def _pretraining(spec: Spec, name: str, family: str, masks: str) -> Iterator[Finding]:
    """What holds of every objective that pre-trains: it has masks, and neither head nor labels."""
    size = BACKBONES[spec.model.backbone]
    if spec.task != "pretrain":
        yield ("task",), f"objective {name} belongs to task pretrain, not {spec.task}", ""
    if spec.masks is None and any(phase.masks is None for phase in spec.phases):
        yield ("objective",), f"objective {name} needs `masks`", masks
    if spec.model.head is not None:
        yield ("model", "head"), "pre-training has no head", "remove model.head"
    if spec.data.labels == "frame":
        yield ("data", "labels"), "pre-training learns no labels", "remove data.labels"
    if spec.model.freeze == "body":
        yield ("model", "freeze"), "pre-training trains the body", "remove model.freeze"
    if size.family != family:
        message = f"objective {name} pre-trains {family.upper()}, not {size.name}"
        yield ("model", "backbone"), message, f"choose one of the {family}_ backbones"
    for path, part in parts(spec):
        for key in ("waveform_mixup", "mixup"):
            if part.augment is not None and getattr(part.augment, key) is not None:
                yield (*path, "augment", key), f"{key} needs labels, and pre-training has none", "remove it"


def _classify(spec: Spec, classify: Classify) -> Iterator[Finding]:
    yield from _supervised(spec, "classify")
    if spec.model.head is None:
        yield ("model",), "objective classify needs a head", "head: {kind: clip}"
    elif isinstance(spec.model.head, FrameHead):
        yield ("model", "head", "kind"), "a frame head is for objective detect", "use kind: clip"
    if spec.data.labels == "frame":
        yield ("data", "labels"), "objective classify learns labels of clips, not of frames", "use objective detect"
    if classify.label_smoothing and classify.loss == "bce":
        message = "label_smoothing is part of the loss ce; it has no effect on bce"
        yield ("objective", "label_smoothing"), message, "remove it, or use loss: ce"
    if classify.loss == "ce" and classify.reduction == "labels":
        yield ("objective", "reduction"), "reduction labels is part of the loss bce", "use clips"
    elif spec.task == "distill" and classify.reduction == "labels":
        yield ("objective", "reduction"), "an ensemble has no labels to divide by", "use clips"
    if spec.task == "distill" and classify.loss == "ce":
        yield ("objective", "loss"), "an ensemble's logits are those of independent classes", "use loss: bce"


def _detect(spec: Spec) -> Iterator[Finding]:
    yield from _supervised(spec, "detect")
    size, head = BACKBONES[spec.model.backbone], spec.model.head
    if not isinstance(head, FrameHead):
        where: tuple[str, ...] = ("model",) if head is None else ("model", "head", "kind")
        yield where, "objective detect needs a head that scores frames", "head: {kind: frame}"
    elif out_of_time(spec.model):
        for path, part in parts(spec):
            if part.compression is not None and part.compression.factor > 1:
                message = f"the published order of {size.name}'s tokens is not one in time, and cannot be compressed"
                yield (*path, "compression"), message, "set model.head.sequence: time"
    if spec.data.labels != "frame":
        yield ("data", "labels"), "objective detect learns labels of frames", "set data.labels: frame"


def out_of_time(model: Model) -> bool:
    """Whether a head that scores frames is given tokens in an order that is not one in time."""
    published = isinstance(model.head, FrameHead) and model.head.sequence == "published"
    return published and BACKBONES[model.backbone].family in ("beats", "asit")


def _supervised(spec: Spec, name: str) -> Iterator[Finding]:
    """What holds of every objective that learns labels: no masks, and teachers only where they are distilled."""
    if spec.task == "pretrain":
        yield ("task",), f"objective {name} belongs to task finetune or distill, not pretrain", ""
    found = [(path, teacher) for path, part in parts(spec) for teacher in part.teachers or []]
    for path, part in parts(spec):
        if part.masks:
            yield (*path, "masks"), f"objective {name} has no masks", "remove the section"
    for path, teacher in found:
        if isinstance(teacher, EmaTeacher):
            yield (*path, "teachers"), f"objective {name} has no teacher of kind ema", "use kind: ensemble"
        elif spec.task == "finetune":
            yield (*path, "teachers"), "learning from an ensemble is task distill", "write task: distill"
        elif bool(teacher.members) == (teacher.logits is not None):
            message = "an ensemble is of `members` or of stored `logits`"
            yield (*path, "teachers", 0), message, 'give one of them: members: ["run:teacher-*"]'
    for path, teacher in found:
        for member in teacher.members if isinstance(teacher, EnsembleTeacher) else []:
            if not member.startswith("run:") or member == "run:":
                yield (*path, "teachers", 0, "members"), f"{member!r} names no run", "write run:NAME"
    if spec.task == "distill" and not found:
        hint = 'teachers: [{kind: ensemble, members: ["run:teacher-*"]}]'
        yield ("task",), "task distill needs an ensemble of teachers", hint
    sources = {(*t.members, t.logits, t.missing) for _, t in found if isinstance(t, EnsembleTeacher)}
    if len(sources) > 1:
        yield ("teachers",), "phases learn from different ensembles", "use one; phases may differ in its weight"


def parts(spec: Spec) -> Iterator[tuple[tuple[str | int, ...], Spec | Phase]]:
    """The spec and its phases with their paths: what holds of a section holds where a phase repeats it."""
    yield (), spec
    for place, phase in enumerate(spec.phases):
        yield ("phases", place), phase
