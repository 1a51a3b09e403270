"""Operations on text, whose tensors are NumPy arrays of Python strings. Other operands are tensors of PyTorch.

Operands first, attributes by keyword, as in the IR.
"""

from __future__ import annotations

import builtins

import numpy
import torch

from .errors import ArtefactError


def _array(elements):
    """An array, also of one string, which NumPy hands out as such."""
    return numpy.asarray(elements, dtype=object)


def _plain(indices, extent, bounds=None):
    counted = indices.dtype.is_signed and bounds is None
    indices = indices.detach().cpu().to(torch.int64).numpy()
    indices = numpy.where(indices < 0, indices + extent, indices) if counted else indices
    if ((indices < 0) | (indices >= extent)).any():
        raise ArtefactError(f"an index is out of range for an axis of extent {extent}")
    return indices


def reshape(x, *, shape, inferred=None):
    return x.reshape(shape)


def transpose(x, *, permutation):
    return x.transpose(permutation)


def expand(x, *, shape):
    return numpy.broadcast_to(x, shape)


def slice(x, *, starts, stops, steps):
    for start, stop, extent in zip(starts, stops, x.shape, strict=True):
        if not 0 <= start <= stop <= extent:
            raise ArtefactError(f"{start} to {stop} is out of range for an axis of extent {extent}")
    return _array(x[tuple(map(builtins.slice, starts, stops, steps))])


def pad(x, value=None, *, low, high, mode="constant"):
    for extent, before, after in zip(x.shape, low, high, strict=True):
        least = {"constant": 0, "reflect": max(before, after) + 1}.get(mode, 1)
        if (before or after) and extent < least:
            raise ArtefactError(f"there are {extent} elements to pad with, in mode {mode}")
    fill = {"constant_values": "" if value is None else str(value)} if mode == "constant" else {}
    return numpy.pad(x, list(zip(low, high, strict=True)), mode=mode, **fill) if x.ndim else x


def concat(*xs, axis):
    return numpy.concatenate(xs, axis)


def split(x, *, axis, sizes):
    return tuple(numpy.split(x, numpy.cumsum(sizes)[:-1], axis))


def reverse(x, *, axes):
    return _array(numpy.flip(x, axes))


def gather(x, indices, *, axis, bounds=None):
    return _array(numpy.take(x, _plain(indices, x.shape[axis], bounds), axis))


def gather_elements(x, indices, *, axis, bounds=None):
    return x[_places(x, indices, axis, bounds)]


def scatter(x, indices, updates, *, reduction="none"):
    result = x.copy()
    if indices.shape[-1] == 0:  # each update is a whole x
        return updates.reshape((-1, *x.shape))[-1] if updates.size else result
    result[tuple(_plain(indices[..., axis], x.shape[axis]) for axis in range(indices.shape[-1]))] = updates
    return result


def scatter_elements(x, indices, updates, *, axis, reduction="none", bounds=None):
    result = x.copy()
    result[_places(x, indices, axis, bounds)] = updates
    return result


def _places(x, indices, axis, bounds):
    grid = list(numpy.ogrid[tuple(builtins.slice(count) for count in indices.shape)])
    grid[axis] = _plain(indices, x.shape[axis], bounds)
    return tuple(grid)


def equal(x, y, *, device):
    return torch.from_numpy(numpy.asarray(x == y).astype(bool)).to(device)


def not_equal(x, y, *, device):
    return ~equal(x, y, device=device)


def select(condition, x, y):
    return _array(numpy.where(condition.detach().cpu().numpy(), x, y))


def stacked(rows, shape):
    """What a loop collects; `shape` is that without iterations."""
    return numpy.stack(rows) if rows else numpy.empty(shape, dtype=object)
