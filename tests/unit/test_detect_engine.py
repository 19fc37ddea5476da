"""What detection and distillation ask of the engine: targets, slices, choices of rows, starts, and wrong inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.data.batch import FrameLabels, HostBatch
from c2ftool.data.logits_writer import LogitsWriter
from c2ftool.data.order import Order
from c2ftool.data.store import PreparedSet
from c2ftool.engine.device import open_device
from c2ftool.engine.ensemble import find_ensemble
from c2ftool.engine.evaluation import score_frames
from c2ftool.engine.rescore import rescore_all
from c2ftool.engine.selection import facts, select
from c2ftool.engine.start import load_start
from c2ftool.engine.train import Options, prepare, train
from c2ftool.engine.trained import build_scoring_model
from c2ftool.errors import C2FError, SpecError, UsageError
from c2ftool.frontend.build import build_frontend
from c2ftool.models.initialise import initialise
from c2ftool.models.public.writing import Parts, published
from c2ftool.models.weights import save_weights
from c2ftool.objectives.build import build_objective
from c2ftool.objectives.detect import DetectObjective
from c2ftool.spec.data import ActiveTime, Data
from c2ftool.spec.load import Loaded, load_file
from c2ftool.spec.objective import Detect
from c2ftool.spec.resolved import Resolved

SPEC = """
c2f: 1
name: detect
task: finetune
seed: 4
data: {dataset: scenes, train: [scenes_train], test: [scenes_test], labels: frame}
frontend: {frames: 301}
model: {backbone: atst_micro, head: {kind: frame}}
objective: {kind: detect}
train: {batch: 8, optimizer: {kind: adam, lr: 2e-3}, schedule: {kind: constant}}
phases: [{name: fine, length: 1 steps}]
evaluate: {clips_shown: 1}
tracking: {kind: none, every: 1}
"""
DISTILL = ("task=distill", 'teachers=[{kind: ensemble, members: ["run:teacher"]}]')
CLIPS = ("data.labels=clip", "model.head={kind: clip}", "objective={kind: classify, loss: bce}")


def loaded(place: Path, *arguments: str) -> Loaded:
    (place / "spec.yaml").write_text(SPEC)
    return load_file(place / "spec.yaml", list(arguments))


@pytest.fixture(scope="module")
def runs(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with the finished run `teacher`, and `by-clip`, a classifier with softmax."""
    place = tmp_path_factory.mktemp("runs")
    for name, more in (
        ("teacher", ()),
        ("by-clip", ("data.dataset=sounds", "data.train=[train]", "data.test=[]", *CLIPS, "objective.loss=ce")),
    ):
        train(loaded(place, *more), Options(data_root, place, run=name, device="cpu", quiet=True))
    return place


# --- the loss ----------------------------------------------------------------------------------------------------


def host(clips: int = 3, classes: int = 2, frames: int = 5, **more: Any) -> HostBatch:
    """Clips with an event of class 0 in frames 1 and 2; the last of them is labelled weakly."""
    strong = torch.arange(clips) < clips - 1
    known = torch.arange(clips)[strong]
    labels = FrameLabels(known, torch.zeros_like(known), known * 0 + 1, known * 0 + 3, strong, frames)
    return HostBatch(
        torch.arange(clips), torch.zeros(clips, 8, dtype=torch.int16), torch.full((clips,), 8),
        torch.ones(clips, classes), frames=labels, **more,
    )  # fmt: skip


