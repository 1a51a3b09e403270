"""The interpreter: signatures, control flow, bridges, kernels, externs, precision and memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from irc.diagnostics import IrcError, Location
from irc.dims import Symbol, symbol
from irc.interpreter import evaluate_operation, run
from irc.ir import Block, Function, Operation, Region, Value
from irc.module import Module
from irc.op import Builder, const, return_, trace, yield_
from irc.ops import (
    abs_,
    add,
    assert_,
    assume,
    bind,
    bitcast,
    call,
    cast,
    concat,
    dim,
    exp,
    expand,
    extern,
    if_,
    iota,
    kernel,
    less,
    loop,
    matmul,
    mul,
    neg,
    philox,
    reduce_sum,
    refine,
    reshape,
    slice_,
    softmax,
    sub,
    transpose,
    trap,
)
from irc.ops.random_bits import philox_4x32
from irc.types import TensorType
from irc.weights import Tensor
from tests.growth import assert_linear_time
from tests.programs import static_type

RELU = {"domain": "", "op_type": "Relu", "version": 14, "attributes": {}}
F32, I64, BOOL = static_type("f32[]").dtype, static_type("i64[]").dtype, static_type("bool[]").dtype


def floats(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def region(types: Sequence[TensorType], body: Callable[..., Sequence[Value]]) -> Region:
    block = Block(types)
    with Builder(block) as builder:
        builder.create(yield_, list(body(*block.arguments)))
    return Region(block)


def create(
    definition: Any, operands: Sequence[Value | None], attributes: dict[str, Any] | None = None, **more: Any
) -> Any:
    results = Builder.active().create(definition, operands, attributes, **more).results
    return results[0] if len(results) == 1 else results


def code_of(function: Callable[[], Any]) -> str:
    with pytest.raises(IrcError) as caught:
        function()
    return caught.value.code


# -- signatures ------------------------------------------------------------------------------------------------


def test_inputs_are_checked_against_the_signature() -> None:
    module = trace(lambda x, y: add(x, y), "f32[?S in (2, 8) % 2, 3]", "f32[S, 1]")
    x, y = np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)
    (result,) = run(module, {"x": x, "y": y}).values()
    assert result.shape == (4, 3) and (result == 2).all()
    assert code_of(lambda: run(module, {"x": x})) == "run.input_missing"
    assert code_of(lambda: run(module, {"x": x, "y": y, "z": y})) == "run.input_unknown"
    assert code_of(lambda: run(module, {"x": x.astype(np.float64), "y": y})) == "run.input_dtype"
    assert code_of(lambda: run(module, {"x": x[0], "y": y})) == "run.input_shape"
    assert code_of(lambda: run(module, {"x": x[:, :2], "y": y})) == "run.input_shape"
    assert code_of(lambda: run(module, {"x": x, "y": y[:2]})) == "run.dim_conflict"
    assert code_of(lambda: run(module, {"x": x[:3], "y": y[:3]})) == "run.dim_range"
    assert code_of(lambda: run(module, {"x": x[:0], "y": y[:0]})) == "run.dim_range"


def test_a_symbol_is_solved_from_an_expression() -> None:
    size = symbol("S", 1, 100)
    doubled, whole = TensorType(F32, (2 * size.expr + 1,)), TensorType(F32, (size.expr * 3,))
    module = trace(lambda x, y: (x, create(dim, [], {"value": size.expr})), doubled, whole)
    inputs = {"x": np.zeros(9, np.float32), "y": np.zeros(12, np.float32)}
    assert int(list(run(module, inputs).values())[1]) == 4
    assert code_of(lambda: run(module, {**inputs, "x": np.zeros(8, np.float32)})) == "run.dim_conflict"
    assert code_of(lambda: run(module, {**inputs, "y": np.zeros(15, np.float32)})) == "run.dim_conflict"


def test_dims_that_cannot_be_solved_wait_for_others() -> None:
    size = symbol("S", 1, 100)
    tiles = TensorType(F32, ((size.expr + 31) // 32, 64 // size.expr))
    module = trace(lambda x, y: add(reduce_sum(x, axes=(0, 1)), y), tiles, TensorType(F32, (size.expr,)))
    inputs = {"x": np.ones((2, 1), np.float32), "y": np.zeros(40, np.float32)}
    assert next(iter(run(module, inputs).values())).shape == (40,)
    assert code_of(lambda: run(module, {**inputs, "x": np.ones((3, 1), np.float32)})) == "run.dim_conflict"
    module = trace(lambda x: create(dim, [], {"value": size.expr}), tiles)
    assert code_of(lambda: run(module, {"x": inputs["x"]})) == "dim.unbound"


def test_shapes_that_only_differ_at_run_time_are_coded() -> None:
    module = trace(lambda x, y: add(x, y), "f32[S]", "f32[T]")
    assert run(module, {"x": floats(1, 2), "y": floats(1)})
    assert code_of(lambda: run(module, {"x": floats(1, 2), "y": floats(1, 2, 3)})) == "run.shape"
    module = trace(lambda x, y: matmul(x, y), "f32[2, S]", "f32[T, 2]")
    assert (
        code_of(lambda: run(module, {"x": np.ones((2, 3), np.float32), "y": np.ones((4, 2), np.float32)}))
        == "run.shape"
    )


def test_functions_return_what_they_are_given() -> None:
    module = trace(lambda x, y: (y, x, y), "f32[]", "i64[2]")
    module.main.result_names = ("first", "second", "third")
    outputs = run(module, {"x": np.float32(3), "y": np.array([1, 2])})
    assert list(outputs) == ["first", "second", "third"]
    assert outputs["second"].dtype == np.float32 and list(outputs["third"]) == [1, 2]


def test_constants_keep_their_bits() -> None:
    data = np.array([np.nan, -0.0, 1.5], ml_dtypes.bfloat16)
    module = trace(lambda: const(value=Tensor.of(data)))
    (result,) = run(module, {}).values()
    assert result.dtype == data.dtype and result.tobytes() == data.tobytes()


def test_arrays_of_any_layout_are_taken() -> None:
    module = trace(lambda x: create(extern, [transpose(x, permutation=(1, 0))], RELU, types=[x.type]), "f32[2, 2]")
    x = np.array([[1, -2], [-3, 4]], ">f4")
    for given in (x, np.asfortranarray(x), np.broadcast_to(x, (2, 2)), x[::-1][::-1]):
        (result,) = run(module, {"x": given}).values()
        assert result.dtype == np.dtype("=f4") and np.array_equal(result, np.maximum(x.T, 0))


# -- control flow ----------------------------------------------------------------------------------------------


def branching(x: Value) -> Value:
    positive = less(create(const, [], {"value": Tensor.of(0, F32)}), reduce_sum(x, axes=(0,)))
    double = region([], lambda: [mul(x, 2.0)])
    fail = region([], lambda: [create(trap, [], {"message": "no negative sums"}, types=[x.type])])
    return create(if_, [positive], types=[x.type], regions=[double, fail])


def test_if_runs_one_side() -> None:
    module = trace(branching, "f32[S]")
    (result,) = run(module, {"x": floats(1, 2)}).values()
    assert list(result) == [2, 4]


def test_a_trap_stops_the_run() -> None:
    module = trace(branching, "f32[S]")
    with pytest.raises(IrcError, match="no negative sums") as caught:
        run(module, {"x": floats(-1, -2)})
    assert caught.value.code == "run.trap"


def counting(trip_count: bool, condition: bool) -> Module:
    """Adds x to an accumulator while it is below 10, and scans the accumulator."""

    def main(n: Value, go: Value, x: Value) -> Any:
        def body(iteration: Value, going: Value, total: Value) -> list[Value]:
            after = add(total, x)
            return [less(after, 10.0), after, total]

        scalar, vector = static_type("f32[]"), TensorType(F32, (symbol("rounds", 0, 100).expr,))
        block = region([static_type("i64[]"), static_type("bool[]"), scalar], body)
        operands = [n if trip_count else None, go if condition else None, mul(x, 0.0)]
        (length,) = vector.symbols()
        return tuple(create(loop, operands, types=[scalar, vector], regions=[block], symbols=[length]))

    return trace(main, "i64[]", "bool[]", "f32[]")


@pytest.mark.parametrize(
    ("bounds", "n", "go", "rounds"),
    [((True, True), 2, True, 2), ((True, True), 9, True, 4), ((True, True), 9, False, 0), ((False, True), 0, True, 4),
     ((True, False), 3, False, 3), ((False, False), 0, False, 4)],
)  # fmt: skip
def test_loop_has_both_bounds_or_either(bounds: tuple[bool, bool], n: int, go: bool, rounds: int) -> None:
    inputs = {"n": np.int64(n), "go": np.bool_(go), "x": np.float32(3)}
    total, scanned = run(counting(*bounds), inputs).values()
    assert total == 3 * rounds and list(scanned) == [3 * i for i in range(rounds)]


def test_loop_without_a_round() -> None:
    total, scanned = run(counting(True, True), {"n": np.int64(0), "go": np.bool_(True), "x": np.float32(3)}).values()
    assert total == 0 and scanned.shape == (0,) and scanned.dtype == np.float32


def test_carried_values_may_grow() -> None:
    """The symbol in the type of the region's argument is bound in every iteration."""
    inner, final = symbol("inner", 0, 100), symbol("final", 0, 100)

    def main(x: Value, n: Value) -> Value:
        def body(iteration: Value, going: Value, grown: Value) -> list[Value]:
            return [going, concat(grown, expand(reduce_sum(grown, axes=(0,)), shape=(1,)), axis=0)]

        block = region([static_type("i64[]"), static_type("bool[]"), TensorType(F32, (inner.expr,))], body)
        types = [TensorType(F32, (final.expr,))]
        return create(loop, [n, None, x], types=types, regions=[block], symbols=[inner, final])

    (result,) = run(trace(main, "f32[2]", "i64[]"), {"x": floats(1, 2), "n": np.int64(3)}).values()
    assert list(result) == [1, 2, 3, 6, 12]


