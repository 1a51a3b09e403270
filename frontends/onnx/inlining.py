"""Local functions of a model: their calls are expanded by ONNX's own inliner, once it is known that the result is not
too large. (Functions that call one another twice, level by level, make 2^n nodes of n lines.)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError

import onnx

from irc.diagnostics import Location, fail
from irc.frontends.onnx.scope import normal_domain
from irc.frontends.onnx.weights import OnnxConstant
from irc.limits import check_limit, expanded

Key = tuple[str, str, str]  # domain, name and overload of a function


def inlined(model: onnx.ModelProto, file: str | None) -> onnx.ModelProto:
    """The model without local functions; raises `limit.exceeded` where they would become too many nodes or bytes, and
    `onnx.invalid`."""
    import onnx.inliner

    at = Location(file=file)
    nodes, size = expanded_size(model, at)
    check_limit("inlined", nodes, "the calls of the model's functions become {}", at)
    check_limit("inlined_bytes", size, "the calls of the model's functions become {}", at)
    try:
        return onnx.inliner.inline_local_functions(model, convert_version=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise fail("onnx.invalid", "the model's local functions cannot be inlined", at=at,
                   notes=str(error).splitlines()[:3]) from None


def expanded_size(model: onnx.ModelProto, at: Location) -> tuple[int, int]:
    """How many nodes and bytes all calls from the main graph become; raises `onnx.invalid` for one that leads back."""
    functions = {(normal_domain(each.domain), each.name, each.overload): each for each in model.functions}

    def calls(nodes: Iterable[onnx.NodeProto]) -> Counter[Key]:
        keys = ((normal_domain(node.domain), node.op_type, node.overload) for node in all_nodes(nodes))
        return Counter(key for key in keys if key in functions)

    called = {key: calls(function.node) for key, function in functions.items()}
    main = calls(model.graph.node)
    try:
        nodes = expanded({key: sum(1 for _ in all_nodes(each.node)) for key, each in functions.items()}, called)
        sizes = expanded({key: each.ByteSize() for key, each in functions.items()}, called)
    except CycleError as error:
        names = " -> ".join(name for _, name, _ in error.args[1][:8])
        raise fail("onnx.invalid", f"the model's functions call themselves: {names}", at=at) from None
    return sum(nodes[key] * main[key] for key in main), sum(sizes[key] * main[key] for key in main)


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of the graphs that they have."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                waiting.extend(graph.node)


def named_as_before(before: list[OnnxConstant], after: list[OnnxConstant]) -> list[OnnxConstant]:
    """The constants of an inlined model under the names that the file has them by: those of functions are new."""
    kept = {constant.key for constant in before if not constant.scope}
    moved = {constant.tensor.digest(): constant.key for constant in before if constant.scope}

    def renamed(constant: OnnxConstant) -> OnnxConstant:
        key = None if constant.key in kept else moved.get(constant.tensor.digest())
        return constant if key is None else constant._replace(tensor=constant.tensor.renamed(key))

    return list(map(renamed, after))
