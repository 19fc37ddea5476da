"""Parity case of SSAST: a published file from features to both predictions and losses, and fine-tuned at stride 10."""

from __future__ import annotations

from collections.abc import Callable

import torch
from inputs import Case, Outputs, backbone_named, features, load_strictly, loaded, time_first

from c2ftool.models.build import build_classifier
from c2ftool.models.heads import ClipClassifier
from c2ftool.models.layout import Rules
from c2ftool.models.weights import Start
from c2ftool.objectives.ssast import SsastObjective, SsastStudent
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.model import ClipHead, Model
from c2ftool.spec.objective import Ssast
from c2ftool.spec.resolved import Tokens

# In every published file: ImageNet's classifiers, which are never used, and the size of the input, which is read.
APART = ("v.head.", "v.head_dist.", "p_input_")
ABSOLUTE = 1e-3  # of the accuracy: less than one prediction of 500


@torch.no_grad()
def published_ssast(case: Case) -> Outputs:
    """Predictions and losses with the case's masks, then the fine-tuned classifiers."""
    tokens, start = tokens_in(case, case["config"]["stride"]), weights_of(case)
    student = SsastStudent(Model(backbone=name_of(case)), tokens, Ssast(kind="ssast")).eval()
    load_strictly(student.backbone, start.backbone)
    load_strictly(student.decoder, start.decoder)
    x, masked = features(case["input"]), torch.tensor(case["input"]["masked_patches"])
    discriminative, generative = student(x, masked)
    objective = SsastObjective(student, Ssast(kind="ssast", generative_weight=10.0)).eval()
    sums = objective.loss_given(x, masked)
    nce = sums["discriminative"] / masked.numel()
    error = sums["generative"] / (masked.numel() * generative.shape[2])
    accuracy, recorded = objective.watch(1)["accuracy"], case["scalar_outputs"]["accuracy"]
    if abs(accuracy - recorded) > ABSOLUTE:  # it may be 0, so it is not among the relative errors
        raise AssertionError(f"accuracy {accuracy:.4f} instead of {recorded:.4f}")
    outputs: Outputs = {
        "discriminative_prediction": discriminative,
        "generative_prediction": generative,
        "info_nce": nce,
        "reconstruction_mse": error,
        "joint_loss": objective.weights["discriminative"] * nce + objective.weights["generative"] * error,
    }
    for further in case["fine_tune"]:
        outputs |= {f"{further['tag']}_{name}": value for name, value in fine_tuned(case, further, start).items()}
    return outputs


def fine_tuned(case: Case, given: Case, start: Start) -> Outputs:
    """The weights in a classifier with another stride, fitted as at the start of a run."""
    tokens = tokens_in(case, [given["fstride"], given["tstride"]], given["T"])
    model = Model(backbone=name_of(case), head=ClipHead(kind="clip"))
    classifier: ClipClassifier = build_classifier(model, tokens_in(case, case["config"]["stride"]), given["labels"])
    load_strictly(classifier.backbone, start.backbone)
    load_strictly(classifier.head, start.head)
    size = classifier.backbone.size
    changes = classifier.backbone.resize(tokens, Rules(positions=size.fitted))
    if [change.name for change in changes] != ["pos_embed"]:
        raise AssertionError(f"more than the positions changed, or less: {changes}")
    classifier.eval()
    x = features(given)
    return {
        "position_embedding": classifier.backbone.get_parameter("pos_embed"),
        "embedding_sequence": classifier.backbone(x),
        "logits": classifier(x),
    }


def weights_of(case: Case) -> Start:
    """The case's weights with the classifier's beside them, through the loader, which must find out what they are."""
    config, prefix = case["config"], case["checkpoint"]["prefix"]
    unused = [name for name, _ in case["tensors"] if name.removeprefix(prefix).startswith(APART)]
    start = loaded(case | {"tensors": [*case["tensors"], *case["fine_tune_head_tensors"]]}, unused)
    grid = (config["frames"] // config["patch"][1], config["mel_bins"] // config["patch"][0])
    found = (start.family, start.backbone_name, start.grid, start.patch)
    if found != ("ssast", name_of(case), grid, time_first(config["patch"])):
        raise AssertionError(f"the loader took the weights for those of {found}")
    return start


def name_of(case: Case) -> str:
    """The backbone of the case; its patches are square, so it is not the frame variant."""
    name = backbone_named("ssast", case["config"])
    if name is None:
        raise AssertionError("there is no backbone of the case's size")
    return name


def tokens_in(case: Case, stride: list[int], frames: int | None = None) -> Tokens:
    """The tokens of the case's input at a stride (mel, time)."""
    config = case["config"]
    return tokens_of(frames or config["frames"], config["mel_bins"], time_first(config["patch"]), time_first(stride))


RUN: dict[str, Callable[[Case], Outputs]] = {"ssast": published_ssast}
