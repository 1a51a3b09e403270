"""Externs of an artefact: models of one node for ONNX Runtime, and the operators that PyTorch computes instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from irc.backends.triton.text import Names, identifier
from irc.ir import Operation
from irc.ops.extern import is_random, is_seeded, one_node_model

LONGEST_HINT = 40  # characters of an operator's name in the name of a file
# Functions of templates/drawing.py by operator. ONNX Runtime begins to draw at one place in every session, so that two
# operators without a seed would draw the same numbers.
DRAWN = {
    "RandomNormal": "normal", "RandomNormalLike": "normal_like", "RandomUniform": "uniform",
    "RandomUniformLike": "uniform_like", "Bernoulli": "bernoulli", "Multinomial": "multinomial", "Dropout": "dropout",
}  # fmt: skip


@dataclass
class Extern:
    """An operation that runs as an embedded ONNX model."""

    name: str
    op: str
    model: bytes

    @staticmethod
    def of(operation: Operation, names: Names, number: int) -> Extern:
        """The extern of this number, which its name, that of a file, ends with."""
        types = [None if operand is None else operand.dtype for operand in operation.operands]
        model = one_node_model(operation.attributes, types, [result.dtype for result in operation.results])
        op_type = operation.attributes["op_type"]
        name = names.fresh(f"{identifier(op_type.lower())[:LONGEST_HINT]}_{number}", "extern")
        return Extern(name, op_type, model)


def torch_function(operation: Operation) -> str | None:
    """The function of the templates that computes an extern, or None where ONNX Runtime does."""
    if (operation.attributes["domain"], operation.attributes["op_type"]) == ("", "NonZero"):
        return "host.nonzero"
    if is_random(operation) and not is_seeded(operation):
        return f"drawing.{DRAWN[operation.attributes['op_type']]}"
    return None


def torch_attributes(operation: Operation) -> dict[str, Any]:
    """The keywords of that function."""
    if not is_random(operation):
        return {}
    attributes = {name: value for name, value in operation.attributes["attributes"].items() if name != "dtype"}
    if operation.attributes["op_type"] == "Dropout":
        return {"masked": len(operation.results) > 1}
    return {**attributes, "dtype": operation.results[0].dtype}
