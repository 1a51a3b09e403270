"""Arrays for programs: reading and writing `.npz` files, and random inputs.

A file has an array for each input or output, by its name. Element types that NumPy lacks are stored as follows:

    bf16               uint16, its bits
    fp8, fp6, fp4      uint8, the bits of one number in each
    i4, i2 and u4, u2  int8 and uint8, the numbers

The program's signature determines the type. An ml_dtypes array as `numpy.savez` writes it (bytes without a type) is
accepted, too. The elements of a sequence `x` are the arrays `x.0`, `x.1` and so on, `x.length` of them; a map is
`x.keys` and `x.values`. Pickled objects are never read.
"""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irc import dims, dtypes
from irc.diagnostics import Location, fail
from irc.dims import Symbol
from irc.driver.models import Sizes, check_symbols, default_sizes, known_sizes
from irc.dtypes import DType
from irc.formats import ZIP, recognized_file
from irc.ir import Function, Value
from irc.limits import check_limit

Arrays = dict[str, Any]
MISSING = object()  # stands for an array that a file does not have


def given_inputs(function: Function, inputs: Mapping[str, Any] | str | Path | None, sizes: Sizes, seed: int) -> Arrays:
    """The inputs of a run: those of a file or a mapping; random ones where `inputs` is None. They are checked against
    the signature, and against `sizes` of symbols: raises `usage.dim` where these contradict the arrays."""
    from irc.interpreter import check_inputs

    if isinstance(inputs, (str, Path)):
        arrays = read_arrays(inputs, {argument.name: argument.dtype for argument in function.arguments})
    else:
        arrays = dict(inputs) if inputs is not None else random_inputs(function, sizes, seed)
    check_symbols(function, sizes)
    for symbol, size in check_inputs(function, arrays).items():
        if sizes.get(symbol.name, size) != size:
            message = f"--dim {symbol.name}={sizes[symbol.name]}, but the inputs have {symbol.name}={size}"
            raise fail("usage.dim", message, help="leave one of them out")
    return arrays


# -- files -----------------------------------------------------------------------------------------------------


