"""The constants of an ONNX model: initializers and Constant nodes, with data inside of the file or beside it.

They are mapped and read when needed. Everything is read by hand and byte by byte checked: the onnx package follows
external data wherever a model's author points it.

Source: onnx.proto3, TensorProto (which field holds which dtype; packing of 2, 4 and 6 bits, lowest first).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from irc import dtypes
from irc.diagnostics import Diagnostic, IrcError, Location, fail
from irc.dtypes import DType
from irc.files import Bytes, MappedFile, open_inside
from irc.formats import EMPTY, POINTERS_AND_PAGES, ZEROS, recognized
from irc.frontends.onnx.messages import check_strings
from irc.limits import check_limit
from irc.weights import Array, Tensor, addressable

if TYPE_CHECKING:
    import onnx

ONNX_CODES = frozenset(dtype.onnx for dtype in dtypes.ALL)


class OnnxConstant(NamedTuple):
    """An initializer or the value of a Constant node, and where in the model it is defined."""

    key: str                # unique in the model: the name under which weights are found again
    scope: tuple[str, ...]  # () is the main graph; "3.then_branch" goes into node 3, "function 0" into a function
    name: str               # of the value, in its graph
    tensor: Tensor


def read_weights(file: MappedFile) -> dict[str, Tensor]:
    """Every constant of a model's file: a reader for `irc.weights.open_weights`."""
    model = read_onnx(file)
    check_strings(model, file.path.name)
    return onnx_tensors(model, file.path.parent)


