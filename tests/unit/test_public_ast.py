"""Published AST files and timm's DeiT: every tensor is accounted for, grids are told, others read our exports."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from c2ftool.errors import DataError
from c2ftool.models.public.ast import grid_of, is_ast, to_native, to_public
from c2ftool.models.public.deit import is_deit
from c2ftool.models.public.records import PUBLIC_WEIGHTS
from c2ftool.models.weights import save_weights, starting_weights
from c2ftool.spec.backbones import BACKBONES

CLASSES = 7
DEIT = "deit_tiny_distilled_patch16_224"
IMAGENET_HEADS = {f"module.v.{head}.{kind}" for head in ("head", "head_dist") for kind in ("weight", "bias")}


def network(positions: int = 1212, patch: tuple[int, int] = (16, 16)) -> nn.Module:
    """AST as its authors build it, and as DataParallel saves it. patch: (time, mel)."""
    inner = nn.Module()
    inner.v = timm.create_model(DEIT, pretrained=False)
    inner.v.patch_embed.proj = nn.Conv2d(1, 192, (patch[1], patch[0]), stride=(10, 10))
    inner.v.pos_embed = nn.Parameter(torch.zeros(1, 2 + positions, 192))
    inner.mlp_head = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, CLASSES))
    outer = nn.Module()
    outer.module = inner
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in outer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return outer


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return dict(network().state_dict())


def test_a_published_file_loads_whole_and_goes_back_as_it_was(published, tmp_path):
    torch.save(published, tmp_path / "ast.pth")
    start = starting_weights(tmp_path / "ast.pth")
    assert (start.family, start.backbone_name, start.record) == ("ast", "ast_tiny", None)
    assert (start.grid, start.patch) == ((101, 12), (16, 16))
    assert start.head is not None and start.decoder is None and start.teacher is None
    assert start.report.startswith("AST: 155 tensors loaded, 4 ignored (ImageNet's classes")

    public = to_public(start.backbone, start.head)
    assert list(public) == list(published)
    for name, tensor in published.items():
        expected = torch.zeros_like(tensor) if name in IMAGENET_HEADS else tensor
        assert public[name].shape == tensor.shape and torch.equal(public[name], expected), name
    network().load_state_dict(public, strict=True)


def test_every_tensor_is_accounted_for(published):
    tensors = published | {"module.v.fc_norm.weight": torch.ones(1), "epoch": torch.ones(())}
    del tensors["module.v.blocks.5.mlp.fc2.bias"], tensors["module.mlp_head.0.weight"]
    report = to_native(tensors).report
    assert report.ignored.keys() == IMAGENET_HEADS
    assert report.unexpected == ["module.v.fc_norm.weight", "epoch"]
    assert report.missing == ["backbone.blocks.5.mlp.fc2.bias", "head.norm.weight"] and not report.clean
    assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(tensors)
    assert "2 unexpected (module.v.fc_norm.weight, epoch)" in str(report)


def test_an_incomplete_file_is_refused(published, tmp_path):
    torch.save({n: t for n, t in published.items() if "blocks.3.norm1" not in n}, tmp_path / "ast.pth")
    with pytest.raises(DataError, match=r"incomplete.*backbone\.blocks\.3\.norm1\.bias"):
        starting_weights(tmp_path / "ast.pth")


def test_names_without_module_half_precision_and_no_head_are_known(published):
    bare = {n.removeprefix("module."): t.half() for n, t in published.items() if "mlp_head" not in n}
    adapted = to_native(bare)
    assert is_ast(bare) and not is_deit(bare) and adapted.report.clean and not adapted.head
    assert adapted.report.layout == "AST without its head"
    assert all(t.dtype == torch.float32 for t in adapted.backbone.values())


def test_a_name_that_comes_twice_is_not_taken_twice(published):
    report = to_native(published | {"v.cls_token": torch.zeros(1, 1, 192)}).report
    assert report.unexpected == ["v.cls_token"]


def test_another_size_has_no_name(published):
    report = to_native({n: t for n, t in published.items() if "blocks.11." not in n}).report
    assert report.backbone is None and report.clean


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.lists(st.integers(0, 3), max_size=4)))
def test_any_ast_names_and_shapes_are_accounted_for(shapes):
    names = {key: value for n, value in shapes.items() for key in (n, f"module.v.{n}", f"v.blocks.0.{n}", f"v.{n}")}
    names |= {"v.pos_embed": [0], "module.v.patch_embed.proj.weight": [1], "v.head.weight": []}
    report = to_native({name: torch.zeros(shape) for name, shape in names.items()}).report
    assert sorted([*report.loaded, *report.ignored, *report.unexpected]) == sorted(names)
    assert report.missing and report.notes


# --- grids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "frames"), [(10, 1024), (12, 1024), (14, 1024), (16, 1024), (10, 128)], ids=lambda value: str(value)
)
def test_the_grid_of_every_published_table_is_known(stride, frames):
    time, frequency = (frames - 16) // stride + 1, (128 - 16) // stride + 1
    assert grid_of(time * frequency, (16, 16)) == ((time, frequency), "")


@pytest.mark.parametrize(("patch", "grid"), [((16, 16), (32, 8)), ((32, 16), (32, 8)), ((2, 128), (512, 1))])
def test_tables_without_overlap_of_our_own_sizes_are_known(patch, grid):
    assert grid_of(grid[0] * grid[1], patch)[0] == grid


def test_a_table_that_could_be_of_several_grids_has_none_and_the_report_says_so():
    tensors = network(positions=600).state_dict()
    adapted = to_native(tensors)
    assert adapted.grid is None and adapted.patch == (16, 16) and adapted.report.clean
    assert "600 positions are 8 x 75 or 10 x 60 or 12 x 50 (mel x time)" in str(adapted.report)
    assert "none of the known ones" in grid_of(601, (16, 16))[1]


@settings(max_examples=200, deadline=None)
@given(time=st.integers(1, 400), stride=st.sampled_from([10, 12, 14, 16]))
def test_a_grid_is_never_told_wrongly(time, stride):
    frequency = (128 - 16) // stride + 1
    found, note = grid_of(time * frequency, (16, 16))
    if time * frequency == 144:  # the table of Speech Commands
        assert found == (12, 12)
    else:
        assert found == (time, frequency) or (found is None and f"{frequency} x {time}" in note)


def test_the_patch_is_told_as_time_by_mel():
    adapted = to_native(network(positions=256, patch=(32, 16)).state_dict())
    assert adapted.backbone["patch_embed.proj.weight"].shape == (192, 1, 16, 32)
    assert adapted.patch == (32, 16) and adapted.grid == (32, 8)


# --- DeiT -------------------------------------------------------------------------------------------------------------


def test_timms_deit_starts_an_ast(tmp_path):
    state = timm.create_model(DEIT, pretrained=False).state_dict()
    save_file(state, tmp_path / "deit.safetensors")
    start = starting_weights(tmp_path / "deit.safetensors")
    assert (start.family, start.backbone_name, start.head) == ("deit", "ast_tiny", None)
    assert (start.grid, start.patch) == ((14, 14), (16, 16))
    assert (
        start.report
        == "distilled DeiT (ImageNet): 151 tensors loaded, 4 ignored (ImageNet's classes, which AST does not use)"
    )
    assert {n for n in state if not n.startswith("head")} == start.backbone.keys()
    kernel = "patch_embed.proj.weight"
    assert all(torch.equal(t, state[n]) for n, t in start.backbone.items() if n != kernel)
    # a grey image gives what it gave before
    image = torch.randn(2, 1, 64, 48, generator=torch.Generator().manual_seed(0))
    before = nn.functional.conv2d(image.expand(-1, 3, -1, -1), state[kernel], stride=16)
    torch.testing.assert_close(nn.functional.conv2d(image, start.backbone[kernel], stride=16), before)


def test_the_authors_own_deit_file_at_384_pixels_is_known(tmp_path):
    model = timm.create_model("deit_base_distilled_patch16_384", pretrained=False, depth=1, embed_dim=96, num_heads=3)
    torch.save({"model": model.state_dict()}, tmp_path / "deit.pth")
    start = starting_weights(tmp_path / "deit.pth")
    assert (start.family, start.grid, start.backbone_name) == ("deit", (24, 24), None)


def test_a_transformer_without_distillation_token_is_refused(tmp_path):
    plain = timm.create_model("vit_tiny_patch16_224", pretrained=False, depth=1)
    save_file(plain.state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(DataError, match="without distillation token; AST needs a distilled one") as caught:
        starting_weights(tmp_path / "vit.safetensors")
    assert "timm:deit_base_distilled_patch16_384" in str(caught.value)


def test_a_deit_on_an_oblong_image_has_no_grid(tmp_path):
    oblong = timm.create_model(DEIT, pretrained=False, img_size=(64, 32), depth=1)
    save_file(oblong.state_dict(), tmp_path / "deit.safetensors")
    start = starting_weights(tmp_path / "deit.safetensors")
    assert start.grid is None and "8 positions are no square grid" in start.report


# --- our own files ----------------------------------------------------------------------------------------------------

TOKENS = {"grid": [101, 12], "patch": [16, 16], "stride": [10, 10]}


def saved(path, published, *, head: bool = True, **record) -> None:
    """A weights file of ours."""
    adapted = to_native(published)
    state = {f"backbone.{n}": t for n, t in adapted.backbone.items()}
    state |= {f"head.{n}": t for n, t in adapted.head.items()} if head else {}
    save_weights(path, state, {"backbone": "ast_tiny", "step": 3, **record})


def test_our_files_tell_grid_and_patch_by_their_record(published, tmp_path):
    path = tmp_path / "w.safetensors"
    saved(path, published, tokens=TOKENS)
    start = starting_weights(path)
    assert (start.family, start.backbone_name, start.grid, start.patch) == ("ast", "ast_tiny", (101, 12), (16, 16))
    for tokens in (None, {}, {"grid": "8 x 8", "patch": [16]}, [1, 2]):
        saved(path, published, tokens=tokens)
        start = starting_weights(path)
        assert (start.grid, start.patch) == (None, None)
    saved(path, published, backbone="eat_tiny")
    assert starting_weights(path).family == "eat"


def test_export_of_an_ast_is_as_published_and_says_its_stride(published, tmp_path, c2f):
    saved(tmp_path / "w.safetensors", published, tokens=TOKENS)
    done = c2f("export", tmp_path / "w.safetensors", "--to", tmp_path / "ast.pth")
    assert done.returncode == 0, done.stderr
    assert "AST, 159 tensors, stride 10 x 10 (time x mel), grid 101 x 12" in " ".join(done.stdout.split())
    content = torch.load(tmp_path / "ast.pth", weights_only=True)
    network().load_state_dict(content, strict=True)
    assert torch.equal(content["module.mlp_head.1.weight"], published["module.mlp_head.1.weight"])
    assert list(content) == list(published)

    again = c2f("export", tmp_path / "w.safetensors", "--to", tmp_path / "b.pth", "--layout", "ast", "--json")
    summary = json.loads(again.stdout)
    assert (summary["layout"], summary["stride"], summary["grid"], summary["tensors"]) == (
        "AST",
        [10, 10],
        [101, 12],
        159,
    )


def test_export_refuses_another_familys_layout_and_weights_without_a_head(published, tmp_path, c2f):
    saved(tmp_path / "w.safetensors", published, tokens=TOKENS)
    done = c2f("export", tmp_path / "w.safetensors", "--to", tmp_path / "x.pth", "--layout", "eat")
    assert done.returncode == 2 and "ast_tiny cannot be written as eat" in done.stderr
    saved(tmp_path / "body.safetensors", published, head=False)
    done = c2f("export", tmp_path / "body.safetensors", "--to", tmp_path / "x.pth")
    assert done.returncode == 3 and "these weights have none" in done.stderr
    assert not (tmp_path / "x.pth").exists()


# --- records ----------------------------------------------------------------------------------------------------------


def test_records_of_ast_say_stride_classes_and_front_end():
    records = [record for record in PUBLIC_WEIGHTS.values() if record.family == "ast"]
    assert len(records) == 8
    for record in records:
        assert BACKBONES[record.backbone].family == "ast"
        stride = int(record.name.split("_")[2])  # ast_DATA_STRIDE_STRIDE_SCORE
        assert record.stride == (stride, stride)
        speech = "speechcommands" in record.name
        assert record.frontend is not None
        front = record.frontend
        assert (record.classes, front.frames) == ((35, 128) if speech else (527, 1024))
        assert (front.mean, front.std) == ((-6.845978, 5.5654526) if speech else (-4.2677393, 4.5689974))
        assert all(
            s.url.startswith("https://www.dropbox.com/s/") and s.url.endswith(".pth?dl=1") for s in record.sources
        )
