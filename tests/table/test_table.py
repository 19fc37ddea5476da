"""One table of tiny settings: each trains, resumes to the bit after a stop in its second phase, saves and loads again.

Task x backbone x compression x masks x stop rules and averaging, on generated sounds, in this process.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from table.settings import AST, BODY, CARRY, LOGITS, SSAST, TABLE, Row, patch

from c2ftool.data.logits_writer import LogitsWriter
from c2ftool.data.store import PreparedSet
from c2ftool.engine.cost import PhaseCost, phase_costs
from c2ftool.engine.loop import Loop
from c2ftool.engine.metrics_log import read_metrics
from c2ftool.engine.rescore import rescore_all
from c2ftool.engine.result import Outcome
from c2ftool.engine.signals import PREEMPTED, StopFlag
from c2ftool.engine.train import Options, prepare, train
from c2ftool.errors import Preempted
from c2ftool.models.weights import load_into, read_weights, save_weights
from c2ftool.models.weights import whole as whole_state
from c2ftool.objectives.build import build_objective
from c2ftool.spec.load import load_file
from c2ftool.spec.resolve import read_resolved
from c2ftool.spec.resolved import Resolved

COARSE, FINE, STOP = 6, 10, 9  # steps of the phases, and the step after which a broken run is stopped


def losses(run: Path, phase: str) -> list[float]:
    return [
        e["values"]["loss"] for e in read_metrics(run / "metrics.jsonl") if (e["kind"], e["phase"]) == ("train", phase)
    ]


def measured(run: Path) -> list[Any]:
    """Everything measured, without the time of day and of computing."""
    return [
        (e["step"], e["phase"], e["kind"], {k: v for k, v in e["values"].items() if "seconds" not in k})
        for e in read_metrics(run / "metrics.jsonl")
    ]


def digest(run: Path) -> dict[str, str]:
    """The hash of every weights file."""
    files = sorted((run / "checkpoints").glob("weights-*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def store_logits(data_root: Path) -> None:
    """Logits of half of the scenes' training clips and classes, 25 frames of each."""
    source = PreparedSet.open(data_root / "scenes")
    ids = [source.ids[row] for row in source.rows(["scenes_train"])[::2]]
    with LogitsWriter(data_root / LOGITS, ids, source.info.classes[::2], 25, {}) as writer:
        drawn = np.random.default_rng(1).normal(-3, 1, (len(ids), *writer.shape))
        writer.write(np.arange(len(ids)), drawn.astype(np.float32))
        writer.finish()


def body(row: Row, data_root: Path, folder: Path, phases: str) -> Path:
    """The row's network without adapters, as a weights file: values that no seed of the row gives."""
    path = folder / "body.safetensors"
    if BODY in row.more and not path.exists():
        (folder / "body.yaml").write_text(row.spec)
        more = [text for text in row.more if not text.startswith(("adapters=", "model.", "task=", "teachers="))]
        plain, _ = prepare(load_file(folder / "body.yaml", [phases, *more]), Options(data_root, folder / "runs"))
        student = build_objective(plain).student
        generator = torch.Generator().manual_seed(99)
        with torch.no_grad():
            for value in student.state_dict().values():
                if value.is_floating_point():
                    value.mul_(1 + 0.05 * torch.randn(value.shape, generator=generator))
        record = {"backbone": plain.model.backbone, "tokens": plain.phases[0].tokens.model_dump()}
        save_weights(path, student.state_dict(), record)
    return path


def still_the_body(run: Path, folder: Path) -> None:
    """What the run left out of its files is the body's, and with it the files are whole."""
    state, record = read_weights(run / "checkpoints" / "weights-last.safetensors")
    body, _ = read_weights(folder / "body.safetensors")
    both = whole_state(state, record, record["backbone"], folder, where="table")
    left_out = both.keys() - state.keys()
    assert left_out and all(torch.equal(both[name], body[name]) for name in left_out)
    assert all(name.startswith("backbone.") for name in left_out)
    resolved = read_resolved(run / "resolved.yaml")
    student = build_objective(resolved, 1).student
    assert both.keys() == student.state_dict().keys()
    learned = {name for name, p in student.named_parameters() if p.requires_grad}
    assert not learned & left_out
    untouched = {name for name in state.keys() & body.keys() if torch.equal(state[name], body[name])}
    assert not untouched & learned


