"""What the host program of a module makes a device do, found by running it on tensors without data.

The text that an artefact has runs on PyTorch's meta device. A launch of a kernel counts what the byte model says; each
operation that PyTorch dispatches counts once, but for views and allocations. So figures are those of the program that
is emitted, with the copies and conversions in it. PyTorch is imported.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from irc import dims
from irc.backends.triton.calls import TEMPLATES, TORCH_TYPES, torch_type
from irc.backends.triton.control_flow import is_counted_loop
from irc.backends.triton.device_operation import DeviceOperation, member_of_launch
from irc.backends.triton.program import Program
from irc.backends.triton.program_writer import write_program
from irc.dims import Dim, Symbol
from irc.dtypes import ALL, STRING, DType
from irc.ir import Operation, Value
from irc.kernel import Bytes, Kernel, count
from irc.kernel.roofline import Matrices
from irc.kernel.traffic import Together
from irc.library_calls import visible_pairs
from irc.module import Module

PACKAGE = "irc_host_program"  # under which templates and the program find one another
FILE = "program.py"
META = torch.device("meta")
RUNNING = threading.Lock()  # the modules of PACKAGE are those of one run at a time
ALLOCATIONS = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh"})
LIBRARY_CALLS = frozenset({"mm", "addmm", "bmm", "baddbmm", "convolution"})  # operators of ATen
ENUMERATED = 1 << 26  # elements of a buffer that are looked at one by one
MOST_ROUNDS, MOST_OPERATIONS = 10_000, 200_000  # of loops, one in another, and of a run, that are counted one by one
DTYPES = {torch_type(dtype): dtype for dtype in ALL if dtype.name in TORCH_TYPES}
Place = tuple[int, tuple[tuple[int, int], ...]]  # of a tensor: its first element, the strides and extents of its axes
ATTENTION = "scaled_dot_product_attention"


def dispatches(module: Module, sizes: Mapping[Symbol, int]) -> list[DeviceOperation]:
    """What one run of the entry does, in order, where symbols have these sizes.

    What depends on data is not known: of an `if` the first branch runs, of a loop that a condition ends, or whose trip
    count is computed, one iteration, and results as long as the data says have the sizes given for their symbols.
    NotCounted: PyTorch rejects an operation at these sizes, as that of a branch that a run at these sizes does not
    take.
    """
    rounds = _rounds(module, sizes)
    if rounds > MOST_ROUNDS:
        raise NotCounted(f"a loop of {rounds} rounds is not run to count")
    with RUNNING:
        return _Run(module, sizes, write_program(module)).operations()


def _rounds(module: Module, sizes: Mapping[Symbol, int]) -> int:
    """The most rounds that the innermost of any loops have in a run, where their trip counts are known."""
    most = 0
    waiting = [(function.block, 1) for function in module.functions.values()]
    while waiting:
        block, times = waiting.pop()
        for operation in block:
            nested_times = times * _trip_count(operation, sizes) if operation.name == "loop" else times
            most = max(most, nested_times) if operation.name == "loop" else most
            waiting += [(region.block, nested_times) for region in operation.regions if operation.name != "kernel"]
    return most


def _trip_count(loop: Operation, sizes: Mapping[Symbol, int]) -> int:
    trip = loop.operands[0] if is_counted_loop(loop) else None  # a loop that a condition ends runs one iteration
    maker = None if trip is None else trip.operation
    if maker is not None and maker.name == "const":
        return max(1, int(maker.attributes["value"].array().item()))
    if maker is not None and maker.name == "dim":
        return max(1, dims.estimate(maker.attributes["value"], sizes))
    return 1


class NotCounted(Exception):
    """The program does not run without data, or not at these sizes."""


class _Run:
    """One run of a program."""

    def __init__(self, module: Module, sizes: Mapping[Symbol, int], program: Program) -> None:
        self.main, self.sizes, self.program = module.main, sizes, program
        self.kernels = {launched.source.name: launched.kernel for launched in program.kernels}
        self.bundles = {bundle.name: bundle for bundle in program.bundles}
        self.recorded: list[DeviceOperation] = []
        self.conditions: Counter[int] = Counter()  # by lines, how many conditions they have asked the device for

    def operations(self) -> list[DeviceOperation]:
        package = _package(self)
        functions: dict[str, Any] = {"__name__": f"{PACKAGE}.program", "__package__": PACKAGE}
        exec(compile(self.program.text, FILE, "exec"), functions)
        weights = {name: self._tensor(tensor.dtype, tensor.shape) for name, tensor in self.program.weights.items()}
        inputs = {value.name: self.stand_in(value) for value in self.main.arguments}
        externs = dict.fromkeys(extern.name for extern in self.program.externs)
        with _Operations(self), _Attention(self):
            try:
                results = functions["main"](weights, externs, META, *inputs.values())
            except (RuntimeError, IndexError, ValueError, TypeError) as error:  # what PyTorch raises
                operation = self.program.lines.get(_line_of(error))
                place = "the program" if operation is None else f"%{operation.results[0].name}"
                raise NotCounted(f"PyTorch does not run {place}: {str(error).splitlines()[0]}") from error
            outputs = dict(zip(self.main.output_names, results, strict=True))
            updates = {argument.name: self.main.output_names[position]
                       for position, argument in self.main.updates.items()}  # fmt: skip
            package.outputs.finish(outputs, inputs, updates, [*inputs.values(), *weights.values()])
        return self.recorded

    def record(self, name: str, kind: str, distinct_bytes: int, flops: int = 0, kernel: Bytes | None = None,
               products: Matrices | None = None) -> None:  # fmt: skip
        self.add(DeviceOperation(name, kind, distinct_bytes, flops, kernel, self._operation(), products))

    def add(self, operation: DeviceOperation) -> None:
        if len(self.recorded) == MOST_OPERATIONS:
            raise NotCounted(f"a run has more than {MOST_OPERATIONS} operations")
        self.recorded.append(operation)

    def condition(self) -> bool:
        """What a condition is that only data decides: true, then false, where one line asks again."""
        line = _line()
        self.conditions[line] += 1
        return self.conditions[line] % 2 == 1

    def stand_in(self, value: Value) -> Any:
        """A tensor without data, of the type and the size of a value; None for what is no tensor. NotCounted: its rank
        is not known."""
        if value.type.is_ranked:
            return self._tensor(value.dtype, value.shape)
        if value.dtype.kind == "opaque":
            return None
        raise NotCounted(f"the rank of %{value.name} is not known")

    def _tensor(self, dtype: DType, shape: Sequence[Dim]) -> Any:
        extents = [dims.estimate(extent, self.sizes) for extent in shape]
        if dtype is STRING:
            return np.broadcast_to(np.array("", object), extents)  # one element, whatever the extents
        if dtype.name not in TORCH_TYPES:
            return None
        return torch.empty(extents, dtype=getattr(torch, torch_type(dtype)), device=META)

    def _operation(self) -> Operation | None:
        return self.program.lines.get(_line())

    # -- what the program calls in place of the runtime ----------------------------------------------------------

    def launch(self, name: str, *arguments: Any, **_: Any) -> None:
        kernel = self.kernels[name]
        cost = count(kernel, self.sizes_of(kernel, arguments))
        self.record(name, "kernel", cost.distinct_bytes, cost.flops, cost)

    def launch_bundle(self, name: str, *members: Sequence[Any], **_: Any) -> None:
        bundle, together = self.bundles[name], Together()
        for operation, kernel, arguments in zip(bundle.operations, bundle.kernels, members, strict=True):
            buffers = dict(zip((*kernel.inputs, *kernel.outputs), map(id, arguments), strict=False))
            self.add(member_of_launch(operation, kernel, buffers, self.sizes_of(kernel, arguments), together))

    def sizes_of(self, kernel: Kernel, arguments: Sequence[Any]) -> dict[Symbol, int]:
        """The sizes of symbols, with those that the arguments of a launch of the kernel show."""
        sizes = dict(self.sizes)
        for buffer, tensor in zip((*kernel.inputs, *kernel.outputs), arguments, strict=False):
            for extent, size in zip(buffer.shape, tensor.shape, strict=True):
                symbol = dims.sole_symbol(extent)
                if symbol is not None:
                    sizes[symbol] = size
        return sizes

    def check_dim(self, name: str, size: int, *_: int) -> int:
        return next((known for symbol, known in self.sizes.items() if symbol.name == name), size)

    def results(self, *operands: Any, **_: Any) -> Any:
        """Stand-ins for the results of an operation that does not run here."""
        operation = self._operation()
        assert operation is not None
        stand_ins = tuple(map(self.stand_in, operation.results))
        kind = "extern" if operation.name == "extern" else "operation"
        name = operation.attributes["op_type"] if operation.name == "extern" else operation.name
        self.record(name, kind, distinct_bytes([x for x in (*operands, *stand_ins) if isinstance(x, torch.Tensor)]))
        return stand_ins[0] if len(stand_ins) == 1 else stand_ins


def _package(run: _Run) -> ModuleType:
    """The templates as modules of a package, with what a run puts in place of the runtime and the kernels."""
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(TEMPLATES)]
        sys.modules[PACKAGE] = package
    package = sys.modules[PACKAGE]
    runtime, kernels = ModuleType(f"{PACKAGE}.runtime"), ModuleType(f"{PACKAGE}.kernels")
    vars(kernels).update((name, name) for name in (*run.kernels, *run.bundles))
    vars(runtime).update(
        launch=run.launch, launch_bundle=run.launch_bundle, member=lambda *arguments, **_: arguments,
        check_dim=run.check_dim, check=lambda *_: None, refine=lambda x, _: x,
        bcast=lambda *sizes: next((size for size in sizes if size != 1), 1),
        **dict.fromkeys(("Each", "Grid", "Loop", "Whole"), lambda *extents, **_: extents),
    )  # fmt: skip
    for name, module in (("runtime", runtime), ("kernels", kernels)):
        sys.modules[f"{PACKAGE}.{name}"] = module
        setattr(package, name, module)
    for name in ("host", "outputs", *run.program.modules):
        module = importlib.import_module(f"{PACKAGE}.{name}")
        if name == "host":
            module.extern = module.nonzero = run.results  # type: ignore[attr-defined]
        elif name != "outputs":
            local = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
            replaced = vars(module).setdefault("replaced", local)  # by the results of the run before
            vars(module).update(dict.fromkeys(replaced, run.results))
    return package


class _Operations(TorchDispatchMode):
    """Notes what PyTorch dispatches."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not: to keep Dynamo out PyTorch would import it, which takes a second and makes a folder for its cache."""
        return False

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self.run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            return self.run.condition() if args[0].dtype is torch.bool else 1
        result = func(*args, **kwargs)
        read, written = _tensors((args, kwargs)), _tensors(result)
        storages = {x.untyped_storage()._cdata for x in read}
        is_view = not func._schema.is_mutable and all(x.untyped_storage()._cdata in storages for x in written)
        if name not in ALLOCATIONS and (not is_view or not written):
            flops = flop_registry.get(func.overloadpacket)
            kind = "library" if name in LIBRARY_CALLS else "operation"
            counted = int(flops(*args, **kwargs, out_val=result)) if flops is not None and kind == "library" else 0
            self.run.record(name, kind, distinct_bytes(read) + distinct_bytes(written), counted,
                            products=products_of(name, args, result) if kind == "library" else None)  # fmt: skip
        return result


