"""What commands say beside their results: stages, times, progress, colors, errors as JSON; and how they end when a
stream is closed, a disk is full, or the user interrupts them."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from irc import stages
from irc.cli import reporting
from irc.cli.main import cli
from irc.cli.reporting import Progress, has_colors
from tests.cli_reports import fine, working_folder
from tests.command_line import EXAMPLES, irc_here, irc_process

IRC = Path(sys.executable).with_name("irc")
REPORTING = sorted(name for name, command in cli.commands.items()
                   if any("--timings" in each.opts for each in command.params))  # fmt: skip
# The arguments of a command that ends with a coded error. `cache` has none that could fail.
FAILING = {
    "calibrate": ("-o", "costs.json", "--kind", "nothing"),
    "diff": ("missing.onnx", "missing.onnx"),
    "experiment": ("missing.onnx", "-p", "a=default"),
    "extract": ("missing.onnx", "--to", "%y"),
    "tune": ("missing",),
}


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return working_folder(tmp_path)


@pytest.fixture(autouse=True)
def no_color_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


# -- stages and times ------------------------------------------------------------------------------------------


def test_seconds_of_stages_count_once() -> None:
    observed = stages.Stages()
    with observed.observed(), stages.stage("outer"):
        with stages.stage("inner", "of a model"):
            assert observed.current == "outer: inner of a model"
            stages.step("3 of 4")
            assert observed.current == "outer: inner 3 of 4"
            time.sleep(0.05)
        with stages.stage("inner"):
            pass
    assert {name: each.runs for name, each in observed.totals.items()} == {"inner": 2, "outer": 1}
    assert observed.totals["inner"].seconds >= 0.05 > observed.totals["outer"].seconds
    assert sum(each.seconds for each in observed.totals.values()) <= observed.seconds
    with stages.stage("not observed"):
        assert not stages.results_are_read()
    assert "not observed" not in observed.totals


def test_a_stage_that_fails_ends() -> None:
    observed = stages.Stages()
    with observed.observed(), pytest.raises(ValueError), stages.stage("outer"), stages.stage("inner"):
        raise ValueError
    assert observed.running == [] and set(observed.totals) == {"inner", "outer"}


def test_timings_as_a_table(folder: Path) -> None:
    result = irc_here("run", "model.onnx", "--dim", "B=2", "--backend", "onnx", "--timings", folder=folder)
    assert result.code == 0 and result.out.startswith("ONNX Runtime, ")
    head, *rows, total = result.err.splitlines()
    assert head.split() == ["stage", "runs", "seconds", "share"] and total.startswith("total")
    names = [row[: row.index("  ")] for row in rows]
    assert [name for name in names if not name.startswith("pass ")] == [
        "import", "emission", "session", "run in ONNX Runtime", "other"]  # fmt: skip
    assert "pass fold" in names and sum(float(row.split()[-2]) for row in rows) == pytest.approx(
        float(total.split()[-1]), abs=0.001 * len(rows))  # fmt: skip


def test_timings_as_json(folder: Path) -> None:
    result = irc_here("kernels", "model.onnx", "--json", "--timings", folder=folder)
    assert (result.code, result.err) == (0, "")
    timings = json.loads(result.out)["timings"]
    names = {each["stage"]: each["runs"] for each in timings["stages"]}
    assert names["import"] == names["pass fuse"] == names["counting"] == names["other"] == 1
    assert sum(each["seconds"] for each in timings["stages"]) == pytest.approx(timings["seconds"], rel=0.05)
    assert "timings" not in json.loads(fine(irc_here("kernels", "model.onnx", "--json", folder=folder)))


def test_times_are_printed_where_a_command_fails(folder: Path) -> None:
    result = irc_here("opt", "model.onnx", "-p", "fold,raise{nothing=1}", "--timings", folder=folder)
    assert result.code == 2 and "\nimport " in result.err and "\nerror[pass.option]" in result.err


def test_verbose_names_each_stage_with_its_operations(folder: Path) -> None:
    result = irc_here("opt", "model.onnx", "-p", "fold,dce,fuse", "-v", folder=folder)
    assert result.code == 0 and result.out == fine(irc_here("opt", "model.onnx", "-p", "fold,dce,fuse", folder=folder))
    pattern = [r"import model\.onnx: \d+\.\d{3} s, 10 operations", r"pass fold: .* s, 10 -> \d+ operations",
               r"pass dce: .* operations", r"pass fuse: .* operations"]  # fmt: skip
    lines = result.err.splitlines()
    assert len(lines) == len(pattern)
    for line, expected in zip(lines, pattern, strict=True):
        assert click.unstyle(line) == line and re.fullmatch(expected, line), line


def test_quiet_prints_results_and_errors(folder: Path) -> None:
    for arguments in (("compile", "model.onnx"), ("compile", "model.onnx", "--backend", "triton", "-o", "out"),
                      ("print", "model.onnx", "-o", "m.irc"), ("opt", "small.irc", "-p", "dce", "-o", "o.irc"),
                      ("view", "small.irc"), ("extract", "small.irc", "--to", "%p")):  # fmt: skip
        assert fine(irc_here(*arguments, "--quiet", folder=folder)) == "", arguments
        assert fine(irc_here(*arguments, folder=folder)).startswith("wrote "), arguments
    assert fine(irc_here("print", "small.irc", "--quiet", folder=folder)).startswith("irc text 1\n")
    rules = ("opt", f"{EXAMPLES}/block.py:scaled", "-p", "rewrite", "--load", EXAMPLES / "rules.py")
    assert irc_here(*rules, folder=folder).err.startswith("note: ")
    fine(irc_here(*rules, "--quiet", folder=folder))
    result = irc_here("print", "missing.onnx", "--quiet", folder=folder)
    assert result.code == 3 and result.err.startswith("error[file.missing]")
    result = irc_here("print", "small.irc", "--quiet", "-v", folder=folder)
    assert result.code == 2 and "contradict" in result.err


def test_every_command_over_models_reports() -> None:
    assert set(cli.commands) - set(REPORTING) == {"cache", "completion", "doc"}


# -- progress --------------------------------------------------------------------------------------------------


def test_progress_is_shown_after_a_while_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "PATIENCE", 0.05)
    monkeypatch.setattr(reporting, "INTERVAL", 0.01)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    observed = stages.Stages()
    progress = Progress(observed)
    with observed.observed(), stages.stage("import", "a\x1b[31m.onnx " + "x" * 100):
        deadline = time.monotonic() + 60
        while "import" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        progress.clear()
        cleared = terminal.getvalue()
    progress.end()
    assert not progress.thread.is_alive() and cleared.endswith(reporting.CLEAR_LINE)
    line = terminal.getvalue().split(reporting.CLEAR_LINE)[1]
    assert re.match(r"\d+ s  import a\\x1b\[31m\.onnx xxx", line) and len(line) < 80
    assert terminal.getvalue().endswith(reporting.CLEAR_LINE)


def test_a_quick_command_shows_no_progress(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with reporting.Reporting().of_command():
        pass
    assert terminal.getvalue() == ""


SLOW = """
import time
import irc
from irc.files import temporary_folder
from irc.ops import exp

