"""Modules: functions by name, with what belongs to a model as a whole. Read `irc.ir` first, which defines functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from irc import displays
from irc.cloning import cloned
from irc.diagnostics import fail
from irc.equality import Part, first_difference, parts
from irc.ir import Function, Operation
from irc.metadata import Metadata
from irc.printer import print_module

EdgeCases = Literal["defined", "onnx"]


class Module:
    """Functions by name; the first is the entry unless one is called `main`.

    `source` and `source_digest` name the file that holds the data of named constants, where there is one. `metadata` is
    that of the model from which it was read (`irc.metadata`).

    `edge_cases` states which results backends must give at the edges of operations (NaN in a maximum, an integer
    divided by 0): "defined", those of `irc.ops.edge_cases`; "onnx", those of ONNX, any result where ONNX defines none.
    """

    def __init__(self, name: str = "module", functions: Iterable[Function] = (),
                 edge_cases: EdgeCases = "defined") -> None:  # fmt: skip
        self.name = name
        self.edge_cases: EdgeCases = edge_cases
        self.functions: dict[str, Function] = {}
        self.source: str | None = None
        self.source_digest: str | None = None
        self.metadata: Metadata = {}
        for function in functions:
            self.add(function)

    def add(self, function: Function) -> Function:
        if function.name in self.functions:
            raise fail("verify.names", f"the module already has a function @{function.name}")
        self.functions[function.name] = function
        return function

    @property
    def main(self) -> Function:
        """The entry: `@main`, or else the first function."""
        if not self.functions:
            raise fail("verify.return", f"module @{self.name} has no function")
        return self.functions.get("main") or next(iter(self.functions.values()))

    def walk(self) -> Iterator[Operation]:
        for function in self.functions.values():
            yield from function.walk()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the distinct constants, and of defaults."""
        constants = {operation.attributes["value"] for operation in self.walk() if operation.name == "const"}
        defaults = {tensor for function in self.functions.values() for tensor in function.defaults.values()}
        return sum(tensor.nbytes for tensor in constants | defaults)

    def clone(self, sizes: Mapping[str, int] | None = None) -> Module:
        """A deep copy: operations and symbols are new, constant data is shared.

        Symbols of the entry's signature that `sizes` names become these integers.
        """
        copy = Module(self.name, edge_cases=self.edge_cases)
        copy.source, copy.source_digest = self.source, self.source_digest
        copy.metadata = dict(self.metadata)
        for function in self.functions.values():
            copy.add(cloned(function, sizes if sizes and function is self.main else {}))
        return copy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Module) and difference(self, other) is None

    __hash__ = None  # type: ignore[assignment]  # mutable: equality is by structure

    def __repr__(self) -> str:
        """The module in one line: the signature of its entry, and how many operations it has."""
        if not self.functions:
            return f"<irc.Module {self.name} without functions>"
        signature = ", ".join(f"%{argument.name}: {argument.type}" for argument in self.main.arguments[:4])
        more = ", ..." if len(self.main.arguments) > 4 else ""
        count = sum(1 for _ in self.walk())
        return f"<irc.Module {self.name}: @{self.main.name}({signature}{more}), {count} operations>"

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the page of `irc view` in a frame, or None where `__repr__` has to suffice."""
        return None if displays.page_of is None else displays.page_of(self)

    def __str__(self) -> str:
        """The text that `irc.parser` reads back as an equal module."""
        edge_cases = None if self.edge_cases == "defined" else self.edge_cases
        header = {"weights": self.source, "sha256": self.source_digest, "edge_cases": edge_cases}
        return print_module(self.name, header, self.functions.values(), self.metadata)


def difference(a: Module, b: Module) -> str | None:
    """The first place in which two modules differ, in words, or None when they are equal.

    Equal means: same functions, signatures, names, operations, attributes, constants, locations and metadata; symbols
    correspond by name.
    """
    return first_difference(_parts(a), _parts(b))


def _parts(module: Module) -> Iterator[Part]:
    header = module.name, module.source, module.source_digest, module.edge_cases
    yield module.name, (*header, tuple(module.functions), module.metadata)
    for function in module.functions.values():
        yield from parts(function)