@pytest.fixture
def trained(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Trains a row as the run of a name; stopped as a signal would after so many steps, if told so."""
    counted: list[list[PhaseCost]] = []

    def costs(resolved: Resolved) -> list[PhaseCost]:
        counted[:] = counted or [phase_costs(resolved)]
        return counted[0]

    # pictures take longer than the training, and all runs of a row cost the same
    monkeypatch.setattr("c2ftool.engine.train.phase_costs", costs)
    for place in ("train", "rescore"):
        monkeypatch.setattr(f"c2ftool.engine.{place}.report", lambda *_, **__: [])
        monkeypatch.setattr(f"c2ftool.engine.{place}.attention_pictures", lambda *_: {})
    heed = Loop._heed
    if not (data_root / LOGITS).exists():
        store_logits(data_root)

    def run(row: Row, name: str, stop_after: int | None = None, **options: Any) -> Outcome:
        def heeding(loop: Loop, flag: StopFlag) -> None:
            if loop.clock.total == stop_after:
                flag.asked = PREEMPTED
            heed(loop, flag)

        monkeypatch.setattr(Loop, "_heed", heeding)
        coarse = f"{{name: coarse, length: {COARSE} steps, compression: {row.coarse}}}"
        phases = f"phases=[{coarse}, {{name: fine, length: {FINE} steps}}]"
        (tmp_path / "spec.yaml").write_text(row.spec)
        arguments = [text.replace("BODY", str(body(row, data_root, tmp_path, phases))) for text in row.more]
        loaded = load_file(tmp_path / "spec.yaml", [phases, *arguments])
        outcome = train(loaded, Options(data_root, tmp_path / "runs", run=name, quiet=True, device="cpu", **options))
        assert outcome is not None
        return outcome

    return run


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_trains_resumes_and_loads(
    name: str, trained: Callable[..., Outcome], data_root: Path, tmp_path: Path
) -> None:
    row, whole, broken = TABLE[name], tmp_path / "runs" / "whole", tmp_path / "runs" / "broken"
    outcome = trained(row, "whole")

    coarse, fine = losses(whole, "coarse"), losses(whole, "fine")
    assert (len(coarse), len(fine)) == (COARSE, row.steps) and all(map(math.isfinite, coarse + fine))
    assert outcome.phases[0]["ended"] == "length" and outcome.phases[1]["ended"].startswith(row.ends)
    if row.spec == SSAST:  # more candidates in the fine phase: a loss of another kind
        assert sum(fine[-3:]) < 0.95 * sum(fine[:3])
    else:
        assert fine[0] < 0.95 * coarse[0]  # what was learnt crosses the border
        assert sum(fine[-3:]) < 0.95 * sum(coarse[:3])

    with pytest.raises(Preempted):
        trained(row, "broken", stop_after=STOP)
    assert len(losses(broken, "fine")) == STOP - COARSE
    saved = sorted(int(path.name[5:]) for path in (broken / "checkpoints").glob("step-*"))
    assert saved == [COARSE, STOP]  # at the border, and where it was told to stop
    resumed = trained(row, "broken", resume=True)
    assert measured(broken) == measured(whole)
    assert digest(broken) == digest(whole)
    assert resumed.scores == outcome.scores

    if BODY in row.more and "model.freeze=none" not in row.more:
        still_the_body(whole, tmp_path)
    if "task: pretrain" in row.spec:
        state, record = read_weights(whole / "checkpoints" / "weights-last.safetensors")
        assert record["phase"] == "fine"
        student = build_objective(read_resolved(whole / "resolved.yaml"), 1).student
        report = load_into(student, state, where=name)
        assert not (report.missing or report.unexpected)
    else:
        (scored,) = rescore_all(
            ["whole"], runs_root=tmp_path / "runs", data_root=data_root, metrics=None, weights=None, overrides=[],
            device="cpu", say=lambda text: None,
        )  # fmt: skip
        assert scored.scores == outcome.scores and scored.clips == 12
        assert scored.weights == ("average" if "average" in name else "best")


def test_carried_moments_steer_the_steps_after_the_border(trained: Callable[..., Outcome], tmp_path: Path) -> None:
    fresh, carried = Row(AST, patch(2)), Row(AST, patch(2), CARRY)
    trained(fresh, "fresh")
    trained(carried, "carried")
    runs = [tmp_path / "runs" / name for name in ("fresh", "carried")]
    assert losses(runs[0], "coarse") == losses(runs[1], "coarse")
    ours, theirs = (losses(run, "fine") for run in runs)
    assert ours[0] == theirs[0]  # the weights are the same
    assert all(a != b for a, b in zip(ours[1:], theirs[1:], strict=True))
