"""Guards: conditions on the sizes of inputs under which PyTorch has exported a program.

Where Python branches on sizes, or a view needs one to divide another, the program is exported as it is for the example
inputs, with a guard beside it as a text of Python: `L['x'].size()[0]*L['x'].size()[1] > 20`. Each becomes an assertion.
The texts may come from a file: they are read by a small grammar, and Python never evaluates them.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from irc.diagnostics import UnsupportedError
from irc.dims import DimError
from irc.frontends.torch.parameters import Parameters
from irc.frontends.torch.reading import unsupported
from irc.frontends.torch.symbolic import PYTHON
from irc.user_code import warn_caller

KEPT_APART = "guards_of_archive"  # an attribute of programs whose guards PyTorch must not see
LONGEST = 10_000  # characters of a guard
OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Div: operator.truediv, ast.USub: operator.neg, ast.Not: torch.sym_not,
    ast.And: operator.and_, ast.Or: operator.or_, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt,
    ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Pow: operator.pow, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
}  # fmt: skip
FUNCTIONS = {  # PyTorch 2.15 writes torch.sym_max for max
    "max": torch.sym_max, "min": torch.sym_min, "torch.sym_max": torch.sym_max, "torch.sym_min": torch.sym_min,
    "torch.sym_float": torch.sym_float, "abs": operator.abs, "math.floor": math.floor,
    "math.ceil": math.ceil, "math.trunc": math.trunc, "round": round, "torch._sym_sqrt": torch._sym_sqrt,
}  # fmt: skip
Sizes = Callable[[str, int | None], Any]  # an extent of a placeholder by its axis, or the number that it is


@dataclass(frozen=True)
class Guards:
    """The guards of a program, and its placeholders by what its caller knows them by: `past['k']`."""

    texts: Sequence[str] = ()
    placeholders: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Parameters, program: ExportedProgram) -> Guards:
        """Those of an exported program with such parameters."""
        texts = getattr(program, KEPT_APART, program._guards_code)
        if not texts:
            return cls()
        specs = [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
        labels = [ast.unparse(ast.parse(label)) for label in parameters.labels]
        names = {label: spec.arg.name for label, spec in zip(labels, specs, strict=True)}
        return cls(list(dict.fromkeys(texts)), names)

    def conditions(self, sizes: Sizes) -> list[tuple[Any, str]]:
        """For each guard whether it holds, True, False or a value that a run computes, and what it says in words. Warns
        of guards that are not understood."""
        read = []
        for text in self.texts:
            try:
                tree = parsed(text)
                read.append((self._value(tree, sizes), _in_words(tree)))
            except (UnsupportedError, DimError, RecursionError):
                warn_caller(f"PyTorch exported this program under a condition that irc does not check: {text:.200}")
        return read

    def _value(self, node: ast.expr, sizes: Sizes) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float()):
                return node.value
            case ast.UnaryOp(op=kind, operand=operand):
                return _applied(kind, self._value(operand, sizes))
            case ast.BinOp(op=kind):
                return _applied(kind, self._value(node.left, sizes), self._value(node.right, sizes))
            case ast.BoolOp(op=kind):
                return reduce(lambda a, b: _applied(kind, a, b), [self._value(each, sizes) for each in node.values])
            case ast.Compare(left=left, ops=kinds, comparators=others):
                values = [self._value(each, sizes) for each in (left, *others)]
                parts = map(_applied, kinds, values, values[1:])
                return reduce(lambda a, b: _applied(ast.And(), a, b), parts)
            case ast.Call(func=function, args=[*operands], keywords=[]) if ast.unparse(function) in FUNCTIONS:
                row = PYTHON[FUNCTIONS[ast.unparse(function)]]
                values = [self._value(each, sizes) for each in operands]
                return reduce(row, values) if len(values) > 1 else row(*values)
            case ast.Subscript(value=ast.Call(func=ast.Attribute(value=path, attr="size"), args=[], keywords=[]),
                               slice=ast.Constant(value=int(axis))):  # fmt: skip
                return sizes(self._placeholder(path), axis)
        return sizes(self._placeholder(node), None)

    def _placeholder(self, path: ast.expr) -> str:
        name = _in_words(path)
        if name not in self.placeholders:
            unsupported(f"{name} is no size")
        return self.placeholders[name]


def parsed(text: str) -> ast.expr:
    """The expression of a guard; raises UnsupportedError for what is none."""
    try:
        if len(text) <= LONGEST:
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError):
        pass
    unsupported("it is no condition")


def _applied(kind: ast.AST, *operands: Any) -> Any:
    if type(kind) not in OPERATORS:
        unsupported(f"{type(kind).__name__} of sizes")
    return PYTHON[OPERATORS[type(kind)]](*operands)


def _in_words(node: ast.expr) -> str:
    """An expression as the program's author writes it."""
    text = re.sub(r"\bL\['(\w+)'\]", r"\1", ast.unparse(node)).replace(".size()[", ".shape[")
    return text.replace("torch.sym_m", "m")
