"""Operations that are no kernel: calls of PyTorch. Operands first, attributes by keyword, as in the IR.

Conventions are NumPy's: operands broadcast, integers wrap and divide as `rounding` says, NaN stays NaN.
"""

from __future__ import annotations

import builtins
import math

import torch
import torch.nn.functional as F

from .elements import (
    FLOATS,
    LEAST,
    as_torch_knows,
    carried,
    divided,
    in_limbs,
    is_integer,
    narrowed,
    random_bits,
    selected,
    to_float8,
    to_float32,
)
from .errors import ArtefactError
from .windows import by_taps, check_windows, pooled, transposed_by_taps, transposed_of_nothing, transposes_at_once

# -- pointwise -------------------------------------------------------------------------------------------------

add, sub, mul, neg, bitwise_not = map(carried("wraps"), (
    torch.add, torch.sub, torch.mul, torch.neg, torch.bitwise_not))  # fmt: skip
floor, ceil, trunc, round, sqrt, exp, log, erf = map(carried("whole"), (
    torch.floor, torch.ceil, torch.trunc, torch.round, torch.sqrt, torch.exp, torch.log, torch.erf))  # fmt: skip
sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, asinh, acosh, atanh = map(carried("whole"), (
    torch.sin, torch.cos, torch.tan, torch.asin, torch.acos, torch.atan, torch.sinh, torch.cosh, torch.tanh,
    torch.asinh, torch.acosh, torch.atanh))  # fmt: skip
equal, not_equal, less, less_equal, greater, greater_equal, is_nan = map(carried("orders", values=0), (
    torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge, torch.isnan
))  # fmt: skip
minimum, maximum = map(carried("orders"), (torch.minimum, torch.maximum))
bitwise_and, bitwise_or, bitwise_xor = torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor
select, philox = selected, random_bits


@carried("whole")
def abs(x):
    return torch.abs(x) if x.dtype.is_signed else x


@carried("whole")
def sign(x):
    if x.dtype.is_floating_point:
        return torch.where(torch.isnan(x), x, torch.sign(x))
    return torch.sign(x) if x.dtype.is_signed else (x != 0).to(x.dtype)


@carried("whole")
def div(x, y, *, rounding="trunc", by_zero=None):
    if x.dtype.is_floating_point or x.dtype.is_complex:
        return torch.div(x, y)
    _check_divisor(x, y, by_zero)
    if x.dtype is torch.uint64:
        return divided(x, y)[0]
    quotient = torch.div(x, _safe(y), rounding_mode=rounding)
    if y.dtype.is_signed:
        quotient = torch.where(y == -1, -x, quotient)
    return torch.where(y == 0, torch.zeros_like(quotient), quotient)


@carried("whole")
def mod(x, y, *, rounding="floor", by_zero=None):
    remainder = torch.remainder if rounding == "floor" else torch.fmod
    if x.dtype.is_floating_point:
        return remainder(x, y)
    _check_divisor(x, y, by_zero)
    return divided(x, y)[1] if x.dtype is torch.uint64 else remainder(x, _safe(y))


def _check_divisor(x, y, by_zero):
    if by_zero == "error" and x.numel():
        _demand(y != 0, "an integer is divided by 0")


def _safe(y):
    """A divisor with 1 for 0, and for -1: of the least integer a processor would stop the process."""
    unsafe = (y == 0) | (y == -1) if y.dtype.is_signed else y == 0
    return torch.where(unsafe, torch.ones_like(y), y)


def _demand(condition, message):
    """Stop the run unless a condition holds everywhere; a GPU does so by itself, and is not waited for."""
    if condition.device.type != "cpu":
        torch._assert_async(condition.all(), message)
    elif not bool(condition.all()):
        raise ArtefactError(message)


@carried("whole")
def pow(x, y):
    if x.dtype.is_floating_point or x.dtype.is_complex:
        return torch.pow(x, y)
    if x.dtype is torch.uint64:  # powers of odd numbers repeat after 2**62, those of even ones are 0 from 2**64 on
        x, y = x.view(torch.int64), y.view(torch.int64)
        y = torch.where((x & 1) != 0, y & (2**62 - 1), torch.where((y < 0) | (y > 64), 64, y))
        return torch.pow(x, y).view(torch.uint64)
    power = torch.pow(x, torch.clamp(y, min=0))
    odd = torch.bitwise_and(y, 1) != 0
    inverse = torch.where(x == 1, 1, torch.where(x == -1, torch.where(odd, -1, 1), 0)).to(x.dtype)
    return torch.where(y < 0, inverse, power)


