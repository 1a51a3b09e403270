"""Options given twice: all values are used, or the command is rejected; none is dropped silently."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pytest

from irc.cli.main import cli
from irc.diagnostics import IrcError
from irc.driver import Settings, opt
from tests.command_line import EXAMPLES, irc_here

BLOCK, SCORES = f"{EXAMPLES}/block.py:block", f"{EXAMPLES}/block.py:scores"
# A value for the options that a command needs, and for those that are tried.
VALUES = {"pipeline": "dce", "device": "sm_90", "backend": "onnx", "numerics": "exact"}


def options_of_one_value() -> list[tuple[str, str, str]]:
    """Every option of every command that takes one value: command, option, value."""
    options = []
    for name, command in cli.commands.items():
        for option in command.params:
            if isinstance(option, click.Option) and not (option.multiple or option.is_flag):
                value = VALUES.get(option.name or "", "3")
                options.append((name, option.opts[0], value))
    return options


@pytest.mark.parametrize(("command", "option", "value"), options_of_one_value())
def test_options_of_one_value_are_given_once(tmp_path: Path, command: str, option: str, value: str) -> None:
    done = irc_here(command, SCORES, option, value, option, value, folder=tmp_path)
    assert done.code == 2 and f"{option} is given 2 times" in done.err, done.err


@pytest.mark.parametrize("option", ["--dim", "--specialize"])
def test_a_symbol_has_one_size(tmp_path: Path, option: str) -> None:
    done = irc_here("opt", BLOCK, "-p", "dce", option, "B=2", option, "S=4", option, "B=3", folder=tmp_path)
    assert done.code == 2 and f"{option} B=2 and B=3" in done.err
    assert irc_here("opt", BLOCK, "-p", "dce", option, "B=2", option, "S=4", option, "B=2", folder=tmp_path).code == 0
    every = irc_here("kernels", BLOCK, option, "B=2", option, "S=4", folder=tmp_path)
    assert option != "--dim" or "B=2, S=4" in every.out


def test_a_limit_is_given_once(tmp_path: Path) -> None:
    done = irc_here("opt", BLOCK, "-p", "dce", "--limit", "memory=64G", "--limit", "memory=32G", folder=tmp_path)
    assert done.code == 2 and "--limit memory is given twice" in done.err


@pytest.mark.parametrize("verb", ["print", "opt", "kernels", "check", "run", "explain", "extract", "compile"])
def test_sizes_of_no_symbol_are_refused(tmp_path: Path, verb: str) -> None:
    more = {"opt": ("-p", "dce"), "explain": ("%y",), "extract": ("--to", "%y")}.get(verb, ())
    done = irc_here(verb, SCORES, *more, "--dim", "M=3", "--dim", "Z=3", folder=tmp_path)
    assert done.code == 3 and "no symbol `Z`" in done.err, done.err
    assert "one of: M (axis 0 of %x), N (axis 1 of %x)" in done.err, done.err


def test_sizes_of_no_symbol_in_an_experiment_are_refused_with_the_symbols_of_all_models(tmp_path: Path) -> None:
    done = irc_here("experiment", SCORES, BLOCK, "-p", "a=default", "--dim", "Z=3", folder=tmp_path)
    assert done.code == 3 and "symbol `Z`" in done.err and "one of: M, N, B, S" in done.err, done.err


@pytest.mark.parametrize("verb", ["run", "check", "extract", "reduce"])
def test_sizes_that_inputs_contradict_are_refused(tmp_path: Path, verb: str) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((2, 3), np.float32), b=np.zeros(3, np.float32))
    more = {"extract": ("--to", "%y"), "reduce": ("-o", "small")}.get(verb, ())
    done = irc_here(verb, SCORES, *more, "--input", "in.npz", "--dim", "M=2", "--dim", "N=9", folder=tmp_path)
    assert done.code == 2 and "--dim N=9, but the inputs have N=3" in done.err, done.err


@pytest.mark.parametrize("verb", ["print", "opt", "check", "run", "explain", "extract", "bench", "experiment"])
@pytest.mark.parametrize("targets", [("--target", "sm_80,sm_90"), ("--target", "sm_80", "--target", "sm_90")])
def test_several_targets_are_refused_where_one_is_used(tmp_path: Path, verb: str, targets: tuple[str, ...]) -> None:
    more = {
        "opt": ("-p", "dce"), "explain": ("%y",), "extract": ("--to", "%y", "-p", "dce"), "print": ("--after", "dce"),
        "experiment": ("-p", "a=dce"), "run": ("--backend", "triton"), "bench": ("-p", "dce"),
    }.get(verb, ())  # fmt: skip
    done = irc_here(verb, SCORES, *more, *targets, folder=tmp_path)
    if verb == "bench":
        assert done.code == 2 and "has no target" in done.err  # it runs ONNX, which has neither
    else:
        assert done.code == 2 and "one target, not sm_80 and sm_90" in done.err, done.err


def test_settings_of_several_targets() -> None:
    with pytest.raises(IrcError) as caught:
        opt(SCORES, "dce", settings=Settings(target="sm_80, sm_90"))
    assert caught.value.code == "usage.arguments"
    opt(SCORES, "dce", settings=Settings(target="sm_80,sm_80"))


@pytest.mark.slow
def test_several_targets_are_all_compiled_for(tmp_path: Path) -> None:
    arguments = ("--target", "sm_80", "--target", "sm_90")
    done = irc_here("compile", SCORES, "--backend", "triton", "-o", "out", *arguments, folder=tmp_path)
    assert done.code == 0 and "compiled for sm_80, sm_90" in done.out, done.err
    listed = irc_here("kernels", SCORES, *arguments, folder=tmp_path)
    assert "sm_80:" in listed.out and "sm_90:" in listed.out, listed.err
