"""Named dims that are 0: an empty cache is the first step of every decoder. Every path gives what the source gives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("triton")

from torch_edge_cases import OF_NOTHING

import irc
from irc import dims, interpreter, ops
from irc.backends.onnx import emit
from irc.backends.onnx.reduction import NAMED, PRIMITIVES
from irc.diagnostics import IrcError
from irc.driver.models import Settings, find_backend
from irc.driver.optimizing import run_pipeline
from irc.driver.running import run_onnx, run_triton
from irc.dtypes import by_name
from irc.frontends.onnx import from_model
from irc.ir import Value
from irc.kernel.derivation import derive
from irc.kernel.traffic import count
from irc.module import Module
from irc.parser import parse
from irc.shape_analysis import ShapeAnalysis
from tests import triton_harness as harness
from tests.fuzz.running import KINDS, Job, commands, program_of, run_job
from tests.fuzz.triton_path import Artefact, merged
from tests.onnx_models import NO_FOLDER, check_close, imported, in_filled_memory, in_runtime, model, operations


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ramp(*shape: int) -> np.ndarray:
    return np.linspace(-1, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def on_every_path(module: Module, inputs: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The outputs of the interpreter and of both backends."""
    compiled = {name: irc.opt(module.clone(), find_backend(name).PIPELINE, backend=name) for name in ("onnx", "triton")}
    return {"interpreter": list(interpreter.run(module, inputs).values()),
            "onnx": list(run_onnx(compiled["onnx"], inputs).values()),
            "triton": list(run_triton(compiled["triton"], inputs)[0].values())}  # fmt: skip


def check_model(proto: onnx.ModelProto, *feeds: dict[str, np.ndarray]) -> Module:
    module = from_model(proto, NO_FOLDER)
    for feed in feeds:
        expected = in_runtime(proto, feed)
        for outputs in on_every_path(module, feed).values():
            for output, value in zip(outputs, expected, strict=True):
                check_close(output, value)
    return module


# -- models ---------------------------------------------------------------------------------------------------------


def test_a_decoder_step_with_an_empty_cache() -> None:
    graph = """(float[B, S, 8] x, float[B, 2, P, 4] past) => (y, present)
        <int64[4] heads = {0, 0, 2, 4}, int64[3] whole = {0, 0, -1}, float scale = {0.5}> {
        apart = Reshape(x, heads)
        own = Transpose <perm = [0, 2, 1, 3]> (apart)
        present = Concat <axis = 2> (past, own)
        turned = Transpose <perm = [0, 1, 3, 2]> (present)
        scores = MatMul(own, turned)
        scaled = Mul(scores, scale)
        weights = Softmax <axis = -1> (scaled)
        mixed = MatMul(weights, present)
        back = Transpose <perm = [0, 2, 1, 3]> (mixed)
        y = Reshape(back, whole) }"""
    module = check_model(model(graph), *({"x": ramp(batch, 3, 8), "past": ramp(batch, 2, past, 4)}
                                         for batch, past in ((1, 5), (2, 0), (1, 0))))  # fmt: skip
    assert [(symbol.low, symbol.high) for symbol in module.main.symbols.values()] == [(0, 10**9)] * 3
    assert "<B, S, P>" in str(module)  # [0, 10^9] is what is not written


