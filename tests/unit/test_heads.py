"""Clip heads: what is pooled, and linear softmax pooling against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.models.build import build_classifier
from c2ftool.models.heads import ClipHead, linear_softmax
from c2ftool.models.initialise import initialise
from c2ftool.spec import model as spec_model
from c2ftool.spec.layout import tokens_of


def head(pool: str) -> ClipHead:
    made = ClipHead(8, pool, 3)
    torch.nn.init.normal_(made.fc.weight)
    return made


def by_definition(logits: torch.Tensor) -> torch.Tensor:
    """(B, C) pooled probabilities, float64."""
    p = logits.double().sigmoid()
    return (p * p).sum(1) / p.sum(1)


def test_cls_pooling_looks_at_cls_alone():
    tokens = torch.randn(2, 6, 8)
    changed = tokens.clone()
    changed[:, 1:] += torch.randn(2, 5, 8)
    made = head("cls")
    torch.testing.assert_close(made(tokens), made(changed))
    torch.testing.assert_close(made(tokens), made.fc(made.norm(tokens[:, 0])))


@pytest.mark.parametrize("pool", ["mean", "linear_softmax"])
def test_token_pooling_does_not_look_at_cls(pool):
    tokens, made = torch.randn(2, 6, 8), head(pool)
    changed = tokens.clone()
    changed[:, 0] += torch.randn(2, 8)
    torch.testing.assert_close(made(tokens), made(changed))
    changed[:, 3] += torch.randn(2, 8)
    assert not torch.allclose(made(tokens), made(changed))


def test_mean_pooling_is_mean_then_norm_then_linear():
    tokens, made = torch.randn(2, 6, 8), head("mean")
    torch.testing.assert_close(made(tokens), made.fc(made.norm(tokens[:, 1:].mean(1))))
    assert made.norm.eps == 1e-6


def test_linear_softmax_head_pools_the_tokens_scores():
    tokens, made = torch.randn(2, 6, 8), head("linear_softmax")
    scores = made.fc(made.norm(tokens[:, 1:]))
    torch.testing.assert_close(made(tokens).double().sigmoid(), by_definition(scores), rtol=1e-5, atol=1e-6)


@settings(max_examples=60)
@given(st.lists(st.floats(-30, 12), min_size=1, max_size=20))
def test_linear_softmax_is_its_definition(values):
    logits = torch.tensor(values).reshape(1, -1, 1)
    pooled = linear_softmax(logits)
    assert pooled.double().sigmoid().item() == pytest.approx(by_definition(logits).item(), rel=1e-4)
    assert min(values) - 1e-3 <= pooled.item() <= max(values) + 1e-3


@pytest.mark.parametrize("size", [80.0, 1e4])
def test_linear_softmax_of_certain_scores_is_finite_and_learns(size):
    logits = torch.tensor([[-size, size, -size], [-size, -size, -size], [size, size, size]])[..., None].requires_grad_()
    pooled = linear_softmax(logits)
    pooled.sum().backward()
    assert torch.isfinite(pooled).all() and torch.isfinite(logits.grad).all()
    assert pooled[1].item() == pytest.approx(-size) and pooled[2].item() == pytest.approx(size)


def test_classifier_has_the_documented_names_and_needs_a_head():
    tokens = tokens_of(32, 64, (16, 16))
    with pytest.raises(ValueError, match=r"model\.head"):
        build_classifier(spec_model.Model(backbone="eat_tiny"), tokens, 4)
    model = spec_model.Model(backbone="eat_tiny", head=spec_model.ClipHead(kind="clip", pool="mean"))
    classifier = build_classifier(model, tokens, 4)
    initialise(classifier, 0)
    assert classifier(torch.randn(2, 32, 64)).shape == (2, 4)
    heads = {name for name in classifier.state_dict() if not name.startswith("backbone.")}
    assert heads == {"head.norm.weight", "head.norm.bias", "head.fc.weight", "head.fc.bias"}
