"""The rows of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc import dims
from irc.backends.onnx.edges import unless_empty
from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.row import both, emits, on, since
from irc.backends.onnx.target import Target
from irc.backends.onnx.view import equal
from irc.dims import Dim
from irc.dtypes import BOOL, F16, limits
from irc.ir import Operation, Value


def agrees(operation: Operation, target: Target) -> bool:
    """Where ONNX Runtime's kernel means the same, of q, k, v and a mask."""
    q, k, _, mask = (*operation.operands, None)[:4]
    assert q is not None and k is not None
    return computes(operation, target, q, k.shape[-2], mask)


def agrees_with_past(operation: Operation, target: Target) -> bool:
    """As `agrees`, with the keys and values of earlier steps after v. Three results cannot be guarded where they may be
    empty, as that of `attended` is."""
    q, k, v, past, _, mask = (*operation.operands, None)[:6]
    assert q is not None and k is not None and v is not None and past is not None
    has_elements = all(dims.less(0, extent) is True for x in (q, k, v) for extent in x.shape)
    keys = past.shape[2] + k.shape[1]
    return (has_elements or not target.keeps_edges) and computes(operation, target, q, keys, mask)


def computes(operation: Operation, target: Target, q: Value, keys: Dim, mask: Value | None) -> bool:
    """Whether the kernel computes an attention to so many keys. There a row that may attend to nothing is zero, and NaN
    stays NaN: with a mask that is "zero", without one it equals "nan" for every finite input. For finite scores
    "nan_as_zero" is "zero"; for others, the processor's target gives the NaN that PyTorch gives before it is exported
    to ONNX. A mask has all keys, all queries or one row for them, and the type of q or bool."""
    masked_rows, scale = operation.attributes["masked_rows"], operation.attributes["scale"]
    if masked_rows == "nan_as_zero" and target.name == "cpu" and not target.keeps_edges:
        masked_rows = "zero"
    depth = dims.floor_divide(q.shape[-1], operation.attributes.get("heads", 1))
    has_depth = dims.less(0, depth) is True if target.keeps_edges else not equal(depth, 0)
    if (scale is not None and scale <= 0) or not has_depth:  # which the kernel rejects
        return False
    if mask is None:
        return masked_rows in ("nan", "zero")
    if target.keeps_edges and q.dtype is F16 and mask.dtype is not BOOL:
        return False  # beside a mask of -65504 the kernel, which adds in f16, loses the scores
    fits = mask.dtype in (BOOL, q.dtype) and 2 <= mask.rank <= 4 and equal(mask.shape[-1], keys)
    return masked_rows == "zero" and fits and (equal(mask.shape[-2], q.shape[-2]) or equal(mask.shape[-2], 1))


@emits("attention", opset=23, when=both(since(23), on("Attention"), agrees))
def attention(g: Graph, q: Value, k: Value, v: Value, mask: Value | None = None, *, scale: float | None, causal: bool,
              masked_rows: str) -> Operand:  # fmt: skip
    return attended(g, q, k, v, mask, masked_rows, scale=scale, is_causal=causal or None)


def is_for_processor(operation: Operation, target: Target) -> bool:
    return target.name == "cpu"


@emits("attention_rows", opset=23, when=both(since(23), on("Attention"), is_for_processor, agrees))
def attention_rows(g: Graph, q: Value, k: Value, v: Value, mask: Value | None = None, *, heads: int, groups: int,
                   scale: float | None, causal: bool, masked_rows: str) -> Operand:  # fmt: skip
    return attended(g, q, k, v, mask, masked_rows, scale=scale, is_causal=causal or None, q_num_heads=heads,
                    kv_num_heads=groups)  # fmt: skip


@emits("cached_attention", opset=23, when=both(since(23), on("Attention"), is_for_processor, agrees_with_past))
def cached_attention(
    g: Graph, q: Value, k: Value, v: Value, past_k: Value, past_v: Value, mask: Value | None = None, *,
    heads: int, groups: int, scale: float | None, masked_rows: str,
) -> Sequence[Operand]:  # fmt: skip
    rows = mask_rows(g, q, mask, masked_rows)
    return g.node("Attention", q, k, v, rows, past_k, past_v, outputs=3, scale=scale, q_num_heads=heads,
                  kv_num_heads=groups)  # fmt: skip


def attended(g: Graph, q: Value, k: Value, v: Value, mask: Value | None, masked_rows: str,
             **options: Any) -> Operand:  # fmt: skip
    """The node, of operands of three axes or four."""
    rows = mask_rows(g, q, mask, masked_rows)
    # An empty operand fails in the runtime, and no heads of k end the process.
    extents = dict.fromkeys(extent for x in (q, k, v) for extent in x.shape if dims.less(0, extent) is not True)
    ends_process = k.rank == 4 and k.shape[1] in extents
    return unless_empty(g, dims.product(extents), lambda inner: inner.node("Attention", q, k, v, rows, **options),
                        always=ends_process)  # fmt: skip


def mask_rows(g: Graph, q: Value, mask: Value | None, masked_rows: str) -> Operand:
    """The mask as the operator takes it. What came from ONNX's operator means what the runtime does with it; other
    spellings do not hide keys by the least finite number."""
    is_of_operator = masked_rows == "zero"
    rows: Operand = mask
    if mask is not None and mask.dtype is not BOOL and (g.target.keeps_edges or not is_of_operator):
        rows = above_lowest(g, mask)
    queries = q.shape[-2]
    if mask is not None and not equal(mask.shape[-2], queries):  # one row for all queries, which the runtime rejects
        rows = g.node("Expand", rows, g.shape((*mask.shape[:-2], queries, mask.shape[-1])))
    return rows


def above_lowest(g: Graph, mask: Value) -> Operand:
    """A mask without the least finite number, which ONNX Runtime takes for -inf: a row that holds nothing else hides no
    key, but adds the same to each."""
    lowest = limits(mask.dtype).smallest
    known = g.known(mask)
    if known is not None and not (known.array() == lowest).any():
        return mask
    is_lowest = g.node("Equal", mask, g.numbers(lowest, mask.dtype))
    return g.node("Where", is_lowest, g.numbers(lowest / 2, mask.dtype), mask)


def has_elements(operation: Operation, target: Target) -> bool:
    """Whether x is not known to be empty, for which the runtime's operator is not specified."""
    return all(dims.equal(extent, 0) is not True for extent in operation.inputs[0].shape)


@emits("rotary_rows", opset=23, when=both(since(23), on("RotaryEmbedding"), is_for_processor, has_elements))
def rotary_rows(g: Graph, x: Value, cos: Value, sin: Value, *, heads: int) -> Operand:
    return g.node("RotaryEmbedding", x, cos, sin, num_heads=heads)
