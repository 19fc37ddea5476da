"""ImageNet weights that an AST can start from, from timm's own record of them: `model.weights: timm:NAME`."""

from __future__ import annotations

import difflib

from c2ftool.errors import MissingError
from c2ftool.models.public.records import PublicWeights, Source


def timm_weights(name: str) -> PublicWeights:
    """The checkpoint of a distilled DeiT by timm's name, with or without its tag (`.fb_in1k`).

    Raises MissingError, naming those there are, for any other name.
    """
    import timm

    known = timm.list_pretrained("deit_*_distilled_patch16_*")
    full = next((entry for entry in known if name in (entry, entry.partition(".")[0])), None)
    if full is None:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"Did you mean timm:{near[0]}? " if near else ""
        other = "is no distilled DeiT, which AST starts from" if timm.is_model(name.partition(".")[0]) else "is unknown"
        raise MissingError(f"timm:{name} {other}", cure=f"{meant}Known: {', '.join(known)}.")
    config = timm.get_pretrained_cfg(full)
    if config is None or not config.hf_hub_id:
        raise MissingError(
            f"timm:{full}: this version of timm does not say where it is",
            cure="Download it yourself and name it as model.weights=file:PATH.",
        )
    page = f"https://huggingface.co/{config.hf_hub_id}"
    return PublicWeights(
        name=full,
        family="deit",
        backbone=f"ast_{full.split('_')[1]}",
        task="ImageNet-1k",
        about=f"distilled DeiT, {config.input_size[-1]} px",
        sources=(Source(f"{page}/resolve/main/model.safetensors", f"{full}.safetensors", page),),
        licence=f"{config.license or 'not stated'} (timm's record)",
        frontend=None,
    )