VIEWS = {
    "a transpose of an extent of 1": "(float[1, H, P] x) => (y) { y = Transpose <perm = [1, 0, 2]> (x) }",
    "flattened after": "(float[A, H, P] x) => (y) { y = Flatten <axis = 1> (x) }",
    "flattened in front": "(float[A, H, P] x) => (y) { y = Flatten <axis = 2> (x) }",
    "flattened and squeezed": "(float[A, 1, H, P] x) => (y) <int64[1] one = {1}> {"
                              " z = Squeeze(x, one) y = Flatten <axis = 1> (z) }",
    "the last two are one": "(float[A, H, P] x) => (y) <int64[2] last = {1, 2}, int64[1] front = {1},"
                            " int64[1] start = {0}> { s = Shape(x) a = Slice(s, start, front)"
                            " both = Shape <start = 1> (x) product = ReduceProd <axes = [0]> (both)"
                            " shape = Concat <axis = 0> (a, product) y = Reshape <allowzero = 1> (x, shape) }",
    "sums over what may be empty": "(float[A, H, P] x) => (y, z) <int64[1] last = {2}> { y = ReduceSum <keepdims = 0>"
                                   " (x, last) z = ReduceMax <keepdims = 1, axes = [1]> (x) }",
    "a product over nothing": "(float[A, P] x) => (y) { t = Transpose <perm = [1, 0]> (x) y = MatMul(t, x) }",
    "softmax, its greatest and the place": "(float[A, P] x) => (y, z) { y = Softmax <axis = -1> (x)"
                                           " z = Hardmax <axis = 1> (x) }",
    "padded, cut and joined": "(float[A, P] x) => (y, z) <int64[4] pads = {0, 1, 0, 1}, int64[1] one = {1},"
                              " int64[1] end = {9}> { y = Pad(x, pads) c = Slice(x, one, end, one)"
                              " z = Concat <axis = 1> (x, c) }",
    "of no element several": "(float[P] x) => (y) <int64[1] none = {0}> { y = Tile(x, none) }",
    "ones of x's shape": "(float[A, P] x) => (y) { s = Shape(x) y = ConstantOfShape(s) }",
    "x//x": "(float[A, P] x) => (y) <int64[1] zero = {0}, int64[1] one = {1}> { s = Shape(x)"
            " p = Slice(s, one, one) a = Slice(s, zero, one) y = ConstantOfShape(s) }",
}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_views_and_reductions_of_nothing(name: str) -> None:
    proto = model(VIEWS[name])
    rank = len(proto.graph.input[0].type.tensor_type.shape.dim)
    shapes = {4: ((2, 1, 3, 4), (0, 1, 3, 4), (2, 1, 0, 4)), 3: ((2, 3, 4), (0, 3, 4), (2, 0, 4), (2, 3, 0)),
              2: ((2, 3), (0, 3), (2, 0), (0, 0)), 1: ((3,), (0,))}[rank]  # fmt: skip
    first = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    check_model(proto, *({"x": ramp(*((first,) if first else shape[:1]), *shape[1:])} for shape in shapes))


@pytest.mark.parametrize("op_type", [*PRIMITIVES.values(), *NAMED.values(), "ArgMax", "ArgMin"])
def test_axes_counted_from_the_back(op_type: str) -> None:
    """Along these ONNX Runtime reduces no empty tensor; along axes counted from the front it does."""
    is_place = op_type.startswith("Arg")

    def reduced(axis: int, dtype: str) -> onnx.ModelProto:
        attributes, operand = (f"axis = {axis}, ", "") if is_place else ("", ", axes")
        return model(f"({dtype}[A, B, C] x) => (y, z) <int64[1] axes = {{{axis}}}> {{"
                     f" y = {op_type} <{attributes}keepdims = 0> (x{operand})"
                     f" z = {op_type} <{attributes}keepdims = 1> (x{operand}) }}", 20)  # fmt: skip

    for dtype, numpy_dtype in (("float", np.float32), ("int32", np.int32)):
        if dtype == "int32" and op_type in NAMED.values():
            continue
        for axis in (1, 2):
            other = emit(from_model(reduced(axis - 3, dtype), NO_FOLDER))
            for shape in ((2, 3, 4), (2, 3, 0), (2, 0, 4), (0, 3, 4)):
                if not (is_place and shape[axis] == 0):
                    x = np.ones(shape, numpy_dtype)
                    for output, expected in zip(in_runtime(other, {"x": x}), in_runtime(reduced(axis, dtype), {"x": x}),
                                                strict=True):  # fmt: skip
                        check_close(output, expected)


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((4,), {"strides": [2]}),
        ((5,), {"pads": [1, 1]}),
        ((2, 3), {}),
        ((2, 3), {"dilations": [2, 1], "strides": [1, 2], "group": 2}),
        ((2, 2, 2), {}),
    ],
)
def test_a_transposed_convolution_of_nothing_is_its_bias(kernel: tuple[int, ...], attributes: dict[str, Any]) -> None:
    rank = len(kernel)
    values = {"w": ramp(2, 3, *kernel), "b": ramp(3 * attributes.get("group", 1))}
    proto = of_transposed(values, rank, **attributes)
    module = from_model(proto, NO_FOLDER)
    strides, spread = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    less = sum(attributes.get("pads", [0])) - 1
    for sizes in ((1, *[0] * rank), (2, 0, *[3] * (rank - 1)), (1, *[2] * (rank - 1), 0), (0, *[2] * rank)):
        axes = zip(sizes[1:], strides, spread, kernel, strict=True)
        extents = [step * (size - 1) + dilation * (window - 1) - less for size, step, dilation, window in axes]
        expected = np.broadcast_to(values["b"].reshape(1, -1, *[1] * rank), (sizes[0], len(values["b"]), *extents))
        for outputs in on_every_path(module, {"x": ramp(sizes[0], 2, *sizes[1:])}).values():
            check_close(outputs[0], expected)
    short = from_model(of_transposed({"w": ramp(2, 3, 1)}, 1, strides=[2]), NO_FOLDER)
    with pytest.raises(IrcError, match=r"has the shape \[1, 3, -1\]"):
        interpreter.run(short, {"x": zeros(1, 2, 0)})


