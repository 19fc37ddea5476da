"""What users read when a spec is wrong: exact texts, every fault at once, each at its own place."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2ftool.errors import SpecError
from c2ftool.spec.backbones import BACKBONES
from c2ftool.spec.base import Section
from c2ftool.spec.load import load_file
from c2ftool.spec.root import Spec
from c2ftool.spec.shape import sections_of

SPECS = Path(__file__).parents[1] / "specs"

BASE = """\
c2f: 1
name: base
task: finetune
data: {dataset: sounds, valid: [valid], colour: red}
model: {backbone: eat_tiny, head: {kind: clip}}
objective: {kind: classify, loss: bce}
train:
  batch: 8
  workers: "2"
phases:
  - {name: coarse, length: 2 epochs}
"""
TOP = """\
extends: base.yaml
train:
  optimizer: {kind: adamw, lr: 1e-3, betas: [0.9]}
  precision: f32
phases:
  - name: coarse
    compresion: {method: fshift, factor: 4}
  - {name: fine, length: 5}
evaluate: {metrics: [acuracy]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults(text: str, *overrides: str) -> str:
    Path("x.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_file(Path("x.yaml"), list(overrides))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_file_extends_and_arguments_come_out_together(folder):
    Path("base.yaml").write_text(BASE)
    known = (
        "augment, average, batch, clip, compression, enter, frontend, length, masks, name, optimizer, schedule, stop, "
        "teachers"
    )
    assert (
        faults(TOP, "seed=3", "train.optimizer.lr=fast", "model.backbone=eat_minni")
        == f"""\
base.yaml:4:41: unknown key "colour" in data
    4 | data: {{dataset: sounds, valid: [valid], colour: red}}
      |                                         ^^^^^^
    known: also, classes, covers, crop, dataset, fold, folds, frame, labels, long, min_length, sampler, test, train, \
valid, valid_fold, weak, weak_share

base.yaml:9:12: train.workers must be a whole number, not '2'
    9 |   workers: "2"
      |            ^^^
    write it without quotes

x.yaml:3:45: train.optimizer.betas must have 2 items, not 1
    3 |   optimizer: {{kind: adamw, lr: 1e-3, betas: [0.9]}}
      |                                             ^^^^^

x.yaml:4:14: train.precision cannot be 'f32'
    4 |   precision: f32
      |              ^^^
    did you mean "fp32"?  (known: auto, fp32, bf16, fp16)

x.yaml:7:5: unknown key "compresion" in phase "coarse"
    7 |     compresion: {{method: fshift, factor: 4}}
      |     ^^^^^^^^^^
    did you mean "compression"?  (known: {known})

x.yaml:8:26: phase "fine".length: 5 is not an amount with a unit
    8 |   - {{name: fine, length: 5}}
      |                          ^
    write it like `5 epochs`, `400000 steps`, `100000 clips` or `25 %`

x.yaml:9:22: evaluate.metrics[0] cannot be 'acuracy'
    9 | evaluate: {{metrics: [acuracy]}}
      |                      ^^^^^^^
    did you mean "accuracy"?  (known: accuracy, top5, map, auc, d_prime, psds1, psds2, psds1_variance, psds2_variance, \
psds1_50, psds2_50, pauroc, segment_f1, segment_error, event_f1, onset_f1_20ms, onset_f1_50ms, onset_f1_200ms, \
onset_offset_f1_50ms, intersection_f1)

argument 2: train.optimizer.lr=fast: train.optimizer.lr must be a number, not 'fast'

argument 3: model.backbone=eat_minni: model.backbone: unknown backbone 'eat_minni'
    did you mean "eat_mini"?  (known: {", ".join(BACKBONES)})

9 faults found; nothing was run."""
    )


def test_a_missing_key_points_at_its_mapping(folder):
    text = faults("c2f: 1\nname: x\ntask: pretrain\ndata: {}\nmodel: {backbone: eat_tiny}\nphases: []\n")
    missing = 'x.yaml:4:1: data needs the key "dataset"\n    4 | data: {}\n      | ^^^^\n    known: also, classes'
    assert missing in text
    assert 'x.yaml:1:1: the spec needs the key "objective"' in text
    assert "x.yaml:6:9: phases must have at least 1 item, not 0" in text


def test_a_fault_in_the_sections_above_is_told_once_though_phases_inherit_it(folder):
    text = faults(
        BASE.replace(", colour: red", "").replace('"2"', "2")
        + "    optimizer: {lr: 1e-4}\n".replace(
            "    optimizer", "  - {name: fine, length: 1 epochs, optimizer"
        ).replace("\n", "}\n"),
        "train.optimizer={kind: adamw, lr: 1e-3, eps: tiny}",
    )
    assert text.count("must be a number") == 1 and "1 fault found" in text


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("train.schedule={kind: cosin}", 'train.schedule: unknown kind "cosin"\n    did you mean "cosine"?'),
        ("data.sampler={clips: 5}", 'data.sampler needs the key "kind"\n    known: uniform, class_balanced'),
        ("phases.fine.compression={method: fshift}", 'phase "fine".compression needs the key "factor"'),
        ("phases.coarse.compression={method: fshift, factor: 3}", "cannot be 3\n    known: 1, 2, 4, 8, 16"),
        ("phases.coarse.name=a b", "'a b' is not a name\n    use letters, digits, `-` and `_`"),
        ("frontend.hop=10", "frontend.hop: 10 is not an amount with a unit\n    write it like `10 ms`"),
        ("frontend.normalize=mesured", "'mesured' is no normalisation\n    write `measured`, or"),
        ("frontend.normalize={mean: 3.0}", "mean and std belong together\n    give both, or write `measured`"),
        ("masks={kind: inverse_block, block: [5]}", "masks.block must have 2 items, not 1"),
        ("masks={kind: inverse_block, blocks: [[5, 5], [1, 2, 3]]}", "masks.blocks[1] must have at most 2 items"),
        ("teachers=[{kind: ema, layers: last}]", "teachers[0].layers cannot be 'last'\n    write all, or a list"),
        ("teachers=[{kind: ema, layers: [0, x]}]", "teachers[0].layers[1] must be a whole number, not 'x'"),
        ("teachers=[{kind: ema, layers: []}]", "teachers[0].layers must have at least 1 item, not 0"),
        ("train.batch=2.5", "train.batch must be a whole number, not 2.5"),
        ("train.batch=0", "train.batch must be at least 1, not 0"),
        ("train.optimizer=0.1", "train.optimizer must be a mapping: {...}, not 0.1"),
        ("data.train=train", "data.train must be a list: [...], not 'train'"),
        ("augment.roll={gain: yes}", "augment.roll.gain must be true or false, not 'yes'"),
        (
            "model.weights=eat",
            "'eat' names no weights\n    write run:NAME[@best|last|average|PHASE], file:PATH, public:NAME or timm:NAME",
        ),
        ("tracking.experiment=''", "tracking.experiment must not be empty"),
        ("c2f=2", "c2f cannot be 2\n    known: 1"),
        ("checkpoints.minutes=1e999999999 s", "is not an amount with a unit"),
        ("seeds=[0, -1]", "seeds[1] must be at least 0, not -1"),
        ("wheight=1", 'unknown key "wheight" in the spec\n    known: about, adapters, augment, backbones, c2f, checkp'),
    ],
)
def test_messages_are_in_users_words(argument, message):
    with pytest.raises(SpecError) as caught:
        load_file(SPECS / "finetune.yaml", [argument])
    text = str(caught.value)
    assert text.startswith(f"argument 1: {argument}: ") and message in text
    assert "1 fault found" in text
    assert not any(word in text for word in ("Input should", "pydantic", "regex", "^[", "Field required", "_type"))


