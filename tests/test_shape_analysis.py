"""What small integer tensors hold: every answer is compared with what the interpreter computes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irc import constants, dims, ops
from irc.dtypes import BOOL, F32, I32, I64
from irc.interpreter import run
from irc.op import OperationDefinition, const, trace
from irc.ops.symbolic import Comparison, is_dim
from irc.shape_analysis import LIMIT, ShapeAnalysis
from irc.weights import Tensor

X = "f32[?B in (1, 9), ?S in (2, 50), 4]"


def vector(*numbers: int, dtype: Any = I64) -> Any:
    return const(value=Tensor.of(list(numbers), dtype))


def shape(x: Any) -> Any:
    return ops.dim(value=x.shape)


def part(x: Any, start: int, stop: int) -> Any:
    return ops.slice_(x, starts=(start,), stops=(stop,), steps=(1,))


KNOWN: dict[str, Callable[[Any], Any]] = {
    "dim": shape,
    "scalar": lambda x: ops.dim(value=x.shape[1]),
    "const": lambda x: vector(1, 2, 3),
    "add": lambda x: ops.add(shape(x), vector(1, -1, 2)),
    "sub and broadcast": lambda x: ops.sub(shape(x), ops.dim(value=x.shape[0])),
    "mul": lambda x: ops.mul(shape(x), ops.reverse(shape(x), axes=(0,))),
    "neg": lambda x: ops.neg(shape(x)),
    "abs of numbers": lambda x: ops.abs_(vector(-3, 4)),
    "floor": lambda x: ops.div(ops.neg(shape(x)), 2, rounding="floor"),
    "trunc of what is not negative": lambda x: ops.div(shape(x), 3),
    "trunc of what may be negative": lambda x: ops.div(ops.sub(shape(x), 20), 3),
    "trunc by what is negative": lambda x: ops.div(ops.sub(shape(x), 20), -7),
    "mod": lambda x: ops.mod(shape(x), 3),
    "mod of what may be negative": lambda x: ops.mod(ops.sub(shape(x), 20), -3),
    "remainder with the sign of the dividend": lambda x: ops.mod(ops.sub(shape(x), 20), 7, rounding="trunc"),
    "min and max": lambda x: ops.maximum(ops.minimum(shape(x), 5), 3),
    "gather": lambda x: ops.gather(shape(x), vector(-1, 0, 1, 1), axis=0),
    "concat": lambda x: ops.concat(part(shape(x), 0, 2), vector(7), axis=0),
    "reshape and transpose": lambda x: ops.reshape(
        ops.transpose(ops.reshape(ops.concat(shape(x), shape(x), axis=0), shape=(2, 3)), permutation=(1, 0)),
        shape=(6,)),
    "expand": lambda x: ops.expand(ops.dim(value=x.shape[0]), shape=(3,)),
    "there and back by i32": lambda x: ops.cast(ops.cast(shape(x), to=I32), to=I64),
    "product": lambda x: ops.reduce_prod(shape(x), axes=(0,)),
    "sum": lambda x: ops.reduce_sum(shape(x), axes=(-1,), keep_dims=True),
    "where equal to -1": lambda x: ops.select(ops.equal(vector(-1, 6, -1), -1), shape(x), vector(5, 6, 7)),
    "where never equal": lambda x: ops.select(ops.equal(shape(x), 0), vector(1, 1, 1), shape(x)),
    "where less, which is a minimum": lambda x: ops.select(
        ops.less(ops.dim(value=x.shape[0]), 5), ops.dim(value=x.shape[0]), 5),
    "where greater, which is a maximum": lambda x: ops.select(
        ops.greater(ops.dim(value=x.shape[0]), 5), ops.dim(value=x.shape[0]), 5),
    "where equal to the other": lambda x: ops.select(
        ops.equal(ops.dim(value=x.shape[0]), 5), 5, ops.dim(value=x.shape[0])),
    "floats of numbers": lambda x: ops.cast(ops.floor(ops.mul(ops.cast(vector(5, 7), to=F32), 1.5)), to=I64),
    "a named operation": lambda x: ops.clip(vector(-1, 5, 9), 0, 6),
    "a scalar comparison decides": lambda x: ops.select(ops.not_equal(shape(x), 0), shape(x), -1),
    "iota": lambda x: ops.iota(shape=(4,), axis=0, dtype=I64),
    "padded with a dim": lambda x: ops.pad(shape(x), ops.dim(value=x.shape[0]), low=(1,), high=(2,)),
    "gathered one by one": lambda x: ops.gather_elements(shape(x), vector(2, 0, -2), axis=0),
    "bool to int": lambda x: ops.cast(ops.greater_equal(shape(x), 1), to=I64),
}


@pytest.mark.parametrize("name", KNOWN)
def test_elements_are_what_runs(name: str) -> None:
    module = trace(KNOWN[name], X)
    (result,) = module.main.returned
    actual = ShapeAnalysis().elements(result)
    assert actual is not None and all(map(is_dim, actual.flat))
    symbols = {symbol.name: symbol for symbol in module.main.symbols.values()}
    for batch, length in ((1, 2), (5, 7), (9, 50), (4, 5)):
        environment = {symbols["B"]: batch, symbols["S"]: length}
        (expected,) = run(module, {module.main.arguments[0].name: np.zeros((batch, length, 4), np.float32)}).values()
        evaluated = [dims.evaluate(element, environment) for element in actual.flat]
        assert np.array_equal(np.reshape(evaluated, actual.shape), expected)


SYMBOLIC = [definition for definition in ops.TABLE.values() if definition.of_dims is not None and definition.pointwise]


@pytest.mark.parametrize("definition", SYMBOLIC, ids=lambda definition: definition.name)
def test_the_meaning_for_dims_is_that_of_the_reference(definition: OperationDefinition) -> None:
    """Of every primitive that declares one, over all values of its symbols, wherever it has an answer."""
    sizes = [dims.symbol("A", 0, 3), dims.symbol("B", 1, 9), dims.symbol("C", 4, 6, 2)]
    a, b, c = (symbol.expr for symbol in sizes)
    operands = [a, b, c, a - b, 2 * c, c - 12, b * c, dims.floor_divide(b, 2), 0, 1, 7, -3]
    values = itertools.product(range(4), range(1, 10), (4, 6))
    environments = [dict(zip(sizes, each, strict=True)) for each in values]
    choices: list[dict[str, Any]] = [{"to": I64, "saturate": True}] if "to" in definition.attribute_specs else [{}]
    if "rounding" in definition.attribute_specs:
        choices = [{"rounding": rounding, "by_zero": by_zero} for rounding in ("trunc", "floor")
                   for by_zero in (None, "error")]  # fmt: skip
    conditions = [True, False, *(Comparison(kind, b, c) for kind in ("equal", "less", "less_equal"))]
    is_choice = definition is ops.select
    count = len(definition.operand_specs) - is_choice
    rows = itertools.product(*([conditions] if is_choice else []), *[operands] * count)
    answered = 0
    for elements in rows:
        for attributes in choices:
            actual = constants.of_dims(definition, elements, attributes)
            if actual is None or isinstance(actual, Comparison):
                continue
            answered += 1
            columns = [np.array([value_at(each, environment) for environment in environments]) for each in elements]
            (expected,) = definition.evaluate(columns, attributes)
            assert [value_at(actual, environment) for environment in environments] == expected.tolist()
    assert answered > len(operands) // 2


def value_at(element: Any, environment: dict[Any, int]) -> int | bool:
    if isinstance(element, Comparison):
        left, right = (dims.evaluate(side, environment) for side in (element.left, element.right))
        return {"equal": left == right, "less": left < right, "less_equal": left <= right}[element.kind]
    return element if isinstance(element, bool) else dims.evaluate(element, environment)


def test_evaluation_that_fails_has_no_answer() -> None:
    one, zero = np.array(1), np.array(0)
    assert constants.of_numbers(ops.lookup("div"), [one, zero], {"rounding": "trunc", "by_zero": "error"}) is None
    assert constants.of_numbers(ops.gather, [np.arange(3), np.array(3)], {"axis": 0, "bounds": None}) is None
    assert constants.of_dims(ops.lookup("exp"), [1], {}) is None
    module = trace(lambda: ops.gather(vector(1, 2), vector(5), axis=0))
    (operation,) = [each for each in module.main.block if each.name == "gather"]
    assert constants.results(operation, [np.array([1, 2]), np.array([5])]) is None


UNKNOWN: dict[str, Callable[[Any, Any], Any]] = {
    "an argument": lambda x, n: n,
    "an open condition": lambda x, n: ops.select(ops.less(shape(x), 5), vector(1, 1, 1), vector(2, 2, 2)),
    "a gather by an argument": lambda x, n: ops.gather(shape(x), n, axis=0),
    "a product with an argument": lambda x, n: ops.expand(ops.reduce_prod(n, axes=(0,)), shape=(3,)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_nothing_is_guessed(name: str) -> None:
    module = trace(UNKNOWN[name], X, "i64[3]")
    (result,) = module.main.returned
    actual = ShapeAnalysis().elements(result)
    if name == "an open condition":
        assert actual is not None and actual[0] is None and actual[1] is None
    else:
        assert actual is not None and actual.tolist() == [None, None, None]


def test_elements_are_known_one_by_one() -> None:
    module = trace(lambda x, n: ops.concat(n, shape(x), axis=0), X, "i64[1]")
    actual = ShapeAnalysis().elements(module.main.returned[0])
    assert actual is not None and actual[0] is None and actual[1:].tolist() == list(module.main.arguments[0].shape)


def test_an_open_comparison_is_remembered() -> None:
    module = trace(lambda x: ops.less(ops.dim(value=x.shape[0]), 5), X)
    actual = ShapeAnalysis().elements(module.main.returned[0])
    batch = module.main.arguments[0].shape[0]
    assert actual is not None and actual.item() == Comparison("less", batch, 5)


def test_data_is_not_looked_at() -> None:
    """Large tensors, strings and results of unknown extent are no shapes."""
    module = trace(lambda x: (vector(*range(LIMIT + 1)), x, ops.iota(shape=(x.shape[0],), axis=0, dtype=I64)), X)
    analysis = ShapeAnalysis()
    assert [analysis.elements(value) for value in module.main.returned] == [None, None, None]


def test_errors_of_a_run_are_not_errors_here() -> None:
    module = trace(lambda x: (ops.gather(vector(1, 2), vector(5), axis=0), ops.div(vector(1), vector(0))), X)
    analysis = ShapeAnalysis()
    for value in module.main.returned:
        actual = analysis.elements(value)
        assert actual is not None and actual.shape == (1,)


def test_what_bind_makes_known() -> None:
    module = trace(lambda x, n: ops.add(n, 1), X, "i64[]")
    symbol = module.main.fresh_symbol("n")
    analysis = ShapeAnalysis()
    analysis.learn(module.main.arguments[1], symbol.expr)
    actual = analysis.elements(module.main.returned[0])
    assert actual is not None and actual.item() == symbol.expr + 1


def test_long_chains_do_not_recurse() -> None:
    def chain(x: Any) -> Any:
        value = ops.dim(value=x.shape[0])
        for _ in range(5000):
            value = ops.add(value, 1)
        return value

    module = trace(chain, X)
    actual = ShapeAnalysis().elements(module.main.returned[0])
    assert actual is not None and actual.item() == module.main.arguments[0].shape[0] + 5000


def test_where_a_slice_begins_may_be_unknown() -> None:
    def one_of_eight(x: Any) -> Any:
        first = x.shape[0]
        return ops.slice_(const(value=Tensor.of(np.arange(8))), starts=(first,), stops=(first + 1,), steps=(1,))

    module = trace(one_of_eight, "f32[?S in (1, 6)]")
    actual = ShapeAnalysis().elements(module.main.returned[0])
    assert actual is not None and actual.tolist() == [None]


def test_decided_conditions_are_bools() -> None:
    module = trace(lambda x: ops.bitwise_not(ops.equal(shape(x), -1)), X)
    actual = ShapeAnalysis().elements(module.main.returned[0])
    assert module.main.returned[0].dtype is BOOL
    assert actual is not None and actual.tolist() == [True, True, True]
