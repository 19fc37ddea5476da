"""Token grids and frame shift: integers that specs are resolved with."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.compression.grid import token_grid

SIZES = st.integers(1, 300)


def test_the_papers_grids() -> None:
    assert token_grid(1024, 128, (16, 16)) == (64, 8)
    assert token_grid(512, 128, (16, 16)) == (32, 8)
    assert token_grid(128, 128, (16, 16)) == (8, 8)
    assert token_grid(998, 128, (16, 16)) == (62, 8)


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(1, 40), st.integers(1, 40))
def test_a_grid_is_what_the_patch_convolution_makes(frames: int, mels: int, time: int, frequency: int) -> None:
    if frames < time or mels < frequency:
        with pytest.raises(ValueError, match=f"{frames} frames x {mels} mel bands"):
            token_grid(frames, mels, (time, frequency))
        return
    image = torch.empty(1, 1, frames, mels, device="meta")
    kernel = torch.empty(1, 1, time, frequency, device="meta")
    made = torch.nn.functional.conv2d(image, kernel, stride=(time, frequency))
    assert token_grid(frames, mels, (time, frequency)) == tuple(made.shape[2:])


def test_specs_are_resolved_without_torch() -> None:
    program = "import sys, c2ftool.compression.grid; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
