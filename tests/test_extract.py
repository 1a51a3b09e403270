"""irc extract: parts of programs that run by themselves, and compute there what they computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver.arrays import given_inputs
from irc.driver.models import Settings
from irc.driver.slicing import part, record
from irc.module import Module
from irc.parser import parse
from irc.verifier import verify
from tests import planted
from tests.command_line import EXAMPLES, irc_here, irc_process
from tests.onnx_models import imported
from tests.test_reduce import IF, LOOP

BLOCK = f"{EXAMPLES / 'block.py'}:block"
SIZES = Settings(dims={"B": 2, "S": 3})


def computed(module: Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Every value of a run by name; of what runs several times the last."""
    values = dict(inputs)

    def keep(operation: Any, results: Any) -> None:
        values.update(zip((value.name for value in operation.results), results, strict=True))

    interpreter.run(module, inputs, observe=keep)
    return values


def check_part(path: Path, whole: Mapping[str, Any]) -> Module:
    """The part is well formed, takes the values of the run, and gives them."""
    module = irc.load(path)
    verify(module)
    report = irc.run(path, path.with_suffix(".npz"))
    for name, array in {**report.inputs, **report.outputs}.items():
        np.testing.assert_array_equal(array, whole[name])
    return module


def names(module: Module) -> list[str]:
    return [argument.name for argument in module.main.arguments]


def operations(module: Module) -> list[str]:
    return [op.name for op in module.main.block if op.name != "const" and not op.definition.is_terminator]


WAYS = [
    (["%up"], ["%down"], ["up", "b1", "w2"]),
    (["%q", "k"], ["%proj"], None),
    ([], ["%hidden", "%attended"], None),
    (["%up", "%attended"], ["%down", "%out"], ["up", "attended", "b1", "w2"]),
]


@pytest.mark.parametrize("start, stop, taken", WAYS)
def test_parts_compute_what_they_computed(
    start: list[str], stop: list[str], taken: list[str] | None, tmp_path: Path
) -> None:
    path = tmp_path / "part.irc"
    report = irc.extract(BLOCK, start, stop, path, settings=SIZES)
    assert report.outputs == tuple(name.removeprefix("%") for name in stop)
    assert report.inputs[: len(start)] == tuple(name.removeprefix("%") for name in start)
    assert taken is None or list(report.inputs) == taken
    whole = irc.load(BLOCK)
    check_part(path, computed(whole, given_inputs(whole.main, None, SIZES.dims, 0)))


