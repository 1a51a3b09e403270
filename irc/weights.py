"""Constants' storage: tensors that are read when needed, from safetensors, from ONNX, or from memory.

A constant is named after its source and mapped from its file, so that printing a graph of gigabytes reads almost
nothing. Both formats are read here by hand, byte by byte checked: `safetensors.numpy` can neither load bf16 and fp8
nor save types narrower than a byte (tried), and onnx follows external data wherever a model's author points it.

Sources: the safetensors format (README of huggingface/safetensors, "Format"; no holes between tensors, header of at
most 100 MB); onnx.proto3, TensorProto (which field holds which dtype; packing of 2, 4 and 6 bits, lowest first).
Files are little-endian, and so are all hosts that irc runs on.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from math import lcm, prod
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from irc import dtypes
from irc.diagnostics import Diagnostic, IrcError, Location, fail
from irc.dtypes import DType

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, np.dtype[Any]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
INLINE_LIMIT = 64           # constants of at most so many elements may be unnamed, and print as literals
ONNX_CODES = frozenset(dtype.onnx for dtype in dtypes.ALL)
HEADER_LIMIT = 100_000_000  # bytes of a safetensors header
SAFETENSORS = {  # what is read under each name; narrow ones are written as U8 with metadata
    "BOOL": dtypes.BOOL, "U8": dtypes.U8, "I8": dtypes.I8, "U16": dtypes.U16, "I16": dtypes.I16,
    "U32": dtypes.U32, "I32": dtypes.I32, "U64": dtypes.U64, "I64": dtypes.I64,
    "F16": dtypes.F16, "BF16": dtypes.BF16, "F32": dtypes.F32, "F64": dtypes.F64, "C64": dtypes.C64,
    "F8_E4M3": dtypes.F8E4M3FN, "F8_E4M3FNUZ": dtypes.F8E4M3FNUZ, "F8_E5M2": dtypes.F8E5M2,
    "F8_E5M2FNUZ": dtypes.F8E5M2FNUZ, "F8_E8M0": dtypes.F8E8M0,
    "F6_E2M3": dtypes.F6E2M3, "F6_E3M2": dtypes.F6E3M2, "F4": dtypes.F4E2M1,
}
NATIVE = {dtype: name for name, dtype in SAFETENSORS.items() if not dtype.sub_byte}
AS_BYTES = {dtype.name: dtype for dtype in dtypes.ALL if dtype not in NATIVE and dtype is not dtypes.STRING}


class Tensor:
    """The data of a constant: immutable, read once and on demand, equal when dtype, shape, name and bytes are.

    `name` is None for an inline literal. `source` gives the array when it is first needed; `Tensor.of` and
    `Tensor.packed` make a tensor from an array and from stored bytes.
    """

    __slots__ = ("_data", "dtype", "name", "shape")

    def __init__(self, dtype: DType, shape: Iterable[int], source: Callable[[], Array],
                 name: str | None = None) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.name = name
        self._data = _Data(source)

    @classmethod
    def of(cls, value: Any, dtype: DType | None = None, name: str | None = None) -> Tensor:
        """A tensor of an array, a number or nested lists; `dtype` converts, to integers only what they hold.

        An array that can still be written to is copied. To hand over a fresh one uncopied, end writing to it
        before: `array.flags.writeable = False`.
        """
        array = _converted(np.asarray(value, object if dtype is dtypes.STRING else None), dtype)
        if not _frozen(array):
            array = array.copy()
            array.flags.writeable = False
        return cls(dtypes.from_numpy(array.dtype), array.shape, lambda: array, name)

    @classmethod
    def packed(cls, dtype: DType, shape: Iterable[int], data: bytes | Bytes, name: str | None = None) -> Tensor:
        """A tensor of bytes as files store them; they are viewed, not copied, where the dtype allows it."""
        extents, stored = tuple(shape), np.frombuffer(data, np.uint8)
        assert stored.size == dtype.packed_bytes(prod(extents)), (dtype, extents, stored.size)
        return cls(dtype, extents, lambda: _unpack(stored, dtype, extents), name)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes when stored: narrow types are packed."""
        return self.stored().size if self.dtype is dtypes.STRING else self.dtype.packed_bytes(self.size)

    def array(self) -> Array:
        """The elements, read-only; narrow types take one byte each, strings are Python's."""
        if self._data.array is None:
            array = self._data.source()
            assert (array.dtype, array.shape) == (self.dtype.numpy, self.shape), (self, array.dtype, array.shape)
            self._data.array = (array if array.flags.c_contiguous else array.copy()).view()
            self._data.array.flags.writeable = False
            self._data.source = _spent  # lets go of what the source held
        return self._data.array

    def stored(self) -> Bytes:
        """The bytes as a file stores them: little-endian, narrow types packed."""
        return _pack(self.array(), self.dtype)

    def digest(self) -> str:
        """The SHA-256 of dtype, shape and bytes, in hexadecimal."""
        if self._data.digest is None:
            state = hashlib.sha256(f"{self.dtype}{list(self.shape)}".encode())
            state.update(self.stored().data)
            self._data.digest = state.hexdigest()
        return self._data.digest

    def renamed(self, name: str | None) -> Tensor:
        """The same data, shared, under another name."""
        other = Tensor(self.dtype, self.shape, self.array, name)
        other._data = self._data
        return other

    def is_splat(self) -> bool:
        """Whether there are elements and all have the same bytes."""
        if self.dtype is dtypes.STRING:
            return len(set(self.array().flat)) == 1
        rows = self.array().reshape(-1, 1).view(np.uint8)
        return bool(rows.size and (rows[:INLINE_LIMIT] == rows[0]).all() and (rows == rows[0]).all())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        if self.name != other.name or self.dtype is not other.dtype or self.shape != other.shape:
            return False
        return self._data is other._data or self.digest() == other.digest()

    def __hash__(self) -> int:
        # Large tensors are told apart by name: hashing must not read a file.
        return hash((self.name, self.dtype, self.shape, self.size <= INLINE_LIMIT and self.digest()))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Tensor.of, (self.array(), self.dtype, self.name)

    def __repr__(self) -> str:
        return f"Tensor({self.dtype}{list(self.shape)}{'' if self.name is None else f', name={self.name!r}'})"


