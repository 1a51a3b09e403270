"""Runs the program of this folder: devices, weights, launches, and checks of what is passed in.

Needs PyTorch and Triton, and ONNX Runtime where the manifest lists externs. Without a GPU the kernels run in
Triton's interpreter, which is slow but exact enough to check results by.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch

from .elements import as_torch_knows
from .errors import ArtefactError
from .outputs import finish, overlap, pairs_in_memory

INTERPRETED = not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"

FOLDER = Path(__file__).resolve().parent
FORMAT = 1
# Interpreting costs milliseconds a program, so that tiles grow until they hold so many elements. On a GPU they keep
# the sizes that they were given.
INTERPRETED_ELEMENTS = 1 << 17
LARGEST_EXTENT = (1 << 31) - (1 << 17)  # so that lanes of the last block beyond it do not wrap around
WARPS_OF_32 = 2 if torch.version.hip else 1  # threads in a warp, in those of 32 that launches count
STORED = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip
# How NumPy arrays and files carry types that NumPy lacks: as their bits.
CARRIERS = {
    torch.bfloat16: torch.uint16, torch.float8_e4m3fn: torch.uint8, torch.float8_e5m2: torch.uint8,
    torch.float8_e4m3fnuz: torch.uint8, torch.float8_e5m2fnuz: torch.uint8,
}  # fmt: skip


def mode():
    """The time in which kernels are defined, and that in which they run."""
    return interpreting.interpreted() if INTERPRETED else nullcontext()


if INTERPRETED:
    from . import interpreting

    interpreting.round_to_bfloat16()
    interpreting.index_by_item()
    interpreting.splat_conditions()
    interpreting.wrap_sums()
    interpreting.multiply_as_f32()


# -- launches --------------------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """A tile axis whose blocks are programs. `exact`: the extent is a multiple of the block, and is not masked."""

    extent: int
    block: int
    exact: bool = False


class Loop(NamedTuple):
    """A tile axis that each program passes over, a block at a time."""

    extent: int
    block: int
    exact: bool = False


class Whole(NamedTuple):
    """A tile axis that one block covers."""

    extent: int


class Each(NamedTuple):
    """A tile axis that has a program for each element."""

    extent: int


def choose_blocks(tiles):
    """The block of each tile axis that has one."""
    tiles = {name: tile for name, tile in tiles.items() if not isinstance(tile, Each)}
    blocks = {
        name: power_of_two(tile.extent) if isinstance(tile, Whole) else tile.block for name, tile in tiles.items()
    }
    if INTERPRETED:
        for name, tile in reversed(tiles.items()):
            while not isinstance(tile, Whole) and blocks[name] < tile.extent:
                larger = 2 * blocks[name]
                elements = larger
                for other, block in blocks.items():
                    elements *= block if other != name else 1
                if elements > INTERPRETED_ELEMENTS or (tile.exact and tile.extent % larger):
                    break
                blocks[name] = larger
    return blocks


def power_of_two(extent):
    """The least power of two that is not below the extent."""
    return 1 << max(0, extent - 1).bit_length()


def warps_for(blocks):
    """Warps for a tile: a thread has at least four elements, or 16 where there are many."""
    elements = math.prod(blocks.values())
    return min(16, max(1, min(4, elements // 128), power_of_two(elements // 512)))


def launch(kernel, *arguments, warps=None, stages=None, extent=None, float8=None, **tiles):
    """Start the programs of a kernel on contiguous tensors and sizes; an empty grid starts none.

    `extent` is what all indices are below, of a kernel whose indices have 32 bits where that is enough; `float8` is the
    type of the floats of 8 bits that one multiplies as the current device can. What follows from the tiles is worked
    out when a kernel first meets them.
    """
    bits, products = index_bits(extent), float8_products(float8)
    key = (kernel.fn.__name__, bits, products, *tiles.values())
    if key not in PREPARED:
        PREPARED[key] = prepared(kernel, warps, stages, tiles, bits, products)
    start, options = PREPARED[key]
    if start is not None:
        start(*arguments, **options)


def member(*arguments, extent=None, **tiles):
    """A kernel of a bundle, on contiguous tensors and sizes, with the bits of its indices and its tiles."""
    return arguments, index_bits(extent), tiles


def launch_bundle(kernel, *members, warps, stages=None):
    """Start the programs of the kernels of a bundle, those of each member after those of the one before."""
    key = (kernel.fn.__name__, *(each for _, bits, tiles in members for each in (bits, *tiles.values())))
    if key not in PREPARED:
        PREPARED[key] = prepared_bundle(kernel, warps, stages, members)
    start, ends, options = PREPARED[key]
    if start is not None:
        start(*(argument for arguments, _, _ in members for argument in arguments), *ends, **options)


def index_bits(extent):
    """The bits of indices that are below an extent; None where a kernel has one type of indices."""
    return None if extent is None else 32 if extent <= LARGEST_EXTENT else 64


def float8_products(dtype):
    """How the current device multiplies floats of 8 bits of a type: 0 not at all, 1 with sums of 32 bits, 2 with sums
    of fewer; None for None, where a kernel multiplies none."""
    if dtype is None:
        return None
    if INTERPRETED:
        return 0
    if torch.version.hip:
        architecture = torch.cuda.get_device_properties().gcnArchName
        is_unsigned_zero = dtype in (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
        return int(architecture.startswith("gfx94" if is_unsigned_zero else ("gfx95", "gfx12")))
    capability = torch.cuda.get_device_capability()
    is_known = dtype in (torch.float8_e4m3fn, torch.float8_e5m2) and capability >= (8, 9)
    return 0 if not is_known else 1 if capability[0] == 10 else 2


PREPARED = {}  # by kernels, bits of indices, products of floats of 8 bits, and tiles


def prepared(kernel, warps, stages, tiles, bits=None, products=None):
    """What starts a kernel over a grid (None: nothing is to do), and its options."""
    blocks = choose_blocks(tiles)
    constants = constants_of(blocks, bits)
    if products is not None:
        constants["FLOAT8"] = products
    return started(kernel, programs_of(tiles, blocks), warps or warps_for(blocks), stages, constants)


def prepared_bundle(kernel, warps, stages, members):
    """The same of a bundle, with the numbers of the first programs after those of each member but the last."""
    constants, ends, programs = {}, [], 0
    for number, (_, bits, tiles) in enumerate(members):
        blocks = choose_blocks(tiles)
        constants |= {f"{name}_{number}": value for name, value in constants_of(blocks, bits).items()}
        programs += programs_of(tiles, blocks)
        ends.append(programs)
    start, options = started(kernel, programs, warps, stages, constants)
    return start, ends[:-1], options


def programs_of(tiles, blocks):
    """How many programs a kernel has."""
    programs = math.prod(-(-tile.extent // blocks[name]) for name, tile in tiles.items() if isinstance(tile, Grid))
    return programs * math.prod(tile.extent for tile in tiles.values() if isinstance(tile, Each))


def constants_of(blocks, bits):
    """The arguments of a kernel that it is compiled for."""
    from triton import language

    constants = {f"BLOCK_{name.upper()}": block for name, block in blocks.items()}
    return constants if bits is None else {**constants, "INDEX": language.int32 if bits == 32 else language.int64}


def started(kernel, programs, warps, stages, constants):
    """What starts so many programs of a kernel (None: nothing is to do), and its options."""
    options = {**constants, "num_warps": max(1, warps // WARPS_OF_32)}
    if stages is not None:
        options["num_stages"] = stages
    if not INTERPRETED and kernel.debug:  # it stops at what it checks; integers wrap around as ever
        options["sanitize_overflow"] = False
    start = kernel[(programs,)] if programs else None
    return (quietly(start) if INTERPRETED and start is not None else start), options


def quietly(start):
    """The interpreter computes masked lanes with NumPy, which would warn of what they hold. Where a check of a kernel
    fails, the inputs are wrong."""
    import numpy
    from triton.runtime.errors import InterpreterError

    def wrapped(*arguments, **options):
        try:
            with mode(), warnings.catch_warnings(), numpy.errstate(all="ignore"):
                warnings.simplefilter("ignore", RuntimeWarning)
                start(*arguments, **options)
        except InterpreterError as error:
            if not isinstance(error.__cause__, AssertionError):
                raise
            raise ArtefactError(str(error.__cause__)) from None

    return wrapped


# -- dims ------------------------------------------------------------------------------------------------------


def nonzero(size):
    """A size that another is divided by."""
    if size == 0:
        raise ArtefactError("a size of the program is divided by a size that is 0")
    return size


def bcast(*sizes):
    """The extent that sizes broadcast to."""
    larger = {size for size in sizes if size != 1}
    if len(larger) > 1:
        raise ArtefactError(f"sizes {sizes} do not broadcast")
    return larger.pop() if larger else 1


def check_dim(name, size, low, high, multiple=1):
    """A dim within its range."""
    if not low <= size <= high or size % multiple:
        expected = f"[{low}, {high}]" + (f", a multiple of {multiple}" if multiple != 1 else "")
        raise ArtefactError(f"{name} is {size}, expected {expected}")
    return size


def refine(x, shape):
    """x, whose shape must be this one; None stands for any size."""
    if x.ndim != len(shape) or any(
        want is not None and have != want for have, want in zip(x.shape, shape, strict=True)
    ):
        raise ArtefactError(f"a tensor of shape {list(x.shape)} came where {list(shape)} was promised")
    return x


def without_autocast(device):
    """The program computes in the types that it states, whatever the caller's are."""
    kind = device.type
    is_on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # the meta device has none
    return torch.autocast(kind, enabled=False) if is_on else nullcontext()


