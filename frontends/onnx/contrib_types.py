"""The result types of ONNX Runtime's operators, for nodes that are kept as opaque operations.

ONNX itself does not know these operators. A rule gets the node and returns, for each output, its element type and its
shape; an extent of None is known only when it runs, and so is the whole of a shape that is None.

    @gives("RotaryEmbedding")
    def as_first(node): return [node.like(0)]

Source: ContribOperators.md and the schemas of ONNX Runtime 1.31 (core/graph/contrib_ops); NchwcOperators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irc import dims, ops
from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import F32, I32, I64, STRING, U32, DType
from irc.frontends.onnx.linear import padding, per_axis, rounded_up
from irc.ir import Value
from irc.ops.rules import broadcast_shapes, normalize_axis, window_extent
from irc.shape_analysis import ShapeAnalysis
from irc.types import TensorType

MICROSOFT, BLOCKED = "com.microsoft", "com.microsoft.nchwc"
BLOCK = 16  # channels, at most, that NCHWc layouts keep together

Shape = Sequence[Dim | None]
Known = tuple[DType, Shape | None]


@dataclass(frozen=True)
class Node:
    """A node: its operands, None for those that are absent, and its attributes by name."""

    op_type: str
    operands: Sequence[Value | None]
    attributes: Mapping[str, Any]
    analysis: ShapeAnalysis

    def has(self, index: int) -> bool:
        return index < len(self.operands) and self.operands[index] is not None

    def type(self, index: int) -> TensorType:
        """The type of an operand; raises `onnx.invalid` where it is absent."""
        operand = self.operands[index] if index < len(self.operands) else None
        if operand is None:
            raise fail("onnx.invalid", f"{self.op_type}: input {index} is missing")
        return operand.type

    def dtype(self, *indices: int) -> DType:
        """The element type of the first of these operands that is there."""
        return self.type(next((index for index in indices if self.has(index)), indices[-1])).dtype

    def shape(self, index: int, *ranks: int) -> tuple[Dim, ...] | None:
        """An operand's shape, None where its rank is not known; raises `type.rank` for one that is none of `ranks`."""
        type_ = self.type(index)
        if type_.shape is not None and ranks and type_.rank not in ranks:
            raise fail("type.rank", f"{self.op_type}: input {index} is {type_}",
                       expected=f"{' or '.join(map(str, ranks))} axes")
        return type_.shape

    def like(self, index: int, dtype: DType | None = None) -> Known:
        return dtype or self.dtype(index), self.shape(index)

    def get(self, name: str, default: Any = None) -> Any:
        value = self.attributes.get(name)
        if value is None and default is None:
            raise fail("onnx.invalid", f"{self.op_type}: attribute `{name}` is missing")
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute; raises `onnx.invalid` for one that is something else."""
        value = self.get(name, default)
        if not isinstance(value, int):
            raise fail("onnx.invalid", f"{self.op_type}: attribute `{name}` is {value!r}", expected="an integer")
        return value

    def positive(self, name: str, default: int | None = None) -> int:
        """An attribute that is a count; raises `onnx.invalid` for what is none."""
        value = self.integer(name, default)
        if value < 1:
            raise fail("onnx.invalid", f"{self.op_type}: attribute `{name}` is {value}", expected="1 or more")
        return value

    def elements(self, index: int) -> list[Any] | None:
        """The elements of a small integer tensor that are known before it runs, each a dim or None."""
        operand = self.operands[index] if self.has(index) else None
        return None if operand is None else self.analysis.known_dims(operand)


Rule = Callable[[Node], Sequence[Known]]
RULES: dict[tuple[str, str], Rule] = {}


def gives(*op_types: str, domain: str = MICROSOFT) -> Callable[[Rule], Rule]:
    """Declare the rule of operators."""

    def declare(rule: Rule) -> Rule:
        RULES.update({(domain, op_type): rule for op_type in op_types})
        return rule

    return declare


def described(domain: str, node: Node) -> Sequence[Known] | None:
    """What is known of a node's outputs; None where there is no rule."""
    rule = RULES.get((domain, node.op_type))
    return None if rule is None else rule(node)


# -- element by element ----------------------------------------------------------------------------------------


@gives("Inverse", "RotaryEmbedding", "MRotaryEmbedding", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "MoE",
       "QMoE", "BiasSoftmax", "BiasAdd", "GroupNorm", "ScaledSiLU", "GatedRMSNorm", "GatedAdd", "BranchwiseRMSNorm")
