"""Metadata of a module in the model that is made of it, beside irc's own."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper, shape_inference

from irc._version import __version__
from irc.backends.onnx.target import Target
from irc.metadata import GRAPH, MODEL, Facts, Metadata
from irc.module import Module


def describe_model(model: onnx.ModelProto, module: Module, target: Target) -> None:
    """Write what is said of the model, its graph, inputs, outputs, values and initializers. The producer of the model
    stays its producer; irc says in properties of its own that it made this one."""
    metadata = module.metadata
    facts = metadata.get(MODEL, {})
    model.producer_name, model.producer_version = "irc", __version__
    properties = {"producer": "irc", **facts.get("metadata_props", {}), "irc_version": __version__,
                  "irc_target": target.name}  # fmt: skip
    if facts.get("producer_name"):
        model.ClearField("producer_version")
    describe(model, {**facts, "metadata_props": properties})
    graph = model.graph
    describe(graph, metadata.get(GRAPH, {}))
    for kind, values in ("input", graph.input), ("output", graph.output), ("value", graph.value_info):
        for value in values:
            _describe_value(value, metadata.get((kind, value.name), {}))
    for tensor in graph.initializer:
        describe(tensor, metadata.get(("initializer", tensor.name), {}))


def state_shapes(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Outputs must state a shape: where irc knows none, what ONNX infers, or what the module was read with."""
    lacking = [output for output in model.graph.output if _lacks_shape(output)]
    if lacking:
        inferred = {output.name: output for output in shape_inference.infer_shapes(model).graph.output}
    for output in lacking:
        shape = metadata.get(("output", output.name), {}).get("shape")
        if not _lacks_shape(inferred[output.name]):
            output.type.CopyFrom(inferred[output.name].type)
        elif shape is not None:
            type_ = output.type.tensor_type
            stated = [None if extent == "" else extent for extent in shape]
            output.type.CopyFrom(helper.make_tensor_type_proto(type_.elem_type, stated))


def _lacks_shape(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.HasField("tensor_type")) and not value.type.tensor_type.HasField("shape")


def describe_node(node: onnx.NodeProto, metadata: Metadata) -> None:
    """Write what is said of the node of this name."""
    describe(node, metadata.get(("node", node.name), {}))


def describe(message: Any, facts: Facts) -> None:
    """Set the fields of a message."""
    for field, fact in facts.items():
        if field == "metadata_props":
            for key, text in fact.items():
                message.metadata_props.add(key=key, value=text)
        else:
            setattr(message, field, fact)


def _describe_value(value: onnx.ValueInfoProto, facts: Facts) -> None:
    """Denotations belong to the type, and to its dims if there are as many as there were."""
    of_type = ("denotation", "dim_denotations", "shape")
    describe(value, {field: fact for field, fact in facts.items() if field not in of_type})
    if "denotation" in facts:
        value.type.denotation = facts["denotation"]
    dims, denotations = value.type.tensor_type.shape.dim, facts.get("dim_denotations", ())
    if len(dims) == len(denotations):
        for dim, text in zip(dims, denotations, strict=True):
            if text:
                dim.denotation = text
