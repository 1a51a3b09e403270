"""What a model says of itself, its graph, inputs, outputs, values, nodes and initializers beyond what they compute."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx

from irc.frontends.onnx.inlining import all_nodes
from irc.frontends.onnx.structure import label
from irc.metadata import GRAPH, MODEL, Facts, Metadata


def read_metadata(model: onnx.ModelProto) -> Metadata:
    """The metadata of a model. Nodes (those of subgraphs, too) that share a label are not distinguished."""
    graph = model.graph
    read: Metadata = {MODEL: _facts(model, "producer_name", "producer_version", "domain", "model_version")}
    read[GRAPH] = _facts(graph)
    for kind, values in ("input", graph.input), ("output", graph.output), ("value", graph.value_info):
        read.update(((kind, value.name), _of_value(value)) for value in values)
    read.update((("initializer", tensor.name), _facts(tensor)) for tensor in graph.initializer)
    nodes = list(all_nodes(graph.node))[::-1]  # in the order of the model
    labels = Counter(map(label, nodes))
    read.update((("node", name), _facts(node)) for node in nodes if labels[name := label(node)] == 1)
    return {subject: facts for subject, facts in read.items() if facts and (subject[1] or subject in (MODEL, GRAPH))}


def state_shape(metadata: Metadata, output: onnx.ValueInfoProto) -> None:
    """Note the shape that a model states of an output of which no rank is known."""
    type_ = output.type.tensor_type
    if type_.HasField("shape"):
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in type_.shape.dim)
        metadata.setdefault(("output", output.name), {})["shape"] = shape


def _facts(message: Any, *fields: str) -> Facts:
    """The fields that are set, besides those that all messages have."""
    facts = {field: getattr(message, field) for field in (*fields, "doc_string")}
    facts["metadata_props"] = {entry.key: entry.value for entry in message.metadata_props}
    return {field: fact for field, fact in facts.items() if fact}


def _of_value(value: onnx.ValueInfoProto) -> Facts:
    facts = _facts(value)
    denotations = tuple(dim.denotation for dim in value.type.tensor_type.shape.dim)
    if value.type.denotation:
        facts["denotation"] = value.type.denotation
    if any(denotations):
        facts["dim_denotations"] = denotations
    return facts
