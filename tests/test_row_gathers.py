"""Moves of whole rows that become one gather: what is matched, what stays, and that results are equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from irc import interpreter, ops
from irc.ir import Value
from irc.op import trace
from irc.parser import parse
from irc.pass_manager import PassContext
from irc.passes.row_gathers import RowGathers
from irc.verifier import verify
from tests.onnx_models import model
from tests.test_early_slices import sliced
from tests.test_onnx_rewrites import checked, random, with_weights


def operations(program: Callable[..., Any], *types: str) -> Counter[str]:
    """The operations after the pass, for no backend; on random numbers the results are those before it, bit by bit."""
    before = trace(program, *types)
    after = before.clone()
    RowGathers().run(after, PassContext())
    verify(after)
    inputs = {argument.name: np.arange(argument.type.elements).reshape(argument.type.static_shape()).astype(np.float32)
              for argument in before.main.arguments if argument.type.is_static}  # fmt: skip
    if len(inputs) == len(types):
        results = [interpreter.run(each, inputs).values() for each in (after, before)]
        for actual, expected in zip(*results, strict=True):
            np.testing.assert_array_equal(actual, expected)
    names = ("gather", "concat", "slice", "split", "transpose")
    return Counter(each.name for each in after.walk() if each.name in names)


def rolled(x: Value, axis: int, shift: int) -> Value:
    parts: list[list[tuple[Any, Any] | None]] = [[None] * x.rank, [None] * x.rank]
    parts[0][axis], parts[1][axis] = (shift, x.shape[axis]), (0, shift)
    return ops.concat(*(sliced(x, *part) for part in parts), axis=axis)


def windows(x: Value, size: int) -> Value:
    """[B, H, W, C] as [windows, size * size, C]."""
    batch, height, width, channels = x.type.static_shape()
    apart = ops.reshape(x, shape=(batch, height // size, size, width // size, size, channels))
    shape = (batch * height * width // size**2, size**2, channels)
    return ops.reshape(ops.transpose(apart, permutation=(0, 1, 3, 2, 4, 5)), shape=shape)


def merged(x: Value) -> Value:
    """[B, H, W, C] as [B, H/2, W/2, 3 C]."""
    corners = (ops.slice_(x, starts=(0, *corner, 0), stops=x.shape, steps=(1, 2, 2, 1))
               for corner in ((0, 0), (1, 0), (0, 1)))  # fmt: skip
    return ops.concat(*corners, axis=-1)


@pytest.mark.parametrize("program", [
    lambda x: ops.relu(windows(rolled(rolled(x, 1, 2), 2, 1), 2)),
    lambda x: ops.relu(rolled(rolled(x, 2, 3), 1, 1)),
    lambda x: ops.relu(merged(x)),
    lambda x: ops.relu(ops.reshape(merged(x), shape=(2, 6, 9))),
    lambda x: ops.relu(ops.concat(*ops.split(x, axis=1, sizes=(1, 3))[::-1], axis=1)),
    lambda x: ops.relu(ops.concat(sliced(x, None, (0, 2), None, None), x, axis=1)),  # rows twice
    lambda x: ops.relu(ops.transpose(sliced(x, None, (1, 3), None, None), permutation=(2, 1, 0, 3))),
])  # fmt: skip
def test_rows_are_gathered_once(program: Callable[[Value], Value]) -> None:
    assert operations(program, "f32[2, 4, 6, 3]") == Counter({"gather": 1})


@pytest.mark.parametrize("program", [
    lambda x: ops.relu(ops.transpose(x, permutation=(0, 2, 1, 3))),  # one move
    lambda x: ops.relu(ops.transpose(rolled(x, 1, 2), permutation=(0, 1, 3, 2))),  # elements of rows move apart
    lambda x: ops.relu(rolled(rolled(x, 3, 1), 1, 1)),
    lambda x: ops.relu(ops.concat(ops.relu(sliced(x, None, (1, 4), None, None)), x, axis=1)),  # of two values
    lambda x: ops.relu(ops.transpose(ops.reshape(rolled(x, 1, 1), shape=(2, 4, 18)), permutation=(1, 0, 2))),
    lambda x: ops.relu(ops.reshape(ops.transpose(ops.transpose(x, permutation=(1, 0, 2, 3)), permutation=(1, 0, 2, 3)),
                                   shape=(8, 6, 3))),  # nothing moves
])  # fmt: skip
def test_other_moves_stay(program: Callable[[Value], Value]) -> None:
    assert operations(program, "f32[2, 4, 6, 3]")["gather"] == 0


def test_moves_that_something_else_reads_stay() -> None:
    def program(x: Value) -> tuple[Value, Value]:
        first = rolled(x, 1, 2)
        return ops.relu(first), ops.relu(rolled(first, 2, 1))

    assert operations(program, "f32[2, 4, 6, 3]") == Counter({"gather": 2})  # each roll on its side of that reader


@pytest.mark.parametrize("types", ["f32[B, 4, 6, 3]", "f32[0, 4, 6, 3]", "f32[2, 4, 6, 0]"])
def test_shapes_that_are_not_known_or_empty_stay(types: str) -> None:
    assert operations(lambda x: ops.relu(rolled(rolled(x, 1, 2), 2, 1)), types)["gather"] == 0


@pytest.mark.parametrize("program", [
    lambda x: ops.relu(rolled(rolled(x, 1, 2), 2, 1)),
    lambda x: ops.relu(sliced(rolled(rolled(x, 1, 2), 2, 1), (0, 1), (0, 1), (0, 6), None)),  # few rows of many
])  # fmt: skip
def test_numbers_of_very_many_rows_are_not_computed(program: Callable[[Value], Value]) -> None:
    module = trace(program, f"f32[{1 << 20}, {1 << 20}, 6, 3]")
    assert not RowGathers().run(module, PassContext())


def test_places_that_a_run_computes_stay() -> None:
    module = parse("""irc text 1
