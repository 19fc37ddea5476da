"""Adapters as folders: peft reads what we write, we read what peft writes; what does not fit ends in one message."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from c2ftool.adapters.files import CONFIG, RECORD, TENSORS, from_state, read_adapter, write_adapter
from c2ftool.adapters.insert import item_of
from c2ftool.errors import DataError, MissingError
from c2ftool.models.build import build_classifier
from c2ftool.models.initialise import initialise
from c2ftool.spec.adapters import LookAside, Lora, Parallel, decided
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.resolved import Tokens

SIZES = {"ast_micro": 128, "beats_micro": 128, "htsat_micro": 64}
LORA = Lora(kind="lora", name="a0", rank=4, alpha=6, targets=["qkv", "fc2"])


def made(backbone, *items):
    size = BACKBONES[backbone]
    grid = {"htsat_micro": (64, 16)}.get(backbone, (4, 8))
    frames = 256 if backbone == "htsat_micro" else 64
    patch = list(size.patch)
    tokens = Tokens(frames=frames, mels=SIZES[backbone], patch=patch, stride=patch, time=grid[0], frequency=grid[1])
    head = ClipHead(kind="clip", pool=size.pool, norm=True)
    model = build_classifier(Model(backbone=backbone, head=head), tokens, 5, decided(list(items), size.block_widths))
    initialise(model, 3)
    return model.eval(), torch.randn(2, frames, SIZES[backbone], generator=torch.Generator().manual_seed(2))


def trained(backbone, *items):
    """An adapted model whose adapters and head are not at their first values."""
    model, x = made(backbone, *items)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if item_of(name) or name.startswith("head."):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return model, x


def saved_of(model, backbone, *items):
    record = {
        "adapters": [item.model_dump(mode="json") for item in items],
        "backbone": backbone,
        "classes": list("abcde"),
    }
    record["on"] = {"weights": "run:body", "sha256": "ab" * 32}
    return from_state(model.state_dict(), record)


@pytest.mark.parametrize("blocks", ["all", [1, 2]])
@pytest.mark.parametrize("backbone", ["ast_micro", "beats_micro", "htsat_micro"])
def test_peft_reads_our_updates_with_the_head(backbone, blocks, tmp_path):
    peft = pytest.importorskip("peft")
    item = LORA.model_copy(update={"blocks": blocks})
    model, x = trained(backbone, item)
    write_adapter(tmp_path, saved_of(model, backbone, item)[0])
    plain, _ = made(backbone)
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
    torch.testing.assert_close(theirs(x), model(x))
    merged = theirs.merge_and_unload()
    torch.testing.assert_close(merged(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
def test_we_read_what_peft_writes(rslora, tmp_path):
    peft = pytest.importorskip("peft")
    plain, x = made("ast_micro")
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=r".*attn\.(qkv|proj)", use_rslora=rslora)
    theirs = peft.get_peft_model(plain, config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    theirs.save_pretrained(tmp_path)
    saved = read_adapter(tmp_path, "other")
    assert saved.item.rank == 3 and saved.item.rslora == rslora and set(saved.item.targets) == {"qkv", "proj"}
    ours, _ = made("ast_micro", saved.item)
    ours.backbone.load_state_dict(saved.tensors, strict=False)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    "item",
    [
        LORA,
        Parallel(kind="parallel", name="a0", at="both", rank=3, bias=True),
        LookAside(kind="loaa", name="a0", at="attention", axis="time", rank=2, blocks=[0, 3]),
    ],
)
def test_written_and_read_again_is_the_same(item, tmp_path):
    model, _ = trained("ast_micro", item)
    saved = saved_of(model, "ast_micro", item)[0]
    write_adapter(tmp_path, saved)
    again = read_adapter(tmp_path, "mine")
    assert again.item == item.model_copy(update={"name": "mine"})
    assert again.backbone == "ast_micro" and again.parent == saved.parent and again.classes == list("abcde")
    assert {k.replace("@mine", "@a0"): v.tolist() for k, v in again.tensors.items()} == {
        k: v.tolist() for k, v in saved.tensors.items()
    }
    assert saved.renamed("mine").tensors.keys() == again.tensors.keys()
    assert again.head.keys() == {"norm.weight", "norm.bias", "fc.weight", "fc.bias"}
    size = (tmp_path / TENSORS).stat().st_size
    trained_bytes = sum(v.nbytes for v in (*saved.tensors.values(), *saved.head.values()))
    assert size < trained_bytes + 10_000


def test_several_adapters_of_one_file_are_told_apart():
    other = LookAside(kind="loaa", name="b", at="feed_forward", axis="frequency", rank=2)
    model, _ = trained("ast_micro", LORA, other)
    found = saved_of(model, "ast_micro", LORA, other)
    assert [saved.item.name for saved in found] == ["a0", "b"]
    assert all(item_of(name) == saved.item.name for saved in found for name in saved.tensors)


def broken(folder, change):
    """An adapter whose config and record went through `change`."""
    model, _ = trained("ast_micro", LORA)
    write_adapter(folder, saved_of(model, "ast_micro", LORA)[0])
    config, own = (json.loads((folder / name).read_text()) for name in (CONFIG, RECORD))
    change(config, own, folder)
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / RECORD).write_text(json.dumps(own))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c, own, f: c.update(peft_type="IA3"), "an adapter of type IA3"),
        (lambda c, own, f: (own.clear(), c.update(use_dora=True)), "use_dora True"),
        (lambda c, own, f: (own.clear(), c.update(init_lora_weights="pissa")), "init_lora_weights 'pissa'"),
        (lambda c, own, f: c.pop("peft_type"), "cannot be read"),
        (lambda c, own, f: own["item"].update(rank=0), "config cannot be read"),
        (lambda c, own, f: (f / TENSORS).write_bytes(b"no tensors"), "cannot be read"),
        (lambda c, own, f: (own.clear(), save_file({"a.lora_A.weight": torch.ones(1)}, f / TENSORS)), "no low-rank"),
    ],
)
def test_what_cannot_be_read_is_told(change, message, tmp_path):
    broken(tmp_path, change)
    with pytest.raises(DataError, match=message):
        read_adapter(tmp_path, "a0")


def test_updates_of_layers_that_we_do_not_update_are_refused(tmp_path):
    peft = pytest.importorskip("peft")
    plain, _ = made("beats_micro")
    theirs = peft.get_peft_model(plain, peft.LoraConfig(r=2, target_modules=r".*attn\.(q|gate)"))
    theirs.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="updates of gate"):
        read_adapter(tmp_path, "a0")


def test_a_folder_without_an_adapter_names_those_inside(tmp_path):
    model, _ = trained("ast_micro", LORA)
    write_adapter(tmp_path / "here", saved_of(model, "ast_micro", LORA)[0])
    with pytest.raises(MissingError, match="here"):
        read_adapter(tmp_path, "a0")


def test_names_in_the_file_are_pefts(tmp_path):
    model, _ = trained("ast_micro", LORA)
    write_adapter(tmp_path, saved_of(model, "ast_micro", LORA)[0])
    names = load_file(tmp_path / TENSORS).keys()
    assert "base_model.model.backbone.blocks.0.attn.qkv.lora_A.weight" in names
    assert "base_model.model.head.fc.weight" in names
