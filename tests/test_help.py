"""`irc --help` and the help of every command: layout, examples that run, and shell completion."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import onnx
import pytest

from irc.cli.commands import PURPOSES
from irc.cli.completion import SHELLS, VARIABLE
from irc.cli.examples import EXAMPLES
from irc.cli.main import cli
from tests.command_line import EXAMPLES as EXAMPLE_FILES
from tests.command_line import irc_here, model_proto


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that the examples of the help assume: a model, and the repository's example files."""
    onnx.save(model_proto(), tmp_path / "model.onnx")
    shutil.copytree(EXAMPLE_FILES, tmp_path / "examples")
    return tmp_path


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_run(folder: Path, command: str) -> None:
    """Every example succeeds; the output of a command before a pipe is the standard input of the next one."""
    if command == "tune":
        pytest.importorskip("torch")
    for line, _ in EXAMPLES[command]:
        if "--target sm_90" in line:
            pytest.importorskip("triton")
        output = b""
        for part in line.split(" | "):
            program, *arguments = shlex.split(part)
            assert program == "irc", line
            result = irc_here(*arguments, folder=folder, stdin=output)
            if arguments[0] == "tune" and "device.missing" in result.err:
                continue  # it needs a GPU
            assert result.code == 0, f"{line}\n{result.err}"
            assert "\x1b" not in result.out + result.err, line  # no terminal, no colors
            output = result.out.encode()
        assert output or command == "tune", line


def test_every_command_has_a_purpose_and_examples(tmp_path: Path) -> None:
    assert sorted(name for names in PURPOSES.values() for name in names) == sorted(cli.commands)
    assert set(EXAMPLES) == {"irc", *cli.commands}
    for command in ("", *cli.commands):
        text = irc_here(*command.split(), "--help", folder=tmp_path).out
        assert "\nExamples:\n" in text
        for line, remark in EXAMPLES[command or "irc"]:
            assert f"  {line}" in text and remark in text


def test_every_option_is_described(tmp_path: Path) -> None:
    for name, command in cli.commands.items():
        assert command.help and command.short_help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help and parameter.help[0].isupper(), f"{name} {parameter.opts}"


def test_short_helps_are_whole(tmp_path: Path) -> None:
    """click cuts them off where they are too long."""
    text = irc_here("--help", folder=tmp_path).out
    for command in cli.commands.values():
        assert command.short_help is not None and command.short_help in text


def completions(folder: Path, *words: str, shell: str = "bash") -> list[str]:
    """What click answers to a shell that completes the last word."""
    request = {VARIABLE: f"{shell}_complete", "COMP_WORDS": shlex.join(words), "COMP_CWORD": str(len(words) - 1)}
    program = Path(sys.executable).with_name("irc")
    done = subprocess.run([program], cwd=folder, env={**os.environ, **request}, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "included"),
    [
        (("irc", "comp"), ["plain,compile", "plain,completion"]),
        (("irc", "compile", "--ba"), ["plain,--backend"]),
        (("irc", "compile", "m.onnx", "--backend", ""), ["plain,onnx", "plain,triton"]),
        (("irc", "compile", "m.onnx", "--target", "sm_"), ["plain,sm_80", "plain,sm_90", "plain,sm_100"]),
        (("irc", "compile", "mod"), ["file,mod"]),
        (("irc", "opt", "m.onnx", "-p", "fold,cs"), ["plain,fold,cse"]),
        (("irc", "doc", "layer"), ["plain,layer_norm"]),
        (("irc", "kernels", "m.onnx", "--limit", "mem"), ["plain,memory="]),
        (("irc", "experiment", "m.onnx", "--device", "h"), ["plain,h100", "plain,h200"]),
        (("irc", "reduce", "m.onnx", "-o", "red"), ["dir,red"]),
    ],
)
def test_completions(tmp_path: Path, words: tuple[str, ...], included: list[str]) -> None:
    assert set(included) <= set(completions(tmp_path, *words))


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts(tmp_path: Path, shell: str) -> None:
    script = irc_here("completion", shell, folder=tmp_path).out
    assert f"{VARIABLE}={shell}_complete" in script and "irc" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_bash_completes_by_the_script(tmp_path: Path) -> None:
    """The whole way: bash evaluates the script, and calls the function that it registers."""
    script = irc_here("completion", "bash", folder=tmp_path).out
    probe = 'COMP_WORDS=(irc ex); COMP_CWORD=1; _irc_completion irc; echo "${COMPREPLY[@]}"'
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(["bash", "-c", f"{script}\n{probe}"], env={**os.environ, "PATH": path},
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.split() == ["experiment", "explain", "extract"], done.stderr
