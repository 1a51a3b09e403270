"""Rows of products, convolutions, windows and scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, cast

from irc import dims
from irc.backends.onnx import edges
from irc.backends.onnx.edges import guards_nan, scanned, subgraph, unless_empty
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.row import both, emits, on
from irc.backends.onnx.target import Target
from irc.backends.onnx.view import is_zero, reshaped_exactly, transposed, vector
from irc.backends.onnx.zeros import begun_with_0
from irc.diagnostics import UnsupportedError
from irc.dims import Dim
from irc.dtypes import F32, I64, DType
from irc.index_map import inverse
from irc.interfaces import Running, identity
from irc.ir import Operation, Value
from irc.types import TensorType

LETTERS = "abcdefghijklmnopqrstuvwxyz"
Pairs = tuple[tuple[int, int], ...]


# -- products ----------------------------------------------------------------------------------------------------


@emits("dot")
def dot(g: Graph, x: Value, y: Value, *, batch: Pairs, contract: Pairs, accumulate: DType | None) -> Operand:
    """A MatMul where one axis is summed over and the others are in its order or can be transposed; else an Einsum."""
    batch = tuple((a % x.rank, b % y.rank) for a, b in batch)
    contract = tuple((a % x.rank, b % y.rank) for a, b in contract)
    op_type = "MatMul"
    rows = [a for a in range(x.rank) if a not in {pair[0] for pair in (*batch, *contract)}]
    columns = [b for b in range(y.rank) if b not in {pair[1] for pair in (*batch, *contract)}]
    # MatMul takes one row axis and one column axis beside the batch; without a batch, x may have more of them.
    fits = len(contract) == 1 and (len(rows) == len(columns) == 1 if batch else len(columns) <= 1)
    if not fits:
        op_type = "Einsum"
    wide = g.carrier(op_type, x.dtype, wraps=True)
    if op_type == "Einsum":
        # Over an empty axis that both operands have, summed or not, it divides by 0.
        count = dims.product(x.shape[a] for a, _ in (*batch, *contract))
        spelled = equation(x.rank, y.rank, batch, contract)

        def summed(inner: Graph) -> Operand:
            operands = (inner.cast(operand, operand.dtype, wide) for operand in (x, y))
            return inner.node("Einsum", *operands, equation=spelled)

        return g.cast(unless_empty(g, count, summed, wide, always=True), wide, x.dtype)
    x_order = [*(pair[0] for pair in batch), *rows, contract[0][0]]
    y_order = [*(pair[1] for pair in batch), contract[0][1], *columns]
    if x.rank == y.rank == 2 and y_order == [1, 0] and x_order == [0, 1] and g.target.runs("Gemm", x.dtype):
        return g.node("Gemm", x, y, transB=1)
    left, right = (g.cast(arranged(g, operand, order), operand.dtype, wide)
                   for operand, order in ((x, x_order), (y, y_order)))  # fmt: skip
    x_shape, y_shape = ([operand.shape[axis] for axis in order] for operand, order in ((x, x_order), (y, y_order)))
    is_transposed = x_order != list(range(x.rank)) or is_transpose(x)
    return g.cast(product(g, left, right, x_shape, y_shape, is_transposed, wide), wide, x.dtype)


def arranged(g: Graph, x: Value, order: Sequence[int]) -> Operand:
    """`x` with its axes in this order. Where x is itself a transpose, one Transpose does both (and the other goes)."""
    source = x.operation
    if list(order) == list(range(x.rank)):
        return x
    if source is not None and source.name == "transpose" and g.has(source.inputs[0]):
        inner = [axis % x.rank for axis in source.attributes["permutation"]]
        composed = [inner[axis] for axis in order]
        (x,) = source.inputs
        if composed == list(range(x.rank)):
            return x
        return transposed(g, x, composed)
    return transposed(g, x, order)


def equation(x_rank: int, y_rank: int, batch: Pairs, contract: Pairs) -> str:
    """The product in Einsum's notation, `abc,adc->abd`."""
    x_letters = list(LETTERS[:x_rank])
    y_letters = list(LETTERS[x_rank : x_rank + y_rank])
    for a, b in (*batch, *contract):
        y_letters[b] = x_letters[a]
    summed = {x_letters[a] for a, _ in contract}
    shared = [x_letters[a] for a, _ in batch]
    free = [letter for letter in (*x_letters, *y_letters) if letter not in summed and letter not in shared]
    return f"{''.join(x_letters)},{''.join(y_letters)}->{''.join((*shared, *free))}"


