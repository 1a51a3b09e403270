"""Quantize weights: constant operands of products and convolutions in 8 or 4 bits, for `--quantize`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from irc.diagnostics import fail
from irc.dtypes import F32, I8, U8, DType
from irc.ir import Operation, Value
from irc.module import Module
from irc.op import Builder, const
from irc.ops import add, cast, matmul_packed, mul
from irc.pass_manager import Pass, PassContext
from irc.passes._stored_names import StoredNames
from irc.rewrite import erase_dead
from irc.weights import Array, Tensor

BLOCK = 32  # weights of a column that share a scale, in 4 bits
PRODUCTS = ("matmul", "linear", "gemm")


@dataclass
class QuantizeWeights(Pass):
    """Store constant f32 weights of products and convolutions in fewer bits. Activations stay f32.

    bits: 8, with a scale for each column or output channel; or 4, with one for each 32 weights of a column, of products
    alone. least: elements of the smallest weight that is quantized. A weight that something else reads, too, such as an
    embedding that is also the last product's, stays as it is, as does one with NaN or infinities.

    Benefit: with 8 bits the file is a quarter as large; ONNX Runtime widens the weights when it loads the model,
    so that it runs as before. With 4 bits (MatMulNBits, `--target cpu`) weights take a sixth of the memory, too: a
    step of a decoder, which memory limits, ran 1.9 times as fast; where weights are in the cache, a product of few rows
    takes a third to two thirds longer. Results change: `irc compile --quantize` states by how much.

    Before: %y = matmul %x, %w
    After:  %c = cast %q; %d = mul %c, %s; %y = matmul %x, %d       or, of 4 bits, %y = matmul_packed %x, %q, %s
    """

    bits: int = 8
    least: int = 4096

    def run(self, module: Module, context: PassContext) -> bool:
        if self.bits not in (4, 8):
            raise fail("pass.option", f"quantize_weights{{bits={self.bits}}}", expected="bits of 4 or 8")
        names, counts = StoredNames(module), {"weights": 0, "bytes before": 0, "bytes after": 0}
        for constant in [each for each in module.walk() if each.name == "const"]:
            if not self._is_weight(constant):
                continue
            replace = _in_4_bits if self.bits == 4 else _in_8_bits
            counts["weights"] += 1
            counts["bytes before"] += constant.attributes["value"].nbytes
            counts["bytes after"] += replace(constant, names)
            erase_dead([constant])
        for what, number in counts.items():
            context.count("quantize_weights", what, number)
        return counts["weights"] > 0

    def _is_weight(self, constant: Operation) -> bool:
        tensor, readers = constant.attributes["value"], [reader for reader, _ in constant.result.uses]
        if tensor.dtype is not F32 or tensor.size < self.least:
            return False
        axes = {_columns(reader, constant.result) for reader in readers}
        if len(axes) != 1 or None in axes:
            return False
        if self.bits == 4 and not all(_is_packable(reader) for reader in readers):
            return False
        return bool(np.isfinite(tensor.array()).all())


def _columns(reader: Operation, weight: Value) -> int | None:
    """The axis of a weight along which its columns or output channels are; None of what is no weight of the reader."""
    if [*reader.inputs].count(weight) != 1 or len(reader.inputs) < 2 or reader.inputs[1] is not weight:
        return None
    if reader.name == "conv":
        return 0
    if reader.name in PRODUCTS and weight.rank == 2:
        return 0 if reader.attributes.get("transpose_b") else 1
    return None


def _is_packable(reader: Operation) -> bool:
    """Whether it is a product of rows with a matrix and, at most, a bias."""
    attributes = reader.attributes
    if reader.name not in PRODUCTS or reader.inputs[0].rank < 2:
        return False
    is_scaled = reader.name == "gemm" and (attributes["alpha"], attributes["beta"]) != (1, 1)
    return not is_scaled and not attributes.get("transpose_a")


def _in_8_bits(constant: Operation, names: StoredNames) -> int:
    """Replace a weight by the product of its codes and scales; returns the bytes of these."""
    tensor, weight = constant.attributes["value"], constant.result
    axis = _columns(next(reader for reader, _ in weight.uses), weight)
    others = tuple(index for index in range(weight.rank) if index != axis)

    def scales() -> Array:
        largest = np.abs(tensor.array()).max(axis=others, keepdims=True)
        return np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)

    def codes() -> Array:
        return np.clip(np.rint(tensor.array() / scales()), -127, 127).astype(np.int8)

    shape = tuple(extent if index == axis else 1 for index, extent in enumerate(tensor.shape))
    with Builder.before_operation(constant, constant.location.by("quantize_weights")):
        code = _stored(tensor, I8, tensor.shape, codes, "int8", names)
        scale = _stored(tensor, F32, shape, scales, "scale", names)
        widened = mul(cast(code, to=F32), scale)
    weight.replace_uses(widened)
    return tensor.size + 4 * tensor.shape[axis or 0]


def _in_4_bits(constant: Operation, names: StoredNames) -> int:
    """Replace the products of a weight by products of packed weights; returns the bytes of these."""
    tensor, weight = constant.attributes["value"], constant.result
    readers = [reader for reader, _ in weight.uses]
    columns_first = _columns(readers[0], weight) == 0

    def blocks() -> Array:
        rows = tensor.array() if columns_first else tensor.array().T
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % BLOCK)))
        return padded.reshape(rows.shape[0], -1, BLOCK)

    def scales() -> Array:
        parts = blocks()
        # Codes are -8 to 7: what is largest has the code -8, whatever its sign.
        extreme = np.take_along_axis(parts, np.abs(parts).argmax(2)[..., None], 2)[..., 0]
        return np.where(extreme != 0, extreme / np.float32(-8), np.float32(1)).astype(np.float32)

    def packed() -> Array:
        codes = np.clip(np.rint(blocks() / scales()[..., None]) + 8, 0, 15).astype(np.uint8)
        return codes[..., 0::2] | codes[..., 1::2] << 4

    columns, depth = tensor.shape if columns_first else tensor.shape[::-1]
    count = -(-depth // BLOCK)
    with Builder.before_operation(constant, constant.location.by("quantize_weights")):
        code = _stored(tensor, U8, (columns, count, BLOCK // 2), packed, "int4", names)
        scale = _stored(tensor, F32, (columns, count), scales, "scale", names)
    for reader in readers:
        x, _, *bias = reader.inputs
        with Builder.before_operation(reader, reader.location.by("quantize_weights")):
            result = matmul_packed(x, code, scale, bits=4, block=BLOCK)
            reader.replace([add(result, bias[0]) if bias else result])
    return columns * count * (BLOCK // 2 + 4)


def _stored(tensor: Tensor, dtype: DType, shape: tuple[int, ...], source: Callable[[], Array], suffix: str,
            names: StoredNames) -> Value:  # fmt: skip
    return const(value=Tensor(dtype, shape, source, names.derived(tensor, suffix)))
