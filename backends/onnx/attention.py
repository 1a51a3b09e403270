"""The row of attention."""

from __future__ import annotations

from irc.backends.onnx.graph import Graph
from irc.backends.onnx.row import Operand, both, emits, newer, on
from irc.backends.onnx.target import Target
from irc.backends.onnx.view import equal
from irc.dtypes import BOOL
from irc.ir import Operation, Value


def agrees(operation: Operation, target: Target) -> bool:
    """Where ONNX Runtime's kernel means the same: a row that may attend to nothing is zero there, so that without a
    mask both meanings agree; and a mask has all keys, in the type of q or as bool."""
    q, k, _, mask = (*operation.operands, None)[:4]
    if q is None or k is None or mask is None:
        return True
    meant = operation.attributes["masked_rows"] == "zero"
    return meant and mask.dtype in (BOOL, q.dtype) and 2 <= mask.rank <= 4 and equal(mask.shape[-1], k.shape[2])


@emits("attention", when=both(newer(23), on("Attention"), agrees))
def attention(g: Graph, q: Value, k: Value, v: Value, mask: Value | None = None, *, scale: float | None, causal: bool,
              masked_rows: str) -> Operand:  # fmt: skip
    return g.node("Attention", q, k, v, mask, scale=scale, is_causal=causal or None)