def model():
    with temporary_folder() as folder:
        open("started", "w").close()
        time.sleep({seconds})
    return irc.trace(lambda x: exp(x), "f32[4]")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no pseudo-terminals")
@pytest.mark.parametrize(("options", "is_shown"), [((), True), (("--quiet",), False), (("--json",), False)])
def test_progress_on_a_terminal(folder: Path, options: tuple[str, ...], is_shown: bool) -> None:
    import pty

    (folder / "slow.py").write_text(SLOW.format(seconds=2.6))
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run([IRC, "kernels", "slow.py:model", *options], cwd=folder, stderr=theirs,
                              stdout=subprocess.PIPE, timeout=120)  # fmt: skip
        os.write(theirs, b"#")
        said = ""
        while not said.endswith("#"):
            said += os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0 and done.stdout and b"\x1b" not in done.stdout
    assert ("s  import slow.py:model" in said) == is_shown, said
    assert said.endswith(f"{reporting.CLEAR_LINE}#") if is_shown else said == "#"


# -- colors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_when_there_are_colors(
    settings: dict[str, str], terminal: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert has_colors(Terminal() if terminal else io.StringIO()) is expected


def test_errors_and_marks_have_colors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = irc_here("print", "missing.onnx", folder=folder)
    assert result.err.startswith("\x1b[1;31merror[file.missing]\x1b[0m: ")
    assert irc_here("check", "small.irc", folder=folder).out.startswith("\x1b[32mok  \x1b[0m  import ")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in irc_here("print", "missing.onnx", folder=folder).err
    assert "\x1b" not in irc_here("check", "small.irc", folder=folder).out


