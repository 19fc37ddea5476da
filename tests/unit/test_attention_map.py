"""Attention over the token grid: the body's own, on its own axes, with adapters and without; and its picture."""

import pytest
import torch

from c2ftool.adapters.insert import without_adapters
from c2ftool.metrics.attention_figure import attention_figure
from c2ftool.models.attention_map import _probabilities, attention_map
from c2ftool.models.build import build_backbone
from c2ftool.models.initialise import initialise
from c2ftool.models.relative import as_matrix
from c2ftool.spec.adapters import Lora, Parallel, decided
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import NoCompression
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import compressed, full_frontend
from c2ftool.spec.model import Model


def made(backbone, *items, frames=112):
    size = BACKBONES[backbone]
    front = full_frontend(Frontend(frames=frames), size, 0.0, 1.0)
    tokens = compressed(front, NoCompression(method="none"), size, size.patch)[1]
    body = build_backbone(Model(backbone=backbone), tokens, decided(list(items), size.block_widths)).eval()
    initialise(body, 2)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return body, torch.randn(2, tokens.frames, tokens.mels, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "backbone", ["ast_micro", "eat_tiny", "beats_micro", "atst_micro", "fpasst_micro", "m2d_micro"]
)
def test_the_map_is_what_the_block_mixes_by(backbone):
    """Values mixed by these probabilities are the attention's own output."""
    body, x = made(backbone)
    found = attention_map(body, x)
    time, frequency = body.grid(x.shape[1])
    assert found.shape == (2, frequency, time)
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(2))
    attention, seen = body.blocks[-1].attn, []
    attention.register_forward_pre_hook(lambda module, given: seen.append(given))
    body(x)
    given = seen[0]
    mixed = _probabilities(attention, *given)
    if backbone.startswith("beats"):
        v = attention.v(given[0]).unflatten(2, (attention.heads, -1)).transpose(1, 2)
        assert given[1].dim() == 2 and as_matrix(given[1]).dim() == 3
    else:
        v = attention.qkv(given[0]).unflatten(2, (3, attention.heads, -1))[:, :, 2].transpose(1, 2)
    out = attention.proj((mixed @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(out, attention(*given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["ast_micro", "eat_tiny"])
def test_axes_are_frequency_and_time(backbone):
    """A key that attention is drawn to is found at its place of the grid."""
    body, x = made(backbone)
    lay, (time, frequency) = body.lays()[-1], body.grid(x.shape[1])
    f, t = 2, 5
    place = lay.prefix + (f * time + t if lay.mel_major else t * frequency + f)
    attention = body.blocks[-1].attn

    def drawn(module, given, out):
        """One key that is a thousand times each query."""
        out = out.clone()
        q, k, v = out.chunk(3, dim=2)
        k = torch.zeros_like(k)
        k[:, place] = 1000 * q.mean(1)
        return torch.cat([q.mean(1, keepdim=True).expand_as(q), k, v], dim=2)

    handle = attention.qkv.register_forward_hook(drawn)
    found = attention_map(body, x)
    handle.remove()
    assert found[0].argmax() == f * time + t and found[0, f, t] > 0.99


def test_without_adapters_the_body_looks_as_it_did():
    items = Parallel(kind="parallel", at="both", rank=3), Lora(kind="lora", rank=2)
    body, x = made("ast_micro", *items)
    adapted = attention_map(body, x)
    names = set(dict(body.named_modules()))
    with without_adapters(body.blocks_of()):
        before = attention_map(body, x)
        plain, _ = made("ast_micro")
        plain.load_state_dict({k: v for k, v in body.state_dict().items() if k in plain.state_dict()})
        assert torch.equal(before, attention_map(plain, x))
    assert set(dict(body.named_modules())) == names
    assert not torch.equal(before, adapted) and torch.equal(adapted, attention_map(body, x))


def test_compiled_blocks_have_the_same_map():
    body, x = made("ast_micro", Parallel(kind="parallel", at="both", rank=3))
    plain = attention_map(body, x)
    for block in body.blocks:
        block.compile(backend="eager")
    body(x)
    compiled = [block._compiled_call_impl for block in body.blocks]
    assert torch.equal(attention_map(body, x), plain)
    assert [block._compiled_call_impl for block in body.blocks] == compiled and all(compiled)


def test_where_attention_is_not_over_the_grid_there_is_no_map():
    for backbone, frames in (("htsat_micro", 512), ("cnn14_micro", 512), ("m2d_micro", 1500)):
        body, x = made(backbone, frames=frames)
        assert attention_map(body, x) is None


def test_the_picture_needs_maps_and_features():
    features, maps = torch.randn(100, 64).numpy(), [("before", torch.full((4, 5), 0.05).numpy())]
    image = attention_figure(features, 1.0, maps, "clip $1", clip=0.5)
    assert image[:4] == b"\x89PNG" and image == attention_figure(features, 1.0, maps, "clip $1", clip=0.5)
    assert image != attention_figure(features, 1.0, maps, "clip $1")
    with pytest.raises(ValueError, match="frames, mels"):
        attention_figure(features[0], 1.0, maps, "x")
    with pytest.raises(ValueError, match="map: bad"):
        attention_figure(features, 1.0, [("bad", [1.0])], "x")
