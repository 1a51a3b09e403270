"""Layout: constants as kernels read them, rearranged when a program is compiled and not when it runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.dtypes import I8, U8
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder, const
from irc.ops import bitwise_xor, cast, reshape, slice_, sub, transpose
from irc.ops.named.linear import matmul_integer
from irc.ops.named.packed import unpacked
from irc.pass_manager import Pass, PassContext
from irc.passes._stored_names import StoredNames
from irc.rewrite import erase_dead
from irc.weights import Array, Tensor


@dataclass
class Layout(Pass):
    """Rearrange constants as kernels read them.

    Integers of less than 8 bits are read from the bytes that a file has, several from each, and unpacked where they are
    cast. The second matrix of a product of bytes lies with what is summed along its rows, so that a thread loads 16
    bytes that it multiplies.

    Before: %w = const : i4[64, 96]; %y = cast %w {to = f16}
    After:  %b = const : u8[3072]; %c = ... : i8[64, 96]; %y = cast %c {to = f16}
    """

    def run(self, module: Module, context: PassContext) -> bool:
        names = StoredNames(module)
        changed = 0
        for operation in list(module.walk()):
            if operation.name == "cast" and _is_narrow(operation.inputs[0]):
                changed += _unpack(operation, names)
            elif operation.name == "matmul_integer" and _constant(operation.inputs[1]) is operation.inputs[1].operation:
                changed += _turn(operation, names)
        context.count("layout", "rearranged", changed)
        return changed > 0


def _constant(value: Value) -> Operation | None:
    """The constant that a value is, if it is a large one: small ones are in the text of a kernel."""
    operation = value.operation
    is_constant = operation is not None and operation.definition is const and operation.attributes["value"].size > 1
    return operation if is_constant else None


def _is_narrow(value: Value) -> bool:
    return value.dtype.is_integer and value.dtype.bits < 8 and _constant(value) is not None


def _unpack(cast_: Operation, names: StoredNames) -> bool:
    """Read what is cast from bytes."""
    (value,) = cast_.inputs
    constant = _constant(value)
    assert constant is not None
    tensor, bits = constant.attributes["value"], value.dtype.bits
    count = value.dtype.packed_bytes(tensor.size)
    packed = Tensor(U8, (count,), tensor.stored, names.derived(tensor, "bytes"))
    with Builder.before_operation(cast_, cast_.location.by("layout")):
        codes = slice_(unpacked(const(value=packed), bits), starts=(0,), stops=(tensor.size,), steps=(1,))
        codes = reshape(codes, shape=value.shape)
        if value.dtype.is_signed:  # the highest bit counts negatively
            sign = 1 << (bits - 1)
            codes = sub(bitwise_xor(cast(codes, to=I8), sign), sign)
        cast_.replace([cast(codes, **cast_.attributes)])
    erase_dead([constant])
    return True


def _turn(product: Operation, names: StoredNames) -> bool:
    """Transpose the second matrix of a product of bytes."""
    x, y, *points = product.operands
    assert x is not None and y is not None
    constant = _constant(y)
    if constant is None or y.rank != 2 or y.shape[0] == 1:
        return False
    tensor = constant.attributes["value"]

    def elements() -> Array:
        return np.ascontiguousarray(tensor.array().T)

    turned = Tensor(tensor.dtype, tensor.shape[::-1], elements, names.derived(tensor, "transposed"))
    with Builder.before_operation(product, product.location.by("layout")):
        weight = transpose(const(value=turned), permutation=(1, 0))
        product.replace([matmul_integer(x, weight, *points)])
    erase_dead([constant])
    return True
