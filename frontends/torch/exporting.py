"""What PyTorch calls a program, made into what the importer reads: functional, and in the operations of its table.

The table itself says what PyTorch may decompose: an operation that has a row is not decomposed.
"""

from __future__ import annotations

import inspect
import logging
import operator
import re
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from itertools import product
from typing import Any

import torch
import torch.fx.experimental._config as symbolic_shapes_config
from torch._dynamo.convert_frame import compile_lock
from torch.export import ExportedProgram
from torch.fx.experimental import symbolic_shapes
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols, statically_known_true
from torch.utils import _pytree as pytree
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from irc.diagnostics import IrcError, fail
from irc.frontends.torch import lists
from irc.frontends.torch.branches import least_sizes, noted_branches
from irc.frontends.torch.dynamic_shapes import DynamicShapes, violates_constraints
from irc.frontends.torch.importer import TABLE
from irc.frontends.torch.padding import padding_as_zeros
from irc.frontends.torch.parameters import Parameters, register_caches, register_dataclasses
from irc.frontends.torch.recurrent import KeptWhole
from irc.frontends.torch.tensors import why_not_dense
from irc.user_code import warn_caller

# PyTorch exports one program at a time, and traces none for torch.compile meanwhile: what it changes for that, and what
# is changed here, is the process's.
EXPORTING = compile_lock
EXCLUDES_SMALL = re.compile(r" (!= [01]|>= [12]|> [01])$")  # the end of a guard that small sizes may break


def exported(source: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None,
             dynamic_shapes: Any) -> ExportedProgram:
    """The program of a module, a GraphModule or a function of tensors, for inputs such as these.

    Raises `torch.tensor` for tensors without dense elements, and `torch.export` for inputs that the program does not
    take, and with PyTorch's own words where it cannot be exported. Warns where the program changes lists or
    dictionaries that it is given.
    """
    if isinstance(source, ExportedProgram):
        return source
    if not isinstance(source, torch.nn.Module):
        if not callable(source):
            raise fail("torch.export", f"a {type(source).__name__} is not a PyTorch program",
                       expected="a torch.nn.Module, a GraphModule, an ExportedProgram or a function of tensors")
    kwargs = dict(kwargs or {})
    modules = source.modules() if isinstance(source, torch.nn.Module) else ()
    if any(type(module).__module__.startswith("transformers.") for module in modules):
        register_caches()
    register_dataclasses((args, kwargs))
    parameters = Parameters.of(source, pytree.tree_structure((tuple(args), kwargs)))
    args, kwargs = _examples(source, parameters, args, kwargs)
    module = source if isinstance(source, torch.nn.Module) else _as_module(source)

    def export(*, oblivious: bool) -> tuple[ExportedProgram, dict[Any, int]]:
        with (symbolic_shapes_config.patch(backed_size_oblivious=True) if oblivious else nullcontext(),
              noted_branches() as branches):  # fmt: skip
            program = DynamicShapes(parameters, dynamic_shapes).export(export_with)
        # The larger of both, by symbol.
        return program, Counter(least_right_sizes(program)) | Counter(least_sizes(branches, program.range_constraints))

    def export_with(full: Any) -> ExportedProgram:
        with refused_by_torch("export"):
            return torch.export.export(module, args, kwargs, dynamic_shapes=full, strict=False)

    changed: list[str] = []
    with (EXPORTING, quiet(), unlogged(), KeptWhole(), _watched(module, parameters, changed),
          _explicit_keywords(module, parameters), padding_as_zeros()):  # fmt: skip
        is_plain = not dynamic_shapes or symbolic_shapes_config.backed_size_oblivious  # the user's own setting
        program, least = export(oblivious=False) if is_plain else _of_most_sizes(export)
    if least:
        _exclude_below(program, least)
    if changed:
        warn_caller(f"the program puts other things into its argument {changed[0]}; once exported it does not: let it "
                    "give them as results")  # fmt: skip
    return program


