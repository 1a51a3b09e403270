"""The edge-case table on the backends: what irc defines is what ONNX Runtime, its optimizations off and on, and Triton
kernels give. docs/numerics.md is made from it: `pytest tests/test_edge_backends.py --update`."""

from __future__ import annotations

import itertools
import typing
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_edge_cases import EXAMPLES, identical, name, operands

pytest.importorskip("onnxruntime")

import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, NotImplemented

from irc import dtypes, interpreter, ops
from irc.diagnostics import IrcError
from irc.driver.models import find_backend
from irc.driver.optimizing import opt
from irc.driver.running import carrier, run, with_carriers
from irc.frontends.onnx import from_model
from irc.ir import Function, Value
from irc.module import EdgeCases, Module, difference
from irc.op import Builder, return_, trace
from irc.ops import edge_cases, lookup
from irc.ops.edge_cases import EdgeCase
from irc.parser import parse
from irc.types import TensorType

FAMILIES = {
    name: rows
    for name, rows in vars(edge_cases).items()
    if isinstance(rows, list) and rows and isinstance(rows[0], EdgeCase) and name != "STRUCTURE"
}
# Rows that ONNX Runtime cannot be made to give, with the reason.
NOT_IN_ONNX = {
    ("cast", "f64 is rounded once, to nearest even, and not via f32"): "its Cast rounds twice, as PyTorch's does",
    ("cast", "an integer is rounded once"): "its Cast rounds twice, as PyTorch's does",
    ("iota", "integers wrap around"): "it has no Identity for integers narrower than a byte",
    ("shift_left", "4-bit integers are shifted in 4 bits"): "it shifts no integers narrower than a byte",
}
# The version of ONNX Runtime from which on its operator gives a row of the table, of those that 1.31 does not give.
RIGHT_FROM = {
    ("minimum", "64-bit integers are compared exactly"): "1.32",
    ("maximum", "64-bit integers are compared exactly"): "1.32",
    ("sign", "64-bit integers are compared exactly"): "1.32",
    ("sort", "ascending: NaN is last; stable, and 0 equals -0"): "1.32",
    ("sort", "descending: NaN is first; stable"): "1.32",
    ("top_k", "NaN counts as the greatest"): "1.32",
    ("top_k", "NaN is last among the smallest"): "1.32",
}
# Rows that Triton kernels and PyTorch's calls do not give, with the reason.
NOT_IN_TRITON = {
    ("cast", "to f8e8m0: the nearer power of two"): "there is no f8e8m0",
    ("cast", "f64 is rounded once, to nearest even, and not via f32"): "kernels round twice",
    ("cast", "an integer is rounded once"): "kernels round twice",
}


def module_of(rows: Sequence[EdgeCase], edges: EdgeCases = "defined") -> tuple[Module, dict[str, Any]]:
    """A module with the operation of each row, and its inputs."""
    arrays = [operands(row) for row in rows]
    present = [array for row in arrays for array in row if array is not None]
    types = [TensorType(dtypes.from_numpy(array.dtype), array.shape) for array in present]
    function = Function("main", types, [f"x{number}" for number in range(len(present))])
    waiting = iter(function.arguments)
    results = []
    with Builder(function.block) as builder:
        for row, given in zip(rows, arrays, strict=True):
            values = [None if array is None else next(waiting) for array in given]
            definition = lookup(row.op)
            results += builder.create(definition, values, definition.normalize(row.attributes)).results
        builder.create(return_, results)
    function.result_names = tuple(f"y{number}" for number in range(len(results)))
    inputs = {value.name: array for value, array in zip(function.arguments, present, strict=True)}
    return Module("edges", [function], edges), inputs


def run_onnx(
    module: Module, inputs: Mapping[str, Any], optimized: bool, pipeline: str = "legalize,canonicalize"
) -> tuple[list[Any], int]:
    """Results in ONNX Runtime, and how many nodes there are."""
    module = opt(module, pipeline, backend="onnx")
    proto = find_backend("onnx").emit(module)
    nodes = count(proto.graph)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(with_carriers(proto, module).SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])  # fmt: skip
    feeds = {
        entry.name: inputs[value.name].astype(carrier(value.dtype.numpy), copy=False)
        for entry, value in zip(session.get_inputs(), module.main.arguments, strict=True)
    }
    results = session.run(None, feeds)
    return [np.asarray(x).astype(value.dtype.numpy)
            for x, value in zip(results, module.main.returned, strict=True)], nodes  # fmt: skip