def read_onnx(file: MappedFile) -> onnx.ModelProto:
    """The model in a file, without its external data."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = file.path
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(file.data.tobytes())
    except DecodeError as error:
        raise _no_model(file, f"{path.name} is not a whole ONNX model", [str(error)]) from None
    if not model.HasField("graph"):
        raise _no_model(file, f"{path.name} holds no graph", [])
    return model


def _no_model(file: MappedFile, message: str, notes: list[str]) -> IrcError:
    """What is wrong with a file that is no model: what it is instead, where that can be seen."""
    at, format_ = Location(file=str(file.path)), recognized(file.data)
    if format_ is None:
        return fail("onnx.truncated", message, at=at, notes=notes)
    code = "onnx.truncated" if format_ in (EMPTY, ZEROS) else "file.format"
    return fail(code, f"{file.path.name} is {format_.name}, and no ONNX model", at=at, help=format_.help)


def onnx_tensors(model: onnx.ModelProto, folder: Path) -> dict[str, Tensor]:
    """Every initializer and Constant value of a model, under the names of `onnx_constants`."""
    return {constant.key: constant.tensor for constant in onnx_constants(model, folder)}


def onnx_constants(model: onnx.ModelProto, folder: Path) -> list[OnnxConstant]:
    """Every initializer and Constant value: the main graph's, then those of subgraphs, level by level, and functions.

    The main graph's keep their names; of others that share a name each later one gets the next free ".1", ".2", ...
    All that is wrong is reported at once.
    """
    constants: list[OnnxConstant] = []
    errors: dict[tuple[str, str], Diagnostic] = {}
    taken: dict[str, int] = {}
    reader = _OnnxReader(folder)
    seen: set[tuple[tuple[str, ...], str]] = set()
    for scope, name, read in _onnx_definitions(model, reader):
        try:
            if not name or (scope, name) in seen:
                raise fail("onnx.redefined_name" if name else "onnx.invalid",
                           f"two constants are called {name!r}" if name else "a constant has no name")
            seen.add((scope, name))
            tensor = read()
        except IrcError as error:
            errors |= {(each.code, each.message): each for each in error.placed(Location(name=name)).diagnostics}
            continue
        if tensor is not None:
            key = _free_name(name, taken)
            constants.append(OnnxConstant(key, scope, name, tensor.renamed(key)))
    if errors:
        raise IrcError(errors.values())
    return constants


def onnx_tensor(proto: onnx.TensorProto, folder: Path | None = None) -> Tensor:
    """The tensor of one TensorProto (an attribute's), with its external data in `folder`.

    Typed fields are read when they are needed: leave the proto as it is.
    """
    try:
        return _OnnxReader(folder).tensor(proto)
    except IrcError as error:
        raise error.placed(Location(name=proto.name or None)) from None


def _free_name(name: str, taken: dict[str, int]) -> str:
    """`name`, or the first of "name.1", "name.2", ... that is free; `taken` counts how far each name has come."""
    key = name
    while key in taken:
        taken[name] += 1
        key = f"{name}.{taken[name]}"
    taken[key] = 0
    return key


def _onnx_definitions(model: onnx.ModelProto, reader: _OnnxReader
                      ) -> Iterator[tuple[tuple[str, ...], str, Callable[[], Tensor | None]]]:
    """Scope, name and reader of each constant, breadth first, so that outer names come before inner ones."""
    graphs: deque[tuple[tuple[str, ...], onnx.GraphProto | onnx.FunctionProto]] = deque([((), model.graph)])
    graphs.extend(((f"function {i}",), function) for i, function in enumerate(model.functions))
    while graphs:
        scope, graph = graphs.popleft()
        for proto in getattr(graph, "initializer", ()):
            yield scope, proto.name, partial(reader.tensor, proto)
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield scope, sparse.values.name, partial(reader.sparse, sparse)
        for i, node in enumerate(graph.node):
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                yield scope, "".join(node.output[:1]), partial(reader.constant, node)
            for attribute in node.attribute:
                for j, inner in enumerate([attribute.g] if attribute.HasField("g") else attribute.graphs):
                    graphs.append(((*scope, f"{i}.{attribute.name}" + (f".{j}" if j else "")), inner))


class _OnnxReader:
    """Reads TensorProtos and Constant nodes; each file of external data is mapped once."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.maps: dict[str, Bytes] = {}

    def sparse(self, proto: onnx.SparseTensorProto) -> Tensor:
        """The tensor with 0 (or an empty text) where none of the values lies; they are in order, each in a place."""
        shape, values, places = tuple(proto.dims), self.tensor(proto.values), self.tensor(proto.indices)
        if min(shape, default=0) < 0 or not addressable(shape):
            raise fail("onnx.invalid", f"a sparse tensor of shape {list(shape)}")
        alike = places.shape in (values.shape, (*values.shape, len(shape)))
        if len(values.shape) != 1 or places.dtype is not dtypes.I64 or not alike:
            actual = f"{places.dtype}{list(places.shape)} of {values.dtype}{list(values.shape)}"
            raise fail("onnx.invalid", f"the indices of a sparse tensor are {actual}",
                       expected=f"i64[N] or i64[N, {len(shape)}] beside N values")
        size = values.dtype.itemsize or np.dtype(object).itemsize
        check_limit("memory", prod(shape) * size, "a sparse tensor takes {} with its zeros")
        index = places.array()
        inside = (index >= 0) & (index < np.array(shape if index.ndim == 2 else prod(shape)))
        if index.ndim == 2 and inside.all():
            index = np.ravel_multi_index(tuple(index.T), shape) if index.size else np.zeros(len(index), np.int64)
        if not inside.all() or (np.diff(index) <= 0).any():
            raise fail("onnx.invalid", f"the indices of a sparse tensor of shape {list(shape)}",
                       expected="places in it, in ascending order, none of them twice")
        return Tensor(values.dtype, shape, lambda: _dense(values, index, shape))

    def constant(self, node: onnx.NodeProto) -> Tensor | None:
        """A Constant node's value; None where a function takes it from its caller. Source: ONNX Constant-13."""
        if any(attribute.ref_attr_name for attribute in node.attribute):
            return None
        if len(node.attribute) != 1:
            raise fail("onnx.invalid", "a Constant has exactly one attribute")
        attribute = node.attribute[0]
        if attribute.name == "value":
            return self.tensor(attribute.t)
        if attribute.name == "sparse_value":
            return self.sparse(attribute.sparse_tensor)
        for field, dtype in ("float", dtypes.F32), ("int", dtypes.I64), ("string", dtypes.STRING):
            if attribute.name == f"value_{field}":
                return Tensor.of(getattr(attribute, field[0]), dtype)
            if attribute.name == f"value_{field}s":
                return Tensor.of(list(getattr(attribute, f"{field}s")), dtype)
        raise fail("onnx.invalid", f"a Constant has no attribute {attribute.name!r}")

    def tensor(self, proto: onnx.TensorProto) -> Tensor:
        """A TensorProto's data, its sizes checked before a byte is used."""
        shape = tuple(proto.dims)
        if proto.data_type not in ONNX_CODES or min(shape, default=0) < 0 or not addressable(shape):
            raise fail("onnx.invalid", f"a tensor of element type {proto.data_type} and shape {list(shape)}")
        if proto.HasField("segment"):
            raise fail("onnx.unsupported", "tensors in segments are not supported")
        dtype, name = dtypes.from_onnx(proto.data_type), proto.name or None
        external = proto.data_location == proto.EXTERNAL
        if external or proto.HasField("raw_data"):
            data = self.external(proto) if external else np.frombuffer(proto.raw_data, np.uint8)
            if dtype is dtypes.STRING or data.size != dtype.packed_bytes(prod(shape)):
                raise fail("onnx.invalid", f"{data.size} bytes do not hold {dtype}{list(shape)}")
            return Tensor.packed(dtype, shape, data, name)
        field, expected = _typed_field(dtype, prod(shape))
        values = getattr(proto, field)
        if len(values) != expected:
            raise fail("onnx.invalid", f"{len(values)} entries of {field} do not hold {dtype}{list(shape)}")
        return Tensor(dtype, shape, lambda: _typed_array(values, dtype, shape), name)

    def external(self, proto: onnx.TensorProto) -> Bytes:
        """The bytes that external data points to, within the model's folder and within the file."""
        fields = {entry.key: entry.value for entry in proto.external_data}
        location, offset, length = fields.get("location"), fields.get("offset") or "0", fields.get("length")
        if self.folder is None or not location:
            raise fail("onnx.invalid", "external data without a location, or where none is allowed")
        try:
            if location not in self.maps:
                file = open_inside(self.folder, location, "onnx.external_outside", "onnx.external_missing")
                other_format = recognized(file.data)
                if other_format in POINTERS_AND_PAGES:  # which small tensors would lie within
                    raise fail("onnx.invalid", f"{location!r} is {other_format.name}, no external data",
                               help=other_format.help)
                self.maps[location] = file.data
        except IrcError as error:
            of = Location(name=f"external data of {proto.name!r}")
            raise IrcError(replace(diagnostic, origin=of) for diagnostic in error.diagnostics) from None
        data = self.maps[location]
        if not all(re.fullmatch("[0-9]{1,19}", number) for number in (offset, length or "0")):
            raise fail("onnx.invalid", f"external data at offset {offset!r} of length {length!r}")
        begin = int(offset)
        end = begin + int(length) if length else data.size
        if not begin <= end <= data.size:
            format_ = recognized(data)
            message = f"bytes {begin} to {end} lie outside {location!r} of {data.size} bytes"
            raise fail("onnx.invalid", message if format_ is None else f"{message}, which is {format_.name}",
                       help=format_ and format_.help)
        return data[begin:end]


def _dense(values: Tensor, places: Array, shape: tuple[int, ...]) -> Array:
    """Values at places of an array whose other elements are 0."""
    array = np.full(prod(shape), "" if values.dtype is dtypes.STRING else 0, values.dtype.numpy)
    array[places] = values.array()
    return array.reshape(shape)


def _typed_field(dtype: DType, size: int) -> tuple[str, int]:
    """The field of a TensorProto that holds elements of `dtype`, and how many entries `size` elements take there."""
    if dtype.is_complex:
        return ("float_data" if dtype is dtypes.C64 else "double_data"), 2 * size
    field = {dtypes.F32: "float_data", dtypes.F64: "double_data", dtypes.I64: "int64_data",
             dtypes.U32: "uint64_data", dtypes.U64: "uint64_data", dtypes.STRING: "string_data"}
    return field.get(dtype, "int32_data"), dtype.packed_bytes(size) if dtype.bits in (2, 4) else size


def _typed_array(values: Sequence[Any], dtype: DType, shape: tuple[int, ...]) -> Array:
    """The entries of a typed field as an array: numbers, or codes in the low bits of an int32."""
    if dtype is dtypes.STRING:
        return Tensor.of(np.array([*values, None], object)[:-1].reshape(shape), dtype).array()
    if dtype.bits >= 32:
        part = {"c64": dtypes.F32, "c128": dtypes.F64}.get(dtype.name, dtype)
        return np.fromiter(values, part.numpy, len(values)).view(dtype.numpy).reshape(shape)
    codes = np.fromiter(values, np.int32, len(values)).astype(f"u{dtype.itemsize}")
    if dtype.bits in (2, 4) or dtype is dtypes.BOOL:
        return Tensor.packed(dtype, shape, codes).array()
    return (codes & ((1 << dtype.bits) - 1)).view(dtype.numpy).reshape(shape)
