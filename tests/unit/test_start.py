"""Starting weights: what contradicts their record is said with both figures."""

from types import SimpleNamespace

from c2ftool.engine.start import _compare_frontends, _frontend_of
from c2ftool.spec.resolved import ResolvedFrontend

OURS = ResolvedFrontend(
    sample_rate=16_000,
    mels=64,
    window="hanning",
    frame_length=400,
    hop=320,
    frames=152,
    mean=-5.0,
    std=3.0,
)


def said(theirs: dict) -> list[str]:
    lines: list[str] = []
    _compare_frontends(theirs, SimpleNamespace(phases=[SimpleNamespace(full_frontend=OURS)]), lines.append)
    return lines


def test_published_weights_have_their_front_end_on_record():
    theirs = _frontend_of("public:eat_base_epoch30_pretrained", None)
    assert theirs["mels"] == 128 and theirs["mean"] == -4.268
    assert said(theirs) == [
        "warning: front end: the weights were made with mels 128, this run has 64",
        "note: the weights were made with mean -4.268, std 4.569; this run has -5.000, 3.000 (frontend.normalize)",
    ]


def test_compression_is_no_contradiction_and_files_without_a_record_say_nothing():
    assert said(OURS.model_dump() | {"hop": 160, "frames": 304}) == []
    assert _frontend_of("file:some.pt", None) == {} and said({}) == []