class _Data:
    """What tensors of different names share."""

    __slots__ = ("array", "digest", "source")

    def __init__(self, source: Callable[[], Array]) -> None:
        self.source = source
        self.array: Array | None = None
        self.digest: str | None = None


def _spent() -> Array:
    raise AssertionError("a tensor asks its source once")


# --- arrays and bytes ---

def _converted(array: Array, dtype: DType | None) -> Array:
    """`array` contiguous, in native byte order and in `dtype`; numbers that an integer cannot hold are an error."""
    found = dtypes.from_numpy(array.dtype)
    dtype = dtype or found
    if (dtype is dtypes.STRING) != (found is dtypes.STRING) or found.is_complex > dtype.is_complex:
        raise fail("type.dtype", f"{found} elements cannot become {dtype}")
    if dtype is dtypes.STRING:
        return _strings(array.reshape(-1).tolist()).reshape(array.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.asarray(array, dtype.numpy, order="C")
    if found is not dtype and (dtype.is_integer or dtype is dtypes.BOOL):
        wide = array.astype(np.float64 if found.is_float else np.uint64 if found is dtypes.U64 else np.int64)
        low, high = dtypes.limits(dtype)
        if not ((wide >= low) & (wide <= high) & (converted.astype(wide.dtype) == wide)).all():
            raise fail("type.dtype", f"some {found} elements do not fit {dtype}",
                       expected=f"integers from {low} to {high}")
    return converted


def _strings(elements: Iterable[Any]) -> Array:
    """A row of Python strings; bytes are read as UTF-8, and what is not UTF-8 survives as surrogates."""
    text = [e.decode("utf-8", "surrogateescape") if isinstance(e, bytes) else e for e in elements]
    if not all(isinstance(element, str) for element in text):
        raise fail("type.dtype", "some elements are neither numbers nor strings")
    row = np.empty(len(text), object)
    row[:] = text
    return row


def _frozen(array: Array) -> bool:
    """Whether nobody can write to the array's memory through any array that shares it."""
    link: Any = array
    while isinstance(link, np.ndarray):
        if link.flags.writeable:
            return False
        link = link.base
    return True


def _unpack(stored: Bytes, dtype: DType, shape: tuple[int, ...]) -> Array:
    """Stored bytes as an array: a view where an element has a byte or more."""
    if dtype is dtypes.BOOL:
        stored = np.minimum(stored, 1)  # any other byte would upset numpy
    if dtype.sub_byte:
        width, word, shifts = _lanes(dtype)
        padded = np.zeros(-(-stored.size // width) * width, np.uint8)
        padded[:stored.size] = stored
        words = np.zeros((padded.size // width, word.itemsize), np.uint8)
        words[:, :width] = padded.reshape(-1, width)
        codes: Bytes = (words.view(word) >> shifts & word.type((1 << dtype.bits) - 1)).astype(np.uint8)
        stored = codes.reshape(-1)[:prod(shape)]
    return stored.view(dtype.numpy).reshape(shape)


def _pack(array: Array, dtype: DType) -> Bytes:
    """The inverse of `_unpack`, in one canonical form: unused bits are zero. Strings become a JSON list."""
    if dtype is dtypes.STRING:
        return np.frombuffer(json.dumps(array.reshape(-1).tolist()).encode(), np.uint8)
    stored: Bytes = array.reshape(-1).view(np.uint8)
    if not dtype.sub_byte:
        return stored
    width, word, shifts = _lanes(dtype)
    codes = np.zeros((-(-stored.size // shifts.size), shifts.size), word)
    codes.reshape(-1)[:stored.size] = stored & np.uint8((1 << dtype.bits) - 1)
    words = np.bitwise_or.reduce(codes << shifts, axis=1, keepdims=True)
    return words.view(np.uint8)[:, :width].reshape(-1)[:dtype.packed_bytes(stored.size)]


def _lanes(dtype: DType) -> tuple[int, np.dtype[Any], Array]:
    """How narrow elements are packed: bytes a group (3 for 6 bits, else 1), the word that holds it, their shifts."""
    width = lcm(dtype.bits, 8) // 8
    word: np.dtype[Any] = np.dtype(np.uint8 if width == 1 else np.uint32)
    return width, word, np.arange(0, 8 * width, dtype.bits, dtype=word)


# --- files ---

def resolve_inside(folder: Path, relative: str, code: str = "weights.outside") -> Path:
    """The path that `relative` means in `folder`; one that leads out of it is refused with `code`.

    Refused are absolute paths and `..` (in the manner of any system) and symbolic links, of the file or of a folder
    on the way, whose target lies elsewhere: a downloaded model must not read the user's other files.
    """
    at = Location(file=str(folder))
    parts = PureWindowsPath(relative)  # takes both / and \\ as separators
    if parts.anchor or ".." in parts.parts or "\0" in relative:
        raise fail(code, f"{relative!r} is not a plain path relative to the folder", at=at)
    root = os.path.realpath(folder)
    real = Path(os.path.realpath(os.path.join(root, relative)))
    if not real.is_relative_to(root):
        raise fail(code, f"{relative!r} is a link that leads out of the folder", at=at)
    return real


def map_file(path: Path, missing: str = "file.missing") -> Bytes:
    """A file's bytes, mapped into memory and read-only; `missing` is the error's code where there is no file."""
    if not os.path.isfile(path):  # a pipe or a device would block or never end
        raise fail(missing, f"there is no file {os.path.basename(path)}", at=Location(file=str(path)))
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return np.frombuffer(b"", np.uint8)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as error:
        raise fail("file.unreadable", error.strerror or str(error), at=Location(file=str(path))) from None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well: no partial output is ever seen."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            with open(beside, "wb") as file:
                yield file
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise fail("file.unreadable", error.strerror or str(error), at=Location(file=str(path))) from None


def file_digest(path: Path) -> str:
    """The file's SHA-256 as `sha256:...`, computed again only when size or time of change differ."""
    if not os.path.isfile(path):
        raise fail("file.missing", f"there is no file {os.path.basename(path)}", at=Location(file=str(path)))
    status = os.stat(path)
    return _file_digest(os.path.realpath(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_digest(path: str, size: int, changed: int) -> str:
    return f"sha256:{hashlib.sha256(map_file(Path(path)).data).hexdigest()}"


def open_weights(path: Path, expected_digest: str | None = None) -> dict[str, Tensor]:
    """The constants of a weights file, `.safetensors` or `.onnx`, which must be the file that it was.

    The digest is that of the file itself: external data of an ONNX model is not part of it.
    """
    at = Location(file=str(path))
    if not os.path.isfile(path):
        raise fail("weights.missing", f"there is no weights file {path.name}", at=at,
                   help="put it beside the text, or print the model with -o, which writes its weights too")
    if expected_digest is not None and (digest := file_digest(path)) != expected_digest:
        raise fail("weights.stale", f"{path.name} is not the file it was", at=at, expected=expected_digest,
                   notes=[f"its digest is {digest}"], help="restore the file, or print the model anew")
    if path.suffix == ".safetensors":
        return load(path)
    if path.suffix == ".onnx":
        return onnx_tensors(load_onnx(path), path.parent)
    raise fail("weights.format", f"{path.name} is not a weights file by its name", at=at,
               expected=".safetensors or .onnx")


# --- safetensors ---

def save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors, by their keys, as a safetensors file: the same bytes for the same tensors.

    The wide ones come first, so that all are aligned without holes (the format allows none). Dtypes that the format
    or its common readers lack are kept as bytes, and metadata says what they are.
    """
    for name, tensor in tensors.items():
        if name == "__metadata__" or tensor.dtype is dtypes.STRING:
            raise fail("weights.format", "safetensors files hold no strings, and nothing called '__metadata__'",
                       at=Location(file=str(path), name=name))
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        kind, shape = NATIVE.get(tensor.dtype), list(tensor.shape)
        if kind is None:
            metadata[f"irc.dtype:{name}"] = tensor.dtype.name
            metadata[f"irc.shape:{name}"] = json.dumps(shape)
            kind, shape = "U8", [tensor.nbytes]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(tensors[name].stored().data)


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, sorted; the file is mapped, and its header trusted in nothing."""
    data = map_file(path, missing="weights.missing")
    header, body = _header(path, data)
    metadata = _checked(path, "__metadata__", header.pop("__metadata__", {}), dict)
    entries = sorted(_entry(path, name, value, metadata) for name, value in header.items())
    reached = 0
    for entry in entries:
        if entry.begin != reached or entry.end > body.size:
            raise _malformed(path, f"bytes {entry.begin} to {entry.end} do not follow byte {reached} "
                                   f"of {body.size}: tensors lie without holes or overlap", entry.name)
        reached = entry.end
    if reached != body.size:
        raise _malformed(path, f"the header describes {reached} bytes of data out of {body.size}")
    return {entry.name: Tensor.packed(entry.dtype, entry.shape, body[entry.begin:entry.end], entry.name)
            for entry in sorted(entries, key=lambda entry: entry.name)}


class _Entry(NamedTuple):
    """One tensor of a header, each field of the right kind."""

    begin: int
    end: int
    name: str
    dtype: DType
    shape: tuple[int, ...]


def _header(path: Path, data: Bytes) -> tuple[dict[str, Any], Bytes]:
    """The header, of any content yet, and the bytes behind it."""
    length = int.from_bytes(data[:8].tobytes(), "little")
    if data.size < 8 or length > min(HEADER_LIMIT, data.size - 8):
        raise _malformed(path, f"a header of {length} bytes does not fit the file's {data.size}")
    header = _json(path, data[8:8 + length].tobytes())
    return _checked(path, "the header", header, dict), data[8 + length:]


def _entry(path: Path, name: str, value: Any, metadata: dict[str, Any]) -> _Entry:
    """One entry, checked by itself; our metadata tells of dtypes that were written as bytes."""
    entry = _checked(path, name, value, dict)
    dtype, shape = SAFETENSORS.get(str(entry.get("dtype"))), entry.get("shape")
    if (told := metadata.get(f"irc.dtype:{name}")) is not None:
        dtype, shape = AS_BYTES.get(str(told)), _json(path, str(metadata.get(f"irc.shape:{name}")).encode())
    if dtype is None:
        raise _malformed(path, f"there is no dtype {told or entry.get('dtype')!r}", name)
    sizes, offsets = _sizes(path, name, shape), _sizes(path, name, entry.get("data_offsets"))
    if len(offsets) != 2 or offsets[1] - offsets[0] != dtype.packed_bytes(prod(sizes)):
        raise _malformed(path, f"the bytes {list(offsets)} do not hold {dtype}{list(sizes)}", name)
    return _Entry(*offsets, name, dtype, sizes)


def _json(path: Path, text: bytes) -> Any:
    """What a piece of JSON says; a key given twice is an error, for readers would differ on which one counts."""
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name is given twice")
        return found

    try:
        return json.loads(text.decode(), object_pairs_hook=distinct)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"the header cannot be read: {error}") from None


def _sizes(path: Path, name: str, value: Any) -> tuple[int, ...]:
    """A list of sizes of which numpy can make a shape."""
    sizes = _checked(path, name, value, list)
    if not all(type(size) is int and size >= 0 for size in sizes) or not _fits(sizes):
        raise _malformed(path, "a list of sizes holds what is no size", name)
    return tuple(sizes)


def _fits(shape: Sequence[int]) -> bool:
    """Whether numpy can address such a shape, in any dtype."""
    return len(shape) <= 32 and prod(max(size, 1) for size in shape) < 1 << 59


def _checked(path: Path, name: str, value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise _malformed(path, f"a {kind.__name__} was expected, not a {type(value).__name__}", name)
    return value


def _malformed(path: Path, message: str, name: str | None = None) -> IrcError:
    return fail("weights.format", f"{path.name} is no safetensors file: {message}",
                at=Location(file=str(path), name=name))


# --- ONNX ---

class OnnxConstant(NamedTuple):
    """An initializer or the value of a Constant node, and where in the model it is defined."""

    key: str                # unique in the model: the name under which weights are found again
    scope: tuple[str, ...]  # () is the main graph; "3.then_branch" goes into node 3, "function 0" into a function
    name: str               # of the value, in its graph
    tensor: Tensor


def load_onnx(path: Path) -> onnx.ModelProto:
    """The model in a file, without its external data."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    data = map_file(path)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data.tobytes())
    except DecodeError as error:
        raise fail("onnx.truncated", f"{path.name} is not a whole ONNX model", at=Location(file=str(path)),
                   notes=[str(error)]) from None
    if not model.HasField("graph"):
        raise fail("onnx.truncated", f"{path.name} holds no graph", at=Location(file=str(path)))
    return model


def onnx_tensors(model: onnx.ModelProto, folder: Path) -> dict[str, Tensor]:
    """Every initializer and Constant value of a model, under the names of `onnx_constants`."""
    return {constant.key: constant.tensor for constant in onnx_constants(model, folder)}


def onnx_constants(model: onnx.ModelProto, folder: Path) -> list[OnnxConstant]:
    """Every initializer and Constant value: the main graph's, then those of subgraphs, level by level, and functions.

    The main graph's keep their names; of others that share a name each later one gets the next free ".1", ".2", ...
    All that is wrong is reported at once.
    """
    found: list[OnnxConstant] = []
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
            found.append(OnnxConstant(key, scope, name, tensor.renamed(key)))
    if errors:
        raise IrcError(errors.values())
    return found


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
        self.maps: dict[Path, Bytes] = {}

    def sparse(self, proto: onnx.SparseTensorProto) -> Tensor:
        """Refused: few models hold one, and nothing here computes with it."""
        raise fail("onnx.unsupported", "sparse tensors are not supported")

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
        if proto.data_type not in ONNX_CODES or min(shape, default=0) < 0 or not _fits(shape):
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
        told = {entry.key: entry.value for entry in proto.external_data}
        location, offset, length = told.get("location"), told.get("offset") or "0", told.get("length")
        if self.folder is None or not location:
            raise fail("onnx.invalid", "external data without a location, or where none is allowed")
        try:
            path = resolve_inside(self.folder, location, "onnx.external_outside")
            if path not in self.maps:
                self.maps[path] = map_file(path, missing="onnx.external_missing")
        except IrcError as error:
            of = Location(name=f"external data of {proto.name!r}")
            raise IrcError(replace(found, origin=of) for found in error.diagnostics) from None
        data = self.maps[path]
        if not all(re.fullmatch("[0-9]{1,19}", number) for number in (offset, length or "0")):
            raise fail("onnx.invalid", f"external data at offset {offset!r} of length {length!r}")
        begin = int(offset)
        end = begin + int(length) if length else data.size
        if not begin <= end <= data.size:
            raise fail("onnx.invalid", f"bytes {begin} to {end} lie outside {location!r} of {data.size} bytes")
        return data[begin:end]


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
        return _strings(values).reshape(shape)
    if dtype.bits >= 32:
        part = {"c64": dtypes.F32, "c128": dtypes.F64}.get(dtype.name, dtype)
        return np.fromiter(values, part.numpy, len(values)).view(dtype.numpy).reshape(shape)
    codes = np.fromiter(values, np.int32, len(values)).astype(f"u{dtype.itemsize}")
    if dtype.bits in (2, 4) or dtype is dtypes.BOOL:
        return _unpack(codes, dtype, shape)
    return (codes & ((1 << dtype.bits) - 1)).view(dtype.numpy).reshape(shape)
