"""Scoring weights at another compression than they were trained at: `c2f evaluate RUN compression.factor=2`."""

from __future__ import annotations

import json

from pydantic import TypeAdapter, ValidationError

from c2ftool.engine.boundary import rescoring_rules
from c2ftool.errors import UsageError
from c2ftool.models.layout import Rules
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.check_objective import out_of_time
from c2ftool.spec.compression import Compression
from c2ftool.spec.layout import compressed, strides
from c2ftool.spec.model import Model
from c2ftool.spec.overrides import apply
from c2ftool.spec.read import Fault, fail, plain, read_text
from c2ftool.spec.resolved import ResolvedFrontend, ResolvedPhase, Tokens


def is_compression(argument: str) -> bool:
    """Whether a KEY=VALUE argument is about compression."""
    return argument.partition("=")[0].strip().partition(".")[0] == "compression"


def recompressed(model: Model, phase: ResolvedPhase, arguments: list[str]) -> tuple[ResolvedFrontend, Tokens, Rules]:
    """Front end and tokens of a phase with another compression, and how its weights are fitted to them.

    Raises SpecError or UsageError for what is no compression, or leaves no token.
    """
    faults: list[Fault] = []
    root = read_text(json.dumps({"compression": phase.compression.model_dump(mode="json")}), "compression")
    changed = apply(root, arguments, faults)
    if faults:
        raise fail(faults)
    size = BACKBONES[model.backbone]
    cure = 'For example: compression="{method: fshift, factor: 2}", or compression.method=none'
    try:
        compression = TypeAdapter[Compression](Compression).validate_json(json.dumps(plain(changed)["compression"]))
        front, tokens = compressed(phase.full_frontend, compression, size, strides(model, size))
        if out_of_time(model) and compression.factor > 1:
            raise ValueError(f"the published order of {size.name}'s tokens is not one in time")
        return front, tokens, rescoring_rules(phase, compression)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(["compression", *map(str, first["loc"][1:])])
        raise UsageError(f"{where}: {first['msg']}", cure=cure) from None
    except ValueError as error:
        raise UsageError(f"this compression cannot be scored: {error}", cure=cure) from None
