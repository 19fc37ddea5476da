"""What many tests need: a small prepared set made of generated sounds, and the real command in a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))
import forked  # noqa: E402


def pytest_collection_modifyitems(items):
    """`gpu` tests are left out with the reason where there is no CUDA device."""
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def run_c2f(*arguments: str, env: dict[str, str] | None = None, cwd: Path = ROOT, timeout: float = 300):
    """The finished `c2f ARGUMENTS`, a process of its own: stdout, stderr, returncode.

    What needs torch is forked from a process that has imported it (forked.py), unless it is given other threads.
    """
    ours = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # which test workers set
    heavy = arguments and arguments[0] in ("pretrain", "finetune", "distill", "evaluate", "flops", "export")
    if heavy and not {"OMP_NUM_THREADS", "PYTHONPATH"} & set(env or {}):
        everything = {**ours, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})}
        return forked.run([str(a) for a in arguments], everything, cwd, timeout)
    return subprocess.run(
        [sys.executable, "-m", "c2ftool", *map(str, arguments)],
        env={**ours, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="session")
def c2f():
    return run_c2f


def make_sounds(folder: Path, clips: int = 12, seconds: float = 1.0, rate: int = 16_000) -> Path:
    """A folder per class: tones that rise, tones that fall, noise; splits train and test."""
    rng = np.random.default_rng(5)
    t = np.arange(int(seconds * rate)) / rate
    for split, count in (("train", clips), ("valid", 4), ("test", 4)):
        for label in ("falling", "noise", "rising"):
            place = folder / split / label
            place.mkdir(parents=True)
            for number in range(count):
                low, high = sorted(rng.uniform(200, 6000, 2))
                sweep = (high - low) / seconds * t**2 / 2
                phase = 2 * np.pi * (low * t + sweep if label == "rising" else high * t - sweep)
                tone = 0.5 * np.sin(phase) if label != "noise" else 0.2 * rng.standard_normal(len(t))
                wave = tone + 0.01 * rng.standard_normal(len(t))
                soundfile.write(place / f"{label}-{number}.wav", wave, rate, subtype="PCM_16")
    return folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A C2F_DATA folder with the sets `sounds` (3 classes; 36 train, 12 valid, 12 test clips of 1 s) and `scenes`."""
    root = tmp_path_factory.mktemp("data")
    sounds = make_sounds(tmp_path_factory.mktemp("audio"))
    done = run_c2f("prepare", "folder", "--from", str(sounds), "--name", "sounds", env={"C2F_DATA": str(root)})
    assert done.returncode == 0, done.stderr
    make_scenes(root)
    return root


def make_scenes(root: Path) -> None:
    """The set `scenes` under the root: some clips of the built-in demo, whose `scenes_*` splits have events to detect
    (24 and 12 clips of 3 s) and whose `train` split stands for clips with weak labels (16)."""
    from c2ftool.data.demo import make_demo

    (root / "scenes").mkdir()
    make_demo(root / "scenes", {"train": 16, "scenes_train": 24, "scenes_test": 12})
