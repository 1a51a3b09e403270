"""Layout: constants as kernels read them, rearranged when a program is compiled and not when it runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.dtypes import FLOATS8, I8, U8
from irc.group import Group
from irc.ir import Block, Operation, Value
from irc.kernel import Kernel
from irc.module import Module
from irc.op import Builder, const
from irc.ops import bitwise_xor, cast, pad, reshape, slice_, sub, transpose
from irc.ops.named.linear import matmul_integer, split_linear
from irc.ops.named.packed import unpacked
from irc.pass_manager import Pass, PassContext
from irc.passes._kernel_constants import rewritten
from irc.passes._stored_names import StoredNames
from irc.rewrite import erase_dead
from irc.weights import Array, Tensor

ALIGNED_BYTES = 16  # at which a row begins whose elements are loaded 128 bits at a time
PRODUCTS_OF_ROWS = ("matmul", "linear", "split_linear")


@dataclass
class Layout(Pass):
    """Rearrange constants as kernels read them.

    Integers of less than 8 bits are read from the bytes that a file has, several from each, and unpacked where they are
    cast. The second matrix of a product of bytes lies with what is summed along its rows, so that a thread loads 16
    bytes that it multiplies. So does a matrix of floats whose rows are no multiple of 16 bytes, which would be loaded
    element by element, where its columns are one. Where neither are, it is padded with columns of zeros, whose results
    are left out. A matrix of floats of 8 bits lies along what is summed, as bytes do, where it is scaled before, too.
    That is for products in kernels: libraries have kernels for either. With products=auto only fusion says which these
    are: the weights of its kernels are rearranged where the pass runs after it.

    Before: %w = const : i4[64, 96]; %y = cast %w {to = f16}
    After:  %b = const : u8[3072]; %c = ... : i8[64, 96]; %y = cast %c {to = f16}
    """

    def run(self, module: Module, context: PassContext) -> bool:
        names = StoredNames(module)
        kernels = [each for each in module.walk() if each.name == "kernel"] if context.products == "auto" else []
        changed = sum(_align_in_kernel(kernel, names) for kernel in kernels)
        for operation in list(module.walk()):
            if operation.name == "cast" and _is_narrow(operation.inputs[0]):
                changed += _unpack(operation, names)
            elif operation.name == "matmul_integer" and _constant(operation.inputs[1]) is operation.inputs[1].operation:
                changed += _turn(operation, names)
            elif operation.name in PRODUCTS_OF_ROWS and context.products == "irc":
                changed += _align(operation, names) or _turn_scaled(operation, names)
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
    with Builder.before_operation(product, product.location.by("layout")):
        turned = names.rearranged(tensor, tensor.shape[::-1], np.transpose, "transposed")
        product.replace([matmul_integer(x, transpose(turned, permutation=(1, 0)), *points)])
    erase_dead([constant])
    return True


def _turn_scaled(product: Operation, names: StoredNames) -> bool:
    """Transpose the floats of 8 bits of which the second matrix of a product is computed, element by element."""
    value = product.inputs[1]
    while value.dtype not in FLOATS8:
        operation = value.operation
        wide = [] if operation is None else [each for each in operation.inputs if each.shape == value.shape]
        if operation is None or operation.definition.pointwise is None or len(wide) != 1:
            return False
        (value,) = wide
    constant = _constant(value)
    if constant is None or value.rank != 2 or len(value.uses) > 1:
        return False
    tensor = constant.attributes["value"]
    if tensor.shape[0] % ALIGNED_BYTES or not isinstance(Group([product]).kernel, Kernel):
        return False
    with Builder.before_operation(constant, product.location.by("layout")):
        turned = names.rearranged(tensor, tensor.shape[::-1], np.transpose, "transposed")
        constant.replace([transpose(turned, permutation=(1, 0))])
    return True


def _align(product: Operation, names: StoredNames) -> bool:
    """Let the rows of the matrix of a product begin where 128 bits can be loaded."""
    weight = product.inputs[1]
    is_turned = weight.operation is not None and weight.operation.name == "transpose" and weight.rank == 2
    value = weight.operation.inputs[0] if is_turned and weight.operation is not None else weight
    constant = _constant(value)
    if constant is None or value.rank != 2 or len(value.uses) > 1 or not value.dtype.is_float:
        return False
    tensor = constant.attributes["value"]
    high, wide = tensor.shape
    step = ALIGNED_BYTES // value.dtype.itemsize
    if wide % step == 0 or 1 in (high, wide) or not isinstance(Group([product]).kernel, Kernel):
        return False
    biases = product.inputs[2:]
    with Builder.before_operation(product, product.location.by("layout")):
        if high % step == 0:
            turned = names.rearranged(tensor, (wide, high), np.transpose, "transposed")
            turned = turned if is_turned else transpose(turned, permutation=(1, 0))
            results = product.definition(product.inputs[0], turned, *biases, **product.attributes)
        else:
            results = _with_columns(product, tensor, is_turned, step, names)
        product.replace([results] if isinstance(results, Value) else list(results))
    erase_dead([value.operation for value in (weight, *biases) if value.operation is not None])
    return True


def _align_in_kernel(kernel: Operation, names: StoredNames) -> bool:
    """The same for the products of a kernel."""
    if not any(each.name in PRODUCTS_OF_ROWS for each in kernel.regions[0].block):
        return False

    def rewrite(block: Block) -> bool:
        aligned = [_align(each, names) or _turn_scaled(each, names)
                   for each in list(block) if each.name in PRODUCTS_OF_ROWS]  # fmt: skip
        return any(aligned)

    return rewritten(kernel, rewrite)


def _with_columns(product: Operation, tensor: Tensor, is_turned: bool, step: int, names: StoredNames) -> list[Value]:
    """The results of a product of whose matrix each row is stored with zeros after it, up to a multiple of `step`.
    Rows of zeros would be read of the other operand, too, so that a transposed matrix is turned before."""
    high, wide = tensor.shape[::-1] if is_turned else tensor.shape
    number = -wide % step

    def change(array: Array) -> Array:
        return np.pad(array.T if is_turned else array, ((0, 0), (0, number)))

    weight = names.rearranged(tensor, (high, wide + number), change, "padded")
    biases = [_with_zeros(bias, number, names) for bias in product.inputs[2:]]
    sizes = product.attributes.get("sizes", (wide,))
    return list(split_linear(product.inputs[0], weight, *biases, sizes=(*sizes, number)))[:-1]


def _with_zeros(bias: Value, number: int, names: StoredNames) -> Value:
    """A bias with so many zeros after it; one that is a constant is stored so."""
    constant = _constant(bias)
    if constant is None:
        return pad(bias, low=(0,), high=(number,))
    tensor = constant.attributes["value"]
    length = tensor.shape[0] + number
    return names.rearranged(tensor, (length,), lambda array: np.pad(array, (0, number)), "padded")