def check(condition, message):
    if not bool(condition.all() if isinstance(condition, torch.Tensor) else condition):
        raise ArtefactError(message)


# -- the model -------------------------------------------------------------------------------------------------


class Model:
    """The compiled program. Call it with tensors or NumPy arrays by input name; it returns tensors by output name.

    It runs on `device`; without one on that of the inputs, or on the current GPU where none of them is on any. Launches
    go to PyTorch's current stream of the device; weights are copied to a device once.
    """

    def __init__(self, folder: Path, device: str | torch.device | None = None) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        if self.manifest["format"] != FORMAT:
            raise ArtefactError(f"the folder has format {self.manifest['format']}, this runtime reads {FORMAT}")
        self.device = None if device is None else torch.device(device)
        if INTERPRETED:
            print("interpreted: no GPU", file=sys.stderr)
        with mode():
            from . import program

        self.program = program
        self.signature = compiled(self.manifest["signature"])
        self.inputs = [entry["name"] for entry in self.signature["inputs"]]
        self.known = frozenset(self.inputs)
        self.outputs = [entry["name"] for entry in self.signature["outputs"]]
        self.updates = {entry["updates"]: entry["name"] for entry in self.signature["outputs"] if "updates" in entry}
        self.stored = {**read_weights(folder), **read_texts(folder)}
        self.weights = {}  # by device
        self.externs = {}
        if self.manifest["externs"]:
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is imported
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # it would log names from the model; errors are raised, too
            for entry in self.manifest["externs"]:
                path = str(folder / "externs" / f"{entry['name']}.onnx")
                self.externs[entry["name"]] = onnxruntime.InferenceSession(
                    path, options, providers=["CPUExecutionProvider"])

    def __call__(self, *positional, **named):
        if len(positional) > len(self.inputs):
            raise ArtefactError(f"{len(positional)} inputs given, expected {', '.join(self.inputs)}")
        return self.run({**dict(zip(self.inputs, positional, strict=False)), **named})

    def run(self, inputs):
        """Outputs by name for inputs by name; those with defaults may be missing. Tensors that the program updates are
        written; NumPy arrays are not."""
        device = self._device(inputs)
        weights = self._weights_on(device)
        tensors = [self._checked(entry, inputs, weights, device) for entry in self.signature["inputs"]]
        if not inputs.keys() <= self.known:
            unknown = sorted(inputs.keys() - self.known)
            raise ArtefactError(f"there is no input {unknown[0]!r}; the inputs are {', '.join(self.inputs)}")
        self._check_shapes(tensors)
        if self.updates:
            self._check_apart(inputs)
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext(), without_autocast(device):
            results = self.program.main(weights, self.externs, device, *tensors)
        outputs = dict(zip(self.outputs, results, strict=True))
        finish(outputs, inputs, self.updates, [*tensors, *weights.values()])
        return outputs

    def _device(self, inputs):
        if self.device is not None:
            return self.device
        if INTERPRETED:
            return torch.device("cpu")
        devices = {value.device for value in inputs.values() if isinstance(value, torch.Tensor) and value.is_cuda}
        if len(devices) > 1:
            raise ArtefactError(f"the inputs are on several devices: {', '.join(sorted(map(str, devices)))}")
        return devices.pop() if devices else torch.device("cuda", torch.cuda.current_device())

    def _weights_on(self, device):
        if device not in self.weights:
            self.weights[device] = {name: tensor.to(device) if isinstance(tensor, torch.Tensor) else tensor
                                    for name, tensor in self.stored.items()}  # fmt: skip
        return self.weights[device]

    def _checked(self, entry, inputs, weights, device):
        name = entry["name"]
        if name not in inputs and "default" in entry:
            return weights[entry["default"]]
        if name not in inputs:
            raise ArtefactError(f"input {name!r} is missing; the inputs are {', '.join(self.inputs)}")
        value = inputs[name]
        if entry["dtype"] is None and entry["type"] == "string":
            return _checked_rank(entry, _text(value))
        if entry["dtype"] is None:  # a list of NumPy arrays, or what else ONNX Runtime takes
            return value
        dtype = getattr(torch, entry["dtype"])
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(_native(value))
        tensor = tensor.clone() if name in self.updates and tensor is not value else tensor
        if tensor.dtype != dtype:
            if tensor.dtype is CARRIERS.get(dtype):
                tensor = tensor.view(dtype)
            else:
                raise ArtefactError(f"input {name!r} is {str(tensor.dtype)[6:]}, expected {entry['dtype']}")
        _checked_rank(entry, tensor)
        return tensor.to(device).contiguous()

    def _check_apart(self, inputs):
        """What the program updates must be no other input's memory: it reads inputs after it has written others."""
        given = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        for name in given.keys() & self.updates.keys():
            sizes = zip(given[name].stride(), given[name].shape, strict=True)
            if given[name].numel() and any(stride == 0 and size > 1 for stride, size in sizes):
                raise ArtefactError(f"input {name!r} has elements that share memory, and the program updates it: "
                                    "pass a copy")  # fmt: skip
        for one, other in pairs_in_memory(given):
            name = one if one in self.updates else other
            if name in self.updates and overlap(given[one], given[other]):
                both = f"inputs {one!r} and {other!r} share memory"
                raise ArtefactError(f"{both}, and the program updates {name!r}: pass a copy of one")

    def _check_shapes(self, tensors):
        """Read the size of each symbol from the extent that determines it, then compare all extents."""
        signature, known = self.signature, {"min": min, "max": max, "bcast": bcast}
        for name, symbol in signature["symbols"].items():
            extent = tensors[self.inputs.index(symbol["input"])].shape[symbol["axis"]]
            size = eval(symbol["size"], {"__builtins__": {}}, {**known, "extent": extent})
            known[name] = check_dim(f"{name} (of input {symbol['input']!r})", size, *symbol["range"])
        for name, size in signature["derived"].items():
            known[name] = eval(size, {"__builtins__": {}}, known)
        for entry, tensor in zip(signature["inputs"], tensors, strict=True):
            if not entry["extents"]:
                continue
            for axis, (dim, size) in enumerate(zip(entry["extents"], tensor.shape, strict=True)):
                expected = dim if isinstance(dim, int) else eval(dim, {"__builtins__": {}}, known)
                if size != expected:
                    dim = entry["shape"][axis]
                    raise ArtefactError(f"input {entry['name']!r} has extent {size} in axis {axis}, expected {expected}"
                                        + ("" if isinstance(dim, int) else f" ({dim})"))  # fmt: skip


