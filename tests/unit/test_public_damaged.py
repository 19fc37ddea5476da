"""A damaged, cut-off, incomplete or foreign file of any family ends in one clear message with exit code 3."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from c2ftool.errors import DataError
from c2ftool.models.build import build_backbone
from c2ftool.models.initialise import initialise
from c2ftool.models.public.writing import Parts, published
from c2ftool.models.weights import load_into, starting_weights
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import Model

FAMILIES = ["beats", "atst", "fpasst", "m2d", "asit"]  # with a layout that needs no head
SHORT = {"beats": (64, 128), "atst": (64, 64), "fpasst": (64, 128), "m2d": (64, 80), "asit": (64, 128)}


def file_of(family: str, path: Path) -> dict[str, torch.Tensor]:
    size = BACKBONES[f"{family}_micro"]
    backbone = build_backbone(Model(backbone=size.name), tokens_of(*SHORT[family], size.patch, grid=size.grid))
    initialise(backbone, 1)
    content = published(family, Parts(dict(backbone.state_dict()))).content
    torch.save(content, path)
    return content


def refused(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        starting_weights(path)
    assert caught.value.exit_code == 3
    for word in (*words, str(path)):
        assert word in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_that_is_cut_off_is_refused(family: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    file_of(family, path)
    whole = path.read_bytes()
    for share in (0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path, "cannot be used as weights")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_that_lacks_a_tensor_names_it(family: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    content = file_of(family, path)
    lost = next(name for name in content if name.endswith("fc2.weight"))
    torch.save({name: t for name, t in content.items() if name != lost}, path)
    refused(path, "the checkpoint is incomplete", "missing")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_of_another_family_does_not_fit(family: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    file_of(family, path)
    start = starting_weights(path)
    assert start.family == family  # no layout takes another's file for its own
    other = build_backbone(Model(backbone="eat_tiny"), tokens_of(96, 128, (16, 16)))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(DataError, match="do not fit the model") as caught:
        load_into(other, start.backbone, where=str(path))
    assert caught.value.exit_code == 3
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


def test_a_file_of_no_known_kind_names_those_known(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"layer.weight": torch.zeros(3, 3), "layer.bias": torch.zeros(3)}, path)
    refused(path, "weights of an unknown kind: 2 tensors, such as layer.weight", "BEATs", "HTS-AT", "SSAST")
