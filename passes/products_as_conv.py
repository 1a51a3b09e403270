"""Products as convolutions: products of rows with constant matrices become convolutions with windows of 1 by 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from irc import dims
from irc.disjoint_sets import DisjointSets
from irc.dtypes import F32
from irc.index_map import same
from irc.ir import Block, Operation, Value
from irc.module import EdgeCases, Module
from irc.op import Builder, is_constant
from irc.ops import conv, reshape, transpose
from irc.pass_manager import Pass, PassContext, pays
from irc.passes._blocks import blocks
from irc.passes._channel_blocks import BLOCK, POINTWISE
from irc.passes._taken import is_taken
from irc.rewrite import erase_dead

PRODUCTS = ("gemm", "linear", "matmul")
ONE_BY_ONE: dict[str, Any] = {"strides": (1, 1), "dilations": (1, 1), "low": (0, 0), "high": (0, 0)}


@dataclass
class ProductsAsConv(Pass):
    """Compute products of rows [M, K] with constant matrices, and what is pointwise between them, as convolutions of
    an image [1, K, M, 1] whose windows are 1 by 1.

    A region is connected by its values, and by the rows that its products read alike. ONNX Runtime's kernel for such
    convolutions keeps a block of the weights in the cache for all positions of the image; that of Gemm reads them in
    another order, and waits for memory where they are larger than the cache, or where few rows are left over after
    blocks of 12. Rows are reordered into blocks of channels before a region and after it, which the runtime does in one
    pass over them.

    Benefit: by the table of AVX-512 two products of 512 and 2,048 features take 1.3 times as long as the convolutions
    where rows are 1 to 50, 1.13 at 128 and 1.05 at 500; those of 64 and 256 features 1.1 times, from 8 to 500 rows. By
    the table of AVX2 they take up to 1.1 times as long at 8 rows, and as long from 50 on. Products whose extents are no
    multiples of 16, which the runtime pads, and numbers of rows that may be 0, which its Conv rejects, stay products;
    so do matrices that are read twice, which would be stored twice.

    Before: %0 = linear %x, %w, %b : f32[128, 2048]; %1 = gelu %0; %y = linear %1, %v, %c : f32[128, 512]
    After:  %2 = transpose (reshape %x) : f32[1, 512, 128, 1]; %0 = conv %2, ... : f32[1, 2048, 128, 1]; %1 = gelu %0;
            %3 = conv %1, ...; %y = reshape (transpose %3) : f32[128, 512]
    """

    def run(self, module: Module, context: PassContext) -> bool:
        count = 0
        for function in module.functions.values():
            for block in list(blocks(function.block)):
                for region in _regions(block, context, module.edge_cases):
                    if pays(context, "products_as_conv", region):
                        count += _replaced(region, context, module.edge_cases)
        context.count("products_as_conv", "replaced", count)
        return count > 0


# -- regions -----------------------------------------------------------------------------------------------------


def _regions(block: Block, context: PassContext, edge_cases: EdgeCases) -> Iterator[list[Operation]]:
    """The regions of a block, each in program order. What the target computes by several operators, such as gelu in an
    opset without it, is in none: these are not computed in the layout."""
    members, joined = set[Operation](), DisjointSets[Operation | Value]()
    for operation in block:
        if _is_product(operation):
            members.add(operation)
        elif _is_between(operation) and all(x.operation in members for x in operation.inputs):
            if context.target is None or context.target.takes(operation, edge_cases):
                members.add(operation)
    for operation in reversed(list(block)):  # what no product reads is computed on rows
        if operation in members and operation.name in POINTWISE and members.isdisjoint(operation.result.users()):
            members.remove(operation)
    for operation in members:
        for value in _rows_read(operation):
            joined.join(operation, value if value.operation not in members else value.operation)
    regions: dict[Operation | Value, list[Operation]] = {}
    for operation in block:
        if operation in members:
            regions.setdefault(joined.find(operation), []).append(operation)
    yield from regions.values()


def _rows_read(operation: Operation) -> list[Value]:
    """The operands that have a row for each row of the result."""
    return operation.inputs[:1] if operation.name in PRODUCTS else operation.inputs


def _is_product(operation: Operation) -> bool:
    """Whether it is one of rows and a constant matrix of whole blocks that nothing else reads."""
    if operation.name not in PRODUCTS or operation.result.dtype is not F32:
        return False
    x, weight, *bias = operation.inputs
    if not all(map(_is_matrix, (x, weight, operation.result))):
        return False
    if len(weight.uses) > 1 or not all(map(_is_stored, (weight, *bias))):
        return False
    if operation.name == "gemm" and not _is_linear(operation):
        return False
    has_blocks = all(isinstance(extent, int) and extent and extent % BLOCK == 0 for extent in weight.shape)
    return has_blocks and dims.equal(operation.result.shape[0], 0) is False


def _is_linear(operation: Operation) -> bool:
    """Whether a gemm is a product of rows, plus a vector if anything."""
    attributes, (_, _, *added) = operation.attributes, operation.inputs
    adds_vector = not added or (attributes["beta"] == 1 and added[0].rank == 1
                                and same(added[0].shape[0], operation.result.shape[1]))  # fmt: skip
    return attributes["alpha"] == 1 and not attributes["transpose_a"] and adds_vector


def _is_stored(value: Value) -> bool:
    """Whether it is a constant or a view of one, as the weights of PyTorch's linear are."""
    while value.operation is not None and value.operation.name in ("reshape", "transpose"):
        value = value.operation.inputs[0]
    return is_constant(value)


def _is_between(operation: Operation) -> bool:
    if operation.name not in POINTWISE or not all(map(_is_matrix, (*operation.inputs, operation.result))):
        return False
    return all(all(map(same, x.shape, operation.result.shape)) for x in operation.inputs)


def _is_matrix(value: Value) -> bool:
    return value.type.is_ranked and value.rank == 2


# -- rewriting ---------------------------------------------------------------------------------------------------


def _replaced(region: list[Operation], context: PassContext, edge_cases: EdgeCases) -> int:
    """How many operations have been replaced: all of a region, or none if the target has no such convolution."""
    images = dict[Value, Value]()
    for operation in region:
        with Builder.before_operation(operation, operation.location.by("products_as_conv")):
            operands = [_image(value, images) for value in _rows_read(operation)]
            if operation.name in PRODUCTS:
                image = conv(*operands, _windows(operation), *operation.inputs[2:], **ONE_BY_ONE)
                if not images and not is_taken(image, context, edge_cases):
                    return 0
            else:
                image = operation.definition(*operands, **operation.attributes)
            rows = reshape(transpose(image, permutation=(0, 2, 3, 1)), shape=operation.result.shape)
        images[rows] = image
        operation.replace([rows])
    erase_dead([rows.operation for rows in reversed(images) if rows.operation is not None])
    return len(region)


def _image(value: Value, images: dict[Value, Value]) -> Value:
    """Rows [M, K] as an image [1, K, M, 1]: ONNX Runtime takes the transpose into its reordering."""
    if value not in images:
        rows, width = value.shape
        return transpose(reshape(value, shape=(1, rows, 1, width)), permutation=(0, 3, 1, 2))
    return images[value]


def _windows(operation: Operation) -> Value:
    """The matrix of a product [K, N] as N windows [K, 1, 1]."""
    weight = operation.inputs[1]
    columns = weight if operation.attributes.get("transpose_b") else transpose(weight, permutation=(1, 0))
    return reshape(columns, shape=(*columns.shape, 1, 1))
