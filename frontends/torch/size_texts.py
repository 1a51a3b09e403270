"""Sizes in `.pt2` files: texts that SymPy reads by Python's `eval`, looked at before.

They must be arithmetic of plain names and numbers, and what they compute must be small: `9**9**9` would take for ever.
"""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from irc.limits import check_limit

SYMPY_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.keyword, ast.Name, ast.Load,
    ast.Constant, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
SYMPY_CALLS = frozenset(
    "Symbol Integer Float Rational Add Mul Pow Equality Unequality StrictLessThan LessThan StrictGreaterThan "
    "GreaterThan FloorDiv ModularIndexing Where PythonMod Mod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift "
    "PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat Identity "
    "Max Min IsNonOverlappingAndDenseIndicator Eq Ne Lt Le Gt Ge And Or Not Piecewise".split()
)
TEXT = re.compile(r"\w+|[-+.\de]+")  # of Symbol('s77') and Float('1.5')
LONGEST_TEXT, LONGEST_NUMBER = 100_000, 40  # characters
NATURAL = 63  # bits of a symbol's size
TOO_MANY = 1 << 80


def is_arithmetic(text: Any) -> bool:
    """Whether a text is arithmetic of plain names and numbers; raises `limit.exceeded` where it is too large."""
    if len(str(text)) > LONGEST_TEXT:
        return False
    try:
        tree = ast.parse(str(text), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if not all(map(_is_plain, ast.walk(tree))):
        return False
    check_limit("size", max(_measure(tree.body)), f"the size {str(text)[:80]!r} takes up to {{}}")
    return True


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in SYMPY_CALLS
    if isinstance(node, ast.Name):
        return not node.id.startswith("_")
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # of Symbol('s77') and Float('1.5')
            number = re.match(r"[-+.\d]", node.value) is not None
            return TEXT.fullmatch(node.value) is not None and not (number and not _is_short_number(node.value))
        return isinstance(node.value, (int, float, bool)) and math.isfinite(node.value)
    return isinstance(node, SYMPY_NODES)


def _is_short_number(text: str) -> bool:
    try:
        return len(text) <= LONGEST_NUMBER and math.isfinite(float(text))
    except ValueError:
        return False


def _measure(node: ast.AST) -> tuple[int, int]:
    """Bits of the largest number that an expression may come to, and terms that it has when it is multiplied out."""
    if isinstance(node, ast.Constant):
        is_number = isinstance(node.value, (int, float))
        return (max(1, int(abs(node.value)).bit_length()) if is_number else NATURAL), 1  # type: ignore[arg-type]
    if isinstance(node, ast.BinOp):
        return _combined(type(node.op).__name__, [node.left, node.right])
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        if any(not isinstance(each.value, ast.Constant) or _measure(each.value)[0] > 10 for each in node.keywords):
            return TOO_MANY, 1  # the precision of a float, say
        return _combined(node.func.id, node.args)
    return _combined("", [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)])


def _combined(operation: str, operands: list[ast.expr]) -> tuple[int, int]:
    """The measure of an operation; of those that are not listed, that of a sum."""
    parts = [_measure(operand) for operand in operands]
    if not parts:
        return NATURAL, 1
    if operation in ("Mult", "Mul"):
        return sum(bits for bits, _ in parts), min(math.prod(terms for _, terms in parts), TOO_MANY)
    (bits, terms), last = parts[0], operands[-1]
    if operation in ("Pow", "PowByNatural", "FloatPow", "LShift"):
        known = isinstance(last, ast.Constant) and isinstance(last.value, int) and last.value < TOO_MANY
        count = abs(last.value) if known else 1 << min(parts[-1][0], 80)  # type: ignore[attr-defined]
        if operation == "LShift":
            return bits + count, terms
        return bits * count, min(terms ** min(count, 80), TOO_MANY)
    return max(bits for bits, _ in parts) + len(parts) // 2, sum(terms for _, terms in parts)