def _checked_rank(entry, value):
    if entry["shape"] is not None and value.ndim != len(entry["shape"]):
        raise ArtefactError(f"input {entry['name']!r} has shape {list(value.shape)}, expected {entry['shape']}")
    return value


def compiled(signature):
    """The signature, with what is to be evaluated at each call as code."""

    def code(dim):
        return dim if isinstance(dim, int) else compile(dim, "manifest.json", "eval")

    symbols = {name: {**symbol, "size": code(symbol["size"])} for name, symbol in signature["symbols"].items()}
    inputs = [{**entry, "extents": [code(dim) for dim in entry["shape"] or ()]} for entry in signature["inputs"]]
    derived = {name: code(size) for name, size in signature["derived"].items()}
    return {**signature, "symbols": symbols, "derived": derived, "inputs": inputs}


def _native(value):
    import numpy

    array = numpy.asarray(value)
    is_aligned = array.dtype.name != "complex128" or array.ctypes.data % 16 == 0  # NumPy needs 8 bytes, PyTorch 16
    array = array if array.flags.c_contiguous and array.flags.writeable and is_aligned else array.copy()
    if array.dtype.name in ("int2", "int4", "uint2", "uint4"):
        return array.astype(numpy.int8 if array.dtype.name.startswith("i") else numpy.uint8)
    # Other types that NumPy lacks come from ml_dtypes, or out of a file as bytes without a type.
    foreign = array.dtype.kind == "V" or not hasattr(numpy, array.dtype.name)
    return array.view(f"u{array.dtype.itemsize}") if foreign else as_torch_knows(array)


