"""The edge-case table: whole, true of our references, and true of the oracles it says agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracles import onnx_result, torch_result

from irc import dtypes, interpreter
from irc.diagnostics import CODES, IrcError
from irc.dtypes import F8E4M3FN
from irc.frontends.torch.reading import SATURATES
from irc.module import Module
from irc.op import OperationDefinition
from irc.ops import TABLE as OPS
from irc.ops import edge_cases, lookup
from irc.ops.edge_cases import TABLE, EdgeCase, Sample
from irc.types import TensorType

pytestmark = pytest.mark.filterwarnings("error")

EXAMPLES = [row for row in TABLE if not row.tested_by]


def name(row: EdgeCase) -> str:
    return f"{row.op}-{row.topic}-{TABLE.index(row)}"


def identical(ours: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Same type, shape and values; zeros by sign, NaN equal to NaN."""
    if ours.dtype != expected.dtype or ours.shape != expected.shape:
        return False
    if not dtypes.from_numpy(ours.dtype).is_float:
        return bool(np.array_equal(ours, expected))
    a, b = ours.astype(np.float64), expected.astype(np.float64)
    return bool(
        np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a) & (a == 0), np.signbit(b) & (b == 0))
    )


def operands(row: EdgeCase) -> list[NDArray[Any] | None]:
    return [None if sample is None else sample.array() for sample in row.operands]


def test_every_primitive_has_a_row() -> None:
    primitives = {name for name, definition in OPS.items() if not definition.is_named}
    assert {row.op for row in TABLE} - OPS.keys() == set()
    assert all(edge_cases.of(name) for name in primitives)


def test_structural_rows_name_tests_that_exist() -> None:
    tests = (Path(__file__).parent / "test_interpreter.py").read_text()
    for row in TABLE:
        if row.tested_by:
            assert f"def {row.tested_by}(" in tests, row


def test_rows_are_not_repeated() -> None:
    assert len({(row.op, row.topic, row.says) for row in TABLE}) == len(TABLE)


def evaluate(definition: OperationDefinition, row: EdgeCase) -> Sequence[Any]:
    """A primitive's reference, or a named operation's body."""
    arrays, attributes = operands(row), definition.normalize(row.attributes)
    if not definition.is_named:
        return definition.evaluate(arrays, attributes)
    types = [None if array is None else TensorType(dtypes.from_numpy(array.dtype), array.shape) for array in arrays]
    body = definition.body(types, attributes)
    given = zip((value.name for value in body.arguments), (x for x in arrays if x is not None), strict=True)
    return [*interpreter.run(Module("row", [body]), dict(given)).values()]


@pytest.mark.parametrize("row", EXAMPLES, ids=name)
def test_our_reference(row: EdgeCase) -> None:
    definition = lookup(row.op)
    stated = {key: value for key, value in definition.normalize(row.attributes).items() if value is not None}
    assert stated.keys() <= row.attributes.keys(), "rows give every attribute, so that they can be read alone"
    if isinstance(row.expected, str):
        assert row.expected in CODES
        with pytest.raises(IrcError) as caught:
            evaluate(definition, row)
        assert caught.value.code == row.expected
        return
    results = evaluate(definition, row)
    assert len(results) == len(row.expected)
    for result, expected in zip(results, row.expected, strict=True):
        assert identical(result, expected.array()), f"{row.says}: {result} is not {expected.values}"


@pytest.mark.parametrize("row", [row for row in EXAMPLES if "torch" in row.agrees], ids=name)
def test_torch_agrees(row: EdgeCase) -> None:
    if row.attributes.get("to") is F8E4M3FN and row.attributes["saturate"] and not SATURATES:
        pytest.skip("PyTorch 2.11 gives NaN")
    if isinstance(row.expected, str):
        with pytest.raises((RuntimeError, IndexError)):
            torch_result(row.op, operands(row), row.attributes)
        return
    results = torch_result(row.op, operands(row), row.attributes)
    assert results is not None, "PyTorch does not have it"
    for result, expected in zip(results, row.expected, strict=True):
        assert isinstance(expected, Sample) and identical(result, expected.array()), f"{result} is not {expected}"


@pytest.mark.parametrize("row", [row for row in EXAMPLES if "onnx" in row.agrees], ids=name)
def test_onnx_runtime_agrees(row: EdgeCase) -> None:
    expected = [sample for sample in row.expected if isinstance(sample, Sample)]
    results = onnx_result(row.op, operands(row), row.attributes, [sample.dtype for sample in expected])
    assert results is not None, "ONNX Runtime has no kernel for it"
    for result, required in zip(results, expected, strict=True):
        assert identical(result, required.array()), f"{result} is not {required}"


SAID_TO_DIFFER = [
    (row, oracle)
    for row in EXAMPLES
    for oracle, word in (("torch", "torch"), ("onnx", "ONNX Runtime"))
    if word in row.differs and "the processor may trap" not in row.differs
]


@pytest.mark.parametrize(("row", "oracle"), SAID_TO_DIFFER, ids=[f"{name(r)}-{o}" for r, o in SAID_TO_DIFFER])
def test_who_is_said_to_differ_does(row: EdgeCase, oracle: str) -> None:
    assert oracle not in row.agrees
    expected = [sample for sample in row.expected if isinstance(sample, Sample)]
    kinds = [sample.dtype for sample in expected] or [dtypes.F32]
    try:
        if oracle == "torch":
            results = torch_result(row.op, operands(row), row.attributes)
        else:
            results = onnx_result(row.op, operands(row), row.attributes, kinds)
    except (RuntimeError, IndexError):
        assert expected, "both raise"
        return
    assert results is not None, "there is nothing to differ"
    assert not expected or not all(identical(r, s.array()) for r, s in zip(results, expected, strict=True))