def _of_most_sizes(export: Callable[..., tuple[ExportedProgram, dict[Any, int]]]) -> tuple[
        ExportedProgram, dict[Any, int]]:  # fmt: skip
    """The program that is right for small sizes too, where PyTorch exports it, with its least right sizes; `export`
    gives these two.

    PyTorch assumes that dynamic dims are 2 or more, whatever their ranges say, unless it is to be oblivious of that.
    With the assumption it may fail at x[2:], state guards that small sizes break, or be wrong for them; without it
    squeeze keeps a dynamic dim even where a run's size is 1, and nothing guards that.
    """
    try:
        program, least = export(oblivious=False)
    except IrcError as error:
        if not _is_of_sizes(error.__cause__):
            raise
        with suppress(IrcError):
            oblivious, wrong = export(oblivious=True)
            if not _squeezes_dynamic_dims(oblivious):
                return oblivious, wrong
        raise
    if not least and not any(map(EXCLUDES_SMALL.search, program._guards_code)):
        return program, least
    with suppress(IrcError):  # PyTorch has no program that is right for all sizes, or says that it has
        oblivious, wrong = export(oblivious=True)
        # With torch.cond it may also guard dims whose small sizes are right: all of the operands, with >= 2.
        if (not wrong and set(oblivious._guards_code) <= set(program._guards_code)
                and not _squeezes_dynamic_dims(oblivious)):  # fmt: skip
            return oblivious, wrong
    return program, least