# -- errors as JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [*sorted(cli.commands), "no-command", "--json"])
def test_errors_are_json_on_stdout(folder: Path, verb: str) -> None:
    """Where the command, or its option --json, is a mistake, too."""
    attempts = [(verb, "--json", "--not-an-option")]
    attempts += [(verb, *FAILING.get(verb, ("missing.onnx",)), "--json")] if verb != "cache" else []
    for arguments in attempts:
        result = irc_here(*arguments, folder=folder)
        stated = json.loads(result.out)
        assert stated["schema"] == "irc.error/1" and stated["exit_status"] == result.code > 1
        first = stated["errors"][0]
        assert set(first) == {"code", "message", "place", "origin", "expected", "notes", "help"}
        assert result.err.startswith(f"error[{first['code']}]: {first['message']}\n")
        if verb in cli.commands:
            assert irc_here(*(each for each in arguments if each != "--json"), folder=folder).out == ""


# -- streams, disks, interrupts --------------------------------------------------------------------------------


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(IRC.parent), os.environ["PATH"]])
    return subprocess.run(["bash", "-c", line], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True,
                          text=True, timeout=120)  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("line", ["doc ops", "--help", "--version", "print small.irc", "kernels small.irc --json"])
def test_a_full_disk_is_a_coded_error(folder: Path, line: str) -> None:
    done = shell(f"irc {line} >/dev/full", folder)
    assert done.returncode == 3
    assert done.stderr == ("error[file.unreadable]: No space left on device\n  --> the output\n"
                           "  help: irc explain file.unreadable\n")  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_the_status_is_that_of_the_error_where_it_cannot_be_printed(folder: Path) -> None:
    for line in ("print missing.onnx 2>/dev/full", "print missing.onnx 2>&-", "kernels missing.onnx --json >/dev/full"):
        done = shell(f"irc {line}", folder)
        assert done.returncode == 3 and "Traceback" not in done.stdout + done.stderr, line


def test_closed_streams(folder: Path) -> None:
    closed = shell("irc print small.irc >&-", folder)
    assert closed.returncode == 3 and closed.stderr.startswith("error[file.unreadable]: the standard output is closed")
    assert shell("irc print small.irc 2>&-", folder).stdout.startswith("irc text 1")
    no_input = shell("irc print - <&-", folder)
    assert no_input.returncode == 3 and no_input.stderr.startswith("error[file.missing]: the standard input is closed")
    for line in ("--help", "doc ops", "print small.irc", "kernels small.irc --json"):
        left = shell(f"irc {line} | true; echo ${{PIPESTATUS[0]}}", folder)
        assert (left.stdout, left.stderr) == ("0\n", ""), line


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a console differ")
@pytest.mark.parametrize("options", [(), ("--json",), ("--timings",)])
@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_leaves_nothing(folder: Path, options: tuple[str, ...]) -> None:
    (folder / "slow.py").write_text(SLOW.format(seconds=60))
    temporary = folder / "temporary"
    temporary.mkdir()
    command = subprocess.Popen([IRC, "kernels", "slow.py:model", *options], cwd=folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "TMPDIR": str(temporary)})  # fmt: skip
    deadline = time.monotonic() + 60
    while not (folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(temporary.iterdir())
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (130, "") and err.endswith("interrupted\n") and "Traceback" not in err
    assert ("import" in err) == ("--timings" in options)
    assert not list(temporary.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a console differ")
@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_of_pythons_end_prints_nothing(folder: Path) -> None:
    """Libraries have threads to join and functions to call at the end; that of this test waits."""
    waiting = "import atexit, time; atexit.register(lambda: (print('ending', flush=True), time.sleep(60)))"
    program = f"{waiting}; from irc.cli.entry import main; main()"
    command = subprocess.Popen([sys.executable, "-c", program, "print", "small.irc"], cwd=folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert command.stdout is not None
    lines = list(iter(command.stdout.readline, "ending\n"))
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out, err) == (-signal.SIGINT, "", "") and lines[0] == "irc text 1\n" and len(lines) > 4


def test_python_m_irc_is_the_command(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "irc", "print", "small.irc"], cwd=folder, capture_output=True, text=True
    )
    assert done.stdout == fine(irc_process("print", "small.irc", folder=folder))
