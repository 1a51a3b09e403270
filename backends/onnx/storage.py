"""Writing models: whole or not at all, with the data of large ones in a file beside."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto

from irc.backends.onnx.target import Target
from irc.diagnostics import Location, fail
from irc.dtypes import STRING
from irc.files import replacing
from irc.module import Module
from irc.weights import Tensor

WHOLE_LIMIT = 1 << 31  # protobuf's: a message is smaller than 2 GB
RESERVE = 64 << 20  # for all that is not weights
SMALL = 1024  # bytes of a tensor that stays in the model in any case
ALIGNMENT = 4096  # of tensors in the data file, so that they can be mapped


class DataFile:
    """The file beside a model that holds its weights: `model.onnx.data`."""

    def __init__(self, location: str, file: BinaryIO) -> None:
        self.location = location
        self.file = file

    def takes(self, tensor: Tensor) -> bool:
        """Whether a tensor is kept here rather than in the model."""
        return tensor.dtype is not STRING and tensor.nbytes >= SMALL

    def restart(self) -> None:
        """Forget what was written."""
        self.file.seek(0)
        self.file.truncate()

    def add(self, tensor: Tensor, proto: TensorProto) -> None:
        """Write a tensor's bytes, and say in `proto` where they are."""
        self.file.write(b"\0" * (-self.file.tell() % ALIGNMENT))
        stored = tensor.stored()
        place = {"location": self.location, "offset": self.file.tell(), "length": stored.size}
        self.file.write(stored.data)
        proto.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            proto.external_data.add(key=key, value=str(value))


def save_model(module: Module, path: Path, target: Target, keep_kernels: bool) -> None:
    """Emit a module into a file; a failure leaves nothing behind, and what was there before as it was."""
    from irc.backends.onnx.emitter import emit_model

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
