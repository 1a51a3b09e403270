"""Rows of the recurrent layers. Those of narrow floats run in f32: their states are rounded at the end, not after each
step as in the IR, which keeps more precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc.backends.onnx.graph import Graph, Operand
from irc.backends.onnx.row import both, emits, in_wider
from irc.backends.onnx.target import Target
from irc.dtypes import F32, I32
from irc.ir import Operation, Value


def has_known_hidden_size(operation: Operation, target: Target) -> bool:
    """It is an attribute there."""
    return isinstance(operation.inputs[2].shape[2], int)


def node(g: Graph, op_type: str, outputs: int, operands: Sequence[Value | None],
         **attributes: Any) -> Sequence[Operand]:
    given: list[Operand] = [*operands]
    assert operands[0] is not None
    dtype = operands[0].dtype
    wide = dtype if g.target.runs(op_type, dtype) else F32
    for index, operand in enumerate(operands):
        if operand is not None and index != 4:
            given[index] = g.cast(operand, dtype, wide)
    lengths = operands[4] if len(operands) > 4 else None
    if lengths is not None:
        given[4] = g.cast(lengths, lengths.dtype, I32)
    assert operands[2] is not None
    results: list[str] = g.node(op_type, *given, outputs=outputs, hidden_size=operands[2].shape[2], **attributes)
    return [g.cast(result, wide, dtype) for result in results]


@emits("lstm", when=both(in_wider("LSTM"), has_known_hidden_size))
def lstm(g: Graph, *operands: Value | None, direction: str) -> Sequence[Operand]:
    return node(g, "LSTM", 3, operands, direction=given(direction))


@emits("gru", when=both(in_wider("GRU"), has_known_hidden_size))
def gru(g: Graph, *operands: Value | None, direction: str, reset_after: bool) -> Sequence[Operand]:
    return node(g, "GRU", 2, operands, direction=given(direction), linear_before_reset=int(reset_after) or None)


@emits("rnn", when=both(in_wider("RNN"), has_known_hidden_size))
def rnn(g: Graph, *operands: Value | None, direction: str, activation: str) -> Sequence[Operand]:
    count = 2 if direction == "bidirectional" else 1
    return node(g, "RNN", 2, operands, direction=given(direction),
                activations=["Relu"] * count if activation == "relu" else None)


def given(direction: str) -> str | None:
    return None if direction == "forward" else direction