def count(graph: Any) -> int:
    """The nodes of a graph and of the graphs in it."""
    inner = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return len(graph.node) + sum(map(count, inner))


def giving(rows: Sequence[EdgeCase]) -> list[EdgeCase]:
    return [row for row in rows if not isinstance(row.expected, str)]


def differences(rows: Sequence[EdgeCase], actual: Sequence[Any]) -> list[str]:
    waiting = iter(actual)
    return [f"{name(row)}: {row.says}: {array}, not {expected.values}"
            for row in rows for expected in row.expected for array in [next(waiting)]
            if not identical(array, expected.array())]  # fmt: skip


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_runtime_gives_what_is_defined(family: str, optimized: bool) -> None:
    rows = [row for row in giving(FAMILIES[family]) if (row.op, row.says) not in NOT_IN_ONNX]
    actual, _ = run_onnx(*module_of(rows), optimized)
    assert not differences(rows, actual)


FAILING = [row for row in EXAMPLES if row.expected in ("run.index", "run.zero_division") and row.op != "slice"]


@pytest.mark.parametrize("row", FAILING, ids=name)
def test_errors_stop_the_run(row: EdgeCase, tmp_path: Path) -> None:
    """What has no result is an error on each backend: of ONNX Runtime's operator, or of a check in a kernel."""
    module, inputs = module_of([row])
    with pytest.raises((InvalidArgument, Fail), match="while running"):
        run_onnx(module, inputs, False)
    with pytest.raises(Exception, match=r"an index is out|is divided by 0") as caught:
        run_triton(module, inputs, tmp_path / "artefact")
    assert type(caught.value).__name__ == "ArtefactError"


def _cut(x: Value) -> Value:
    return ops.slice_(x, starts=(0, 0), stops=(x.shape[0] - 5, 3), steps=(1, 1))