def test_calls_bind_symbols_each_time() -> None:
    callee = trace(
        lambda x: reduce_sum(mul(x, cast(create(dim, [], {"value": x.shape[0]}), to=F32)), axes=(0,)), "f32[S]"
    ).main
    callee.name = "scaled"

    def main(x: Value, y: Value) -> Any:
        results = [create(call, [v], {"callee": "scaled"}, types=[static_type("f32[]")]) for v in (x, y)]
        return tuple(results)

    module = trace(main, "f32[S]", "f32[T]")
    module.add(callee)
    first, second = run(module, {"x": floats(1, 1), "y": floats(1, 1, 1)}).values()
    assert (first, second) == (4, 9)


def test_kernels_run_their_region() -> None:
    def braced(x: Value, y: Value) -> Value:
        body = region([x.type, y.type], lambda a, b: [exp(neg(add(a, b)))])
        return create(kernel, [x, y], {"name": "k", "kind": "pointwise"}, regions=[body])

    inputs = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": floats(1, 2, 3)}
    seen: list[str] = []
    (fused,) = run(trace(braced, "f32[S, 3]", "f32[3]"), inputs, observe=lambda op, _: seen.append(op.name)).values()
    (plain,) = run(trace(lambda x, y: exp(neg(add(x, y))), "f32[S, 3]", "f32[3]"), inputs).values()
    assert np.array_equal(fused, plain)
    assert seen == ["add", "neg", "exp", "kernel"]


