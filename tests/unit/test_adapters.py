"""Adapters: what they compute, where they stand, how many parameters they have."""

import pytest
import torch
from adapted import BOTH, LOAA, LORA, MICRO, RULES, features, made, shaken, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.adapters.beside import BesideBranch, Lay
from c2ftool.adapters.insert import item_of
from c2ftool.models.build import build_backbone, build_classifier
from c2ftool.models.initialise import initialise
from c2ftool.spec.adapters import LookAside, Parallel, decided, per_rank
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.model import ClipHead, Model


@pytest.mark.parametrize("backbone", MICRO)
def test_an_adapted_network_first_computes_what_the_plain_one_does(backbone):
    plain, tokens = made(backbone)
    adapted, _ = made(backbone, LOAA, BOTH, LORA)
    x = features(tokens)
    assert torch.equal(plain(x), adapted(x))
    assert not torch.equal(plain(x), shaken(adapted)(x))


def test_parameters_are_those_of_the_paper():
    # adapters.md, section 2: d = 768, 12 blocks, the head LayerNorm + Linear
    for kernel, ranks in (("none", (54, 108, 216)), ("time", (18, 36, 72)), ("both", (6, 12, 24))):
        for rank, adapters in zip(ranks, (995_328, 1_990_656, 3_981_312), strict=True):
            one = (
                Parallel(kind="parallel", at="attention", rank=rank)
                if kernel == "none"
                else LookAside(kind="loaa", at="feed_forward", axis=kernel, rank=rank)
            )
            with torch.device("meta"):
                spec = Model(backbone="ast_base", freeze="body", head=ClipHead(kind="clip", pool="cls", norm=True))
                tokens = tokens_of("ast_base", 400)
                for classes, total in ((44, adapters + 35_372), (50, adapters + 1_536 + 769 * 50)):
                    built = build_classifier(spec, tokens, classes, decided([one], [768] * 12))
                    assert sum(p.numel() for p in built.parameters() if p.requires_grad) == total


@pytest.mark.parametrize("wanted, axis, rank", [(2.0e6, "time", 36), (4.0e6, "time", 72), (1.0e6, "both", 6)])
def test_a_budget_of_parameters_gives_the_papers_ranks(wanted, axis, rank):
    item = LookAside(kind="loaa", at="attention", axis=axis, parameters=wanted)
    assert decided([item], [768] * 12)[0].rank == rank


@given(
    width=st.integers(2, 40),
    depth=st.integers(1, 4),
    kernel=st.sampled_from([3, 5]),
    axis=st.sampled_from(["time", "frequency", "both"]),
    at=st.sampled_from(["attention", "feed_forward", "both"]),
    bias=st.booleans(),
    budget=st.integers(1, 200_000),
)
def test_a_budget_is_kept_and_used_up(width, depth, kernel, axis, at, bias, budget):
    item = LookAside(kind="loaa", at=at, axis=axis, kernel=kernel, parameters=budget, bias=bias)
    each, beside = per_rank(item, [width] * depth)
    if budget < each + beside:
        with pytest.raises(ValueError, match="less than a rank of 1"):
            decided([item], [width] * depth)
        return
    one = decided([item], [width] * depth)[0]
    places = depth * (2 if at == "both" else 1)
    count = places * sum(p.numel() for p in BesideBranch(width, one, Lay(0, 2, True)).parameters())
    assert count <= budget < count + each


@settings(max_examples=40, deadline=None)
@given(
    time=st.integers(1, 7),
    frequency=st.integers(1, 5),
    prefix=st.integers(0, 2),
    mel_major=st.booleans(),
    chunks=st.sampled_from([1, 2]),
    bias=st.booleans(),
)
def test_a_map_and_back_are_the_tokens(time, frequency, prefix, mel_major, chunks, bias):
    lay = Lay(prefix, frequency, mel_major or chunks > 1, chunks)
    x = torch.arange(2 * time * chunks * frequency * 3).float().view(2, -1, 3)
    assert torch.equal(lay.to_tokens(lay.to_grid(x)), x)


def test_the_map_is_the_grid():
    """Tokens whose value is their (f, t) are found there, in each order."""
    f, t = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    grid = torch.stack([f, t])  # (2, F, T)
    last = grid.permute(1, 2, 0)
    assert torch.equal(Lay(0, 3, True).to_grid(grid.flatten(1).t()[None])[0], last)
    time_major = grid.transpose(1, 2).flatten(1).t()[None]
    assert torch.equal(Lay(0, 3, False).to_grid(time_major)[0], last)
    folded = grid.unflatten(2, (2, 2)).transpose(1, 2).flatten(1).t()[None]  # two chunks of two, one below the other
    assert torch.equal(Lay(0, 3, True, chunks=2).to_grid(folded)[0], last)


