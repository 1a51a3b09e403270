"""Operations that are no kernel: calls of PyTorch. Operands first, attributes by keyword, as in the IR.

Conventions are NumPy's: operands broadcast, integers wrap and divide as `rounding` says, NaN stays NaN.
"""

from __future__ import annotations

import builtins
import math

import torch
import torch.nn.functional as F

UNSIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


# -- pointwise -------------------------------------------------------------------------------------------------

add, sub, mul, neg, floor, ceil, trunc = (
    torch.add, torch.sub, torch.mul, torch.neg, torch.floor, torch.ceil, torch.trunc
)  # fmt: skip
round, sqrt, exp, log, sin, cos, tan = (
    torch.round, torch.sqrt, torch.exp, torch.log, torch.sin, torch.cos, torch.tan
)  # fmt: skip
asin, acos, atan, sinh, cosh, tanh, asinh, acosh, atanh, erf = (
    torch.asin, torch.acos, torch.atan, torch.sinh, torch.cosh, torch.tanh, torch.asinh, torch.acosh, torch.atanh,
    torch.erf,
)  # fmt: skip
equal, not_equal, less, less_equal = torch.eq, torch.ne, torch.lt, torch.le
greater, greater_equal, is_nan = torch.gt, torch.ge, torch.isnan
minimum, maximum, select = torch.minimum, torch.maximum, torch.where
bitwise_and, bitwise_or, bitwise_xor, bitwise_not = (
    torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor, torch.bitwise_not
)  # fmt: skip


def abs(x):
    return torch.abs(x) if x.dtype.is_signed else x


def sign(x):
    return torch.where(torch.isnan(x), x, torch.sign(x)) if x.dtype.is_floating_point else torch.sign(x)


def div(x, y, *, rounding="trunc"):
    if x.dtype.is_floating_point or x.dtype.is_complex:
        return torch.div(x, y)
    quotient = torch.div(x, torch.where(y == 0, torch.ones_like(y), y), rounding_mode=rounding)
    return torch.where(y == 0, torch.zeros_like(quotient), quotient)


def mod(x, y, *, rounding="floor"):
    remainder = torch.remainder if rounding == "floor" else torch.fmod
    if x.dtype.is_floating_point:
        return remainder(x, y)
    result = remainder(x, torch.where(y == 0, torch.ones_like(y), y))
    return torch.where(y == 0, torch.zeros_like(result), result)


def pow(x, y):
    if x.dtype.is_floating_point or x.dtype.is_complex:
        return torch.pow(x, y)
    power = torch.pow(x, torch.clamp(y, min=0))
    odd = torch.bitwise_and(y, 1) != 0
    inverse = torch.where(x == 1, 1, torch.where(x == -1, torch.where(odd, -1, 1), 0)).to(x.dtype)
    return torch.where(y < 0, inverse, power)


def shift_left(x, y):
    bits = torch.iinfo(x.dtype).bits
    inside = (y >= 0) & (y < bits)
    return torch.where(inside, torch.bitwise_left_shift(x, torch.where(inside, y, 0)), 0).to(x.dtype)


def shift_right(x, y):
    bits = torch.iinfo(x.dtype).bits
    inside = (y >= 0) & (y < bits)
    return torch.bitwise_right_shift(x, torch.where(inside, y, bits - 1)).to(x.dtype) * torch.where(
        inside | (x < 0), 1, 0
    ).to(x.dtype)


def is_inf(x, *, detect_positive=True, detect_negative=True):
    return (torch.isposinf(x) & detect_positive) | (torch.isneginf(x) & detect_negative)


