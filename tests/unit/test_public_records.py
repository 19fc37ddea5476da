"""The records of published checkpoints are whole, agree with the backbones, and name files rather than pages."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from c2ftool.models.public.record import PublicWeights, Source, direct
from c2ftool.models.public.records import PUBLIC_WEIGHTS
from c2ftool.spec.backbones import BACKBONES

RECORDS = list(PUBLIC_WEIGHTS.values())
SOURCES = [(record, source) for record in RECORDS for source in record.sources]
FAMILIES = {"eat", "ast", "ssast", "htsat", "cnn14", "beats", "atst", "fpasst", "m2d", "asit"}


def names(family: str) -> set[str]:
    return {record.name for record in RECORDS if record.family == family}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_record_agrees_with_its_backbone(record: PublicWeights):
    size = BACKBONES[record.backbone]
    assert size.family == record.family
    if record.family != "ast":  # whose patches overlap
        assert record.stride == size.patch
    if record.frontend is None:
        assert record.task == "ImageNet-1k"
        return
    assert (record.frontend.mels, record.frontend.spectrum) == (size.frontend.mels, size.frontend.spectrum)
    assert record.frontend.mean is not None and record.frontend.std
    own_samples = size.frontend.frame_length_ms * size.frontend.sample_rate
    assert record.frontend.frame_length_ms * record.frontend.sample_rate == own_samples


def test_every_family_has_records_and_every_name_is_its_own():
    assert {record.family for record in RECORDS} == FAMILIES
    assert all(name == record.name and name.startswith(f"{record.family}_") for name, record in PUBLIC_WEIGHTS.items())
    files = [source.file for _, source in SOURCES]
    assert len(files) == len({file.lower() for file in files})  # folders need not tell cases apart
    from_where = [(source.url, source.called) for _, source in SOURCES]
    assert len(from_where) == len(set(from_where))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_record_says_licence_task_and_classes(record: PublicWeights):
    assert record.licence and record.about and "\n" not in record.about and record.task
    assert (record.classes == 0) == (record.task == "pretrained")
    known = {"AS-2M": 527, "AS-20K": 527, "ESC-50": 50, "Speech Commands V2": 35, "AudioSet Strong": 447}
    if record.task in known and record.classes is not None:
        assert record.classes == known[record.task]


@pytest.mark.parametrize(("record", "source"), SOURCES, ids=lambda value: getattr(value, "file", ""))
def test_a_source_is_a_file_behind_https(record: PublicWeights, source: Source):
    assert source.file.startswith(record.name) and re.fullmatch(r"[a-z0-9_.]+\.(pt|pth|ckpt|safetensors)", source.file)
    assert source.url.startswith("https://") and source.page.startswith("https://")
    assert source.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", source.sha256)
    if source.browser:
        assert source.url == source.page and source.called
        return
    place = urlsplit(source.url)
    match place.hostname:
        case "drive.usercontent.google.com":
            assert re.fullmatch(r"id=[\w-]{33}&export=download&confirm=t", place.query)
        case "www.dropbox.com":
            assert re.fullmatch(r"/s/\w{15}/[\w.-]+\.pth", place.path) and place.query == "dl=1"
        case "huggingface.co":
            assert re.fullmatch(r"/[\w-]+/[\w-]+/resolve/main/\w+\.(pt|safetensors)", place.path)
        case "github.com":
            assert re.fullmatch(r"/[\w-]+/\w+/releases/download/v[\d.]+/[\w.-]+", place.path)
            assert place.path.endswith(".zip") == bool(source.member)
        case "zenodo.org":
            assert re.fullmatch(r"/records/\d+/files/[\w%.]+", place.path)
        case other:
            pytest.fail(f"what does {other} answer?")


def test_copies_by_third_parties_have_a_hash():
    authors = {"worstchan", "SwinTransformer", "nttcslab", "fschmid56"}
    for _, source in SOURCES:
        place = urlsplit(source.url)
        if place.hostname in ("huggingface.co", "github.com") and place.path.split("/")[1] not in authors:
            assert source.sha256, source.url


def test_what_the_papers_start_from_and_release_is_there():
    assert {f"ssast_base_{kind}_{masked}" for kind in ("patch", "frame") for masked in (250, 400)} <= names("ssast")
    assert len(names("ssast")) == 13
    for family in ("atst", "beats", "fpasst", "m2d", "asit"):
        assert {f"{family}_sed_{stage}" for stage in ("ssl", "weak", "strong_1")} <= names(family)
    assert {f"beats_iter{number}" for number in (1, 2, 3)} <= names("beats") and len(names("beats")) == 18
    assert {"htsat_audioset", "htsat_esc50_fold1", "htsat_speechcommands", "htsat_swin_imagenet"} == names("htsat")


def test_frame_patches_of_ssast_are_two_frames_of_all_bands():
    frame = PUBLIC_WEIGHTS["ssast_base_frame_400"]
    assert (frame.backbone, frame.stride) == ("ssast_frame_base", (2, 128))
    assert PUBLIC_WEIGHTS["ssast_tiny_patch_400"].backbone == "ssast_patch_tiny"


def test_an_address_tells_what_its_file_is_called():
    source = direct("https://zenodo.org/records/1/files/A_mAP%3D0.4.pth?download=1", "a.pth", "https://zenodo.org/1")
    assert source.called == "A_mAP=0.4.pth"