class Fixed(nn.Module):
    """A detector whose scores are given."""

    def __init__(self, frames: Tensor, clips: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(frames), nn.Parameter(clips)
        self.backbone, self.head = nn.Identity(), nn.Module()
        self.head.weak = nn.Linear(1, 1)

    def forward(self, features: Tensor, draw: object) -> tuple[Tensor, Tensor]:
        return self.scores


def test_the_loss_with_teachers_is_the_mixed_loss_of_the_paper() -> None:
    """w BCE(teacher) + (1 - w) BCE(labels), the mean over clips, classes and frames; where no teacher is known, the
    labels' alone; weakly labelled clips by their own scores, whatever the teacher says of them."""
    torch.manual_seed(1)
    logits, known = torch.randn(3, 2, 5).half(), torch.tensor([[True, False], [False, False], [False, False]])
    frames, clips, weight = torch.randn(3, 2, 5), torch.randn(3, 2), 0.7
    batch = host(logits=logits, known=known)
    objective = DetectObjective(Fixed(frames, clips), Detect(kind="detect", weak_weight=0.5), weak=True)  # type: ignore[arg-type]
    targets = batch.targets(weight)
    sums, norms = objective(torch.zeros(3), targets, None), objective.norms(torch.zeros(3), targets)

    labels = torch.zeros(2, 2, 5)
    labels[:, 0, 1:3] = 1
    own = F.binary_cross_entropy_with_logits(frames[:2], labels, reduction="none")
    taught = F.binary_cross_entropy_with_logits(frames[:2], logits[:2].float().sigmoid(), reduction="none")
    own[0, 0] = weight * taught[0, 0] + (1 - weight) * own[0, 0]
    assert torch.allclose(sums["strong"] / norms["strong"], own.mean().double(), atol=1e-6)
    weak = F.binary_cross_entropy_with_logits(clips[2:], torch.ones(1, 2))
    assert torch.allclose(sums["weak"] / norms["weak"], weak.double(), atol=1e-6)
    assert objective.weights == {"strong": 1.0, "weak": 0.5}


def test_logits_of_clips_blend_into_the_labels_of_clips() -> None:
    """And nothing is blended without a weight, as in phases without teachers."""
    labels, known = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[True, True], [False, False]])
    empty = torch.zeros(2, 8, dtype=torch.int16)
    batch = HostBatch(torch.arange(2), empty, torch.full((2,), 8), labels, logits=torch.zeros(2, 2).half(), known=known)
    assert batch.targets(0.9)["clip"].tolist() == [[pytest.approx(0.55), pytest.approx(0.45)], [0.0, 1.0]]
    assert torch.equal(batch.targets()["clip"], labels)


# --- frames of long clips ------------------------------------------------------------------------------------------


