"""One published checkpoint, as data, and the places that hold such files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from c2ftool.spec.frontends import FrontendDefaults


@dataclass(frozen=True)
class Source:
    """One place of a checkpoint.

    file: its name in the cache and on mirrors; page: for people; called: the name of what is to be had there, if known.
    sha256: of the file. member: what to take out of the zip archive that the address gives. browser: whether only a
    browser gets the file, from the page.
    """

    url: str
    file: str
    page: str
    sha256: str | None = None
    called: str = ""
    member: str = ""
    browser: bool = False


@dataclass(frozen=True)
class PublicWeights:
    """One published checkpoint.

    task: what trained it last; `pretrained` where that needed no labels. about: in a line, with the published figure.
    classes: of its head, 0 without one, None where no public text says; in the order of its data's published class list
    unless `about` says otherwise. frontend: None for weights of images. stride: (time, mel) from patch to patch.
    """

    name: str
    family: str
    backbone: str
    task: str
    about: str
    sources: tuple[Source, ...]
    classes: int | None = 0
    licence: str = "MIT (licence of the authors' repository)"
    frontend: FrontendDefaults | None = None
    stride: tuple[int, int] = (16, 16)


def direct(url: str, file: str, page: str, sha256: str | None = None) -> Source:
    """A file that its address gives at once, and that is called as the address ends."""
    return Source(url, file, page, sha256, called=unquote(PurePosixPath(urlsplit(url).path).name))


def hugging_face(repository: str, called: str, file: str, sha256: str | None = None) -> Source:
    """A file of a repository on Hugging Face."""
    page = f"https://huggingface.co/{repository}"
    return Source(f"{page}/resolve/main/{called}", file, page, sha256, called)


def drive(identity: str, file: str, sha256: str | None = None) -> Source:
    """A file of Google Drive."""
    # The address behind the page's button; without confirm=t large files are answered with a web page.
    url = f"https://drive.usercontent.google.com/download?id={identity}&export=download&confirm=t"
    return Source(url, file, f"https://drive.google.com/file/d/{identity}/view", sha256)


def dropbox(place: str, called: str, file: str, page: str) -> Source:
    """A file of Dropbox; place: its folder there."""
    # without dl=1 a web page would come
    return Source(f"https://www.dropbox.com/s/{place}/{called}?dl=1", file, page, None, called)


def release(repository: str, tag: str, called: str, file: str, sha256: str | None = None) -> Source:
    """A file of a release on GitHub."""
    page = f"https://github.com/{repository}/releases"
    return Source(f"{page}/download/{tag}/{called}", file, f"{page}/tag/{tag}", sha256, called)


def by_hand(page: str, called: str, file: str, sha256: str | None = None) -> Source:
    """A file that only a browser gets, from a page."""
    return Source(page, file, page, sha256, called, browser=True)
