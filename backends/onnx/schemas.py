"""Questions to ONNX's own schemas."""

from __future__ import annotations

from functools import cache

from onnx import TensorProto, defs

from irc.backends.onnx.runtime import CONTRIB, KERNELS_SINCE, LOWEST_OPSET, WRITTEN_OPSET
from irc.dtypes import DType

# The input by whose element type the runtime's kernels are listed, where that is not the first.
TYPED_BY = {"Where": 1, "OneHot": 2}


@cache
def find_schema(op_type: str, opset: int, domain: str = "") -> defs.OpSchema | None:
    """The schema of an operator at an opset; None where it has none."""
    try:
        schema = defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return None
    return None if schema.deprecated else schema


def schema_since(op_type: str, opset: int, domain: str = "") -> int | None:
    """The opset since which an operator has the schema that it has at `opset`; None where it has none."""
    schema = find_schema(op_type, opset, domain)
    return None if schema is None else schema.since_version


@cache
def takes_type(op_type: str, dtype: DType, opset: int, position: int | None = None) -> bool:
    """Whether an operator of the default domain exists at an opset, and takes elements of this type there: at one of
    its inputs, or at that by which the runtime's kernels are listed (of QuantizeLinear that is its output)."""
    if op_type in CONTRIB:
        return True
    schema = find_schema(op_type, opset)
    if schema is None:
        return False
    if position is None and op_type == "QuantizeLinear":
        return type_text(dtype) in schema.outputs[0].types
    position = TYPED_BY.get(op_type, 0) if position is None else position
    return type_text(dtype) in schema.inputs[position].types


def type_text(dtype: DType) -> str:
    """What schemas call a tensor of a type."""
    return f"tensor({TensorProto.DataType.Name(dtype.onnx).lower()})"


@cache
def first_opset(op_type: str) -> int:
    """The lowest opset, from the lowest that is chosen on, that has an operator of the default domain."""
    opsets = range(LOWEST_OPSET, defs.onnx_opset_version() + 1)
    return next((opset for opset in opsets if schema_since(op_type, opset) is not None), LOWEST_OPSET)


@cache
def typed_since(op_type: str, dtype: DType) -> int:
    """The lowest opset, from the lowest that is chosen on, in which an operator may have elements of this type wherever
    the opset in which rows write nodes, or the operator's first, allows it."""
    first = first_opset(op_type)
    written = _places(op_type, dtype, max(WRITTEN_OPSET, first))
    since = KERNELS_SINCE.get((op_type, dtype.name), LOWEST_OPSET)
    return next(opset for opset in range(max(first, since), max(WRITTEN_OPSET, first) + 1)
                if _places(op_type, dtype, opset) >= written)


def _places(op_type: str, dtype: DType, opset: int) -> set[str]:
    """The inputs and outputs of an operator that may have elements of this type."""
    schema, text = find_schema(op_type, opset), type_text(dtype)
    return set() if schema is None else {each.name for each in (*schema.inputs, *schema.outputs) if text in each.types}
