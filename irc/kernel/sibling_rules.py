"""When products can be joined (rule F19)."""

from __future__ import annotations

from collections.abc import Sequence

from irc.ir import Operation
from irc.kernel.failure import LegalityFailure


def siblings_multiply_one_value(products: Sequence[Operation], have_weights: Sequence[bool], meet: Sequence[bool],
                                most: int) -> None:  # fmt: skip
    """Products that are joined multiply the rows of one value with constant matrices that nothing else reads, and in
    kernels nothing is computed of two of them.

    Why: the matrices stand side by side in one constant of the compiled program. A kernel stores parts of the columns
    apart; where two parts meet, one kernel sums both products in one loop.

    Example: the products %q and %k of
        func @main(%x: f32[8, 16], %w: f32[16, 16], %v: f32[16, 16]) -> (f32[8, 16], f32[8, 16]) {
          %q = matmul %x, %w : f32[8, 16]
          %k = matmul %x, %v : f32[8, 16]
          return %q, %k
        }
    """
    first, values = products[0], [product.results[0] for product in products]
    if not 2 <= len(products) <= most:
        raise LegalityFailure("F19", f"{len(products)} products are joined, at least 2 and at most {most}", values)
    for product, has_weight, meets in zip(products, have_weights, meet, strict=True):
        name, value = f"%{product.results[0].name}", product.results[0]
        if not has_weight:
            message = f"{name}, a {product.name}, is no product of rows with a constant that nothing else reads"
            raise LegalityFailure("F19", message, (value,))
        if product.inputs[0] is not first.inputs[0] or product.name != first.name:
            what = [f"a {each.name} of %{each.inputs[0].name}" for each in (first, product)]
            raise LegalityFailure("F19", f"%{values[0].name} is {what[0]}, and {name} {what[1]}", (value,))
        if meets:
            raise LegalityFailure("F19", f"{name} and another of these products meet", (value,))
