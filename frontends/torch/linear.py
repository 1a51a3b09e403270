"""Rows of matrix products, and of distances as products give them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irc import dims, ops
from irc.dtypes import BOOL, I64
from irc.frontends.torch.complex_numbers import conjugate
from irc.frontends.torch.indexing import valid
from irc.frontends.torch.reading import (
    axis_of,
    converted,
    known,
    result_dtype,
    together,
    unsupported,
)
from irc.frontends.torch.table import reads
from irc.frontends.torch.view import reshaped
from irc.ir import Value
from irc.op import const, literal
from irc.weights import Tensor


@reads("mm", "bmm", "matmul")
def matmul(self, mat2):
    return ops.matmul(self, mat2)


@reads("addmm")
def addmm(self, mat1, mat2, *, beta=1, alpha=1):
    if not self.dtype.is_float or not beta:
        return blended(self, ops.matmul(mat1, mat2), beta, alpha)
    if alpha == beta == 1 and self.rank == 1 and known(self.shape[0], mat2.shape[1]):
        return ops.linear(mat1, mat2, self)
    return ops.gemm(mat1, mat2, self, alpha=float(alpha), beta=float(beta))


@reads("baddbmm", "addmv")
def product_added(self, batch1, batch2, *, beta=1, alpha=1):
    return blended(self, ops.matmul(batch1, batch2), beta, alpha)


@reads("addbmm")
def products_added(self, batch1, batch2, *, beta=1, alpha=1):
    return blended(self, ops.reduce_sum(ops.matmul(batch1, batch2), axes=(0,)), beta, alpha)


def blended(x: Value, product: Value, beta: Any, alpha: Any) -> Value:
    """beta * x + alpha * product, of integers in integers; without x, NaNs of it too, where beta is 0."""
    number = int if x.dtype.is_integer else complex if x.dtype.is_complex else float
    product = product if alpha == 1 else ops.mul(product, literal(number(alpha), x.dtype))
    if not beta:
        return product
    return ops.add(product, x if beta == 1 else ops.mul(x, literal(number(beta), x.dtype)))


@reads("addr")
def outer_product_added(self, vec1, vec2, *, beta=1, alpha=1):
    """beta * self + (alpha * vec1) * vec2, in this order."""
    dtype = result_dtype()
    shape = (vec1.shape[0], vec2.shape[0])
    column = ops.reshape(vec1, shape=(shape[0], 1))
    if dtype is BOOL:
        product = ops.bitwise_and(column, vec2) if alpha else ops.expand(literal(False, BOOL), shape=shape)
        return ops.bitwise_or(self, product) if beta else product
    first, product = (converted(each, dtype) for each in (column, vec2))
    product = ops.mul(first if alpha == 1 else together(ops.mul, first, alpha, dtype=dtype), product)
    if not beta:
        return product
    return ops.add(together(ops.mul, self, beta, dtype=dtype) if beta != 1 else converted(self, dtype), product)


@reads("linear")
def linear(input, weight, bias=None):
    """x @ weight.T + bias, over the last axis."""
    weight = ops.transpose(weight, permutation=tuple(reversed(range(weight.rank))))
    if bias is not None and bias.dtype.is_float and bias.rank == 1 and weight.rank == 2:
        return ops.linear(input, weight, bias)
    product = ops.matmul(input, weight)
    return product if bias is None else ops.add(product, bias)


@reads("dot", "mv")
def vector_product(self, other):
    return ops.matmul(self, other)


@reads("vdot")
def conjugate_product(self, other):
    return ops.matmul(conjugate(self) if self.dtype.is_complex else self, other)


@reads("_cdist_forward")
def distances(x1, x2, p, compute_mode):
    """Between each row of the one and each row of the other."""
    apart = ops.abs_(ops.sub(ops.reshape(x1, shape=(*x1.shape[:-1], 1, x1.shape[-1])),
                             ops.reshape(x2, shape=(*x2.shape[:-2], 1, *x2.shape[-2:]))))  # fmt: skip
    axes = (apart.rank - 1,)
    if p == math.inf:
        # ATen ignores NaN here; the result for empty rows is 0.
        return ops.maximum(ops.reduce_max(ops.select(ops.is_nan(apart), 0.0, apart), axes=axes), 0.0)
    if p == 0:
        return ops.reduce_sum(ops.minimum(ops.ceil(apart), 1.0), axes=axes)
    if p == 2:
        return ops.sqrt(ops.reduce_sum(ops.mul(apart, apart), axes=axes))
    return ops.pow_(ops.reduce_sum(ops.pow_(apart, p), axes=axes), 1 / p)


@reads("_pdist_forward")
def distances_of_pairs(self, p=2):
    """Between each row and those after it."""
    count = self.shape[0]
    if not isinstance(count, int):
        unsupported("how many rows there are is known only when it runs")
    rows, columns = np.triu_indices(count, 1)
    flat = reshaped(distances.function(self, self, p, None), (count * count,))
    return ops.gather(flat, const(value=Tensor.of(rows * count + columns, I64)), axis=0, bounds="promised")


@reads("_cdist_backward")
def distances_backward(grad, x1, x2, p, cdist):
    """The gradient of x1. It is 0 where a distance is 0, which has none."""
    away = ops.sub(ops.reshape(x1, shape=(*x1.shape[:-1], 1, x1.shape[-1])),
                   ops.reshape(x2, shape=(*x2.shape[:-2], 1, *x2.shape[-2:])))  # fmt: skip
    size = ops.abs_(away)
    share, distance = (ops.reshape(each, shape=(*each.shape, 1)) for each in (grad, cdist))
    if p == 0:
        return ops.expand(converted(0, x1.dtype), shape=x1.shape)
    if p == math.inf:
        terms = ops.select(ops.equal(size, distance), ops.mul(ops.sign(away), share), 0.0)
    else:
        power = ops.mul(ops.sign(away), ops.pow_(ops.div(size, distance), float(p - 1)))
        is_flat = ops.equal(distance, 0.0)
        if p < 2:
            is_flat = ops.bitwise_or(is_flat, ops.equal(away, 0.0))
        terms = ops.select(is_flat, 0.0, ops.mul(power, share))
    return ops.reduce_sum(terms, axes=(terms.rank - 2,))


@reads("_trilinear")
def trilinear(i1, i2, i3, expand1, expand2, expand3, sumdim, unroll_dim=1):
    """The sum over some axes of a product of three, each of which gets axes of size 1 where the others have theirs."""
    expanded = []
    for value, new in ((i1, expand1), (i2, expand2), (i3, expand3)):
        for axis in sorted(new):
            value = ops.reshape(value, shape=(*value.shape[:axis], 1, *value.shape[axis:]))
        expanded.append(value)
    return ops.reduce_sum(ops.mul(ops.mul(expanded[0], expanded[1]), expanded[2]), axes=tuple(sumdim))


@reads("glu")
def gated(self, dim=-1):
    axis = axis_of(dim, self.rank)
    half = dims.floor_divide(self.shape[axis], 2)
    x, gate = ops.split(self, axis=axis, sizes=(half, half))
    return ops.mul(x, ops.sigmoid(gate))


@reads("one_hot")
def one_hot(self, num_classes=-1):
    if num_classes == -1:
        unsupported("the number of classes is known only when it runs")
    values = ops.concat(*(ops.reshape(literal(each, I64), shape=(1,)) for each in (0, 1)), axis=0)
    return ops.one_hot(valid(self, num_classes), values, depth=num_classes)
