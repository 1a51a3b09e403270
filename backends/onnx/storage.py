"""The data file of a large model: the bytes of its weights, outside of the protobuf message."""

from __future__ import annotations

from typing import BinaryIO

from onnx import TensorProto

from irc.dtypes import STRING
from irc.weights import Tensor

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