@carried("wraps")
def shift_left(x, y):
    inside = (y >= 0) & (y < 8 * x.dtype.itemsize)
    return torch.where(inside, torch.bitwise_left_shift(x, torch.where(inside, y, 0)), 0).to(x.dtype)


@carried("whole")
def shift_right(x, y):
    if x.dtype is torch.uint64:
        x, y = x.view(torch.int64), y.view(torch.int64)
        inside = (y > 0) & (y < 64)
        shifted = ((x >> 1) & ~LEAST) >> torch.where(inside, y - 1, 0)
        return torch.where(y == 0, x, torch.where(inside, shifted, 0)).view(torch.uint64)
    inside = (y >= 0) & (y < 8 * x.dtype.itemsize)
    empty = torch.where(x < 0, -1, 0).to(x.dtype)
    return torch.where(inside, torch.bitwise_right_shift(x, torch.where(inside, y, 0)), empty)


def is_inf(x, *, detect_positive=True, detect_negative=True):
    x = x.float() if x.dtype in FLOATS else x
    return (torch.isposinf(x) & detect_positive) | (torch.isneginf(x) & detect_negative)


def cast(x, *, to, saturate=True, bits=None):
    """`bits`: of an integer narrower than the byte that holds it."""
    x = x.float() if x.dtype in FLOATS and to != x.dtype else x
    if to is torch.bool:
        return x != 0
    if to is x.dtype and bits is None:
        return x
    if not x.dtype.is_floating_point or to.is_floating_point or to.is_complex:
        if to in (torch.float16, torch.bfloat16, *FLOATS) and not x.dtype.is_complex:
            x = to_float32(x)
        result = to_float8(x, to, saturate) if to in FLOATS else x.to(to)
        return result if bits is None else narrowed(result, bits)
    whole = torch.trunc(x.to(torch.float64))
    if not saturate:
        wide = 64 if to.itemsize == 8 or to is torch.uint32 else 32
        least = -(2 ** (wide - 1))
        fits = (whole >= least) & (whole < -least)
        result = torch.where(fits, torch.where(fits, whole, 0.0).to(torch.int64), least).to(to)
        if to is torch.uint64:
            large = (whole >= 2.0**63) & (whole < 2.0**64)
            result = torch.where(large, torch.where(large, whole, 0.0).to(to), result)
            result = torch.where(whole >= 2.0**64, torch.zeros_like(result), result)
        return result if bits is None else narrowed(result, bits)
    low, high = torch.iinfo(to).min, torch.iinfo(to).max
    if bits is not None:
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if low else (0, (1 << bits) - 1)
    above, below = whole >= float(high + 1), whole < low
    result = torch.where(above | below | torch.isnan(whole), 0.0, whole).to(to)
    return torch.where(above, result.new_tensor(high), torch.where(below, result.new_tensor(low), result))


def bitcast(x, *, to):
    return x.view(to)


# -- reductions ------------------------------------------------------------------------------------------------


def _accumulating(x):
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@carried("wraps")
def reduce_sum(x, *, axes, keep_dims=False):
    if not axes:
        return x
    wide = _accumulating(x)
    return torch.sum(wide, dim=list(axes), keepdim=keep_dims, dtype=wide.dtype).to(x.dtype)


@carried("wraps")
def reduce_prod(x, *, axes, keep_dims=False):
    result = _accumulating(x)
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        result = torch.prod(result, dim=axis, keepdim=keep_dims, dtype=result.dtype)
    return result.to(x.dtype)


def _extremum(x, axes, keep_dims, function, empty):
    if not axes:
        return x
    if x.numel() == 0:
        axes = {axis % x.ndim for axis in axes}
        shape = [1 if a in axes else e for a, e in enumerate(x.shape) if keep_dims or a not in axes]
        return torch.full(shape, empty, dtype=x.dtype, device=x.device)
    if x.dtype is torch.bool:
        return function(x.to(torch.uint8), dim=list(axes), keepdim=keep_dims) != 0
    return function(x, dim=list(axes), keepdim=keep_dims)


