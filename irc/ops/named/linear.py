"""Matrix products, each a single `dot`, whose axes broadcast without copies.

Products of f16 and bf16 are summed in f32 and rounded once.
"""

from __future__ import annotations

from irc import dims
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import I32, accumulator_of
from irc.index_map import inverse
from irc.interfaces import Trait
from irc.ir import Value
from irc.op import Float, Integer, Number, op
from irc.ops.named.common import convert, fitted, must_equal, must_fit, widen
from irc.ops.pointwise import add, mul, sub
from irc.ops.products import dot
from irc.ops.rules import broadcast_shapes, same_dtype
from irc.ops.view import expand, reshape, split, transpose
from irc.types import TensorType


@op(Trait.LIBRARY, Trait.NEW_MEMORY, Trait.WRAPS)
def matmul(x: Number, y: Number, /) -> Value:
    """Matrix product over the last axis of x and the last but one of y, as in NumPy.

    Shapes: x [..., M, K], y [..., K, N]; the leading axes broadcast. A vector x [K] is a row, a vector y [K] a
    column, and its axis is left out of the result. Result: [..., M, N].
    Source: ONNX MatMul-13; torch.matmul.
    Edge cases: K of 0 gives zeros; integers wrap around.
    """
    accumulate = accumulator_of(x.dtype)
    if y.rank == 1 or x.rank == 1:
        return dot(x, y, contract=((x.rank - 1, max(y.rank - 2, 0)),), accumulate=accumulate)
    x_axes, y_axes = x.rank - 2, y.rank - 2  # leading axes of each
    leading = max(x_axes, y_axes)
    # Which axis of x and of y is leading axis i of the result; None where it is missing or 1 and broadcasts.
    x_at: list[int | None] = [i - (leading - x_axes) if i >= leading - x_axes else None for i in range(leading)]
    y_at: list[int | None] = [i - (leading - y_axes) if i >= leading - y_axes else None for i in range(leading)]
    x_shape, y_shape = list(x.shape), list(y.shape)
    x_drop, y_drop = [], []
    for i, (a, b) in enumerate(zip(x_at, y_at, strict=True)):
        if a is None or b is None or dims.equal(x_shape[a], y_shape[b]) is True:
            continue
        if dims.equal(x_shape[a], 1) is True:
            x_at[i] = None
            x_drop.append(a)
        elif dims.equal(y_shape[b], 1) is True:
            y_at[i] = None
            y_drop.append(b)
        else:  # not known to be equal: the copies are made only where they are not
            x_shape[a] = y_shape[b] = dims.broadcast(x_shape[a], y_shape[b])
    x, x_at = _without(_expanded(x, x_shape), x_drop, x_at)
    y, y_at = _without(_expanded(y, y_shape), y_drop, y_at)
    both = [i for i in range(leading) if x_at[i] is not None and y_at[i] is not None]
    only_x = [i for i in range(leading) if y_at[i] is None]
    only_y = [i for i in range(leading) if x_at[i] is None]
    product = dot(
        x,
        y,
        batch=tuple((x_at[i], y_at[i]) for i in both),
        contract=((x.rank - 1, y.rank - 2),),
        accumulate=accumulate,
    )
    # dot gives: shared axes, those of x alone, M, those of y alone, N.
    order = [*both, *only_x, leading, *only_y, leading + 1]
    permutation = inverse(order)
    return product if permutation == tuple(range(leading + 2)) else transpose(product, permutation=permutation)


def _expanded(x: Value, shape: list[Dim]) -> Value:
    return x if tuple(shape) == x.shape else expand(x, shape=tuple(shape))


def _without(x: Value, drop: list[int], at: list[int | None]) -> tuple[Value, list[int | None]]:
    """`x` without axes of size 1, and where the other axes have moved to."""
    if not drop:
        return x, at
    shape = tuple(size for axis, size in enumerate(x.shape) if axis not in drop)
    return reshape(x, shape=shape), [None if a is None else a - sum(d < a for d in drop) for a in at]


@matmul.types
def _(x: TensorType, y: TensorType) -> TensorType:
    same_dtype(x, y)
    if x.rank == 0 or y.rank == 0:
        raise fail("type.rank", f"cannot multiply {x} by {y}", expected="at least a vector on both sides")
    k, other = x.dims[-1], y.dims[max(y.rank - 2, 0)]
    if dims.equal(k, other) is False:
        raise fail("type.shape", f"cannot multiply {x} by {y}: the inner dims are {k} and {other}")
    rows = x.dims[-2:-1]
    columns = y.dims[-1:] if y.rank > 1 else ()
    leading = broadcast_shapes(x.with_shape(x.dims[:-2]), y.with_shape(y.dims[:-2]))
    return x.with_shape((*(leading or ()), *rows, *columns))


@op(Trait.LIBRARY)
def linear(x: Float, weight: Float, bias: Float, /) -> Value:
    """x @ weight + bias.

    Shapes: x [..., K], weight [K, N], bias [N]. Result: [..., N].
    Source: torch.addmm; torch.nn.functional.linear, whose weight is transposed.
    Edge cases: K of 0 gives the bias; in f16 and bf16 libraries may round the sum alone, not the product too.
    """
    return add(matmul(x, weight), bias)


