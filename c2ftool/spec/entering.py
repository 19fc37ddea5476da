"""`enter`: what happens to the weights when a phase is entered. Built by c2ftool/models/layout.py and the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from c2ftool.spec.base import Section


class Enter(Section):
    """How the weights that come in are fitted to the phase's token grid, and what else is kept.

    Of a first phase it says how `model.weights` are fitted.
    """

    positions: Literal["bilinear", "bicubic", "cut", "first", "none"] | None = Field(
        None,
        description="Learned positions of another grid: interpolated, `cut` from the middle or the `first` ones where "
        "the new grid is smaller (else bilinear), or `none`: they start afresh. Not given: bilinear between phases, "
        "and for starting weights as the backbone's published code does.",
    )
    patch_kernel: Literal["pi", "bilinear"] | None = Field(
        None, description="Patch kernels of another size; the rule of the patch compression, or `pi`, if not given."
    )
    antialias: bool | None = Field(
        None,
        description="Low-pass where a grid or a patch shrinks. Not given: yes for positions and bilinear kernels, no "
        "for pi, as the authors' code has it: from 4 to 1 pi then uses half of a patch's columns.",
    )
    carry: list[Literal["optimizer"]] = Field(
        [],
        description="Kept from the phase before: `optimizer`, its moments, those of resized tensors moved by the law "
        "of gradients. What is not named starts afresh (the paper: everything).",
    )
