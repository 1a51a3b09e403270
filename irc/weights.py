"""Constants' storage: tensors that are read when needed, from safetensors files, from other sources, or from memory.

A constant is named after its source and mapped from its file, so that printing a graph of gigabytes reads almost
nothing. The format is read by hand, byte by byte checked: `safetensors.numpy` can neither load bf16 and fp8 nor save
types narrower than a byte (tried). Files are little-endian, and so are all hosts that irc runs on.
Source: the README of huggingface/safetensors, "Format" (no holes between tensors).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from irc import dtypes
from irc.diagnostics import Location, fail
from irc.dtypes import DType
from irc.files import Bytes, MappedFile, open_file, open_inside, replacing
from irc.formats import recognized

Array = np.ndarray[Any, np.dtype[Any]]
Entry = tuple[int, int, str, DType, tuple[int, ...]]  # of a header: begin, end, name, dtype, shape
Reader = Callable[[MappedFile], Mapping[str, "Tensor"]]
INLINE_LIMIT = 64           # constants of at most so many elements may be unnamed, and print as literals
HEADER_LIMIT = 100_000_000  # bytes of a safetensors header
PLAIN = "BOOL U8 I8 U16 I16 U32 I32 U64 I64 F16 BF16 F32 F64 C64"
SAFETENSORS = {  # what is read under each name; narrow ones are written as U8 with metadata
    **{name: dtypes.by_name(name.lower()) for name in PLAIN.split()},
    "F8_E4M3": dtypes.F8E4M3FN, "F8_E4M3FNUZ": dtypes.F8E4M3FNUZ, "F8_E5M2": dtypes.F8E5M2, "F4": dtypes.F4E2M1,
    "F8_E5M2FNUZ": dtypes.F8E5M2FNUZ, "F8_E8M0": dtypes.F8E8M0, "F6_E2M3": dtypes.F6E2M3, "F6_E3M2": dtypes.F6E3M2,
}
NATIVE = {dtype: name for name, dtype in SAFETENSORS.items() if not dtype.sub_byte}
AS_BYTES = {dtype.name: dtype for dtype in dtypes.ALL if dtype not in NATIVE and dtype is not dtypes.STRING}


class Tensor:
    """The data of a constant: immutable, read once and on demand, equal when dtype, shape, name and bytes are.

    `name` is None for an inline literal. `source` gives the array when it is first needed. For an array that shares
    memory with another library's, `is_changed` says whether that has been written to since: then reading raises
    `weights.changed`.
    """

    __slots__ = ("_data", "dtype", "name", "shape")

    def __init__(self, dtype: DType, shape: Iterable[int], source: Callable[[], Array], name: str | None = None,
                 is_changed: Callable[[], bool] | None = None) -> None:
        self.dtype, self.shape, self.name = dtype, tuple(shape), name
        self._data = _Data(source, is_changed=is_changed)

    @classmethod
    def of(cls, value: Any, dtype: DType | None = None, name: str | None = None) -> Tensor:
        """A tensor of an array, a number or nested lists; `dtype` converts, to integers only what they hold.

        An array that can still be written to is copied: clear its `flags.writeable` to hand over a fresh one.
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
        if self._data.is_changed is not None and self._data.is_changed():
            raise fail("weights.changed", f"the weight {self.name} has changed since the model was read",
                       expected="the elements that it had then",
                       help="read the model again: irc.from_torch(program, inputs)")  # fmt: skip
        if self._data.array is None:
            assert self._data.source is not None
            array = self._data.source()
            assert (array.dtype, array.shape) == (self.dtype.numpy, self.shape), (self, array.dtype, array.shape)
            self._data.array = (array if array.flags.c_contiguous else array.copy()).view()
            self._data.array.flags.writeable = False
            self._data.source = None
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
        # Large tensors are distinguished by name: hashing must not read a file.
        return hash((self.name, self.dtype, self.shape, self.size <= INLINE_LIMIT and self.digest()))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Tensor.of, (self.array(), self.dtype, self.name)

    def __repr__(self) -> str:
        return f"Tensor({self.dtype}{list(self.shape)}{'' if self.name is None else f', name={self.name!r}'})"


@dataclass(slots=True)
class _Data:
    """What tensors of different names share; the source is dropped once it has given the array."""

    source: Callable[[], Array] | None
    array: Array | None = None
    digest: str | None = None
    is_changed: Callable[[], bool] | None = None