@emits("matmul", when=on("MatMul"))
def matmul(g: Graph, x: Value, y: Value) -> Operand:
    return product(g, x, y, x.shape, y.shape, is_transpose(x))


def product(g: Graph, x: Operand, y: Operand, x_shape: Sequence[Dim], y_shape: Sequence[Dim], is_transposed: bool,
            wide: DType | None = None) -> Operand:  # fmt: skip
    """A MatMul that is 0 for an empty sum. There ONNX Runtime 1.31 does not write all of the result for a vector y, nor
    where y has a batch that x lacks."""
    pairs = zip_longest(reversed(x_shape[:-2]), reversed(y_shape[:-2]), fillvalue=1)
    fits = 2 <= len(y_shape) <= max(len(x_shape), 2) and all(
        dims.same(each, 1) or dims.same(each, extent) for extent, each in pairs
    )
    summed = x_shape[-1]
    is_written = dims.less(0, summed) is True or (fits and dims.equal(summed, 0) is not True)
    extents = [*([] if is_written else [summed]), *broadcast_over(x_shape, y_shape, is_transposed)]
    return unless_empty(g, dims.product(extents), lambda inner: inner.node("MatMul", x, y), wide, always=not is_written)


def is_transpose(x: Value) -> bool:
    return x.operation is not None and x.operation.name == "transpose"


def broadcast_over(x: Sequence[Dim], y: Sequence[Dim], is_transposed: bool) -> list[Dim]:
    """The batch axes of a product that only one operand has. Where such an axis is 0, ONNX Runtime's MatMul fails; but
    not for a single matrix y, unless ONNX Runtime's optimizations fuse a Transpose of x with it."""
    if len(y) >= 2 and not is_transposed and all(dims.same(extent, 1) for extent in y[:-2]):
        return []
    pairs = zip_longest(reversed(x[:-2]), reversed(y[:-2]), fillvalue=1)
    return [dims.broadcast(a, b) for a, b in pairs if not dims.same(a, b)]


@emits("gemm", when=on("Gemm"))
def gemm(g: Graph, a: Value, b: Value, c: Value | None = None, *, alpha: float, beta: float, transpose_a: bool,
         transpose_b: bool) -> Operand:  # fmt: skip
    """For an empty sum ONNX Runtime's Gemm gives c without beta: there beta is a separate factor."""
    added: Operand = c
    if c is not None and beta != 1 and dims.less(0, a.shape[0 if transpose_a else 1]) is not True:
        wide = g.carrier("Mul", c.dtype)
        added = g.cast(g.node("Mul", g.cast(c, c.dtype, wide), g.numbers(beta, wide)), wide, c.dtype)
        beta = 1
    return g.node("Gemm", a, b, added, alpha=alpha if alpha != 1 else None, beta=beta if beta != 1 else None,
                  transA=transpose_a or None, transB=transpose_b or None)  # fmt: skip


def is_of_matrices(operation: Operation, target: Target) -> bool:
    return operation.inputs[0].rank == 2


@emits("linear", when=both(on("Gemm"), is_of_matrices))
def linear(g: Graph, x: Value, weight: Value, bias: Value) -> Operand:
    return g.node("Gemm", x, weight, bias)


def has_scalar_zero_point(operation: Operation, target: Target) -> bool:
    """ONNX Runtime takes one zero point for all of the left matrix, and one for each column of the right."""
    left = operation.operands[2] if len(operation.operands) > 2 else None
    return left is None or dims.equal(left.type.elements, 1) is True


@emits("matmul_integer", when=has_scalar_zero_point)
def matmul_integer(
    g: Graph, x: Value, y: Value, x_zero_point: Value | None = None, y_zero_point: Value | None = None
) -> Operand:
    operands = (x, y, x_zero_point, y_zero_point)
    return unless_empty(g, x.shape[-1], lambda inner: inner.node("MatMulInteger", *operands), always=True)


def is_packed_for_runtime(operation: Operation, target: Target) -> bool:
    """Of ONNX Runtime alone, on the processor; its blocks have a power of two of elements."""
    bits, block = operation.attributes["bits"], operation.attributes["block"]
    can = target.name == "cpu" and bits == 4 and block >= 16 and block & (block - 1) == 0
    is_known = isinstance(operation.inputs[0].shape[-1], int) and operation.inputs[1].type.is_static
    return can and is_known and target.runs("MatMulNBits", operation.inputs[0].dtype)


