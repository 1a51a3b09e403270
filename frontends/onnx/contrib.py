"""Rows of operators that ONNX Runtime has beside ONNX's: what its optimizers and the exporters for it write.

Those that irc says in its own operations are read here; others are kept as opaque operations, and `contrib_types` says
what they give. Source: ContribOperators.md of ONNX Runtime 1.31.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irc import dims, ops
from irc.diagnostics import fail
from irc.dtypes import F32, U8, accumulator_of, from_onnx
from irc.frontends.onnx import linear, normalization, pointwise, quantization, tensor
from irc.frontends.onnx.contrib_types import MICROSOFT
from irc.frontends.onnx.reading import carry, of_rank, wants
from irc.frontends.onnx.table import Floats, Ints, Row, reads
from irc.ir import Value
from irc.op import const, literal
from irc.ops.rules import normalize_axis
from irc.weights import Tensor

# Operators that mean what ONNX's of the same name mean, in its newest form.
SAME = (quantization.quantize_linear, quantization.dequantize_linear, tensor.trilu, tensor.pad, tensor.gather_nd,
        tensor.grid_sample)  # fmt: skip
ALIASES: list[Row] = [Row(row.function, row.op_type, 1, MICROSOFT) for row in SAME]
# ONNX Runtime had it in the default domain before ONNX did.
LAYER_NORMALIZATION = Row(normalization.layer_normalization.function, "LayerNormalization", 1, "")
MEMORY: list[Row] = [Row(pointwise.identity.function, name, 1, "") for name in ("MemcpyFromHost", "MemcpyToHost")]


@reads("Range", domain=MICROSOFT)
def range_(start: Value, limit: Value, delta: Value | None = None, /):
    return tensor.range_.function(start, limit, literal(1, start.dtype) if delta is None else delta)


@reads("ExpandDims", domain=MICROSOFT)
def expand_dims(x: Value, axis: Value, /):
    return tensor.unsqueeze.function(x, axis)


# -- of the default domain before opset 10 -------------------------------------------------------------------------


@reads("Affine")
def affine(x: Value, /, *, alpha: float = 1.0, beta: float = 0.0):
    return ops.add(ops.mul(x, alpha), beta)


@reads("Scale")
def scale(x: Value, /, *, scale: float = 1.0):
    return ops.mul(x, scale)


@reads("ScaledTanh")
def scaled_tanh(x: Value, /, *, alpha: float, beta: float):
    return ops.mul(ops.tanh(ops.mul(x, beta)), alpha)


@reads("ParametricSoftplus")
def parametric_softplus(x: Value, /, *, alpha: float, beta: float):
    return ops.mul(ops.softplus(ops.mul(x, beta)), alpha)


@reads("ImageScaler")
def image_scaler(x: Value, /, *, bias: Floats = (), scale: float = 1.0):
    """scale * x + bias, which has an entry for each channel."""
    shift = const(value=Tensor.of(np.array(bias, x.dtype.numpy).reshape(-1, *[1] * (x.rank - 2))))
    return ops.add(ops.mul(x, scale), shift)


@reads("Crop")
def crop(x: Value, /, *, border: Ints = (0, 0, 0, 0), scale: Ints = ()):
    """Without the border (left, top, right, bottom), or of it only a part of this height and width."""
    batch, channels, height, width = of_rank(x, 4, "x")
    left, top, right, bottom = border
    below, behind = (top + scale[0], left + scale[1]) if scale else (height - bottom, width - right)
    return ops.slice_(x, starts=(0, 0, top, left), stops=(batch, channels, below, behind), steps=(1, 1, 1, 1))


@reads("DynamicSlice")
def dynamic_slice(x: Value, starts: Value, ends: Value, axes: Value | None = None, /):
    return tensor.slice_.function(x, starts, ends, axes, None)


# -- products and convolutions with what is fused to them ---------------------------------------------------------


@reads("FusedMatMul", domain=MICROSOFT)
def fused_matmul(a: Value, b: Value, /, *, alpha: float = 1.0, transA: int = 0, transB: int = 0, transBatchA: int = 0,
                 transBatchB: int = 0):
    product = ops.matmul(turned(a, transA, transBatchA), turned(b, transB, transBatchB))
    return product if alpha == 1 else ops.mul(product, alpha)


@reads("TransposeMatMul", domain=MICROSOFT)
def transpose_matmul(a: Value, b: Value, /, *, alpha: float = 1.0, transA: int = 0, transB: int = 0):
    return fused_matmul.function(a, b, alpha=alpha, transA=transA, transB=transB)


def turned(x: Value, matrices: int, batches: int) -> Value:
    """With `batches` the first axis goes after those of the batch, before the last; with `matrices` the last two are
    exchanged. Vectors stay."""
    if x.rank < 2 or not (matrices or batches):
        return x
    order = [*range(1, x.rank - 1), 0, x.rank - 1] if batches else [*range(x.rank)]
    if matrices:
        order[-2:] = order[:-3:-1]
    return ops.transpose(x, permutation=tuple(order))


@reads("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits(
    a: Value, b: Value, scales: Value, zero_points: Value | None = None, g_idx: Value | None = None,
    bias: Value | None = None, /, *, K: int, N: int, bits: int = 4, block_size: int, accuracy_level: int = 0,
    weight_prepacked: int = 0,
):  # fmt: skip
    """`accuracy_level` allows the runtime to compute with less precision. Parameters may be flat."""
    if min(K, N, block_size) < 1:
        raise fail("onnx.invalid", f"MatMulNBits: K is {K}, N {N} and block_size {block_size}", expected="1 or more")
    blocks = -(-K // block_size)
    if g_idx is not None or weight_prepacked or bits not in (2, 4, 8):
        carry("its weights are in an order of their own, or cross bytes")
    if not (a.type.is_ranked and a.rank and dims.equal(a.shape[-1], K) is True and b.type.is_static):
        carry(f"its operand is not known to have {K} columns")
    if b.type.static_shape() != (N, blocks, block_size * bits // 8):
        carry("its weights are not in bytes of blocks")
    scales = ops.reshape(scales, shape=(N, blocks))
    if zero_points is not None:
        each = -(-blocks * bits // 8) if zero_points.dtype is U8 else blocks
        zero_points = ops.reshape(zero_points, shape=(N, each))
    result = ops.matmul_packed(a, b, scales, zero_points, bits=bits, block=block_size)
    return result if bias is None else ops.add(result, bias)


@reads("FusedConv", domain=MICROSOFT)
def fused_conv(
    x: Value, weight: Value, bias: Value | None = None, sum: Value | None = None, /, *, activation: str = "",
    activation_params: Floats = (), auto_pad: str = "NOTSET", dilations: Ints | None = None, group: int = 1,
    kernel_shape: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None,
):  # fmt: skip
    """The result plus `sum`, through the activation."""
    result = linear.conv.function(x, weight, bias, auto_pad=auto_pad, dilations=dilations, group=group,
                                  kernel_shape=kernel_shape, pads=pads, strides=strides)
    return activated(result if sum is None else ops.add(result, sum), activation, *activation_params)


@reads("FusedGemm", domain=MICROSOFT)
def fused_gemm(
    a: Value, b: Value, c: Value | None = None, /, *, activation: str = "", activation_alpha: float | None = None,
    activation_beta: float | None = None, activation_gamma: float | None = None, alpha: float = 1.0, beta: float = 1.0,
    transA: int = 0, transB: int = 0,
):  # fmt: skip
    result = linear.gemm.function(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    given = (each for each in (activation_alpha, activation_beta) if each is not None)
    return activated(result, activation, *given)


def activated(x: Value, name: str, *parameters: float) -> Value:
    """One of the activations that ONNX Runtime fuses, with those of the parameters that it has."""
    known: dict[str, Any] = {
        "": lambda *_: x, "Relu": lambda *_: ops.relu(x), "Sigmoid": lambda *_: ops.sigmoid(x),
        "Tanh": lambda *_: ops.tanh(x), "LeakyRelu": lambda alpha=0.01, *_: ops.leaky_relu(x, alpha=alpha),
        "Clip": lambda low, high: ops.clip(x, literal(low, x.dtype), literal(high, x.dtype)),
        "HardSigmoid": lambda alpha=0.2, beta=0.5: ops.hard_sigmoid(x, alpha=alpha, beta=beta),
    }  # fmt: skip
    if name not in known or (name == "Clip" and len(parameters) != 2):
        carry(f"it is followed by {name}")
    result: Value = known[name](*parameters)
    return result


QUICK_GELU = reads("QuickGelu", domain=MICROSOFT)(ops.quick_gelu)


@reads("Gelu", domain=MICROSOFT)
def gelu(x: Value, /):
    return ops.gelu(x)


@reads("FastGelu", domain=MICROSOFT)
def fast_gelu(x: Value, bias: Value | None = None, /):
    return ops.gelu(x if bias is None else ops.add(x, bias), approximate="tanh")


@reads("BiasGelu", domain=MICROSOFT)
def bias_gelu(x: Value, bias: Value, /):
    return ops.gelu(ops.add(x, bias))


# -- normalizations -----------------------------------------------------------------------------------------------


@reads("SimplifiedLayerNormalization")
def simplified_layer_normalization(x: Value, scale: Value, /, *, axis: int = -1, epsilon: float = 1e-5,
                                   stash_type: int = 1):
    if from_onnx(stash_type) is not F32 or scale.dtype is not x.dtype:
        carry("the statistics are not kept in f32, or the scale is of another type")
    result = ops.rms_norm(x, scale, axis=axis, epsilon=epsilon)
    if not wants(1):
        return result
    axes = tuple(range(normalize_axis(axis, x.rank), x.rank))
    squares = ops.reduce_mean(ops.square(x if x.dtype is F32 else ops.cast(x, to=F32)), axes=axes, keep_dims=True)
    return result, ops.rsqrt(ops.add(squares, epsilon))


@reads("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(x: Value, skip: Value, scale: Value, shift: Value | None = None,
                             bias: Value | None = None, /, *, epsilon: float = 1e-12):
    return skipped(x, skip, bias, lambda total: ops.layer_norm(total, wide(scale), wide(shift), epsilon=epsilon))


@reads("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(x: Value, skip: Value, scale: Value, bias: Value | None = None, /, *,
                                        epsilon: float = 1e-12):
    return skipped(x, skip, bias, lambda total: ops.rms_norm(total, wide(scale), epsilon=epsilon))


def wide(x: Value | None) -> Value | None:
    """A value in the type that ONNX Runtime computes these normalizations in."""
    return x if x is None or accumulator_of(x.dtype) is x.dtype else ops.cast(x, to=accumulator_of(x.dtype))


def skipped(x: Value, skip: Value, bias: Value | None, normalize: Any) -> Any:
    """The normalized sum of the operands, and the sum as the fourth result; narrow floats are rounded at the end."""
    if wants(1) or wants(2):
        carry("its statistics are requested")
    total = ops.add(wide(x), wide(skip))
    total = total if bias is None else ops.add(total, wide(bias))
    results = normalize(total), total
    done, summed = (each if each.dtype is x.dtype else ops.cast(each, to=x.dtype) for each in results)
    return (done, None, None, summed) if wants(3) else done