def _is_of_sizes(error: BaseException | None) -> bool:
    """Whether PyTorch failed at constraints of sizes, which it may have stated for small ones: it names them, or fails
    to say what they are. What else fails, such as a branch on data, fails for all sizes."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__ if error else None)]
    raised_by = frames[-1].f_globals.get("__name__") if frames else None
    unsaid = isinstance(error, AssertionError) and raised_by == symbolic_shapes.__name__
    return unsaid or violates_constraints(error)


def _squeezes_dynamic_dims(program: ExportedProgram) -> bool:
    """Whether a dim is squeezed whose size may be 1 or not."""
    sizes = (size for node in _calls(program, SQUEEZES) for size in _squeezed(node)[0])
    return any(not statically_known_true(size != 1) for size in sizes)


@contextmanager
def _explicit_keywords(module: torch.nn.Module, parameters: Parameters) -> Iterator[None]:
    """Make arguments that `**kwargs` collects parameters of their own: PyTorch finds no dynamic dims of them else."""
    collected = [slot.part for slot in parameters.slots if isinstance(slot.part, str)]
    if not collected:
        yield
        return
    original = module.forward
    stated = [each for each in inspect.signature(original).parameters.values() if each.kind is not each.VAR_KEYWORD]
    stated += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in collected]

    def forward(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    forward.__signature__ = inspect.Signature(stated)  # type: ignore[attr-defined]
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


@contextmanager
def _watched(module: torch.nn.Module, parameters: Parameters, changed: list[str]) -> Iterator[None]:
    """Add to `changed` the arguments that hold other things after a call: exporting keeps writes to tensors only."""
    before: list[dict[str, Any]] = []

    def flattened(args: Any, kwargs: Any) -> dict[str, Any]:
        named = {**dict(zip((slot.label for slot in parameters.slots), args, strict=False)), **kwargs}
        return {label: pytree.tree_flatten(argument) for label, argument in named.items()}

    def note(_: Any, args: Any, kwargs: Any) -> None:
        before.append(flattened(args, kwargs))

    def compare(_: Any, args: Any, kwargs: Any, result: Any) -> None:
        after = flattened(args, kwargs)
        for label, (leaves, structure) in before.pop().items():
            others, other = after[label]
            if structure != other or any(one is not another for one, another in zip(leaves, others, strict=True)):
                changed.append(label)

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True),
             module.register_forward_hook(compare, with_kwargs=True)]  # fmt: skip
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _examples(source: Any, parameters: Parameters, args: Sequence[Any],
              kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    """The example inputs, checked, and no tensor of them twice or a weight too: PyTorch would take the two for one."""
    leaves, structure = pytree.tree_flatten((tuple(args), dict(kwargs)))
    try:
        parameters.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise fail("torch.export", f"the example inputs are not what the program takes: {error}",
                   expected=f"arguments for {parameters.in_words}",
                   help="give a tuple of positional arguments, or a dictionary of keyword arguments") from None
    held = source if isinstance(source, torch.nn.Module) else torch.nn.Module()
    known = {id(tensor) for tensor in (*held.parameters(), *held.buffers())}
    for index, (leaf, label) in enumerate(zip(leaves, parameters.labels, strict=True)):
        if type(leaf).__module__ == "numpy":
            raise fail("torch.tensor", f"the example input {label} is a NumPy {type(leaf).__name__}",
                       expected="a tensor", help="torch.from_numpy(array) makes one")  # fmt: skip
        if not isinstance(leaf, torch.Tensor):
            continue
        reason = None if leaf.is_meta else why_not_dense(leaf)
        if reason is not None:
            raise fail("torch.tensor", f"the example input {label} is {reason}", expected="a dense tensor")
        if id(leaf) in known:
            leaves[index] = leaf.detach().clone()
        known.add(id(leaf))
    arguments = pytree.tree_unflatten(leaves, structure)
    return arguments[0], arguments[1]


def _as_module(function: Any) -> torch.nn.Module:
    """A module that calls the function, under the names of its parameters. (PyTorch notes lines of Python below a
    frame called `forward` only.)"""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    with suppress(ValueError):  # functions of C, such as torch.add, have no signature
        signature = inspect.signature(function)
        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        parameters = [each.replace(kind=_named(each.kind)) for each in signature.parameters.values()]
        forward.__signature__ = signature.replace(parameters=[itself, *parameters])  # type: ignore[attr-defined]
    return type(getattr(function, "__name__", "function"), (torch.nn.Module,), {"forward": forward})()


def _named(kind: Any) -> Any:
    return inspect.Parameter.POSITIONAL_OR_KEYWORD if kind is inspect.Parameter.POSITIONAL_ONLY else kind


def least_right_sizes(program: ExportedProgram) -> dict[Any, int]:
    """The symbols of dynamic dims of which a slice or diagonal has another extent at 0 or 1 than PyTorch says, or which
    are squeezed at 1, with the least size from which on it is right.

    Exporting assumes that dynamic dims are 2 or more, whatever their ranges say: of B in [0, 64] it takes x[-2:] to
    have 2 rows, and what is computed of that extent (an expand_as, an arange) becomes a constant.
    """
    least: dict[Any, int] = {}
    for node in _calls(program, EXTENTS):
        for number in _wrong_sizes(node, program.range_constraints):
            for symbol in _symbols(EXTENTS[node.target](node)[0]):
                least[symbol] = max(least.get(symbol, 0), number + 1)
    return least


def _calls(program: ExportedProgram, targets: Collection[Any]) -> Iterator[torch.fx.Node]:
    """The nodes that call any of the targets, in a program's graph and in those of control flow in it."""
    modules = (module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule))
    for module, target in product(modules, targets):
        yield from module.graph.find_nodes(op="call_function", target=target)


def _exclude_below(program: ExportedProgram, least: Mapping[Any, int]) -> None:
    """Raise the lower bounds of symbols to the sizes from which on a program is right, and warn of it."""
    for symbol, low in least.items():
        allowed = program.range_constraints.get(symbol)
        program.range_constraints[symbol] = ValueRanges(low, int_oo if allowed is None else allowed.upper)
    sizes = ", ".join(f"{low} for {_place_of(program, symbol)}" for symbol, low in least.items())
    warn_caller(f"PyTorch exports this program for larger sizes only: the least size is {sizes}")


def _place_of(program: ExportedProgram, symbol: Any) -> str:
    """The first dim of an input that is the symbol, in words."""
    for node in program.graph.find_nodes(op="placeholder"):
        for axis, extent in enumerate(getattr(node.meta["val"], "shape", ())):
            if isinstance(extent, torch.SymInt) and extent.node.expr == symbol:
                return f"dim {axis} of `{node.name}`"
    return str(symbol)


