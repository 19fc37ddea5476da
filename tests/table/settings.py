"""The settings of the table: specs with a place for what a row changes, and the rows."""

from __future__ import annotations

from dataclasses import dataclass

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
LOAA_F = ("{kind: loaa, at: feed_forward, axis: frequency, rank: 8}",)
LOAA_BOTH = "{kind: loaa, at: both, axis: both, rank: 6, blocks: [0, 1]}"
SLOWER = "train.optimizer.lr=3e-3"
BODY = "model.weights=file:BODY"  # of first values, made where a row asks for it


def adapted(*items: str) -> tuple[str, ...]:
    """Arguments for adapters on a body."""
    return f"adapters=[{', '.join(items)}]", BODY, "train.optimizer.lr=0.01"


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
    "eat look-aside in time and frequency, fshift 2": Row(
        EAT, fshift(2), adapted("{kind: loaa, at: attention, axis: time, rank: 8}", *LOAA_F)
    ),
    "ast low rank, norms unfrozen, patch 2": Row(
        AST, patch(2), (*adapted("{kind: lora, targets: [qkv, fc2]}"), "model.unfreeze={norms: true}")
    ),
    "ast parallel and all of the body, pool 2": Row(
        AST, pool(2), (*adapted("{kind: parallel, at: both, rank: 8}"), "model.freeze=none", "train.optimizer.lr=2e-3")
    ),
    "ssast look-aside, last block unfrozen, patch 2": Row(
        family("ssast_patch_micro"), patch(2), (*adapted(*LOAA_F), "model.unfreeze={last: 1}")
    ),
    "htsat look-aside, fshift 2": Row(
        family("htsat_micro", AT_16K),
        fshift(2),
        (*adapted(LOAA_BOTH), "train.optimizer.lr=1e-3", "frontend.normalize={mean: -30, std: 10}"),
    ),
    "beats low rank and look-aside, fshift 2": Row(
        family("beats_micro"), fshift(2), adapted("{kind: lora}", LOAA_BOTH)
    ),
    "atst parallel, patch 2": Row(
        family("atst_micro"), patch(2), adapted("{kind: parallel, at: both, parameters: 30000, bias: true}")
    ),
    "m2d look-aside, pool 2": Row(family("m2d_micro"), pool(2), (*adapted(LOAA_BOTH), SLOWER)),
    "detect fpasst look-aside in time, fshift 2": Row(
        detector("fpasst_micro"), fshift(2), adapted("{kind: loaa, at: both, axis: time, rank: 8}")
    ),
    "detect asit look-aside, stored logits, patch 2": Row(
        detector("asit_micro", "{frames: 98}"), patch(2), (*STORED, *adapted(LOAA_BOTH))
    ),
    "asit fshift 2, repeated clips": Row(family("asit_micro", "{frames: 128, pad: repeat}"), fshift(2)),
}