NEGATIVE_SIZES = {
    "slice": lambda x: ops.mul(_cut(x), 2.0), "concat": lambda x: ops.concat(_cut(x), x, axis=0),
    "sum": lambda x: ops.reduce_sum(_cut(x), axes=(0,)),
    "iota": lambda x: ops.add(ops.iota(shape=(x.shape[0] - 5,), axis=0, dtype=dtypes.I64), 1),
    "expand": lambda x: ops.expand(ops.reduce_sum(x, axes=(0, 1)), shape=(2, x.shape[0] - 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", NEGATIVE_SIZES)
def test_sizes_below_0_stop_the_run(name: str, tmp_path: Path) -> None:
    module = trace(NEGATIVE_SIZES[name], "f32[S, 3]")
    for pipeline in ("", "canonicalize,fuse"):
        module = opt(module, pipeline) if pipeline else module
        for extent in (3, 7):
            inputs = {value.name: np.ones((extent, 3), np.float32) for value in module.main.arguments}
            folder = tmp_path / f"{pipeline}{extent}"
            if extent == 7:
                run_triton(module, inputs, folder)
                continue
            with pytest.raises(IrcError, match=r"run\.shape"):
                interpreter.run(module, inputs)
            with pytest.raises(Exception, match=r"the size .* is below 0"):
                run_triton(module, inputs, folder)


@pytest.mark.parametrize("key", NOT_IN_ONNX)
def test_what_onnx_runtime_cannot_give(key: tuple[str, str]) -> None:
    (row,) = (row for row in EXAMPLES if (row.op, row.says) == key)
    try:
        actual, _ = run_onnx(*module_of([row]), False)
    except (IrcError, NotImplemented) as error:
        assert isinstance(error, NotImplemented) or error.code == "backend.unsupported"
    else:
        assert differences([row], actual), "it does: take it out of NOT_IN_ONNX"


# -- the table of differences -----------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parent.parent / "docs" / "numerics.md"
MARKER = "<!-- made by tests/test_edge_backends.py --update -->"


def shown(array: Any) -> str:
    """Elements as text; zeros with their sign."""
    words = [f"{number:.8g}" if isinstance(number, float) else str(number).lower() for number in array.ravel().tolist()]
    return f"[{', '.join(words)}]"


def line(row: EdgeCase) -> str | None:
    """The row of the table of an edge case in which ONNX Runtime's operator gives something else."""
    try:
        results, few = run_onnx(*module_of([row], "onnx"), False)
        theirs = "; ".join(map(shown, results))
    except NotImplemented:
        return None
    except Fail:
        results, few, theirs = [], 1, "fails"
    if results and not differences([row], results):
        return None
    _, many = run_onnx(*module_of([row]), False)
    given = ", ".join(shown(array) for array in operands(row) if array is not None)
    ours = "; ".join(shown(sample.array()) for sample in row.expected)
    until = RIGHT_FROM.get((row.op, row.says), "")
    return f"| `{row.op}` | {row.says} | {given} | {ours} | {theirs} | {few} to {many} | {until} |"


def table() -> str:
    rows = [row for row in giving(EXAMPLES) if (row.op, row.says) not in NOT_IN_ONNX]
    head = ["With ONNX Runtime from 1.31 on, its optimizations off; a version in the last column is the first whose "
            "operator gives what irc defines:", "",
            "| operation | irc | of | gives | ONNX Runtime's operator | nodes | right from |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    rest = ["", "What ONNX Runtime cannot be made to give:", ""]
    rest += [f"- `{op}`: {says}; {reason}." for (op, says), reason in NOT_IN_ONNX.items()]
    return "\n".join([*head, *filter(None, map(line, rows)), *rest])


def test_the_table_of_differences_is_true(update: bool) -> None:
    """With a newer ONNX Runtime every row is as written but those that say it is right: these are not in its table."""
    before, _, after = PAGE.read_text("utf-8").partition(MARKER)
    written, _, after = after.partition(MARKER)
    new = f"\n{table()}\n"
    right = {version for version in RIGHT_FROM.values() if numbers(version) <= numbers(onnxruntime.__version__)}
    if update and not right:
        PAGE.write_text(f"{before}{MARKER}{new}{MARKER}{after}", "utf-8")
        written = new
    rows = [each for each in written.split("\n") if not each.endswith(tuple(f"| {version} |" for version in right))]
    assert "\n".join(rows) == new, "pytest tests/test_edge_backends.py --update, with the lowest ONNX Runtime"


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


# -- modules ----------------------------------------------------------------------------------------------------------


def test_edge_cases_stay_with_the_module() -> None:
    (row,) = (row for row in EXAMPLES if row.op == "global_max_pool")
    for edges in typing.get_args(EdgeCases):
        module, _ = module_of([row], edges)
        assert ("edge_cases" in str(module)) == (edges == "onnx")
        assert parse(str(module)) == module and parse(str(module)).edge_cases == edges
        assert module.clone().edge_cases == edges
        other, _ = module_of([row], "onnx" if edges == "defined" else "defined")
        assert difference(module, other)
    with pytest.raises(IrcError, match=r"text\.syntax"):
        parse(str(module).replace('"onnx"', '"any"'))


def test_models_from_onnx_keep_their_nodes() -> None:
    """What is read from ONNX is written as the operators that it had; an integer may be divided by what may be 0."""
    rows = [row for row in giving(EXAMPLES) if row.op in ("reduce_max", "argmin", "max_pool", "top_k", "sort")]
    module, _ = module_of(rows)
    module.edge_cases = "onnx"
    proto = find_backend("onnx").emit(module)
    again = from_model(proto, Path())
    assert again.edge_cases == "onnx"
    assert count(find_backend("onnx").emit(again).graph) == count(proto.graph) == len(rows)


INTEGERS = "i64 i32 i16 i8 u64 u32 u16 u8".split()


def integer_divisions(dtype: str) -> tuple[Module, dict[str, Any]]:
    """Every pair of edge integers, divided in every way."""
    kind = dtypes.by_name(dtype)
    low, high = map(int, dtypes.limits(kind))
    numbers = sorted({low, low + 1, high - 1, high, 0, 1, 2, 3, *((-1, -2) if low else ())})
    x, y = (np.array(side, object).astype(kind.numpy)
            for side in zip(*itertools.product(numbers, numbers), strict=True))  # fmt: skip

    def every(a: Any, b: Any) -> Any:
        return [operation(a, b, rounding=rounding) for operation in (ops.div, ops.mod)
                for rounding in ("trunc", "floor")]  # fmt: skip

    return trace(lambda a, b: tuple(every(a, b)), *[f"{dtype}[{x.size}]"] * 2), {"a": x, "b": y}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_no_integers_stop_the_process(dtype: str) -> None:
    """In both kinds of modules: what ONNX leaves open may be anything."""
    module, inputs = integer_divisions(dtype)
    expected = [*interpreter.run(module, inputs).values()]
    for optimized in (False, True):
        actual, _ = run_onnx(module, inputs, optimized)
        for ours, theirs in zip(expected, actual, strict=True):
            np.testing.assert_array_equal(theirs, ours)
    quotients = trace(lambda a, b: ops.div(a, b), *(str(value.type) for value in module.main.arguments))
    quotients.edge_cases = "onnx"
    (quotient,), _ = run_onnx(quotients, inputs, True)
    np.testing.assert_array_equal(quotient[inputs["b"] != 0], expected[0][inputs["b"] != 0])


def test_division_by_zero_stops_the_run() -> None:
    def divided(a: Any, b: Any) -> Any:
        return [operation(a, b, rounding=rounding, by_zero="error") for operation in (ops.div, ops.mod)
                for rounding in ("trunc", "floor")]  # fmt: skip

    for index in range(4):
        module = trace(lambda a, b, index=index: divided(a, b)[index], "i64[A]", "i64[B]")
        whole = {"a": np.array([-(2**63), 7]), "b": np.array([-1, 2])}
        (expected,) = interpreter.run(module, whole).values()
        np.testing.assert_array_equal(run_onnx(module, whole, False)[0][0], expected)
        zero = {"a": np.array([-(2**63), 7]), "b": np.array([-1, 0])}
        with pytest.raises(IrcError, match=r"run\.zero_division"):
            interpreter.run(module, zero)
        with pytest.raises(InvalidArgument):
            run_onnx(module, zero, True)
    nothing = {"a": np.empty(0, np.int64), "b": np.array([0])}
    module = trace(lambda a, b: ops.div(a, b, by_zero="error"), "i64[?A in (0, 9)]", "i64[1]")
    assert run_onnx(module, nothing, False)[0][0].size == 0 == interpreter.run(module, nothing)["0"].size


@pytest.mark.parametrize("dtype", INTEGERS)
def test_powers_of_integers_are_exact(dtype: str) -> None:
    kind = dtypes.by_name(dtype)
    low, high = map(int, dtypes.limits(kind))
    bases = sorted({low, high, 0, 1, 2, 3, 5, *((-1, -2) if low else ())})
    exponents = sorted({0, 1, 2, 3, 5, 40, 63, 64, 65, *((-1, -2, -3, low) if low else ())})
    x, y = (np.array(side, object).astype(kind.numpy)
            for side in zip(*itertools.product(bases, exponents), strict=True))  # fmt: skip
    module = trace(lambda a, b: (ops.pow_(a, b), *(ops.pow_(a, number) for number in (0, 1, 2, 7))),
                   f"{dtype}[{x.size}]", f"{dtype}[{x.size}]")  # fmt: skip
    inputs = {"a": x, "b": y}
    for ours, theirs in zip(interpreter.run(module, inputs).values(), run_onnx(module, inputs, True)[0], strict=True):
        np.testing.assert_array_equal(theirs, ours)


# -- Triton -----------------------------------------------------------------------------------------------------------


def run_triton(module: Module, inputs: Mapping[str, Any], folder: Path, fused: bool = True) -> list[Any]:
    """Results of kernels, interpreted, and of the calls of PyTorch beside them; of those alone, if not `fused`."""
    from triton_harness import load_artefact

    from irc.frontends.torch.calling import to_array

    triton = find_backend("triton")
    module = opt(module, triton.PIPELINE if fused else "legalize,canonicalize", backend="triton")
    triton.emit(module, folder)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        actual = load_artefact(folder).load().run(inputs).values()
    return [to_array(result).astype(value.dtype.numpy, copy=False)
            for result, value in zip(actual, module.main.returned, strict=True)]  # fmt: skip


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_triton_gives_what_is_defined(family: str, fused: bool, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    rows = [row for row in giving(FAMILIES[family]) if (row.op, row.says) not in NOT_IN_TRITON]
    assert not differences(rows, run_triton(*module_of(rows), tmp_path / "artefact", fused))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", ["i64", "i32", "i8", "u8"])
def test_integers_are_divided_as_defined(dtype: str, fused: bool, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    module, inputs = integer_divisions(dtype)
    expected = interpreter.run(module, inputs).values()
    for ours, theirs in zip(expected, run_triton(module, inputs, tmp_path / "artefact", fused), strict=True):
        np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("operation", ["elu", "selu", "celu"])
def test_numbers_just_below_0(operation: str) -> None:
    """What the page says of activations that are about x there: ONNX Runtime computes exp(x) - 1."""
    module = trace(lambda x: getattr(ops, operation)(x), "f32[3]")
    inputs = {"x": np.array([-1e-8, -4e-7, 0], np.float32)}
    (expected,) = interpreter.run(module, inputs).values()
    (result,) = run(module, inputs, backend="onnx").outputs.values()
    assert expected[0] < 0 and result[0] == 0
    np.testing.assert_allclose(result, expected, rtol=0, atol=1.2e-7)
