"""Branches of a program's Python on sizes that PyTorch decides by an assumption: that dynamic dims are 2 or more.

Of B in [0, 64] `if B == 1` is false while PyTorch exports, and no guard says so: the other branch would be taken for a
size of 1 too. What a program compares is noted here, so that the sizes that would take another branch are excluded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols, statically_known_true

from irc.user_code import BETWEEN, is_code_of

NUMBERS = (torch.SymInt, torch.SymFloat)
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "__eq__": sympy.Eq, "__ne__": sympy.Ne, "__lt__": sympy.Lt, "__le__": sympy.Le, "__gt__": sympy.Gt,
    "__ge__": sympy.Ge,
}  # fmt: skip
# Packages whose branches on small sizes are not noted: PyTorch's are meant to be taken so, and those of transformers
# choose between ways to compute the same (`is_causal` of a single query).
LIBRARIES = (*BETWEEN, "transformers")


@dataclass(frozen=True)
class Branch:
    """A comparison of two sizes, numbers or expressions of symbols, and what PyTorch takes it for."""

    compare: Callable[[Any, Any], Any]
    operands: tuple[Any, Any]
    answer: bool

    @property
    def symbols(self) -> set[Any]:
        return {symbol for each in self.operands for symbol in getattr(each, "free_symbols", ())}

    def excludes(self, symbol: Any, number: int) -> bool:
        """Whether the other branch is taken, or may be, where a symbol is this number."""
        left, right = (sympy.sympify(each).subs(symbol, number) for each in self.operands)
        return bool(self.compare(left, right) != self.answer)  # a relation that is not decided is neither


@contextmanager
def noted_branches() -> Iterator[list[Branch]]:
    """The comparisons of sizes that decide branches inside, other than those of libraries, which PyTorch decides
    without a guard."""
    branches: list[Branch] = []
    before = {(kind, name): getattr(kind, name) for kind in NUMBERS for name in COMPARISONS}
    evaluate = torch.SymBool.__bool__

    def comparing(kind: type, name: str) -> Callable[[Any, Any], Any]:
        def compare(one: Any, other: Any) -> Any:
            result = before[kind, name](one, other)
            if isinstance(result, torch.SymBool):
                result.compared = COMPARISONS[name], (_expression(one), _expression(other))
            return result

        return compare

    def decide(condition: Any) -> bool:
        compared: Any = getattr(condition, "compared", None)
        is_assumed = compared is not None and not _is_of_library() and _is_known(condition)
        answer = evaluate(condition)
        if is_assumed and not any(map(free_unbacked_symbols, compared[1])):
            branches.append(Branch(compared[0], compared[1], answer))
        return answer

    try:
        for kind, name in before:
            setattr(kind, name, comparing(kind, name))
        torch.SymBool.__bool__ = decide
        yield branches
    finally:
        for (kind, name), method in before.items():
            setattr(kind, name, method)
        torch.SymBool.__bool__ = evaluate


def least_sizes(branches: Sequence[Branch], ranges: Mapping[Any, Any]) -> dict[Any, int]:
    """The symbols of whose sizes 0 and 1, where their ranges have them, one takes another branch, with the least size
    from which on none does."""
    least: dict[Any, int] = {}
    for branch in set(branches):
        for symbol in branch.symbols:
            for number in (0, 1):
                if (symbol not in ranges or number in ranges[symbol]) and branch.excludes(symbol, number):
                    least[symbol] = max(least.get(symbol, 0), number + 1)
    return least


def _expression(size: Any) -> Any:
    return size.node.expr if isinstance(size, NUMBERS) else size


def _is_known(condition: Any) -> bool:
    """Whether PyTorch decides a condition without the example's sizes, and so states no guard."""
    return statically_known_true(condition) or statically_known_true(torch.sym_not(condition))


def _is_of_library() -> bool:
    """Whether a library evaluates the condition; `if size` is a comparison by PyTorch for its caller."""
    of_sizes: CodeType = torch.SymInt.__bool__.__code__
    frame = sys._getframe(2)
    while frame.f_code is of_sizes and frame.f_back is not None:
        frame = frame.f_back
    return is_code_of(frame, LIBRARIES)
