"""Rows of matrix products, convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence

from irc import dims, ops
from irc.diagnostics import fail
from irc.dims import Dim
from irc.frontends.onnx.reading import carry, wants
from irc.frontends.onnx.table import Ints, reads
from irc.ir import Value


@reads("MatMul")
def matmul(a: Value, b: Value, /):
    return ops.matmul(a, b)


@reads("Gemm")
def gemm(a: Value, b: Value, c: Value | None = None, /, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
         transB: int = 0):
    return ops.gemm(a, b, c, alpha=alpha, beta=beta, transpose_a=bool(transA), transpose_b=bool(transB))


# -- windows --------------------------------------------------------------------------------------------------------


def spatial(x: Value, name: str) -> tuple[Dim, ...]:
    """The extents after batch and channels."""
    if x.rank < 3:
        raise fail("type.rank", f"{name}: {x.type} has no spatial axes", expected="[N, C, D, ...]")
    return x.shape[2:]


def static(extents: Sequence[Dim], what: str) -> tuple[int, ...]:
    if not all(isinstance(extent, int) for extent in extents):
        carry(f"{what} is not known before it runs")
    return tuple(extent for extent in extents if isinstance(extent, int))


def per_axis(given: Ints | None, count: int, default: int, name: str) -> tuple[int, ...]:
    """A list attribute with one entry for each spatial axis."""
    if given is not None and len(given) != count:
        raise fail("onnx.invalid", f"{name} has {len(given)} entries", expected=str(count))
    return (default,) * count if given is None else given


def padding(extents: Sequence[Dim], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
            pads: Ints | None, auto_pad: str) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """What is added before and after each axis: SAME keeps ceil(extent / stride) windows."""
    count = len(extents)
    if auto_pad == "NOTSET":
        given = per_axis(pads, 2 * count, 0, "pads")
        return given[:count], given[count:]
    if auto_pad == "VALID":
        return (0,) * count, (0,) * count
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise fail("onnx.invalid", f"auto_pad is {auto_pad!r}", expected="NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    smaller, larger = [], []
    for whole, window, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        reach = (dims.ceil_divide(whole, max(stride, 1)) - 1) * stride + (window - 1) * dilation + 1
        both = dims.maximum(reach - whole, 0)
        smaller.append(dims.floor_divide(both, 2))
        larger.append(both - smaller[-1])
    return (tuple(smaller), tuple(larger)) if auto_pad == "SAME_UPPER" else (tuple(larger), tuple(smaller))


@reads("Conv")
def conv(x: Value, weight: Value, bias: Value | None = None, /, *, auto_pad: str = "NOTSET", dilations: Ints = None,
         group: int = 1, kernel_shape: Ints = None, pads: Ints = None, strides: Ints = None):
    extents = spatial(x, "Conv")
    steps = per_axis(strides, len(extents), 1, "strides")
    spread = per_axis(dilations, len(extents), 1, "dilations")
    kernel = kernel_of(weight, kernel_shape, len(extents)) if auto_pad.startswith("SAME") else (1,) * len(extents)
    low, high = padding(extents, kernel, steps, spread, pads, auto_pad)
    if any(amount < 0 for amount in (*low, *high) if isinstance(amount, int)):
        carry("its padding is negative")
    return ops.conv(x, weight, bias, strides=steps, dilations=spread, low=low, high=high, groups=group)


def kernel_of(weight: Value, kernel_shape: Ints | None, count: int) -> tuple[int, ...]:
    return per_axis(kernel_shape, count, 1, "kernel_shape") if kernel_shape is not None else (
        static(spatial(weight, "the weight"), "the kernel"))


@reads("ConvTranspose")
def conv_transpose(x: Value, weight: Value, bias: Value | None = None, /, *, auto_pad: str = "NOTSET",
                   dilations: Ints = None, group: int = 1, kernel_shape: Ints = None, output_padding: Ints = None,
                   output_shape: Ints = None, pads: Ints = None, strides: Ints = None):
    extents = spatial(x, "ConvTranspose")
    count = len(extents)
    steps = per_axis(strides, count, 1, "strides")
    spread = per_axis(dilations, count, 1, "dilations")
    extra = per_axis(output_padding, count, 0, "output_padding")
    if output_shape is None and auto_pad in ("NOTSET", "VALID"):
        low, high = padding(extents, (1,) * count, steps, spread, pads, auto_pad)
    else:
        low, high = cropping(extents, kernel_of(weight, kernel_shape, count), steps, spread, extra, output_shape, auto_pad)
    if any(dims.less(amount, 0) is not False for amount in (*low, *high)):
        carry("its padding is or may be negative")
    return ops.conv_transpose(x, weight, bias, strides=steps, dilations=spread, low=low, high=high,
                              output_padding=extra, groups=group)


def cropping(extents: Sequence[Dim], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
             extra: Sequence[int], output_shape: Ints | None, auto_pad: str) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """What a transposed convolution leaves out on each side to reach the output's extents: extent * stride, unless
    they are given."""
    given = None if output_shape is None else output_shape[-len(extents):]
    wanted = per_axis(given, len(extents), 0, "output_shape") if given is not None else [
        extent * stride for extent, stride in zip(extents, strides, strict=True)]
    low, high = [], []
    for whole, window, stride, dilation, more, target in zip(extents, kernel, strides, dilations, extra, wanted, strict=True):
        both = stride * (whole - 1) + more + (window - 1) * dilation + 1 - target
        half = dims.floor_divide(both, 2)
        before, after = (half, both - half) if auto_pad == "SAME_UPPER" else (both - half, half)
        low.append(before)
        high.append(after)
    return tuple(low), tuple(high)


def rounded_up(extents: Sequence[Dim], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
               low: Sequence[Dim], high: Sequence[Dim]) -> tuple[Dim, ...]:
    """`high` for ceil_mode: one more window where one is begun, if it begins within x or the padding before it."""
    result = []
    for whole, window, stride, dilation, before, after in zip(extents, kernel, strides, dilations, low, high, strict=True):
        reach = dilation * (window - 1) + 1
        more = dims.ceil_divide(whole + before + after - reach, max(stride, 1))
        # Windows beyond floor((whole + before - 1) / stride) would begin behind x.
        more = dims.minimum(more, dims.floor_divide(whole + before - 1, max(stride, 1)))
        result.append(dims.maximum(more * stride + reach - whole - before, 0))
    return tuple(result)


@reads("MaxPool")
def max_pool(x: Value, /, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Ints = None,
             pads: Ints = None, storage_order: int = 0, strides: Ints = None):
    if wants(1):
        carry("the indices are asked for as well")
    extents = spatial(x, "MaxPool")
    kernel = per_axis(kernel_shape, len(extents), 1, "kernel_shape")
    steps = per_axis(strides, len(extents), 1, "strides")
    spread = per_axis(dilations, len(extents), 1, "dilations")
    low, high = padding(extents, kernel, steps, spread, pads, auto_pad)
    if ceil_mode:
        high = rounded_up(extents, kernel, steps, spread, low, high)
    return ops.max_pool(x, kernel=kernel, strides=steps, low=low, high=high, dilations=spread)


@reads("AveragePool")
def average_pool(x: Value, /, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0,
                 count_include_pad: int = 0, dilations: Ints = None, pads: Ints = None, strides: Ints = None):
    extents = spatial(x, "AveragePool")
    kernel = per_axis(kernel_shape, len(extents), 1, "kernel_shape")
    steps = per_axis(strides, len(extents), 1, "strides")
    spread = per_axis(dilations, len(extents), 1, "dilations")
    low, high = padding(extents, kernel, steps, spread, pads, auto_pad)
    counted = bool(count_include_pad)
    if ceil_mode:
        further = rounded_up(extents, kernel, steps, spread, low, high)
        if counted and further != high:
            # What the padding adds counts, what the rounding up adds does not: so the padding becomes elements.
            x = ops.pad(x, low=(0, 0, *low), high=(0, 0, *high))
            further = tuple(dims.maximum(more - after, 0) for more, after in zip(further, high, strict=True))
            low, counted = (0,) * len(extents), False
        high = further
    return ops.average_pool(x, kernel=kernel, strides=steps, low=low, high=high, dilations=spread,
                            count_include_pad=counted)


@reads("GlobalAveragePool")
def global_average_pool(x: Value, /):
    return ops.global_average_pool(x)


@reads("GlobalMaxPool")
def global_max_pool(x: Value, /):
    return ops.global_max_pool(x)
