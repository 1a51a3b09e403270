"""Random operators without a seed: no two nodes of a model draw the same numbers.

ONNX Runtime begins to draw at a place that follows from the time of its start and from the number that the node has in
its graph, so that nodes of one number in two graphs (of a model, of a Loop) draw the same. Dropout does not.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from irc.backends.onnx.graph import Graph, Model, Operand, subgraphs
from irc.ir import Value
from irc.module import Module
from irc.ops.extern import RANDOM, is_random

NUMBERED = frozenset(RANDOM) - {"Dropout"}


def draws_in_regions(module: Module) -> bool:
    """Whether a random operator of a module stands in a branch or in a body, whose nodes are numbered from 0."""
    return any(is_random(operation) and operation.parent is not None for operation in module.walk())


def bernoulli(g: Graph, x: Value) -> Operand:
    """By its function in ONNX: ONNX Runtime would place that after all other nodes, with an unknown number."""
    uniform = g.node("RandomUniformLike", x, low=0.0, high=1.0, dtype=x.dtype.onnx)
    return g.node("Cast", g.node("Greater", uniform, x), to=g.result.dtype.onnx)


def separate(graph: onnx.GraphProto, model: Model) -> None:
    """Give each node that draws without a seed a number of its own, by nodes in front of it that nothing reads."""
    if model.operators.isdisjoint(NUMBERED):
        return
    taken: set[int] = set()
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        nodes: list[onnx.NodeProto] = []
        for node in current.node:
            if _begins_by_number(node):
                while len(nodes) in taken:
                    name = model.unique(f"{node.output[0]}/unused")
                    nodes.append(helper.make_node("RandomUniform", [], [name], model.unique_node(name), shape=[1],
                                                  dtype=TensorProto.FLOAT))
                taken.add(len(nodes))
            nodes.append(node)
        if len(nodes) > len(current.node):
            del current.node[:]
            current.node.extend(nodes)
        waiting += [inner for node in current.node for inner in subgraphs(node)]


def _begins_by_number(node: onnx.NodeProto) -> bool:
    seeded = any(attribute.name == "seed" for attribute in node.attribute)
    return node.op_type in NUMBERED and not node.domain and not seeded
