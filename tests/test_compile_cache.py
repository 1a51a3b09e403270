"""The cache of compiled programs on disk: what is an entry, what is taken from it, and how it is bounded."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch import nn

import irc
from irc.diagnostics import IrcError
from irc.driver import content_keys
from irc.driver.compile_cache import code_store
from irc.driver.store import Store
from irc.pass_manager import PassManager
from tests.command_line import irc_here
from tests.torch_calls import BACKENDS

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that gets an element for each run of a pipeline."""
    original, count = PassManager.run, list[Any]()

    def run(self: Any, module: Any) -> Any:
        count.append(module)
        return original(self, module)

    monkeypatch.setattr(PassManager, "run", run)
    return count


def network(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.LayerNorm(width)).eval()


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_warm_start_runs_no_pass(backend: str, folder: Path, runs: list[Any], tmp_path: Path) -> None:
    x = torch.randn(3, 4)
    first = irc.compile(network(), (x,), backend=backend)
    assert len(runs) == 1 and len(entries(folder)) == 1
    again = irc.compile(network(), (x,), backend=backend)
    assert len(runs) == 1 and len(entries(folder)) == 1
    torch.testing.assert_close(again(x), first(x))
    torch.testing.assert_close(again(x), network()(x).detach())
    assert "network" not in repr(again) and len(runs) == 1
    for program, place in ((first, tmp_path / "first"), (again, tmp_path / "again")):
        program.save(place)
        torch.testing.assert_close(irc.load_compiled(place)(x), first(x))
    assert again.saved[1] == first.saved[1] and len(runs) == 1  # the same files
    assert again.module == first.module  # the passes are run for it


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_compiled_again_as_weights_change_is_not_kept(backend: str, folder: Path, tmp_path: Path) -> None:
    """As in a loop that trains and evaluates."""
    module, x = network(), torch.randn(3, 4)
    program = irc.compile(module, (x,), backend=backend)
    kept = entries(folder)
    for _ in range(3):
        with torch.no_grad():
            module[0].weight.mul_(2)
        torch.testing.assert_close(program(x), module(x).detach())
        assert entries(folder) == kept and len(kept) == 1
    program.save(tmp_path / "saved")
    torch.testing.assert_close(irc.load_compiled(tmp_path / "saved")(x), module(x).detach())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_warm_start_of_torch_compile(backend: str, folder: Path, runs: list[Any]) -> None:
    """Forward and backward, and inference with weights as constants."""

    def gradients() -> list[torch.Tensor]:
        torch._dynamo.reset()
        module = network()
        compiled = torch.compile(module, backend="irc", options={"backend": backend})
        compiled(torch.ones(3, 4)).square().sum().backward()
        with torch.no_grad():
            return [compiled(torch.ones(3, 4)), *(parameter.grad for parameter in module.parameters())]

    cold = gradients()
    count, kept = len(runs), entries(folder)
    assert count == len(kept) == 3
    warm = gradients()
    assert len(runs) == count and entries(folder) == kept
    torch.testing.assert_close(warm, cold)


def test_whatever_differs_is_another_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, module = torch.randn(3, 4), network()

    def added(program: Any = module, inputs: Any = (x,), **options: Any) -> int:
        before = len(entries(folder)) if folder.exists() else 0
        compiled = irc.compile(program, inputs, **options)
        torch.testing.assert_close(compiled(*inputs), program(*inputs).detach())
        return len(entries(folder)) - before

    assert added() == 1 and added() == 0 and added(network()) == 0
    with torch.no_grad():
        module[0].weight[1, 2] += 1
    assert added() == 1 and added() == 0
    module.load_state_dict(network().state_dict())
    assert added() == 0  # the first ones again
    assert added(network(5)) == 1 and added(inputs=(x[:2],)) == 1
    assert added(dynamic_shapes={"input": {0: "B"}}) == 1 and added(pipeline="default") == 1
    assert added(settings=irc.Settings(target="cpu")) == 1 and added(settings=irc.Settings(opset=20)) == 1
    assert added(settings=irc.Settings(numerics="exact")) == 1 and added(backend="triton") == 1
    with irc.allow(memory=10**9):
        assert added() == 1
    installed, implementation = content_keys.metadata.version, content_keys._implementation()
    for name in content_keys.PACKAGES:
        with monkeypatch.context() as patch:
            patch.setattr(
                content_keys.metadata, "version", lambda each, name=name: "0.1" if each == name else installed(each)
            )
            content_keys._implementation.cache_clear()
            assert content_keys._implementation() != implementation
            assert name != "numpy" or added() == 1
        content_keys._implementation.cache_clear()


