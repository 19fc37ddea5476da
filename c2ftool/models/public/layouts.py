"""The published layouts that are read, in the order in which a file is asked whether it is one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from c2ftool.models.public import asit, ast, atst, beats, cnn14, deit, eat, fpasst, htsat, m2d, ssast
from c2ftool.models.public.account import Adapted

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How the files of a family are known by their names, and read."""

    family: str
    about: str
    recognises: Callable[[Tensors], bool]
    read: Callable[[Tensors], Adapted]


LAYOUTS = (
    Layout("eat", "EAT", eat.is_eat, eat.to_native),
    Layout("ssast", "SSAST", ssast.is_ssast, ssast.to_native),
    Layout("ast", "AST", ast.is_ast, ast.to_native),
    Layout("htsat", "HTS-AT", htsat.is_htsat, htsat.to_native),
    Layout("htsat", "Swin (ImageNet)", htsat.is_swin, htsat.to_native),
    Layout("cnn14", "CNN14", cnn14.is_cnn14, cnn14.to_native),
    Layout("beats", "BEATs", beats.is_beats, beats.to_native),
    Layout("atst", "ATST-Frame", atst.is_atst, atst.to_native),
    Layout("fpasst", "fPaSST", fpasst.is_fpasst, fpasst.to_native),
    Layout("m2d", "M2D", m2d.is_m2d, m2d.to_native),
    Layout("asit", "ASiT", asit.is_asit, asit.to_native),
    Layout("deit", "timm's distilled DeiT", deit.is_deit, deit.to_native),
)


def layout_of(tensors: Tensors) -> Layout | None:
    """The layout that a file's names tell of; None if it is none of those known."""
    return next((layout for layout in LAYOUTS if layout.recognises(tensors)), None)
