"""Kernels as data: index maps, axes, nests, the byte model, and why groups are illegal."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from irc import dims, dtypes, ops
from irc.dims import Dim, Variable
from irc.index_map import (
    MOST_PARTS,
    Guard,
    IndexMap,
    Point,
    axis_variables,
    compose,
    delinearize,
    identity_map,
    in_bounds,
    linearize,
    reshape,
    reshape_map,
    restrict,
    transpose_map,
)
from irc.interpreter import run
from irc.ir import Operation, Value
from irc.kernel import Kernel, LegalityFailure, Loop, count, derive, traffic
from irc.op import trace
from irc.ops.view import map_of
from tests.programs import static_type


def members(function: Callable[..., Any], *types: str) -> list[Operation]:
    block = trace(function, *types).main.block
    return [operation for operation in block if not operation.definition.is_terminator]


def kernel(function: Callable[..., Any], *types: str, **options: Any) -> Kernel:
    return derive(members(function, *types), **options)


def extents(kernel: Kernel) -> list[tuple[str, bool]]:
    return [(str(axis.extent), axis in kernel.bound) for axis in (*kernel.parallel, *kernel.bound)]


def failure(function: Callable[..., Any], *types: str, **options: Any) -> LegalityFailure:
    with pytest.raises(LegalityFailure) as caught:
        kernel(function, *types, **options)
    return caught.value


# -- index maps ------------------------------------------------------------------------------------------------


def axes_of(shape: Sequence[int]) -> list[Variable]:
    return [Variable(f"x{position}", extent) for position, extent in enumerate(shape)]


def view(name: str, attributes: dict[str, Any], operand: str) -> Value:
    (result,) = trace(lambda x: ops.lookup(name)(x, **attributes), operand).main.returned
    return result


def moved(result_of_view: Value, array: np.ndarray) -> np.ndarray:
    """What a view does to an array, element by element through `pull`."""
    shape = result_of_view.type.static_shape()
    axes = axes_of(shape)
    pieces = result_of_view.operation.definition.pull(result_of_view, tuple(axis.expr for axis in axes))
    result = np.full(shape, -1, array.dtype)
    for point in np.ndindex(*shape):
        environment = dict(zip(axes, map(int, point), strict=True))
        for piece in pieces:
            inside = all(0 <= dims.evaluate(g.index, environment) < dims.evaluate(g.extent, {}) for g in piece.guards)
            if inside and piece.operand == 0:
                result[point] = array[tuple(dims.evaluate(c, environment) for c in piece.coordinates)]
                break
    return result


VIEWS: list[tuple[str, dict[str, Any], str, Callable[[np.ndarray], np.ndarray]]] = [
    ("reshape", {"shape": (6, 10)}, "f32[4, 3, 5]", lambda x: x.reshape(6, 10)),
    ("reshape", {"shape": (4, 15, 1)}, "f32[4, 3, 5]", lambda x: x.reshape(4, 15, 1)),
    ("reshape", {"shape": (2, 2, 5, 3)}, "f32[4, 3, 5]", lambda x: x.reshape(2, 2, 5, 3)),
    ("transpose", {"permutation": (2, 0, 1)}, "f32[4, 3, 5]", lambda x: x.transpose(2, 0, 1)),
    ("expand", {"shape": (2, 4, 3)}, "f32[4, 1]", lambda x: np.broadcast_to(x, (2, 4, 3))),
    ("slice", {"starts": (1, 0), "stops": (4, 9), "steps": (1, 3)}, "f32[5, 10]", lambda x: x[1:4, 0:9:3]),
    ("reverse", {"axes": (1,)}, "f32[2, 5]", lambda x: x[:, ::-1]),
    ("pad", {"low": (0, 2), "high": (1, 0), "mode": "constant"}, "f32[2, 3]",
     lambda x: np.pad(x, [(0, 1), (2, 0)], constant_values=-1)),
    ("pad", {"low": (0, 2), "high": (1, 1), "mode": "reflect"}, "f32[2, 3]",
     lambda x: np.pad(x, [(0, 1), (2, 1)], mode="reflect")),
    ("pad", {"low": (3, 2), "high": (1, 1), "mode": "wrap"}, "f32[2, 3]",
     lambda x: np.pad(x, [(3, 1), (2, 1)], mode="wrap")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "attributes", "type_", "expected"), VIEWS, ids=lambda part: str(part)[:24])
def test_pull(name: str, attributes: dict[str, Any], type_: str, expected: Callable[[np.ndarray], np.ndarray]) -> None:
    operand = static_type(type_)
    array = np.arange(np.prod(operand.static_shape()), dtype=np.float32).reshape(operand.static_shape())
    np.testing.assert_array_equal(moved(view(name, attributes, type_), array), expected(array))


@pytest.mark.parametrize(("name", "attributes", "type_", "expected"), VIEWS[:7], ids=lambda part: str(part)[:24])
def test_push_inverts_pull(
    name: str, attributes: dict[str, Any], type_: str, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    operand = static_type(type_)
    axes = axes_of(operand.static_shape())
    array = np.arange(np.prod(operand.static_shape()), dtype=np.float32).reshape(operand.static_shape())
    required = expected(array)
    result = view(name, attributes, type_)
    point = result.operation.definition.push(result, Point(tuple(axis.expr for axis in axes)))
    if point is None:
        assert name == "expand"
        return
    seen = np.full(required.shape, -1.0, np.float32)
    for place in np.ndindex(*operand.static_shape()):
        environment = dict(zip(axes, map(int, place), strict=True))
        if all(0 <= dims.evaluate(g.index, environment) < dims.evaluate(g.extent, {}) for g in point.guards):
            seen[tuple(dims.evaluate(c, environment) for c in point.coordinates)] = array[place]
    np.testing.assert_array_equal(seen, required)


def chain_of_views(x: Value, generator: random.Random) -> Value:
    """Transposes and reshapes; some of these cut across the axes that earlier ones made, unless all extents are powers
    of 2."""
    shape = list(x.type.static_shape())
    whole = math.prod(shape)
    for _ in range(generator.randint(1, 5)):
        if generator.random() < 0.5:
            x = ops.transpose(x, permutation=tuple(generator.sample(range(x.rank), x.rank)))
        else:
            last = generator.choice([size for size in range(1, whole + 1) if whole % size == 0])
            first = generator.choice([size for size in range(1, whole + 1) if whole // last % size == 0])
            x = ops.reshape(x, shape=(first, whole // last // first, last))
    return ops.reshape(x, shape=generator.choice([shape, (whole,), (2, 1, whole // 2)]))


def composed(result: Value) -> IndexMap | None:
    """The map of a chain of views."""
    view: IndexMap | None = identity_map(result.shape)
    while view is not None and result.operation is not None:
        step = map_of(result)
        assert step is not None
        view, result = compose(view, step), result.operation.inputs[0]
    return view


def applied(view: IndexMap, array: np.ndarray) -> np.ndarray:
    grids = np.meshgrid(*map(np.arange, view.shape), indexing="ij", sparse=True)
    environment = dict(zip(axis_variables(view.shape), grids, strict=True))
    places = [dims.evaluate_array(coordinate, environment) for coordinate in view.coordinates]
    return np.broadcast_to(array[tuple(places)], view.shape)


@pytest.mark.parametrize("shape", [(4, 2, 8), (16, 4), (3, 4, 6), (1, 10, 9)], ids=str)
def test_composed_maps_move_what_the_views_move(shape: tuple[int, ...]) -> None:
    """Random chains against the interpreter. Maps are equal where elements move alike, if no reshape cuts across."""
    generator = random.Random(str(shape))
    array = np.arange(math.prod(shape)).reshape(shape)
    maps: dict[tuple[Any, ...], IndexMap] = {}
    for _ in range(80):
        module = trace(lambda x: chain_of_views(x, generator), f"i64{list(shape)}")
        (result,) = module.main.returned
        (expected,) = run(module, {module.main.arguments[0].name: array}).values()
        view = composed(result)
        assert view is not None
        np.testing.assert_array_equal(applied(view, array), expected)
        if math.prod(shape) == 64:
            assert view.is_reshape == bool((expected.ravel() == array.ravel()).all())
            assert maps.setdefault((expected.shape, expected.tobytes()), view) == view
    assert len(set(maps.values())) == len(maps)


def test_a_view_and_its_inverse_compose_to_the_identity() -> None:
    def there_and_back(x: Value) -> Value:
        batch, length, _ = x.shape
        heads = ops.transpose(ops.reshape(x, shape=(batch, length, 12, 64)), permutation=(0, 2, 1, 3))
        flat = ops.reshape(heads, shape=(batch * 12, length, 64))
        merged = ops.transpose(ops.reshape(flat, shape=(batch, 12, length, 64)), permutation=(0, 2, 1, 3))
        return ops.reshape(merged, shape=x.shape)

    (result,) = trace(there_and_back, "f32[B, S, 768]").main.returned
    assert composed(result) == identity_map(result.shape)


def test_the_permutation_of_a_map() -> None:
    swapped = transpose_map((2, 1, 3), (2, 1, 0))
    assert swapped.permutation == (2, 1, 0) and not swapped.is_reshape
    assert compose(swapped, transpose_map((3, 1, 2), (2, 1, 0))) == identity_map((3, 1, 2))
    assert reshape_map((2, 3), (3, 2)).permutation is None and reshape_map((2, 3), (3, 2)).is_reshape
    assert reshape_map((4, 6), (24,)).permutation is None
    grown: Dim = dims.symbol("B").expr
    assert transpose_map((grown, 1, 4), (1, 2, 0)).permutation == (1, 2, 0)


def test_maps_of_long_chains_stay_small() -> None:
    """Reshapes that cut across one another's axes, with transposes between, double a coordinate each time."""
    view: IndexMap | None = identity_map((35, 36))
    sizes = []
    while view is not None:
        sizes.append(max(at.size for at in view.coordinates if isinstance(at, dims.Expr)))
        turned = transpose_map(view.shape, (1, 0))
        view = compose(turned, view)
        view = None if view is None else compose(reshape_map(view.shape, (35, 36)), view)
    assert 3 < len(sizes) < 20 and max(sizes) <= MOST_PARTS


