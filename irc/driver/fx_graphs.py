"""Modules as torch.fx graphs of ATen operations: `to_fx`.

The host program that the Triton backend writes of a module without kernels calls PyTorch for each operation; PyTorch's
tracer records the ATen operations of these calls. Sizes that are symbols stay symbolic.
"""

from __future__ import annotations

import importlib
import sys
import traceback
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any

from irc import dims
from irc.cloning import Cloner
from irc.diagnostics import IrcError, fail
from irc.dims import Symbol
from irc.driver.models import Settings, Source, require
from irc.driver.optimizing import run_pipeline
from irc.dtypes import STRING
from irc.ir import Operation
from irc.module import Module

if TYPE_CHECKING:
    from torch.fx import GraphModule

PIPELINE = "legalize,windows,scatters,dce"
FILE = "<program of irc.to_fx>"  # what tracebacks call the host program
PRIMES = (7, 11, 13, 17, 19, 23, 29, 31)  # examples of sizes: apart from one another, and from 0 and 1


def to_fx(source: Source, *, settings: Settings | None = None) -> GraphModule:
    """The main function of a model as a torch.fx.GraphModule of ATen operations, on the CPU.

    It takes a tensor for each argument, in order, and gives a tuple of the function's results, in order; what the
    program writes to its arguments is a result. Constants are buffers. Dims that are symbols may have any size from 1
    on in their range. Branches and loops are PyTorch's higher-order operators `cond`, `scan` and `while_loop`. Raises
    `fx.unsupported`, which names the operation, for one that has no lowering to operations of which a graph can be
    recorded, `fx.sizes` where the operations depend on the size of a symbol, and `backend.unsupported` for what PyTorch
    lacks.
    """
    require("torch", "torch", "making a torch.fx graph")
    settings = Settings.of(settings)
    from irc.backends.triton.program_writer import WRITERS, write_program
    from irc.driver import fx_control

    module, _ = run_pipeline(_without_kernels(settings.load(source)), PIPELINE, "triton", settings)
    _check_element_types(module)
    fx_control.hoist_constants(module)
    program = write_program(module, {**WRITERS, **fx_control.WRITERS})
    if program.externs:
        names = ", ".join(dict.fromkeys(extern.op for extern in program.externs))
        raise fail("fx.unsupported", f"{names} of ONNX Runtime has no lowering to ATen operations")
    return Recording(module, program).graph()


def _check_element_types(module: Module) -> None:
    """Raise `fx.unsupported` for a value that is no tensor of PyTorch."""
    from irc.frontends.torch.reading import TORCH_DTYPES

    results = (result for operation in module.walk() for result in operation.results)
    for value in (*module.main.arguments, *results):
        if value.dtype is STRING or (value.operation is None and value.dtype not in TORCH_DTYPES):
            raise fail("fx.unsupported", f"%{value.name}: a graph has no tensors of {value.dtype}")


def _without_kernels(module: Module) -> Module:
    """The module with the operations of kernels in their place."""
    for operation in list(module.walk()):
        if operation.name == "kernel":
            assert operation.block is not None
            block = operation.regions[0].block
            cloner = Cloner(dict(zip(block.arguments, operation.inputs, strict=True)))
            for inner in block:
                if inner is not block.terminator:
                    operation.block.insert(cloner.operation(inner), operation)
            operation.replace([cloner.values.get(value, value) for value in block.terminator.inputs])
    return module