def _ends(dtype):
    if dtype is torch.bool:
        return False, True
    if dtype.is_floating_point:
        return -math.inf, math.inf
    return torch.iinfo(dtype).min, torch.iinfo(dtype).max


@carried("orders")
def reduce_max(x, *, axes, keep_dims=False):
    return _extremum(x, axes, keep_dims, torch.amax, _ends(x.dtype)[0])


@carried("orders")
def reduce_min(x, *, axes, keep_dims=False):
    return _extremum(x, axes, keep_dims, torch.amin, _ends(x.dtype)[1])


@carried("orders", values=0)
def argmax(x, *, axis, keep_dims=False, select_last=False):
    return _place(x, torch.amax, axis, keep_dims, select_last)


@carried("orders", values=0)
def argmin(x, *, axis, keep_dims=False, select_last=False):
    return _place(x, torch.amin, axis, keep_dims, select_last)


def _place(x, function, axis, keep_dims, select_last):
    if 0 in (shape := [size for place, size in enumerate(x.shape) if place != axis % x.ndim]):
        shape[axis % x.ndim : axis % x.ndim] = [1] if keep_dims else []
        return torch.zeros(shape, dtype=torch.int64, device=x.device)
    best = function(x, dim=axis, keepdim=True)
    attains = x == best
    if x.dtype.is_floating_point:
        attains = attains | (torch.isnan(best) & torch.isnan(x))
    shape = [1] * x.ndim
    shape[axis] = -1
    index = torch.arange(x.shape[axis], device=x.device).reshape(shape)
    if select_last:
        return torch.amax(torch.where(attains, index, -1), dim=axis, keepdim=keep_dims)
    return torch.amin(torch.where(attains, index, x.shape[axis]), dim=axis, keepdim=keep_dims)


# -- views -----------------------------------------------------------------------------------------------------


def reshape(x, *, shape, inferred=None):
    return x.reshape(shape)


def transpose(x, *, permutation):
    return x.permute(permutation)


def expand(x, *, shape):
    return x.expand(shape)


@carried("moves")
def slice(x, *, starts, stops, steps):
    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        if (start, stop, step) != (0, x.shape[axis], 1):
            x = x.narrow(axis, start, stop - start)
            if step != 1:
                x = x.index_select(axis, torch.arange(0, x.shape[axis], step, device=x.device))
    return x


def pad(x, value=None, *, low, high, mode="constant"):
    if mode == "constant":
        fill = value.item() if isinstance(value, torch.Tensor) else value or 0
        shape = [before + extent + after for before, extent, after in zip(low, x.shape, high, strict=True)]
        inner = result = x.new_empty(shape).fill_(fill)
        for axis, (before, extent) in enumerate(zip(low, x.shape, strict=True)):
            inner = inner.narrow(axis, before, extent)
        inner.copy_(x)
        return result
    return _continued(x, low=low, high=high, mode=mode)


@carried("moves")
def _continued(x, *, low, high, mode):
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if before or after:
            extent = x.shape[axis]
            if extent == 0 or (mode == "reflect" and extent <= max(before, after)):
                raise ArtefactError(f"there are {extent} elements in axis {axis} to pad with, in mode {mode}")
            index = torch.arange(-before, extent + after, device=x.device)
            if mode == "edge":
                index = index.clamp(0, extent - 1)
            elif mode == "wrap":
                index = index.remainder(extent)
            else:
                period = max(1, 2 * (extent - 1))
                index = index.remainder(period)
                index = torch.minimum(index, period - index)
            x = x.index_select(axis, index)
    return x


def concat(*xs, axis):
    return torch.cat(xs, dim=axis)


def split(x, *, axis, sizes):
    return torch.split(x, list(sizes), dim=axis)


@carried("moves")
def reverse(x, *, axes):
    return torch.flip(x, list(axes))


def iota(*, shape, axis, dtype, device):
    line = torch.arange(shape[axis], device=device)
    view = [-1 if each == axis % len(shape) else 1 for each in range(len(shape))]
    return line.reshape(view).expand(shape).to(dtype)