def of_transposed(values: Mapping[str, np.ndarray], rank: int, **attributes: Any) -> onnx.ModelProto:
    node = onnx.helper.make_node("ConvTranspose", ["x", *values], ["y"], **attributes)
    shape = ["N", 2, *(f"S{axis}" for axis in range(rank))]
    graph = onnx.helper.make_graph(
        [node], "g", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * (rank + 2))],
        [onnx.numpy_helper.from_array(array, name) for name, array in values.items()],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("graph", "shapes", "expected"), [
    ("(float[3, K] a, float[K, 2] b, float[2] c) => (y) { y = Gemm <alpha = 2.0, beta = 0.5> (a, b, c) }",
     [(3, 0), (0, 2), (2,)], 0.5),
    ("(float[0, 3] a, float[2, 0] b, float[3, 1] c) => (y) { y = Gemm <beta = 3.0, transA = 1, transB = 1> (a, b, c) }",
     [(0, 3), (2, 0), (3, 1)], 3.0),
    ("(uint8[3, 0] a, uint8[0, 2] b) => (y) { y = MatMulInteger(a, b) }", [(3, 0), (0, 2)], 0),
    ("(float[1, 0, 5] a, float[2, 0, 3] b) => (y) { y = Conv(a, b) }", [(1, 0, 5), (2, 0, 3)], 0),
])  # fmt: skip
def test_products_over_nothing(graph: str, shapes: list[tuple[int, ...]], expected: float) -> None:
    """ONNX Runtime forgets beta there, or leaves memory as it is, so that numbers stand for its answer."""
    module = from_model(model(graph), NO_FOLDER)
    arguments = module.main.arguments
    feed = {x.name: np.ones(shape, x.dtype.numpy) for x, shape in zip(arguments, shapes, strict=True)}
    rubbish = [np.full(6, 7.25, np.float32) for _ in range(64)]
    del rubbish
    for outputs in on_every_path(module, feed).values():
        assert outputs[0].size == 6 and (outputs[0] == expected).all()


OF_EMPTY_SUMS: list[tuple[str, list[tuple[int, ...]]]] = [
    ("(float[M, K] a, float[K] b) => (y) { y = MatMul(a, b) }", [(3, 0), (0,)]),
    ("(float16[K] a, float16[B, K, N] b) => (y) { y = MatMul(a, b) }", [(0,), (2, 0, 3)]),
    ("(double[M, K] a, double[B, K, N] b) => (y) { y = MatMul(a, b) }", [(3, 0), (2, 0, 3)]),
    ("(float[B, 1, M, K] a, float[C, K, N] b) => (y) { y = MatMul(a, b) }", [(2, 1, 3, 0), (2, 0, 3)]),
    ("(float[1, M, K] a, float[B, K, N] b) => (y) { y = MatMul(a, b) }", [(1, 3, 0), (2, 0, 3)]),
    ("(float[2, M, K] a, float[1, 2, K, N] b) => (y) { y = MatMul(a, b) }", [(2, 3, 0), (1, 2, 0, 3)]),
    ("(float[B, K, M] a, float[B, K, N] b) => (y) { t = Transpose <perm = [0, 2, 1]> (a) y = MatMul(t, b) }",
     [(2, 0, 3), (2, 0, 3)]),
    ("(float[B, M, K] a, float[B, N, K] b) => (y) { t = Transpose <perm = [0, 2, 1]> (b) y = MatMul(a, t) }",
     [(2, 3, 0), (2, 3, 0)]),
    ("(float[M, B, K] a, float[B, K, N] b) => (y) { t = Transpose <perm = [1, 0, 2]> (a) y = MatMul(t, b) }",
     [(3, 2, 0), (2, 0, 3)]),
    ("(float[B, M, K] a, float[N, K] b) => (y) { t = Transpose(b) y = MatMul(a, t) }", [(2, 3, 0), (3, 0)]),
    ("(uint8[M, K] a, int8[K, N] b, uint8 z) => (y) { y = MatMulInteger(a, b, z) }", [(3, 0), (0, 2), ()]),
    ("(int8[B, M, K] a, int8[K, N] b) => (y) { y = MatMulInteger(a, b) }", [(2, 3, 0), (0, 2)]),
    ("(float[M, K] a, float[K, N] b) => (y) { y = Einsum <equation = \"ij,jk->ki\"> (a, b) }", [(3, 0), (0, 2)]),
    *((f"(float[B, C, S, S] a, float[N, C, 3, 3] b{', float[N] c' * biased}) => (y) "
       f"{{ y = Conv <{attributes}> (a, b{', c' * biased}) }}", [(1, 0, 5, 5), (2, 0, 3, 3), *[(2,)] * biased])
      for attributes in ("pads = [0, 0, 0, 0]", "pads = [1, 1, 1, 1]", 'auto_pad = "SAME_UPPER"', "strides = [2, 2]")
      for biased in (False, True)),
]  # fmt: skip