def _wrong_sizes(node: torch.fx.Node, ranges: Mapping[Any, Any]) -> list[int]:
    """Which of 0 and 1, as the size of the dims that are sliced, give another extent than PyTorch says."""
    read, claimed, extent_of = EXTENTS[node.target](node)
    symbols = _symbols(read)
    small = [number for number in (0, 1) if all(symbol not in ranges or number in ranges[symbol] for symbol in symbols)]
    if not symbols or extent_of is None or free_unbacked_symbols(claimed):
        return []
    extents = {number: extent_of(*(_with_symbols(extent, number) for extent in read)) for number in small}
    return [number for number, extent in extents.items() if extent != _with_symbols(claimed, number)]


def _sliced(node: torch.fx.Node) -> Extents:
    arguments: list[Any] = list(node.args)
    x, dim, start, stop, step = arguments + [0, None, None, 1][len(arguments) - 1 :]
    before, after = (value.meta["val"].shape[dim] for value in (x, node))
    if any(isinstance(place, torch.fx.Node) for place in (start, stop)) or start == -1:  # x[-1:] has 1 in any case
        return [before], after, None
    return [before], after, lambda size: len(range(*slice(start, stop, step).indices(size)))


def _diagonal(node: torch.fx.Node) -> Extents:
    arguments: list[Any] = list(node.args)
    x, offset, first, second = arguments + [0, 0, 1][len(arguments) - 1 :]
    shape = x.meta["val"].shape

    def length(rows: int, columns: int) -> int:
        return max(0, min(rows + min(offset, 0), columns - max(offset, 0)))

    return [shape[first], shape[second]], node.meta["val"].shape[-1], length


def _squeezed(node: torch.fx.Node) -> Extents:
    """How many of the dims that may be squeezed are kept: PyTorch keeps dynamic ones."""
    x, *dims = node.args
    shape = x.meta["val"].shape
    chosen = range(len(shape)) if not dims else dims[0] if isinstance(dims[0], (list, tuple)) else dims
    dynamic = [shape[dim] for dim in (chosen if shape else ()) if isinstance(shape[dim], torch.SymInt)]
    return dynamic, len(dynamic), lambda *sizes: sum(size != 1 for size in sizes)


SQUEEZES = (torch.ops.aten.squeeze.default, torch.ops.aten.squeeze.dim, torch.ops.aten.squeeze.dims)
# The extents of the dims that an operation reads, the one that PyTorch says of its result, and what it is for sizes of
# these dims; None where that is not known.
Extents = tuple[list[Any], Any, Callable[..., int] | None]
EXTENTS: dict[Any, Callable[[torch.fx.Node], Extents]] = {
    torch.ops.aten.slice.Tensor: _sliced,
    torch.ops.aten.diagonal.default: _diagonal,
    **dict.fromkeys(SQUEEZES, _squeezed),
}


def _symbols(extents: Iterable[Any]) -> set[Any]:
    symbolic = (extent for extent in extents if isinstance(extent, torch.SymInt))
    return {symbol for extent in symbolic for symbol in extent.node.expr.free_symbols}


def _with_symbols(extent: Any, number: int) -> int:
    """An extent where each of its symbols is a number; 0 at the least."""
    if not isinstance(extent, torch.SymInt):
        return int(extent)
    expression = extent.node.expr
    return max(int(expression.subs(dict.fromkeys(expression.free_symbols, number))), 0)


@contextmanager
def refused_by_torch(step: str) -> Iterator[None]:
    """Raise `torch.export` with the message of any exception of PyTorch, whose calls alone are inside."""
    try:
        yield
    except IrcError:  # of what irc lets PyTorch call
        raise
    except Exception as error:
        raise fail("torch.export", f"PyTorch cannot {step} this program: {type(error).__name__}",
                   notes=[line for line in str(error).splitlines() if line.strip()][:12]) from error


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program decomposed into operations that the importer reads, where PyTorch has decompositions."""
    table, kept = decompositions()
    with EXPORTING, quiet(), unlogged(), _without_decompositions(kept), _as_pytorch_2_12(program):
        before = dict(program.constants)
        with _keeping_constants(program.constants):
            with refused_by_torch("decompose"):
                functional = program.run_decompositions(table)
            functional._constants = dict(program.constants)
        program.constants.clear()
        program.constants.update(before)
        _without_offsets(functional.graph)
        return functional


def decompositions() -> tuple[dict[Any, Callable[..., Any]], list[Any]]:
    """PyTorch's decompositions into the core ATen set without those of operations that irc reads, and these."""
    table = torch.export.default_decompositions()
    table.update(lists.decompositions())
    kept = [target for target in table if TABLE.find(target) is not None]
    for target in kept:
        del table[target]
    return table, kept