def dim(*, value, device):
    if not isinstance(value, tuple):
        return torch.scalar_tensor(value, dtype=torch.int64, device=device)  # for which the host need not wait
    if not all(isinstance(each, int) for each in value):  # a tensor of symbols, as they are recorded
        return torch.stack([dim(value=each, device=device) for each in value])
    return torch.tensor(value, dtype=torch.int64, device=device)


# -- indexing --------------------------------------------------------------------------------------------------


def _resolved(indices, extent, bounds=None):
    counted, indices = indices.dtype.is_signed and bounds is None, indices.to(torch.int64)
    if bounds == "promised":
        return indices
    indices = torch.where(indices < 0, indices + extent, indices) if counted else indices
    _demand((indices >= 0) & (indices < extent), f"an index is outside an axis of extent {extent}")
    return indices


@carried("moves")
def gather(x, indices, *, axis, bounds=None):
    axis %= x.ndim
    gathered = x.index_select(axis, _resolved(indices, x.shape[axis], bounds).reshape(-1))
    return gathered.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@carried("moves")
def gather_elements(x, indices, *, axis, bounds=None):
    return torch.gather(x, axis, _resolved(indices, x.shape[axis], bounds))


def _combines(*, reduction="none", **_):
    return {"none": "moves", "add": "wraps", "mul": "wraps"}.get(reduction, "orders")


def _scattered(target, places, updates, reduction):
    """Rows of a target, at each place the last of its updates, or all of them combined."""
    if reduction == "none":
        order = torch.arange(places.shape[0], device=places.device)
        last = torch.full(target.shape[:1], -1, device=places.device).scatter_reduce(0, places, order, "amax")
        if not order.numel():
            return target
        taken = updates.index_select(0, last.clamp(min=0))
        return torch.where(last.reshape(-1, 1) >= 0, taken, target)
    if target.dtype.is_complex or target.dtype is torch.bool:
        return _scattered_by_numpy(target, places, updates, reduction)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    wide, places = _accumulating(target), places.reshape(-1, 1).expand(updates.shape)
    done = wide.scatter_reduce(0, places, updates.to(wide.dtype), names[reduction], include_self=True)
    return done.to(target.dtype)


def _scattered_by_numpy(target, places, updates, reduction):
    import numpy

    combine = {"add": numpy.add, "mul": numpy.multiply, "max": numpy.maximum, "min": numpy.minimum}[reduction]
    result = target.cpu().numpy().copy()
    combine.at(result, places.cpu().numpy(), updates.cpu().numpy())
    return torch.from_numpy(result).to(target.device)


@carried(_combines)
def scatter(x, indices, updates, *, reduction="none"):
    depth = indices.shape[-1]
    rows, inner = math.prod(x.shape[:depth]), math.prod(x.shape[depth:])
    places = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for axis in range(depth):
        places = places * x.shape[axis] + _resolved(indices[..., axis], x.shape[axis])
    updates = updates.reshape(places.numel(), inner)
    return _scattered(x.reshape(rows, inner), places.reshape(-1), updates, reduction).reshape(x.shape)


@carried(_combines)
def scatter_elements(x, indices, updates, *, axis, reduction="none", bounds=None):
    axis %= x.ndim
    grids = torch.meshgrid(*(torch.arange(extent, device=x.device) for extent in indices.shape), indexing="ij")
    places = torch.zeros(indices.shape, dtype=torch.int64, device=x.device)
    for position, extent in enumerate(x.shape):
        index = _resolved(indices, extent, bounds) if position == axis else grids[position]
        places = places * extent + index
    updates = updates.reshape(-1, 1)
    return _scattered(x.reshape(-1, 1), places.reshape(-1), updates, reduction).reshape(x.shape)


# -- products --------------------------------------------------------------------------------------------------


@carried("wraps")
def matmul(x, y):
    return in_limbs(torch.matmul, x, y) if is_integer(x) and x.device.type != "cpu" else torch.matmul(x, y)


@carried("wraps")
def linear(x, weight, bias=None):
    if bias is None or is_integer(x):
        product = matmul(x, weight)
        return product if bias is None else product + bias
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return torch.addmm(bias, rows, weight).view(*x.shape[:-1], weight.shape[1])


