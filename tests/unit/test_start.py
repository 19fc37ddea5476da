"""Starting weights: what contradicts their record is said with both figures."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from c2ftool.compression.resize import axis_map
from c2ftool.engine.start import _compare_frontends, _frontend_of, load_start, require_reference
from c2ftool.engine.train import Options, train
from c2ftool.errors import DataError, UsageError
from c2ftool.models.public import fpasst
from c2ftool.models.public.writing import Parts, published
from c2ftool.models.weights import save_weights
from c2ftool.objectives.build import build_objective
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import words
from c2ftool.spec.load import load_file
from c2ftool.spec.resolve import DataFacts, resolve
from c2ftool.spec.resolved import Resolved, ResolvedFrontend

OURS = ResolvedFrontend(
    sample_rate=16_000,
    mels=64,
    window="hanning",
    frame_length=400,
    hop=320,
    frames=152,
    mean=-5.0,
    std=3.0,
)


def said(theirs: dict) -> list[str]:
    lines: list[str] = []
    _compare_frontends(theirs, SimpleNamespace(phases=[SimpleNamespace(full_frontend=OURS)]), lines.append)
    return lines


def test_published_weights_have_their_front_end_on_record():
    theirs = _frontend_of(
        "public:eat_base_epoch30_pretrained", SimpleNamespace(record=None, family="eat", backbone_name="eat_base")
    )
    assert theirs["mels"] == 128 and theirs["mean"] == -4.268
    assert said(theirs) == [
        "warning: front end: the weights were made with mels 128, this run has 64",
        "note: the weights were made with mean -4.268, std 4.569; this run has -5.000, 3.000 (frontend.normalize)",
    ]


def test_compression_is_no_contradiction_and_files_without_a_record_say_nothing():
    assert said(OURS.model_dump() | {"hop": 160, "frames": 304}) == []
    unknown = SimpleNamespace(record=None, family="eat", backbone_name=None)
    assert _frontend_of("file:some.pt", unknown) == {} and said({}) == []


def test_a_published_file_has_the_front_end_of_its_family():
    theirs = _frontend_of("file:some.pt", SimpleNamespace(record=None, family="htsat", backbone_name="htsat_base"))
    assert "warning: front end: the weights were made with sample_rate 32000, this run has 16000" in said(theirs)


FINETUNE = Path(__file__).parents[1] / "specs" / "finetune.yaml"
FACTS = DataFacts(
    name="sounds", classes=["a", "b", "c"], sample_rate=16_000, multi_label=False, mean=-5.0, std=4.0,
    fingerprint="f" * 64, clips_train=36, clips_valid=12, clips_test=12,
)  # fmt: skip


def resolved(backbone: str, weights: Path, *overrides: str) -> Resolved:
    model = f"model={{backbone: {backbone}, head: {{kind: clip}}, weights: 'file:{weights}'}}"
    phases = "phases=[{name: fine, length: 1 epochs}]"
    return resolve(load_file(FINETUNE, ["model=null", model, "frontend=null", phases, *overrides]).spec, FACTS)


def deit(width: int = 96, depth: int = 4) -> dict[str, Tensor]:
    """A distilled DeiT of 384 pixels, named as timm's, small."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width), "dist_token": (1, 1, width), "pos_embed": (1, 2 + 24 * 24, width),
        "patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,),
    }  # fmt: skip
    for n in range(depth):
        for layer, out, into in (("attn.qkv", 3 * width, width), ("attn.proj", width, width),
                                 ("mlp.fc1", 4 * width, width), ("mlp.fc2", width, 4 * width)):  # fmt: skip
            shapes |= {f"blocks.{n}.{layer}.weight": (out, into), f"blocks.{n}.{layer}.bias": (out,)}
        shapes |= {f"blocks.{n}.{norm}.{kind}": (width,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,), "head.weight": (9, width), "head.bias": (9,)}
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_a_deit_starts_an_fpasst_whose_stem_keeps_its_first_values(tmp_path: Path) -> None:
    path, said = tmp_path / "deit.pt", []
    torch.save(deit(), path)
    run = resolved("fpasst_micro", path)
    student = build_objective(run).student
    stem = student.backbone.stem[0].weight.detach().clone()
    load_start(student, run, tmp_path, said.append)
    read = fpasst.from_deit(deit()).backbone
    assert torch.equal(student.backbone.stem[0].weight, stem)
    for name in ("time_pos", "patch_embed.proj.weight", "blocks.3.mlp.fc2.weight"):
        assert torch.equal(student.backbone.get_parameter(name), read[name]), name
    assert "stem random" in said[0] and "start afresh" in said[1]