@emits("matmul_packed", when=is_packed_for_runtime)
def matmul_packed(
    g: Graph, x: Value, weight: Value, scale: Value, zero_point: Value | None = None, *, bits: int, block: int
) -> Operand:
    return g.node("MatMulNBits", x, weight, scale, zero_point, domain="com.microsoft", K=x.shape[-1],
                  N=weight.shape[0], bits=bits, block_size=block)  # fmt: skip


# -- convolutions ------------------------------------------------------------------------------------------------


def ones(numbers: Sequence[int]) -> list[int] | None:
    """An attribute whose default is all ones."""
    return None if all(number == 1 for number in numbers) else list(numbers)


def padding(g: Graph, x: Value, kernel: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int],
            low: Sequence[Dim], high: Sequence[Dim]) -> tuple[Operand, dict[str, Any]]:  # fmt: skip
    """x, and the attributes for what is added around its spatial axes. Where that depends on the extents it may be
    what ONNX calls SAME_UPPER or SAME_LOWER; else x is padded before."""
    if all(isinstance(amount, int) for amount in (*low, *high)):
        return x, {} if is_zero((*low, *high)) else {"pads": [*low, *high]}
    smaller, larger = same_padding(x.shape[2:], kernel, strides, dilations)
    for name, ours, theirs in (("SAME_UPPER", smaller, larger), ("SAME_LOWER", larger, smaller)):
        if (tuple(low), tuple(high)) == (tuple(ours), tuple(theirs)) and all(spread == 1 for spread in dilations):
            return x, {"auto_pad": name}
    return g.node("Pad", x, vector(g, (0, 0, *low, 0, 0, *high))), {}


def same_padding(
    extents: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[Dim], list[Dim]]:
    """The smaller and the larger half of what keeps ceil(extent / stride) windows."""
    smaller: list[Dim] = []
    larger: list[Dim] = []
    for whole, window, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        reach = (dims.ceil_divide(whole, stride) - 1) * stride + (window - 1) * dilation + 1
        both = dims.maximum(reach - whole, 0)
        smaller.append(dims.floor_divide(both, 2))
        larger.append(both - smaller[-1])
    return smaller, larger


@emits("conv")
def conv(g: Graph, x: Value, weight: Value, bias: Value | None = None, *, strides: tuple[int, ...],
         dilations: tuple[int, ...], low: tuple[Dim, ...], high: tuple[Dim, ...], groups: int) -> Operand:  # fmt: skip
    if x.rank < 3:
        raise UnsupportedError("Conv needs a spatial axis")
    wide = g.carrier("Conv", x.dtype)
    source, pads = padding(g, x, weight.shape[2:], strides, dilations, low, high)
    operands = [None if each is None else g.cast(each, x.dtype, wide) for each in (source, weight, bias)]

    def added(inner: Graph, *operands: Operand) -> Operand:
        return inner.node("Conv", *operands, strides=ones(strides), dilations=ones(dilations),
                          group=groups if groups != 1 else None, **pads)  # fmt: skip

    # Of no channels ONNX Runtime 1.31 leaves memory as it is, and does not end where there is padding.
    return g.cast(biased(g, weight.shape[1], added, operands, wide), wide, x.dtype)


def biased(g: Graph, extents: Dim, build: Callable[..., Operand], operands: Sequence[Operand],
           wide: DType) -> Operand:  # fmt: skip
    """The result of `build` for x, weight and a bias that may be None, or the bias alone where `extents` may be 0."""
    if dims.equal(extents, 0) is False:
        return build(g, *operands)
    x, weight, bias = operands
    return plus_bias(g, unless_empty(g, extents, lambda inner: build(inner, x, weight), wide, always=True), bias)


def plus_bias(g: Graph, done: Operand, bias: Operand | None) -> Operand:
    """A convolution with its bias, which may be None."""
    if bias is None:
        return done
    column = g.node("Unsqueeze", bias, g.numbers(list(range(1, g.result.rank - 1))))
    return g.node("Add", done, column)