def test_reshape_maps_equal_prefixes_apart() -> None:
    batch, sequence = dims.symbol("B"), dims.symbol("S")
    b, s, k = Variable("b", batch.expr), Variable("s", sequence.expr), Variable("k", 768)
    before, after = (batch.expr, sequence.expr, 768), (batch.expr, sequence.expr, 12, 64)
    assert reshape((b.expr, s.expr, k.expr), before, after) == (b.expr, s.expr, k.expr // 64, k.expr % 64)
    back = reshape(reshape((b.expr, s.expr, k.expr), before, after), after, before)
    assert back == (b.expr, s.expr, k.expr)


def test_linearize_and_delinearize_are_inverse() -> None:
    i, j = Variable("i", 6), Variable("j", 35)
    assert delinearize(linearize((i.expr, j.expr), (6, 35)), (6, 35)) == (i.expr, j.expr)


def test_bounds_are_proven_under_guards() -> None:
    j = Variable("j", 10)
    guard = Guard(j.expr - 2, 5)
    assert not in_bounds(j.expr - 2, 5, ())
    assert in_bounds(j.expr - 2, 5, (guard,))
    assert in_bounds((j.expr - 2) // 2, 3, (guard,))
    assert not in_bounds(j.expr - 1, 5, (guard,))
    other = Guard(Variable("k", 4).expr - 1, 2)
    assert restrict((j.expr - 2,), (5,), (other, guard)) == (guard,)
    assert restrict((j.expr - 1,), (5,), (guard,)) == (Guard(j.expr - 1, 5),)


# -- structure -------------------------------------------------------------------------------------------------


def test_pointwise_axes_merge() -> None:
    derived = kernel(lambda x, y: ops.add(x, y), "f32[B, S, 64]", "f32[B, S, 64]")
    assert extents(derived) == [("64*B*S", False)]
    assert derived.kind == "pointwise" and not derived.looped


def test_softmax_loads_each_element_once() -> None:
    derived = kernel(lambda x: ops.softmax(x, axis=-1), "f32[B, 12, S, 100]")
    assert extents(derived) == [("12*B*S", False), ("100", True)]
    assert len(derived.loads) == 1
    sizes = {symbol: 3 for symbol in derived.outputs[0].type.symbols()}
    elements = 3 * 12 * 3 * 100
    assert count(derived, sizes).loaded_bytes == 2 * 4 * elements == count(derived, sizes).distinct_bytes


def test_long_rows_are_looped_over() -> None:
    derived = kernel(lambda x: ops.softmax(x, axis=-1), "f32[4, 100000]")
    assert derived.looped
    assert sum(isinstance(scope, Loop) for scope in derived.schedule.nest) == 2
    assert count(derived, {}).loaded_bytes == 3 * 4 * 100000 * 4  # two passes and the store
    assert count(derived, {}).distinct_bytes == 2 * 4 * 100000 * 4


def test_a_view_behind_a_norm_does_not_recompute_it() -> None:
    def function(x: Value, scale: Value, bias: Value) -> Value:
        heads = ops.reshape(ops.layer_norm(x, scale, bias), shape=(8, 16, 12, 64))
        return ops.transpose(heads, permutation=(0, 2, 1, 3))

    derived = kernel(function, "f16[8, 16, 768]", "f16[768]", "f16[768]")
    assert [reduced for _, reduced in extents(derived)] == [False, False, True]
    assert not derived.recomputes_reduction and derived.numerics == "exact"  # the body casts, and back at its end
    x, scale, bias = derived.inputs
    assert [value.name for value in (x, scale, bias)] == ["x", "scale", "bias"]


def test_reduced_axes_are_flattened() -> None:
    derived = kernel(lambda x: ops.instance_norm(x, None, None), "f32[2, 3, 5, 7]")
    assert extents(derived) == [("6", False), ("35", True)]


def test_a_shared_operand_is_read_once_for_a_tile() -> None:
    derived = kernel(lambda x, b: ops.add(x, b), "f32[256, 128]", "f32[128]")
    counted = count(derived, {})
    assert counted.programs == 16
    assert counted.loaded_bytes == 4 * (2 * 256 * 128 + counted.programs * 128)
    assert count(derived, {}, {"m": 256}).loaded_bytes == 4 * (2 * 256 * 128 + 128)


def test_guarded_loads_count_what_is_inside() -> None:
    derived = kernel(lambda x, y: ops.concat(x, y, axis=1), "f32[5, 7]", "f32[5, 9]")
    assert count(derived, {}).loaded_bytes == 2 * 4 * 5 * 16
    padded = kernel(lambda x: ops.pad(x, low=(0, 1), high=(2, 3)), "f32[5, 7]")
    assert count(padded, {}).loaded_bytes == 4 * (5 * 7 + 7 * 11)


def test_distinct_bytes_count_an_element_once() -> None:
    def halves(x: Value) -> Value:
        left, right = ops.split(x, axis=0, sizes=(6, 6))
        return ops.add(left, right)

    assert count(kernel(halves, "f32[12, 10]"), {}).distinct_bytes == 4 * (120 + 60)
    part = kernel(lambda x: ops.exp(ops.slice_(x, starts=(2,), stops=(8,), steps=(2,))), "f32[10]")
    assert count(part, {}).distinct_bytes == 4 * (3 + 3)


@pytest.mark.parametrize("seed", range(60))
def test_accesses_are_counted_as_if_one_by_one(seed: int) -> None:
    """Affine accesses under guards on one axis are counted by arithmetic, others by looking at each point."""
    random = np.random.default_rng(seed)
    symbol = dims.symbol("S")
    extents = [int(each) for each in random.integers(0, 6, 3)]
    axes = [Variable(name, extent) for name, extent in zip("ijk", extents, strict=True)]
    i, j, k = (axis.expr for axis in axes)

    def affine(*parts: Dim) -> Dim:
        return dims.total(int(random.integers(-3, 4)) * part for part in parts)

    accesses = []
    for _ in range(int(random.integers(1, 4))):
        strides = random.permutation([[1, 5, 25], [1, 1, 6], [2, 4, 12], [0, 1, 5]][int(random.integers(4))])
        address = dims.total(int(s) * axis for s, axis in zip(strides, (i, j, k), strict=True)) + symbol.expr + 20
        tests = [affine(i, 1), affine(j, symbol.expr), affine(k, 1, 1), affine(i, k, 1), dims.floor_divide(j, 2) - 1]
        chosen = random.permutation(len(tests))[: int(random.integers(0, 4))]
        accesses.append((address, tuple(Guard(tests[each], int(random.integers(1, 5))) for each in chosen)))
    values = {symbol: 3}
    seen: set[int] = set()
    for address, guards in accesses:
        count = 0
        for point in itertools.product(*map(range, extents)):
            here = {**values, **dict(zip(axes, point, strict=True))}
            if all(0 <= dims.evaluate(guard.index, here) < guard.extent for guard in guards):
                count += 1
                seen.add(dims.evaluate(address, here))
        assert traffic.points(frozenset(axes), guards, dims.Sizes(values)) == (count, True)
    assert traffic.distinct(500, tuple(accesses), dims.Sizes(values)) == (len(seen), True)


def test_indirect_accesses_are_bounded() -> None:
    derived = kernel(lambda x, i: ops.gather(x, i, axis=0), "f32[50, 8]", "i64[20]")
    counted = count(derived, {})
    assert not counted.exact
    assert counted.distinct_bytes == 20 * 8 + 4 * 160 + 4 * 160


def test_empty_outputs_launch_nothing() -> None:
    counted = count(kernel(lambda x: ops.exp(x), "f32[0, 8]"), {})
    assert (counted.programs, counted.loaded_bytes) == (0, 0)


def test_indices_known_without_loading_need_no_guard() -> None:
    def shifted(x: Value) -> Value:
        index = ops.add(ops.iota(shape=(6,), axis=0, dtype=dtypes.I64), 2)
        return ops.gather(x, index, axis=0)

    (load,) = kernel(shifted, "f32[8]").loads
    assert load.guards == ()


def test_argmax_of_one_element_reduces_nothing() -> None:
    derived = kernel(lambda x: ops.argmax(x, axis=1), "f32[4, 1]")
    assert derived.kind == "pointwise"


def test_argmax_is_two_reductions() -> None:
    derived = kernel(lambda x: ops.argmax(x, axis=1), "f32[4, 9]")
    assert derived.outputs[0].dtype is dtypes.I64 and derived.kind == "reduction"


def test_kernel_regions_derive_the_same_kernel() -> None:
    from tests.triton_harness import kernelize

    module = trace(lambda x, s, b: ops.relu(ops.layer_norm(x, s, b)), "f32[B, 40]", "f32[40]", "f32[40]")
    plain = derive([operation for operation in module.main.block if not operation.definition.is_terminator])
    fused = kernelize(module.clone())
    (operation,) = [operation for operation in fused.main.block if operation.name == "kernel"]
    inside = derive([inner for inner in operation.regions[0].block if not inner.definition.is_terminator])
    assert [str(store.index) for store in inside.stores] == [str(store.index) for store in plain.stores]
    assert len(inside.nodes) == len(plain.nodes)


def test_a_skipped_rounding_is_told() -> None:
    def function(x: Value) -> Value:
        return ops.mul(ops.add(x, 1.0), 3.0)

    assert kernel(function, "f16[8]").numerics == "keeps_more_precision"
    assert kernel(function, "f32[8]").numerics == "exact"


def test_outputs_may_be_chosen() -> None:
    operations = members(lambda x: ops.exp(ops.add(x, 1.0)), "f32[8]")
    values = [operations[-2].result, operations[-1].result]
    derived = derive(operations, outputs=values)
    assert derived.outputs == tuple(values)


# -- failures --------------------------------------------------------------------------------------------------


def test_f2_members_are_computed_point_by_point() -> None:
    assert failure(lambda x, y: ops.dot(x, y, contract=((1, 0),)), "f64[4, 5]", "f64[5, 6]").rule == "F2"
    assert failure(lambda x: ops.sort(x, axis=0)[0], "f32[4]").code == "fuse.impure_member"
    assert failure(lambda x: ops.add(x, x), "c64[4]").rule == "F2"


def test_f3_something_is_stored() -> None:
    operations = members(lambda x: ops.exp(x), "f32[4]")
    with pytest.raises(LegalityFailure, match="nothing outside"):
        derive(operations, outputs=[])


def test_f4_every_root_is_reached() -> None:
    error = failure(lambda x, y: (ops.exp(x), ops.exp(y)), "f32[4]", "f32[5]")
    assert (error.rule, error.code) == ("F4", "fuse.unreached_root")
    assert "axis" in error.message and error.values


def test_f6_reductions_share_their_axis() -> None:
    error = failure(lambda x: (ops.reduce_sum(x, axes=(0, 1)), ops.reduce_sum(x, axes=(1,))), "f32[6, 7]")
    assert error.rule in ("F4", "F6")
    nested = failure(lambda x: ops.reduce_max(ops.reduce_sum(x, axes=(2,)), axes=(1,)), "f32[4, 6, 7]")
    assert nested.rule == "F6"


def test_f10_reductions_are_computed_once() -> None:
    def function(x: Value, y: Value) -> Value:
        return ops.mul(ops.reduce_sum(x, axes=(1,), keep_dims=True), y)

    error = failure(function, "f32[6, 7]", "f32[6, 90]")
    assert (error.rule, error.code) == ("F10", "fuse.recomputed_reduction")
    assert kernel(function, "f32[6, 7]", "f32[6, 90]", recompute=True).recomputes_reduction


def test_f13_bits_of_a_half_are_not_those_of_a_register() -> None:
    error = failure(lambda x: ops.bitcast(ops.bitcast(x, to=dtypes.F16), to=dtypes.I16), "i16[4]")
    assert error.rule == "F13"


def test_a_legality_failure_becomes_an_error() -> None:
    from irc.diagnostics import UNKNOWN

    error = failure(lambda x: ops.sort(x, axis=0)[0], "f32[4]").error(UNKNOWN)
    assert error.code == "fuse.impure_member"


def test_what_is_empty_moves_nothing() -> None:
    """With S = 0 no guard of a concat's pieces holds, and indices that divide by S are not evaluated."""
    module = trace(lambda x: ops.concat(x, ops.softmax(ops.tile(x, repeats=(3,)), axis=0), axis=0), "f32[?S in (0, 9)]")
    *members, _ = module.main.block
    kernel = derive(members)
    (symbol,) = module.main.symbols.values()
    for size in (0, 1, 2):
        moved = count(kernel, {symbol: size})
        assert moved.exact and moved.distinct_bytes == 4 * 5 * size