class _Attention(TorchFunctionMode):
    """Attention is one call, as on a GPU; on the meta device PyTorch would take it apart. Its result lies in memory
    with the heads of a position side by side, as that of the fused kernels does."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self.run = run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, k, v = args[:3]
        batch, heads, queries, _ = q.shape
        result = q.new_empty((batch, queries, heads, v.shape[3])).transpose(1, 2)
        mask = kwargs.get("attn_mask")
        moved = distinct_bytes([q, k, v, *([] if mask is None else [mask])]) + distinct_bytes([result])
        pairs = visible_pairs(queries, k.shape[2], bool(kwargs.get("is_causal")))
        flops = 2 * batch * heads * pairs * (q.shape[3] + v.shape[3])
        products = Matrices(batch * heads, queries, v.shape[3], element_type(q), is_attention=True)
        self.run.record(ATTENTION, "library", moved, flops, products=products)
        return result


def products_of(name: str, args: Sequence[Any], result: Any) -> Matrices:
    """The result of one of LIBRARY_CALLS as matrices."""
    operands = _tensors(args)
    if name == "convolution":
        return Matrices(1, result.numel() // max(1, result.shape[1]), result.shape[1], element_type(operands[0]))
    rows, columns = result.shape[-2:]
    return Matrices(math.prod(result.shape[:-2]), rows, columns, element_type(operands[-1]))


def element_type(tensor: Any) -> DType:
    return DTYPES[str(tensor.dtype).removeprefix("torch.")]


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def distinct_bytes(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes of the elements of tensors, each once: those that strides repeat, and those that views share."""
    places: dict[tuple[int, int], set[Place]] = {}
    for tensor in tensors:
        axes = zip(tensor.stride(), tensor.shape, strict=True)
        place = (tensor.storage_offset(), tuple(sorted((step, size) for step, size in axes if step and size > 1)))
        if tensor.numel():
            places.setdefault((tensor.untyped_storage()._cdata, tensor.element_size()), set()).add(place)
    byte_count = 0
    for (_, width), accesses in places.items():
        start = min(offset for offset, _ in accesses)
        byte_count += width * _distinct(tuple(sorted((offset - start, axes) for offset, axes in accesses)))
    return byte_count


@lru_cache(1 << 12)
def _distinct(places: tuple[Place, ...]) -> int:
    """How many elements lie at some of these places; an upper bound where that takes more than ENUMERATED bytes."""
    number, end, is_apart = 0, 0, True
    for offset, axes in places:
        is_apart &= offset >= end
        reach = 1
        for step, size in axes:
            is_apart &= step >= reach
            reach += step * (size - 1)
        number, end = number + math.prod(size for _, size in axes), max(end, offset + reach)
    if is_apart or end > ENUMERATED:
        return min(number, end)
    seen = np.zeros(end, dtype=bool)
    for offset, axes in places:
        steps, sizes = [step for step, _ in axes], [size for _, size in axes]
        np.lib.stride_tricks.as_strided(seen[offset:], sizes, steps)[...] = True
    return int(np.count_nonzero(seen))


def _line_of(error: BaseException) -> int:
    """The line of the program in which something was raised."""
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == FILE]
    return (lines[-1] or 0) if lines else 0


def _line() -> int:
    """The line of the program that runs."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename != FILE:
        frame = frame.f_back
    return 0 if frame is None else frame.f_lineno
