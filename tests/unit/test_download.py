"""Public weights arrive whole or not at all, go on where they broke off, and say what to do without a network."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from c2ftool.errors import DataError, MissingError, RunError, UsageError
from c2ftool.models.public import download
from c2ftool.models.public.download import fetch
from c2ftool.models.public.records import PublicWeights, Source
from c2ftool.models.weights import resolve_weights

CONTENT = bytes(range(256)) * 40_000  # ten megabytes
HASH = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file. breaks: how many bytes each of the next answers sends before the connection closes.

    moved: whether it is first sent elsewhere, as releases on GitHub are.
    """

    content = CONTENT
    tag = '"one"'
    ranges = True
    kind = "application/octet-stream"
    status: int | None = None
    moved = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks: list[int] = []
        self.asked: list[tuple[str, str | None]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """A client that has seen enough closes the connection."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if server.status is not None:
            self.send_error(server.status)
            return
        if server.moved and not self.path.startswith("/storage"):
            self.send_response(302)
            self.send_header("Location", f"/storage{self.path}?signed={len(server.asked)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, content = 0, server.content
        if server.ranges and wanted and self.headers.get("If-Range") in (None, server.tag):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", server.kind)
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        end = start + server.breaks.pop(0) if server.breaks else None
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("C2F_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("C2F_WEIGHTS_MIRROR", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    started = Server()
    yield started
    started.shutdown()
    started.server_close()


def record(*sources: Source) -> PublicWeights:
    return PublicWeights("test", "eat", "eat_tiny", "pretrained", "", sources)


def source(server: Server, sha256: str | None = HASH, file: str = "test.pt") -> Source:
    return Source(f"{server.address}/{file}", file, "https://page.example/test", sha256)


def listed(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_downloads_once_and_reports_progress(server, tmp_path):
    seen: list[tuple[int, int | None]] = []
    path = fetch(record(source(server)), progress=lambda there, total: seen.append((there, total)))
    assert path == tmp_path / "cache" / "test.pt" and path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and [there for there, _ in seen] == sorted(
        there for there, _ in seen
    )
    assert listed(path.parent) == ["test.pt", "test.pt.sha256"]
    assert fetch(record(source(server))) == path
    assert len(server.asked) == 1


def test_a_broken_connection_goes_on_where_it_stopped(server):
    server.breaks = [3_000_000, 100, 2_000_000]
    assert fetch(record(source(server))).read_bytes() == CONTENT
    wanted = [wanted for _, wanted in server.asked]
    assert wanted == [None, "bytes=3000000-", "bytes=3000100-", "bytes=5000100-"]


def test_a_download_that_was_given_up_goes_on_in_the_next_call(server, tmp_path):
    server.breaks = [1_000_000] * 5
    with pytest.raises(MissingError, match="broke 5 times"):
        fetch(record(source(server)))
    assert not (tmp_path / "cache" / "test.pt").exists()
    assert fetch(record(source(server))).read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=5000000-"


def test_a_server_without_ranges_sends_the_whole_again(server):
    server.ranges = False
    server.breaks = [3_000_000]
    assert fetch(record(source(server))).read_bytes() == CONTENT


def test_parts_of_two_versions_are_never_joined(server):
    server.breaks = [1_000_000] * 5
    server.tag = '"old"'
    server.content = b"old" * 3_000_000
    with pytest.raises(MissingError):
        fetch(record(source(server)))
    server.breaks, server.tag, server.content = [], '"new"', CONTENT
    assert fetch(record(source(server))).read_bytes() == CONTENT


def test_a_release_that_is_stored_elsewhere_goes_on_where_it_stopped(server):
    server.moved = True
    server.breaks = [4_000_000]
    assert fetch(record(source(server))).read_bytes() == CONTENT
    assert server.asked == [
        ("/test.pt", None),
        ("/storage/test.pt?signed=1", None),
        ("/test.pt", "bytes=4000000-"),
        ("/storage/test.pt?signed=3", "bytes=4000000-"),
    ]


def test_a_whole_part_that_was_not_renamed_is_used(server, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / ".test.pt.partial").write_bytes(CONTENT)
    (cache / ".test.pt.etag").write_text(server.tag)
    assert fetch(record(source(server))).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_another_hash_is_refused_and_deleted(server, tmp_path):
    server.content = b"something else"
    with pytest.raises(DataError, match="deleted"):
        fetch(record(source(server)))
    assert listed(tmp_path / "cache") == []


def test_without_a_hash_on_record_the_first_one_is_kept(server):
    path = fetch(record(source(server, sha256=None)))
    assert path.with_name("test.pt.sha256").read_text() == f"{HASH}  test.pt\n"
    path.write_bytes(CONTENT[:-1] + b"\x00")
    with pytest.raises(DataError, match="has changed"):
        fetch(record(source(server, sha256=None)))


def test_a_file_placed_by_hand_is_used_and_checked(server, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "test.pt").write_bytes(CONTENT)
    assert fetch(record(source(server))) == cache / "test.pt"
    (cache / "test.pt").write_bytes(b"damaged")
    with pytest.raises(DataError, match="expected"):
        fetch(record(source(server)))
    assert server.asked == []


@pytest.mark.parametrize("member", ["", "weights_ep67.pth"])  # a mirror holds what is in an archive, not the archive
def test_a_mirror_is_asked_first(server, monkeypatch, member):
    monkeypatch.setenv("C2F_WEIGHTS_MIRROR", f"{server.address}/mirror/")
    away = Source("http://127.0.0.1:9/test.pt", "test.pt", "https://page.example", HASH, member=member)
    assert fetch(record(away)).read_bytes() == CONTENT
    assert server.asked == [("/mirror/test.pt", None)]
    monkeypatch.setenv("C2F_WEIGHTS_MIRROR", "/some/folder")
    with pytest.raises(UsageError, match="no http"):
        fetch(record(source(server, file="other.pt")))


DEIT = "deit_tiny_distilled_patch16_224"


def test_timm_weights_come_from_its_record_and_an_endpoint_takes_hugging_faces_place(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{server.address}/hub/")
    path = resolve_weights(f"timm:{DEIT}", tmp_path)
    assert path == tmp_path / "cache" / f"{DEIT}.fb_in1k.safetensors" and path.read_bytes() == CONTENT
    assert server.asked == [(f"/hub/timm/{DEIT}.fb_in1k/resolve/main/model.safetensors", None)]
    assert resolve_weights(f"timm:{DEIT}.fb_in1k", tmp_path) == path and len(server.asked) == 1


def test_an_endpoint_takes_no_other_servers_place(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(record(source(server))).read_bytes() == CONTENT
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.example")
    with pytest.raises(UsageError, match=r"HF_ENDPOINT=.* is no http"):
        fetch(record(Source("https://huggingface.co/x/y", "y", "https://huggingface.co/x", None)))


def test_timm_weights_that_cannot_be_reached_say_where_to_put_the_file(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MissingError, match="not reachable") as caught:
        resolve_weights(f"timm:{DEIT}", tmp_path)
    by_hand = tmp_path / "cache" / f"{DEIT}.fb_in1k.safetensors"
    assert f"https://huggingface.co/timm/{DEIT}.fb_in1k" in str(caught.value) and str(by_hand) in str(caught.value)
    by_hand.write_bytes(CONTENT)
    assert resolve_weights(f"timm:{DEIT}", tmp_path) == by_hand


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("deit_base_distilled_patch16_383", "unknown.*Did you mean timm:deit_base_distilled_patch16_384"),
        ("vit_base_patch16_224", "is no distilled DeiT.*Known: deit_base"),
        ("deit_base_distilled_patch16_384.other", "Known: deit_base"),
        ("", "unknown"),
    ],
)
def test_other_names_of_timm_are_refused_with_those_there_are(server, tmp_path, name, says):
    with pytest.raises(MissingError, match=re.compile(says, re.DOTALL)):
        resolve_weights(f"timm:{name}", tmp_path)
    assert server.asked == []


def test_the_next_source_is_asked_where_one_does_not_answer(server):
    away = Source("http://127.0.0.1:9/x", "away.pt", "https://page.example", HASH)
    assert fetch(record(away, source(server))).name == "test.pt"


@pytest.mark.parametrize("content", [b"\n<!DOCTYPE html>", b"<html>", b"<?xml?><Error>", b"version https://git-lfs"])
def test_a_page_that_is_called_a_file_is_not_kept(server, tmp_path, content):
    server.content = content
    with pytest.raises(MissingError, match="came instead of the file"):
        fetch(record(source(server, sha256=None)))
    assert listed(tmp_path / "cache") == []


def test_a_page_in_the_place_of_the_rest_leaves_the_part(server):
    server.breaks = [1_000_000] * 5
    with pytest.raises(MissingError, match="broke 5 times"):
        fetch(record(source(server)))
    server.content, server.tag, server.kind = b"<html>", "", "text/html"
    with pytest.raises(MissingError, match="web page"):
        fetch(record(source(server)))
    server.content, server.tag, server.kind = CONTENT, Server.tag, Server.kind
    assert fetch(record(source(server))).read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=5000000-"


@pytest.mark.parametrize(
    ("status", "kind", "says"), [(404, "", "HTTP 404"), (None, "text/html; charset=utf-8", "web page")]
)
def test_what_is_not_there_names_address_and_place(server, tmp_path, status, kind, says):
    server.status, server.kind = status, kind
    with pytest.raises(MissingError, match=says) as caught:
        fetch(record(source(server)))
    text = str(caught.value)
    assert f"{server.address}/test.pt" in text and "https://page.example/test" in text
    assert str(tmp_path / "cache" / "test.pt") in text and "C2F_WEIGHTS_MIRROR" in text
    assert caught.value.exit_code == 3 and listed(tmp_path / "cache") == []


def test_no_network_is_a_missing_error(server, tmp_path):
    away = Source("http://name.invalid/test.pt", "test.pt", "https://page.example", None, called="Their=File.pth")
    with pytest.raises(MissingError, match="not reachable") as caught:
        fetch(record(away))
    place = tmp_path / "cache" / "test.pt"
    assert caught.value.cure is not None
    assert caught.value.cure.startswith(f"Download Their=File.pth from https://page.example and place it as {place},")
    place.write_bytes(CONTENT)
    assert fetch(record(away)) == place


def test_a_file_that_only_a_browser_gets_is_asked_for_by_name(server, tmp_path, monkeypatch):
    page = f"{server.address}/folder"
    shared = Source(page, "test.pt", page, HASH, called="Theirs.pt", browser=True)
    with pytest.raises(MissingError, match="only a browser") as caught:
        fetch(record(shared))
    place = tmp_path / "cache" / "test.pt"
    assert f"Download Theirs.pt from {page} and place it as {place}" in str(caught.value) and server.asked == []
    with pytest.raises(MissingError, match=f"take in.pth out of it and place that as {re.escape(str(place))}"):
        fetch(record(replace(shared, member="in.pth")))
    monkeypatch.setenv("C2F_WEIGHTS_MIRROR", f"{server.address}/mirror")
    assert fetch(record(shared)).read_bytes() == CONTENT
    assert server.asked == [("/mirror/test.pt", None)]


def test_too_small_a_disk_is_said_before_downloading(server, tmp_path, monkeypatch):
    monkeypatch.setattr("c2ftool.files.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(RunError, match="disk full"):
        fetch(record(source(server)))
    assert not (tmp_path / "cache" / "test.pt").exists()


def test_processes_that_want_the_same_file_fetch_it_once(server):
    paths: list[object] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(record(source(server))))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4 and len(set(paths)) == 1 and len(server.asked) == 1


# --- archives ---------------------------------------------------------------------------------------------------------

MEMBER = "weights_ep67.pth"


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name in names:
            made.writestr(name, CONTENT)
    return file.getvalue()


def packed(server: Server, sha256: str | None = HASH) -> Source:
    return replace(source(server, sha256), url=f"{server.address}/m2d.zip", called="m2d.zip", member=MEMBER)


def test_a_checkpoint_is_taken_out_of_its_archive(server, tmp_path):
    server.content = archive("m2d/readme.txt", f"m2d/{MEMBER}")
    server.breaks = [3_000_000]
    path = fetch(record(packed(server)))
    assert path.read_bytes() == CONTENT and listed(path.parent) == ["test.pt", "test.pt.sha256"]
    assert server.asked == [("/m2d.zip", None), ("/m2d.zip", "bytes=3000000-")]
    assert fetch(record(packed(server))) == path and len(server.asked) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (archive("m2d/other.pth"), f"holds 0 files {MEMBER}"),
        (archive(f"a/{MEMBER}", f"b/{MEMBER}"), f"holds 2 files {MEMBER}"),
        (CONTENT, "no archive"),
        (archive(f"m2d/{MEMBER}").replace(b"\x01\x02\x03", b"\x01\x03\x03", 1), "CRC"),
    ],
)
def test_an_archive_without_the_checkpoint_is_refused_and_deleted(server, tmp_path, content, says):
    server.content = content
    with pytest.raises(DataError, match=says):
        fetch(record(packed(server, sha256=None)))
    assert [name for name in listed(tmp_path / "cache") if not name.endswith(".etag")] == []
    server.content, server.tag = archive(f"m2d/{MEMBER}"), '"mended"'
    assert fetch(record(packed(server))).read_bytes() == CONTENT


def test_an_archive_stays_where_there_is_no_room_to_unpack_it(server, tmp_path, monkeypatch):
    server.content = archive(f"m2d/{MEMBER}")
    room = [len(server.content) * 2, 1000]
    monkeypatch.setattr(
        "c2ftool.files.shutil.disk_usage", lambda _: type("Usage", (), {"free": room.pop(0) if room else 10**12})
    )
    with pytest.raises(RunError, match="disk full"):
        fetch(record(packed(server)))
    assert fetch(record(packed(server))).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, f"bytes={len(server.content)}-"]