def test_positions_of_a_shorter_clip_are_the_first_and_of_a_compressed_one_lie_apart(tmp_path: Path) -> None:
    path = tmp_path / "deit.pt"
    torch.save(deit(), path)
    table = fpasst.from_deit(deit()).backbone["time_pos"]
    positions = {}
    for name, overrides in {
        "short": ["frontend.frames=500"],
        "coarse": ["phases.fine.compression={method: fshift, factor: 2}"],
        "both": ["frontend.frames=500", "phases.fine.compression={method: fshift, factor: 2}"],
    }.items():
        run = resolved("fpasst_micro", path, *overrides)
        student = build_objective(run).student
        load_start(student, run, tmp_path, lambda line: None)
        positions[name] = student.backbone.time_pos.detach()
    assert torch.equal(positions["short"], table[:, :125])
    assert positions["coarse"].shape[1] == 125 and positions["both"].shape[1] == 63
    for name, rows in (("coarse", 250), ("both", 125)):  # resampled, so that a token keeps its moment
        wanted = axis_map(rows, positions[name].shape[1], "bilinear") @ table[0, :rows].double()
        torch.testing.assert_close(positions[name][0].double(), wanted, rtol=1e-5, atol=1e-6)


def started(backbone: str, weights: Path, tmp_path: Path, *overrides: str) -> list[str]:
    """What is said of a start from the file."""
    said: list[str] = []
    run = resolved(backbone, weights, *overrides)
    load_start(build_objective(run).student, run, tmp_path, said.append)
    return said


def own_file(backbone: str, path: Path, *overrides: str) -> tuple[Resolved, dict[str, Tensor]]:
    """Weights of ours as a run of that backbone would save them."""
    run = resolved(backbone, path, *overrides)
    student = build_objective(run).student
    phase = run.phases[0]
    record = {
        "backbone": backbone, "classes": run.classes, "compression": words(phase.compression), "step": 1,
        "tokens": phase.tokens.model_dump() | {"grid": [*phase.tokens.grid]},
    }  # fmt: skip
    state = {name: value.detach().clone() for name, value in student.state_dict().items()}
    save_weights(path, state, record)
    return run, state


@pytest.mark.parametrize(("theirs", "ours"), [("asit_micro", "m2d_micro"), ("m2d_micro", "asit_micro")])
def test_weights_of_another_family_are_refused_though_their_names_are_the_same(
    theirs: str, ours: str, tmp_path: Path
) -> None:
    own, published_file = tmp_path / "own.safetensors", tmp_path / "published.pt"
    _, state = own_file(theirs, own)
    family = BACKBONES[theirs].family
    backbone = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    torch.save(published(family, Parts(backbone)).content, published_file)
    for path in (own, published_file):
        with pytest.raises(DataError, match=f"weights of {theirs} cannot start {ours}") as caught:
            started(ours, path, tmp_path)
        assert caught.value.exit_code == 3


def test_patches_of_other_mel_bands_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    own_file("ssast_patch_micro", path)
    with pytest.raises(DataError, match="patches of 16 mel bands, and ssast_frame_micro of 128"):
        started("ssast_frame_micro", path, tmp_path)
    assert "its head" in started("ast_micro", path, tmp_path, "model.head.pool=mean")[0]