def read_arrays(path: str | Path, declared: Mapping[str, DType]) -> Arrays:
    """The arrays of an `.npz` file by name, with the declared types where NumPy lacks these.

    Raises `file.missing` and `file.format`.
    """
    from irc.files import note_input

    at = Location(file=str(path))
    if not Path(path).is_file():
        raise fail("file.missing", f"there is no file {path}", help="write one with numpy.savez(PATH, NAME=array, ...)")
    try:
        note_input(path)
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            check_limit("memory", unpacked, f"the arrays of {Path(path).name} take {{}} when they are unpacked", at)
            arrays = dict(_member(archive, member) for member in archive.infolist())
            if len(arrays) < len(archive.infolist()):
                raise ValueError("two arrays have one name")
    except (ValueError, OSError, EOFError, RuntimeError, OverflowError, MemoryError, zipfile.BadZipFile, zlib.error,
            lzma.LZMAError, tokenize.TokenError) as error:  # fmt: skip
        if isinstance(error, PermissionError):
            raise fail("file.unreadable", error.strerror or str(error), at=at) from None
        other_format = recognized_file(Path(path))
        if other_format not in (None, ZIP):
            raise fail("file.format", f"{Path(path).name} is {other_format.name}, and no .npz file", at=at,
                       help=other_format.help) from None
        raise fail("file.format", f"the arrays cannot be read: {error}", at=at,
                   expected="an .npz file without pickled objects",
                   help="write one with numpy.savez(PATH, NAME=array, ...)") from None  # fmt: skip
    typed: Arrays = {}
    used: set[str] = set()
    for name, dtype in declared.items():
        value = _gathered(arrays, name, dtype, at, used)
        if value is not MISSING:
            typed[name] = value
    return {**{name: array for name, array in arrays.items() if name not in used}, **typed}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[str, Any]:
    """The name and the array of a member. The size in its header is compared with its bytes before memory is
    allocated; raises ValueError. Source: numpy.lib.format, "Format Version 1.0", "2.0"."""
    from numpy.lib import format

    name = member.filename.removesuffix(".npy")
    if name == member.filename:
        raise ValueError(f"{name!r} is not an array")
    with archive.open(member) as file:
        version = format.read_magic(file)
        readers = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{name!r} has version {version}")
        shape, _, dtype = readers[version](file)
        if not all(type(extent) is int and extent >= 0 for extent in shape) or not (dtype.itemsize or dtype.hasobject):
            raise ValueError(f"{name!r} has shape {shape!s:.100} of {dtype}")
        if not dtype.hasobject and file.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError(f"{name!r} has {member.file_size} bytes, which do not hold {dtype}{list(shape)!s:.100}")
        file.seek(0)
        return name, format.read_array(file, allow_pickle=False)


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write an `.npz` file atomically; equal arrays give equal files."""
    import numpy as np

    from irc.files import replacing

    # Not numpy.savez: names are its keyword arguments, so that no array could be called `file`.
    with replacing(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in flattened(arrays).items():
            if "\0" in name:
                raise fail("file.format", f"an .npz file cannot hold an array called {name!r}",
                           at=Location(file=str(path)), help="rename the input or output")
            if array.dtype == object and any(text.endswith("\0") for text in array.flat):
                raise fail("file.format", f"an .npz file cannot hold a text that ends with NUL, as one of {name} does",
                           at=Location(file=str(path)), help="call irc.run from Python, which gives it as it is")
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _stored(array), allow_pickle=False)


def flattened(arrays: Mapping[str, Any]) -> Arrays:
    """The arrays by name, as in a file: `x.length`, `x.0`, `x.1` and so on for a sequence `x`, `x.keys` and `x.values`
    for a map, none for an absent optional. Raises `file.format` where two would have one name."""
    import numpy as np

    flat: Arrays = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, list):
            add(f"{name}.length", len(value))
            for index, element in enumerate(value):
                add(f"{name}.{index}", element)
        elif isinstance(value, dict):
            add(f"{name}.keys", np.asarray(list(value)))
            add(f"{name}.values", np.asarray(list(value.values())))
        elif name in flat:
            raise fail("file.format", f"two arrays would be called `{name}`", help="rename an output")
        elif value is not None:
            flat[name] = np.asarray(value)

    for name, value in arrays.items():
        add(name, value)
    return flat


def _gathered(arrays: Mapping[str, Any], name: str, dtype: DType, at: Location, used: set[str]) -> Any:
    """The inverse of `flattened` for one value; MISSING where it has no arrays. Without `x.length` a sequence has as
    many elements as there are arrays. The names of its arrays are added to `used`."""
    if dtype.kind != "opaque":
        used.add(name)
        return _restored(arrays[name], dtype, name, at) if name in arrays else MISSING
    word, _, element = dtypes.opaque_parts(dtype.name)
    if word == "optional":
        element_value = _gathered(arrays, name, element, at, used)
        return None if element_value is MISSING else element_value
    if word == "map":
        used |= {f"{name}.keys", f"{name}.values"}
        keys, values = (arrays.get(f"{name}.{part}") for part in ("keys", "values"))
        if keys is None and values is None:
            return MISSING
        if keys is None or values is None or keys.ndim != 1 or keys.shape != values.shape:
            raise fail("file.format", f"the map `{name}` needs keys and values of one length", at=at,
                       expected=f"{name}.keys, {name}.values")  # fmt: skip
        return dict(zip(keys.tolist(), values.tolist(), strict=True))
    used.add(f"{name}.length")
    length = arrays.get(f"{name}.length")
    elements: list[Any] = []
    if length is not None and (length.ndim or length.dtype.kind not in "iu" or length > len(arrays)):
        raise fail("file.format", f"`{name}.length` is not a length of the sequence in the file", at=at)
    while length is None or len(elements) < int(length):
        element_value = _gathered(arrays, f"{name}.{len(elements)}", element, at, used)
        if element_value is MISSING or (length is None and element_value is None):
            break
        elements.append(element_value)
    if length is not None and len(elements) < int(length):
        raise fail("file.format", f"the sequence `{name}` has no `{name}.{len(elements)}`", at=at)
    return elements if elements or length is not None else MISSING


def _restored(array: Any, dtype: DType, name: str, at: Location) -> Any:
    """An array of a file with the declared type, if it is stored so; else unchanged, for the signature check to
    reject."""
    import numpy as np

    if dtype is dtypes.STRING:
        return array.astype(object)
    if _is_numpy_type(dtype) or array.dtype == dtype.numpy:
        return array
    if array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize and array.dtype.names is None:
        return array.view(dtype.numpy)
    if dtype.is_float:
        return array.view(dtype.numpy) if array.dtype == np.dtype(f"u{dtype.itemsize}") else array
    if array.dtype != np.dtype("i1" if dtype.is_signed else "u1"):
        return array
    low, high = dtypes.limits(dtype)
    if array.size and not low <= array.min() <= array.max() <= high:
        raise fail("run.input_dtype", f"`{name}` has numbers outside {dtype}", at=at, expected=f"{low} to {high}")
    return array.astype(dtype.numpy)


def _stored(array: Any) -> Any:
    """An array as it is stored in a file."""
    import numpy as np

    dtype = dtypes.from_numpy(array.dtype)
    if dtype is dtypes.STRING:
        return array.astype(np.str_)
    if _is_numpy_type(dtype):
        return array
    return array.view(f"u{dtype.itemsize}") if dtype.is_float else array.astype("i1" if dtype.is_signed else "u1")


def _is_numpy_type(dtype: DType) -> bool:
    """Whether NumPy has the element type without ml_dtypes."""
    import numpy as np

    return hasattr(np, dtype.numpy_name)


# -- random inputs ---------------------------------------------------------------------------------------------


def random_inputs(function: Function, sizes: Sizes, seed: int = 0) -> Arrays:
    """Inputs for a function, except those that have defaults: normally distributed floats, and integers that are valid
    indices where they are used as such.

    Symbols that `sizes` lacks become the smallest size in their range that is at least 2 (so that accidental
    broadcasting shows), or the range's end.
    """
    import numpy as np

    environment = {**default_sizes(function), **known_sizes(function, sizes)}
    for symbol in function.symbols.values():
        if symbol not in environment:
            environment[symbol] = least_size(symbol)
    generator = np.random.default_rng(seed)
    inputs, taken = {}, 0
    for argument in function.arguments:
        if argument in function.defaults:
            continue
        if not argument.type.is_ranked:
            message = f"input `{argument.name}` is {argument.type}, which has no random arrays"
            raise fail("run.input_missing", message, help="give --input")
        shape = tuple(dims.evaluate(dim, environment) for dim in argument.shape)
        taken += math.prod(shape) * max(8, argument.dtype.itemsize)  # the generator returns f64 and i64
        check_limit("memory", taken, f"random inputs up to `{argument.name}`: {argument.type} take {{}}")
        inputs[argument.name] = _random_array(argument, shape, generator)
    return inputs


def least_size(symbol: Symbol) -> int:
    """The smallest number of a symbol's range that is at least 2, or the range's end."""
    least = max(symbol.low, min(2, symbol.high))
    return -(-least // symbol.multiple) * symbol.multiple


def _random_array(argument: Value, shape: tuple[int, ...], generator: Any) -> Any:
    dtype = argument.dtype
    if dtype.kind == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.is_integer:
        bound = [user.attributes["symbol"] for user in argument.users() if user.name == "bind"]
        if bound:  # a size that the program reads from a scalar
            return generator.integers(least_size(bound[0]), least_size(bound[0]) + 1, shape).astype(dtype.numpy)
        limit = min(index_limit(argument), dtypes.limits(dtype).largest + 1)
        return generator.integers(0, limit, shape).astype(dtype.numpy)
    if dtype.kind == "complex":
        return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(dtype.numpy)
    if dtype.kind == "string":
        raise fail("run.input_missing", f"input `{argument.name}` is text, which is not random", help="give --input")
    return generator.standard_normal(shape).astype(dtype.numpy)


def index_limit(value: Value) -> int:
    """One more than the largest integer that `value` may hold so that every gather it reaches stays in bounds.

    Integers that are no indices range over {0, 1}, which suits masks and token types.
    """
    limits, waiting, seen = [], [value], set()
    while waiting:
        current = waiting.pop()
        for operation, position in current.uses:
            if operation.definition.gather is not None and position == operation.definition.gather.indices:
                extent = operation.inputs[0].shape[operation.attributes["axis"]]
                limits.append(dims.bounds(extent)[0] or 1)
            elif operation not in seen and (
                operation.name == "cast" or operation.definition.movement is not None
            ):
                seen.add(operation)
                waiting += [result for result in operation.results if result.dtype.is_integer]
    return max(1, min(limits)) if limits else 2