# -- bridges and checks ----------------------------------------------------------------------------------------


def test_dims_become_tensors() -> None:
    def main(x: Value) -> Any:
        size = x.shape[0]
        return dim(value=size), dim(value=(size * 2, 7, size)), dim(value=())

    one, several, none = run(trace(main, "f32[S]"), {"x": floats(1, 2, 3)}).values()
    assert one == 3 and one.shape == () and list(several) == [6, 7, 3] and none.shape == (0,)
    assert {array.dtype for array in (one, several, none)} == {np.dtype(np.int64)}


def bound(low: int = 0, high: int = 8) -> tuple[Symbol, Module]:
    size = symbol("n", low, high)

    def main(x: Value, n: Value) -> Value:
        create(bind, [n], {"symbol": size})
        return slice_(x, starts=(0,), stops=(size.expr,), steps=(1,))

    return size, trace(main, "f32[S]", "i64[]")


def test_bind_checks_the_range() -> None:
    _, module = bound()
    (result,) = run(module, {"x": floats(1, 2, 3), "n": np.int64(2)}).values()
    assert list(result) == [1, 2]
    assert code_of(lambda: run(module, {"x": floats(1, 2, 3), "n": np.int64(-4)})) == "run.dim_range"
    assert code_of(lambda: run(module, {"x": floats(1, 2, 3), "n": np.int64(5)})) == "run.index"


def test_refine_checks_the_promise() -> None:
    rows = symbol("rows", 2, 4)

    def main(x: Value) -> Any:
        y = create(refine, [x], types=[TensorType(F32, (rows.expr, 3))], symbols=[rows])
        return y, dim(value=rows.expr)

    module = trace(main, "f32[*]")
    assert int(list(run(module, {"x": np.zeros((3, 3), np.float32)}).values())[1]) == 3
    assert code_of(lambda: run(module, {"x": np.zeros((3, 2), np.float32)})) == "run.refine"
    assert code_of(lambda: run(module, {"x": np.zeros(3, np.float32)})) == "run.refine"
    assert code_of(lambda: run(module, {"x": np.zeros((5, 3), np.float32)})) == "run.dim_range"