def test_an_m2d_of_several_chunks_starts_runs_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    _, state = own_file("m2d_micro", path, "frontend.frames=1400")
    for frames in (1400, 501):
        run = resolved("m2d_micro", path, f"frontend.frames={frames}")
        student = build_objective(run).student
        load_start(student, run, tmp_path, lambda line: None)
        table = state["backbone.pos_embed"]
        kept = table[:, 1:].unflatten(1, (5, 62))[:, :, : min(62, -(-frames // 16))]
        assert torch.equal(student.backbone.pos_embed[:, 1:], kept.flatten(1, 2))


def test_positions_of_a_run_at_another_compression_are_interpolated(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    _, state = own_file("atst_micro", path, "phases.fine.compression={method: fshift, factor: 2}")
    said = started("atst_micro", path, tmp_path)
    assert any("125 -> 1 x 250 (bilinear)" in line for line in said)
    short = resolved("atst_micro", path, "frontend.frames=501")  # 125 tokens too, but 40 ms apart
    assert (short.phases[0].tokens.time, state["backbone.pos_embed"].shape[1]) == (125, 125)


def test_a_file_that_does_not_tell_its_grid_says_so(tmp_path: Path) -> None:
    path = tmp_path / "published.pt"
    run = resolved("ast_micro", path, "frontend.frames=333")
    classifier = build_objective(run).student
    parts = {
        part: {n.removeprefix(f"{part}."): t for n, t in classifier.state_dict().items() if n.startswith(f"{part}.")}
        for part in ("backbone", "head")
    }
    torch.save(published("ast", Parts(parts["backbone"], parts["head"])).content, path)
    with pytest.raises(DataError, match="does not tell the grid of its 160 positions"):
        started("ast_micro", path, tmp_path, "frontend.frames=501")
    said = started("ast_micro", path, tmp_path, "frontend.frames=333")
    assert "of as many classes; a published file does not name them" in said[0]


def test_names_of_weights_are_checked_before_anything_is_fetched() -> None:
    beats, ast = BACKBONES["beats_base"], BACKBONES["ast_base"]
    for reference, size in (("public:beats_iter3", beats), ("timm:deit_base_distilled_patch16_384", ast), (None, ast)):
        require_reference(reference, size)
    for reference, size, message in (
        ("public:beats_iter33", beats, "Did you mean public:beats_iter3"),
        ("public:asit_base_pretrained", BACKBONES["m2d_base"], "public:asit_base_pretrained cannot start m2d_base"),
        ("timm:deit_base_distilled_patch16_384", beats, "cannot start beats_base"),
    ):
        with pytest.raises(UsageError, match=message):
            require_reference(reference, size)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deit.pt"
    torch.save(deit() | {"blocks.1.mlp.fc2.weight": torch.full((96, 384), float("nan"))}, path)
    with pytest.raises(DataError, match=r"not finite: blocks\.1\.mlp\.fc2\.weight"):
        started("fpasst_micro", path, tmp_path)


@pytest.mark.parametrize("axes", [0, 1, 2, 4])
def test_a_table_of_other_axes_is_told(axes: int, tmp_path: Path) -> None:
    path = tmp_path / "published.pt"
    run = resolved("asit_micro", path)
    state = {n.removeprefix("backbone."): t for n, t in build_objective(run).student.state_dict().items()}
    backbone = {name: t for name, t in state.items() if not name.startswith("head.")}
    content = published("asit", Parts(backbone)).content
    content["model.pos_embed"] = torch.zeros([3] * axes)
    torch.save(content, path)
    with pytest.raises(DataError):
        started("asit_micro", path, tmp_path)


def test_a_start_that_fails_leaves_no_run_behind(data_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "deit.pt"
    torch.save(deit(), path)
    model = f"model={{backbone: beats_micro, head: {{kind: clip}}, weights: 'file:{path}'}}"
    loaded = load_file(FINETUNE, ["model=null", model, "frontend=null", "tracking.kind=none"])
    with pytest.raises(DataError, match="cannot start beats_micro"):
        train(loaded, Options(data_root, tmp_path / "runs", run="x", quiet=True, device="cpu"))
    assert not (tmp_path / "runs" / "x").exists()