@pytest.mark.parametrize("edge_cases", ["onnx", "defined"])
@pytest.mark.parametrize(("graph", "shapes"), OF_EMPTY_SUMS)
def test_all_of_an_empty_sum_is_written(graph: str, shapes: list[tuple[int, ...]], edge_cases: Any) -> None:
    """Where ONNX Runtime's operators leave memory as it is, or, of convolutions with padding, do not end."""
    module = from_model(model(graph), NO_FOLDER)
    module.edge_cases = edge_cases
    feed = {x.name: np.ones(shape, x.dtype.numpy) for x, shape in zip(module.main.arguments, shapes, strict=True)}
    (expected,) = interpreter.run(module, feed).values()
    assert expected.size and (expected == (1 if len(shapes) == 3 and len(shapes[2]) else 0)).all()
    backend = find_backend("onnx")
    for target in backend.TARGETS:
        compiled, _ = run_pipeline(module.clone(), backend.PIPELINE, "onnx", Settings(target=target))
        (actual,) = in_filled_memory(backend.emit(compiled, target=backend.Target(target)), feed)
        np.testing.assert_array_equal(actual, expected, strict=True)


def test_what_the_source_leaves_to_be_inferred_stays_so() -> None:
    """A -1 that ONNX Runtime rejects beside a 0 is one node there and back; elsewhere no -1 is made of sizes."""
    graph = "(float[B, 4, H, W] x) => (y) <int64[3] shape = {0, 2, -1}> { y = Reshape(x, shape) }"
    module = imported(graph)
    assert module.main.returned[0].operation.attributes["inferred"] == 2  # type: ignore[union-attr]
    assert [node.op_type for node in emit(module).graph.node] == ["Reshape"]
    assert "inferred = 2" in str(module) and parse(str(module)) == module
    stated = imported("(float[B, 4, H, W] x, float[B, 2, N] like) => (y) {"
                      " shape = Shape(like) y = Reshape <allowzero = 1> (x, shape) }")  # fmt: skip
    assert stated.main.returned[0].operation.attributes["inferred"] is None  # type: ignore[union-attr]


def test_a_shape_that_is_left_by_what_may_be_0() -> None:
    """Where the others are a factor the extent is exact for 0 too; else what divides is 1 there."""
    exact = imported("(float[B, S, 8] x) => (y) <int64[3] shape = {0, -1, 2}> { y = Reshape(x, shape) }")
    assert str(exact.main.returned[0].type) == "f32[B, 4*S, 2]"
    graph = """(float[B, S] x, float[T] like) => (y) <int64[1] rest = {-1}> {
        t = Shape(like) shape = Concat <axis = 0> (t, rest) y = Reshape <allowzero = 1> (x, shape) }"""
    divided = imported(graph)
    assert str(divided.main.returned[0].type) == "f32[T, (B*S)//max(T, 1)]"
    (actual,) = interpreter.run(divided, {"x": zeros(0, 3), "like": zeros(0)}).values()
    assert actual.shape == (0, 0)


# -- integers that are divided --------------------------------------------------------------------------------------


