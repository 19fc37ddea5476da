"""Weights files keep record and bits; what does not fit a model is refused with both shapes; runs are exported."""

from __future__ import annotations

import stat

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from c2ftool.errors import DataError, MissingError, UsageError
from c2ftool.files import sha256
from c2ftool.models.decoder import ConvDecoder
from c2ftool.models.eat import Eat
from c2ftool.models.heads import ClipClassifier
from c2ftool.models.public.eat import to_public
from c2ftool.models.public.reading import read_tensors
from c2ftool.models.weights import (
    load_into,
    read_weights,
    resolve_weights,
    save_weights,
    starting_weights,
    weights_of_run,
)
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import ClipHead
from c2ftool.spec.objective import Decoder

MICRO = BACKBONES["eat_tiny"]
TOKENS = tokens_of(96, 128, (16, 16))
RECORD = {"backbone": "eat_tiny", "classes": ["a", "ü"], "task": "finetune", "step": 12, "frontend": {"mean": -4.2}}


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with weights drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def classifier(classes: int = 5, seed: int = 0) -> nn.Module:
    return drawn(ClipClassifier(Eat(MICRO, TOKENS), ClipHead(kind="clip", pool="cls"), classes), seed)


def student(seed: int = 0) -> nn.Module:
    return drawn(nn.ModuleDict({"backbone": Eat(MICRO, TOKENS), "decoder": ConvDecoder(96, Decoder())}), seed)


def test_saved_weights_come_back_with_their_record(tmp_path):
    state = classifier().state_dict() | {"half": torch.ones(3).half(), "turned": torch.arange(6.0).reshape(2, 3).t()}
    path = tmp_path / "w.safetensors"
    assert save_weights(path, state, RECORD) == sha256(path)
    read, record = read_weights(path)
    assert record == RECORD and read.keys() == state.keys()
    assert all(torch.equal(read[n], t) and read[n].dtype == t.dtype for n, t in state.items())
    assert save_weights(tmp_path / "again.safetensors", state, RECORD) == sha256(path)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)  # readable as any other file


