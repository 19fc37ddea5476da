"""What adapters and freezing ask of the rest of a spec. Part of check.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from c2ftool.spec.adapters import LookAside, Lora, Parallel, decided
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.check_objective import Finding, parts
from c2ftool.spec.layout import compressed, full_frontend, strides
from c2ftool.spec.root import Spec

_POST_NORM = ("eat", "beats")  # what their branches are given is the residual stream itself


def frozen(spec: Spec) -> bool:
    """Whether the body is frozen: where the spec says so, or has adapters and does not say."""
    return spec.model.freeze == "body" or (spec.model.freeze is None and bool(spec.adapters))


def adapters(spec: Spec) -> Iterator[Finding]:
    """What is wrong with the adapters, and with what is unfrozen."""
    size, wanted = BACKBONES[spec.model.backbone], spec.model.unfreeze
    if wanted is not None:
        if not frozen(spec):
            yield ("model", "unfreeze"), "nothing is frozen", "set model.freeze: body"
        if wanted.last > len(size.block_widths):
            message = f"{size.name} has {len(size.block_widths)} blocks, not {wanted.last}"
            yield ("model", "unfreeze", "last"), message, ""
    for path, part in parts(spec) if frozen(spec) else ():
        if part.enter is not None and part.enter.positions == "none":
            message = "positions that begin afresh would stay random in a frozen body"
            yield (*path, "enter", "positions"), message, "remove it, or set model.freeze: none"
    if not spec.adapters:
        return
    if spec.task == "pretrain":
        yield ("adapters",), "pre-training trains the body", "remove the section; adapters are for finetune and distill"
        return
    if not size.block_widths:
        yield ("adapters",), f"{size.name} is a convolutional network: no blocks for adapters to stand in", "remove it"
        return
    names = Counter(item.name or f"a{place}" for place, item in enumerate(spec.adapters))
    for place, item in enumerate(spec.adapters):
        here = ("adapters", place)
        name = item.name or f"a{place}"
        if names[name] > 1:
            yield (*here, "name"), f'{names[name]} adapters are called "{name}"', "names are unique"
        last = len(size.block_widths) - 1
        if item.blocks != "all" and max(item.blocks) > last:
            yield (*here, "blocks"), f"{size.name} has blocks 0 to {last}, not {max(item.blocks)}", ""
        elif not isinstance(item, Lora):
            yield from _beside(spec, item, here)


def _rows(spec: Spec) -> set[int]:
    """Tokens over frequency in the phases; those whose grid cannot be are told elsewhere."""
    size, found = BACKBONES[spec.model.backbone], set()
    for phase in spec.phases:
        full = full_frontend(phase.frontend or spec.frontend, size, 0.0, 1.0)
        try:
            tokens = compressed(full, phase.compression or spec.compression, size, strides(spec.model, size))[1]
        except ValueError:
            continue
        found.add(tokens.frequency)
    return found


def _beside(spec: Spec, item: Parallel | LookAside, here: tuple[str | int, ...]) -> Iterator[Finding]:
    size = BACKBONES[spec.model.backbone]
    if (item.rank is None) == (item.parameters is None):
        yield here, "an adapter's size is its `rank` or its `parameters`", "give one of them: rank: 36"
        return
    if item.input == "residual" and size.family in _POST_NORM:
        message = f"the blocks of {size.name} normalise after the residual: there is no other input"
        yield (*here, "input"), message, "remove it"
    if isinstance(item, LookAside) and item.axis == "frequency" and 1 in _rows(spec):
        message = f"{size.name} has one token over frequency here: an adapter along it would see no neighbour"
        yield (*here, "axis"), message, "use axis: time, or kind: parallel"
    try:
        decided([item], size.block_widths)
    except ValueError as error:
        yield (*here, "parameters"), str(error), "raise it, or give a rank"
