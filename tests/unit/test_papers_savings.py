"""Every row of Tables 2 and 4 of the coarse-to-fine paper comes out of `c2f flops` on its spec."""

import json
import re
import shlex
from functools import lru_cache
from pathlib import Path

import pytest

from c2ftool.engine import cost, plan
from c2ftool.engine.train import Options
from c2ftool.spec.load import load_spec

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "specs" / "papers" / "coarse_to_fine"
PUBLISHED = json.loads((ROOT / "tests/fixtures/parity/coarse_to_fine_savings.json").read_text())["rows"]
METHODS = {"Fshift": "fshift", "Avg Pool": "avg_pool", "Max Pool": "max_pool", "Patch BL": "patch_bl",
           "Patch PI": "patch_pi", "SSAST Fshift": "fshift", "HTS-AT Fshift": "fshift"}  # fmt: skip
DATASETS = {"voxceleb1": "voxceleb", "ssast": "audioset+librispeech"}
ROW = re.compile(r"^row (\D+?) ([\d-]+)\s+(\d+\.\d+)\s+(\d+\.\d+)\s+(.+)", re.MULTILINE)


def rows() -> list[tuple[str, str, str, float, float, list[str]]]:
    """(spec, method, factors, FLOPs saved, time saved, arguments) of every row that a spec's head names."""
    out = []
    for path in sorted(SPECS.glob("*.yaml")):
        head = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
        joined = re.sub(r"\n(?=phases\.)", " ", "\n".join(head))
        for method, factors, flops, time, arguments in ROW.findall(joined):
            out.append((path.stem, METHODS[method], factors, float(flops), float(time), shlex.split(arguments)))
    return out


ALL = rows()
HTSAT = [row for row in ALL if row[0].startswith("htsat")]
ROWS = [row for row in ALL if row not in HTSAT]


@pytest.fixture(autouse=True)
def count_once(monkeypatch):
    """Specs repeat phases: a count of one layout is kept."""
    plain = cost._clip
    monkeypatch.setattr(cost, "_clip", lambda resolved, phase: counted(plain, resolved, phase))


KEPT: dict = {}


def counted(count, resolved, phase):
    key = (resolved.model.backbone, resolved.objective.kind, str(phase.tokens), len(resolved.classes))
    if key not in KEPT:
        KEPT[key] = count(resolved, phase)
    return KEPT[key]


@lru_cache
def flat(published: str) -> dict:
    return {
        (r["dataset"], r["method"], "-".join(map(str, r["factors"]))): r for r in PUBLISHED if r["table"] in (2, 4, 6)
    }


def test_every_published_row_has_its_spec():
    named = {(DATASETS.get(spec, spec).removesuffix("_3phases"), method, factors) for spec, method, factors, *_ in ROWS}
    named = {(DATASETS.get(spec, spec), method, factors) for spec, method, factors in named}
    assert named == set(flat(""))
    assert len(ROWS) == len(PUBLISHED) == 56


@pytest.mark.parametrize("row", ROWS, ids=[f"{r[0]} {r[1]} {r[2]}" for r in ROWS])
def test_the_saving_is_the_published_one(row, tmp_path):
    spec, method, factors, flops, time, arguments = row
    dataset = DATASETS.get(spec.removesuffix("_3phases"), spec.removesuffix("_3phases"))
    published = flat("")[dataset, method, factors]
    assert (flops, time) == (published["published_flops_saving"], published["published_time_saving"])
    loaded = load_spec(f"papers/coarse_to_fine/{spec}", arguments)
    options = Options(data_root=tmp_path, runs_root=tmp_path)
    planned = plan.cost_plan(loaded, options)
    factors_found = "-".join(str(phase.compression.factor) for phase in planned.resolved.phases)
    assert factors_found == factors
    _, saved = plan.planned_savings(loaded, planned, None, options)
    value = saved.end if spec == "ssast" else saved.first_beat
    assert 100 * value == pytest.approx(flops, abs=0.02)


@pytest.mark.parametrize("row", HTSAT, ids=[row[0] for row in HTSAT])
def test_htsat_saves_about_what_is_published(row, tmp_path):
    """No whole number of epochs gives the published figure."""
    spec, _, factors, flops, _, arguments = row
    loaded = load_spec(f"papers/coarse_to_fine/{spec}", arguments)
    options = Options(data_root=tmp_path, runs_root=tmp_path)
    planned = plan.cost_plan(loaded, options)
    assert "-".join(str(phase.compression.factor) for phase in planned.resolved.phases) == factors
    _, saved = plan.planned_savings(loaded, planned, None, options)
    assert 100 * saved.end == pytest.approx(flops, abs=0.15)
