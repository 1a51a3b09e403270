"""Extern operations: ONNX operators that irc keeps as opaque operations, in their original opset.

A model has one opset for all nodes of the default domain. Where an operator means the same in it as in its own opset
(its schema has not changed in between), it is emitted as it is; else ONNX's version converter adapts the one node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import defs, helper, version_converter

from irc.backends.onnx.drawing import bernoulli
from irc.backends.onnx.graph import Graph, Model, Operand, attribute_proto, type_proto
from irc.backends.onnx.row import emits
from irc.backends.onnx.schemas import schema_since
from irc.diagnostics import UnsupportedError
from irc.ir import Operation
from irc.ops import aten
from irc.ops.extern import check_attributes, is_seeded, output_names
from irc.types import TensorType
from irc.weights import Tensor


def settled_opset(model: Model) -> int:
    """The lowest opset from the one required on in which all externs of the default domain mean what they did; where
    there is none, the one required, and the others are converted."""
    versions = [min(version, defs.onnx_opset_version()) for _, version in model.externs]
    for opset in range(model.opset, max([model.target.newest_opset, *versions]) + 1):
        if all(schema_since(op_type, opset) == schema_since(op_type, version) for op_type, version in model.externs):
            return opset
    return model.opset


@emits("extern")
def extern(g: Graph, *xs: Operand, domain: str, op_type: str, version: int, attributes: Mapping[str, Any],
           outputs: tuple[int, ...] | None = None) -> Any:  # fmt: skip
    assert g.operation is not None
    if op_type in aten.PAIRS and domain == aten.DOMAIN:
        return xs[0]  # complex numbers are pairs already
    if domain == aten.DOMAIN:
        other = aten.alternative(op_type)
        spelling = f". Or write {other}" if other else ""
        raise UnsupportedError(f"ONNX has no {op_type} of PyTorch; the backend triton calls PyTorch for it, and so "
                               f'does torch.compile(program, backend="irc"){spelling}')
    check_attributes(g.operation.attributes)
    domain = "" if domain == "ai.onnx" else domain
    if domain:
        known = g.model.domains.setdefault(domain, version)
        if known != version and schema_since(op_type, known, domain) != schema_since(op_type, version, domain):
            raise UnsupportedError(f"{domain} is needed in versions {known} and {version} at once")
    else:
        g.model.externs.add((op_type, version))
        settled = g.model.settled
        if version < settled and schema_since(op_type, version) != schema_since(op_type, settled):
            return converted(g, g.operation, settled)
        if op_type == "Bernoulli" and g.model.draws_in_regions and not is_seeded(g.operation):
            return bernoulli(g, g.operation.inputs[0])
    produced = g.node(
        op_type, *xs, outputs=len(g.operation.results), domain=domain, written=version,
        **typed(attributes, op_type, version, domain),
    )  # fmt: skip
    node, names = g.nodes[-1], [produced] if isinstance(produced, str) else produced
    del node.output[:]
    node.output.extend(output_names(names, outputs))
    return produced


def typed(attributes: Mapping[str, Any], op_type: str, version: int, domain: str) -> dict[str, Any]:
    """The attributes; an empty list says nothing of its type, but the schema does."""
    result = dict(attributes)
    for name, value in attributes.items():
        if value == () and schema_since(op_type, version, domain) is not None:
            described = defs.get_schema(op_type, version, domain).attributes.get(name)
            if described is not None:
                result[name] = onnx.AttributeProto(name=name, type=described.type.value)  # type: ignore[attr-defined]
    return result


def converted(g: Graph, operation: Operation, opset: int) -> list[str]:
    """The nodes into which ONNX's version converter makes an extern; constants are given to it as such."""
    op_type, version = operation.attributes["op_type"], operation.attributes["version"]
    names = ["" if value is None else f"i{index}" for index, value in enumerate(operation.operands)]
    outputs = [f"o{index}" for index in range(len(operation.results))]
    node = helper.make_node(op_type, names, output_names(outputs, operation.attributes.get("outputs")))
    node.attribute.extend(attribute_proto(name, value) for name, value in
                          typed(operation.attributes["attributes"], op_type, version, "").items())  # fmt: skip
    alone = helper.make_graph(
        [node],
        "extern",
        [_info(name, value.type) for name, value in zip(names, operation.operands, strict=True) if value is not None],
        [_info(name, value.type) for name, value in zip(outputs, operation.results, strict=True)],
    )
    model = helper.make_model(alone, opset_imports=[helper.make_opsetid("", version)])
    try:
        done = version_converter.convert_version(model, opset).graph
    except (RuntimeError, version_converter.ConvertError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UnsupportedError(f"{op_type} of opset {version} has no counterpart in opset {opset}: {reason}") from None
    known = {name: g.name(value) for name, value in zip(names, operation.operands, strict=True) if name}
    for tensor in done.initializer:
        known[tensor.name] = g.constant(_content(tensor), tensor.name)
    for each in done.node:
        attributes = {attribute.name: attribute for attribute in each.attribute}
        if each.op_type == "Constant":
            known[each.output[0]] = g.constant(_content(attributes["value"].t), each.output[0])
            continue
        produced = g.node(
            each.op_type, *(known.get(name, "") for name in each.input), outputs=len(each.output), written=opset,
            **attributes,
        )  # fmt: skip
        known.update(zip(each.output, [produced] if len(each.output) == 1 else produced, strict=True))
    return [known[name] for name in outputs]


def _info(name: str, type_: TensorType) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name, type=type_proto(type_))


def _content(tensor: onnx.TensorProto) -> Tensor:
    return Tensor.of(onnx.numpy_helper.to_array(tensor))
