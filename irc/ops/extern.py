"""Operations that are carried whole because nothing in the table says them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc.diagnostics import fail
from irc.op import AnyType, OperationDefinition
from irc.types import TensorType


def _extern(
    *xs: AnyType | None,
    domain: str,
    op_type: str,
    version: int,
    attributes: dict[str, Any],
    declared: Sequence[TensorType] | None = None,
) -> tuple[TensorType, ...]:
    """An ONNX operator of `domain` in its opset `version`, with its own attributes.

    Operands may be absent. Attributes hold integers, floats, strings, lists of these, and tensors.
    Shapes: result types are stated; importers take them from ONNX's own inference for the node.
    Source: the ONNX operator named.
    Edge cases: those of ONNX Runtime, which runs it as a model of one node; its failing is `run.extern`.
    """
    if declared is None:
        raise fail("type.operands", f"the result types of {domain or 'ai.onnx'}.{op_type} must be stated")
    return tuple(declared)


extern = OperationDefinition(_extern, "extern", {"declared"}, name="extern")
