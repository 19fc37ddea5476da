"""What a report shows of adapters: where the body looks in some clips, with them and without."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from c2ftool.adapters.insert import without_adapters
from c2ftool.data.store import PreparedSet
from c2ftool.engine.detection_report import Pictures
from c2ftool.engine.selection import Selection
from c2ftool.frontend.build import build_frontend
from c2ftool.metrics.attention_figure import attention_figure
from c2ftool.models.attention_map import attention_map
from c2ftool.models.backbone import Backbone
from c2ftool.spec.resolved import Resolved, ResolvedPhase

_MOST = 3


def attention_pictures(student: nn.Module, resolved: Resolved, phase: ResolvedPhase, selection: Selection) -> Pictures:
    """file -> (PNG, caption): the last block's attention over clips of the test data, before and after adaptation.

    None without adapters, and for a body whose attention is not over the whole grid. Before is the frozen body, its
    adapters out; a body that learned besides has no before here.
    """
    backbone, rows = student.backbone, selection.test
    assert isinstance(backbone, Backbone)
    if not resolved.adapters or resolved.model.freeze != "body" or resolved.model.unfreeze is not None:
        return {}
    if not len(rows) or not isinstance(selection.source, PreparedSet):
        return {}
    pictures: Pictures = {}
    places = np.unique(np.linspace(0, len(rows) - 1, min(_MOST, resolved.clips_shown, len(rows))).round().astype(int))
    device = next(student.parameters()).device
    modes = [(module, module.training) for module in student.modules()]
    student.eval()
    front = phase.frontend
    log_mel = build_frontend(front).to(device)
    try:
        for number, place in enumerate(places):
            waveform = torch.from_numpy(selection.source.waveform(int(rows[place]))[: front.samples].copy())
            padded = torch.zeros(1, front.samples, dtype=waveform.dtype)
            padded[0, : len(waveform)] = waveform
            with torch.no_grad():
                plain = log_mel(padded.to(device), torch.tensor([len(waveform)], device=device))
                features = log_mel.compress(plain)
            after = attention_map(backbone, features)
            with without_adapters(backbone.blocks_of()):
                before = attention_map(backbone, features)
            if before is None or after is None:
                return {}
            name = selection.source.ids[rows[place]]
            maps = [("before adaptation", before[0].cpu().numpy()), ("after", after[0].cpu().numpy())]
            seconds = front.frames * front.hop / front.sample_rate
            image = attention_figure(plain[0].cpu().numpy(), seconds, maps, name, len(waveform) / front.sample_rate)
            caption = f"{name}: log-mel and the last block's attention, without the adapters and with them"
            pictures[f"attention-{number + 1}.png"] = image, caption
    finally:
        for module, mode in modes:
            module.training = mode
    return pictures
