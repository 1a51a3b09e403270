"""The row of attention."""

from __future__ import annotations

from irc.backends.onnx.graph import Graph
from irc.backends.onnx.row import Operand, both, emits, on, since
from irc.backends.onnx.target import Target
from irc.backends.onnx.view import equal
from irc.dtypes import BOOL
from irc.ir import Operation, Value


def agrees(operation: Operation, target: Target) -> bool:
    """Where ONNX Runtime's kernel means the same. There a row that may attend to nothing is zero, and NaN stays NaN:
    with a mask that is "zero", without one no finite input tells it from "nan". A mask has all keys, all queries or one
    row for them, and the type of q or bool."""
    q, k, _, mask = (*operation.operands, None)[:4]
    assert q is not None and k is not None
    masked_rows = operation.attributes["masked_rows"]
    if mask is None:
        return masked_rows in ("nan", "zero")
    fits = mask.dtype in (BOOL, q.dtype) and 2 <= mask.rank <= 4 and equal(mask.shape[-1], k.shape[2])
    return masked_rows == "zero" and fits and (equal(mask.shape[-2], q.shape[2]) or equal(mask.shape[-2], 1))


@emits("attention", opset=23, when=both(since(23), on("Attention"), agrees))
def attention(g: Graph, q: Value, k: Value, v: Value, mask: Value | None = None, *, scale: float | None, causal: bool,
              masked_rows: str) -> Operand:  # fmt: skip
    rows: Operand = mask
    if mask is not None and not equal(mask.shape[-2], q.shape[2]):  # one row for all queries, which the runtime refuses
        rows = g.node("Expand", mask, g.shape((*mask.shape[:-2], q.shape[2], mask.shape[-1])))
    return g.node("Attention", q, k, v, rows, scale=scale, is_causal=causal or None)