def attention(q, k, v, mask=None, *, scale=None, causal=False, masked_rows="nan"):
    """`masked_rows` is "zero", or no row is masked."""
    shared = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    mask = mask.reshape(1, -1) if mask is not None and mask.ndim == 1 else mask
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, **shared)


@carried("wraps")
def gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transpose_a=False, transpose_b=False):
    a, b = a.mT if transpose_a else a, b.mT if transpose_b else b
    if c is not None and beta and not is_integer(a):
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    product = matmul(a, b)
    product = product if alpha == 1 else product * alpha
    return product if c is None else product + (c if beta == 1 else c * beta)


@carried("wraps")
def dot(x, y, *, batch=(), contract, accumulate=None):
    dtype = x.dtype
    if accumulate is not None and accumulate != dtype and dtype not in (torch.float16, torch.bfloat16):
        x, y = x.to(accumulate), y.to(accumulate)  # of 16 bits, products are summed in f32 in any case
    batch = [(a % x.ndim, b % y.ndim) for a, b in batch]
    contract = [(a % x.ndim, b % y.ndim) for a, b in contract]
    left_taken = {a for a, _ in (*batch, *contract)}
    right_taken = {b for _, b in (*batch, *contract)}
    left_free = [a for a in range(x.ndim) if a not in left_taken]
    right_free = [b for b in range(y.ndim) if b not in right_taken]
    shared = [x.shape[a] for a, _ in batch]
    depth = math.prod(x.shape[a] for a, _ in contract)
    left = x.permute([*(a for a, _ in batch), *left_free, *(a for a, _ in contract)])
    right = y.permute([*(b for _, b in batch), *(b for _, b in contract), *right_free])
    rows, columns = [x.shape[a] for a in left_free], [y.shape[b] for b in right_free]
    left = left.reshape((*shared, math.prod(rows), depth))
    right = right.reshape((*shared, depth, math.prod(columns)))
    return matmul(left, right).reshape((*shared, *rows, *columns)).to(dtype)


def _convolved(function, x, weight, bias):
    """A convolution in a type in which PyTorch convolves: of 16 bits not on a CPU, and of integers nowhere."""
    if is_integer(x):
        products = in_limbs(function, x, weight)
        return products if bias is None else products + bias.reshape(1, -1, *([1] * (x.ndim - 2)))
    wide = _accumulating(x) if x.device.type == "cpu" else x
    return function(wide, weight.to(wide.dtype), None if bias is None else bias.to(wide.dtype)).to(x.dtype)


@carried("wraps")
def conv(x, weight, bias=None, *, strides, dilations, low, high, groups=1):
    check_windows(x.shape[2:], weight.shape[2:], dilations, low, high)
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}.get(x.ndim - 2)
    if not x.numel() or not weight.numel():
        function = None
    if any((*low, *high)) and (function is None or tuple(low) != tuple(high)):
        x, low = pad(x, low=(0, 0, *low), high=(0, 0, *high)), (0,) * len(low)

    def convolved(x, weight, bias=None):
        if function is not None:
            return function(x, weight, bias, strides, list(low), dilations, groups)
        products = by_taps(x, weight, strides, dilations, groups)
        return products if bias is None else products + bias.reshape(1, -1, *([1] * (x.ndim - 2)))

    return _convolved(convolved, x, weight, bias)


@carried("wraps")
def conv_transpose(x, weight, bias=None, *, strides, dilations, low, high, output_padding, groups=1):
    function = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}.get(x.ndim)

    whole = transposes_at_once(x.shape[2:], weight.shape[2:], strides, dilations, low, high, output_padding)

    def convolved(x, weight, bias=None):
        if function is not None and whole and x.numel() and weight.numel():
            return function(x, weight, bias, strides, low, output_padding, groups, dilations)
        if not x.numel():
            products = transposed_of_nothing(x, weight, strides, dilations, groups, output_padding)
        elif function is None or not weight.numel():
            products = transposed_by_taps(x, weight, strides, dilations, groups)
        else:
            products = function(x, weight, None, strides, 0, 0, groups, dilations)
        if any(output_padding) and x.numel():
            products = pad(products, low=(0,) * x.ndim, high=(0, 0, *output_padding))
        for axis, (a, b) in enumerate(zip(low, high, strict=True), 2):
            products = products.narrow(axis, a, max(0, products.shape[axis] - a - b))
        return products if bias is None else products + bias.reshape(1, -1, *[1] * (x.ndim - 2))

    return _convolved(convolved, x, weight, bias)


