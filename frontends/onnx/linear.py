"""Rows of matrix products, convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from irc import dims, ops
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import accumulator_of
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


@reads("Einsum", since=12)
def einsum(x: Value, y: Value | None = None, /, *others: Value, equation: str):
    """One operand is summed and transposed, two are a `dot`; more, and repeated or elided axes, are carried."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    labels = inputs.split(",")
    if not arrow:
        output = "".join(sorted(label for label in set(inputs) if inputs.count(label) == 1 and label != ","))
    if others or "." in equation or any(len(set(each)) < len(each) for each in labels):
        carry("it has more than two operands, or repeated or elided axes")
    values = [value for value in (x, y) if value is not None]
    if [value.rank for value in values] != [len(each) for each in labels] or not set(output) <= set(inputs) - {","}:
        raise fail("onnx.invalid", f"Einsum: {equation!r} does not fit its operands")
    for index, (value, axis_labels) in enumerate(zip(values, labels, strict=True)):
        kept = output + "".join(labels[:index] + labels[index + 1 :])
        gone = tuple(axis for axis, label in enumerate(axis_labels) if label not in kept)
        if gone:
            values[index] = ops.reduce_sum(value, axes=gone)
            labels[index] = "".join(label for label in axis_labels if label in kept)
    result, result_labels = values[0], labels[0]
    if len(values) == 2:
        both = [label for label in result_labels if label in labels[1]]
        pairs = {label: (result_labels.index(label), labels[1].index(label)) for label in both}
        if any(dims.equal(values[0].shape[i], values[1].shape[j]) is False for i, j in pairs.values()):
            carry("an axis of extent 1 is repeated")
        result = ops.dot(*values, batch=tuple(pairs[label] for label in both if label in output),
                         contract=tuple(pairs[label] for label in both if label not in output),
                         accumulate=accumulator_of(x.dtype))
        alone = [label for axis_labels, other in (labels, labels[::-1]) for label in axis_labels if label not in other]
        result_labels = "".join([label for label in both if label in output] + alone)
    order = tuple(result_labels.index(label) for label in output)
    return result if order == tuple(range(len(order))) else ops.transpose(result, permutation=order)


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
def conv(
    x: Value, weight: Value, bias: Value | None = None, /, *,
    auto_pad: str = "NOTSET", dilations: Ints | None = None, group: int = 1, kernel_shape: Ints | None = None,
    pads: Ints | None = None, strides: Ints | None = None,
):  # fmt: skip
    extents = spatial(x, "Conv")
    steps = per_axis(strides, len(extents), 1, "strides")
    spread = per_axis(dilations, len(extents), 1, "dilations")
    kernel = kernel_of(weight, kernel_shape, len(extents)) if auto_pad.startswith("SAME") else (1,) * len(extents)
    low, high = padding(extents, kernel, steps, spread, pads, auto_pad)
    if any(amount < 0 for amount in (*low, *high) if isinstance(amount, int)):
        carry("its padding is negative")
    return ops.conv(x, weight, bias, strides=steps, dilations=spread, low=low, high=high, groups=group)


def kernel_of(weight: Value, kernel_shape: Ints | None, count: int) -> tuple[int, ...]:
    """The kernel's extents: stated, or else those of the weight."""
    stated = static(spatial(weight, "the weight"), "the kernel") if kernel_shape is None else kernel_shape
    return per_axis(stated, count, 1, "the kernel's shape")


@reads("ConvTranspose")
def conv_transpose(
    x: Value, weight: Value, bias: Value | None = None, /, *,
    auto_pad: str = "NOTSET", dilations: Ints | None = None, group: int = 1, kernel_shape: Ints | None = None,
    output_padding: Ints | None = None, output_shape: Ints | None = None, pads: Ints | None = None,
    strides: Ints | None = None,
):  # fmt: skip
    extents = spatial(x, "ConvTranspose")
    count = len(extents)
    steps = per_axis(strides, count, 1, "strides")
    spread = per_axis(dilations, count, 1, "dilations")
    extra = per_axis(output_padding, count, 0, "output_padding")
    if output_shape is None and auto_pad in ("NOTSET", "VALID"):
        low, high = padding(extents, (1,) * count, steps, spread, pads, auto_pad)
    else:
        kernel = kernel_of(weight, kernel_shape, count)
        low, high = cropping(extents, kernel, steps, spread, extra, output_shape, auto_pad)
    if any(dims.less(amount, 0) is not False for amount in (*low, *high)):
        carry("its padding is or may be negative")
    return ops.conv_transpose(x, weight, bias, strides=steps, dilations=spread, low=low, high=high,
                              output_padding=extra, groups=group)


