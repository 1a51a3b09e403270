"""Questions to ONNX's own schemas."""

from __future__ import annotations

from onnx import defs

from irc.backends.onnx.runtime import LOWEST_OPSET


def schema_since(op_type: str, opset: int, domain: str = "") -> int | None:
    """The opset since which an operator has the schema that it has at `opset`; None where it has none."""
    try:
        schema = defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return None
    return None if schema.deprecated else schema.since_version


def first_opset(op_type: str) -> int:
    """The lowest opset, from the lowest that is emitted on, that has an operator of the default domain."""
    opsets = range(LOWEST_OPSET, defs.onnx_opset_version() + 1)
    return next((opset for opset in opsets if schema_since(op_type, opset) is not None), LOWEST_OPSET)