@pytest.mark.parametrize("definition", [assert_, assume])
def test_assertions_stop_the_run(definition: Any) -> None:
    def main(x: Value) -> Value:
        with_place = Builder(Builder.active().block, location=Location("model.py", 7))
        attributes = {"message": "x must be small"} if definition is assert_ else {}
        with_place.create(definition, [less(x, 2.0)], attributes)
        return x

    module = trace(main, "f32[?S in (0, 9)]")
    run(module, {"x": floats(1, 1)})
    run(module, {"x": floats()})
    with pytest.raises(IrcError, match=r"model\.py:7") as caught:
        run(module, {"x": floats(1, 3)})
    assert caught.value.code == "run.assert"
    if definition is assert_:
        assert "x must be small" in str(caught.value)


# -- externs ---------------------------------------------------------------------------------------------------


def external(
    op_type: str, version: int, type_: str, attributes: dict[str, Any], operands: Sequence[str], domain: str = ""
) -> Module:
    def main(*xs: Value) -> Value:
        values = dict(zip([name for name in operands if name != "_"], xs, strict=True))
        given = {"domain": domain, "op_type": op_type, "version": version, "attributes": attributes}
        return create(extern, [values.get(name) for name in operands], given, types=[static_type(type_)])

    types = {"x": "f32[S, 3]", "h": "bf16[4]", "q": "i4[2]", "s": "f32[]"}
    present = [name for name in operands if name != "_"]
    traced = trace(main, *(types[name] for name in present))
    for argument, name in zip(traced.main.arguments, present, strict=True):
        argument.name = name
    return traced


def test_externs_run_in_onnx_runtime() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    module = external("LpNormalization", 1, "f32[*]", {"axis": 1, "p": 1}, ["x"])
    (result,) = run(module, {"x": x}).values()
    assert np.allclose(result, x / x.sum(1, keepdims=True))
    module = external("Clip", 13, "f32[*]", {}, ["x", "_", "s"])
    (result,) = run(module, {"x": x, "s": np.float32(2)}).values()
    assert result.max() == 2
    module = external("DequantizeLinear", 21, "f32[2]", {}, ["q", "s"])
    (result,) = run(module, {"q": np.array([-8, 7], ml_dtypes.int4), "s": np.float32(0.5)}).values()
    assert list(result) == [-4, 3.5]
    module = external("Identity", 13, "bf16[4]", {}, ["h"])
    data = np.array([1, 2, 3, np.inf], ml_dtypes.bfloat16)
    assert next(iter(run(module, {"h": data}).values())).tobytes() == data.tobytes()
    module = external("Gelu", 1, "f32[*]", {}, ["x"], domain="com.microsoft")
    assert np.allclose(next(iter(run(module, {"x": x}).values()))[0, 1], 0.8413447)
    wide = next(iter(run(module, {"x": x}, precision="f64").values()))
    assert wide.dtype == np.float64
    empty_list = external("ReduceSum", 11, "f32[*]", {"axes": (), "keepdims": 0}, ["x"])
    assert float(next(iter(run(empty_list, {"x": x}).values()))) == 15
    assert code_of(lambda: run(external("NoSuchOp", 13, "f32[*]", {}, ["x"]), {"x": x})) == "run.extern"
    wrong = external("Identity", 13, "f32[2, 4]", {}, ["x"])
    assert code_of(lambda: run(wrong, {"x": x})) == "run.refine"


# -- precision, observing, folding -----------------------------------------------------------------------------


def test_f64_leaves_rounding_out() -> None:
    def main(x: Value, w: Value) -> Any:
        narrowed = cast(cast(x, to=static_type("bf16[]").dtype), to=x.dtype)
        return narrowed, matmul(x, w), cast(mul(x, 1.5), to=I64), softmax(x), iota(shape=(3,), axis=0, dtype=x.dtype)

    module = trace(main, "f16[2, 8]", "f16[8, 2]")
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(2, 8)).astype(np.float16), "w": rng.normal(size=(8, 2)).astype(np.float16)}
    narrowed, product, whole, probabilities, counted = run(module, inputs, precision="f64").values()
    x, w = (inputs[name].astype(np.float64) for name in "xw")
    assert np.array_equal(narrowed, x) and np.allclose(product, x @ w, rtol=1e-14)
    assert whole.dtype == np.int64 and np.array_equal(whole, np.trunc(x * 1.5))
    assert np.allclose(probabilities.sum(-1), 1, rtol=1e-15) and counted.dtype == np.float64
    declared = list(run(module, inputs).values())
    assert [array.dtype for array in declared] == [np.float16, np.float16, np.int64, np.float16, np.float16]


