"""Bias: products and convolutions take the vector that is added to their result."""

from __future__ import annotations

from dataclasses import dataclass

from irc import dims
from irc.index_map import same
from irc.ir import Operation, Value
from irc.module import Module
from irc.numerics import allows
from irc.op import Builder
from irc.ops import conv, reshape
from irc.ops.named.linear import linear
from irc.pass_manager import Pass, PassContext


@dataclass
class Bias(Pass):
    """Make one operation of a product and the bias that is added to it, as PyTorch's libraries compute them.

    The product must be used by the addition alone. In f16 and bf16 the sum is rounded once, where the graph rounds the
    product, too: there it is done only if `--numerics` allows to keep more precision.

    Before: %0 = matmul %x, %w; %y = add %0, %b        After: %y = linear %x, %w, %b
    """

    def run(self, module: Module, context: PassContext) -> bool:
        taken = 0
        for operation in list(module.walk()):
            if operation.name == "add" and operation.block is not None:
                taken += _absorbed(operation, allows(context.numerics, "keeps_more_precision"))
        context.count("bias", "taken", taken)
        return taken > 0


def _absorbed(addition: Operation, rounds_once: bool) -> bool:
    for product, bias in (addition.inputs, addition.inputs[::-1]):
        maker = product.operation
        if maker is None or maker.name not in ("matmul", "conv") or len(product.uses) > 1:
            continue
        if product.type != addition.result.type or not product.dtype.is_float or maker.block is not addition.block:
            continue
        if product.dtype.bits < 32 and not rounds_once:
            continue
        axis = product.rank - 1 if maker.name == "matmul" else 1
        if not _is_vector(bias, axis, product) or not _takes_bias(maker):
            continue
        with Builder.before_operation(addition, addition.location.by("bias")):
            vector = bias if bias.rank == 1 else reshape(bias, shape=(product.shape[axis],))
            if maker.name == "matmul":
                result = linear(*maker.inputs, vector)
            else:
                result = conv(*maker.inputs, vector, **maker.attributes)
        addition.replace([result])
        maker.erase()
        return True
    return False


def _takes_bias(maker: Operation) -> bool:
    """Whether it is a product with a matrix, or a convolution without a bias."""
    return len(maker.inputs) == 2 and (maker.name == "conv" or (maker.inputs[1].rank == 2 and maker.inputs[0].rank > 1))


def _is_vector(bias: Value, axis: int, product: Value) -> bool:
    """Whether a value varies along one axis of the product alone."""
    position = axis - (product.rank - bias.rank)
    return 0 <= position < bias.rank and all(
        same(extent, product.shape[axis]) if index == position else dims.equal(extent, 1) is True
        for index, extent in enumerate(bias.shape)
    )
