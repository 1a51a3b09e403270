"""`irc --help` and the help of every command: layout, and examples that run."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import click
import onnx
import pytest

from irc.cli.commands import PURPOSES
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
