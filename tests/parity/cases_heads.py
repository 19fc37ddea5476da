"""Parity cases of the heads of sound event detection: a teacher's, with its recurrent network, on a given sequence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases_sed import UNUSED, whole
from inputs import Case, Outputs, features, load_strictly, loaded
from torch import Tensor

from c2ftool.models.build import build_backbone
from c2ftool.models.frames import FrameHead, align
from c2ftool.models.public import atst
from c2ftool.spec.model import Model

ENCODER = "atst_micro"  # stands in the file beside the heads, which are all that the case has


@torch.no_grad()
def teachers_head(case: Case) -> Outputs:
    """Alignment, the recurrent network, and both linear heads."""
    config = case["config"]
    start = loaded(file := teachers_file(case), [name for name, _ in file["tensors"] if name.endswith(UNUSED)])
    if (start.family, start.backbone_name) != ("atst", ENCODER):
        raise AssertionError(f"the loader took the encoder for {start.backbone_name}")
    heads = FrameHead(
        config["embed_dim"],
        config["n_classes_strong"],
        config["seq_len"],
        recurrent=(config["layers"], config["rnn_dim"]),
        weak_classes=config["n_classes_weak"],
    ).eval()
    load_strictly(heads, start.head)
    kept: dict[str, Tensor] = {}
    heads.get_submodule("rnn").register_forward_hook(lambda _m, _x, out: kept.update(sequence_model=out))
    sequence = features(case["input"])
    strong, weak = heads(sequence)
    return kept | {"aligned_sequence": align(sequence, config["seq_len"]), "logits": strong, "weak_logits": weak}


def teachers_file(case: Case) -> Case:
    """The case with the names and shapes of a teacher's whole file: a small encoder, then the heads."""
    encoder = build_backbone(Model(backbone=ENCODER), whole(ENCODER)[1])
    public = atst.to_public({name: tensor.detach() for name, tensor in encoder.named_parameters()})
    return case | {"tensors": [*([name, list(tensor.shape)] for name, tensor in public.items()), *case["tensors"]]}


RUN: dict[str, Callable[[Case], Outputs]] = {"bigru_head": teachers_head}
