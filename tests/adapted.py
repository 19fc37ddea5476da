"""Small adapted networks for the tests of adapters."""

import torch

from c2ftool.adapters.insert import item_of
from c2ftool.models.build import build_classifier
from c2ftool.models.initialise import initialise
from c2ftool.models.layout import Rules
from c2ftool.spec.adapters import LookAside, Lora, Parallel, decided
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.compression import FrameShift, NoCompression
from c2ftool.spec.frontend import Frontend
from c2ftool.spec.layout import compressed, full_frontend
from c2ftool.spec.model import ClipHead, Model

MICRO = [name for name, size in BACKBONES.items() if name.endswith("_micro") and size.block_widths] + ["eat_tiny"]
RULES = Rules("bilinear", "pi", None)


def tokens_of(backbone, frames=None, factor=1, **given):
    size = BACKBONES[backbone]
    front = full_frontend(Frontend(frames=frames or size.frontend.frames, **given), size, 0.0, 1.0)
    how = FrameShift(method="fshift", factor=factor) if factor > 1 else NoCompression(method="none")
    return compressed(front, how, size, size.patch)[1]


def made(backbone, *items, frames=208, classes=5, **model):
    """A classifier with first values, and its tokens."""
    tokens = tokens_of(backbone, frames)
    spec = Model(backbone=backbone, head=ClipHead(kind="clip", pool=BACKBONES[backbone].pool, norm=True), **model)
    body = build_classifier(spec, tokens, classes, decided(list(items), BACKBONES[backbone].block_widths))
    initialise(body, 3)
    return body.eval(), tokens


def features(tokens, clips=2):
    return torch.randn(clips, tokens.frames, tokens.mels, generator=torch.Generator().manual_seed(1))


def shaken(module, std=0.05):
    """Adapters with values of their own everywhere."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if item_of(name):
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return module


LOAA = LookAside(kind="loaa", at="attention", axis="time", rank=4)
BOTH = Parallel(kind="parallel", at="both", rank=3)
LORA = Lora(kind="lora", rank=2, targets=["qkv", "proj", "fc1", "fc2"])