def test_a_given_input_and_constants(tmp_path: Path) -> None:
    """From an ONNX file with weights, on a file of inputs; weights stay constants, with their names."""
    onnx.save(planted.encoder(), tmp_path / "encoder.onnx")
    x = np.random.default_rng(3).standard_normal((2, 5, 24)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    done = irc_process("extract", "encoder.onnx", "--from", "%l1h", "--to", "%l1p", "--to", "%l1v", "--input", "in.npz",
                       "-o", "heads.irc", folder=tmp_path)  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.splitlines()[1] == "run it: irc run heads.irc --input heads.npz"
    module = check_part(tmp_path / "heads.irc", computed(irc.load(tmp_path / "encoder.onnx"), {"x": x}))
    assert names(module) == ["l1h"] and list(module.main.symbols) == ["B", "S"]
    text = (tmp_path / "heads.irc").read_text()
    assert all(f'@"{name}"' in text or f"@{name}" in text for name in ("l1wq", "l1wk", "l1wv")), text
    again = irc_process("run", "heads.irc", "--input", "heads.npz", folder=tmp_path)
    assert again.code == 0 and "l1p: float32[2, 4, 5, 5]" in again.out


def test_the_same_under_every_hash_seed(tmp_path: Path) -> None:
    written = []
    for seed in ("0", "1"):
        done = irc_process("extract", BLOCK, "--to", "%out", "--from", "%q", "--from", "%v", "--dim", "B=2", "--dim",
                           "S=3", folder=tmp_path, environment={"PYTHONHASHSEED": seed})  # fmt: skip
        assert done.code == 0, done.err
        written.append([(tmp_path / f"extract.{suffix}").read_bytes() for suffix in ("irc", "npz")])
    assert written[0] == written[1]


# -- symbols ---------------------------------------------------------------------------------------------------


def extracted(text: str, tmp_path: Path, *arguments: str) -> Module:
    (tmp_path / "m.irc").write_text(f"irc text 1\nmodule @m {{\n  {text}\n}}\n")
    done = irc_here("extract", "m.irc", *arguments, folder=tmp_path)
    assert done.code == 0, done.err
    module = irc.load(tmp_path / "extract.irc")
    verify(module)
    assert irc_here("run", "extract.irc", "--input", "extract.npz", folder=tmp_path).code == 0
    return module


SIZE = """func @main<S in [1, 64]>(%x: f32[S, 4], %n: i64[]) -> (z: f32[4]) {
    %h = reduce_sum %x {axes = [0], keep_dims = false} : f32[4]
    %size = dim {value = S} : i64[]
    %scale = cast %size {to = f32} : f32[]
    %y = mul %h, %scale : f32[4]
    %z = exp %y : f32[4]
    return %z
  }"""
BORN = """func @main(%n: i64[], %x: f32[9]) -> (z: f32[2*K + 2*L]) {
    bind %n {symbol = ?K in (0, 9)}
    %s = slice %x {starts = [0], stops = [K], steps = [1]} : f32[K]
    %t = exp %s : f32[K]
    %r = refine %t : f32[?L in (0, 9)]
    %q = neg %r : f32[L]
    %w = exp %q : f32[L]
    %a = concat %w, %s {axis = 0} : f32[K + L]
    %z = concat %a, %a {axis = 0} : f32[2*K + 2*L]
    return %z
  }"""


def test_sizes_that_no_input_tells_become_numbers(tmp_path: Path) -> None:
    """S has the size of x, which the part does not read."""
    module = extracted(SIZE, tmp_path, "--from", "%size", "--to", "%z", "--dim", "S=3")
    assert names(module) == ["size", "h"] and not module.main.symbols
    module = extracted(SIZE, tmp_path, "--from", "%x", "--to", "%z", "--dim", "S=3")
    assert names(module) == ["x", "scale"] and list(module.main.symbols) == ["S"]
    module = extracted(SIZE, tmp_path, "--to", "%scale", "--dim", "S=3")
    assert names(module) == [] and "value = 3" in str(module)


def test_sizes_born_on_the_way(tmp_path: Path) -> None:
    """Symbols of `bind` and `refine`: defined inside, determined by an input, or else a number."""
    np.savez(tmp_path / "in.npz", n=np.int64(5), x=np.arange(9, dtype=np.float32))
    given = ("--input", "in.npz")
    module = extracted(BORN, tmp_path, "--from", "%s", "--to", "%a", *given)
    assert list(module.main.symbols) == ["K"] and list(module.main.defined_symbols) == ["L"]
    module = extracted(BORN, tmp_path, "--from", "%x", "--to", "%t", *given)
    assert not module.main.symbols and module.main.returned[0].shape == (5,)
    module = extracted(BORN, tmp_path, "--from", "%r", "--to", "%z", *given)
    assert names(module) == ["r", "s"] and sorted(module.main.symbols) == ["K", "L"]
    module = extracted(BORN, tmp_path, "--from", "%a", "--to", "%z", *given)
    assert module.main.returned[0].shape == (20,)


def test_a_size_that_an_input_tells_is_not_born_again() -> None:
    """As when reduce keeps a `bind` or a `refine`, and cuts above what reads its size."""
    module = parse(f"irc text 1\nmodule @m {{\n  {BORN}\n}}\n")
    inputs = {"n": np.int64(5), "x": np.arange(9, dtype=np.float32)}
    recording = record(module, inputs)
    by_name = {op.results[0].name if op.results else op.name: op for op in module.main.block}
    for kept, symbols, left in (
        (("bind", "t"), ["K"], ["exp"]),
        (("r", "w"), ["K", "L"], ["refine", "exp"]),
        (("bind", "s", "t", "r"), [], ["bind", "slice", "exp", "refine"]),
    ):
        extracted = part(recording, {by_name[name] for name in kept})
        verify(extracted.module)
        assert list(extracted.module.main.symbols) == symbols and operations(extracted.module) == left
        outputs = interpreter.run(extracted.module, extracted.inputs)
        for name, array in outputs.items():
            np.testing.assert_array_equal(array, computed(module, inputs)[name])
    with pytest.raises(IrcError, match=r"dim\.unbound"):  # K + L of %a determines neither
        part(recording, {by_name["bind"], by_name["z"]})


# -- regions ---------------------------------------------------------------------------------------------------


def inputs_of(module: Module, **given: Any) -> dict[str, Any]:
    x = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    every = {"x": x, "n": np.int64(3), "go": np.bool_(True), **given}
    return {argument.name: every[argument.name] for argument in module.main.arguments}


@pytest.mark.parametrize("text, start, stop, kept", [
    (LOOP, [], ["%y"], ["neg", "loop"]),
    (LOOP, ["%a"], ["%g"], ["tanh", "mul", "sqrt"]),
    (LOOP, [], ["%o"], ["tanh", "mul", "sqrt", "add"]),
    (IF, ["%f"], ["%o"], ["sqrt", "add"]),
    (IF, ["%h"], ["%y"], ["if"]),
])  # fmt: skip
def test_in_regions_the_last_time_counts(
    text: str, start: list[str], stop: list[str], kept: list[str], tmp_path: Path
) -> None:
    module = imported(text)
    inputs = inputs_of(module)
    irc.extract(module, start, stop, tmp_path / "part.irc", inputs)
    part = check_part(tmp_path / "part.irc", computed_with_arguments(module, inputs))
    assert operations(part) == kept


def computed_with_arguments(module: Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The loop's argument too: with three rounds it is what two rounds give."""
    values = computed(module, inputs)
    if "n" in inputs:
        values["a"] = computed(module, {**inputs, "n": np.int64(2)})["y"]
    return values


def test_kernels_and_what_is_in_them(tmp_path: Path) -> None:
    scores = f"{EXAMPLES / 'block.py'}:scores"
    done = irc_here("extract", scores, "--after", "fuse", "--to", "%y", folder=tmp_path)
    assert done.code == 0, done.err
    assert operations(irc.load(tmp_path / "extract.irc")) == ["kernel"]
    done = irc_here("extract", scores, "--after", "fuse", "--from", "%scaled", "--to", "%p", folder=tmp_path)
    assert done.code == 0, done.err
    part = irc.load(tmp_path / "extract.irc")
    assert operations(part) == ["softmax"] and names(part) == ["scaled"]


# -- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["--from", "%nothing", "--to", "%out"], "text.undefined_name"),
        (["--from", "%out", "--to", "%up"], "usage.arguments"),
        (["--from", "%up", "--to", "%up"], "usage.arguments"),
        (["--from", "%up", "--to", "%down", "--to", "%q"], "usage.arguments"),  # nothing leads from one to the other
        (["--from", "%x", "--from", "%down", "--to", "%out", "--from", "%attended"], "usage.arguments"),
        (["--to", "%x"], "usage.arguments"),
        (["--from", "%up"], "usage.arguments"),
        (["--to", "%up", "-o", "part.onnx"], "usage.value"),
        (["--to", "%up", "-p", "nonsense"], "pass.unknown"),
        (["--to", "%up", "--after", "nonsense"], "pass.unknown"),
        (["--to", "%up", "--input", "missing.npz"], "file.missing"),
        (["--to", "%up", "-o", "missing/part.irc"], "file.unreadable"),
    ],
)
def test_mistakes(arguments: list[str], code: str, tmp_path: Path) -> None:
    done = irc_here("extract", BLOCK, *arguments, "--dim", "B=2", "--dim", "S=3", folder=tmp_path)
    assert done.code in (2, 3) and code in done.err and not list(tmp_path.iterdir())


def test_a_branch_that_was_not_taken(tmp_path: Path) -> None:
    module = imported(IF)
    with pytest.raises(IrcError, match=r"extract\.not_computed\]: the run did not compute %f"):
        irc.extract(module, ["%f"], ["%o"], tmp_path / "part.irc", inputs_of(module, go=np.bool_(False)))
    with pytest.raises(IrcError, match="different regions"):
        irc.extract(module, ["%h"], ["%o"], tmp_path / "part.irc", inputs_of(module))
    assert not list(tmp_path.iterdir())