class Lengths:
    """A prepared set of which some clips have other lengths."""

    def __init__(self, source: PreparedSet, samples: dict[int, int]) -> None:
        self._source, self._lengths = source, samples
        self.samples = source.samples.copy()
        self.samples[list(samples)] = list(samples.values())

    def waveform(self, row: int) -> np.ndarray:
        return np.resize(self._source.waveform(row), self._lengths.get(row, self._source.samples[row]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def scoring(place: Path, data_root: Path, *arguments: str) -> tuple[Resolved, Any, nn.Module]:
    spec = loaded(place, *arguments)
    resolved, selection = prepare(spec, Options(data_root, place))
    model = build_scoring_model(resolved, resolved.phases[0])
    initialise(model, 1)
    return resolved, selection, model


def test_clips_of_any_length_are_scored_whole_in_slices(data_root: Path, tmp_path: Path) -> None:
    """Shorter than the input, as long, a sample longer, and several times as long; in any batch, as one by one."""
    resolved, selection, model = scoring(tmp_path, data_root, "frontend.frames=101", "data.long=slices")
    phase, rows = resolved.phases[0], selection.test[:5]
    span = phase.label_frames * phase.label_hop
    assert (phase.label_frames, span) == (25, 16_000)
    lengths = [100, span, span + 1, 3 * span, 2 * span + 640]
    source: Any = Lengths(selection.source, dict(zip(rows.tolist(), lengths, strict=True)))
    device, front = open_device("cpu", "fp32", "off"), build_frontend(phase.frontend)

    def scored(sliced: bool, batch: int) -> Any:
        return score_frames(
            model, source, rows, phase=phase, frontend=phase.frontend, classes=selection.classes, sliced=sliced,
            batch=batch, device=device, threads=1,
        )  # fmt: skip

    found = scored(True, 3)
    assert found.scores.frames.tolist() == [25, 25, 26, 75, 51] and found.scores.values.shape == (5, 10, 75)
    assert found.truth.durations.tolist() == [n / 16_000 for n in lengths]
    model.eval()
    for place, row in enumerate(rows):
        whole = torch.from_numpy(source.waveform(int(row)).copy())[None]
        with torch.no_grad():
            pieces = [whole[:, at : at + phase.frontend.samples] for at in range(0, max(1, whole.shape[1]), span)]
            parts = [model(front(piece, torch.tensor([piece.shape[1]])))[0] for piece in pieces]
        frames = int(found.scores.frames[place])
        expected = torch.cat(parts, dim=2)[0, :, :frames].numpy()
        assert np.allclose(found.scores.values[place, :, :frames], expected, atol=1e-5)
    starts = scored(False, 2)
    assert starts.scores.frames.tolist() == [25] * 5
    assert np.allclose(starts.scores.values, found.scores.values[:, :, :25], atol=1e-5)


# --- which clips ---------------------------------------------------------------------------------------------------


def test_weights_by_active_time_look_where_crops_may_lie(data_root: Path) -> None:
    data = {"dataset": "scenes", "train": ["scenes_train"], "labels": "frame", "sampler": {"kind": "active_time"}}
    start, cropped = Data(**data), Data(**data, crop="random")
    selection = select(start, data_root)
    whole = selection._weights(start, 75)
    assert np.array_equal(selection._weights(cropped, 10), whole)
    assert not np.array_equal(selection._weights(start, 10), whole)


def test_an_order_by_weight_of_clips_without_labels_is_refused() -> None:
    with pytest.raises(UsageError, match="active_time draws clips by their labels, and no training clip has any"):
        Order(np.arange(4), 1, 0, ActiveTime(kind="active_time"), np.zeros(4))


def test_less_is_better_chooses_nothing(data_root: Path, tmp_path: Path) -> None:
    """`segment_error` may be measured first; the best weights and plateaus go by another metric, or by none."""
    valid = ("data.valid=[scenes_test]", "data.test=[]")
    for metrics, chosen in (("[segment_error, segment_f1]", "segment_f1"), ("[segment_error]", None)):
        spec = loaded(tmp_path, *valid, f"evaluate.metrics={metrics}")
        assert prepare(spec, Options(data_root, tmp_path))[0].select == chosen
    plateau = ("evaluate.metrics=[segment_error]", "phases.fine.stop={kind: plateau}")
    with pytest.raises(SpecError, match="a metric of which more is better, and none is measured"):
        prepare(loaded(tmp_path, *valid, *plateau), Options(data_root, tmp_path))


# --- starting weights ----------------------------------------------------------------------------------------------


def started(place: Path, data_root: Path, file: Path, *arguments: str) -> tuple[nn.Module, str]:
    resolved, _ = prepare(loaded(place, f"model.weights=file:{file}", *arguments), Options(data_root, place))
    student, said = build_objective(resolved).student, []
    load_start(student, resolved, place, said.append)
    return student, said[0]


@pytest.mark.parametrize("backbone", ["atst_micro", "beats_micro"])
def test_a_published_frame_head_is_loaded_with_a_layer_for_clips_of_other_classes(
    backbone: str, data_root: Path, tmp_path: Path
) -> None:
    """AudioSet's 527 classes beside 447 of AudioSet Strong; of BEATs too, whose older heads are in another order."""
    front = ("frontend=null", f"model.backbone={backbone}")
    student, _ = started(tmp_path, data_root, _ours(tmp_path, data_root, *front), *front)
    head = dict(student.head.state_dict())
    file = tmp_path / "published.pt"
    weak = {"weak.weight": torch.ones(7, 96), "weak.bias": torch.ones(7)}
    backbone_state = student.backbone.state_dict()
    for other, says in ((weak, "the layer for clips, of other classes, random"), ({}, "its head")):
        marked = {name: value + 1 for name, value in head.items()} | other
        torch.save(published(backbone.removesuffix("_micro"), Parts(backbone_state, marked)).content, file)
        student, said = started(tmp_path, data_root, file, *front)
        assert says in said and torch.equal(student.head.strong.weight, marked["strong.weight"])
        assert torch.equal(student.head.weak.weight, head["weak.weight"] + (0 if other else 1))


def _ours(place: Path, data_root: Path, *arguments: str) -> Path:
    """Random weights of ours, of no class of the run's."""
    resolved, _ = prepare(loaded(place, *arguments), Options(data_root, place))
    student, phase = build_objective(resolved).student, resolved.phases[0]
    record = {
        "backbone": resolved.model.backbone, "classes": resolved.classes, "step": 1,
        "tokens": phase.tokens.model_dump() | {"grid": [*phase.tokens.grid]},
    }  # fmt: skip
    save_weights(place / "ours.safetensors", student.state_dict(), record)
    return place / "ours.safetensors"


def test_a_recurrent_head_of_another_width_starts_afresh(data_root: Path, tmp_path: Path) -> None:
    def head(width: int) -> str:
        return f"model.head.recurrent={{layers: 1, width: {width}}}"

    file = _ours(tmp_path, data_root, head(8))
    assert "its head" in started(tmp_path, data_root, file, head(8))[1]
    assert "head random" in started(tmp_path, data_root, file, head(4))[1]
    assert "head random" in started(tmp_path, data_root, file)[1]


# --- ensembles -----------------------------------------------------------------------------------------------------


def test_teachers_are_found_by_name_pattern_and_path(runs: Path, data_root: Path, tmp_path: Path) -> None:
    def names(member: str, root: Path) -> tuple[str, ...]:
        spec = loaded(tmp_path, "task=distill", f"teachers=[{{kind: ensemble, members: ['run:{member}']}}]").spec
        found = find_ensemble(spec, root, data_root)
        assert found is not None and len(found.weights) == 1
        return found.names

    assert names("teacher", runs) == names("teach*", runs) == names(str(runs / "teacher"), runs) == ("teacher",)
    assert names(str(runs / "teacher"), tmp_path) == names(str(runs / "teach*"), tmp_path) == (str(runs / "teacher"),)


def test_another_file_of_logits_is_another_ensemble(data_root: Path, tmp_path: Path) -> None:
    """By its names, classes and some of its logits: a run is not resumed with other teachers."""
    prints = set()
    for number, (classes, value) in enumerate(((["a", "b"], 0.0), (["b", "a"], 0.0), (["a", "b"], 1.0))):
        path = tmp_path / f"{number}.hdf5"
        with LogitsWriter(path, ["x", "y"], classes, 3, {}) as writer:
            writer.write([0, 1], np.full((2, 2, 3), value, np.float32))
            writer.finish()
        spec = loaded(tmp_path, "task=distill", f"teachers=[{{kind: ensemble, logits: {path}}}]").spec
        ensemble = find_ensemble(spec, tmp_path, data_root)
        assert ensemble is not None
        prints.add(ensemble.fingerprint)
    assert len(prints) == 3


# --- what is wrong is told, and leaves nothing behind --------------------------------------------------------------

SOUNDS = ("data.dataset=sounds", "data.train=[train]", "data.test=[test]", "frontend.frames=101")
WRONG = {
    "no events": (SOUNDS, "no training clip has an event of any class"),
    "no such member": (("task=distill", 'teachers=[{kind: ensemble, members: ["run:nobody-*"]}]'), "no run 'nobody-"),
    "other frames": ((*DISTILL, "data.frame=20 ms"), "75 frames of 40 ms, and the student 150 frames of 20 ms"),
    "another length": ((*DISTILL, "frontend.frames=201"), "scores 75 frames of 40 ms, and the student 50"),
    "inputs of several lengths": (
        (*DISTILL, "phases=[{name: a, length: 1 steps, frontend: {frames: 151}}, {name: fine, length: 1 steps}]"),
        "inputs of different lengths, in label frames: a 38, fine 75",
    ),
    "crops": ((*DISTILL, "data.crop=random", "frontend.frames=201"), "24 training clips are longer than the input"),
    "a teacher of clips": ((*DISTILL, *CLIPS), "scores 75 frames of 40 ms, and the student clips"),
    "a teacher with softmax": (
        (*SOUNDS, *CLIPS, "task=distill", 'teachers=[{kind: ensemble, members: ["run:by-clip"]}]'),
        "was trained with the loss ce",
    ),
    "no file": (("task=distill", "teachers=[{kind: ensemble, logits: no.hdf5}]"), "no such logits file"),
    "two ensembles": (
        (*DISTILL, 'phases=[{name: fine, length: 1 steps, teachers: [{kind: ensemble, logits: a.hdf5}]}]'),
        "phases learn from different ensembles",
    ),
    "clips and frames": (("evaluate.select=accuracy", "data.valid=[scenes_test]"), "accuracy is of clips"),
    "an error to select by": (("evaluate.select=segment_error", "data.valid=[scenes_test]"), "less is better"),
    "repeated clips": (("frontend.pad=repeat",), "labels of frames do not follow clips that are repeated"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_inputs_of_detection_are_told_and_leave_nothing(name: str, runs: Path, data_root: Path) -> None:
    arguments, message = WRONG[name]
    stored = set(data_root.rglob("*"))
    with pytest.raises(C2FError) as caught:
        train(loaded(runs, *arguments), Options(data_root, runs, run="wrong", device="cpu", quiet=True))
    assert message in str(caught.value)
    assert not (runs / "wrong").exists()
    assert {path for path in set(data_root.rglob("*")) - stored if not path.name.startswith(".")} <= {
        data_root / "logits"
    }


def test_an_unfinished_teacher_is_told(runs: Path, data_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"state": "interrupted"}))
    with pytest.raises(C2FError, match="run teacher is interrupted, not finished"):
        train(loaded(tmp_path, *DISTILL), Options(data_root, tmp_path, run="wrong", device="cpu", quiet=True))
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.labels=clip", "belong to the weights"),
        ("data.frame=20 ms", "belong to the weights"),
        ("data.test=[train]", ""),
    ],
)
def test_a_run_that_detects_is_scored_again_as_it_was_trained(
    override: str, message: str, runs: Path, data_root: Path
) -> None:
    """On other clips, but not in other frames; and with metrics of its kind, before anything is scored."""
    options: dict[str, Any] = {
        "runs_root": runs, "data_root": data_root, "metrics": ["segment_f1"], "weights": None, "device": "cpu",
        "say": lambda text: None,
    }  # fmt: skip
    score: Callable[..., Any] = lambda **more: rescore_all(["teacher"], **(options | more))  # noqa: E731
    if message:
        with pytest.raises(UsageError, match=message):
            score(overrides=[override])
    else:
        assert score(overrides=[override])[0].scores.keys() == {"segment_f1"}
        with pytest.raises(UsageError, match="map is of clips with labels"):
            score(overrides=[override], metrics=["map"])


def test_a_held_out_fold_is_left_out_of_weak_clips_too(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `valid_fold: next` the fold that is validated on, as well."""
    opened = PreparedSet.open

    def folded(path: Path) -> PreparedSet:
        source = opened(path)
        source.folds = (np.arange(len(source)) % 4 + 1).astype(np.int32)
        source.info.folds[:] = [1, 2, 3, 4]
        return source

    monkeypatch.setattr(PreparedSet, "open", folded)
    data = Data(
        dataset="scenes", train=["scenes_train"], weak=["train"], labels="frame", fold=4, valid_fold="next",
        min_length="2 s",  # type: ignore[arg-type]
    )  # fmt: skip
    chosen = select(data, data_root)
    folds = chosen.source.folds  # type: ignore[union-attr]
    assert set(folds[chosen.weak]) == set(folds[chosen.train]) == {2, 3}
    assert set(folds[chosen.valid]) == {1} and set(folds[chosen.test]) == {4}
    assert facts(chosen, data).clips_train == 2 * len(chosen.train)
