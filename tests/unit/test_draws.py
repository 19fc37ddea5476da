"""Counted randomness: the same bits whatever the batch is cut into."""

import numpy as np
import torch

from c2ftool.draws import Draw, counted_key, philox


def whole(rows: int = 12, **kw) -> Draw:
    return Draw(**{"seed": 1, "phase": 0, "step": 7, **kw}, rows=torch.arange(rows))


def test_philox_gives_the_published_known_answers():
    # Random123 1.14, kat_vectors: philox4x32, 10 rounds
    zero = torch.zeros(1, dtype=torch.int64)
    ones = torch.full((1,), 0xFFFFFFFF)
    assert [int(w) for w in philox((zero,) * 4, 0)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert [int(w) for w in philox((ones,) * 4, 2**64 - 1)] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = [torch.tensor([w]) for w in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
    key = 0x299F31D0 << 32 | 0xA4093822
    assert [int(w) for w in philox(tuple(pi), key)] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_rows_draw_the_same_in_any_slice():
    draw = whole()
    for kind in (
        lambda d: d.uniform("a", 5, 3),
        lambda d: d.integers("b", 17, 9),
        lambda d: d.noise("c", 33),
        lambda d: d.beta("d", 10, 10),
        lambda d: d.clones(4).uniform("e", 6).reshape(-1, 24),
    ):
        parts = torch.cat([kind(draw.select(slice(i, i + 5))) for i in range(0, 12, 5)])
        assert torch.equal(kind(draw), parts)


def test_purpose_step_phase_and_seed_each_change_the_draw():
    base = whole().uniform("mask", 8)
    for other in (whole(seed=2), whole(phase=1), whole(step=8)):
        assert not torch.equal(base, other.uniform("mask", 8))
    assert not torch.equal(base, whole().uniform("roll", 8))
    assert counted_key(1, 23) != counted_key(12, 3)


def test_uniform_and_integers_have_their_distribution():
    draw = whole(200)
    u = draw.uniform("u", 1000)
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean().item() - 0.5) < 0.003 and abs(u.var().item() - 1 / 12) < 0.001
    counts = np.bincount(draw.integers("i", 10, 1000).flatten().numpy(), minlength=10)
    assert counts.min() > 19_400 and counts.max() < 20_600
    assert abs(draw.noise("n", 500).std().item() - 1) < 0.01
