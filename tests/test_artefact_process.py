"""The process that runs artefacts: each run is one of its own, with PyTorch loaded."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from irc.driver.artefact_process import ArtefactProcess


@pytest.fixture(scope="module")
def server() -> Iterator[ArtefactProcess]:
    process = ArtefactProcess()
    yield process
    process.close()


def run(server: ArtefactProcess, folder: Path, program: str, *arguments: str) -> tuple[int, str]:
    (folder / "artefact").mkdir(exist_ok=True)
    (folder / "artefact" / "__init__.py").write_text("count = 0\n")
    (folder / "artefact" / "__main__.py").write_text(program)
    return server.run(folder, arguments)


def test_a_run_is_as_in_a_process_of_its_own(server: ArtefactProcess, tmp_path: Path) -> None:
    status, printed = run(server, tmp_path, """
import os, sys
print("torch" in sys.modules, "irc" in sys.modules, sys.argv[1:], os.getcwd(), __name__, __package__)
import artefact
artefact.count += 1
print(artefact.count, file=sys.stderr)
""", "--input", "in put.npz")  # fmt: skip
    assert (status, printed) == (0, f"True False ['--input', 'in put.npz'] {tmp_path.resolve()} __main__ artefact\n1\n")
    assert run(server, tmp_path, "import artefact\nprint(artefact.count)") == (0, "0\n")


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit()", 0, ""),
        ("raise KeyError('mine')", 1, "KeyError: 'mine'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGFPE)", -signal.SIGFPE, ""),
    ],
)
def test_how_a_run_ends(server: ArtefactProcess, program: str, status: int, said: str, tmp_path: Path) -> None:
    actual, printed = run(server, tmp_path, program)
    assert actual == status and said in printed


def test_the_server_serves_until_it_is_ended_or_what_libraries_read_changes(
    server: ArtefactProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = "import os\nprint(os.getppid(), os.environ.get('MINE'))"
    first = run(server, tmp_path, parent)[1].split()
    monkeypatch.setenv("MINE", "yes")
    assert run(server, tmp_path, parent)[1].split() == [first[0], "yes"]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    second = run(server, tmp_path, parent)[1].split()
    assert second[0] != first[0]
    os.kill(int(second[0]), signal.SIGKILL)
    assert run(server, tmp_path, parent)[0] in (0, 1)  # it may not have ended yet
    assert run(server, tmp_path, parent)[0] == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_the_run(tmp_path: Path) -> None:
    """The run itself, too, which is a process of the server; and neither prints anything about it."""
    (tmp_path / "artefact").mkdir()
    (tmp_path / "artefact" / "__main__.py").write_text(
        "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    server = ArtefactProcess()

    def interrupt() -> None:
        deadline = time.monotonic() + 120
        while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        server.run(tmp_path, [])
    thread.join()
    state = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not state.exists() or state.read_text().split()[2] == "Z"
