"""One table of tiny settings: each trains, resumes to the bit after a stop in its second phase, saves and loads again.

Task x backbone x compression x masks x stop rules and averaging, on generated sounds, in this process.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from c2ftool.data.logits_writer import LogitsWriter
from c2ftool.data.store import PreparedSet
from c2ftool.engine.cost import PhaseCost, phase_costs
from c2ftool.engine.loop import Loop
from c2ftool.engine.metrics_log import read_metrics
from c2ftool.engine.rescore import rescore_all
from c2ftool.engine.result import Outcome
from c2ftool.engine.signals import PREEMPTED, StopFlag
from c2ftool.engine.train import Options, train
from c2ftool.errors import Preempted
from c2ftool.models.weights import load_into, read_weights
from c2ftool.objectives.build import build_objective
from c2ftool.spec.load import load_file
from c2ftool.spec.resolve import read_resolved
from c2ftool.spec.resolved import Resolved

PRETRAIN = """
c2f: 1
name: table
task: pretrain
seed: 3
data: {dataset: sounds, train: [train]}
frontend: {frames: 64, mels: 64}
model: {backbone: eat_tiny}
objective: {kind: eat, decoder: {layers: 1, groups: 8}}
masks: {kind: inverse_block, ratio: 0.6, block: [2, 2], clones: 3}
teachers: [{kind: ema, decay: 0.9, final_decay: 0.99, over: 50 %}]
train:
  batch: 6
  optimizer: {kind: adamw, lr: 2e-3, betas: [0.9, 0.95]}
  schedule: {kind: cosine, warmup: 1 steps}
tracking: {kind: none, every: 1}
"""
FINETUNE = """
c2f: 1
name: table
task: finetune
seed: 4
data: {dataset: sounds, train: [train], valid: [valid], test: [test]}
frontend: {frames: 64, mels: 64}
model: {backbone: BACKBONE, head: {kind: clip, pool: mean}}
objective: {kind: classify, loss: ce}
augment: {noise: {}, spec_augment: {frequency: 0.1, time: 0.1, fill: log_mel}}
train:
  batch: 8
  optimizer: {kind: adam, lr: 2e-3, betas: [0.9, 0.99], weight_decay: 1e-6}
  schedule: {kind: constant, warmup: 2 steps}
evaluate: {every: 4 steps, metrics: [accuracy, map]}
tracking: {kind: none, every: 1}
"""
SSAST = """
c2f: 1
name: table
task: pretrain
seed: 5
data: {dataset: sounds, train: [train]}
frontend: {frames: 64, mels: 64}
model: {backbone: ssast_patch_micro}
objective: {kind: ssast}
masks: {kind: cluster, ratio: 0.4, size: [1, 2]}
train:
  batch: 12
  optimizer: {kind: adam, lr: 3e-3, betas: [0.9, 0.99]}
  schedule: {kind: constant, warmup: 1 steps}
tracking: {kind: none, every: 1}
"""
DETECT = """
c2f: 1
name: table
task: finetune
seed: 6
data:
  dataset: scenes
  train: [scenes_train]
  valid: [scenes_test]
  test: [scenes_test]
  labels: frame
  crop: random
  long: slices
frontend: FRONT
model: {backbone: BACKBONE, head: {kind: frame, sequence: time}}
objective: {kind: detect}
augment: {waveform_mixup: {partner: set, alpha: 2, dominant: true, probability: 0.5}}
train:
  batch: 8
  optimizer: {kind: adamw, lr: 2e-3}
  schedule: {kind: constant}
evaluate: {every: 8 steps, metrics: [psds1, segment_f1]}
tracking: {kind: none, every: 1}
"""
EAT, AST = FINETUNE.replace("BACKBONE", "eat_tiny"), FINETUNE.replace("BACKBONE", "ast_micro")


@dataclass(frozen=True)
class Row:
    """One setting. coarse: the first phase's compression. steps, ends: of the last phase, and why it ends."""

    spec: str
    coarse: str
    more: tuple[str, ...] = ()
    steps: int = 10
    ends: str = "length"


