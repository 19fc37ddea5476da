"""Files appear whole or not at all; a full disk, a refused folder and a second user are said in one sentence."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from c2ftool.errors import RunError, UsageError
from c2ftool.files import free_space_check, lock, publish_folder, sha256, temporary_name, translate_failure
from c2ftool.files import write_atomically as write

ROOT = Path(__file__).resolve().parents[2]


def test_writes_bytes_text_and_callbacks(tmp_path):
    target = tmp_path / "file"
    write(target, b"\x00\x01")
    assert target.read_bytes() == b"\x00\x01"
    write(target, "märz")
    assert target.read_bytes() == "märz".encode()
    write(target, lambda temporary: temporary.write_text("called"))
    assert target.read_text() == "called"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "file"
    write(target, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise ValueError("broke in the middle")

    with pytest.raises(ValueError, match="middle"):
        write(target, half)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 704 vs 598"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_message(tmp_path, fault):
    def fails(temporary: Path) -> None:
        temporary.write_text("some")
        raise fault

    with pytest.raises(RunError, match="disk full") as caught:
        write(tmp_path / "file", fails)
    assert caught.value.cure and str(tmp_path / "file") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_really_full_disk_leaves_nothing_of_torch_or_safetensors(tmp_path):
    """A file size limit fails a write in the middle, as a full disk does."""
    program = f"""
import resource, signal, sys
import torch
from pathlib import Path
from c2ftool.errors import RunError
from c2ftool.files import write_atomically
from c2ftool.models.weights import save_weights
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
state = {{"a": torch.zeros(100_000)}}
folder = Path({str(tmp_path)!r})
for write in (
    lambda: write_atomically(folder / "plain", bytes(400_000)),
    lambda: write_atomically(folder / "torch", lambda t: torch.save(state, t)),
    lambda: save_weights(folder / "safe", state, {{}}),
):
    try:
        write()
    except RunError as error:
        print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("disk full") == 3, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_run_error(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(RunError, match="cannot be written") as caught:
        write(tmp_path / "plain" / "file", "x")
    assert caught.value.exit_code == 1 and caught.value.cure
    with pytest.raises(RunError, match="cannot be written"), translate_failure(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(ZeroDivisionError), translate_failure(tmp_path):
        _ = 1 / 0


def test_killed_while_writing_the_old_or_the_new_file_is_there(tmp_path):
    target = tmp_path / "file"
    write(target, b"0" * 2_000_000)
    program = (
        "import itertools, pathlib, sys\nfrom c2ftool.files import write_atomically\nprint('ready', flush=True)\n"
        "for n in itertools.count():\n"
        f"    write_atomically(pathlib.Path({str(target)!r}), bytes([48 + n % 10]) * 2_000_000)\n"
    )
    for pause in (0.0, 0.013, 0.029, 0.041):
        child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline()
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        content = target.read_bytes()
        assert len(content) == 2_000_000 and len(set(content)) == 1


def test_folders_are_published_whole(tmp_path):
    partial = tmp_path / "partial"
    (partial / "sub").mkdir(parents=True)
    (partial / "sub" / "a").write_text("a")
    publish_folder(partial, tmp_path / "final")
    assert (tmp_path / "final" / "sub" / "a").read_text() == "a" and not partial.exists()
    partial.mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        publish_folder(partial, tmp_path / "final")  # never over another folder's content
    assert (tmp_path / "final" / "sub" / "a").exists()


def test_temporary_names_are_hidden_and_never_repeat(tmp_path):
    names = {temporary_name(tmp_path / "x") for _ in range(100)}
    assert len(names) == 100
    assert all(name.parent == tmp_path and name.name.startswith(".x.") for name in names)


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_too_little_space_is_said_with_both_figures(tmp_path):
    free_space_check(tmp_path / "not" / "there", 1)
    with pytest.raises(RunError, match=r"1e\+09 GB are needed"):
        free_space_check(tmp_path, 10**18)


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    program = (
        "import pathlib, sys\nfrom c2ftool.files import lock\n"
        f"with lock(pathlib.Path({str(path)!r})):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None and child.stdout.readline()
    with pytest.raises(UsageError, match=rf"in use by process {child.pid} on {os.uname().nodename}"), lock(path):
        pass
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    with lock(path), pytest.raises(UsageError, match=f"process {os.getpid()} "), lock(path):
        pass
    with lock(path, wait=True):
        pass
