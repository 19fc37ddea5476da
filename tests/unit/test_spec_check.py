"""Combinations that cannot work are refused before anything runs, with the reason, at the place of the fault."""

from pathlib import Path

import pytest

from c2ftool.errors import SpecError
from c2ftool.spec.load import load_file

SPECS = Path(__file__).parents[1] / "specs"
PRETRAIN, FINETUNE = SPECS / "pretrain.yaml", SPECS / "finetune.yaml"


def refused(spec: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_file(spec, list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["masks=null"], "objective eat needs `masks`"),
        (["teachers=[]"], "objective eat needs an EMA teacher"),
        (["task=finetune"], "objective eat belongs to task pretrain, not finetune"),
        (["model.head={kind: clip}"], "pre-training has no head"),
        (["model.freeze=body"], "pre-training trains the body"),
        (["augment.mixup={}"], "mixup needs labels, and pre-training has none"),
        (["phases.fine.augment.mixup={}"], "mixup needs labels, and pre-training has none"),
        (
            ["objective.decoder.groups=5"],
            "5 decoder groups do not divide the width 96 of eat_tiny\n    choose one of 1, 2, 3",
        ),
        (["objective.decoder.kernel=4"], "the decoder's kernel is odd, not 4"),
        (["objective.collapse.after=10 %"], "a share has no meaning here"),
        (["teachers.0.layers=[3, 4]"], "eat_tiny has blocks 0 to 3, not 4"),
        (["phases.fine.teachers=[{kind: ema, layers: [-1]}]"], "eat_tiny has blocks 0 to 3, not -1"),
        (["evaluate.select=map"], "pre-training is not scored, so nothing can be selected"),
        (["evaluate.every=10 %"], "a share has no meaning here"),
        (["checkpoints.every=10 %"], "a share has no meaning here"),
        (["phases.fine.length=10 %"], "a phase cannot be `10 %` long"),
        (["phases.fine.length=0 epochs"], "a phase cannot be `0 epochs` long"),
        (["phases.fine.name=coarse"], '2 phases are called "coarse"'),
        (
            ["phases.fine.compression={method: fshift, factor: 8}"],
            "compression by 8: 12 frames x 128 mel bands leave no 16 x 16 patch",
        ),
        (["compression={method: fshift, factor: 16}"], "compression by 16: 6 frames x 128 mel bands"),
        (
            ["frontend.frames=10"],
            "10 frames x 128 mel bands leave no 16 x 16 patch",
        ),
        (["frontend.frames=40000"], "2500 time patches; EAT's positions end at 768"),
        (["frontend.mels=16", "frontend.frames=32"], "a grid of 1 x 1 tokens leaves nothing to mask"),
        (["frontend.hop=0 ms"], "`0 ms` is less than a sample at 16000 Hz"),
        (["phases.fine.frontend.frame_length=0.01 ms"], "`0.01 ms` is less than a sample"),
        (["train.schedule.min_lr=1"], "the rate would rise: min_lr 1 is above lr 0.0005"),
        (["train.schedule={kind: step, start: 2 steps, every: 0 steps}"], "the rate cannot fall every `0`"),
        (["data.train=[train, train]"], "split 'train' is named 2 times"),
        (["seeds=[1, 2, 1]"], "seed 1 is named 2 times"),
    ],
)
def test_pretraining_that_cannot_work(overrides, message):
    assert message in refused(PRETRAIN, *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=pretrain"], "objective classify belongs to task finetune or distill, not pretrain"),
        (["model.head=null"], "objective classify needs a head"),
        (["masks={kind: inverse_block}"], "objective classify has no masks"),
        (["phases.fine.masks={kind: inverse_block}"], "objective classify has no masks"),
        (["teachers=[{kind: ema}]"], "objective classify has no teacher of kind ema"),
        (["train.batch=7"], "mixup mixes the clips of a batch in pairs, and 7 is no multiple"),
        (["phases.fine.batch=7"], "mixup mixes the clips of a batch in pairs, and 7 is no multiple"),
        (["objective.label_smoothing=0.1"], "label_smoothing is part of the loss ce"),
        (["objective.loss=ce"], "reduction labels is part of the loss bce"),
        (["evaluate.select=auc"], "auc is not among evaluate.metrics\n    known: accuracy, map"),
        (["evaluate.select=map", "data.valid=[]"], "there are no validation clips to select by"),
        (["data.fold=1"], "with folds, the held-out fold is the validation and test data"),
        (["data.fold=1", "data.folds=[1, 2]"], "`fold` is one run and `folds` a study"),
        (["data.folds=[1, 2]", "seeds=[1, 2]"], "a study is over folds or over seeds, not both"),
        (["data.folds=[1, 2, 1]"], "fold 1 is named 2 times"),
        (["data.classes=[a, b, a]"], "class 'a' is named 2 times"),
        (["data.test=[train]"], "split 'train' is trained on and scored"),
    ],
)
def test_finetuning_that_cannot_work(overrides, message):
    assert message in refused(FINETUNE, *overrides)


@pytest.mark.parametrize(
    ("spec", "overrides"),
    [
        (PRETRAIN, ["masks=null", *(f"phases.{p}.masks={{kind: inverse_block}}" for p in ("coarse", "fine"))]),
        (PRETRAIN, ["teachers=[]", *(f"phases.{p}.teachers=[{{kind: ema}}]" for p in ("coarse", "fine"))]),
        (PRETRAIN, ["train.schedule={kind: step, start: 50 %, every: 10 %}"]),
        (FINETUNE, ["train.batch=7", "augment.mixup=null"]),
        (FINETUNE, ["data.valid=[]", "data.test=[]", "data.fold=2", "evaluate.select=map"]),
        (FINETUNE, ["evaluate.metrics=null", "evaluate.select=auc"]),
    ],
)
def test_combinations_that_work(spec, overrides):
    load_file(spec, overrides)


def test_findings_stand_at_their_place_and_come_together(tmp_path):
    text = PRETRAIN.read_text().replace("groups: 8", "groups: 7").replace("task: pretrain", "task: finetune")
    (tmp_path / "x.yaml").write_text(text)
    line, column = next((n, row.index("7") + 1) for n, row in enumerate(text.splitlines(), 1) if "groups" in row)
    found = refused(tmp_path / "x.yaml", "phases.fine.length=1 %")
    assert f"x.yaml:{line}:{column}: 7 decoder groups" in found and "x.yaml:4:1: objective eat belongs" in found
    assert "argument 1: phases.fine.length=1 %: a phase cannot be `1 %` long" in found
    assert found.endswith("3 faults found; nothing was run.")
