"""What declarations state of operations, against what the operations compute."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import numpy as np
import pytest

import irc
from irc import dims, ops
from irc.dims import Variable
from irc.driver.documentation import op_page
from irc.dtypes import BOOL, F16, F32, I8, I64, U8, DType
from irc.interfaces import Combine, Interface, Trait, identity
from irc.ir import Operation
from irc.op import OperationDefinition

DEFINITIONS = list(ops.TABLE.values())
COMBINED = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


Arrays = list[np.ndarray[Any, Any]]


def contraction_of(function: Any, *operand_types: str) -> tuple[Operation, Arrays, np.ndarray[Any, Any]]:
    """The contraction that a function is, random integers as its operands, and what it gives."""
    module = irc.trace(function, *operand_types)
    generator = np.random.default_rng(0)
    arrays = {each.name: generator.integers(-9, 9, each.type.static_shape()) for each in module.main.arguments}
    (operation,) = (each for each in module.main.block if each.definition.contraction is not None)
    (result,) = irc.run(module, arrays).outputs.values()
    return operation, list(arrays.values()), result


DOTS: list[tuple[str, str, dict[str, Any]]] = [
    ("i64[3, 4]", "i64[4, 5]", {"contract": ((1, 0),)}),
    ("i64[2, 3, 4]", "i64[4, 2, 5]", {"batch": ((0, 1),), "contract": ((2, 0),)}),
    ("i64[2, 3, 4]", "i64[2, 4, 5]", {"contract": ((-1, 1), (0, 0))}),
    ("i64[2, 3]", "i64[4, 3, 1]", {"batch": ((1, 1),), "contract": ()}),
    ("i64[2]", "i64[3]", {"contract": ()}),
]
WINDOWS: list[dict[str, Any]] = [
    {"groups": 1, "strides": (1, 1), "dilations": (1, 1), "low": (0, 0), "high": (1, 0)},
    {"groups": 2, "strides": (2, 3), "dilations": (1, 2), "low": (1, 2), "high": (1, 0)},
    {"groups": 4, "strides": (1, 2), "dilations": (2, 1), "low": (0, 3), "high": (0, 0)},
]
CONTRACTIONS = [
    *((partial(ops.dot, **attributes), (x, y)) for x, y, attributes in DOTS),
    *((partial(ops.conv, **each), ("i64[2, 4, 6, 7]", f"i64[8, {4 // each['groups']}, 3, 2]")) for each in WINDOWS),
    *((partial(ops.conv_transpose, output_padding=(0, 1), **each), ("i64[2, 4, 4, 3]", "i64[4, 3, 3, 4]"))
      for each in WINDOWS),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CONTRACTIONS)))
def test_a_contraction_is_the_sum_over_its_iteration_space(number: int) -> None:
    function, operand_types = CONTRACTIONS[number]
    operation, (x, y), result = contraction_of(lambda x, y: function(x, y), *operand_types)
    contraction = operation.definition.contraction
    assert contraction is not None
    space = contraction.space(operation)
    extents = [dims.evaluate(extent, {}) for extent in space.extents]
    axes = [Variable(f"i{number}", extent) for number, extent in enumerate(extents)]
    points = dict(zip(axes, np.indices(extents).reshape(len(extents), -1), strict=True))
    maps = space.maps(tuple(axis.expr for axis in axes))
    count = int(np.prod(extents))
    at = [[np.broadcast_to(dims.evaluate_array(index, points), (count,)) for index in each] for each in maps]
    inside = np.ones(count, bool)
    for coordinates, array in zip(at, (x, y, result), strict=True):
        for coordinate, extent in zip(coordinates, array.shape, strict=True):
            inside &= (coordinate >= 0) & (coordinate < extent)
    first, second, target = (tuple(coordinate[inside] for coordinate in each) for each in at)
    total = np.zeros_like(result)
    np.add.at(total, target, x[first] * y[second])
    np.testing.assert_array_equal(total, result)
    assert contraction.flops(operation) == 2 * count


@pytest.mark.parametrize("dtype", [F32, F16, I8, U8, I64, BOOL], ids=str)
@pytest.mark.parametrize("combine", get_args(Combine))
def test_the_identity_changes_nothing(combine: Combine, dtype: DType) -> None:
    values = np.array([0, 1, 3, -np.inf, np.inf] if dtype.is_float else [0, 1, 3]).astype(dtype.numpy)
    if dtype is not BOOL or combine in ("max", "min"):
        np.testing.assert_array_equal(COMBINED[combine](values, identity(combine, dtype)), values)


@pytest.mark.parametrize("definition", [each for each in DEFINITIONS if each.reduction is not None], ids=str)
def test_a_reduction_combines_the_elements(definition: OperationDefinition) -> None:
    reduction = definition.reduction
    assert reduction is not None
    x = np.random.default_rng(1).integers(-5, 6, (4, 7)).astype(np.float64)
    where = {"axis": 1} if reduction.finds_index else {"axes": (1,)}
    (result,) = definition.evaluate([x], definition.normalize(where))
    combined = COMBINED[reduction.combine].reduce(x, axis=1)
    np.testing.assert_array_equal(x[np.arange(4), result] if reduction.finds_index else result, combined)
    assert reduction.operands == len(definition.operand_specs)


@pytest.mark.parametrize("definition", [each for each in DEFINITIONS if each.movement is not None], ids=str)
def test_data_movement_has_index_maps(definition: OperationDefinition) -> None:
    assert (definition.pull is not None) != (definition.element_of is not None)


def test_each_interface_and_trait_is_stated_somewhere() -> None:
    assert {type(each) for definition in DEFINITIONS for each in definition.interfaces} == set(get_args(Interface))
    assert {each for definition in DEFINITIONS for each in definition.traits} == set(Trait)


def test_the_page_of_an_operation_states_them() -> None:
    assert "contraction; library call; new memory; wraps around" in op_page(ops.TABLE["dot"])