class Recording:
    """The ATen operations of a host program, recorded for symbolic sizes."""

    def __init__(self, module: Module, program: Any) -> None:
        from irc.torch_arrays import to_tensor

        self.main, self.program = module.main, program
        self.weights = {name: to_tensor(each.array(), each.dtype) for name, each in program.weights.items()}

    def graph(self) -> GraphModule:
        """The graph. Raises `fx.unsupported` and `fx.sizes`."""
        import torch
        from torch._subclasses import FakeTensorMode
        from torch.fx.experimental import _config
        from torch.fx.experimental.proxy_tensor import make_fx
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        from irc.frontends.torch.exporting import EXPORTING

        mode = FakeTensorMode(shape_env=ShapeEnv(specialize_zero_one=False, duck_shape=False))
        sizes = _symbolic_sizes(mode.shape_env, self.main.symbols.values())
        arguments = self._arguments(mode, sizes)
        weights = [mode.from_tensor(each, static_shapes=True) for each in self.weights.values()]
        count = len(arguments)
        with (EXPORTING, _host_program(self.program) as run, torch.no_grad(),
              _config.patch(backed_size_oblivious=True), _naming_operations(self.program.lines)):  # fmt: skip

            def call(*tensors: Any) -> Any:
                held = dict(zip(self.weights, tensors[count:], strict=True))
                return run(held, {}, torch.device("cpu"), *tensors[:count])

            graph = make_fx(call, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments, *weights)
        self._add_conditions(graph, mode.shape_env, sizes)
        _add_buffers(graph, [each.name for each in self.main.arguments], self.weights)
        self._check_least_sizes(graph)
        return graph

    def _arguments(self, mode: Any, sizes: Mapping[Symbol, Any]) -> list[Any]:
        """Stand-ins for the arguments at these sizes."""
        import torch

        from irc.frontends.torch.reading import TORCH_DTYPES

        with mode:
            return [torch.empty([dims.evaluate(dim, sizes) for dim in each.shape], dtype=TORCH_DTYPES[each.dtype])
                    for each in self.main.arguments]  # fmt: skip

    def _add_conditions(self, graph: Any, shapes: Any, sizes: Mapping[Symbol, Any]) -> None:
        """Let the graph assert the conditions of sizes by which operations were chosen."""
        import torch
        from torch.utils._sympy.interp import sympy_interp
        from torch.utils._sympy.reference import PythonReferenceAnalysis

        from irc.backends.triton.sizes import symbol_sources

        guards = dict.fromkeys(guard.expr for guard in shapes.guards if not _is_generic(guard.expr))
        if shapes.replacements:
            raise self._depends([f"{one} is {other}" for one, other in shapes.replacements.items()])
        if not guards:
            return
        nodes = graph.graph.find_nodes(op="placeholder")
        first = next(node for node in graph.graph.nodes if node.op != "placeholder")
        with graph.graph.inserting_before(first):
            places: dict[Any, Any] = {}
            names: dict[Symbol, str] = {}
            known: dict[str, Any] = {}
            for symbol, source in symbol_sources(self.main).items():
                place = nodes[self.main.arguments.index(source.value)], source.axis
                known["extent"] = torch.fx.Proxy(graph.graph.call_function(torch.ops.aten.sym_size.int, place))
                names[symbol] = f"size_{len(names)}"
                size = known[names[symbol]] = eval(source.size("extent", names), {"__builtins__": {}}, known)
                places[sizes[symbol].node.expr] = size
            for guard in guards:
                condition = sympy_interp(PythonReferenceAnalysis, places, guard)
                message = f"the graph was recorded for sizes with {guard}"
                graph.graph.call_function(torch.ops.aten._assert_scalar.default, (condition.node, message))

    def _check_least_sizes(self, graph: Any) -> None:
        """Raise `fx.sizes` where results at the least sizes have other shapes than the function states."""
        import torch
        from torch._subclasses import FakeTensorMode
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        if not self.main.symbols:
            return
        sizes = {symbol: _least(symbol) for symbol in self.main.symbols.values()}
        mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        try:
            with torch.no_grad(), mode:
                results = graph(*self._arguments(mode, sizes))
        except RuntimeError as error:
            raise self._depends([str(error)[:200]]) from None
        for result, value in zip(results, self.main.returned, strict=True):
            known = all(symbol in sizes for dim in value.shape for symbol in dims.free_symbols(dim))
            known = known and not any(isinstance(size, torch.SymInt) for size in result.shape)
            if known and tuple(result.shape) != tuple(dims.evaluate(dim, sizes) for dim in value.shape):
                raise self._depends([f"the result {value.name} has the shape {list(result.shape)} at the least sizes"])

    def _depends(self, notes: Sequence[str]) -> IrcError:
        return fail("fx.sizes", f"the operations depend on the sizes of {', '.join(self.main.symbols)}", notes=notes,
                    help="state sizes: settings=irc.Settings(specialize={...})")


