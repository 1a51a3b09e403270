"""Outputs are whole or not there: links at their places, killed processes, several processes, full disks."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irc import partial
from irc.backends.triton import emit
from irc.diagnostics import IrcError
from irc.driver.text_files import leave_reproducer
from irc.parser import parse
from tests.command_line import ROOT, TEXT, irc_here

HOLD = """
import sys, time
from irc import partial
from irc.backends.triton import emit
from irc.diagnostics import IrcError
from irc.driver.text_files import leave_reproducer
from irc.parser import parse
with partial.{kind}(sys.argv[1]) as made:
    made.write(b"half") if hasattr(made, "write") else (made / "half").write_text("half")
    made.flush() if hasattr(made, "flush") else None
    print("ready", flush=True)
    time.sleep(60)
"""


def left(folder: Path) -> list[str]:
    """Partial files and folders in a folder."""
    return [name for name in os.listdir(folder) if name.startswith(".irc-")]


def holding(kind: str, path: Path) -> subprocess.Popen[str]:
    """A process in the middle of writing."""
    process = subprocess.Popen([sys.executable, "-c", HOLD.format(kind=kind), path], stdout=subprocess.PIPE, text=True,
                               cwd=ROOT)  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_link_at_the_place_or_at_a_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "out").symlink_to("other")
    names = iter(["taken", "free", "free2"])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(names))
    (tmp_path / ".irc-taken.partial").symlink_to("other")
    with pytest.raises(FileExistsError), partial.replacing(tmp_path / "out") as file:
        file.write(b"never")
    with partial.replacing(tmp_path / "out") as file:
        file.write(b"new")
    assert (tmp_path / "other").read_text() == "other" and not (tmp_path / "out").is_symlink()
    assert (tmp_path / "out").read_text() == "new" and left(tmp_path) == [".irc-taken.partial"]


def test_names_are_random_and_rights_are_the_user_s(tmp_path: Path) -> None:
    seen = set()
    for _ in range(3):
        with partial.replacing(tmp_path / "out"):
            seen.update(left(tmp_path))
    assert len(seen) == 3
    (tmp_path / "plain").touch()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with partial.TemporaryFolder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", ["replacing", "replacing_folder"])
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, kind: str) -> None:
    alive, killed = (holding(kind, tmp_path / name) for name in ("alive", "killed"))
    assert len(left(tmp_path)) == 2
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(left(tmp_path)) == 2
    with partial.replacing(tmp_path / "another"):
        assert len(left(tmp_path)) == 2  # its own, and that of the process that lives
    assert len(left(tmp_path)) == 1 and not (tmp_path / "killed").exists()
    alive.kill()
    alive.wait()


def test_a_folder_that_was_moved_away_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    moved = tmp_path / ".irc-0.partial" / "old0" / "out"
    moved.mkdir(parents=True)
    (moved / "content").write_text("before")
    partial.remove_left_over(tmp_path)
    assert (tmp_path / "out" / "content").read_text() == "before" and not left(tmp_path)


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "content").write_text("before")
    with pytest.raises(KeyError), partial.replacing(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyError
    with pytest.raises(KeyError), partial.replacing_folder(tmp_path / "folder") as folder:
        (folder / "content").write_text("half")
        raise KeyError
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "content").read_text() == "before"
    assert not left(tmp_path)


def irc(folder: Path, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([Path(sys.executable).with_name("irc"), *arguments], cwd=folder, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)  # type: ignore[call-overload] # fmt: skip


def test_only_an_artefact_is_replaced(tmp_path: Path) -> None:
    """A manifest of something else does not make a folder one, nor does one of irc beside a user's files."""
    module = parse(TEXT)
    for name, file, content in (("app", "manifest.json", '{"name": "app"}'), ("other", "notes", "mine")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(content)
        with pytest.raises(IrcError, match=r"file\.exists"):
            emit(module, tmp_path / name)
    emit(module, tmp_path / "ours")
    emit(module, tmp_path / "ours")
    (tmp_path / "ours" / "notes").write_text("mine")
    with pytest.raises(IrcError, match=r"file\.exists"):
        emit(module, tmp_path / "ours")
    assert (tmp_path / "ours" / "notes").read_text() == "mine" and not left(tmp_path)


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_pipe_is_not_replaced(name: str, tmp_path: Path) -> None:
    """A user who may write to /dev would lose /dev/null, which compilers take as "write nothing"."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "m.irc").write_text(TEXT)
    np.savez(tmp_path / "in.npz", x=np.ones((2, 8), np.float32), b=np.ones(8, np.float32))
    for replaces in (partial.replacing, partial.replacing_folder):
        with pytest.raises(FileExistsError), replaces(tmp_path / name):
            pass
    for arguments in (["compile", "m.irc", "-o", name], ["compile", "m.irc", "--backend", "triton", "-o", name],
                      ["opt", "m.irc", "-p", "cse", "-o", name], ["opt", "m.irc", "-p", "fuse", "--plan", name],
                      ["run", "m.irc", "--input", "in.npz", "--output", name],
                      ["experiment", "m.irc", "-p", "a=clean", "--html", name]):
        done = irc_here(*arguments, folder=tmp_path)
        assert done.code and "error[file.exists]" in done.err, (arguments, done)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink() and not left(tmp_path)


def test_a_reproducer_is_not_left_through_a_link(tmp_path: Path) -> None:
    """The folder's name is fixed, so that a downloaded model may come with a link of that name."""
    (tmp_path / "other").mkdir()
    (tmp_path / "irc-reproducer").symlink_to("other")
    said = leave_reproducer(tmp_path / "irc-reproducer" / "fuse", parse(TEXT), "irc", ValueError())
    assert "no reproducer could be written" in said and not os.listdir(tmp_path / "other")
    (tmp_path / "irc-reproducer").unlink()
    (tmp_path / "irc-reproducer" / "fuse").mkdir(parents=True)
    (tmp_path / "other" / "file").write_text("other")
    (tmp_path / "irc-reproducer" / "fuse" / "command").symlink_to(tmp_path / "other" / "file")
    said = leave_reproducer(tmp_path / "irc-reproducer" / "fuse", parse(TEXT), "irc", ValueError())
    assert "with the files in" in said
    assert (tmp_path / "other" / "file").read_text() == "other"


def test_several_processes_write_the_same_output(tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text(TEXT)
    commands = [("compile", "m.irc", "-o", "out.onnx"), ("compile", "m.irc", "--backend", "triton", "-o", "out.triton")]
    processes = [irc(tmp_path, *command) for command in commands * 2]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert sorted(os.listdir(tmp_path)) == ["m.irc", "out.onnx", "out.triton"]
    assert (tmp_path / "out.triton" / "manifest.json").is_file()


def test_a_full_disk_leaves_no_output(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: what does not fit is rejected by the system."""
    values = ", ".join(f"{number}.5" for number in range(4096))
    (tmp_path / "m.irc").write_text(
        "irc text 1\nmodule @m {\n  func @main(%x: f32[4096]) -> f32[4096] {\n"
        f"    %c = const [{values}] : f32[4096]\n    %y = add %x, %c : f32[4096]\n    return %y\n  }}\n}}\n"
    )
    (tmp_path / "there.onnx").write_text("before")
    commands = [
        ("compile", "m.irc", "-o", "there.onnx"), ("print", "m.irc", "-o", "out.irc"),
        ("compile", "m.irc", "--backend", "triton", "-o", "out.triton"), ("run", "m.irc", "--output", "out.npz"),
        ("extract", "m.irc", "--to", "%y", "-o", "part.irc"),
    ]  # fmt: skip
    for command in commands:
        process = irc(tmp_path, *command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
        _, errors = process.communicate()
        assert process.returncode == 3 and b"error[file.unreadable]" in errors, (command, errors)
    assert sorted(os.listdir(tmp_path)) == ["m.irc", "there.onnx"] and (tmp_path / "there.onnx").read_text() == "before"


def test_temporary_files_of_a_killed_run_are_removed_by_the_next(tmp_path: Path) -> None:
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    (work / "m.irc").write_text(TEXT)
    script = "import time; from irc import partial; kept = partial.TemporaryFolder(); print(flush=True); time.sleep(60)"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    killed = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, cwd=ROOT)
    assert killed.stdout is not None and killed.stdout.readline()
    killed.kill()
    killed.wait()
    assert len(left(temporary)) == 1
    process = irc(work, "run", "m.irc", "--backend", "onnx", env=environment)
    assert process.wait() == 0, process.communicate()
    assert not left(temporary)


def test_a_folder_that_another_process_removes_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                   ) -> None:
    """Between its making and its locking a folder looks as if a killed process had left it."""
    make, created = os.mkdir, []

    def mkdir(path: Path, mode: int) -> None:
        make(path, mode)
        created.append(path)
        if len(created) < 3:
            partial.remove_left_over(tmp_path)

    monkeypatch.setattr(partial.os, "mkdir", mkdir)
    with partial.TemporaryFolder(tmp_path) as folder:
        assert folder == created[-1] and folder.is_dir() and len(created) == 3
    with pytest.raises(FileNotFoundError):
        partial.TemporaryFolder(tmp_path / "none")