def _without_offsets(graph: torch.fx.Graph) -> None:
    """Remove assertions that the place of a view in its memory is not negative, which none is."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.sym_storage_offset.default):
        for comparison in [user for user in node.users if user.target is operator.ge and user.args[1] == 0]:
            for each in (*comparison.users, comparison):
                graph.erase_node(each)
        if not node.users:
            graph.erase_node(node)


@contextmanager
def _keeping_constants(constants: dict[str, Any]) -> Iterator[None]:
    """Add the tensors that decomposing finds inside of the program to these constants: PyTorch reads them, forgets
    them, and then rejects the result, as for the empty tensors with which caches of transformers begin."""
    trace = import_module("torch.export._trace")  # which a process that only loads programs has not imported
    name = "_export_to_aten_ir"
    export = getattr(trace, name)

    def keeping(*args: Any, **kwargs: Any) -> Any:
        artifact = export(*args, **kwargs)
        constants.update({path: held for path, held in artifact.constants.items()
                          if isinstance(held, torch.Tensor) and path not in constants})  # fmt: skip
        return artifact

    setattr(trace, name, keeping)
    try:
        yield
    finally:
        setattr(trace, name, export)


@contextmanager
def _as_pytorch_2_12(program: ExportedProgram) -> Iterator[None]:
    """PyTorch 2.11 gives extents of slices symbols of their own, which it forgets as it decomposes, unless it may not
    assume that sizes are 2 or more; and it fails where it renames what the modules of a program with constants are
    called with, of which irc reads nothing."""
    if torch.__version__ >= "2.12":
        yield
        return
    renamed = torch.export.exported_program._get_updated_module_call_graph
    slices = program.graph.find_nodes(op="call_function", target=torch.ops.aten.slice.Tensor)
    oblivious = any(free_unbacked_symbols(node.meta["val"]) for node in slices)
    torch.export.exported_program._get_updated_module_call_graph = lambda *arguments: arguments[-1]
    try:
        with symbolic_shapes_config.patch(backed_size_oblivious=True) if oblivious else nullcontext():
            yield
    finally:
        torch.export.exported_program._get_updated_module_call_graph = renamed


@contextmanager
def _without_decompositions(targets: Sequence[Any]) -> Iterator[None]:
    """Some operators are decomposed before the table is asked, by kernels in Python: those are taken away meanwhile."""
    key = torch._C.DispatchKey.Autograd
    kernels = {target: target.py_kernels.pop(key) for target in targets if key in getattr(target, "py_kernels", ())}
    for target in kernels:
        target._dispatch_cache.clear()
    try:
        yield
    finally:
        for target, kernel in kernels.items():
            target.py_kernels[key] = kernel
            target._dispatch_cache.clear()


@contextmanager
def quiet() -> Iterator[None]:
    """PyTorch warns of what it deprecates in itself, which no user of irc can change. Filters of warnings are the
    process's: two threads that change them at once would leave one's to the other."""
    with EXPORTING, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)  # of its own RNNs
        yield


@contextmanager
def unlogged() -> Iterator[None]:
    """PyTorch also logs what it raises, with tracebacks, and with names from the program as they are: a terminal must
    not see them. What other threads and other libraries log is left alone."""
    thread = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return threading.get_ident() != thread or record.name.partition(".")[0] != "torch"

    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(passes)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(passes)


def _handlers() -> list[logging.Handler]:
    """All that write what is logged: filters of a logger do not see what those below it log."""
    loggers = [logging.root, *list(logging.root.manager.loggerDict.values())]
    handlers = [handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers]
    return list(dict.fromkeys(filter(None, [*handlers, logging.lastResort])))
