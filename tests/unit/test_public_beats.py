"""Published BEATs files in both layouts: every tensor is accounted for, and what we write is what was published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.models.beats import Beats
from c2ftool.models.frames import FrameHead
from c2ftool.models.initialise import initialise
from c2ftool.models.public import ast, deit, eat
from c2ftool.models.public.account import State
from c2ftool.models.public.beats import SED_PREFIX, is_beats, original_config, to_native, to_public
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.layout import tokens_of

CASE = json.loads((Path(__file__).parent.parent / "fixtures" / "parity" / "beats_sed_10s.json").read_text())
TABLE = "encoder.layers.{}.self_attn.relative_attention_bias.weight"


def backbone() -> State:
    built = Beats(BACKBONES["beats_micro"], tokens_of(96, 64, (16, 16)))
    initialise(built, 0)
    return dict(built.state_dict())


def heads(**sizes: int) -> State:
    """Weight and bias of linear layers with so many classes."""
    made: State = {}
    for seed, (name, classes) in enumerate(sizes.items()):
        generator = torch.Generator().manual_seed(seed)
        made |= {f"{name}.weight": torch.randn(classes, 96, generator=generator), f"{name}.bias": torch.ones(classes)}
    return made


def same(a: State, b: State) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def sed() -> State:
    return to_public(backbone(), heads(strong=5, weak=7))


def test_the_published_names_shapes_and_order_are_ours():
    with torch.device("meta"):
        body = Beats(BACKBONES["beats_base"], tokens_of(998, 128, (16, 16))).state_dict()
        head = FrameHead(768, 447, 250).state_dict()
    assert [[name, list(tensor.shape)] for name, tensor in to_public(body, head).items()] == CASE["tensors"]


def test_a_file_for_sound_events_loads_whole_and_goes_back_as_it_was(sed):
    adapted = to_native(sed)
    assert adapted.report.clean and adapted.report.backbone == "beats_micro" and adapted.patch == (16, 16)
    assert set(adapted.report.ignored) == {SED_PREFIX + TABLE.format(1), SED_PREFIX + TABLE.format(2)}
    assert str(adapted.report).startswith("BEATs for sound events: 72 tensors loaded, 2 ignored (one bias table")
    Beats(BACKBONES["beats_micro"], tokens_of(96, 64, (16, 16))).load_state_dict(adapted.backbone, strict=True)
    FrameHead(96, 5, 250, weak_classes=7).load_state_dict(adapted.head, strict=True)
    assert same(to_public(adapted.backbone, adapted.head), sed)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_an_original_file_loads_whole_and_goes_back_as_it_was(prefix):
    whole, head = backbone(), heads(fc=9)
    original = to_public(whole, head, layout="original")
    assert {"encoder.pos_conv.0.weight_g", "predictor.weight", TABLE.format(2)} <= original.keys()
    adapted = to_native({prefix + name: tensor for name, tensor in original.items()})
    assert adapted.report.clean and adapted.report.layout == "fine-tuned BEATs"
    assert same(to_public(adapted.backbone, adapted.head, layout="original"), original)
    bare = to_native(to_public(whole, layout="original"))
    assert bare.report.clean and bare.report.layout == "pre-trained BEATs" and not bare.head


def test_an_original_files_configuration_follows_from_its_tensors():
    config = original_config(backbone(), heads(fc=9))
    assert config["encoder_layers"] == 3 and config["encoder_attention_heads"] == 3 and config["predictor_class"] == 9
    assert (config["conv_pos"], config["conv_pos_groups"], config["num_buckets"], config["embed_dim"]) == (
        16,
        4,
        32,
        48,
    )
    assert config["finetuned_model"] and not original_config(backbone())["finetuned_model"]


def test_a_teachers_recurrent_layers_are_part_of_the_head():
    rnn = {f"rnn.{kind}_l{n}{way}": torch.ones(2) for n in (0, 1) for way in ("", "_reverse")
           for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
    teacher = to_public(backbone(), heads(strong=5, weak=5) | rnn)
    adapted = to_native(teacher)
    assert "seq_model.rnn.weight_hh_l1_reverse" in teacher
    assert adapted.report.clean and rnn.keys() <= adapted.head.keys()
    assert "teacher" in adapted.report.layout and same(to_public(adapted.backbone, adapted.head), teacher)


def test_a_table_that_is_not_the_first_layers_is_told(sed):
    name = SED_PREFIX + TABLE.format(1)
    report = to_native(sed | {name: sed[name] + 1}).report
    assert report.unexpected == [name] and not report.clean
    assert to_native(sed | {name: sed[name][:-1]}).report.unexpected == [name]
    del (once := dict(sed))[name]
    assert to_native(once).report.clean  # stored once is enough


def test_every_tensor_is_accounted_for(sed):
    tensors = sed | {"model.model.encoder.layers.0.fc3.weight": torch.ones(1), "epoch": torch.ones(())}
    tensors["model.model.encoder.pos_conv.0.weight_g"] = torch.ones(1, 1, 16)  # the gain a second time
    del tensors["model.model.encoder.layers.2.fc2.bias"], tensors["weak_head.bias"]
    report = to_native(tensors).report
    assert report.missing == ["backbone.blocks.2.mlp.fc2.bias", "head.weak.bias"]
    assert set(report.unexpected) == {
        "model.model.encoder.layers.0.fc3.weight", "epoch", "model.model.encoder.pos_conv.0.weight_g"
    }  # fmt: skip
    assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(tensors)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.lists(st.integers(0, 3), max_size=4)))
def test_any_beats_names_and_shapes_are_accounted_for(shapes):
    names = {key: value for n, value in shapes.items() for key in (n, f"model.model.{n}", f"model.model.encoder.{n}")}
    names |= {"model.model.patch_embedding.weight": [2], "model.model.encoder.pos_conv.0.bias": [], "model.model.": [1]}
    tensors = {name: torch.zeros(shape) for name, shape in names.items()}
    assert is_beats(tensors)
    report = to_native(tensors).report
    assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(names) and report.missing


def test_half_precision_is_read_as_float32(sed):
    adapted = to_native({name: tensor.half() for name, tensor in sed.items()})
    assert adapted.report.clean and all(t.dtype == torch.float32 for t in adapted.backbone.values())


def test_no_family_takes_anothers_file(sed):
    original = to_public(backbone(), layout="original")
    for tensors in (sed, original):
        assert is_beats(tensors) and not (eat.is_eat(tensors) or ast.is_ast(tensors) or deit.is_deit(tensors))
    others: list[dict[str, Tensor]] = [{}, {"patch_embedding.weight": torch.ones(1)}, {"v.pos_embed": torch.ones(1)}]
    assert not any(is_beats(tensors) for tensors in others)


def test_a_missing_tensor_cannot_be_written():
    whole = backbone()
    del whole["norm_pre.bias"]
    with pytest.raises(KeyError, match=r"norm_pre\.bias"):
        to_public(whole)
    with pytest.raises(KeyError, match=r"weak\.weight"):
        to_public(backbone(), heads(strong=5))
