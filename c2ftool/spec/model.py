"""`model`: which backbone, which weights, which head. Built by c2ftool/models."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import Field, field_validator

from c2ftool.spec.adapters import Unfreeze
from c2ftool.spec.backbones import BACKBONES, Pooling
from c2ftool.spec.base import Section

Step = Annotated[int, Field(ge=1, le=1024)]


class ClipHead(Section):
    """One score per class and clip: pooled tokens, LayerNorm, linear."""

    kind: Literal["clip"]
    pool: Pooling | None = Field(
        None,
        description="`cls`: the tokens in front (AST: the mean of its two); `mean` over the grid's tokens; "
        "`linear_softmax` pooling of the tokens' scores; `embedding`: CNN14's own. The backbone's usual one if not "
        "given.",
    )
    norm: bool | None = Field(
        None, description="Whether a LayerNorm stands before the linear layer; as published if not given."
    )


class TokenSemanticHead(Section):
    """HTS-AT's: a convolution over the last stage's tokens gives scores over time; a clip's is their mean."""

    kind: Literal["token_semantic"]


class Recurrent(Section):
    """A bidirectional GRU over the frames, before the linear layer: the teachers of Schmid et al. (ICASSP 2025)."""

    layers: int = Field(2, ge=1, le=8, description="Layers of the network.")
    width: int = Field(2048, ge=1, description="Hidden units of each direction.")


class FrameHead(Section):
    """Scores of each class and label frame: tokens in time order, aligned to the frames, and a linear layer."""

    kind: Literal["frame"]
    recurrent: Recurrent | None = Field(None, description="A recurrent network over the frames; none if not given.")
    weak: Literal["mean", "attention"] = Field(
        "mean",
        description="A clip's score, for weak labels: a linear layer on the `mean` over frames, or the frames' "
        "probabilities weighted by an `attention` over classes (DESED).",
    )
    sequence: Literal["published", "time"] = Field(
        "published",
        description="`published`: the tokens as published frame heads were trained on them: of M2D frequencies side by "
        "side, of BEATs and ASiT one after the other, between times. `time`: averaged over frequency. The other "
        "backbones have one sequence.",
    )


Head = Annotated[ClipHead | TokenSemanticHead | FrameHead, Field(discriminator="kind")]


class Model(Section):
    """The network."""

    backbone: str = Field(description="A name of `c2f specs ls --backbones`.")
    weights: str | None = Field(
        None,
        description="Start from: `run:NAME[@best|last|average|PHASE]`, `file:PATH`, `public:NAME`, or `timm:NAME` for "
        "ImageNet weights of timm; random if not given. In a study over `backbones`, `{backbone}` stands for its name.",
    )
    stride: Annotated[list[Step], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Step from patch to patch, [frames, mel bands]; the patch's size (no overlap) if not given."
    )
    head: Head | None = Field(None, description="Needed by supervised objectives.")
    drop_path: float = Field(0.0, ge=0, lt=1, description="Stochastic depth of the last block; rises linearly from 0.")
    freeze: Literal["none", "body"] | None = Field(
        None,
        description="`body`: only the head and adapters learn; without adapters a linear probe. If not given, `body` "
        "where there are adapters.",
    )
    unfreeze: Unfreeze | None = Field(None, description="Parts of a frozen body that learn all the same.")

    @field_validator("backbone")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BACKBONES:
            near = difflib.get_close_matches(value, BACKBONES, n=1)
            meant = f'did you mean "{near[0]}"?  ' if near else ""
            raise ValueError(f"unknown backbone {value!r}; {meant}(known: {', '.join(BACKBONES)})")
        return value

    @field_validator("weights")
    @classmethod
    def _form(cls, value: str | None) -> str | None:
        if value is not None and (
            value.partition(":")[0] not in ("run", "file", "public", "timm") or not value.partition(":")[2]
        ):
            raise ValueError(
                f"{value!r} names no weights; "
                "write run:NAME[@best|last|average|PHASE], file:PATH, public:NAME or timm:NAME"
            )
        return value