def _symbolic_sizes(shapes: Any, symbols: Iterable[Symbol]) -> dict[Symbol, Any]:
    """A symbolic integer of PyTorch for each symbol, with an example in its range."""
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic
    from torch.utils._sympy.value_ranges import ValueRanges

    sizes = {}
    for number, symbol in enumerate(symbols):
        step = symbol.multiple
        example = min(-(-max(PRIMES[number % len(PRIMES)], symbol.low) // step) * step, symbol.high)
        source = ConstantSource(symbol.name)
        size = shapes.create_symbol(example, source=source, dynamic_dim=DimDynamic.DYNAMIC, constraint_dim=None)
        shapes.var_to_range[size] = ValueRanges(_least(symbol), symbol.high)
        sizes[symbol] = shapes.create_symintnode(size, hint=example, source=source)
    return sizes


def _is_generic(guard: Any) -> bool:
    """Whether a condition says no more than that sizes are not special: not equal, not 0 or 1. What is done then is
    right for special sizes, too, where PyTorch or the host program would only have done less."""
    import sympy

    if isinstance(guard, sympy.Ne):
        return True
    return isinstance(guard, (sympy.Ge, sympy.Gt)) and guard.rhs.is_Integer and bool(0 <= guard.rhs <= 2)


def _least(symbol: Symbol) -> int:
    """The least size of a symbol from 1 on."""
    return max(symbol.low, symbol.multiple)


@contextmanager
def _host_program(program: Any) -> Iterator[Callable[..., Any]]:
    """The host program as a function of weights, externs, the device and the arguments. Its modules are those of
    artefacts, in a package of its own that is removed afterwards, without kernels; what they demand of elements the
    graph asserts."""
    from irc.backends.triton.calls import TEMPLATES
    from irc.driver.fx_control import branched, looped

    package = types.ModuleType(f"irc_fx_{uuid.uuid4().hex}")
    package.__path__ = [str(TEMPLATES)]
    package.kernels = None  # type: ignore[attr-defined]
    checks = types.ModuleType(f"{package.__name__}.runtime")
    vars(checks).update(check=_check, check_dim=_check_dim, refine=_refine, nonzero=_nonzero)
    sys.modules |= {package.__name__: package, checks.__name__: checks}
    try:
        host: Any = importlib.import_module(f"{package.__name__}.host")
        host._demand = _check
        host.slice = host.carried("moves")(_slice)
        names: dict[str, Any] = {"__name__": f"{package.__name__}.program", "__package__": package.__name__,
                                 "int": _whole, "min": _least_of, "max": _greatest_of,
                                 "branched": branched, "looped": looped}  # fmt: skip
        exec(compile(program.text, FILE, "exec"), names)
        yield names["main"]
    finally:
        for name in [each for each in sys.modules if each.partition(".")[0] == package.__name__]:
            del sys.modules[name]


def _check(condition: Any, message: str) -> None:
    """Assert in the graph that a condition of sizes holds, or one of elements for all of them."""
    import torch

    if isinstance(condition, torch.SymBool):
        torch.ops.aten._assert_scalar.default(condition, message)
    else:
        torch.ops.aten._assert_async.msg(torch.as_tensor(condition).all(), message)


def _whole(number: Any) -> Any:
    """A whole number; that of a tensor as a size that the graph reads."""
    import torch

    return number.item() if isinstance(number, torch.Tensor) else int(number)


def _slice(x: Any, *, starts: Sequence[Any], stops: Sequence[Any], steps: Sequence[int]) -> Any:
    """The slice. Nothing is asked of sizes that only a run knows, such as whether it is all of x."""
    import torch
    from torch.fx.experimental.symbolic_shapes import statically_known_true as is_known

    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        if step != 1 or not (is_known(start == 0) and is_known(stop == x.shape[axis])):
            x = x.narrow(axis, start, stop - start)
        if step != 1:
            x = x.index_select(axis, torch.arange(0, x.shape[axis], step))
    return x


def _least_of(*sizes: Any) -> Any:
    """The least size, without a condition of which it is."""
    import torch

    return reduce(torch.sym_min, sizes)


def _greatest_of(*sizes: Any) -> Any:
    import torch

    return reduce(torch.sym_max, sizes)


def _check_dim(name: str, size: Any, low: int, high: int, multiple: int = 1) -> Any:
    """A size that a tensor holds, whose range the graph asserts."""
    import torch

    torch.ops.aten.sym_constrain_range.default(size, min=low, max=high)
    if multiple != 1:
        torch.ops.aten._assert_scalar.default(size % multiple == 0, f"{name} is not a multiple of {multiple}")
    return size


def _refine(x: Any, shape: Sequence[Any]) -> Any:
    """x, whose shape is this one, which the graph asserts; None stands for any size."""
    for size, expected in zip(x.shape, shape, strict=True):
        if expected is not None and size != expected:
            raise ValueError(f"a tensor of shape {list(x.shape)} came where {list(shape)} is stated")
    return x


def _nonzero(size: Any) -> Any:
    """A size that another is divided by."""
    return size


@contextmanager
def _naming_operations(lines: Mapping[int, Operation]) -> Iterator[None]:
    """Raise `fx.unsupported` with the operation in whose line of the host program an exception was raised."""
    try:
        yield
    except IrcError:
        raise
    except Exception as error:
        numbers = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
        operation = lines.get(numbers[-1] or 0) if numbers else None
        if operation is None:
            raise
        result = f"%{operation.results[0].name} = " if operation.results else ""
        reason = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
        raise fail("fx.unsupported", f"{result}{operation.name} cannot be recorded as ATen operations",
                   at=operation.location, notes=[reason]) from error


def _add_buffers(graph: Any, names: Sequence[str], weights: Mapping[str, Any]) -> None:
    """Make the last arguments of a recorded graph buffers, and give the others these names."""
    nodes = graph.graph.find_nodes(op="placeholder")
    for node, name in zip(nodes, names, strict=False):
        node.target = node.name = graph.graph._graph_namespace.create_name(name, None)
    for node, (name, tensor) in zip(nodes[len(names):], weights.items(), strict=True):
        if node.users:
            buffer = "".join(each if each.isalnum() else "_" for each in name)
            while hasattr(graph, buffer):  # another name with other punctuation, or a method of modules
                buffer += "_"
            graph.register_buffer(buffer, tensor)
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.get_attr(buffer))
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
