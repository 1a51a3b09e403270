"""What PyTorch calls a program, made into what the importer reads: functional, and in the operations of its table.

The table itself says what PyTorch may decompose: an operation that has a row is kept whole.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.export import ExportedProgram

from irc.diagnostics import fail
from irc.frontends.torch.importer import TABLE
from irc.frontends.torch.recurrent import KeptWhole


def exported(source: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None,
             dynamic_shapes: Any) -> ExportedProgram:
    """The program of a module, a GraphModule or a function of tensors, for inputs such as these.

    Raises `torch.export` with PyTorch's own words where it cannot be exported.
    """
    if isinstance(source, ExportedProgram):
        return source
    if not isinstance(source, torch.nn.Module):
        if not callable(source):
            raise fail("torch.export", f"a {type(source).__name__} is no program of PyTorch",
                       expected="a torch.nn.Module, a GraphModule, an ExportedProgram or a function of tensors")
        source = _as_module(source)
    with refused_by_torch("export"), quiet(), KeptWhole():
        return torch.export.export(source, tuple(args), dict(kwargs or {}), dynamic_shapes=dynamic_shapes, strict=False)


def _as_module(function: Any) -> torch.nn.Module:
    """A module that calls the function, under the names of its parameters. (PyTorch notes lines of Python below a
    frame called `forward` only.)"""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    with suppress(ValueError):  # functions of C, such as torch.add, have no signature
        own = inspect.signature(function)
        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        parameters = [each.replace(kind=_named(each.kind)) for each in own.parameters.values()]
        forward.__signature__ = own.replace(parameters=[itself, *parameters])  # type: ignore[attr-defined]
    return type(getattr(function, "__name__", "function"), (torch.nn.Module,), {"forward": forward})()


def _named(kind: Any) -> Any:
    return inspect.Parameter.POSITIONAL_OR_KEYWORD if kind is inspect.Parameter.POSITIONAL_ONLY else kind


@contextmanager
def refused_by_torch(step: str) -> Iterator[None]:
    """Whatever PyTorch raises, it refuses this program, and says why."""
    try:
        yield
    except Exception as error:
        raise fail("torch.export", f"PyTorch cannot {step} this program: {type(error).__name__}",
                   notes=[line for line in str(error).splitlines() if line.strip()][:12]) from error


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program in the operations that the importer reads, as far as PyTorch knows how."""
    table = torch.export.default_decompositions()
    for target in list(table.keys()):
        if TABLE.find(target) is not None:
            del table[target]
    with refused_by_torch("decompose"), quiet(), unlogged():
        return program.run_decompositions(table)


@contextmanager
def quiet() -> Iterator[None]:
    """PyTorch warns of what it deprecates in itself, which no user of irc can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)  # of its own RNNs
        yield


@contextmanager
def unlogged() -> Iterator[None]:
    """PyTorch also logs what it raises, with names from the program as they are: a terminal must not see them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def names_of_symbols(program: ExportedProgram, dynamic_shapes: Any) -> dict[str, str]:
    """What the person who gave `dynamic_shapes` calls each symbol of torch's: {"s44": "batch"}."""
    if dynamic_shapes is None:
        return {}
    names: dict[str, str] = {}
    described, _ = torch.utils._pytree.tree_flatten(dynamic_shapes, is_leaf=_is_shape)
    examples = [node.meta["val"] for node in _user_inputs(program)]
    for shape, example in zip(described, examples, strict=False):
        if shape is None or not isinstance(example, torch.Tensor):
            continue
        entries = shape.items() if isinstance(shape, Mapping) else enumerate(shape)
        for axis, dim in entries:
            root = getattr(dim, "root", dim)  # of 2*half it is half
            name = getattr(root, "__name__", root if isinstance(root, str) else None)
            size = example.shape[axis]
            if name and name.isidentifier() and isinstance(size, torch.SymInt):
                symbols = size.node.expr.free_symbols
                names |= {str(symbol): name for symbol in symbols if len(symbols) == 1 and str(symbol) not in names}
    return names if len(set(names.values())) == len(names) else {}


def _user_inputs(program: ExportedProgram) -> list[torch.fx.Node]:
    wanted = set(program.graph_signature.user_inputs)
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]


def _is_shape(node: Any) -> bool:
    """Whether a node of `dynamic_shapes` describes one tensor: axes, not a container of inputs."""
    if node is None:
        return True
    if isinstance(node, Mapping):
        return bool(node) and all(isinstance(axis, int) for axis in node)
    return isinstance(node, (tuple, list)) and not any(isinstance(each, (dict, tuple, list)) for each in node)