def test_sizes_are_divided_by_0_as_the_operation_says() -> None:
    """0 where nothing else is said; x*y/y is x only where the program leaves open what it is. No process ends."""
    graph = """(float[B, S] x) => (q, r) <int64 zero = {0}, int64 one = {1}> {
        s = Shape(x) b = Gather(s, zero) n = Gather(s, one) q = Div(n, b) r = Mod(n, b) }"""
    module = imported(graph)
    assert operations(module)[-2:] == ["div", "mod"]
    for path, outputs in on_every_path(module, {"x": zeros(0, 5)}).items():
        assert path == "onnx" or [int(output) for output in outputs] == [0, 0]  # ONNX leaves open what it is
    (value,) = (value for value in imported("(float[B, S] x) => (q) <int64 one = {1}> {"
                " n = Size(x) s = Shape(x) b = Gather(s, one) q = Div(n, b) }").main.returned)  # fmt: skip
    assert value.operation is not None and str(value.operation.attributes["value"]) == "B"
    text = """irc text 1
module @m { func @main<B, S>(%x: f32[B, S]) -> i64[] {
  %n = dim {value = B*S} : i64[]
  %s = dim {value = S} : i64[]
  %q = div %n, %s : i64[]
  return %q } }"""
    result = parse(text).main.returned[0]
    assert ShapeAnalysis().elements(result).item() is None  # type: ignore[union-attr]
    assert str(ShapeAnalysis(is_open=True).elements(result).item()) == "B"  # type: ignore[union-attr]


DIVIDED = """irc text 1
module @m { func @main<S, T>(%x: f32[S], %y: f32[T]) -> (i64[3], f32[S]) {
  %n = dim {value = [S//T, S % T, (S - 5)//(T - 2)]} : i64[3]
  %z = neg %x : f32[S]
  return %n, %z } }"""


def test_a_size_without_a_value_ends_no_process(tmp_path: Path) -> None:
    module = parse(DIVIDED)
    irc.compile(module, output=tmp_path / "m.onnx", backend="onnx")
    irc.compile(module, output=tmp_path / "m", backend="triton")
    script = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import numpy as np, onnxruntime
runtime = onnxruntime.InferenceSession({str(tmp_path / "m.onnx")!r}, providers=["CPUExecutionProvider"])
for t in (0, 2, 3):
    print(runtime.run(None, {{"x": np.ones(7, np.float32), "y": np.ones(t, np.float32)}})[1].sum())
import m
for t in (0, 3):
    try:
        print(list(m.load()(np.ones(7, np.float32), np.ones(t, np.float32)).values())[0])
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["-7.0"] * 3 + [
        "ArtefactError a size of the program is divided by a size that is 0", "tensor([2, 1, 2])"]
    with pytest.raises(IrcError, match="division by zero"):
        interpreter.run(module, {"x": ramp(7), "y": zeros(0)})


# -- PyTorch --------------------------------------------------------------------------------------------------------


