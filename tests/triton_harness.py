"""Runs artefacts under Triton's interpreter while looking at every address of every load and store.

    harness = run(lambda x: ops.softmax(x, axis=-1), "f32[B, 100]", sizes={"B": 7})
    harness.outputs, harness.expected      # what the kernels gave, and what irc's interpreter says
    harness.launches[0].counted            # bytes of all unmasked lanes
    harness.launches[0].predicted          # what the byte model says

Checked at each access: all unmasked addresses lie in one buffer of the launch. Checked at each launch: every element
of every output is stored, and stored once.

With IRC_TEST_DEVICE=cuda artefacts run on a GPU instead, where nothing is looked at but what they compute: launches are
noted with what the byte model says, which then counts as what they moved.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

if not os.environ.get("IRC_TEST_DEVICE"):
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import ml_dtypes
import numpy as np
import torch
from triton.runtime import interpreter as triton_interpreter

from irc import dims, interpreter, ops
from irc.backends.triton import emit
from irc.backends.triton.program import Launched, Program
from irc.cloning import Cloner
from irc.dims import Symbol
from irc.ir import Block, Region
from irc.kernel import Bytes, count
from irc.kernel.derivation import results_used_outside
from irc.module import Module
from irc.op import Builder, trace


@dataclass
class Access:
    """What one load or store did: first byte addresses of its unmasked lanes, and the width of an element."""

    addresses: np.ndarray
    width: int
    store: bool

    @property
    def bytes(self) -> int:
        return self.addresses.size * self.width


@dataclass
class Launch:
    """One launch: what it moved, and what the byte model says that it moves. On a GPU accesses are not seen."""

    name: str
    accesses: list[Access] = field(default_factory=list)
    predicted: Bytes | None = None
    is_seen: bool = True

    @property
    def counted(self) -> int:
        if not self.is_seen:
            assert self.predicted is not None
            return self.predicted.loaded_bytes
        return sum(access.bytes for access in self.accesses)

    @property
    def loaded(self) -> int:
        return sum(access.bytes for access in self.accesses if not access.store)


@dataclass
class Run:
    """The outcome of an artefact under the harness."""

    outputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    launches: list[Launch]
    program: Program
    folder: Path


class Recorder:
    """Hooks of the interpreter's builder; the current launch collects accesses."""

    def __init__(self) -> None:
        self.launch: Launch | None = None
        self.buffers: list[tuple[int, int]] = []
        self.installed = False

    def install(self) -> None:
        if self.installed:
            return
        self.installed = True
        builder = triton_interpreter.InterpreterBuilder
        load, store = builder.create_masked_load, builder.create_masked_store
        recorder = self

        def masked_load(self: Any, ptrs: Any, mask: Any, *arguments: Any, **named: Any) -> Any:
            recorder.record(ptrs, mask.data, store=False)
            return load(self, ptrs, mask, *arguments, **named)

        def masked_store(self: Any, ptrs: Any, value: Any, mask: Any, *arguments: Any, **named: Any) -> Any:
            recorder.record(ptrs, mask.data, store=True)
            return store(self, ptrs, value, mask, *arguments, **named)

        builder.create_masked_load, builder.create_masked_store = masked_load, masked_store

    def record(self, pointers: Any, mask: np.ndarray, *, store: bool) -> None:
        if self.launch is None:
            return
        width = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        addresses = np.asarray(pointers.data).astype(np.int64).reshape(-1)[np.asarray(mask, bool).reshape(-1)]
        self.launch.accesses.append(Access(addresses, width, store))
        if not addresses.size:
            return
        low, high = int(addresses.min()), int(addresses.max()) + width
        if not any(begin <= low and high <= end for begin, end in self.buffers):
            kind = "store" if store else "load"
            raise AssertionError(f"{self.launch.name}: a {kind} at {low}..{high} is outside of {self.buffers}")


RECORDER = Recorder()
LARGEST_GUESS = 1 << 12  # of a size that a program computes


def kernelize(module: Module, name: str = "fused") -> Module:
    """Put all operations of the main function, but named constants, into one kernel."""
    function = module.main
    members = [
        operation for operation in function.block
        if not operation.definition.is_terminator
        and not (operation.name == "const" and operation.attributes["value"].size > 1)
    ]  # fmt: skip
    inside = set(members)
    outputs = results_used_outside(members)
    outside = dict.fromkeys(
        value for member in members for value in member.inputs if value.operation not in inside
    )
    block = Block([value.type for value in outside], [value.name for value in outside])
    cloner = Cloner(values=dict(zip(outside, block.arguments, strict=True)))
    for member in members:
        block.append(cloner.operation(member))
    with Builder(block) as builder:
        builder.create(ops.lookup("yield"), [cloner.values[value] for value in outputs])
    builder = Builder.before_operation(function.block.terminator)
    attributes = {"name": name, "kind": "kernel"}
    kernel = builder.create(ops.lookup("kernel"), list(outside), attributes, regions=[Region(block)])
    for value, result in zip(outputs, kernel.results, strict=True):
        value.replace_uses(result, where=lambda user: user not in inside)
    for member in reversed(members):
        member.erase()
    return module


