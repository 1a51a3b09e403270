"""Slices taken before what computes on them: parts of operands, which regions are changed, and that results stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc import interpreter, ops
from irc.backends.onnx import Target
from irc.ir import Value
from irc.kernel_costs import Grid, find_costs
from irc.op import const, trace
from irc.pass_manager import PassContext
from irc.passes._parts import Part, operand_parts
from irc.passes.early_slices import EarlySlices
from irc.verifier import verify
from irc.weights import Tensor
from tests.onnx_models import model
from tests.test_onnx_rewrites import checked, random, with_weights


def sliced(x: Value, *bounds: tuple[Any, Any] | None, step: int = 1) -> Value:
    """x[a:b, ...]; None for a whole axis."""
    whole = [(0, extent) if each is None else each for each, extent in zip(bounds, x.shape, strict=True)]
    starts, stops = zip(*whole, strict=True)
    return ops.slice_(x, starts=starts, stops=stops, steps=(step,) * x.rank)


def constant(array: Any) -> Value:
    array = np.asarray(array)
    return const(value=Tensor.of(array, irc.dtypes.by_name({"f": "f32", "i": "i64"}[array.dtype.kind])))


def rewritten(program: Callable[..., Any], *types: str) -> tuple[irc.Module, irc.Module]:
    """A program before and after the pass, for no backend: wherever it can be applied."""
    module = trace(program, *types)
    after = module.clone()
    EarlySlices().run(after, PassContext())
    verify(after)
    return module, after


def check(program: Callable[..., Any], *shapes: tuple[int, ...], types: tuple[str, ...] = ()) -> Counter[str]:
    """The operations after the pass, whose results are those before it, for numbers and for NaN in some rows."""
    types = types or tuple(f"f32[{', '.join(map(str, shape))}]" for shape in shapes)
    before, after = rewritten(program, *types)
    for seed in range(2):
        arrays = [random(*shape, seed=seed) for shape in shapes]
        if seed and arrays[0].size:
            arrays[0].reshape(-1)[:: 7] = np.nan
        inputs = {argument.name: array for argument, array in zip(before.main.arguments, arrays, strict=True)}
        results = [list(interpreter.run(module, inputs).values()) for module in (after, before)]
        for actual, expected in zip(*results, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    return Counter(operation.name for operation in after.walk())


def narrow_results(program: Callable[..., Any], *types: str) -> list[str]:
    """The types of what products and attention compute after the pass."""
    _, after = rewritten(program, *types)
    return [str(each.result.type) for each in after.walk() if each.name in ("matmul", "linear", "gemm", "attention")]


# -- one operation -----------------------------------------------------------------------------------------------

ROWS = "f32[2, 6, 4]"
W, B, SHAPE = random(4, 8), random(8), (2, 6, 4)


@pytest.mark.parametrize(("compute", "cuts", "expected"), [
    (lambda x: ops.matmul(x, constant(W)), (None, (0, 1), None), ["f32[2, 1, 8]"]),
    (lambda x: ops.matmul(x, constant(W)), ((1, 2), (2, 5), (3, 7)), ["f32[1, 3, 4]"]),
    (lambda x: ops.linear(x, constant(W), constant(B)), (None, (5, 6), (0, 2)), ["f32[2, 1, 2]"]),
    (lambda x: ops.matmul(x, ops.transpose(x, permutation=(0, 2, 1))), (None, (1, 2), (2, 6)), ["f32[2, 1, 4]"]),
    (lambda x: ops.add(ops.matmul(x, constant(W)), constant(B)), (None, None, (4, 8)), ["f32[2, 6, 4]"]),
    (lambda x: ops.layer_norm(ops.matmul(x, constant(W)), constant(B), axis=-1), (None, (2, 3), None),
     ["f32[2, 1, 8]"]),
    (lambda x: ops.reshape(ops.matmul(x, constant(W)), shape=(2, 6, 2, 4)), (None, (1, 3), (1, 2), None),
     ["f32[2, 2, 4]"]),
    (lambda x: ops.reshape(ops.matmul(x, constant(W)), shape=(12, 8)), ((6, 12), None), ["f32[1, 6, 8]"]),
    (lambda x: ops.transpose(ops.matmul(x, constant(W)), permutation=(2, 0, 1)), ((0, 3), None, (0, 1)),
     ["f32[2, 1, 3]"]),
    (lambda x: ops.concat(ops.matmul(x, constant(W)), ops.matmul(x, constant(-W)), axis=-1), (None, (0, 1), None),
     ["f32[2, 1, 8]"] * 2),
    # What stays as it is:
    (lambda x: ops.reshape(ops.matmul(x, constant(W)), shape=(12, 8)), ((5, 9), None), ["f32[2, 6, 8]"]),
    (lambda x: ops.reshape(ops.matmul(x, constant(W)), shape=(2, 6, 2, 4)), (None, None, None, (0, 2)),
     ["f32[2, 6, 8]"]),
    (lambda x: ops.softmax(ops.matmul(x, constant(W)), axis=-1), (None, None, (0, 4)), ["f32[2, 6, 8]"]),
    (lambda x: ops.layer_norm(ops.matmul(x, constant(W)), axis=1), (None, (2, 3), None), ["f32[2, 6, 8]"]),
    (lambda x: ops.concat(ops.matmul(x, constant(W)), ops.matmul(x, constant(-W)), axis=1), (None, (0, 1), None),
     ["f32[2, 6, 8]"] * 2),
    (lambda x: ops.reverse(ops.matmul(x, constant(W)), axes=(1,)), (None, (0, 1), None), ["f32[2, 6, 8]"]),
])  # fmt: skip
def test_parts_of_results_are_computed_of_parts_of_operands(compute: Any, cuts: Any, expected: list[str]) -> None:
    def program(x: Value) -> Value:
        return sliced(compute(x), *cuts)

    check(program, SHAPE)
    assert narrow_results(program, ROWS) == expected


@pytest.mark.parametrize(("transpose_a", "transpose_b", "c"), [(False, False, (8,)), (True, True, (6, 8)),
                                                               (False, True, (6, 1)), (True, False, ())])  # fmt: skip
def test_parts_of_a_gemm(transpose_a: bool, transpose_b: bool, c: tuple[int, ...]) -> None:
    def program(a: Value, b: Value, c: Value) -> Value:
        return sliced(ops.gemm(a, b, c, transpose_a=transpose_a, transpose_b=transpose_b), (1, 3), (2, 7))

    shapes = (4, 6) if transpose_a else (6, 4), (8, 4) if transpose_b else (4, 8), c
    check(program, *shapes)
    assert narrow_results(program, *(f"f32[{', '.join(map(str, shape))}]" for shape in shapes)) == ["f32[2, 5]"]


@pytest.mark.parametrize(("mask", "causal", "is_cut"), [
    (None, False, True), ((6, 6), False, True), ((1, 6), False, True), ((2, 1, 6, 6), False, True), (None, True, False),
])  # fmt: skip
def test_queries_of_an_attention(mask: tuple[int, ...] | None, causal: bool, is_cut: bool) -> None:
    def program(q: Value, k: Value, v: Value, *masks: Value) -> Value:
        return sliced(ops.attention(q, k, v, *masks, causal=causal), None, None, (2, 3), None)

    shapes = [(2, 2, 6, 4)] * 3 + ([mask] if mask else [])
    check(program, *shapes)
    types = [f"f32[{', '.join(map(str, shape))}]" for shape in shapes]
    assert narrow_results(program, *types) == ["f32[2, 2, 1, 4]" if is_cut else "f32[2, 2, 6, 4]"]


@pytest.mark.parametrize(("index", "rank"), [(0, 0), (-1, 0), (2, 1)])
def test_elements_at_a_constant_position_are_slices(index: int, rank: int) -> None:
    def program(x: Value) -> Value:
        return ops.gather(ops.matmul(x, constant(W)), constant(np.full((1,) * rank, index)), axis=1)

    assert check(program, SHAPE)["gather"] == 0
    assert narrow_results(program, ROWS) == ["f32[2, 1, 8]"]


def test_positions_from_the_end_of_a_symbolic_axis() -> None:
    def program(x: Value) -> Value:
        return ops.gather(ops.matmul(x, constant(W)), constant(np.array(-1)), axis=1)

    assert narrow_results(program, "f32[B, S, 4]") == ["f32[B, S, 8]"]  # S may be 0
    assert narrow_results(program, "f32[B, S + 1, 4]") == ["f32[B, 1, 8]"]
    check(program, (3, 5, 4), types=("f32[B, S + 1, 4]",))


# -- several readers ---------------------------------------------------------------------------------------------


def test_a_split_product_has_a_product_for_each_part() -> None:
    def program(x: Value) -> Any:
        return ops.split(ops.linear(x, constant(W), constant(B)), axis=-1, sizes=(3, 1, 4))

    assert check(program, SHAPE)["split"] == 0
    assert narrow_results(program, ROWS) == ["f32[2, 6, 3]", "f32[2, 6, 1]", "f32[2, 6, 4]"]


@pytest.mark.parametrize("second", [(0, 1), (3, 6), (1, 5), (0, 6)])
def test_readers_of_parts_that_overlap_share_the_whole(second: tuple[int, int]) -> None:
    def program(x: Value) -> tuple[Value, Value]:
        product = ops.matmul(x, constant(W))
        return sliced(product, None, (0, 3), None), sliced(product, None, second, None)

    check(program, SHAPE)
    is_cut = second == (3, 6)
    assert narrow_results(program, ROWS) == (["f32[2, 3, 8]"] * 2 if is_cut else ["f32[2, 6, 8]"])


@pytest.mark.parametrize("reader", [lambda p: p, lambda p: ops.reduce_sum(p, axes=(1,)), ops.relu])
def test_a_reader_of_the_whole_keeps_it(reader: Callable[[Value], Value]) -> None:
    def program(x: Value) -> tuple[Value, Value]:
        product = ops.matmul(x, constant(W))
        return sliced(product, None, (0, 1), None), reader(product)

    check(program, SHAPE)
    assert narrow_results(program, ROWS) == ["f32[2, 6, 8]"]


def test_steps_stay() -> None:
    def program(x: Value) -> Value:
        return sliced(ops.matmul(x, constant(W)), None, (0, 6), None, step=2)

    check(program, SHAPE)
    assert narrow_results(program, ROWS) == ["f32[2, 6, 8]"]


def test_slices_of_slices_are_one() -> None:
    def program(x: Value) -> Value:
        outer = ops.relu(sliced(ops.matmul(x, constant(W)), None, (1, 5), (2, 8)))
        return sliced(ops.matmul(outer, constant(W[:, :6].T.copy())), None, (1, 2), None)

    assert check(program, SHAPE)["slice"] == 2  # of x, and of the weight
    assert narrow_results(program, ROWS) == ["f32[2, 1, 6]", "f32[2, 1, 4]"]


@pytest.mark.parametrize("take", [lambda part: sliced(part, None, (0, 1), None),
                                  lambda part: ops.gather(part, constant(np.int64(1)), axis=1),
                                  lambda part: sliced(sliced(part, None, (0, 2), None), None, None, (1, 2))])
def test_parts_of_parts_leave_nothing_of_the_whole(take: Callable[[Value], Value]) -> None:
    """Of a split of which one part is read in parts: the whole is not computed beside them, and a second run of the
    pass changes nothing."""

    def program(x: Value) -> tuple[Value, Value]:
        first, second = ops.split(ops.matmul(x, constant(W)), axis=-1, sizes=(3, 5))
        return ops.relu(first), ops.relu(take(second))

    assert check(program, SHAPE)["split"] == 0
    assert len(narrow_results(program, ROWS)) == 2
    assert not EarlySlices().run(rewritten(program, ROWS)[1], PassContext())


def test_random_programs_compute_the_same() -> None:
    """Chains of operations and slices with several readers, over random shapes."""
    for seed in range(60):
        generator = np.random.default_rng(seed)

        def program(x: Value, generator: Any = generator) -> tuple[Value, ...]:
            values = [x]
            for _ in range(8):
                values.append(random_step(values[-1 - generator.integers(min(2, len(values)))], generator))
            return values[-1], values[-2]

        shape = tuple(int(each) for each in generator.integers(1, 5, generator.integers(2, 5)))
        check(program, shape)


def random_step(value: Value, generator: Any) -> Value:
    """An operation on a value, or a part of it."""
    shape = [int(extent) for extent in value.shape if isinstance(extent, int)]
    choice = generator.integers(9)
    if choice == 0 and value.rank > 1:
        return ops.matmul(value, constant(random(shape[-1], int(generator.integers(1, 5)))))
    if choice == 1:
        return ops.transpose(value, permutation=tuple(int(axis) for axis in generator.permutation(value.rank)))
    if choice == 2:
        axis = int(generator.integers(value.rank))
        merged = [*shape[:axis], int(np.prod(shape[axis : axis + 2])), *shape[axis + 2 :]]
        return ops.reshape(value, shape=tuple(merged))
    if choice == 3:
        return ops.softmax(value, axis=-1)
    if choice == 4:
        return ops.add(value, constant(random(shape[-1])))
    if choice == 5:
        return ops.gelu(value)
    if choice == 6:
        scale = [extent if generator.random() < 0.5 else 1 for extent in shape]
        return ops.rms_norm(value, constant(random(*scale)))
    bounds = [sorted(int(each) for each in generator.integers(0, extent + 1, 2)) for extent in shape]
    is_emptied = generator.random() < 0.1
    return sliced(value, *((low, high) if high > low or is_emptied else None for low, high in bounds))


# -- models for ONNX Runtime -------------------------------------------------------------------------------------


def block(last: str, tokens: int | str = 24) -> onnx.ModelProto:
    """An encoder as timm has it, with one product for queries, keys and values; `last` reads its result z."""
    text = f"""(float[1,{tokens},64] x) => (y) {{
        n = LayerNormalization<axis=-1>(x, g, g) m = MatMul(n, w) a = Add(m, b) r = Reshape(a, heads)
        t = Transpose<perm=[2,0,3,1,4]>(r) q = Gather<axis=0>(t, zero) k = Gather<axis=0>(t, one)
        v = Gather<axis=0>(t, two) kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) u = Mul(s, scale)
        e = Softmax<axis=-1>(u) o = MatMul(e, v) p = Transpose<perm=[0,2,1,3]>(o) c = Reshape(p, whole)
        d = MatMul(c, wo) h = Add(x, d) i = LayerNormalization<axis=-1>(h, g, g) j = MatMul(i, w1) l = Gelu(j)
        f = MatMul(l, w2) z = Add(h, f) {last} }}"""
    length = tokens if isinstance(tokens, int) else 0
    return with_weights(model(text, 21), w=random(64, 192) / 8, b=random(192), wo=random(64, 64) / 8, g=random(64),
                        w1=random(64, 256) / 8, w2=random(256, 64) / 16, heads=np.array([1, length or -1, 3, 4, 16]),
                        whole=np.array([1, length or -1, 64]), scale=np.float32(0.25), zero=np.int64(0),
                        one=np.int64(1), two=np.int64(2), last=np.int64(-1), ends=np.array([1]),
                        starts=np.array([0]), axes=np.array([1]))  # fmt: skip


@pytest.mark.parametrize("last", ["y = Gather<axis=1>(z, zero)", "y = Gather<axis=1>(z, last)",
                                  "t0 = Slice(z, starts, ends, axes) y = Squeeze(t0, axes)"])  # fmt: skip
def test_the_last_block_is_computed_for_the_token_that_is_read(last: str) -> None:
    operators = checked(block(last), {"x": random(1, 24, 64)})
    assert operators["Attention"] == 1 and operators["Transpose"] == operators["Split"] == 0
    x = random(1, 24, 64)
    x[0, 5] = np.nan
    checked(block(last), {"x": x})


@pytest.mark.parametrize(("tokens", "length"), [(64, 64), ("S", 24), ("S", 1)])
def test_products_are_taken_apart_for_attention(tokens: int | str, length: int) -> None:
    operators = checked(block("y = Identity(z)", tokens), {"x": random(1, length, 64)})
    assert operators["Attention"] == 1 and operators["Transpose"] == operators["Slice"] == operators["Split"] == 0


def test_a_portable_model_keeps_its_slices() -> None:
    operators = checked(block("y = Gather<axis=1>(z, zero)"), {"x": random(1, 24, 64)}, "portable")
    assert operators["MatMul"] == 6


@pytest.mark.parametrize(("end", "is_cut"), [(60, False), (2, True)])
def test_a_sum_is_cut_where_that_takes_less_time_than_two_slices(end: int, is_cut: bool) -> None:
    proto = with_weights(model("(float[64,512] x, float[64,512] z) => (y) { s = Add(x, z) y = Slice(s, start, end) }"),
                         start=np.array([0]), end=np.array([end]))  # fmt: skip
    operators = checked(proto, {"x": random(64, 512), "z": random(64, 512, seed=1)})
    assert operators == Counter({"Add": 1, "Slice": 2 if is_cut else 1})


def test_parts_are_those_of_axes() -> None:
    module = trace(lambda x: ops.reshape(x, shape=(2, 3, 1, 4)), "f32[2, 12]")
    (operation,) = (each for each in module.walk() if each.name == "reshape")
    part: Part = (None, (1, 3), None, None)
    assert operand_parts(operation, part) == [(None, (4, 12))]
    assert operand_parts(operation, (None, None, None, (0, 1))) is None


def test_the_table_decides() -> None:
    """Where a slice took as long as a second, nothing is cut."""
    table = find_costs()
    slow = replace(table, kernels={**table.kernels, "Slice": Grid({"rows": (1,), "width": (1,)}, (1.0,))})
    square = random(64, 64)
    module = trace(lambda x, z: sliced(ops.matmul(ops.add(x, z), constant(square)), (0, 1), None), *["f32[64, 64]"] * 2)
    for costs, expected in ((table, "f32[1, 64]"), (slow, "f32[64, 64]")):
        after = module.clone()
        EarlySlices().run(after, PassContext(target=Target("cpu", costs=costs)))
        assert [str(each.result.type) for each in after.walk() if each.name == "matmul"] == [expected]


def test_moved_elements_alone_stay() -> None:
    """A roll over two axes is two concatenations of slices, which would become three."""
    def rolled(x: Value) -> Value:
        x = ops.concat(sliced(x, (2, 6), None), sliced(x, (0, 2), None), axis=0)
        return ops.concat(sliced(x, None, (1, 4)), sliced(x, None, (0, 1)), axis=1)

    assert check(rolled, (6, 4))["concat"] == 2
