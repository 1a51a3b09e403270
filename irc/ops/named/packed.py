"""Products with weights of a few bits, several to a byte, and a scale for each block of them."""

from __future__ import annotations

from irc import dims
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import U8, accumulator_of
from irc.interfaces import Trait
from irc.ir import Value
from irc.op import Float, Integer, Real, op
from irc.ops.named.common import convert
from irc.ops.named.linear import matmul
from irc.ops.pointwise import bitwise_and, mul, shift_right, sub
from irc.ops.rules import same_dtype
from irc.ops.view import expand, iota, reshape, slice_, transpose
from irc.types import TensorType

WIDTHS = (2, 4, 8)  # bits of a weight, which do not cross bytes


@op(Trait.LIBRARY)
def matmul_packed(
    x: Float, weight: Integer, scale: Float, zero_point: Real | None = None, /, *, bits: int, block: int
) -> Value:
    """x @ w.T, where w[n, k] is (q[n, k] - zero_point) * scale of a block of K.

    Shapes: x [..., K]; weight u8[N, G, block * bits / 8] for G = ceil(K / block), the lowest bits first;
    scale [N, G], one for each block; zero_point [N, G] of x's type, or u8[N, ceil(G * bits / 8)] with entries in bytes
    as in weight; 2 ** (bits - 1) where it is absent. Result: [..., N].
    Attributes: bits of each q: 2, 4 or 8; block, how many q a block has, which are whole bytes.
    Source: MatMulNBits of ONNX Runtime.
    Edge cases: entries of weight and zero_point after the last have no meaning. w is rounded to x's type.
    """
    depth, (columns, blocks) = x.shape[-1], scale.shape
    codes = reshape(unpacked(weight, bits), shape=(columns, blocks * block))
    wide = accumulator_of(x.dtype)
    values = convert(slice_(codes, starts=(0, 0), stops=(columns, depth), steps=(1, 1)), wide)
    if zero_point is None:
        values = sub(values, 2 ** (bits - 1))
    else:
        points = unpacked(zero_point, bits) if zero_point.dtype is U8 else zero_point
        values = sub(values, _of_each(convert(points, wide), blocks, block, depth))
    values = mul(values, _of_each(convert(scale, wide), blocks, block, depth))
    return matmul(x, transpose(convert(values, x.dtype), permutation=(1, 0)))


def unpacked(packed: Value, bits: int) -> Value:
    """The integers in the bytes of a tensor, along its last axis, as bytes."""
    each = 8 // bits
    if each == 1:
        return packed
    *leading, size = packed.shape
    bytes_ = expand(reshape(packed, shape=(*leading, size, 1)), shape=(*leading, size, each))
    places = mul(iota(shape=(each,), axis=0, dtype=U8), bits)
    return reshape(bitwise_and(shift_right(bytes_, places), 2**bits - 1), shape=(*leading, size * each))


def _of_each(parameter: Value, blocks: Dim, block: int, depth: Dim) -> Value:
    """A parameter of blocks for each element of a row: [N, at least G] -> [N, K]."""
    columns = parameter.shape[0]
    used = slice_(parameter, starts=(0, 0), stops=(columns, blocks), steps=(1, 1))
    spread = expand(reshape(used, shape=(columns, blocks, 1)), shape=(columns, blocks, block))
    rows = reshape(spread, shape=(columns, blocks * block))
    return slice_(rows, starts=(0, 0), stops=(columns, depth), steps=(1, 1))


@matmul_packed.types
def _(
    x: TensorType, weight: TensorType, scale: TensorType, zero_point: TensorType | None = None, *, bits: int, block: int
) -> TensorType:
    if bits not in WIDTHS or block < 1 or block * bits % 8:
        expected = "2, 4 or 8 bits, and blocks of whole bytes"
        raise fail("type.attribute", f"bits is {bits} and block {block}", expected=expected)
    same_dtype(x, scale)
    if x.rank == 0 or weight.rank != 3 or scale.rank != 2:
        expected = "[..., K], [N, G, bytes of a block] and [N, G]"
        raise fail("type.rank", f"x is {x}, weight {weight} and scale {scale}", expected=expected)
    if weight.dtype is not U8 or (zero_point is not None and zero_point.dtype not in (U8, x.dtype)):
        raise fail("type.dtype", f"weight is {weight} and zero_point {zero_point}", expected="u8")
    columns, blocks = scale.dims
    _must_have("weight", weight, (columns, blocks, block * bits // 8))
    if zero_point is not None:
        is_packed = zero_point.dtype is U8
        _must_have("zero_point", zero_point, (columns, dims.ceil_divide(blocks * bits, 8) if is_packed else blocks))
    if dims.equal(blocks, dims.ceil_divide(x.dims[-1], block)) is False:
        raise fail("type.shape", f"scale is {scale} and x {x}", expected=f"a scale for each {block} of {x.dims[-1]}")
    return x.with_shape((*x.dims[:-1], columns))


def _must_have(name: str, operand: TensorType, shape: tuple[Dim, ...]) -> None:
    if operand.rank != len(shape) or any(dims.equal(*pair) is False for pair in zip(operand.dims, shape, strict=True)):
        raise fail("type.shape", f"{name} is {operand}", expected=f"[{', '.join(map(str, shape))}]")