def within_strides(strides: Sequence[int], high: Sequence[int],
                   output_padding: Sequence[int]) -> tuple[list[int], list[int], list[int]]:  # fmt: skip
    """What is cropped of the end, the output padding, and the rest of it, rows that no kernel reaches: ONNX Runtime
    1.31 takes an output padding below the stride alone. A larger one crops less, as it does in any case."""
    cropped, extra, rest = list(high), list(output_padding), [0] * len(strides)
    for axis, stride in enumerate(strides):
        if extra[axis] >= stride:
            kept = min(extra[axis], cropped[axis])
            cropped[axis], extra[axis] = cropped[axis] - kept, extra[axis] - kept
        if extra[axis] >= stride:
            extra[axis], rest[axis] = 0, extra[axis]
    return cropped, extra, rest


@emits("conv_transpose")
def conv_transpose(
    g: Graph, x: Value, weight: Value, bias: Value | None = None, *, strides: tuple[int, ...],
    dilations: tuple[int, ...], low: tuple[Dim, ...], high: tuple[Dim, ...], output_padding: tuple[Dim, ...],
    groups: int,
) -> Operand:  # fmt: skip
    if x.rank < 3 or not all(isinstance(amount, int) for amount in (*low, *high, *output_padding)):
        raise UnsupportedError("ConvTranspose needs a spatial axis and padding that is known")
    wide = g.carrier("ConvTranspose", x.dtype)
    operands = [None if each is None else g.cast(each, x.dtype, wide) for each in (x, weight, bias)]
    cropped, extra, rest = within_strides(strides, cast(Sequence[int], high), cast(Sequence[int], output_padding))

    def added(inner: Graph, image: Operand, kernel: Operand, bias: Operand | None = None) -> Operand:
        done = inner.node("ConvTranspose", image, kernel, bias if is_zero(rest) else None, strides=ones(strides),
                          dilations=ones(dilations), pads=None if is_zero((*low, *cropped)) else [*low, *cropped],
                          output_padding=None if is_zero(extra) else extra,
                          group=groups if groups != 1 else None)  # fmt: skip
        if is_zero(rest):
            return done
        return plus_bias(inner, inner.node("Pad", done, vector(inner, (0,) * (x.rank + 2) + tuple(rest))), bias)

    # ONNX Runtime 1.31 reads what is not there where one of three spatial axes is empty, and dies.
    extents = dims.product(x.shape[2:]) if x.rank >= 5 else 1
    return g.cast(biased(g, extents, added, operands, wide), wide, x.dtype)


# -- windows -----------------------------------------------------------------------------------------------------


@emits("window_reduce")
def window_reduce(g: Graph, x: Value, *, kind: str, window: tuple[Dim, ...], strides: tuple[int, ...],
                  dilations: tuple[int, ...], low: tuple[Dim, ...], high: tuple[Dim, ...]) -> Operand:  # fmt: skip
    """MaxPool, or a Conv by ones, over the axes that have a window; the others are folded into the first two."""
    axes = [i for i, size in enumerate(window)
            if not (size == 1 and strides[i] == 1 and low[i] == 0 and high[i] == 0)]  # fmt: skip
    op_type = "MaxPool" if kind == "max" else "Conv"
    wide = g.carrier(op_type, x.dtype, compares=kind == "max")
    if not axes:
        return x if kind == "max" else g.cast(begun_with_0(g, g.cast(x, x.dtype, wide), wide, x), wide, x.dtype)
    sizes = [size for i in axes if isinstance(size := window[i], int)]
    if len(axes) > 3 or len(sizes) < len(axes):
        raise UnsupportedError("windows slide over more than three axes, or have no fixed size")
    lower, upper = ([each[i] for i in axes] for each in (low, high))
    known = all(isinstance(amount, int) for amount in (*lower, *upper))
    # ONNX Runtime takes no padding as large as the window, not even where it is a Pad of integers before MaxPool.
    is_small = known and all(
        dims.less(amount, size) is True for amount, size in zip((*lower, *upper), 2 * sizes, strict=True)
    )
    if kind == "max" and not is_small and wide.is_integer:
        wide = F32
    others = [i for i in range(x.rank) if i not in axes]
    order = [*others, *axes]
    source: Operand = g.cast(x, x.dtype, wide)
    before = source
    if order != list(range(x.rank)):
        source = g.node("Transpose", source, perm=order)
    leading, spatial = ([x.shape[i] for i in group] for group in (others, axes))
    moved = [g.result.shape[i] for i in order]
    folded = (dims.product(leading), 1, *moved[len(others):])
    is_folded = len(leading) != 2 or (kind == "sum" and leading[1] != 1)
    if is_folded:
        source = reshaped_exactly(g, source, wide, (dims.product(leading), 1, *spatial))
    pads = None if is_zero((*lower, *upper)) else [*lower, *upper]
    if pads and not (is_small or (kind == "sum" and known)):
        filling = identity("max" if kind == "max" else "sum", wide)
        source, pads = g.node("Pad", source, vector(g, (0, 0, *lower, 0, 0, *upper)), g.numbers(filling, wide)), None
        bottom = None if wide is x.dtype or not x.dtype.is_integer else g.numbers(float(identity("max", x.dtype)), wide)
    else:
        bottom = None
    windows: dict[str, Any] = {
        "strides": ones([strides[i] for i in axes]),
        "dilations": ones([dilations[i] for i in axes]),
        "pads": pads,
    }
    if kind == "max":
        if guards_nan(g, x):
            type_ = TensorType(wide, folded if is_folded else moved)
            done = edges.max_pool(g, source, type_, before, kernel_shape=sizes, **windows)
        else:
            done = g.node("MaxPool", source, kernel_shape=sizes, **windows)
        done = done if bottom is None else g.node("Max", done, bottom)  # a window of padding only
    else:
        done = g.node("Conv", source, g.filled(1, (1, 1, *sizes), wide, "ones"), **windows)
    if is_folded:
        done = reshaped_exactly(g, done, wide, moved)
    if order != list(range(x.rank)):
        done = g.node("Transpose", done, perm=inverse(order))
    return g.cast(done, wide, x.dtype)