def _text(value):
    import numpy

    return numpy.asarray(value, dtype=object)


def read_weights(folder):
    """The tensors of weights.safetensors, mapped; pages are private, so that nothing writes to the file."""
    path = folder / "weights.safetensors"
    if not path.exists():
        return {}
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    length = int.from_bytes(data[:8], "little")
    tensors = {}
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = STORED[entry["dtype"]]
        if metadata.get(f"irc.dtype:{name}") == "c128":  # the format has no such type: its bytes
            dtype, entry["shape"] = torch.complex128, json.loads(metadata[f"irc.shape:{name}"])
        if begin == end:
            tensors[name] = torch.empty(entry["shape"], dtype=dtype)
        else:
            stored = torch.frombuffer(data, dtype=torch.uint8, count=end - begin, offset=8 + length + begin)
            # Pairs of f64 may become complex numbers, which PyTorch loads by instructions that need 16 bytes.
            if stored.data_ptr() % (16 if dtype is torch.float64 else dtype.itemsize):
                stored = stored.clone()
            tensors[name] = stored.view(dtype).reshape(entry["shape"])
    return tensors


def read_texts(folder):
    """The constants that are text."""
    import numpy

    path = folder / "texts.json"
    if not path.exists():
        return {}
    entries = json.loads(path.read_text("utf-8")).items()
    return {name: numpy.array([*each["elements"], None], object)[:-1].reshape(each["shape"]) for name, each in entries}


def load(device=None):
    """The model of this folder, on `device` (a GPU where there is one)."""
    return Model(FOLDER, device)