def cast(x, *, to, saturate=True):
    if to is torch.bool:
        return x != 0
    if not x.dtype.is_floating_point or to.is_floating_point or to.is_complex:
        return x.to(to)
    whole = torch.trunc(x.to(torch.float64))
    if not saturate:
        fits = (whole >= -(2.0**63)) & (whole < 2.0**63)
        least = torch.full_like(whole, -(2.0**63)).to(torch.int64)
        return torch.where(fits, torch.where(fits, whole, 0.0).to(torch.int64), least).to(to)
    low, high = torch.iinfo(to).min, torch.iinfo(to).max
    above, below = whole >= float(high + 1), whole < low
    result = torch.where(above | below | torch.isnan(whole), 0.0, whole).to(to)
    return torch.where(above, torch.tensor(high, dtype=to), torch.where(below, torch.tensor(low, dtype=to), result))


def bitcast(x, *, to):
    return x.view(to)


# -- reductions ------------------------------------------------------------------------------------------------


def _accumulating(x):
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def reduce_sum(x, *, axes, keep_dims=False):
    if not axes:
        return x
    wide = _accumulating(x)
    return torch.sum(wide, dim=list(axes), keepdim=keep_dims, dtype=wide.dtype).to(x.dtype)


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


def reduce_max(x, *, axes, keep_dims=False):
    return _extremum(x, axes, keep_dims, torch.amax, _ends(x.dtype)[0])


def reduce_min(x, *, axes, keep_dims=False):
    return _extremum(x, axes, keep_dims, torch.amin, _ends(x.dtype)[1])


def argmax(x, *, axis, keep_dims=False, select_last=False):
    return _place(x, torch.amax, axis, keep_dims, select_last)


def argmin(x, *, axis, keep_dims=False, select_last=False):
    return _place(x, torch.amin, axis, keep_dims, select_last)


def _place(x, function, axis, keep_dims, select_last):
    best = function(x, dim=axis, keepdim=True)
    found = x == best
    if x.dtype.is_floating_point:
        found = found | (torch.isnan(best) & torch.isnan(x))
    shape = [1] * x.ndim
    shape[axis] = -1
    index = torch.arange(x.shape[axis], device=x.device).reshape(shape)
    if select_last:
        return torch.amax(torch.where(found, index, -1), dim=axis, keepdim=keep_dims)
    return torch.amin(torch.where(found, index, x.shape[axis]), dim=axis, keepdim=keep_dims)


# -- views -----------------------------------------------------------------------------------------------------


def reshape(x, *, shape):
    return x.reshape(shape)


def transpose(x, *, permutation):
    return x.permute(permutation)


def expand(x, *, shape):
    return x.expand(shape)


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
        sides = [side for pair in zip(reversed(low), reversed(high), strict=True) for side in pair]
        return F.pad(x, sides, value=fill)
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if before or after:
            extent = x.shape[axis]
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


def reverse(x, *, axes):
    return torch.flip(x, list(axes))


def iota(*, shape, axis, dtype, device):
    line = torch.arange(shape[axis], device=device)
    view = [1] * len(shape)
    view[axis] = -1
    return line.reshape(view).expand(shape).to(dtype)


def dim(*, value, device):
    if isinstance(value, int):
        return torch.full((), value, dtype=torch.int64, device=device)  # for which the host need not wait
    return torch.tensor(value, dtype=torch.int64, device=device)


# -- indexing --------------------------------------------------------------------------------------------------


def _resolved(indices, extent):
    indices = indices.to(torch.int64)
    indices = torch.where(indices < 0, indices + extent, indices)
    # A GPU checks by itself, at the access: asking it here would wait for it.
    if not indices.is_cuda and indices.numel() and not bool(((indices >= 0) & (indices < extent)).all()):
        raise IndexError(f"an index is out of range for an axis of extent {extent}")
    return indices


def gather(x, indices, *, axis):
    axis %= x.ndim
    found = x.index_select(axis, _resolved(indices, x.shape[axis]).reshape(-1))
    return found.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def gather_elements(x, indices, *, axis):
    return torch.gather(x, axis, _resolved(indices, x.shape[axis]))


def _scattered(target, places, updates, reduction):
    """Scatter along axis 0 of a flat target."""
    if reduction == "none":
        target[places] = updates
        return target
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return target.scatter_reduce(0, places, updates, names[reduction], include_self=True)


