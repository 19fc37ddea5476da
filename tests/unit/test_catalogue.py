"""What is said of each backbone, in `c2f specs ls --backbones` and in docs/backbones.md, is what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from c2ftool.cli.listings import backbones
from c2ftool.engine.catalogue import Entry, catalogue
from c2ftool.engine.cost import memory
from c2ftool.objectives.build import build_objective
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.load import load_file
from c2ftool.spec.resolve import DataFacts, resolve

FINETUNE = Path(__file__).parents[1] / "specs" / "finetune.yaml"
PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"


@pytest.fixture(scope="module")
def entries() -> dict[str, Entry]:
    return {entry.size.name: entry for entry in catalogue()}


# Million parameters and forward GFLOPs of 10 s as counted on the public code (ASiT: and the positions that its table is
# resized to); None where that left out a part.
@pytest.mark.parametrize(
    ("name", "parameters", "flops"),
    [
        ("atst_base", 85.4, 44.9), ("beats_base", 90.3, 98.6), ("fpasst_base", 88.4, None), ("m2d_base", 85.5, None),
        ("asit_base", 85.48 + 0.154, 93.7), ("htsat_base", None, 11.8), ("ast_base", None, 97.3),
    ],
)  # fmt: skip
def test_sizes_and_costs_are_those_of_the_public_code(
    entries: dict[str, Entry], name: str, parameters: float | None, flops: float | None
) -> None:
    entry = entries[name]
    if parameters is not None:
        assert entry.parameters / 1e6 == pytest.approx(parameters, abs=0.1)
    if flops is not None:
        assert entry.flops / 1e9 == pytest.approx(flops, abs=0.15)


def test_every_size_is_listed_with_what_can_be_done_with_it(entries: dict[str, Entry]) -> None:
    assert list(entries) == list(BACKBONES)
    assert entries["ssast_frame_base"].uses == ["pretrain", "finetune"] and entries["cnn14"].uses == ["finetune"]
    assert entries["atst_base"].rate == pytest.approx(25, abs=0.1)
    assert "AudioSet Strong" in entries["beats_base"].weights and not entries["beats_micro"].weights


def test_the_listing_has_the_paper_where_there_is_room() -> None:
    rows = {row["backbone"]: row for row in backbones(full=True)}
    assert "ICML 2023" in rows["beats_base"]["paper"] and rows["htsat_base"]["front end"].endswith("32 kHz")
    assert all(row["FLOPs of 10 s"].endswith(" G") for row in rows.values())


def test_the_page_says_which_compression_each_family_takes() -> None:
    table = PAGE.read_text().split("## Compression")[1].split("##")[0]
    said = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \| (\w+) \|", table, re.MULTILINE)}
    families = {size.family: size for size in BACKBONES.values()}
    assert said.keys() == families.keys()
    for family, size in families.items():
        assert said[family] == tuple(
            "yes" if method in size.compressions else "no" for method in ("fshift", "pool", "patch")
        )
    free = re.search(r"`mel_factor`: for (.+?)\. ", table)
    assert free and set(re.findall(r"`(\w+)`", free[1])) == {f for f, s in families.items() if not s.fixed_mels}


@pytest.mark.parametrize("name", ["eat_tiny", *(n for n in BACKBONES if n.endswith("_micro"))])
def test_the_memory_of_every_backbone_can_be_planned(name: str) -> None:
    size = BACKBONES[name]
    facts = DataFacts(
        name="x", classes=["a", "b"], sample_rate=size.frontend.sample_rate, multi_label=False, mean=0.0, std=1.0,
        fingerprint="f", clips_train=8, clips_valid=0, clips_test=0,
    )  # fmt: skip
    overrides = ["model=null", f"model={{backbone: {name}, head: {{kind: clip}}}}", "frontend={frames: 129}",
                 "data.valid=[]", "data.test=[]", "evaluate={}"]  # fmt: skip
    run = resolve(load_file(FINETUNE, overrides).spec, facts)
    planned = memory(run, run.phases[-1])
    weights = sum(t.numel() for t in build_objective(run).student.parameters()) * 4
    assert planned.total > 4 * weights  # weights, gradients and two moments, and what the blocks keep
