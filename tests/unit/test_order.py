"""The stream of clips: every clip once an epoch, counted, and shared by ranks without changing it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.data.order import Order, class_balanced_weights, local_places
from c2ftool.errors import UsageError
from c2ftool.spec.data import ClassBalanced, Uniform

UNIFORM = Uniform(kind="uniform")


@given(n=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_epoch_is_a_permutation_whatever_the_batch(n, batch, seed):
    rows = np.arange(100, 100 + n)
    order = Order(rows, seed, 0, UNIFORM)
    steps = -(-3 * n // batch)
    stream = np.concatenate([order.batch(s, batch) for s in range(steps)])[: 3 * n].reshape(3, n)
    for epoch in stream:
        assert sorted(epoch) == list(rows)


def test_a_step_can_be_asked_for_out_of_turn():
    rows = np.arange(17)
    forward = [Order(rows, 3, 1, UNIFORM).batch(s, 5) for s in range(9)]
    order = Order(rows, 3, 1, UNIFORM)
    for step in (8, 0, 5, 5, 2):
        assert np.array_equal(order.batch(step, 5), forward[step])


def test_epochs_phases_and_seeds_differ():
    rows = np.arange(50)
    first = Order(rows, 0, 0, UNIFORM).epoch(0)
    for other in (Order(rows, 1, 0, UNIFORM).epoch(0), Order(rows, 0, 1, UNIFORM).epoch(0)):
        assert not np.array_equal(first, other)
    assert not np.array_equal(first, Order(rows, 0, 0, UNIFORM).epoch(1))


def test_class_balanced_weights_follow_the_published_rule():
    targets = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], np.float32)
    a, b = 1000 / 3.01, 1000 / 1.01
    assert np.allclose(class_balanced_weights(targets), [a, a, a + b, 0])


@pytest.mark.parametrize("replacement", [True, False])
def test_balanced_draws_favour_rare_classes(replacement):
    targets = np.zeros((1000, 2), np.float32)
    targets[:980, 0] = 1
    targets[980:, 1] = 1
    weights = class_balanced_weights(targets)
    sampler = ClassBalanced(kind="class_balanced", replacement=replacement, clips=200)
    order = Order(np.arange(1000), 0, 0, sampler, weights)
    drawn = order.epoch(0)
    rare = (drawn >= 980).sum()
    if replacement:
        assert 70 <= rare <= 130
    else:
        assert len(set(drawn)) == 200 and 15 <= rare <= 20


def test_more_clips_than_the_set_without_replacement_is_refused():
    sampler = ClassBalanced(kind="class_balanced", replacement=False, clips=11)
    with pytest.raises(UsageError, match="11 clips an epoch without replacement, 10"):
        Order(np.arange(10), 0, 0, sampler, np.ones(10))


@given(pairs=st.integers(1, 8), world=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_ranks_share_a_batch_and_keep_mirror_places_together(pairs, world):
    batch = 2 * world * pairs
    shares = [local_places(batch, rank, world, 2) for rank in range(world)]
    assert sorted(np.concatenate(shares)) == list(range(batch))
    for share in shares:
        # local reversal is the reversal of the whole batch
        assert np.array_equal(share[::-1], batch - 1 - share)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UsageError, match="batch 10 cannot be shared by 4 devices"):
        local_places(10, 0, 4, 1)
    with pytest.raises(UsageError, match="with mixup"):
        local_places(6, 0, 2, 2)