def test_files_of_users_and_notes_are_not_kept(folder: Path, runs: list[Any]) -> None:
    x, policy = torch.randn(3, 4), ROOT / "examples" / "rules.py"
    for options in (
        {"pipeline": f"default{{fuse.policy={policy}:frugal}}", "backend": "triton"},
        {"settings": irc.Settings(verify_each=True)}, {"settings": irc.Settings(show_note=print)},
    ):  # fmt: skip
        for _ in range(2):
            irc.compile(network(), (x,), **options)
    assert len(runs) == 6 and not (folder.exists() and entries(folder))


def test_damaged_entries_are_compiled_again(folder: Path, runs: list[Any]) -> None:
    x = torch.randn(3, 4)
    irc.compile(network(), (x,))
    (entry,) = folder.iterdir()
    for name, count in (("model.onnx", 2), ("program.json", 3), ("interface.irc", 4)):
        (entry / name).write_bytes((entry / name).read_bytes()[:-3])
        torch.testing.assert_close(irc.compile(network(), (x,))(x), network()(x).detach())
        assert len(runs) == count and entries(folder) == {entry.name}


def test_entries_that_do_not_run_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 4)
    irc.compile(network(), (x,))
    (entry,) = folder.iterdir()
    (entry / "remains").touch()

    def fails(*arguments: Any, kept: Any, **others: Any) -> Any:
        monkeypatch.undo()
        monkeypatch.setenv("IRC_CACHE", str(folder))
        raise ImportError

    monkeypatch.setattr("irc.driver.compile_cache.runner_of", fails)
    torch.testing.assert_close(irc.compile(network(), (x,))(x), network()(x).detach())
    assert entries(folder) == {entry.name} and not (entry / "remains").exists()


def test_only_what_this_user_wrote_is_read(folder: Path, runs: list[Any], recwarn: Any) -> None:
    """Artefacts are Python: a folder that others can write is not used."""
    x = torch.randn(3, 4)
    irc.compile(network(), (x,))
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.warns(UserWarning, match="can be written by others") as caught:
        irc.compile(network(), (x,))
    assert {each.filename for each in caught} == {__file__}
    assert len(runs) == 2
    folder.chmod(0o700)
    irc.compile(network(), (x,))
    assert len(runs) == 2