def _by_kind(*, kind, **_):
    return "wraps" if kind in ("sum", "prod") else "orders"


def window_reduce(x, *, kind="max", window, strides, dilations, low, high):
    check_windows(x.shape, window, dilations, low, high)
    return _windows(x, kind=kind, window=window, strides=strides, dilations=dilations, low=low, high=high)


@carried(_by_kind)
def _windows(x, *, kind, window, strides, dilations, low, high):
    result = pooled(x, kind, window, strides, dilations, low, high)
    if result is not None:
        return result
    wide = _accumulating(x)
    wide = pad(wide, _ends(wide.dtype)[0] if kind == "max" else 0, low=low, high=high)
    combine = torch.maximum if kind == "max" else torch.add
    for axis, (size, stride, dilation) in enumerate(zip(window, strides, dilations, strict=True)):
        if size == stride == 1:
            continue
        count = max(0, (wide.shape[axis] - dilation * (size - 1) - 1) // stride + 1)
        taken = None
        for offset in range(size):
            part = wide.narrow(axis, offset * dilation if count else 0, (count - 1) * stride + 1 if count else 0)
            part = part[(*[builtins.slice(None)] * axis, builtins.slice(None, None, stride))]
            taken = part if taken is None else combine(taken, part)
        wide = taken
    return wide.to(x.dtype)


def scan(x, *, kind="sum", axis, reverse=False, exclusive=False):
    return _scanned(x, kind=kind, axis=axis, reverse=reverse, exclusive=exclusive)


@carried(_by_kind)
def _scanned(x, *, kind, axis, reverse, exclusive):
    wide = torch.flip(_accumulating(x), [axis]) if reverse else _accumulating(x)
    done = {
        "sum": lambda v: v.cumsum(axis, dtype=v.dtype), "prod": lambda v: v.cumprod(axis, dtype=v.dtype),
        "max": lambda v: v.cummax(axis).values, "min": lambda v: v.cummin(axis).values,
        "log_sum_exp": lambda v: v.logcumsumexp(axis),
    }[kind](wide)  # fmt: skip
    if exclusive:
        neutral = {"sum": 0, "prod": 1, "min": _ends(x.dtype)[1]}.get(kind, _ends(x.dtype)[0])
        first = torch.full_like(done.narrow(axis, 0, min(1, done.shape[axis])), neutral)
        done = torch.cat([first, done.narrow(axis, 0, max(0, done.shape[axis] - 1))], axis)
    return (torch.flip(done, [axis]) if reverse else done).to(x.dtype)


@carried("orders")
def sort(x, *, axis, descending=False):
    values, places = torch.sort(x, dim=axis, descending=descending, stable=True)
    return values, places


# -- externs ---------------------------------------------------------------------------------------------------


@carried("wraps", values=0)
def nonzero(x):
    return torch.atleast_1d(x).nonzero().t()


def extern(model, *xs, dtypes, device):
    """Run an embedded one-node ONNX model. `model` is its session; absent operands are None. What is no tensor (text, a
    list or a dictionary, of dtype None) stays as ONNX Runtime gives it."""
    feeds = {f"i{index}": _plain(x) for index, x in enumerate(xs) if x is not None}
    try:
        results = model.run(None, feeds)
    except Exception as error:  # ONNX Runtime's errors have no class in common
        raise ArtefactError(f"ONNX Runtime: {error}") from None
    results = [result if dtype is None else torch.from_numpy(as_torch_knows(result)).to(device=device, dtype=dtype)
               for result, dtype in zip(results, dtypes, strict=True)]  # fmt: skip
    return results[0] if len(results) == 1 else tuple(results)


def _plain(x):
    """As an array; what NumPy has no type for travels as float32."""
    if not isinstance(x, torch.Tensor):
        return x
    narrow = x.is_floating_point() and (x.dtype == torch.bfloat16 or x.dtype.itemsize == 1)
    return (x.float() if narrow else x).detach().cpu().contiguous().numpy()
