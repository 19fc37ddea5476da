"""What a backbone asks of a spec: its compression, front end, head, masks; and what is resolved for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from c2ftool.engine.recompress import recompressed
from c2ftool.errors import SpecError, UsageError
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.load import load_file
from c2ftool.spec.model import ClipHead
from c2ftool.spec.resolve import DataFacts, resolve
from c2ftool.spec.resolved import Resolved

SPECS = Path(__file__).parents[1] / "specs"
PRETRAIN, FINETUNE = SPECS / "pretrain.yaml", SPECS / "finetune.yaml"
PHASES = "phases=[{name: fine, length: 1 epochs}]"
SSAST = (
    "model={backbone: ssast_patch_micro}", "objective=null", "objective={kind: ssast}", "masks=null",
    "masks={kind: cluster}", "teachers=[]", PHASES,
)  # fmt: skip


def refused(spec: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_file(spec, list(overrides))
    return str(caught.value)


def finetuned(backbone: str, *overrides: str, rate: int = 16_000) -> Resolved:
    facts = DataFacts(
        name="sounds", classes=["a", "b", "c"], sample_rate=rate, multi_label=False, mean=-5.0, std=4.0,
        fingerprint="f" * 64, clips_train=36, clips_valid=12, clips_test=12,
    )  # fmt: skip
    given = ["model=null", f"model={{backbone: {backbone}, head: {{kind: clip}}}}", "frontend=null", PHASES, *overrides]
    return resolve(load_file(FINETUNE, given).spec, facts)


@pytest.mark.parametrize(
    ("backbone", "overrides", "message"),
    [
        ("cnn14_micro", ["compression={method: patch, factor: 2}"], "cnn14_micro has no patch kernel"),
        ("atst_micro", ["frontend.mels=128"], "atst_micro is made for 64 mel bands, not 128"),
        ("m2d_micro", ["compression={method: fshift, factor: 2, mel_factor: 2}"], "m2d_micro is made for its mel axis"),
        (
            "fpasst_micro",
            ["compression={method: pool, factor: 2, mel_factor: 2}"],
            "fpasst_micro is made for its mel axis",
        ),
        ("beats_micro", ["model.head.pool=cls"], "beats_micro has no token in front to pool by"),
        ("asit_micro", ["model.head.pool=embedding"], "asit_micro has no clip embedding of its own"),
        ("asit_micro", ["model.head={kind: token_semantic}"], "the token-semantic head is HTS-AT's, not asit_micro's"),
        ("m2d_micro", ["model.stride=[8, 16]"], "the patches of m2d_micro do not overlap"),
        ("atst_micro", ["frontend.window=hanning"], "the front end of atst_micro has a periodic Hann window"),
        ("atst_micro", ["frontend.jitter=true"], "the front end of atst_micro has no jitter"),
        ("beats_micro", ["frontend.normalize=measured"], "measured statistics are those of Kaldi's log-mel"),
        ("htsat_micro", ["train.micro_batch=2"], "htsat_micro has batch norm"),
        ("cnn14_micro", ["model.drop_path=0.1"], "cnn14_micro has no branches to skip"),
        ("cnn14_micro", ["model.head.pool=mean"], "cnn14_micro pools its tokens itself"),
        ("cnn14_micro", ["frontend.frames=31"], "31 frames x 64 mel bands halved 5 times leave none"),
        ("ast_micro", ["data.also=[{dataset: more}]"], "only pre-training joins sets"),
    ],
)
def test_what_a_backbone_cannot_do_is_refused(backbone: str, overrides: list[str], message: str) -> None:
    given = ["model=null", f"model={{backbone: {backbone}, head: {{kind: clip}}}}", "frontend=null", PHASES, *overrides]
    assert message in refused(FINETUNE, *given)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.backbone=eat_tiny"], "objective ssast pre-trains SSAST, not eat_tiny"),
        (["masks=null"], "objective ssast needs `masks`"),
        (["masks=null", "masks={kind: inverse_block}"], "has masks of kind cluster or random, not inverse_block"),
        (["masks.size=[5, 3]"], "the least side of a block is above the largest"),
        (["teachers=[{kind: ema}]"], "objective ssast has no teachers"),
        (["model.stride=[10, 10]"], "patches that are to be predicted do not overlap"),
        (["task=finetune"], "objective ssast belongs to task pretrain"),
        (["data.also=[{dataset: more}]", "data.sampler={kind: class_balanced}"], "joined sets have no labels"),
        (["data.also=[{dataset: more}]", "data.classes=[a, b]"], "joined sets have neither classes nor held-out clips"),
    ],
)
def test_what_ssast_cannot_do_is_refused(overrides: list[str], message: str) -> None:
    assert message in refused(PRETRAIN, *SSAST, *overrides)


def test_eat_does_not_take_ssasts_masks() -> None:
    assert "objective eat has masks of kind inverse_block, not random" in refused(
        PRETRAIN, "masks=null", "masks={kind: random}"
    )


def test_published_statistics_come_with_the_front_end_and_measured_ones_where_there_are_none() -> None:
    beats, ast = finetuned("beats_micro").phases[0].frontend, finetuned("ast_micro").phases[0].frontend
    assert (beats.mean, beats.std, beats.window, beats.spectrum.scale) == (15.41663, 6.55582, "povey", 32768.0)
    assert (ast.mean, ast.std) == (-5.0, 4.0)
    given = finetuned("beats_micro", "frontend={normalize: {mean: 1.0, std: 2.0}}").phases[0].frontend
    assert (given.mean, given.std) == (1.0, 2.0)


@pytest.mark.parametrize(("backbone", "pool", "norm"), [
    ("eat_tiny", "cls", True), ("ssast_patch_micro", "mean", True), ("beats_micro", "mean", False),
    ("m2d_micro", "mean", False),
])  # fmt: skip
def test_a_head_is_the_backbones_own_where_a_spec_does_not_say(backbone: str, pool: str, norm: bool) -> None:
    head = finetuned(backbone).model.head
    assert isinstance(head, ClipHead) and (head.pool, head.norm) == (pool, norm)


@pytest.mark.parametrize(
    ("backbone", "frames", "factor", "grid"),
    [
        ("atst_base", 1001, 1, (250, 1)), ("atst_base", 1001, 2, (125, 1)), ("atst_base", 1001, 4, (62, 1)),
        ("beats_base", 998, 1, (62, 8)), ("beats_base", 998, 2, (31, 8)), ("beats_base", 998, 4, (15, 8)),
        ("fpasst_base", 1000, 1, (250, 1)), ("fpasst_base", 1000, 2, (125, 1)), ("fpasst_base", 1000, 4, (63, 1)),
        ("m2d_base", 1001, 1, (62, 5)), ("m2d_base", 1001, 2, (32, 5)), ("m2d_base", 1001, 4, (16, 5)),
        ("asit_base", 998, 1, (62, 8)), ("asit_base", 998, 2, (31, 8)), ("asit_base", 998, 4, (15, 8)),
        ("htsat_base", 1001, 1, (256, 16)), ("htsat_base", 1001, 2, (128, 16)), ("htsat_base", 1001, 4, (64, 16)),
    ],
)  # fmt: skip
def test_tokens_at_each_frame_shift_are_those_of_the_public_code(
    backbone: str, frames: int, factor: int, grid: tuple[int, int]
) -> None:
    size = BACKBONES[backbone]
    phase = finetuned(
        backbone, f"compression={{method: fshift, factor: {factor}}}", rate=size.frontend.sample_rate
    ).phases[0]
    assert size.frontend.frames == frames
    assert phase.tokens.grid == grid
    assert phase.frontend.samples <= 10.3 * size.frontend.sample_rate


@pytest.mark.parametrize(
    ("backbone", "compression"),
    [
        ("fpasst_micro", "{method: patch, factor: 4}"),
        ("cnn14_micro", "{method: patch, factor: 2}"),
        ("m2d_micro", "{method: fshift, factor: 2, mel_factor: 2}"),
    ],
)
def test_weights_are_not_scored_at_a_compression_that_the_backbone_does_not_take(
    backbone: str, compression: str
) -> None:
    run = finetuned(backbone, rate=BACKBONES[backbone].frontend.sample_rate)
    with pytest.raises(UsageError, match=f"cannot be scored: {backbone} "):
        recompressed(run.model, run.phases[0], [f"compression={compression}"])