def scatter(x, indices, updates, *, reduction="none"):
    depth = indices.shape[-1]
    inner = math.prod(x.shape[depth:])
    places = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for axis in range(depth):
        places = places * x.shape[axis] + _resolved(indices[..., axis], x.shape[axis])
    places = places.reshape(-1, 1) * inner + torch.arange(inner, device=x.device)
    return _scattered(x.reshape(-1).clone(), places.reshape(-1), updates.reshape(-1), reduction).reshape(x.shape)


def scatter_elements(x, indices, updates, *, axis, reduction="none"):
    axis %= x.ndim
    grids = torch.meshgrid(*(torch.arange(extent, device=x.device) for extent in indices.shape), indexing="ij")
    places = torch.zeros(indices.shape, dtype=torch.int64, device=x.device)
    for position, extent in enumerate(x.shape):
        index = _resolved(indices, extent) if position == axis else grids[position]
        places = places * extent + index
    return _scattered(x.reshape(-1).clone(), places.reshape(-1), updates.reshape(-1), reduction).reshape(x.shape)


# -- products --------------------------------------------------------------------------------------------------


def matmul(x, y):
    return torch.matmul(x, y)


def gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transpose_a=False, transpose_b=False):
    product = torch.matmul(a.mT if transpose_a else a, b.mT if transpose_b else b)
    product = product if alpha == 1 else product * alpha
    return product if c is None else product + (c if beta == 1 else c * beta)


def dot(x, y, *, batch=(), contract, accumulate=None):
    dtype = x.dtype
    if accumulate is not None and accumulate != dtype:
        x, y = x.to(accumulate), y.to(accumulate)
    batch = [(a % x.ndim, b % y.ndim) for a, b in batch]
    contract = [(a % x.ndim, b % y.ndim) for a, b in contract]
    left_taken = {a for a, _ in (*batch, *contract)}
    right_taken = {b for _, b in (*batch, *contract)}
    left_free = [a for a in range(x.ndim) if a not in left_taken]
    right_free = [b for b in range(y.ndim) if b not in right_taken]
    shared = [x.shape[a] for a, _ in batch]
    depth = math.prod(x.shape[a] for a, _ in contract)
    left = x.permute(*(a for a, _ in batch), *left_free, *(a for a, _ in contract))
    right = y.permute(*(b for _, b in batch), *(b for _, b in contract), *right_free)
    rows, columns = [x.shape[a] for a in left_free], [y.shape[b] for b in right_free]
    left = left.reshape((*shared, math.prod(rows), depth))
    right = right.reshape((*shared, depth, math.prod(columns)))
    return torch.matmul(left, right).reshape((*shared, *rows, *columns)).to(dtype)


def _channels(x, low, high):
    """Padding of the spatial axes, which may differ at both ends."""
    if not any(low) and not any(high):
        return x
    return F.pad(x, [side for pair in zip(reversed(low), reversed(high), strict=True) for side in pair])


def _convolving(*tensors):
    """The operands in a type that PyTorch convolves and sums in: on a CPU not in 16 bits, and nowhere in integers."""
    x = tensors[0]
    if not x.dtype.is_floating_point:
        return [None if tensor is None else tensor.double() for tensor in tensors]
    return [None if tensor is None else _accumulating(tensor) if not tensor.is_cuda else tensor for tensor in tensors]


def conv(x, weight, bias=None, *, strides, dilations, low, high, groups=1):
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[x.ndim - 2]
    dtype = x.dtype
    x, weight, bias = _convolving(x, weight, bias)
    if tuple(low) == tuple(high):
        return function(x, weight, bias, strides, list(low), dilations, groups).to(dtype)
    return function(_channels(x, low, high), weight, bias, strides, 0, dilations, groups).to(dtype)