def test_bits_are_those_of_the_declared_type_in_f64_too() -> None:
    module = trace(lambda x: bitcast(abs_(x), to=static_type("i32[]").dtype), "f32[2]")
    for precision in ("declared", "f64"):
        (result,) = run(module, {"x": floats(-1, 0.1)}, precision=precision).values()  # type: ignore[arg-type]
        assert list(result) == list(floats(1, 0.1).view(np.int32))


def test_every_operation_of_the_module_is_observed() -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def observe(operation: Operation, results: Sequence[Any]) -> None:
        seen.append((operation.name, tuple(array.size for array in results)))

    run(trace(branching, "f32[S]"), {"x": floats(1, 2)}, observe=observe)
    assert seen == [("const", (1,)), ("reduce_sum", (1,)), ("less", (1,)), ("const", (1,)), ("mul", (2,)), ("if", (2,))]
    seen.clear()
    run(trace(lambda x: softmax(x), "f32[S]"), {"x": floats(1, 2)}, observe=observe)
    assert seen == [("softmax", (2,))], "the body of a named operation is not the module's"


def test_one_operation_is_evaluated_for_folding() -> None:
    module = trace(lambda x: reshape(softmax(x), shape=(x.shape[0], 1, 2)), "f32[S, 2]")
    size = module.main.arguments[0].type.symbols()[0]
    first, second, _ = module.main.block
    (probabilities,) = evaluate_operation(first, [np.zeros((3, 2), np.float32)], {size: 3})
    assert (probabilities == 0.5).all()
    (shaped,) = evaluate_operation(second, [probabilities], {size: 3})
    assert shaped.shape == (3, 1, 2)
    assert code_of(lambda: evaluate_operation(second, [probabilities])) == "dim.unbound"


def test_values_are_freed_after_their_last_use() -> None:
    def main(x: Value) -> Value:
        for _ in range(20):
            x = add(neg(x), 1.0)
        return x

    alive: list[weakref.ref[Any]] = []
    most = 0

    def observe(operation: Operation, results: Sequence[Any]) -> None:
        nonlocal most
        alive.extend(weakref.ref(array) for array in results if array.size > 1)
        most = max(most, sum(reference() is not None for reference in alive))

    gc.disable()  # nothing may depend on a collection
    try:
        run(trace(main, "f32[1000]"), {"x": np.zeros(1000, np.float32)}, observe=observe)
    finally:
        gc.enable()
    assert most <= 2


def test_the_overhead_is_linear() -> None:
    def chain(length: int) -> Callable[[], Any]:
        function = Function("main", [static_type("f32[4]")], ["x"])
        with Builder(function.block) as builder:
            value = function.arguments[0]
            for _ in range(length):
                value = builder.create(neg, [value]).results[0]
            builder.create(return_, [value])
        module = Module("chain", [function])
        return lambda: run(module, {"x": np.zeros(4, np.float32)})

    assert_linear_time(chain, 2_000, 20_000)


def test_philox_is_that_of_random123() -> None:
    """The known answers of the library of its authors; the operation has 0 in the counter's last word."""
    answers = {
        ((0,) * 4, (0,) * 2): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)):
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    }  # fmt: skip
    for (counter, key), expected in answers.items():
        words = philox_4x32(*([np.array(each, np.uint64) for each in part] for part in (counter, key)))
        assert tuple(map(int, words)) == expected
    module = trace(lambda seed, index: tuple(philox(seed, index, word=word) for word in range(4)), "i64[]", "i64[]")
    results = run(module, {"seed": np.array(0), "index": np.array(0)})
    assert tuple(map(int, results.values())) == answers[(0,) * 4, (0,) * 2]


def test_errors_name_the_operation_and_its_place() -> None:
    def main(x: Value) -> Value:
        with Builder(Builder.active().block, location=Location("gpt.py", 41, name="h.0")):
            return sub(x, expand(x, shape=(2, 3)))

    with pytest.raises(IrcError, match=r"run.shape[\s\S]*gpt.py:41 \(h.0\)"):
        run(trace(main, "f32[S]"), {"x": floats(1, 2)})
