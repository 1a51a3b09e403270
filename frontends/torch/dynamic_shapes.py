"""What `dynamic_shapes` says of each argument: in full for torch.export, and as names of symbols.

irc takes what torch.export takes, and more: arguments may be left out, arguments that `**kwargs` collects may be named
beside the others, and a dim may be given by its name alone, whose range is then as wide as the program allows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from irc.diagnostics import IrcError, fail
from irc.frontends.torch.parameters import DICTIONARIES, Parameters, Slot, children_of

FIXES = 8  # how often ranges are narrowed: each export may find further ones


class DynamicShapes:
    """`dynamic_shapes` of a user for a program with such parameters; `full` is what torch.export takes.

    Raises `usage.value` for names of arguments that there are not.
    """

    def __init__(self, parameters: Parameters, given: Any) -> None:
        self.parameters = parameters
        self.named: dict[str, Any] = {}  # the dims that are given by their names alone
        self.given = self._by_parameter(given) if isinstance(given, Mapping) else given
        self.full = self._full() if isinstance(given, Mapping) else pytree.tree_map(self._dim, given)

    def _by_parameter(self, given: Mapping[Any, Any]) -> dict[Any, Any]:
        """What is given for arguments that `**kwargs` collects goes under the name of that parameter."""
        collected = {slot.part: slot.parameter for slot in self.parameters.slots if isinstance(slot.part, str)}
        result = dict(given)
        for name in given:
            if name in collected and name not in self.parameters.signature.parameters:
                inner = dict(result.get(collected[name]) or {})
                inner[name] = result.pop(name)
                result[collected[name]] = inner
        known = {slot.parameter for slot in self.parameters.slots}
        for name in result:
            if name not in known:
                raise fail("usage.value", f"dynamic_shapes has the argument `{name}`",
                           expected=", ".join(slot.label for slot in self.parameters.slots),
                           help="give it among the example inputs, or leave it out")  # fmt: skip
        return result

    def _full(self) -> dict[str, Any]:
        """The shapes of all arguments by parameter, as torch.export requires. Arguments that `**kwargs` collects are
        parameters of their own: see `exporting`."""
        full: dict[str, Any] = {}
        for slot, shape in self._slots():
            filled = self._filled(shape, slot.structure)
            if isinstance(slot.part, int):
                full[slot.parameter] = (*full.get(slot.parameter, ()), filled)
            else:
                full[slot.part or slot.parameter] = filled
        return full

    def _slots(self) -> Iterator[tuple[Slot, Any]]:
        """Each argument of the example inputs, with what is given for it."""
        order = list(dict.fromkeys(slot.parameter for slot in self.parameters.slots))
        for slot in self.parameters.slots:
            shape = part_of(self.given, slot.parameter, order.index(slot.parameter))
            yield slot, shape if slot.part is None else part_of(shape, slot.part, slot.part)

    def _filled(self, shape: Any, structure: pytree.TreeSpec) -> Any:
        """A part of `dynamic_shapes`, with None for what it leaves out and dims for names."""
        if shape is None or structure.is_leaf():
            return self._dims(shape)
        filled = {key: self._filled(inner, part) for key, inner, part in _parts(shape, structure)}
        if structure.type in DICTIONARIES:
            return filled
        return tuple(filled.values()) if structure.type is tuple else list(filled.values())

    def _dims(self, shape: Any) -> Any:
        if isinstance(shape, str):
            return self._dim(shape)
        if isinstance(shape, Mapping):
            return {axis: self._dim(dim) for axis, dim in shape.items()}
        return type(shape)(map(self._dim, shape)) if type(shape) in (tuple, list) else shape

    def _dim(self, dim: Any) -> Any:
        if not isinstance(dim, str):
            return dim
        if not dim.isidentifier():
            raise fail("usage.value", f"dynamic_shapes has a dim with the name {dim!r}",
                       expected="a name such as batch")  # fmt: skip
        return self.named.setdefault(dim, Dim(dim))

    def export(self, export: Callable[[Any], ExportedProgram]) -> ExportedProgram:
        """The program that `export` gives for the shapes; `export` raises IrcError from an exception of PyTorch. Where
        the program does not allow all sizes of a dim that is given by its name alone, its range becomes what PyTorch
        says that the program allows; where PyTorch cannot say that, dims of one name are the same only where the
        program requires it."""
        for _ in range(FIXES):
            try:
                return export(self.full)
            except IrcError as error:
                if not self.named or not violates_constraints(error.__cause__):
                    raise
                self._apply(ranges_in(str(error.__cause__)))
        return export(self.full)

    def _apply(self, fixes: Mapping[str, Mapping[str, int] | None]) -> None:
        """Give dims that are given by their names alone the ranges that PyTorch suggests; where it suggests none, each
        becomes `Dim.DYNAMIC`."""
        if fixes and all(bounds is not None and name in self.named for name, bounds in fixes.items()):
            new = {self.named[name]: Dim(name, **bounds) for name, bounds in fixes.items() if bounds}
            self.named.update({dim.__name__: dim for dim in new.values()})
        else:
            new = {dim: Dim.DYNAMIC for dim in self.named.values()}
            self.named.clear()
        self.full = pytree.tree_map(lambda leaf: new.get(leaf, leaf) if isinstance(leaf, Dim) else leaf, self.full)

    def names_of_symbols(self, program: ExportedProgram) -> dict[str, str]:
        """The user's name for each symbol of torch: {"s44": "batch"}."""
        names: dict[str, str] = {}
        nodes = {node.name: node for node in program.graph.nodes}
        specs = [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
        for spec, shape in zip(specs, self._shapes_of_leaves(), strict=True):
            example = nodes[spec.arg.name].meta["val"] if spec.arg.name in nodes else None
            if isinstance(example, torch.SymInt):
                sizes = [(shape, example)]
            elif isinstance(example, torch.Tensor) and isinstance(shape, (Mapping, tuple, list)):
                entries = shape.items() if isinstance(shape, Mapping) else enumerate(shape)
                sizes = [(dim, example.shape[axis]) for axis, dim in entries]
            else:
                continue
            for dim, size in sizes:
                root = getattr(dim, "root", dim)  # of 2*half it is half
                name = getattr(root, "__name__", root if isinstance(root, str) else None)
                if name and name.isidentifier() and isinstance(size, torch.SymInt):
                    symbols = {str(symbol) for symbol in size.node.expr.free_symbols}
                    if len(symbols) == 1 and name not in names.values():
                        names = {**dict.fromkeys(symbols, name), **names}
        return names

    def _shapes_of_leaves(self) -> list[Any]:
        """What is given for each leaf of the example inputs; None where that is nothing."""
        shapes: list[Any] = []
        for slot, shape in self._slots():
            _collect_shapes(shape, slot.structure, shapes)
        return shapes


def violates_constraints(error: BaseException | None) -> bool:
    """Whether PyTorch says in an exception that a program does not allow all sizes that it is exported for."""
    return "Constraints violated" in str(error)


def ranges_in(message: str) -> dict[str, dict[str, int] | None]:
    """The ranges of dims that PyTorch suggests in the message of an error, by name: {"S": {"max": 64}}. None for a
    suggestion that is no range."""
    _, _, suggested = message.partition("Suggested fixes:")
    suggestions = re.findall(r"^ *(\w+) = (.+)$", suggested, re.MULTILINE)
    ranges: dict[str, dict[str, int] | None] = {}
    for name, text in suggestions:
        bounds = re.findall(r"\b(min|max)=(\d+)", text)
        ranges[name] = {key: int(number) for key, number in bounds} if bounds and text.startswith("Dim(") else None
    return ranges


def _collect_shapes(shape: Any, structure: pytree.TreeSpec, shapes: list[Any]) -> None:
    if structure.is_leaf():
        shapes.append(shape)
        return
    for _, inner, part in _parts(shape, structure):
        _collect_shapes(inner, part, shapes)


def _parts(shape: Any, structure: pytree.TreeSpec) -> Iterator[tuple[Any, Any, pytree.TreeSpec]]:
    """The parts of a container: key or position, what is given of each, and its structure."""
    keys = structure.context[1] if structure.type is defaultdict else structure.context
    for index, part in enumerate(children_of(structure)):
        key = keys[index] if structure.type in DICTIONARIES else index
        yield key, part_of(shape, key, index), part


def part_of(shapes: Any, key: Any, index: Any) -> Any:
    """The part of a container of shapes by its key, or by its position; None where there is none."""
    if isinstance(shapes, Mapping):
        return shapes.get(key)
    is_there = isinstance(shapes, (tuple, list)) and isinstance(index, int) and index < len(shapes)
    return shapes[index] if is_there else None
