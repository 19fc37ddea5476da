"""Gated relative attention against its formula written out, and the published buckets one by one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from c2ftool.models import relative_cpu
from c2ftool.models.relative import GatedAttention, RelativeBias, as_matrix, attend, bucket_index, buckets
from c2ftool.spec.backbones import Relative

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def plain(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, bias: Tensor) -> Tensor:
    """The formula, entry by entry of the bias."""
    heads, tokens = gate.shape[1:]
    qs, ks, vs = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    rows = [torch.stack([bias[:, tokens - 1 + j - i] for j in range(tokens)], dim=-1) for i in range(tokens)]
    logits = qs @ ks.transpose(2, 3) / math.sqrt(qs.shape[3]) + gate[..., None] * torch.stack(rows, dim=1)
    return (logits.softmax(-1) @ vs).transpose(1, 2).flatten(2)


def random_inputs(clips: int, tokens: int, heads: int, width: int, seed: int, dtype: torch.dtype) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    size = (clips, tokens, heads * width)
    return draw(*size), draw(*size), draw(*size), draw(clips, heads, tokens), draw(heads, 2 * tokens - 1)


def with_gradients(result: Tensor, inputs: Inputs) -> list[Tensor]:
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), inputs)]


@settings(max_examples=60, deadline=None)
@given(
    clips=st.integers(1, 3), tokens=st.integers(1, 40), heads=st.integers(1, 3), width=st.integers(1, 5),
    scores=st.sampled_from([64, 300, 1 << 18]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_both_kernels_are_the_formula_and_its_gradients(clips, tokens, heads, width, scores, seed):
    inputs = random_inputs(clips, tokens, heads, width, seed, torch.float64)
    expected = with_gradients(plain(*inputs), inputs)
    before = relative_cpu._SCORES
    try:
        relative_cpu._SCORES = scores  # so that queries are taken in several parts, the last a smaller one
        ours = with_gradients(attend(*inputs), inputs)
    finally:
        relative_cpu._SCORES = before
    fused = with_gradients(attend(*inputs[:4], as_matrix(inputs[4])), inputs)
    for a, b, c in zip(ours, fused, expected, strict=True):
        torch.testing.assert_close(a, c, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(b, c, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_differences():
    inputs = random_inputs(2, 7, 2, 3, 0, torch.float64)
    assert torch.autograd.gradcheck(attend, inputs)
    assert torch.autograd.gradcheck(lambda *x: attend(*x[:4], as_matrix(x[4])), inputs)


def test_at_full_size_it_is_the_formula_in_float32():
    inputs = random_inputs(1, 496, 2, 64, 1, torch.float32)
    index = torch.arange(496)
    q, k, v, gate, bias = (t.detach().double().requires_grad_() for t in inputs)
    mask = gate[..., None] * bias[:, 495 + index[None] - index[:, None]]
    qs, ks, vs = (t.unflatten(2, (2, -1)).transpose(1, 2) for t in (q, k, v))
    exact = ((qs @ ks.mT / 8 + mask).softmax(-1) @ vs).transpose(1, 2).flatten(2)
    expected = with_gradients(exact, (q, k, v, gate, bias))
    for ours, wanted in zip(with_gradients(attend(*inputs), inputs), expected, strict=True):
        assert (ours - wanted).norm() <= 2e-6 * wanted.norm()


def test_every_run_gives_the_same_bits():
    inputs = random_inputs(3, 150, 4, 8, 2, torch.float32)
    first = with_gradients(attend(*inputs), inputs)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, with_gradients(attend(*inputs), inputs), strict=True))


def test_it_is_a_whole_operator_for_compilers_and_runs_without_gradients():
    inputs = random_inputs(2, 20, 2, 4, 3, torch.float32)
    torch.library.opcheck(relative_cpu._attend, inputs)
    expected = attend(*inputs).detach()
    with torch.inference_mode():
        assert torch.equal(attend(*inputs), expected)
    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    for a, b in zip(with_gradients(compiled(*inputs), inputs), with_gradients(attend(*inputs), inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel", ["cpu", "fused"])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_half_precision_is_close_and_no_logit_too_large(dtype, kernel, scale):
    """With a scale of 300, logits reach a million: in float16 they would be infinite."""
    q, k, v, gate, bias = random_inputs(2, 60, 2, 16, 4, torch.float32)
    halves = tuple((t * s).detach().to(dtype).requires_grad_() for t, s in ((q, scale), (k, scale), (v, 1.0)))
    exact = [t.detach().double().requires_grad_() for t in (*halves, gate, bias)]
    assert scale == 1.0 or (exact[0] @ exact[1].mT).abs().max() / 4 > 65504
    shared = bias if kernel == "cpu" else as_matrix(bias)
    found = with_gradients(attend(*halves, gate, shared), (*halves, gate, bias))
    expected = with_gradients(plain(*exact), tuple(exact))
    assert found[0].dtype == dtype
    for name, ours, wanted in zip(("out", "q", "k", "v", "gate", "bias"), found, expected, strict=True):
        assert ours.isfinite().all(), name
        if scale == 1.0 or name in ("out", "v"):  # where one key has all the weight, the others' gradients vanish
            allowed = {torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype] * (1 if kernel == "cpu" else 2)
            assert (ours.double() - wanted).norm() <= allowed * wanted.norm(), name


def test_a_bias_beyond_float16_is_cut_not_infinite():
    q, k, v, gate, bias = random_inputs(1, 5, 1, 4, 5, torch.float32)
    halves = [t.detach().half() for t in (q, k, v)]
    assert attend(*halves, gate.abs() + 1, as_matrix(bias.abs() * 1e6 + 1e6)).isfinite().all()


def test_equal_rows_are_averaged_and_a_far_weight_costs_no_accuracy():
    """Weights between 1e-45 and 1e-38 are where products become slow; here they are 4e-18, as good as nothing."""
    tokens = 30
    x = torch.ones(1, tokens, 8)
    gate, bias = torch.ones(1, 2, tokens), torch.zeros(2, 2 * tokens - 1)
    torch.testing.assert_close(attend(x, x, x, gate, bias), x)
    bias[:, :] = -95.0
    bias[:, tokens - 1] = 0.0  # a token sees itself
    v = torch.randn(1, tokens, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attend(x, x, v, gate, bias), v, rtol=1e-6, atol=1e-12)


# --- buckets and gate -------------------------------------------------------------------------------------------------


def bucket_of(distance: int, count: int, furthest: int) -> int:
    """One distance at a time, as the paper on T5 (Raffel et al., JMLR 2020) has it."""
    half, exact, far = count // 2, count // 4, abs(distance)
    if far >= exact:
        far = min(half - 1, exact + int(math.log(far / exact) / math.log(furthest / exact) * (half - exact)))
    return far + (half if distance > 0 else 0)


@pytest.mark.parametrize(("count", "furthest"), [(320, 800), (32, 64)])
def test_every_distance_has_its_published_bucket(count, furthest):
    distances = range(-furthest - 50, furthest + 51)
    expected = [bucket_of(distance, count, furthest) for distance in distances]
    assert buckets(torch.tensor(distances), count, furthest).tolist() == expected
    assert set(expected) == set(range(count)) - {count // 2}  # no key after the query has distance 0
    index = bucket_index(3, count, furthest, torch.device("cpu"))
    assert index.tolist() == [2, 1, 0, count // 2 + 1, count // 2 + 2]


def test_the_bias_of_a_head_is_its_column_of_the_table():
    shape = Relative(buckets=32, distance=64)
    bias = RelativeBias(shape, heads=3)
    with torch.no_grad():
        bias.table.copy_(torch.arange(96.0).view(32, 3))
    matrix = as_matrix(bias(20))
    for query in range(20):
        for key in range(20):
            assert matrix[:, query, key].tolist() == bias.table[bucket_of(key - query, 32, 64)].tolist()


def test_the_gate_is_the_published_one():
    torch.manual_seed(0)
    attention = GatedAttention(12, 3, 1.0)
    with torch.no_grad():
        attention.gate_scale.copy_(torch.randn(1, 3, 1, 1))
    q = torch.randn(2, 5, 12)
    found = attention.gates(q)
    for head in range(3):
        outputs = attention.gate(q[:, :, 4 * head : 4 * head + 4])
        a, b = outputs[..., :4].sum(-1).sigmoid(), outputs[..., 4:].sum(-1).sigmoid()
        expected = a * (b * attention.gate_scale[0, head] - 1) + 2
        torch.testing.assert_close(found[:, head], expected)


def test_both_kernels_count_two_products_forward_and_four_backward():
    for bias in (lambda x: x, as_matrix):
        inputs = random_inputs(2, 10, 2, 4, 6, torch.float32)
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as flops,
        ):
            out = attend(*inputs[:4], bias(inputs[4]))
            forward = flops.get_total_flops()
            out.sum().backward()
        assert forward == 2 * 2 * 2 * 10 * 10 * 8
        assert flops.get_total_flops() == 3 * forward