# -- scans -------------------------------------------------------------------------------------------


@emits("scan")
def scan(g: Graph, x: Value, *, kind: Running, axis: int, reverse: bool, exclusive: bool) -> Operand:
    """CumSum; other scans by the operator Scan, whose body combines one slice with the result so far."""
    if dims.equal(x.type.elements, 0) is True:
        return x
    if kind == "sum":
        wide = g.carrier("CumSum", x.dtype, wraps=True)
        done = g.node(
            "CumSum", g.cast(x, x.dtype, wide), g.numbers(axis), reverse=reverse or None, exclusive=exclusive or None
        )
        return g.cast(begun_with_0(g, done, wide, x), wide, x.dtype)
    op_type = {"prod": "Mul", "max": "Max", "min": "Min", "log_sum_exp": "Exp"}[kind]
    wide = g.carrier(op_type, x.dtype, wraps=kind == "prod")
    place, source = axis % x.rank, g.cast(x, x.dtype, wide)
    slice_type = TensorType(wide, (*x.shape[:place], *x.shape[place + 1 :]))
    start = g.node("Expand", g.numbers(identity(kind, wide), wide), g.shape(slice_type.dims))

    def step(inner: Graph, before: str, element: str) -> list[Operand]:
        if kind == "log_sum_exp":
            after = added_exponentials(inner, wide, before, element)
        else:
            after = combined(inner, op_type, wide, before, element)
        return [after, inner.node("Identity", before if exclusive else after)]

    body = subgraph(g, "step", [slice_type] * 2, [slice_type] * 2, step)
    done = scanned(g, start, source, x.shape, place, body, reverse)
    return g.cast(done, wide, x.dtype)


def added_exponentials(g: Graph, dtype: DType, x: str, y: str) -> Operand:
    """The logarithm of exp(x) + exp(y): the larger one plus log(1 + exp(-d)), where two infinities are 0 apart."""
    zero, one = g.numbers(0, dtype), g.numbers(1, dtype)
    apart = g.node("Where", g.node("Equal", x, y), zero, g.node("Abs", g.node("Sub", x, y)))
    smaller = g.node("Add", g.node("Exp", g.node("Neg", apart)), one)
    larger = g.node("Where", g.node("Greater", x, y), x, y)
    return g.node("Add", larger, g.node("Log", smaller))


def combined(g: Graph, op_type: str, dtype: DType, x: str, y: str) -> Operand:
    """The product or an extreme of two tensors; of i64 chosen by a comparison, since Max and Min may choose wrong."""
    if dtype is not I64 or op_type == "Mul":
        return g.node(op_type, x, y)
    return g.node("Where", g.node("Greater" if op_type == "Max" else "Less", x, y), x, y)