def cropping(extents: Sequence[Dim], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
             extra: Sequence[int], output_shape: Ints | None, auto_pad: str) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """What a transposed convolution leaves out on each side to reach the output's extents: extent * stride, unless
    they are given."""
    given = None if output_shape is None else output_shape[-len(extents):]
    targets = per_axis(given, len(extents), 0, "output_shape") if given is not None else [
        extent * stride for extent, stride in zip(extents, strides, strict=True)]
    low, high = [], []
    axes = zip(extents, kernel, strides, dilations, extra, targets, strict=True)
    for whole, window, stride, dilation, more, target in axes:
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
    axes = zip(extents, kernel, strides, dilations, low, high, strict=True)
    for whole, window, stride, dilation, before, after in axes:
        reach = dilation * (window - 1) + 1
        more = dims.ceil_divide(whole + before + after - reach, max(stride, 1))
        # Windows beyond floor((whole + before - 1) / stride) would begin after x.
        more = dims.minimum(more, dims.floor_divide(whole + before - 1, max(stride, 1)))
        result.append(dims.maximum(more * stride + reach - whole - before, 0))
    return tuple(result)


class Windows(NamedTuple):
    """How a pooling operator walks over x; one entry for each spatial axis."""

    extents: tuple[Dim, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[Dim, ...]
    high: tuple[Dim, ...]  # the requested padding
    further: tuple[Dim, ...]  # what ceil_mode makes of it

    def arguments(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "strides": self.strides, "dilations": self.dilations, "low": self.low,
                "high": self.further}


def windows(x: Value, name: str, kernel_shape: Ints, auto_pad: str, ceil_mode: int, dilations: Ints | None,
            pads: Ints | None, strides: Ints | None) -> Windows:
    """What the pooling operators share."""
    extents = spatial(x, name)
    kernel = per_axis(kernel_shape, len(extents), 1, "kernel_shape")
    steps = per_axis(strides, len(extents), 1, "strides")
    spread = per_axis(dilations, len(extents), 1, "dilations")
    low, high = padding(extents, kernel, steps, spread, pads, auto_pad)
    further = rounded_up(extents, kernel, steps, spread, low, high) if ceil_mode else high
    return Windows(extents, kernel, steps, spread, low, high, further)


@reads("MaxPool")
def max_pool(
    x: Value, /, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Ints | None = None,
    pads: Ints | None = None, storage_order: int = 0, strides: Ints | None = None,
):  # fmt: skip
    if wants(1):
        carry("the indices are requested as well")
    around = windows(x, "MaxPool", kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    return ops.max_pool(x, **around.arguments())


@reads("AveragePool")
def average_pool(
    x: Value, /, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
    dilations: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None,
):  # fmt: skip
    around = windows(x, "AveragePool", kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    if count_include_pad and around.further != around.high:
        # What the padding adds counts, what the rounding up adds does not: so the padding becomes elements.
        x = ops.pad(x, low=(0, 0, *around.low), high=(0, 0, *around.high))
        rest = zip(around.further, around.high, strict=True)
        around = around._replace(low=(0,) * len(around.low), further=tuple(dims.maximum(a - b, 0) for a, b in rest))
        return ops.average_pool(x, **around.arguments())
    return ops.average_pool(x, **around.arguments(), count_include_pad=bool(count_include_pad))


def check_norm(op_type: str, p: int) -> None:
    if p < 1:
        raise fail("onnx.invalid", f"{op_type}: attribute `p` is {p}", expected="1 or more")


@reads("LpPool")
def lp_pool(
    x: Value, /, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Ints | None = None,
    p: int = 2, pads: Ints | None = None, strides: Ints | None = None,
):  # fmt: skip
    check_norm("LpPool", p)
    window = windows(x, "LpPool", kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    total = ops.window_reduce(
        ops.pow_(ops.abs_(x), p), kind="sum", window=(1, 1, *window.kernel), strides=(1, 1, *window.strides),
        dilations=(1, 1, *window.dilations), low=(0, 0, *window.low), high=(0, 0, *window.further),
    )  # fmt: skip
    return ops.pow_(total, 1 / p)


@reads("GlobalLpPool")
def global_lp_pool(x: Value, /, *, p: int = 2):
    check_norm("GlobalLpPool", p)
    axes = tuple(range(2, 2 + len(spatial(x, "GlobalLpPool"))))
    return ops.pow_(ops.reduce_sum(ops.pow_(ops.abs_(x), p), axes=axes, keep_dims=True), 1 / p)


@reads("GlobalAveragePool")
def global_average_pool(x: Value, /):
    return ops.global_average_pool(x)


@reads("GlobalMaxPool")
def global_max_pool(x: Value, /):
    return ops.global_max_pool(x)