def test_programs_of_pytorch() -> None:
    import torch

    class Program(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            whole = x.to(torch.int16)
            return (x.roll(1, 1), x.softmax(1), x.sum(1), x.square().sum(-1), x.T @ x, whole.prod(1), whole.T.prod(1),
                    x.amax(0).cumsum(0), x.cumprod(1), x.T.cumprod(1), x.T.argmax(1), x.T.cummax(1).values,
                    torch.group_norm(x.T, 1))

    size = torch.export.Dim("S", min=0, max=64)
    module = irc.from_torch(Program(), (torch.ones(3, 5),), dynamic_shapes=({1: size},))
    assert module.main.symbols["S"].low == 0
    for extent in (5, 0):
        x = torch.randn(3, extent)
        for path, outputs in on_every_path(module, {module.main.arguments[0].name: x.numpy()}).items():
            for output, reference in zip(outputs, Program()(x), strict=True):
                np.testing.assert_allclose(output, reference.numpy(), rtol=1e-5, atol=1e-6, err_msg=path)


def test_attention_without_heads_has_no_elements() -> None:
    shapes = (2, 0, 3, 4), (2, 0, 5, 4), (2, 0, 5, 6)
    module = irc.trace(lambda q, k, v: ops.attention(q, k, v), *(f"f32{list(shape)}" for shape in shapes))
    inputs = dict(zip("qkv", (zeros(*shape) for shape in shapes), strict=True))
    for outputs in on_every_path(module, inputs).values():
        assert outputs[0].shape == module.main.returned[0].shape == (2, 0, 3, 6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("empty", [*"BHSDTE", "HE", "DE", "ST", "DT"])
def test_attention_of_nothing(empty: str, causal: bool) -> None:
    """Of no batch, heads, queries, elements of a key, keys, or elements of a value, which only the inputs say."""
    import torch
    import torch.nn.functional as F

    def program(q: Any, k: Any, v: Any) -> Any:
        return ops.attention(q, k, v, causal=causal, masked_rows="zero")

    depth, again = ("?D in (0, 9)", "D") if "D" in empty else ("4", "4")  # ONNX's operator has at least one
    shapes = [f"?B in (0, 9), ?H in (0, 9), ?S in (0, 9), {depth}", f"B, H, ?T in (0, 9), {again}"]
    module = irc.trace(program, *(f"f32[{shape}]" for shape in (*shapes, "B, H, T, ?E in (0, 9)")))
    for zero in ("", empty):
        sizes = {name: 0 if name in zero else size for name, size in zip("BHSDTE", (2, 2, 3, 4, 3, 5), strict=True)}
        inputs = {name: ramp(*(sizes[each] for each in shape))
                  for name, shape in (("q", "BHSD"), ("k", "BHTD"), ("v", "BHTE"))}  # fmt: skip
        expected = F.scaled_dot_product_attention(*map(torch.from_numpy, inputs.values()), is_causal=causal)
        for path, (output,) in on_every_path(module, inputs).items():
            np.testing.assert_allclose(output, expected.numpy(), rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("shape, is_read", [
    ("3, 2, 3", True), ("0, 2, 3", True), ("3, 0, 3", False), ("3, C, 3", False), ("3, 2, K", False),
])  # fmt: skip
@pytest.mark.parametrize("op_type", ["ConvInteger", "QLinearConv"])
def test_convolutions_of_integers_over_nothing(op_type: str, shape: str, is_read: bool) -> None:
    """ONNX Runtime, which runs these operators as externs, does not write their results."""
    call = "ConvInteger(x, w)" if op_type == "ConvInteger" else "QLinearConv(x, s, z, w, s, z, s, z)"
    result = "int32" if op_type == "ConvInteger" else "uint8"
    channels = shape.split(", ")[1]
    proto = model(f"(uint8[N, {channels}, 5] x, uint8[{shape}] w, float s, uint8 z) => ({result}[?, ?, ?] y) "
                  f"{{ y = {call} }}")  # fmt: skip
    if is_read:
        assert "extern" in operations(from_model(proto, NO_FOLDER))
    else:
        with pytest.raises(IrcError, match=r"onnx\.unsupported(.|\n)*its weights, u8\["):
            from_model(proto, NO_FOLDER)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_a_batch_of_no_samples(padding: str) -> None:
    """ONNX Runtime does not reduce an empty tensor along an axis that is counted from the back."""
    def program(x: Value, grid: Value) -> Value:
        return ops.grid_sample(x, grid, mode="linear", padding=padding, align_corners=False)

    module = irc.trace(program, "f32[?B in (0, 9), 2, 4, 4]", "f32[B, 3, 3, 2]")
    for batch in (0, 2):
        inputs = {"x": ramp(batch, 2, 4, 4), "grid": ramp(batch, 3, 3, 2)}
        (expected,) = interpreter.run(module, inputs).values()
        assert expected.shape == (batch, 2, 3, 3)
        for path, outputs in on_every_path(module, inputs).items():
            np.testing.assert_allclose(outputs[0], expected, 1e-6, err_msg=path)


def test_spelled_attention_over_keys_without_elements() -> None:
    """ONNX's operator has at least one element in a key; the spelled softmax of 0 scores is a mean of the values."""
    def program(q: Value, k: Value, v: Value) -> Value:
        scores = ops.matmul(q, ops.transpose(k, permutation=(0, 1, 3, 2)))
        return ops.matmul(ops.softmax(ops.mul(scores, 0.5), axis=-1), v)

    module = irc.trace(program, *["f32[1, 2, 3, ?D in (0, 9)]", "f32[1, 2, 3, D]", "f32[1, 2, 3, 4]"])
    for depth in (0, 4):
        inputs = {"q": ramp(1, 2, 3, depth), "k": ramp(1, 2, 3, depth), "v": ramp(1, 2, 3, 4)}
        (expected,) = interpreter.run(module, inputs).values()
        for path, (output,) in on_every_path(module, inputs).items():
            np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", ["matrix", "transposed", "bias", "left", "vector", "row", "batches", "dot", "narrow"])
def test_products_that_broadcast_over_an_empty_batch(name: str) -> None:
    """ONNX Runtime's MatMul does not broadcast an axis of 0, nor does its FusedMatMul of a Transpose and one matrix."""
    import torch
    import torch.nn.functional as F

    w, v = torch.rand(2, 4), torch.rand(4)
    programs: dict[str, Any] = {
        "matrix": lambda x: x @ w.mT, "transposed": lambda x: x.mT @ w.mT, "bias": lambda x: F.linear(x.mT, w, v[:2]),
        "left": lambda x: w @ x, "vector": lambda x: x.mT @ v, "row": lambda x: v @ x,
        "batches": lambda x: x[:, None] @ w.mT.expand(3, 4, 2), "dot": lambda x: torch.tensordot(x, w, ([1], [1])),
        "narrow": lambda x: (x.half().mT @ w.half().mT).float(),
    }  # fmt: skip
    size = {0: torch.export.Dim("B", min=0, max=9)}
    compiled = irc.compile(programs[name], (torch.rand(3, 4, 4),), backend="onnx", dynamic_shapes=(size,))
    for batch in (0, 3):
        x = torch.rand(batch, 4, 4)
        torch.testing.assert_close(compiled(x), programs[name](x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["norms", "products", "attention", "rows", "means", "shapes"])
def test_programs_of_pytorch_whose_tensors_have_no_elements(name: str) -> None:
    """Known when they are exported: ONNX Runtime's own rewrites of such products and normalizations fail."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    programs: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
        # PyTorch 2.15 rejects GroupNorm of no elements itself; the attention of 2.11 divides by 0.
        "norms": (nn.Sequential(*[nn.GroupNorm(2, 4)] * (torch.__version__ < "2.15"), nn.LayerNorm(0)),
                  [(2, 4, 0), (0, 4, 0)]),
        "products": (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), [(2, 0, 4), (0, 4)]),
        "attention": (lambda x: F.scaled_dot_product_attention(x, x, x),
                      [(1, 0, 3, 4)] * (torch.__version__ >= "2.12") + [(1, 2, 0, 4), (0, 2, 3, 4)]),
        "rows": (lambda x: (x.sort(-1)[0], x.sum(-1), x.logsumexp(-1), x @ x.mT, x.std(-1)), [(3, 0), (0, 3)]),
        "means": (lambda x: (F.adaptive_avg_pool1d(x, 1), x.mean(-1, True)), [(1, 1, 0), (2, 3, 0)]),
        "shapes": (lambda x: (F.pad(x, (1, 2), value=3.0), torch.cat([x, x]), x.repeat(2, 3), x.flip(0)), [(0, 3)]),
    }
    program, shapes = programs[name]
    for shape in shapes:
        x = torch.ones(shape)
        expected = program(x)
        for backend in ("onnx", "triton"):
            actual = irc.compile(program, (x,), backend=backend)(x)
            torch.testing.assert_close(actual, expected, equal_nan=True)


AT_ONCE = ("var_mean", "std_mean", "median_all", "median_of_integers")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in AT_ONCE else [pytest.mark.slow])
                                  for name in OF_NOTHING])
def test_programs_of_pytorch_at_a_size_of_0(name: str) -> None:
    """Exported at a size of 4: what is undefined for an empty tensor is so where the size is 0 in a run alone."""
    import torch

    program, rows = OF_NOTHING[name], {0: torch.export.Dim("B", min=0, max=9)}
    expected = program(torch.empty(0, 3))
    for backend in ("onnx", "triton"):
        try:
            compiled = irc.compile(lambda x: program(x), (torch.rand(4, 3),), backend=backend, dynamic_shapes=(rows,))
        except IrcError as error:
            assert error.diagnostics[0].code == "torch.export"  # of another shape at other sizes
            continue
        torch.testing.assert_close(compiled(torch.empty(0, 3)), expected, equal_nan=True)


# -- random programs ------------------------------------------------------------------------------------------------

FEATURES = frozenset({"dynamic sizes", "zero sizes", "empty named dims", "products", "data-dependent sizes",
                      "control flow"})  # fmt: skip
SEED, BATCH = 16, 15


def empty_programs(kind: str, start: int, count: int) -> list[Job]:
    """The next jobs of a range whose program has an input without elements."""
    jobs = (Job(kind, SEED, index, FEATURES) for index in range(start, start + 40 * count))
    empty_jobs = (job for job in jobs if any(0 in np.shape(array) for feed in program_of(job).feeds
                                         for array in feed.values()))  # fmt: skip
    return [job for job, _ in zip(empty_jobs, range(count), strict=False)]


@pytest.mark.parametrize("start", [pytest.param(1000 * batch, marks=[pytest.mark.slow] if batch else [])
                                   for batch in range(14)])  # fmt: skip
def test_random_models(start: int) -> None:
    failures = []
    for job in empty_programs(KINDS[0], start, BATCH):
        result = run_job(job)
        failures += [*map(str, result.failures), *(commands(result) if result.failures else [])]
    assert not failures, "\n".join(failures)


def flat(x: Value) -> Value:
    return ops.reshape(x, shape=(x.type.elements,))


READS_OF_NOTHING = {
    "padded": lambda x, y: ops.pad(flat(ops.concat(x, y, axis=0)), low=(2,), high=(2,)),
    "transposed": lambda x, y: ops.pad(flat(ops.transpose(ops.concat(x, y, axis=0), permutation=(1, 0))),
                                       low=(3,), high=(1,)),
    "concatenated": lambda x, y: ops.concat(flat(ops.concat(x, y, axis=0)), iota_of(5), flat(x), axis=0),
    "reshaped": lambda x, y: ops.pad(ops.reshape(ops.concat(x, y, axis=0), shape=(x.shape[1], 14)),
                                     low=(1, 1), high=(0, 2)),
}  # fmt: skip


def iota_of(size: int) -> Value:
    return ops.cast(ops.iota(shape=(size,), axis=0, dtype=by_name("i64")), to=by_name("f32"))


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("name", READS_OF_NOTHING)
def test_kernels_read_nothing_of_what_is_empty(name: str, size: int, tmp_path: Path) -> None:
    """Also where coordinates are divided by the size that is 0, of which no proof of bounds holds."""
    run = harness.run(READS_OF_NOTHING[name], "f32[4, S]", "f32[10, S]", folder=tmp_path / "a", sizes={"S": size})
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_bytes_of_what_is_empty_at_the_sizes_of_the_model() -> None:
    """Coordinates are divided by an extent that is 0 at the sizes that costs are computed at."""
    start, stop = "B - min(B - 1, 2) - 1", "max(B - max(B - 9, -1) - 1, B - min(B - 1, 2) - 1)"
    extent = f"-B + {stop} + min(B - 1, 2) + 1"
    module = parse(f"""irc text 1
module @m {{
  func @main<B>(%x: f32[7, B]) -> (y: f32[9*({extent})], z: f32[1]) {{
    %part = slice %x {{starts = [3, {start}], stops = [6, {stop}], steps = [1, 1]}} : f32[3, {extent}]
    %tiled = tile %part {{repeats = [1, 3]}} : f32[3, 3*({extent})]
    %y = reshape %tiled {{shape = [9*({extent})]}} : f32[9*({extent})]
    %z = reduce_sum_square %y {{axes = [0], keep_dims = true}} : f32[1]
    return %y, %z
  }}
}}
""")
    assert irc.kernels(module).distinct_bytes >= 4
    for size in (2, 5, 64):
        on_every_path(module, {"x": ramp(7, size)})


def test_an_empty_output_of_a_kernel_beside_one_that_is_not() -> None:
    """Where B is 1, coordinates of y are divided by its extent, 0, at the points of r."""
    extent = "B - min(B, 1)"
    module = parse(f"""irc text 1
module @m {{
  func @main<B>(%x: f32[B, B]) -> (r: f32[B, B], y: f32[{extent}]) {{
    %r = reverse %x {{axes = [1]}} : f32[B, B]
    %p = slice %r {{starts = [0, min(B, 1)], stops = [B, B], steps = [7, 1]}} : f32[(B + 6)//7, {extent}]
    %q = reshape %p {{shape = [{extent}]}} : f32[{extent}]
    %y = neg %q : f32[{extent}]
    return %r, %y
  }}
}}
""")
    compiled = merged(module)
    (kernel,) = (each for each in compiled.main.block if each.name == "kernel")
    (symbol,) = compiled.main.symbols.values()
    assert not count(derive([*kernel.regions[0].block][:-1]), {symbol: 1}).exact
    for size in (1, 2, 7):
        feed = {"x": ramp(size, size)}
        for name, output in Artefact(compiled).on_arrays(feed).items():
            np.testing.assert_array_equal(output, interpreter.run(module, feed)[name])


def test_dims_divide_what_is_0() -> None:
    b, s = (dims.symbol(name).expr for name in "BS")
    assert (b * s) // s == b and dims.exact_divide(12 * b * s, 4 * s) == 3 * b and dims.exact_divide(b, s) is None