module @m {
  func @main(%x: f32[2, 4, 6, 3], %place: i64[]) -> (y: f32[1, 2, 6, 3]) {
    bind %place {symbol = ?u in (0, 3)}
    %row = slice %x {starts = [0, u, 0, 0], stops = [2, u + 1, 6, 3], steps = [1, 1, 1, 1]} : f32[2, 1, 6, 3]
    %turned = transpose %row {permutation = [1, 0, 2, 3]} : f32[1, 2, 6, 3]
    %y = relu %turned : f32[1, 2, 6, 3]
    return %y
  }
}
""")
    assert not RowGathers().run(module, PassContext())


def test_random_moves() -> None:
    for seed in range(80):
        generator = np.random.default_rng(seed)

        def program(x: Value, generator: Any = generator) -> Value:
            for _ in range(int(generator.integers(2, 7))):
                x = random_move(x, generator)
            return ops.relu(x)

        shape = [int(each) for each in generator.integers(1, 5, generator.integers(2, 5))]
        operations(program, f"f32[{', '.join(map(str, shape))}]")


def random_move(x: Value, generator: Any) -> Value:
    axis, choice = int(generator.integers(x.rank)), generator.integers(5)
    extent = x.shape[axis]
    assert isinstance(extent, int)
    if choice == 0 and extent > 1:
        return rolled(x, axis, int(generator.integers(1, extent)))
    if choice == 1:
        return ops.transpose(x, permutation=(*(int(each) for each in generator.permutation(x.rank - 1)), x.rank - 1))
    if choice == 2 and axis + 1 < x.rank:
        inner = x.shape[axis + 1]
        assert isinstance(inner, int)
        return ops.reshape(x, shape=(*x.shape[:axis], extent * inner, *x.shape[axis + 2 :]))
    if choice == 3:
        return ops.concat(x, x, axis=axis)
    bounds: list[tuple[Any, Any] | None] = [None] * x.rank
    bounds[axis] = (int(generator.integers(extent)), extent)
    return sliced(x, *bounds)


# -- models for ONNX Runtime -------------------------------------------------------------------------------------


def shifted(batch: int | str = 1, element: str = "float") -> onnx.ModelProto:
    """As PyTorch exports the roll and the windows of a shifted block of Swin, before and after a product."""
    text = f"""({element}[{batch},8,8,96] x) => (y) {{
        a = Slice(x, three, last, one) b = Slice(x, zero, three, one) c = Concat<axis=1>(a, b)
        d = Slice(c, three, last, two) e = Slice(c, zero, three, two) f = Concat<axis=2>(d, e)
        g = Reshape(f, apart) h = Transpose<perm=[0,1,3,2,4,5]>(g) i = Reshape(h, rows) y = MatMul(i, w) }}"""
    size = batch if isinstance(batch, int) else -1
    return with_weights(model(text, 21), w=random(96, 16), zero=np.array([0]), one=np.array([1]), two=np.array([2]),
                        three=np.array([3]), last=np.array([8]), apart=np.array([size, 2, 4, 2, 4, 96]),
                        rows=np.array([-1, 16, 96]))  # fmt: skip


def test_a_shifted_window_is_a_gather() -> None:
    x = random(1, 8, 8, 96)
    x[0, 0, 0] = np.nan
    operators = checked(shifted(), {"x": x})
    assert operators["Gather"] == 1 and not operators.keys() & {"Slice", "Concat", "Transpose"}
    assert checked(shifted(), {"x": x}, "portable")["Gather"] == 0
    assert checked(shifted("B"), {"x": random(2, 8, 8, 96)})["Gather"] == 0


@pytest.mark.parametrize(("element", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_floats(element: str, dtype: Any) -> None:
    proto = shifted(element=element)
    for tensor in proto.graph.initializer:
        if tensor.name == "w":
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(dtype), "w"))
    assert checked(proto, {"x": random(1, 8, 8, 96).astype(dtype)})["Gather"] == 1