def test_it_is_off_where_the_environment_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IRC_CACHE", "off")
    irc.compile(network(), (torch.randn(3, 4),))
    assert not folder.exists() and code_store() is None
    monkeypatch.setenv("IRC_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="without the cache"):
        assert code_store() is None
    monkeypatch.delenv("IRC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    store = code_store()
    assert store is not None and store.folder == tmp_path / "xdg" / "irc-compiler"
    monkeypatch.setenv("IRC_CACHE_BYTES", "many")
    with pytest.raises(IrcError, match=r"usage\.value"):
        code_store()


@pytest.mark.parametrize("backend", BACKENDS)
def test_programs_run_after_their_entries_are_cleared(backend: str, folder: Path, tmp_path: Path) -> None:
    """Code that is in use stays: Triton reads its source when a kernel is first launched, and `save` copies it."""
    x = torch.randn(3, 4)
    compiled = irc.compile(network(), (x,), backend=backend)
    report = irc.cache(clear=True)
    assert report.removed == 0
    torch.testing.assert_close(compiled(x), network()(x).detach())
    compiled.save(tmp_path / "saved")
    torch.testing.assert_close(irc.load_compiled(tmp_path / "saved")(x), network()(x).detach())
    del compiled
    gc.collect()
    assert irc.cache(clear=True).entries == 0


def test_the_oldest_entries_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 4)
    irc.compile(network(), (x,))
    size = irc.cache().bytes
    monkeypatch.setenv("IRC_CACHE_BYTES", str(int(3.5 * size)))
    (first,) = entries(folder)
    for width in (5, 6):
        irc.compile(network(width), (x,))
        os.utime(folder / first)  # as a use of it
        time.sleep(0.02)
    kept = entries(folder)
    assert len(kept) == 3
    os.utime(folder / first, (0, 0))
    irc.compile(network(7), (x,))
    assert len(entries(folder)) == 3 and first not in entries(folder)
    monkeypatch.setenv("IRC_CACHE_BYTES", "100")
    irc.compile(network(9), (x,))  # larger than half of the limit: not kept
    assert not entries(folder)


def test_a_lower_limit_holds_though_nothing_is_added(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                     runs: list[Any]) -> None:  # fmt: skip
    x = torch.randn(3, 4)
    for width in (4, 5, 6):
        irc.compile(network(width), (x,))
    before, size = entries(folder), irc.cache().bytes
    count = len(runs)
    monkeypatch.setenv("IRC_CACHE_BYTES", str(size // 2))
    irc.compile(network(5), (x,))
    assert len(runs) == count and irc.cache().bytes <= size // 2
    assert entries(folder) < before
    irc.compile(network(5), (x,))
    assert len(runs) == count  # what was used last is kept


def test_names_that_are_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that another process removes and adds again, between its opening and its lock, is not held under that
    name: the new one is; and only what was locked is removed."""
    import fcntl

    store, original, waiting = Store(tmp_path), fcntl.flock, [True]

    def add(content: str) -> None:
        with store.adding("entry") as new:
            (new / "part").write_text(content)

    def flock(handle: int, kind: int) -> None:
        if waiting.pop():
            waiting.append(False)
            os.rename(tmp_path / "entry", tmp_path / "elsewhere")
            add("second")
        else:
            waiting.append(False)
        original(handle, kind)

    add("first")
    monkeypatch.setattr(fcntl, "flock", flock)
    lease = store.find("entry")
    assert lease is not None and lease.is_current() and not store.remove("entry")
    del lease
    (tmp_path / "elsewhere" / "part").unlink()
    os.rmdir(tmp_path / "elsewhere")
    waiting[:] = [True]
    assert not store.remove("entry") and (tmp_path / "entry" / "part").read_text() == "second"


def test_what_is_no_entry_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IRC_CACHE may name a folder that has other things: they are neither counted nor removed."""
    (folder / "documents").mkdir(parents=True)
    (folder / "documents" / "thesis.txt").write_text("x" * 1000)
    (folder / "notes").write_text("y" * 1000)
    os.chmod(folder, 0o700)
    monkeypatch.setenv("IRC_CACHE_BYTES", "100000")
    irc.compile(network(), (torch.randn(3, 4),))
    monkeypatch.setenv("IRC_CACHE_BYTES", "1")
    report = irc.cache(clear=True)
    assert (report.removed, report.entries, report.bytes) == (1, 0, 0)
    assert (folder / "documents" / "thesis.txt").is_file() and (folder / "notes").is_file()


def test_the_command(folder: Path, tmp_path: Path) -> None:
    irc.compile(network(), (torch.randn(3, 4),))
    shown = irc_here("cache", folder=tmp_path)
    assert shown.code == 0 and f"{folder}: 1 entry, " in shown.out
    report = json.loads(irc_here("cache", "--json", folder=tmp_path).out)
    assert report["entries"] == 1 and report["folder"] == str(folder) and report["bytes"] > 1000
    assert "removed 1 entry" in irc_here("cache", "--clear", folder=tmp_path).out
    assert not entries(folder)


# -- several processes and threads -----------------------------------------------------------------------------


def use_store(folder: str, seed: int) -> None:
    """Add, find and remove entries of a small store, and check that all that is found is whole."""
    import random

    draw, store = random.Random(seed), Store(folder, most_bytes=9000, private=True)
    for _ in range(60):
        name = f"entry{draw.randrange(12)}"
        lease = store.find(name)
        if lease is None:
            with store.adding(name) as new:
                for part in ("a", "b"):
                    (new / part).write_text(name * 100)
            store.shrink()
        elif draw.random() < 0.3:
            del lease
            store.remove(name)
        else:
            texts = {path.read_text() for path in lease.path.iterdir()}
            assert texts == {name * 100}, texts
            assert len(list(lease.path.iterdir())) == 2


def test_processes_share_a_store(tmp_path: Path) -> None:
    context = get_context("spawn" if sys.platform == "win32" else "fork")
    processes = [context.Process(target=use_store, args=(str(tmp_path / "store"), seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    store = Store(tmp_path / "store", most_bytes=9000)
    store.shrink()
    assert sum(entry.bytes for entry in store.entries()) <= 9000
    assert all(path.name.startswith("entry") for path in store.folder.iterdir())


def test_threads_and_processes_compile_the_same(folder: Path, tmp_path: Path) -> None:
    script = ("import torch, irc; from tests.test_compile_cache import network; m = network(); x = torch.ones(2, 4)\n"
              "assert torch.allclose(irc.compile(m, (x,))(x), m(x), atol=1e-6)")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, stderr=subprocess.PIPE,
                               env={**os.environ, "IRC_CACHE": str(folder)})  # fmt: skip
    x, results = torch.ones(2, 4), list[torch.Tensor]()
    module = network()

    def work() -> None:
        results.append(irc.compile(module, (x,))(x))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        torch.testing.assert_close(result, module(x).detach())
    assert len(results) == 3
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert len(entries(folder)) == 1