# --- arrays and bytes ---
def _converted(array: Array, dtype: DType | None) -> Array:
    """`array` contiguous, in native byte order and in `dtype`; numbers that an integer cannot hold are an error."""
    stored = dtypes.from_numpy(array.dtype)
    dtype = dtype or stored
    if (dtype is dtypes.STRING) != (stored is dtypes.STRING) or stored.is_complex > dtype.is_complex:
        raise fail("type.dtype", f"{stored} elements cannot become {dtype}")
    if dtype is dtypes.STRING:
        return _strings(array.reshape(-1).tolist()).reshape(array.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.asarray(array, dtype.numpy, order="C")
    if stored is not dtype and (dtype.is_integer or dtype is dtypes.BOOL):
        wide = array.astype(np.float64 if stored.is_float else np.uint64 if stored is dtypes.U64 else np.int64)
        low, high = dtypes.limits(dtype)
        if not ((wide >= low) & (wide <= high) & (converted.astype(wide.dtype) == wide)).all():
            raise fail("type.dtype", f"some {stored} elements do not fit {dtype}, integers from {low} to {high}")
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
    """Whether no code can write to the array's memory through any array that shares it."""
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
        bits = np.unpackbits(stored, count=prod(shape) * dtype.bits, bitorder="little")
        stored = np.packbits(bits.reshape(-1, dtype.bits), axis=1, bitorder="little").reshape(-1)
    return stored.view(dtype.numpy).reshape(shape)


def _pack(array: Array, dtype: DType) -> Bytes:
    """The inverse of `_unpack`, in one canonical form: unused bits are zero. Strings become a JSON list."""
    if dtype is dtypes.STRING:
        return np.frombuffer(json.dumps(array.reshape(-1).tolist()).encode(), np.uint8)
    stored: Bytes = array.reshape(-1).view(np.uint8)
    if not dtype.sub_byte:
        return stored
    bits = np.unpackbits(stored[:, None], axis=1, count=dtype.bits, bitorder="little")
    return np.packbits(bits, bitorder="little")


# --- files ---
def open_weights(folder: Path, relative: str, expected_digest: str | None = None,
                 readers: Mapping[str, Reader] | None = None) -> Mapping[str, Tensor]:
    """The constants of a weights file that a text in `folder` names; it must be the file that it was (what it keeps
    outside of it, not checked).

    `readers` read other formats than safetensors, by the file's suffix.
    """
    known: Mapping[str, Reader] = {".safetensors": read, **(readers or {})}
    suffix = PurePath(relative).suffix.lower()
    if suffix not in known:
        raise fail("weights.format", f"{relative} is not a weights file by its name", at=Location(file=str(folder)),
                   expected=" or ".join(known))
    file = open_inside(folder, relative, "weights.outside", "weights.missing")
    if expected_digest is not None and file.digest != expected_digest:
        help = "restore the file, or print the model again"
        raise fail("weights.stale", f"{relative} is not the file it was", at=Location(file=str(file.path)),
                   expected=expected_digest, help=help)
    return known[suffix](file)


# --- safetensors ---
def save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors, by their keys, as a safetensors file: the same bytes for the same tensors.

    The wide ones come first, so that all are aligned without holes (the format allows none). Dtypes that common
    readers lack are kept as bytes, and metadata says what they are.
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
    """The tensors of a safetensors file that the user names."""
    return read(open_file(path, "weights.missing"))


def read(file: MappedFile) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, sorted; the file is mapped, and its header trusted in nothing."""
    try:
        entries, body = _read_header(file.data)
    except (ValueError, RecursionError) as error:
        format_ = recognized(file.data)
        message = f"{file.path.name} is no safetensors file: {error if format_ is None else f'it is {format_.name}'}"
        raise fail("weights.format", message, at=Location(file=str(file.path)), help=format_ and format_.help) from None
    return {name: Tensor.packed(dtype, shape, body[begin:end], name)
            for begin, end, name, dtype, shape in sorted(entries, key=lambda entry: entry[2])}


def _read_header(data: Bytes) -> tuple[list[Entry], Bytes]:
    """The entries, which fill the bytes after the header, and those bytes; a ValueError says what is wrong."""
    length = int.from_bytes(data[:8].tobytes(), "little")
    if data.size < 8 or length > min(HEADER_LIMIT, data.size - 8):
        raise ValueError(f"a header of {length} bytes does not fit the file's {data.size}")
    header, body = _dictionary("the header", _json(data[8:8 + length].tobytes())), data[8 + length:]
    metadata = _dictionary("__metadata__", header.pop("__metadata__", {}))
    entries = sorted(_entry(name, _dictionary(name, value), metadata) for name, value in header.items())
    reached = 0
    for begin, end, name, *_ in entries:
        if begin != reached or end > body.size:
            raise ValueError(f"bytes {begin} to {end} of {name!r} do not follow byte {reached} of {body.size}: "
                             "tensors lie without holes or overlap")
        reached = end
    if reached != body.size:
        raise ValueError(f"the header describes {reached} bytes of data out of {body.size}")
    return entries, body


def _entry(name: str, entry: dict[str, Any], metadata: dict[str, Any]) -> Entry:
    """One entry, checked by itself; irc's metadata lists dtypes that were written as bytes."""
    dtype, shape = SAFETENSORS.get(str(entry.get("dtype"))), entry.get("shape")
    if (stated := metadata.get(f"irc.dtype:{name}")) is not None:
        dtype, shape = AS_BYTES.get(str(stated)), _json(str(metadata.get(f"irc.shape:{name}")).encode())
    if dtype is None:
        raise ValueError(f"there is no dtype {stated or entry.get('dtype')!r}, which {name!r} has")
    sizes, offsets = _sizes(name, shape), _sizes(name, entry.get("data_offsets"))
    if len(offsets) != 2 or offsets[1] - offsets[0] != dtype.packed_bytes(prod(sizes)):
        raise ValueError(f"the bytes {list(offsets)} of {name!r} do not hold {dtype}{list(sizes)}")
    return offsets[0], offsets[1], name, dtype, sizes


def _json(text: bytes) -> Any:
    """What a piece of JSON says; a key given twice is an error, for readers would differ on which one counts."""
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise ValueError("a name is given twice")
        return entries

    return json.loads(text.decode(), object_pairs_hook=distinct)


def _dictionary(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no dictionary, but {type(value).__name__}")
    return value


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """A list of sizes of which numpy can make a shape."""
    whole = isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)
    if not whole or not addressable(value):
        raise ValueError(f"{name!r} has sizes or offsets that are none: {value!s:.100}")
    return tuple(value)


def addressable(shape: Sequence[int]) -> bool:
    """Whether numpy can address such a shape, in any dtype."""
    return len(shape) <= 32 and prod(max(size, 1) for size in shape) < 1 << 59