def conv_transpose(x, weight, bias=None, *, strides, dilations, low, high, output_padding, groups=1):
    function = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[x.ndim - 2]
    dtype = x.dtype
    x, weight, bias = _convolving(x, weight, bias)
    whole = function(x, weight, bias, strides, 0, 0, groups, dilations)
    whole = F.pad(whole, [side for extra in reversed(output_padding) for side in (0, extra)])
    if bias is not None and any(output_padding):
        view = (1, -1, *([1] * (x.ndim - 2)))
        for axis, extra in enumerate(output_padding):
            if extra:
                whole.narrow(axis + 2, whole.shape[axis + 2] - extra, extra).copy_(bias.reshape(view))
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        whole = whole.narrow(axis + 2, before, whole.shape[axis + 2] - before - after)
    return whole.to(dtype)


def window_reduce(x, *, kind="max", window, strides, dilations, low, high):
    sides = [side for pair in zip(reversed(low), reversed(high), strict=True) for side in pair]
    wide = F.pad(_accumulating(x), sides, value=_ends(x.dtype)[0] if kind == "max" else 0)
    for axis, (size, stride, dilation) in enumerate(zip(window, strides, dilations, strict=True)):
        if size == stride == 1:
            continue
        count = (wide.shape[axis] - dilation * (size - 1) - 1) // stride + 1
        if count < 1:
            wide = wide.narrow(axis, 0, 0)
            continue
        taken = None
        for offset in range(size):
            part = wide.narrow(axis, offset * dilation, (count - 1) * stride + 1)
            part = part[(*[builtins.slice(None)] * axis, builtins.slice(None, None, stride))]
            combine = torch.maximum if kind == "max" else torch.add
            taken = part if taken is None else combine(taken, part)
        wide = taken
    return wide.to(x.dtype)


def scan(x, *, kind="sum", axis, reverse=False, exclusive=False):
    wide = torch.flip(_accumulating(x), [axis]) if reverse else _accumulating(x)
    functions = {
        "sum": lambda v: torch.cumsum(v, axis, dtype=v.dtype), "prod": lambda v: torch.cumprod(v, axis, dtype=v.dtype),
        "max": lambda v: torch.cummax(v, axis).values, "min": lambda v: torch.cummin(v, axis).values,
    }  # fmt: skip
    done = functions[kind](wide)
    if exclusive:
        neutral = {"sum": 0, "prod": 1, "max": _ends(x.dtype)[0], "min": _ends(x.dtype)[1]}[kind]
        first = torch.full_like(done.narrow(axis, 0, min(1, done.shape[axis])), neutral)
        done = torch.cat([first, done.narrow(axis, 0, max(0, done.shape[axis] - 1))], axis)
    return (torch.flip(done, [axis]) if reverse else done).to(x.dtype)


def sort(x, *, axis, descending=False):
    values, places = torch.sort(x, dim=axis, descending=descending, stable=True)
    return values, places


# -- externs ---------------------------------------------------------------------------------------------------


def nonzero(x):
    return torch.atleast_1d(x).nonzero().t()


def extern(model, *xs, dtypes):
    """Run an embedded one-node ONNX model. `model` is its session; absent operands are None. What is no tensor (a list
    or a dictionary, of dtype None) stays as ONNX Runtime gives it."""
    device = next((x.device for x in xs if isinstance(x, torch.Tensor)), torch.device("cpu"))
    feeds = {f"i{index}": _plain(x) for index, x in enumerate(xs) if x is not None}
    results = [
        result if dtype is None else torch.from_numpy(result).to(device=device, dtype=dtype)
        for result, dtype in zip(model.run(None, feeds), dtypes, strict=True)
    ]
    return results[0] if len(results) == 1 else tuple(results)


def _plain(x):
    """As an array; what NumPy has no type for travels as float32."""
    if not isinstance(x, torch.Tensor):
        return x
    narrow = x.is_floating_point() and (x.dtype == torch.bfloat16 or x.dtype.itemsize == 1)
    return (x.float() if narrow else x).detach().cpu().contiguous().numpy()