def test_files_without_a_record_are_not_taken_for_ours(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="no c2ftool record"):
        read_weights(tmp_path / "x.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "y.safetensors", {"c2f": "{broken"})
    with pytest.raises(DataError, match="record cannot be read"):
        read_weights(tmp_path / "y.safetensors")
    with pytest.raises(MissingError):
        read_weights(tmp_path / "none.safetensors")


def test_loading_reports_every_tensor():
    model = classifier(seed=1)
    state = classifier(seed=2).state_dict()
    report = load_into(model, state | {"more": torch.ones(1)}, where="x")
    assert report.unexpected == ["more"] and report.missing == [] and len(report.loaded) == len(state)
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    body = {n: t for n, t in state.items() if n.startswith("backbone.")}
    report = load_into(model, body, where="x", allow_missing=("head.",))
    assert report.missing == ["head.norm.weight", "head.norm.bias", "head.fc.weight", "head.fc.bias"]
    assert "4 left as they were" in str(report)


def test_weights_of_another_shape_are_refused_with_both_shapes():
    model = classifier(classes=5, seed=1)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    other = classifier(classes=9, seed=2).state_dict()
    del other["backbone.cls_token"]
    with pytest.raises(DataError) as caught:
        load_into(model, other, where="file:x.safetensors", allow_missing=("head.",))
    text = str(caught.value)
    assert "head.fc.weight: [9, 96] in the file, [5, 96] in the model" in text
    assert "backbone.cls_token: not in the file, [1, 1, 96] in the model" in text
    assert text.startswith("file:x.safetensors: ") and caught.value.cure and caught.value.exit_code == 3
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_many_misfits_are_listed_up_to_eight():
    tiny = Eat(BACKBONES["eat_mini"], TOKENS)
    with pytest.raises(DataError) as caught:
        load_into(tiny, Eat(MICRO, TOKENS).state_dict(), where="x")
    lines = [line for line in caught.value.message.splitlines() if "in the model" in line]
    assert len(lines) == 8 and "more" in caught.value.message.splitlines()[-1]


def test_our_files_and_published_ones_start_a_model_alike(tmp_path):
    model = classifier()
    save_weights(tmp_path / "ours.safetensors", model.state_dict(), RECORD)
    ours = starting_weights(tmp_path / "ours.safetensors")
    public = to_public(ours.backbone, head=ours.head)
    torch.save({"args": None, "cfg": None, "model": public}, tmp_path / "public.pt")
    theirs = starting_weights(tmp_path / "public.pt")
    assert ours.record == RECORD and theirs.record is None
    assert ours.backbone_name == theirs.backbone_name == "eat_tiny"
    for mine, other in ((ours.backbone, theirs.backbone), (ours.head, theirs.head)):
        assert mine is not None and other is not None and mine.keys() == other.keys()
        assert all(torch.equal(mine[n], other[n]) for n in mine)
    fresh = ClipClassifier(Eat(MICRO, TOKENS), ClipHead(kind="clip", pool="cls"), 5)
    report = load_into(fresh.backbone, theirs.backbone, where="public.pt")
    assert not report.unexpected and theirs.sha256 == sha256(tmp_path / "public.pt")
    load_into(fresh.head, theirs.head or {}, where="public.pt")
    features = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(fresh.eval()(features), model.eval()(features))


def test_files_that_cannot_start_a_model_are_refused(tmp_path):
    save_file({"encoder.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"unknown kind.*encoder\.weight"):
        starting_weights(tmp_path / "other.safetensors")
    save_file({"model.extra_tokens": torch.ones(1, 1, 96)}, tmp_path / "part.safetensors")
    with pytest.raises(DataError, match="incomplete"):
        starting_weights(tmp_path / "part.safetensors")
    save_weights(tmp_path / "head.safetensors", {"head.fc.weight": torch.ones(1)}, RECORD)
    with pytest.raises(DataError, match="no backbone"):
        starting_weights(tmp_path / "head.safetensors")


def run_folder(root, name: str, **weights: nn.Module):
    folder = root / name / "checkpoints"
    folder.mkdir(parents=True)
    for which, module in weights.items():
        save_weights(folder / f"weights-{which.replace('_', '-')}.safetensors", module.state_dict(), RECORD)
    return folder.parent


def test_references_find_their_files(tmp_path):
    run = run_folder(tmp_path / "runs", "mine", best=classifier(), last=classifier(), coarse=classifier())
    folder = run / "checkpoints"
    runs = tmp_path / "runs"
    assert resolve_weights("run:mine", runs) == folder / "weights-best.safetensors"
    assert resolve_weights("run:mine@last", runs) == folder / "weights-last.safetensors"
    assert resolve_weights("run:mine@coarse", runs) == folder / "weights-coarse.safetensors"
    assert resolve_weights(f"file:{folder / 'weights-last.safetensors'}", runs) == folder / "weights-last.safetensors"
    with pytest.raises(MissingError, match="'fine'") as caught:
        resolve_weights("run:mine@fine", runs)
    assert "best, coarse, last" in str(caught.value)
    with pytest.raises(MissingError, match="no such run") as caught:
        resolve_weights("run:other", runs)
    assert "mine" in str(caught.value)
    with pytest.raises(MissingError, match="no such weights"):
        resolve_weights("file:none.pt", runs)
    with pytest.raises(MissingError, match="eat_base_epoch30_pretrained"):
        resolve_weights("public:none", runs)
    with pytest.raises(UsageError, match="names no weights"):
        resolve_weights("mine", runs)


def test_a_run_without_a_best_gives_its_last(tmp_path):
    run = run_folder(tmp_path, "pre", last=student())
    assert weights_of_run(run).name == "weights-last.safetensors"


def test_export_writes_the_pretrained_layout_with_the_teacher(tmp_path, c2f):
    teacher = nn.ModuleDict({"backbone": drawn(Eat(MICRO, TOKENS), 3)})
    run_folder(tmp_path / "runs", "pre", last=student(), last_teacher=teacher)
    env = {"C2F_RUNS": str(tmp_path / "runs")}
    done = c2f("export", "pre", "--to", str(tmp_path / "out" / "eat.pt"), env=env)
    assert done.returncode == 0, done.stderr
    assert "pre-trained EAT, with the teacher" in done.stdout
    content = torch.load(tmp_path / "out" / "eat.pt", weights_only=True)
    assert content["cfg"] is None and content["args"] is None
    model = content["model"]
    assert model["modality_encoders.IMAGE.fixed_positional_encoder.positions"].shape == (1, 6144, 96)
    assert "modality_encoders.IMAGE.decoder.blocks.5.0.weight" in model
    assert torch.equal(model["_ema"]["blocks.3.mlp.fc2.bias"], teacher.state_dict()["backbone.blocks.3.mlp.fc2.bias"])
    again = starting_weights(tmp_path / "out" / "eat.pt")
    own = student().state_dict()
    assert again.decoder is not None and again.teacher is not None and again.head is None
    assert {f"backbone.{n}" for n in again.backbone} | {f"decoder.{n}" for n in again.decoder} == own.keys()
    assert all(torch.equal(t, own[f"backbone.{n}"]) for n, t in again.backbone.items())


def test_export_writes_the_finetuned_layout_and_overwrites_only_when_told(tmp_path, c2f):
    run = run_folder(tmp_path / "runs", "fine", best=classifier(seed=1), last=classifier(seed=2))
    out = tmp_path / "fine.pt"
    assert c2f("export", str(run), "--to", str(out)).returncode == 0
    first = sha256(out)
    refused = c2f("export", str(run), "--which", "last", "--to", str(out))
    assert refused.returncode == 2 and "--force" in refused.stderr and sha256(out) == first
    done = c2f("export", str(run), "--which", "last", "--to", str(out), "--force", "--json")
    assert done.returncode == 0 and '"layout": "fine-tuned EAT"' in done.stdout
    read = read_tensors(out).tensors
    assert torch.equal(read["head.weight"], classifier(seed=2).state_dict()["head.fc.weight"])
    assert "model.modality_encoders.IMAGE.extra_tokens" in read and not any("decoder" in n for n in read)
    missing = c2f("export", "nothing", "--to", str(tmp_path / "x.pt"), env={"C2F_RUNS": str(tmp_path / "runs")})
    assert missing.returncode == 3 and "fine" in missing.stderr and not (tmp_path / "x.pt").exists()