def as_first(node: Node) -> Sequence[Known]:
    return [node.like(0)]


@gives("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def skip_normalization(node: Node) -> Sequence[Known]:
    shape = node.shape(0)
    statistics = F32, None if shape is None else (*shape[:-1], 1)
    return [node.like(0), statistics, statistics, node.like(0)]


@gives("SimplifiedLayerNormalization", "LayerNormalization", domain="")
def normalization(node: Node) -> Sequence[Known]:
    shape, is_plain = node.shape(0), node.op_type == "LayerNormalization"
    axis = 0 if shape is None else normalize_axis(node.integer("axis", -1), len(shape))
    statistics = F32, None if shape is None else (*shape[:axis], *[1] * (len(shape) - axis))
    return [node.like(0, node.dtype(1)), *[statistics] * (2 if is_plain else 1)]


@gives("QLinearAdd", "QLinearMul")
def broadcast_pair(node: Node) -> Sequence[Known]:
    return [(node.dtype(0), broadcast_shapes(node.type(0), node.type(3)))]


@gives("QLinearWhere")
def broadcast_choice(node: Node) -> Sequence[Known]:
    return [(node.dtype(1), broadcast_shapes(node.type(0), node.type(1), node.type(4)))]


@gives("MurmurHash3")
def hashed(node: Node) -> Sequence[Known]:
    return [node.like(0, U32 if node.integer("positive", 1) else I32)]


@gives("NGramRepeatBlock")
def as_second(node: Node) -> Sequence[Known]:
    return [node.like(1)]


# -- products --------------------------------------------------------------------------------------------------


def product(node: Node, dtype: DType) -> Known:
    """Of matrices in the first two operands, whatever their element types."""
    left, right = (node.type(index).with_dtype(F32) for index in (0, 1))
    (result,) = ops.matmul.infer([left, right], {})
    return dtype, result.shape


@gives("MatMulIntegerToFloat")
def product_in_scales_type(node: Node) -> Sequence[Known]:
    return [product(node, node.dtype(2))]


@gives("DynamicQuantizeMatMul")
def product_in_first_type(node: Node) -> Sequence[Known]:
    return [product(node, node.dtype(0))]


@gives("MatMulInteger16")
def product_of_integers(node: Node) -> Sequence[Known]:
    return [product(node, I32)]


@gives("MatMulNBits", "MatMulBnb4", "MatMulFpQ4")
def product_with_packed(node: Node) -> Sequence[Known]:
    shape = node.shape(0)
    if node.op_type == "MatMulFpQ4":
        columns = (node.elements(2) or [None])[-1]
    else:
        columns = node.positive("N" if node.integer("transB", 1) else "K")
    return [(node.dtype(0), None if shape is None else (*shape[:-1], columns))]


@gives("FusedGemm", "QGemm")
def matrix_product(node: Node) -> Sequence[Known]:
    places, dtype = (0, 1), node.dtype(0)
    if node.op_type == "QGemm":
        places, dtype = (0, 3), node.dtype(8, 1)
    left, right = (node.shape(place, 2) for place in places)
    if left is None or right is None:
        return [(dtype, (None, None))]
    return [(dtype, (left[1 if node.integer("transA", 0) else 0], right[0 if node.integer("transB", 0) else 1]))]


@gives("CDist")
def distances(node: Node) -> Sequence[Known]:
    return [(node.dtype(0), [None if (shape := node.shape(index, 2)) is None else shape[0] for index in (0, 1)])]


# -- windows ---------------------------------------------------------------------------------------------------


def places(node: Node, extents: Sequence[Dim], kernel: Sequence[int]) -> list[Dim]:
    """How many windows there are along each spatial axis."""
    count = len(extents)
    strides = per_axis(node.get("strides", (1,) * count), count, 1, "strides")
    dilations = per_axis(node.get("dilations", (1,) * count), count, 1, "dilations")
    pads = node.attributes.get("pads")
    low, high = padding(extents, kernel, strides, dilations, pads, node.get("auto_pad", "NOTSET"))
    if node.integer("ceil_mode", 0):
        high = rounded_up(extents, kernel, strides, dilations, low, high)
    axes = zip(extents, kernel, strides, dilations, low, high, range(count), strict=True)
    return [window_extent(*each) for each in axes]


def spatial(shape: Sequence[Dim], channels_last: bool) -> tuple[Dim, tuple[Dim, ...]]:
    """The channels and the extents of an image."""
    return (shape[-1], tuple(shape[1:-1])) if channels_last else (shape[1], tuple(shape[2:]))


def image(batch: Dim, channels: Dim, extents: Shape, channels_last: bool) -> Shape:
    return (batch, *extents, channels) if channels_last else (batch, channels, *extents)


def convolution(node: Node, weight: int, dtype: DType, channels_last: bool) -> Sequence[Known]:
    shape, filters = node.shape(0), node.shape(weight)
    if shape is None or filters is None:
        return [(dtype, None)]
    kernel: list[int] = [size for size in node.attributes.get("kernel_shape") or filters[2:] if isinstance(size, int)]
    extents = spatial(shape, channels_last)[1]
    sizes = places(node, extents, kernel) if len(kernel) == len(extents) else [None] * len(extents)
    return [(dtype, image(shape[0], filters[0], sizes, channels_last))]


@gives("FusedConv")
@gives("Conv", domain=BLOCKED)
def convolved(node: Node) -> Sequence[Known]:
    return convolution(node, 1, node.dtype(0), channels_last=False)


@gives("NhwcConv", "NhwcFusedConv")
def convolved_channels_last(node: Node) -> Sequence[Known]:
    return convolution(node, 1, node.dtype(0), channels_last=True)


@gives("QLinearConv")
def convolved_quantized(node: Node) -> Sequence[Known]:
    return convolution(node, 3, node.dtype(7), channels_last=bool(node.integer("channels_last", 0)))


def pooling(node: Node, dtype: DType, channels_last: bool) -> Sequence[Known]:
    shape = node.shape(0)
    if shape is None:
        return [(dtype, None)]
    channels, extents = spatial(shape, channels_last)
    kernel = per_axis(node.get("kernel_shape"), len(extents), 1, "kernel_shape")
    return [(dtype, image(shape[0], channels, places(node, extents, kernel), channels_last))]


@gives("MaxpoolWithMask")
@gives("MaxPool", "AveragePool", domain=BLOCKED)
def pooled(node: Node) -> Sequence[Known]:
    return pooling(node, node.dtype(0), channels_last=False)


@gives("NhwcMaxPool")
def pooled_channels_last(node: Node) -> Sequence[Known]:
    return pooling(node, node.dtype(0), channels_last=True)


@gives("QLinearAveragePool")
def pooled_quantized(node: Node) -> Sequence[Known]:
    return pooling(node, node.dtype(4, 0), channels_last=bool(node.integer("channels_last", 0)))


@gives("QLinearGlobalAveragePool")
@gives("GlobalAveragePool", "GlobalMaxPool", domain=BLOCKED)
def pooled_whole(node: Node) -> Sequence[Known]:
    shape, last = node.shape(0), bool(node.integer("channels_last", 0))
    if shape is None:
        return [(node.dtype(0), None)]
    channels, extents = spatial(shape, last)
    return [(node.dtype(0), image(shape[0], channels, [1] * len(extents), last))]


@gives("ConvTransposeWithDynamicPads")
def convolved_back(node: Node) -> Sequence[Known]:
    shape, filters = node.shape(0), node.shape(1)
    if shape is None or filters is None:
        return [(node.dtype(0), None)]
    return [(node.dtype(0), (shape[0], filters[1] * node.positive("group", 1), *[None] * (len(shape) - 2)))]


@gives("ReorderInput", domain=BLOCKED)
def blocked(node: Node) -> Sequence[Known]:
    """The channels are rounded up to blocks, whose size is the machine's."""
    shape = node.shape(0, 4)
    if shape is None:
        return [(node.dtype(0), (None,) * 4)]
    channels, extents = spatial(shape, bool(node.integer("channels_last", 0)))
    is_whole = isinstance(channels, int) and channels % BLOCK == 0
    return [(node.dtype(0), (shape[0], channels if is_whole else None, *extents))]


@gives("ReorderOutput", domain=BLOCKED)
def unblocked(node: Node) -> Sequence[Known]:
    shape = node.shape(0, 4)
    if shape is None:
        return [(node.dtype(0), (None,) * 4)]
    channels, last = node.positive("channels"), bool(node.integer("channels_last", 0))
    return [(node.dtype(0), image(shape[0], channels, shape[2:], last))]


@gives("Upsample", domain=BLOCKED)
def enlarged(node: Node) -> Sequence[Known]:
    shape, scales = node.shape(0, 4), node.get("scales", (1, 1, 1, 1))
    return [(node.dtype(0), None if shape is None else [
        extent * scale for extent, scale in zip(shape, map(int, scales), strict=True)])]


# -- attention -------------------------------------------------------------------------------------------------


@gives("Attention", "QAttention")
def attention(node: Node) -> Sequence[Known]:
    past, dtype = (4, node.dtype(0)) if node.op_type == "Attention" else (8, node.dtype(3))
    shape, weights, heads = node.shape(0, 3), node.shape(1, 2), node.positive("num_heads")
    if shape is None or weights is None:
        return [(dtype, (None,) * 3), (dtype, (2, None, heads, None, None))]
    batch, length, _ = shape
    sizes = node.attributes.get("qkv_hidden_sizes")
    hidden = sizes[2] if sizes else dims.floor_divide(weights[1], 3)
    total: Dim | None = length
    if node.has(past):
        before = node.shape(past, 5)
        total = None if before is None else before[3] + (0 if node.integer("past_present_share_buffer", 0) else length)
    return [(dtype, (batch, length, hidden)),
            (dtype, (2, batch, heads, total, dims.floor_divide(hidden, heads)))]


@gives("MultiHeadAttention")
def multi_head_attention(node: Node) -> Sequence[Known]:
    dtype, heads, query = node.dtype(0), node.positive("num_heads"), node.shape(0, 3, 5)
    given = [node.shape(index, *ranks) if node.has(index) else () for index, ranks in ((1, (3, 4, 5)), (2, (3, 4)))]
    if query is None or None in given:
        cache = dtype, (None, heads, None, None)
        return [(dtype, (None,) * 3), cache, cache, cache]
    (key, value), (batch, length) = given, query[:2]
    assert key is not None and value is not None
    keys, size = length, query[4] if len(query) == 5 else dims.floor_divide(query[2], heads)
    own_size = size
    if len(key) in (3, 5):
        keys = key[1]
    if len(value) == 3:
        own_size = dims.floor_divide(value[2], heads)
    elif len(value) == 4:
        keys, own_size = value[2], value[3]
    total: Dim | None = keys
    if node.has(6):
        past = node.shape(6, 4)
        total = None if past is None else past[2] if node.has(8) else past[2] + keys
    hidden = value[2] if len(value) == 3 else own_size * heads
    return [(dtype, (batch, length, hidden)), (dtype, (batch, heads, total, size)),
            (dtype, (batch, heads, total, own_size)), (dtype, (batch, heads, length, total))]


@gives("DecoderMaskedMultiHeadAttention")
def decoder_attention(node: Node) -> Sequence[Known]:
    """For one new position: the past is that of all positions where its buffer is shared."""
    dtype, heads, query = node.dtype(0), node.positive("num_heads"), node.shape(0, 3)
    batch, length, hidden = (None,) * 3 if query is None else query
    if node.has(2):
        value = node.shape(2, 3, 4)
        hidden = None if value is None else value[2] if len(value) == 3 else value[3] * heads
    elif hidden is not None:
        hidden = dims.floor_divide(hidden, 3)
    cache: Shape = (batch, heads, None, None)
    if node.has(5) and (past := node.shape(5, 4)) is not None:
        cache = past if node.integer("past_present_share_buffer", 0) else (*past[:2], past[2] + 1, past[3])
    return [(dtype, (batch, length, hidden)), (dtype, cache), (dtype, cache), (F32, (batch, heads, 1, cache[2]))]


@gives("GroupQueryAttention")
def group_query_attention(node: Node) -> Sequence[Known]:
    """The length of the cache afterwards is determined by the values of `total_sequence_length`."""
    dtype, heads, pairs = node.dtype(0), node.positive("num_heads"), node.positive("kv_num_heads")
    query = node.shape(0, 3)
    batch, length, hidden, size = (None,) * 4
    if query is not None:
        batch, length, hidden = query
        size = dims.floor_divide(hidden, heads if node.has(1) else heads + 2 * pairs)
        hidden = hidden if node.has(1) else size * heads
    caches = []
    for place in (3, 4):
        past = node.shape(place, 4) if node.has(place) else None
        total = past[2] if past is not None and node.integer("sliding_window_cache", 0) else None
        caches.append((node.dtype(place) if node.has(place) else dtype,
                       (batch, pairs, total, size if past is None else past[3])))
    return [(dtype, (batch, length, hidden)), *caches, (dtype, (batch, heads, length, None))]


@gives("SparseAttention")
def sparse_attention(node: Node) -> Sequence[Known]:
    query, heads, pairs = node.shape(0, 3), node.positive("num_heads"), node.positive("kv_num_heads")
    if query is None or node.has(1):
        return [node.like(0), node.like(3), node.like(4)]
    hidden = dims.floor_divide(query[2], heads + 2 * pairs) * heads
    return [(node.dtype(0), (*query[:2], hidden)), node.like(3), node.like(4)]


# -- embeddings, tables and the rest ---------------------------------------------------------------------------


@gives("EmbedLayerNormalization", "QEmbedLayerNormalization")
def embedding(node: Node) -> Sequence[Known]:
    ids, table = node.shape(0, 2), node.shape(2, 2)
    dtype = node.dtype(2 if node.op_type == "EmbedLayerNormalization" else 8)
    batch, length = (None, None) if ids is None else ids
    whole = dtype, (batch, length, None if table is None else table[1])
    return [whole, (I32, (batch,)), whole]


@gives("GatherBlockQuantized")
def gathered(node: Node) -> Sequence[Known]:
    """Of bytes that hold several elements each, the last axis has as many more."""
    table, indices, dtype = node.shape(0), node.shape(1), node.dtype(2)
    if table is None or indices is None:
        return [(dtype, None)]
    bits = node.positive("bits", 4)
    if node.dtype(0).bits == 8 and bits < 8:
        table = (*table[:-1], table[-1] * (8 // bits))
    axis = normalize_axis(node.integer("gather_axis", 0), len(table))
    return [(dtype, (*table[:axis], *indices, *table[axis + 1 :]))]


@gives("QLinearConcat")
def concatenated(node: Node) -> Sequence[Known]:
    parts = [node.type(index).with_dtype(F32) for index in range(2, len(node.operands), 3)]
    (result,) = ops.concat.infer(parts, {"axis": node.integer("axis")})
    return [(node.dtype(1), result.shape)]


@gives("QLinearReduceMean")
def averaged(node: Node) -> Sequence[Known]:
    type_ = node.type(0)
    axes = node.get("axes", tuple(range(type_.rank)) if type_.is_ranked else ())
    (result,) = ops.reduce_max.infer([type_], {"axes": axes, "keep_dims": bool(node.integer("keepdims", 1))})
    return [(node.dtype(4, 0), result.shape)]


@gives("DynamicQuantizeLSTM")
def lstm(node: Node) -> Sequence[Known]:
    shape, dtype, hidden = node.shape(0, 3), node.dtype(0), node.positive("hidden_size")
    length, batch = (None, None) if shape is None else shape[:2]
    directions = 2 if node.get("direction", "forward") == "bidirectional" else 1
    last = dtype, (directions, batch, hidden)
    return [(dtype, (length, directions, batch, hidden)), last, last]


@gives("CropAndResize")
def cropped(node: Node) -> Sequence[Known]:
    shape, regions = node.shape(0, 4), node.shape(1, 2)
    height, width = node.elements(3) or (None, None)
    return [(node.dtype(0), (None if regions is None else regions[0], None if shape is None else shape[1],
                             height, width))]


@gives("Unique")
def distinct(node: Node) -> Sequence[Known]:
    return [(node.dtype(0), (None,)), (I64, node.shape(0, 1)), (I64, (None,))]


@gives("Tokenizer")
def tokens(node: Node) -> Sequence[Known]:
    shape = node.shape(0, 1, 2)
    return [(STRING, None if shape is None else (*shape, None))]


@gives("UnfoldTensor")
def unfolded(node: Node) -> Sequence[Known]:
    shape, size = node.shape(0), node.positive("size")
    if shape is None:
        return [(node.dtype(0), None)]
    axis = normalize_axis(node.integer("dim", -1), len(shape))
    if dims.less(shape[axis], size) is True:
        raise fail("onnx.invalid", f"UnfoldTensor: attribute `size` is {size}", expected=f"at most {shape[axis]}")
    count = dims.floor_divide(shape[axis] - size, node.positive("step", 1)) + 1
    return [(node.dtype(0), (*shape[:axis], count, *shape[axis + 1 :], size))]
