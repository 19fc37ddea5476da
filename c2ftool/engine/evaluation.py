"""Scoring clips with a classifier: all rows, in order, shared by the ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from c2ftool.data.loader import Clips, evaluation_batches
from c2ftool.data.order import Rows
from c2ftool.engine.device import Device
from c2ftool.frontend.build import build_frontend
from c2ftool.spec.resolved import ResolvedFrontend


@dataclass(frozen=True)
class Scored:
    """Scores of some rows. N clips, C classes."""

    rows: Rows
    scores: NDArray[np.float32]  # (N, C) logits
    targets: NDArray[np.float32]  # (N, C) multi-hot


@torch.no_grad()
def score_rows(
    classifier: nn.Module,
    source: Clips,
    rows: Rows,
    *,
    frontend: ResolvedFrontend,
    classes: Rows,
    batch: int,
    device: Device,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> Scored:
    """The classifier's logits for the rows, in their order; every rank returns all of them.

    The classifier is in eval mode meanwhile, and in its former mode afterwards.
    """
    modes = [(module, module.training) for module in classifier.modules()]
    classifier.eval()
    features = build_frontend(frontend).to(device.torch)
    mine = rows[device.rank :: device.world]
    scores = np.zeros((len(rows), len(classes)), np.float32)
    batches = evaluation_batches(
        source, mine, batch=batch, samples=frontend.samples, classes=classes, threads=threads, pin=device.cuda
    )
    done = 0
    for host in batches:
        loaded = host.to(device.torch)
        with device.autocast():
            logits: Tensor = classifier(features.compress(features(loaded.waveforms, loaded.lengths)))
        places = device.rank + device.world * host.places.numpy()
        scores[places] = logits.float().cpu().numpy()
        done += len(places)
        if progress is not None:
            progress(done, len(mine))
    if device.world > 1:  # ranks hold different rows and zeros elsewhere, so the sum is the whole
        scores = device.sum_over_ranks(torch.from_numpy(scores).to(device.torch)).cpu().numpy()
    for module, mode in modes:  # one by one: a frozen body may be in evaluation while its head learns
        module.training = mode
    return Scored(rows, scores, source.targets(rows)[:, classes])