def fshift(factor: int, more: str = "") -> str:
    return f"{{method: fshift, factor: {factor}{more}}}"


def pool(factor: int, more: str = "") -> str:
    return f"{{method: pool, factor: {factor}{more}}}"


def patch(factor: int, more: str = "") -> str:
    return f"{{method: patch, factor: {factor}{more}}}"


def family(name: str, front: str = "{frames: 64}", head: str = "{kind: clip}") -> str:
    """A setting of another backbone, with its own front end."""
    text = FINETUNE.replace("BACKBONE", name).replace("{kind: clip, pool: mean}", head)
    return text.replace("frontend: {frames: 64, mels: 64}", f"frontend: {front}")


def detector(name: str, front: str = "{frames: 101}") -> str:
    """A setting of another backbone that scores the frames of clips longer than its input."""
    return DETECT.replace("BACKBONE", name).replace("FRONT", front)


AT_16K = "{frames: 65, sample_rate: 16000}"
CARRY = ("phases.fine.enter.carry=[optimizer]",)
LOGITS = "table.hdf5"  # of an ensemble, beside the sets
STORED = ("task=distill", f"teachers=[{{kind: ensemble, logits: {LOGITS}, missing: labels}}]", "data.crop=start")
OVERLAP = ("model.stride=[10, 10]",)
TABLE = {
    "pretrain fshift 2": Row(PRETRAIN, fshift(2)),
    "pretrain avg pool 2": Row(PRETRAIN, pool(2)),
    "pretrain max pool 2 at log_mel": Row(PRETRAIN, pool(2, ", reduce: max, at: log_mel")),
    "pretrain patch 2, moments carried": Row(PRETRAIN, patch(2), CARRY),
    "pretrain mel 2": Row(PRETRAIN, fshift(1, ", mel_factor: 2")),
    "pretrain fshift 2, other masks": Row(
        PRETRAIN, fshift(2), ("phases.fine.masks={ratio: 0.8, block: [3, 2], clones: 2}",)
    ),
    "pretrain pool 2, budget": Row(
        PRETRAIN, pool(2), ("phases.fine.stop={kind: budget, flops: 2.5e9}",), 6, "budget of 2.5e+09 FLOPs"
    ),
    "eat fshift 2": Row(EAT, fshift(2)),
    "eat fshift 4, window scaled": Row(EAT, fshift(4, ", window: scaled")),
    "eat avg pool 2": Row(EAT, pool(2)),
    "eat max pool 4 at log_mel": Row(EAT, pool(4, ", reduce: max, at: log_mel")),
    "eat patch 2 bilinear": Row(EAT, patch(2, ", resize: bilinear")),
    "eat patch 4, moments carried": Row(EAT, patch(4), CARRY),
    "ast fshift 2": Row(AST, fshift(2)),
    "ast fshift 4, average": Row(AST, fshift(4), ("phases.fine.average={start: 2 steps, every: 2 steps}",)),
    "ast max pool 2": Row(AST, pool(2, ", reduce: max")),
    "ast avg pool 4 at log_mel, moments carried": Row(AST, pool(4, ", at: log_mel"), CARRY),
    "ast patch 2": Row(AST, patch(2)),
    "ast patch 4 mel 2, positions afresh": Row(
        AST, patch(4, ", mel_factor: 2"), ("phases.fine.enter={positions: none, carry: [optimizer]}",)
    ),
    "ast overlapping, fshift 2, waveform mixup": Row(
        AST, fshift(2), (*OVERLAP, "augment={roll: {}, waveform_mixup: {}}", "objective.loss=bce")
    ),
    "ast overlapping, patch 2, frozen body": Row(
        AST, patch(2), (*OVERLAP, "model.freeze=body", "train.optimizer.lr=0.02")
    ),
    "ast patch 2, budget of the run": Row(
        AST, patch(2), ("phases.fine.stop={kind: budget, flops: 4e9, of: run}",), 7, "budget of 4e+09 FLOPs of the run"
    ),
    "ast fshift 2, plateau": Row(
        AST,
        fshift(2),
        ("evaluate.every=2 steps", "phases.fine.stop={kind: plateau, patience: 1, min_delta: 1}"),
        4,
        "plateau of accuracy",
    ),
    "ast pool 2, surpasses": Row(
        AST, pool(2), ("phases.fine.stop={kind: surpasses, metric: map, value: 0}",), 4, "surpasses map 0"
    ),
    "ssast fshift 2": Row(SSAST, fshift(2)),
    "ssast patch 2, moments carried": Row(SSAST, patch(2), CARRY),
    "ssast frames, random masks, max pool 2": Row(
        SSAST,
        pool(2, ", reduce: max"),
        ("model.backbone=ssast_frame_micro", "frontend.mels=128", "masks={kind: random, ratio: 0.5}"),
    ),
    "ssast patch, fine-tuned, fshift 2": Row(family("ssast_patch_micro"), fshift(2)),
    "ssast frame, fine-tuned, patch 2": Row(family("ssast_frame_micro"), patch(2)),
    "htsat fshift 2, token-semantic": Row(
        family("htsat_micro", AT_16K, "{kind: token_semantic}"),
        fshift(2),
        (*CARRY, "model.drop_path=0.1", "train.optimizer.lr=1e-3"),
    ),
    "htsat avg pool 2": Row(family("htsat_micro", AT_16K), pool(2)),
    "htsat patch 2": Row(family("htsat_micro", AT_16K), patch(2)),
    "cnn14 fshift 2": Row(family("cnn14_micro", AT_16K), fshift(2)),
    "cnn14 pool 2": Row(family("cnn14_micro", AT_16K), pool(2, ", reduce: max")),
    "beats fshift 2, layer decay": Row(family("beats_micro"), fshift(2), ("train.optimizer.layer_decay=0.8",)),
    "beats patch 2": Row(family("beats_micro"), patch(2)),
    "atst fshift 2": Row(family("atst_micro"), fshift(2)),
    "atst patch 2": Row(family("atst_micro"), patch(2)),
    "fpasst fshift 2": Row(family("fpasst_micro"), fshift(2)),
    "m2d pool 2": Row(family("m2d_micro"), pool(2)),
    "asit patch 2": Row(family("asit_micro"), patch(2)),
    "detect eat fshift 2": Row(detector("eat_tiny"), fshift(2)),
    "detect ast patch 2": Row(detector("ast_micro"), patch(2)),
    "detect ssast frame, pool 2": Row(detector("ssast_frame_micro"), pool(2)),
    "detect htsat fshift 2": Row(detector("htsat_micro", AT_16K), fshift(2), ("train.optimizer.lr=5e-4",)),
    "detect beats fshift 2, frozen body": Row(
        detector("beats_micro"), fshift(2), ("model.freeze=body", "train.optimizer.lr=0.02")
    ),
    "detect atst fshift 2, recurrent, sgd carried": Row(
        detector("atst_micro"),
        fshift(2),
        (
            *CARRY,
            "model.head.recurrent={layers: 1, width: 16}",
            "train.optimizer=null",
            "train.optimizer={kind: sgd, lr: 0.5}",
        ),
    ),
    "detect fpasst pool 2, weak clips, attention": Row(
        detector("fpasst_micro"), pool(2), ("data.weak=[train]", "model.head.weak=attention")
    ),
    "detect m2d fshift 2, published sequence, layer decay": Row(
        detector("m2d_micro"), fshift(2), ("model.head.sequence=published", "train.optimizer.layer_decay=0.8")
    ),
    "detect asit patch 2, stored logits": Row(detector("asit_micro", "{frames: 98}"), patch(2), STORED),
    "asit fshift 2, repeated clips": Row(family("asit_micro", "{frames: 128, pad: repeat}"), fshift(2)),
}
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
        monkeypatch.setattr(f"c2ftool.engine.{place}.report", lambda *_: [])
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
        loaded = load_file(tmp_path / "spec.yaml", [phases, *row.more])
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