def test_a_file_that_cannot_be_read_does_not_hide_the_arguments_faults(folder):
    assert (
        faults("c2f: 1\nname: [x\n", "seed", "train.batch=[1")
        == """\
x.yaml:3:1: not YAML: expected ',' or ']', but got '<stream end>'
    3 |
      | ^
    check brackets, quotes, colons and indents

argument 1: seed: not KEY=VALUE
    for example: train.batch=48

argument 2: train.batch=[1: not YAML: expected ',' or ']', but got '<stream end>'
    check brackets, quotes, colons and indents

3 faults found; nothing was run."""
    )


def keys(section: type[Section] = Spec, name: str = "") -> Iterator[str]:
    """Every dotted path of the language; of lists, the first item's."""
    for key, field in section.model_fields.items():
        path = f"{name}.{key}" if name else key
        yield path
        for child in sections_of(field.annotation):
            yield from keys(child, f"{path}.0" if key in ("phases", "teachers") else path)


VALUES = (
    "null -1 0 0.5 3 1e30 true x '' [] {} [[]] [1,2] [a,b] [null] {a:1} 5_epochs 10_ms 0_s {kind:x} {kind:[1]} 9e99 "
    "99999999999999999999 measured 25_%"
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["pretrain.yaml", "finetune.yaml"]),
    st.lists(st.tuples(st.sampled_from(sorted(set(keys()))), st.sampled_from(VALUES.split())), min_size=1, max_size=3),
)
def test_no_value_anywhere_breaks_the_checker(base, pairs):
    arguments = [f"{key}={value.replace('_', ' ').replace(':', ': ')}" for key, value in pairs]
    try:
        load_file(SPECS / base, arguments)
    except SpecError as error:
        text = str(error)
        assert "argument " in text or ".yaml:" in text
        assert not any(word in text for word in ("Input should", "Field required", "Node(", "None", "literal["))