@linear.types
def _(x: TensorType, weight: TensorType, bias: TensorType) -> TensorType:
    same_dtype(x, weight, bias)
    if x.rank == 0 or weight.rank != 2 or bias.rank != 1:
        raise fail("type.rank", f"x is {x}, weight {weight} and bias {bias}", expected="[..., K], [K, N] and [N]")
    if dims.equal(x.dims[-1], weight.dims[0]) is False:
        raise fail("type.shape", f"cannot multiply {x} by {weight}: the inner dims differ")
    must_equal("the bias", bias.dims[0], weight.dims[1])
    return x.with_shape((*x.dims[:-1], weight.dims[1]))


@op(Trait.LIBRARY, Trait.NEW_MEMORY)
def split_linear(x: Float, weight: Float, bias: Float | None = None, /, *, sizes: tuple[Dim, ...]) -> tuple[Value, ...]:
    """Consecutive columns of x @ weight + bias, such as the queries, keys and values of an attention.

    Shapes: x [..., K], weight [K, N], bias [N]. Results: [..., size] for each of `sizes`.
    Attributes: sizes, the columns of each result; they sum to N.
    Source: the layers `qkv_proj` and `gate_up_proj` of language models, and the pass `siblings`.
    Edge cases: K of 0 gives the bias, or zeros; a size may be 0.
    """
    product = matmul(x, weight) if bias is None else linear(x, weight, bias)
    return split(product, axis=-1, sizes=sizes)


@op(Trait.LIBRARY, Trait.NEW_MEMORY, Trait.WRAPS)
def gemm(
    a: Number,
    b: Number,
    c: Number | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> Value:
    """alpha * a @ b + beta * c, for matrices.

    Shapes: a [M, K], or [K, M] with transpose_a; b [K, N], or [N, K] with transpose_b; c broadcasts to the result
    [M, N].
    Attributes: alpha and beta, factors (1 where the operands are integers); transpose_a, transpose_b.
    Source: ONNX Gemm-13; torch.addmm.
    Edge cases: K of 0 gives beta * c; beta 0 still takes NaN from c.
    """
    product = dot(a, b, contract=((int(not transpose_a), int(transpose_b)),), accumulate=accumulator_of(a.dtype))
    c = None if c is None else fitted(c, product.shape)
    if alpha == 1 and (c is None or beta == 1):
        return product if c is None else add(product, c)
    wide = mul(widen(product), alpha)
    if c is not None:
        wide = add(wide, mul(widen(c), beta))
    return convert(wide, a.dtype)


@gemm.types
def _(
    a: TensorType,
    b: TensorType,
    c: TensorType | None = None,
    *,
    alpha: float,
    beta: float,
    transpose_a: bool,
    transpose_b: bool,
) -> TensorType:
    same_dtype(a, b, *(() if c is None else (c,)))
    if a.rank != 2 or b.rank != 2:
        raise fail("type.rank", f"a is {a} and b is {b}", expected="two matrices")
    if not (a.dtype.is_float or a.dtype.is_complex) and (alpha, beta) != (1, 1):
        raise fail("type.attribute", f"alpha is {alpha} and beta {beta}", expected="1 for both, for integers")
    rows, k = reversed(a.dims) if transpose_a else a.dims
    other, columns = reversed(b.dims) if transpose_b else b.dims
    if dims.equal(k, other) is False:
        raise fail("type.shape", f"cannot multiply {a} by {b}: the inner dims are {k} and {other}")
    result = a.with_shape((rows, columns))
    if c is not None:
        must_fit("c", c, result)
    return result


@op(Trait.LIBRARY)
def matmul_integer(
    x: Integer, y: Integer, x_zero_point: Integer | None = None, y_zero_point: Integer | None = None, /
) -> Value:
    """Matrix product of quantized integers in i32, each less its zero point.

    Shapes: x and y as in matmul; x_zero_point a scalar, or [M], one for each row; y_zero_point a scalar, or [N], one
    for each column. Result: i32[..., M, N].
    Source: ONNX MatMulInteger-10.
    Edge cases: sums wrap around.
    """
    return matmul(_shifted(x, x_zero_point, rows=True), _shifted(y, y_zero_point, rows=False))


def _shifted(x: Value, zero_point: Value | None, rows: bool) -> Value:
    wide = convert(x, I32)
    if zero_point is None:
        return wide
    if rows and zero_point.rank == 1:
        zero_point = reshape(zero_point, shape=(*zero_point.shape, 1))
    return sub(wide, convert(zero_point, I32))


@matmul_integer.types
def _(
    x: TensorType, y: TensorType, x_zero_point: TensorType | None = None, y_zero_point: TensorType | None = None
) -> TensorType:
    for name, operand, zero_point, axis in (("x", x, x_zero_point, -2), ("y", y, y_zero_point, -1)):
        if operand.dtype.bits > 8:
            raise fail("type.dtype", f"{name} is {operand}", expected="an integer of at most 8 bits")
        if operand.rank < 2:
            raise fail("type.rank", f"{name} is {operand}", expected="a matrix, or a batch of them")
        if zero_point is not None:
            same_dtype(operand, zero_point)
            if zero_point.rank > 1:
                raise fail("type.rank", f"{name}_zero_point is {zero_point}", expected="a scalar or a vector")
            size = zero_point.dims[0] if zero_point.rank else 1
            if size != 1 and dims.equal(size, operand.dims[axis]) is False:
                raise fail("type.shape", f"{name}_zero_point is {zero_point}", expected=f"{operand.dims[axis]} entries")
    (result,) = matmul.infer([x.with_dtype(I32), y.with_dtype(I32)], {})
    return result
