"""Model files: written whole or not at all, with the data of large ones in a file beside, and counted."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import onnx

from irc.backends.onnx.emitter import emit_model
from irc.backends.onnx.storage import DataFile
from irc.backends.onnx.target import Target
from irc.diagnostics import Location, fail
from irc.files import replacing
from irc.module import Module

WHOLE_LIMIT = 1 << 31  # protobuf's: a message is smaller than 2 GB
RESERVE = 64 << 20  # for all that is not weights


def save_model(module: Module, path: Path, target: Target, keep_kernels: bool) -> None:
    """Emit a module into a file; a failure leaves the files as they were."""
    if not path.parent.is_dir():
        raise fail("file.missing", f"there is no folder {path.parent}", at=Location(file=str(path)))
    with ExitStack() as stack:
        # Entered first, left last: the data is in its place before the model that refers to it.
        model_file = stack.enter_context(replacing(path))
        data = None
        if module.weight_bytes > WHOLE_LIMIT - RESERVE:
            beside = path.with_name(f"{path.name}.data")
            data = DataFile(beside.name, stack.enter_context(replacing(beside)))
        proto = emit_model(module, target, keep_kernels, data)
        model_file.write(proto.SerializeToString(deterministic=True))


def count_nodes(path: Path) -> int:
    """The operators of a model: nodes in subgraphs count, and a call of a local function counts as its nodes."""
    model = onnx.load(path, load_external_data=False)
    functions = {(function.domain, function.name): function for function in model.functions}

    def count(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            function = functions.get((node.domain, node.op_type))
            total += 1 if function is None else count(function.node)
            total += sum(count(attribute.g.node) for attribute in node.attribute if attribute.HasField("g"))
        return total

    return count(model.graph.node)
