"""The kinds of ONNX Runtime's kernels that `irc calibrate` measures: each with its grid of sizes and a node of it.

A kind is a function of sizes that returns a `Node`, under the name by which cost tables have it
(`irc.kernel_costs`), with its grid. Kinds with a dot are variants of an operator whose times differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MICROSOFT = "com.microsoft"
NCHWC = "com.microsoft.nchwc"  # ONNX Runtime's own: models that it has optimized for a machine have its operators
ELEMENTS = (256, 4096, 65536, 1048576)
ROWS = (1, 16, 128, 1024)
WIDTHS = (32, 256, 1024)
CHANNELS = (16, 64, 256)
POSITIONS = (49, 196, 3136)


@dataclass(frozen=True)
class Node:
    """A node to be measured. `inputs` are shapes of f32 inputs; `constants` are arrays of further inputs, None for one
    that is absent. A `chain` passes its result to the next node, in the layout that ONNX Runtime chooses. With `back`
    each node is followed by one with these constants, which leads back to the shape of the input, and all have
    constants of their own: weights that all share stay in the cache, which those of a model do not."""

    op_type: str
    inputs: tuple[tuple[int, ...], ...]
    constants: tuple[Any, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    outputs: int = 1
    chain: bool = False
    back: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Kind:
    name: str
    axes: Mapping[str, tuple[int, ...]]
    node: Callable[..., Node]


KINDS: dict[str, Kind] = {}


def kind(name: str, **axes: tuple[int, ...]) -> Callable[[Callable[..., Node]], Callable[..., Node]]:
    def declare(node: Callable[..., Node]) -> Callable[..., Node]:
        KINDS[name] = Kind(name, axes, node)
        return node

    return declare


def weight(*shape: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).standard_normal(shape).astype(np.float32) / 16


def integers(*values: int) -> Any:
    import numpy as np

    return np.array(values, np.int64)


# -- products ----------------------------------------------------------------------------------------------------


PAIRS = {"rows": (1, 8, 49, 196, 1024), "inner": (64, 256, 512, 1024), "columns": (64, 256, 1024, 2048, 4096)}


@kind("Gemm.pair", **PAIRS)
def gemm_pair(rows: int, inner: int, columns: int) -> Node:
    """[rows, inner] times a constant weight, plus a constant bias, and back to [rows, inner] by another weight."""
    return Node("Gemm", ((rows, inner),), (weight(inner, columns), weight(columns)), chain=True,
                back=(weight(columns, inner), weight(inner)))  # fmt: skip


@kind("Conv.pair", **PAIRS)
def conv_pair(rows: int, inner: int, columns: int) -> Node:
    """As `Gemm.pair`, of an image [1, inner, rows, 1], in the layout that ONNX Runtime chooses."""
    return Node("Conv", ((1, inner, rows, 1),), (weight(columns, inner, 1, 1), weight(columns)), chain=True,
                back=(weight(inner, columns, 1, 1), weight(inner)))  # fmt: skip


@kind("MatMul.computed", batch=(1, 8, 64), rows=(1, 16, 64, 256), inner=(32, 64, 256), columns=(32, 64, 256))
def matmul_computed(batch: int, rows: int, inner: int, columns: int) -> Node:
    """[batch, rows, inner] times [batch, inner, columns], both computed."""
    return Node("MatMul", ((batch, rows, inner), (batch, inner, columns)))


@kind("Attention", heads=(2, 8), queries=(1, 16, 64, 256), keys=(16, 64, 256), width=(32, 64, 128))
def attention(heads: int, queries: int, keys: int, width: int) -> Node:
    """Queries [1, queries, heads * width], keys and values as many heads."""
    shapes = ((1, queries, heads * width), (1, keys, heads * width), (1, keys, heads * width))
    return Node("Attention", shapes, (), {"q_num_heads": heads, "kv_num_heads": heads})


@kind("Attention.masked", heads=(2, 8), queries=(1, 16, 64, 256), keys=(16, 64, 256), width=(32, 64, 128))
def attention_masked(heads: int, queries: int, keys: int, width: int) -> Node:
    """With an additive mask [queries, keys]."""
    plain = attention(heads, queries, keys, width)
    return Node("Attention", (*plain.inputs, (queries, keys)), (), plain.attributes)


@kind("Attention.heads", heads=(2, 8), queries=(1, 16, 64, 256), keys=(16, 64, 256), width=(32, 64, 128))
def attention_heads(heads: int, queries: int, keys: int, width: int) -> Node:
    """Of four axes: queries [1, heads, queries, width]."""
    shapes = ((1, heads, queries, width), (1, heads, keys, width), (1, heads, keys, width))
    return Node("Attention", shapes)


@kind("MatMulNBits", rows=(1, 4, 16, 64, 256), inner=(256, 1024), columns=(256, 1024, 4096))
def matmul_nbits(rows: int, inner: int, columns: int) -> Node:
    """[rows, inner] times a constant weight of 4 bits in blocks of 32."""
    import numpy as np

    packed = np.full((columns, inner // 32, 16), 0x79, np.uint8)
    scales = np.full((columns, inner // 32), 0.01, np.float32)
    return Node("MatMulNBits", ((rows, inner),), (packed, scales),
                {"K": inner, "N": columns, "bits": 4, "block_size": 32}, MICROSOFT)  # fmt: skip


# -- element by element ------------------------------------------------------------------------------------------

UNARY = ("Abs", "Ceil", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "IsNaN", "LeakyRelu", "Log", "Mish",
         "Neg", "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh")  # fmt: skip
BINARY = ("Add", "Div", "Max", "Mul", "Pow", "Sub")


def unary(op_type: str) -> Callable[..., Node]:
    return lambda elements: Node(op_type, ((1, elements),))


def binary(op_type: str) -> Callable[..., Node]:
    return lambda elements: Node(op_type, ((1, elements), (1, elements)))


for each in UNARY:
    KINDS[each] = Kind(each, {"elements": ELEMENTS}, unary(each))
for each in BINARY:
    KINDS[each] = Kind(each, {"elements": ELEMENTS}, binary(each))


@kind("Mul.channels", channels=CHANNELS, positions=POSITIONS)
def mul_channels(channels: int, positions: int) -> Node:
    """[channels, positions] times a number for each channel, as of squeeze and excite."""
    return Node("Mul", ((1, channels, positions), (1, channels, 1)))


@kind("QuickGelu", elements=ELEMENTS)
def quick_gelu(elements: int) -> Node:
    """x * sigmoid(x)."""
    return Node("QuickGelu", ((1, elements),), (), {"alpha": 1.0}, MICROSOFT)


@kind("Swish", elements=ELEMENTS)
def swish(elements: int) -> Node:
    return Node("Swish", ((1, elements),))


@kind("Clip", elements=ELEMENTS)
def clip(elements: int) -> Node:
    import numpy as np

    return Node("Clip", ((1, elements),), (np.float32(0), np.float32(6)))


@kind("Where", elements=ELEMENTS)
def where(elements: int) -> Node:
    """A constant condition of as many elements."""
    import numpy as np

    condition = np.arange(elements).reshape(1, elements) % 3 > 0
    return Node("Where", (), (condition, weight(1, elements), np.float32(0)))


# -- rows --------------------------------------------------------------------------------------------------------


@kind("Softmax", rows=ROWS, width=WIDTHS)
def softmax(rows: int, width: int) -> Node:
    return Node("Softmax", ((rows, width),))


@kind("LayerNormalization", rows=ROWS, width=WIDTHS)
def layer_normalization(rows: int, width: int) -> Node:
    return Node("LayerNormalization", ((rows, width),), (weight(width), weight(width)))


@kind("RMSNormalization", rows=ROWS, width=WIDTHS)
def rms_normalization(rows: int, width: int) -> Node:
    return Node("RMSNormalization", ((rows, width),), (weight(width),))


@kind("SkipLayerNormalization", rows=ROWS, width=WIDTHS)
def skip_layer_normalization(rows: int, width: int) -> Node:
    """The layer norm of a sum of two."""
    shape = (1, rows, width)
    return Node("SkipLayerNormalization", (shape, shape), (weight(width), weight(width)), {}, MICROSOFT)


@kind("ReduceMean", rows=ROWS, width=WIDTHS)
def reduce_mean(rows: int, width: int) -> Node:
    """Over the last axis."""
    return Node("ReduceMean", ((rows, width),), (integers(-1),))


@kind("ReduceMean.positions", channels=CHANNELS, positions=POSITIONS)
def reduce_mean_positions(channels: int, positions: int) -> Node:
    """Over height and width of an image."""
    return Node("ReduceMean", ((1, channels, positions, 1),), (integers(2, 3),))


@kind("GlobalAveragePool", channels=CHANNELS, positions=POSITIONS)
def global_average_pool(channels: int, positions: int) -> Node:
    return Node("GlobalAveragePool", ((1, channels, positions, 1),))


@kind("InstanceNormalization", channels=CHANNELS, positions=POSITIONS)
def instance_normalization(channels: int, positions: int) -> Node:
    """A norm of each channel, with which group norms are computed."""
    return Node("InstanceNormalization", ((1, channels, positions),), (weight(channels), weight(channels)))


@kind("GroupNormalization", channels=CHANNELS, positions=POSITIONS)
def group_normalization(channels: int, positions: int) -> Node:
    """Of 8 groups."""
    return Node("GroupNormalization", ((1, channels, positions),), (weight(channels), weight(channels)),
                {"num_groups": 8})  # fmt: skip


@kind("RotaryEmbedding", heads=(2, 8), rows=(1, 16, 256), width=(32, 128))
def rotary_embedding(heads: int, rows: int, width: int) -> Node:
    """[1, rows, heads * width], with constant sines and cosines for each row."""
    table = weight(1, rows, width // 2)
    return Node("RotaryEmbedding", ((1, rows, heads * width),), (table, table), {"num_heads": heads})


# -- data movement -----------------------------------------------------------------------------------------------


@kind("Reshape", elements=ELEMENTS)
def reshape(elements: int) -> Node:
    """No elements are moved: the first time of the table is that of a node which computes nothing."""
    return Node("Reshape", ((elements // 8, 8),), (integers(8, elements // 8),))


@kind("Transpose.rows", rows=(16, 128, 1024), heads=(2, 8), width=(16, 64, 256))
def transpose_rows(rows: int, heads: int, width: int) -> Node:
    """[rows, heads, width] to [heads, rows, width]: the last axis stays."""
    return Node("Transpose", ((rows, heads, width),), (), {"perm": [1, 0, 2]})


@kind("Transpose.columns", rows=(16, 128, 1024), columns=(16, 128, 1024))
def transpose_columns(rows: int, columns: int) -> Node:
    """[rows, columns] to [columns, rows]."""
    return Node("Transpose", ((1, rows, columns),), (), {"perm": [0, 2, 1]})


@kind("ReorderInput", rows=ROWS, width=WIDTHS)
def reorder_input(rows: int, width: int) -> Node:
    """Rows into the layout of convolutions, in which the elements of a row are channels."""
    return Node("ReorderInput", ((1, rows, 1, width),), (), {"channels_last": 1}, NCHWC)


@kind("ReorderOutput", rows=ROWS, width=WIDTHS)
def reorder_output(rows: int, width: int) -> Node:
    """Out of the layout of convolutions into rows."""
    return Node("ReorderOutput", ((1, width, rows, 1),), (), {"channels": width, "channels_last": 1}, NCHWC)


@kind("Gather", rows=ROWS, width=WIDTHS)
def gather(rows: int, width: int) -> Node:
    """Rows of a table by constant indices."""
    import numpy as np

    return Node("Gather", ((rows, width),), (np.arange(rows)[::-1].copy(),))


@kind("Slice", rows=ROWS, width=WIDTHS)
def slice_(rows: int, width: int) -> Node:
    """[rows, width] out of twice the width."""
    return Node("Slice", ((rows, 2 * width),), (integers(0), integers(width), integers(1)))


@kind("Split", rows=ROWS, width=WIDTHS)
def split(rows: int, width: int) -> Node:
    """[rows, 3 * width] in three pieces of this width."""
    return Node("Split", ((rows, 3 * width),), (), {"axis": 1, "num_outputs": 3}, outputs=3)


@kind("Concat", rows=ROWS, width=WIDTHS)
def concat(rows: int, width: int) -> Node:
    """Two of this width, along the last axis."""
    return Node("Concat", ((rows, width), (rows, width)), (), {"axis": 1})


@kind("Pad", rows=ROWS, width=WIDTHS)
def pad(rows: int, width: int) -> Node:
    """By 1 before and after each row."""
    return Node("Pad", ((rows, width),), (integers(0, 1, 0, 1),))


@kind("Expand", rows=ROWS, width=WIDTHS)
def expand(rows: int, width: int) -> Node:
    """One row to so many."""
    return Node("Expand", ((1, width),), (integers(rows, width),))


@kind("Cast", elements=ELEMENTS)
def cast(elements: int) -> Node:
    """f32 to i64."""
    return Node("Cast", ((1, elements),), (), {"to": 7})