@settings(max_examples=40, deadline=None)
@given(
    time=st.integers(1, 6),
    frequency=st.integers(1, 5),
    prefix=st.integers(0, 2),
    mel_major=st.booleans(),
    axis=st.sampled_from(["time", "frequency", "both"]),
    kernel=st.sampled_from([3, 5]),
    bias=st.booleans(),
    relu=st.booleans(),
)
def test_it_is_two_convolutions_over_the_grid(time, frequency, prefix, mel_major, axis, kernel, bias, relu):
    """Equation 2 by torch's own convolutions; a token in front is a map of one token (Convpass)."""
    activation = "relu" if relu else "gelu"
    item = LookAside(kind="loaa", at="both", axis=axis, kernel=kernel, rank=3, bias=bias, activation=activation)
    adapter = BesideBranch(4, item, Lay(prefix, frequency, mel_major)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(2, prefix + time * frequency, 4, generator=generator).double()

    def convolved(image):
        sides = tuple(side // 2 for side in adapter.down.shape[2:])
        inside = torch.nn.functional.conv2d(image, adapter.down, adapter.down_bias, padding=sides)
        inside = getattr(torch.nn.functional, activation)(inside)
        return torch.nn.functional.conv2d(inside, adapter.up, adapter.up_bias, padding=sides)

    shape = (frequency, time) if mel_major else (time, frequency)
    image = x[:, prefix:].unflatten(1, shape).permute(0, 3, 1, 2)
    image = image if mel_major else image.transpose(2, 3)
    grid = convolved(image)
    tokens = (grid if mel_major else grid.transpose(2, 3)).flatten(2).transpose(1, 2)
    front = [convolved(x[:, p, :, None, None])[..., 0, 0][:, None] for p in range(prefix)]
    torch.testing.assert_close(adapter(x, x), torch.cat([*front, tokens], dim=1))


@pytest.mark.parametrize("mel_major", [True, False])
@pytest.mark.parametrize("axis", ["time", "frequency", "both"])
@pytest.mark.parametrize("prefix", ["centre", "skip"])
def test_a_change_of_one_token_reaches_two_steps_along_the_axis_and_no_further(mel_major, axis, prefix):
    time, frequency, front = 9, 7, 2
    item = LookAside(kind="loaa", at="attention", axis=axis, rank=3, prefix=prefix)
    # in float64, and small: the slope of the activation is nowhere rounded to zero
    adapter = shaken_branch(BesideBranch(6, item, Lay(front, frequency, mel_major))).double()
    x = 0.1 * torch.randn(1, front + time * frequency, 6, generator=torch.Generator().manual_seed(1)).double()
    base = adapter(x, x)
    for at_f, at_t in ((0, 0), (3, 4), (6, 8)):
        place = front + (at_f * time + at_t if mel_major else at_t * frequency + at_f)
        other = x.clone()
        other[0, place] += 1
        moved = (adapter(other, other) - base).abs().sum(2)[0]
        assert not moved[:front].any()
        grid = moved[front:].view(frequency, time) if mel_major else moved[front:].view(time, frequency).t()
        f, t = torch.meshgrid(torch.arange(frequency), torch.arange(time), indexing="ij")
        along_f, along_t = (2 if axis != "time" else 0), (2 if axis != "frequency" else 0)
        near = ((f - at_f).abs() <= along_f) & ((t - at_t).abs() <= along_t)
        assert torch.equal(grid > 0, near)
    fronted = x.clone()
    fronted[0, 0] += 1
    moved = (adapter(fronted, fronted) - base).abs().sum(2)[0] > 0
    assert moved.sum() == (0 if prefix == "skip" else 1) and moved[0] == (prefix == "centre")
    if prefix == "skip":
        assert not base[:, :front].any()


def shaken_branch(branch):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.1)
    return branch


def test_turning_grid_and_kernel_together_changes_nothing():
    item = LookAside(kind="loaa", at="attention", axis="both", rank=3)
    one = shaken_branch(BesideBranch(6, item, Lay(1, 4, True)))
    other = BesideBranch(6, item, Lay(1, 5, True))
    with torch.no_grad():
        other.down.copy_(one.down.transpose(2, 3))
        other.up.copy_(one.up.transpose(2, 3))
    x = torch.randn(2, 1 + 20, 6)
    turned = torch.cat([x[:, :1], x[:, 1:].unflatten(1, (4, 5)).transpose(1, 2).flatten(1, 2)], 1)
    back = other(turned, turned)[:, 1:].unflatten(1, (5, 4)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(back, one(x, x)[:, 1:])


@pytest.mark.parametrize("mel_major", [True, False])
def test_a_kernel_of_one_is_the_parallel_adapter(mel_major):
    """Equation 2 with 1 x 1 is equation 1; and a wide kernel with nothing beside its centre is, too."""
    item = Parallel(kind="parallel", at="attention", rank=4, bias=True)
    one = shaken_branch(BesideBranch(6, item, Lay(2, 4, mel_major)))
    x = torch.randn(3, 2 + 20, 6)
    by_hand = torch.nn.functional.gelu(x @ one.down[:, :, 0, 0].T + one.down_bias) @ one.up[:, :, 0, 0].T + one.up_bias
    torch.testing.assert_close(one(x, x), by_hand)
    wide = LookAside(kind="loaa", at="attention", axis="both", rank=4, bias=True)
    other = BesideBranch(6, wide, Lay(2, 4, mel_major))
    with torch.no_grad():
        other.down[:, :, 1, 1], other.up[:, :, 1, 1] = one.down[:, :, 0, 0], one.up[:, :, 0, 0]
        other.down_bias.copy_(one.down_bias), other.up_bias.copy_(one.up_bias)
    torch.testing.assert_close(other(x, x), by_hand)


def test_the_residual_input_scale_and_activation_are_used():
    given, stream = torch.randn(1, 4, 6), torch.randn(1, 4, 6)
    plain = Parallel(kind="parallel", at="attention", rank=4)

    def out(**changed):
        return shaken_branch(BesideBranch(6, plain.model_copy(update=changed), Lay(0, 1, True)))(given, stream)

    assert torch.equal(out(input="residual"), shaken_branch(BesideBranch(6, plain, Lay(0, 1, True)))(stream, given))
    torch.testing.assert_close(out(scale=0.25), 0.25 * out())
    assert not torch.equal(out(activation="relu"), out())


@pytest.mark.parametrize("backbone", [name for name in MICRO if not name.startswith(("atst", "fpasst", "ssast_frame"))])
def test_a_body_tells_how_its_tokens_lie(backbone):
    """Energy in one mel band moves, through an adapter over time alone, no token of another band.

    The blocks' own attention is silenced: their outputs, biases too, are zero.
    """
    item = LookAside(kind="loaa", at="both", axis="time", rank=4, blocks=[0])
    tokens = tokens_of(backbone, 208)
    body = build_backbone(Model(backbone=backbone), tokens, decided([item], BACKBONES[backbone].block_widths)).eval()
    initialise(body, 3)
    shaken(body, 0.3)
    block, lay = body.blocks[0], body.lays()[0]
    width = BACKBONES[backbone].block_widths[0]
    count = lay.prefix + tokens.count
    frequency, time = lay.frequency, tokens.count // lay.frequency
    x = torch.randn(1, count, width)
    beside = block.beside_attention
    other = x.clone()
    if lay.chunks > 1:
        bands = torch.arange(tokens.count).view(lay.chunks, frequency, -1)[:, 1].flatten()
    elif lay.mel_major:
        bands = torch.arange(tokens.count).view(frequency, time)[1]
    else:
        bands = torch.arange(tokens.count).view(time, frequency)[:, 1]
    other[0, lay.prefix + bands[0]] += 1
    moved = (beside(other, other) - beside(x, x)).abs().sum(2)[0] > 1e-9
    found = torch.nonzero(moved).flatten() - lay.prefix
    assert set(found.tolist()) == set(bands[:3].tolist())


@pytest.mark.parametrize("backbone", ["ast_micro", "htsat_micro", "m2d_micro"])
def test_another_token_grid_leaves_the_adapters_as_they_are(backbone):
    coarse = tokens_of(backbone, 416, factor=2)
    fine = tokens_of(backbone, 416)
    body = build_backbone(Model(backbone=backbone), coarse, decided([LOAA], BACKBONES[backbone].block_widths)).eval()
    initialise(body, 1)
    shaken(body)
    before = {name: value.clone() for name, value in body.state_dict().items() if item_of(name)}
    changes = body.resize(fine, RULES)
    assert not [change.name for change in changes if item_of(change.name)]
    after = body.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    lays = {id(block): block.beside_attention["@a0"].lay for block in body.blocks}
    assert list(lays.values()) == body.lays()
    body(features(fine))


def test_m2d_looks_within_its_chunks():
    """A clip of two chunks has the adapter in each, as its attention is."""
    tokens = tokens_of("m2d_micro", 2002)
    body = build_backbone(Model(backbone="m2d_micro"), tokens, decided([LOAA], [96] * 4)).eval()
    initialise(body, 1)
    shaken(body, 0.3)
    x = features(tokens, 1)
    whole = body.sequence(x)
    half = tokens_of("m2d_micro", 1001)
    body.resize(half, RULES)
    torch.testing.assert_close(torch.cat([body.sequence(x[:, :1001]), body.sequence(x[:, 1001:])], 1), whole)