def load_artefact(folder: Path) -> ModuleType:
    """The artefact as a package of a name of its own."""
    name = f"artefact_{uuid.uuid4().hex}"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def random_inputs(module: Module, sizes: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of the requested types and sizes; integers are small, so that they can be indices."""
    generator = np.random.default_rng(seed)
    inputs = {}
    for argument in module.main.arguments:
        environment = {symbol: sizes.get(symbol.name, 5) for symbol in argument.type.symbols()}
        shape = [dims.evaluate(extent, environment) for extent in argument.shape]
        if argument.dtype.is_float:
            inputs[argument.name] = generator.standard_normal(shape).astype(argument.dtype.numpy)
        elif argument.dtype.name == "bool":
            inputs[argument.name] = generator.integers(0, 2, shape).astype(bool)
        else:
            inputs[argument.name] = generator.integers(0, 5, shape).astype(argument.dtype.numpy)
    return inputs


def run(
    function: Callable[..., Any] | Module,
    *types: str,
    folder: Path,
    inputs: Mapping[str, np.ndarray] | Sequence[np.ndarray] | None = None,
    sizes: Mapping[str, int] | None = None,
    fuse: bool = True,
    real_tiles: bool = False,
    long_indices: bool = False,
    seed: int = 0,
) -> Run:
    """Compile, run in the interpreter under the checks, and evaluate the same module with irc's interpreter.

    `fuse` puts the whole function into one kernel. `real_tiles` keeps the tiles of a GPU, which is slow. Kernels that
    choose the type of their indices take 64 bits with `long_indices`.
    """
    module = function if isinstance(function, Module) else trace(function, *types)
    if inputs is None:
        inputs = random_inputs(module, sizes or {}, seed)
    elif not isinstance(inputs, Mapping):
        inputs = dict(zip((argument.name for argument in module.main.arguments), inputs, strict=True))
    expected = interpreter.run(module, inputs)
    if fuse:
        module = kernelize(module.clone())
    program = emit(module, folder)
    artefact = load_artefact(folder)
    runtime = sys.modules[f"{artefact.__name__}.runtime"]
    if real_tiles:
        runtime.INTERPRETED_ELEMENTS = 1
    if long_indices:
        runtime.LARGEST_EXTENT = -1
    model = artefact.load()
    environment = bind_symbols(module, inputs)
    launches = watch(model, runtime, program, environment)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        results = model.run(inputs)
    outputs = {name: to_numpy(result) for name, result in zip(expected, results.values(), strict=True)}
    return Run(outputs, dict(expected), launches, program, folder)


def bind_symbols(module: Module, inputs: Mapping[str, Any]) -> dict[Symbol, int]:
    environment: dict[Symbol, int] = {}
    for argument in module.main.arguments:
        for extent, size in zip(argument.shape, np.shape(inputs[argument.name]), strict=True):
            symbol = dims.sole_symbol(extent)
            if symbol is not None:
                environment[symbol] = size
    return environment


def watch(model: Any, runtime: Any, program: Program, environment: Mapping[Symbol, int]) -> list[Launch]:
    """Replace the program's `launch` and `launch_bundle` by ones that record; the list fills as the model runs."""
    is_seen = bool(runtime.INTERPRETED)
    if is_seen:
        RECORDER.install()
    launches: list[Launch] = []
    known = {launched.source.name: launched for launched in program.kernels}
    bundles = {bundle.name: list(map(Launched, bundle.sources, bundle.kernels)) for bundle in program.bundles}

    def recorded(name: str, members: Sequence[tuple[Launched, Sequence[Any], Mapping[str, Any]]],
                 start: Callable[[], None]) -> None:  # fmt: skip
        record = Launch(name, is_seen=is_seen)
        launches.append(record)
        parts = [[each for each in arguments if isinstance(each, torch.Tensor)] for _, arguments, _ in members]
        tensors = [tensor for part in parts for tensor in part]
        assert all(tensor.is_contiguous() for tensor in tensors), "kernels address dense tensors"
        RECORDER.launch = record if is_seen else None
        RECORDER.buffers = [(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in tensors]
        try:
            start()
        finally:
            RECORDER.launch = None
        if is_seen:
            check_stores(record, list(zip((launched for launched, _, _ in members), parts, strict=True)))
        for launched, arguments, tiles in members:
            sizes = launch_symbols(launched, arguments, tiles, environment)
            cost = count(launched.kernel, sizes, runtime.choose_blocks(tiles))
            before = record.predicted or Bytes(0, 0, 0, 0)
            loaded, exact = before.loaded_bytes + cost.loaded_bytes, before.exact and cost.exact
            record.predicted = replace(cost, loaded_bytes=loaded, exact=exact)

    def launch(kernel: Any, *arguments: Any, warps: int | None = None, stages: int | None = None,
               extent: int | None = None, float8: Any = None, **tiles: Any) -> None:  # fmt: skip
        name = kernel.fn.__name__
        options = {"warps": warps, "stages": stages, "extent": extent, "float8": float8, **tiles}
        recorded(name, [(known[name], arguments, tiles)], lambda: runtime.launch(kernel, *arguments, **options))

    def launch_bundle(kernel: Any, *members: Any, **options: Any) -> None:
        name = kernel.fn.__name__
        parts = [(launched, arguments, tiles)
                 for launched, (arguments, _, tiles) in zip(bundles[name], members, strict=True)]  # fmt: skip
        recorded(name, parts, lambda: runtime.launch_bundle(kernel, *members, **options))

    model.program.launch, model.program.launch_bundle = launch, launch_bundle
    return launches


def launch_symbols(
    launched: Launched, arguments: Sequence[Any], tiles: Mapping[str, Any], known: Mapping[Symbol, int]
) -> dict[Symbol, int]:
    """The known symbols, and those that the program defines, by the extents of the launch."""
    sizes = [argument for argument in arguments if not isinstance(argument, torch.Tensor)]
    pairs = [*zip(launched.source.sizes, sizes, strict=True)]
    pairs += [(tile.extent, tiles[tile.name].extent) for tile in launched.source.tiles]
    tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
    for buffer, tensor in zip([*launched.kernel.inputs, *launched.kernel.outputs], tensors, strict=True):
        pairs += zip(buffer.type.dims, tensor.shape, strict=True)
    known_sizes = dict(known)
    for extent, size in sorted(pairs, key=lambda pair: len(dims.free_symbols(pair[0]))):
        unknown = [symbol for symbol in dims.free_symbols(extent) if symbol not in known_sizes]
        line = dims.linear_in(dims.substitute(extent, known_sizes), unknown[0]) if len(unknown) == 1 else None
        if line is not None:
            known_sizes[unknown[0]] = (size - dims.evaluate(line[1], {})) // dims.evaluate(line[0], {})
    for extent, size in pairs:  # of `(e + 2)//3` alone one of the sizes that fit, to which the kernel is the same
        unknown = [symbol for symbol in dims.free_symbols(extent) if symbol not in known_sizes]
        if len(unknown) == 1:
            low = unknown[0].low  # below 0 for a place that a run computes
            guesses = chain(range(max(low, 0), LARGEST_GUESS), range(max(low, -LARGEST_GUESS), 0))
            fitting = (guess for guess in guesses
                       if dims.evaluate(extent, {**known_sizes, unknown[0]: guess}) == size)
            known_sizes.update(zip(unknown, fitting, strict=False))
    return known_sizes


def check_stores(record: Launch, members: Sequence[tuple[Launched, Sequence[torch.Tensor]]]) -> None:
    """Every element of every output of the kernels of a launch is stored once."""
    stored = np.concatenate([access.addresses for access in record.accesses if access.store] or [np.empty(0, np.int64)])
    assert np.unique(stored).size == stored.size, f"{record.name}: an element is stored twice"
    least, is_partial = 0, False
    for launched, tensors in members:
        outputs = dict(zip(launched.kernel.outputs, tensors[len(launched.kernel.inputs) :], strict=True))
        least += sum(tensor.numel() for value, tensor in outputs.items() if value not in launched.kernel.partial)
        is_partial = is_partial or bool(launched.kernel.partial)
    is_whole = stored.size >= least if is_partial else stored.size == least
    assert is_whole, f"{record.name}: elements are not stored"


def check_bytes(launches: Sequence[Launch]) -> None:
    """Launches move the bytes that the byte model says, or fewer where it says that it gives a bound."""
    for launch in launches:
        assert launch.predicted is not None
        counted, predicted = launch.counted, launch.predicted.loaded_bytes
        said = f"{launch.name} moves {counted} bytes, and the byte model says {predicted}"
        assert counted == predicted or (counted < predicted and not launch.predicted.exact), said


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.cpu()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    if tensor.dtype.is_floating_point and tensor.element_size() == 1:
        return tensor.view(torch.uint8).numpy().view(getattr(ml_dtypes, str(tensor.dtype).removeprefix("torch.")))
    return tensor.numpy()


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """max|a - b| / max|b| over finite elements; infinite where NaN or infinities stand in different places."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    finite = np.isfinite(expected)
    same = np.array_equal(np.isnan(actual), np.isnan(expected)) and np.array_equal(
        actual[np.isinf(expected)], expected[np.isinf(expected)]
    )
    if not same or not np.isfinite(actual[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(actual[finite] - expected[finite]).max() / max(np.abs(expected[finite]).max(), 1e-30))
