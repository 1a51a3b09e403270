"""Elements of an image at positions that another tensor gives."""

from __future__ import annotations

import itertools
from functools import reduce
from typing import Literal

from irc import dims
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import I64, DType, accumulator_of
from irc.ir import Value
from irc.op import Float, op
from irc.ops.functions import floor, round_
from irc.ops.indexing import gather
from irc.ops.named.common import convert, must_equal, number
from irc.ops.pointwise import (
    abs_,
    add,
    bitwise_and,
    cast,
    div,
    greater_equal,
    is_nan,
    less_equal,
    maximum,
    minimum,
    mul,
    select,
    sub,
)
from irc.ops.view import iota, reshape, slice_
from irc.types import TensorType

SampleMode = Literal["linear", "nearest", "cubic"]
Padding = Literal["zeros", "border", "reflection"]
CUBIC = -0.75  # the constant a of the cubic, in PyTorch and in ONNX


@op
def grid_sample(x: Float, grid: Float, /, *, mode: SampleMode = "linear", padding: Padding = "zeros",
                align_corners: bool = False) -> Value:
    """x at the positions in `grid`, between its elements: what moves, turns or warps an image.

    Shapes: x [N, C, D1, ..., Dn], grid [N, O1, ..., On, n] -> [N, C, O1, ..., On], with n = 2 or 3 (cubic: 2). The last
    axis of grid holds a position, its last coordinate first (x, y in a [N, C, height, width] image); -1 and 1 are the
    ends of an axis.
    Attributes: mode: how elements around a position are weighed; padding: what lies outside of x; align_corners:
    whether the ends are the centers of the outermost elements, or their far edges.
    Source: ONNX GridSample-20; torch.nn.functional.grid_sample, where linear is called bilinear.
    Edge cases: "nearest" rounds half to even, after reflecting (as PyTorch; ONNX rounds first). A coordinate that is
    NaN is 0 after padding that clamps it into the axis (as PyTorch), as is one that is infinite after reflecting;
    otherwise the result is NaN, of "nearest" 0. ONNX leaves these open, and ONNX Runtime takes some element.
    """
    wide, sizes = accumulator_of(x.dtype), x.shape[2:]
    where = [_coordinate(grid, len(sizes) - 1 - axis, size, align_corners, wide) for axis, size in enumerate(sizes)]
    image = convert(x, wide)
    if mode == "nearest":
        where = [round_(_kept(at, size, padding, align_corners)) for at, size in zip(where, sizes, strict=True)]
        return convert(_elements(image, where, grid), x.dtype)
    if mode == "linear":
        where = [_kept(at, size, padding, align_corners) for at, size in zip(where, sizes, strict=True)]
    first = [floor(at) for at in where]
    around = []  # along each axis the elements around a position, and their weights
    for at, low, size in zip(where, first, sizes, strict=True):
        weights = _weights(sub(at, low), mode)
        taps = [add(low, float(place - (mode == "cubic"))) for place in range(len(weights))]
        if mode == "cubic":
            taps = [_kept(tap, size, padding, align_corners) for tap in taps]
        around.append(list(zip(taps, weights, strict=True)))
    terms = []
    for chosen in itertools.product(*around):
        elements = _elements(image, [tap for tap, _ in chosen], grid)
        terms.append(mul(elements, _beside_channels(reduce(mul, (weight for _, weight in chosen)))))
    return convert(reduce(add, terms), x.dtype)


@grid_sample.types
def _(x: TensorType, grid: TensorType, *, mode: str, padding: str, align_corners: bool) -> TensorType:
    axes = x.rank - 2
    if axes not in ((2,) if mode == "cubic" else (2, 3)):
        expected = "[N, C, H, W]" + ("" if mode == "cubic" else " or [N, C, D, H, W]")
        raise fail("type.rank", f"x is {x}", expected=expected)
    if grid.rank != x.rank:
        raise fail("type.rank", f"grid is {grid}", expected=f"as many axes as {x}")
    must_equal("the length of grid's positions", grid.dims[-1], axes)
    must_equal("the batch of grid", grid.dims[0], x.dims[0])
    for size in x.dims[2:]:
        if dims.equal(size, 0) is True:
            raise fail("type.shape", f"x is {x}", expected="at least one element along each axis")
    return x.with_shape((*x.dims[:2], *grid.dims[1:-1]))


def _coordinate(grid: Value, place: int, size: Dim, align_corners: bool, wide: DType) -> Value:
    """One coordinate of the positions, [N, *O], in elements of its axis."""
    rank = grid.rank
    starts = (0,) * (rank - 1) + (place,)
    part = slice_(grid, starts=starts, stops=(*grid.shape[:-1], place + 1), steps=(1,) * rank)
    at = add(convert(reshape(part, shape=grid.shape[:-1]), wide), 1.0)
    if align_corners:
        return mul(mul(at, 0.5), number(size - 1, wide))
    return sub(mul(mul(at, 0.5), number(size, wide)), 0.5)


def _kept(at: Value, size: Dim, padding: str, align_corners: bool) -> Value:
    """A position, clamped or reflected into the axis where the padding does that."""
    if padding == "zeros":
        return at
    last = number(size - 1, at.dtype)
    if padding == "reflection":
        low, span = (0.0, last) if align_corners else (-0.5, number(size, at.dtype))
        away = abs_(sub(at, low))
        period = mul(maximum(span, 1.0), 2.0)  # of an axis of one element everything is clipped to it below
        rest = sub(away, mul(floor(div(away, period)), period))
        at = add(minimum(rest, sub(period, rest)), low)
    return minimum(maximum(select(is_nan(at), 0.0, at), 0.0), last)


def _weights(fraction: Value, mode: str) -> list[Value]:
    """The weights of the elements around a position at this distance from the element below it."""
    if mode == "linear":
        return [sub(1.0, fraction), fraction]

    def near(t: Value) -> Value:  # at a distance of at most 1
        return add(mul(mul(sub(mul(t, CUBIC + 2), CUBIC + 3), t), t), 1.0)

    def far(t: Value) -> Value:  # at a distance of 1 to 2
        return sub(mul(add(mul(sub(mul(t, CUBIC), 5 * CUBIC), t), 8 * CUBIC), t), 4 * CUBIC)

    rest = sub(1.0, fraction)
    return [far(add(fraction, 1.0)), near(fraction), near(rest), far(add(rest, 1.0))]


def _elements(image: Value, where: list[Value], grid: Value) -> Value:
    """The elements of every channel at whole positions, [N, C, *O]; 0 where one lies outside."""
    batch, channels, *sizes = image.shape
    shape = (batch, channels, *grid.shape[1:-1])
    inside = reduce(bitwise_and, (_is_inside(at, size) for at, size in zip(where, sizes, strict=True)))
    index = add(mul(iota(shape=shape, axis=0, dtype=I64), number(channels, I64)), iota(shape=shape, axis=1, dtype=I64))
    for at, size in zip(where, sizes, strict=True):
        place = cast(select(inside, at, 0.0), to=I64)
        index = add(mul(index, number(size, I64)), _beside_channels(place))
    flat = reshape(image, shape=(dims.product(image.shape),))
    return select(_beside_channels(inside), gather(flat, index, axis=0, bounds="promised"), 0.0)


def _is_inside(at: Value, size: Dim) -> Value:
    return bitwise_and(greater_equal(at, 0.0), less_equal(at, number(size - 1, at.dtype)))


def _beside_channels(x: Value) -> Value:
    """[N, *O] as [N, 1, *O]."""
    return reshape(x, shape=(x.shape[0], 1, *x.shape[1:]))
