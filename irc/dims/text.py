"""Dims as text, and back."""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
import re
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

from irc.dims.expression import (
    DIVISIONS,
    LIMIT,
    Atom,
    Derived,
    Dim,
    DimError,
    Function,
    Indirect,
    Symbol,
    Variable,
    build_at_length,
    collect,
    derived,
    sole_atom,
    terms_of,
    total,
)
from irc.dims.functions import CONSTRUCTORS, floor_divide, modulo

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TOKEN = re.compile(rf"""[0-9]+|{_NAME.pattern}|\$[A-Za-z0-9_]+|"[^"\\]*(?:\\.[^"\\]*)*"|//|\S""")
_MULTIPLICATIVE: dict[str, Callable[..., Dim]] = {"*": operator.mul, "//": floor_divide, "%": modulo}
_DEEPEST = 2 * LIMIT  # brackets in brackets; an expression within the limit has fewer
_NO_DEFINITIONS: Mapping[str, Dim] = MappingProxyType({})
LONGEST_NUMBER = 4096  # bits of a product


def format_dim(d: Dim) -> str:
    """The text of a dim, which `parse_dim` reads back (but for indirects, which only the reader sees)."""
    text = ""
    for monomial, coefficient in terms_of(d) or [((), 0)]:
        sign = "-" if coefficient < 0 else "+"
        factors = [atom for atom, power in monomial for _ in range(power)]
        number = [str(abs(coefficient))] if abs(coefficient) != 1 or not factors else []
        loose = len(number) + len(factors) == 1 and (text or sign == "+")  # unary minus binds tighter than //
        term = "*".join(number + [_format_atom(atom, brackets=not loose) for atom in factors])
        text = f"{text} {sign} {term}" if text else term if sign == "+" else f"-{term}"
    return text


def digest(definition: Dim) -> str:
    """The name of a derived symbol: of its definition's text, so that it is the same in every process."""
    text = format_dim(definition).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=5).hexdigest()


def _format_atom(atom: Atom, brackets: bool) -> str:
    if isinstance(atom, Indirect):
        return f"indirect({atom.node})"
    if isinstance(atom, Derived):
        return f"${atom.name}"
    if not isinstance(atom, Function):
        plain = _NAME.fullmatch(atom.name) and atom.name not in CONSTRUCTORS
        return atom.name if plain else json.dumps(atom.name, ensure_ascii=not atom.name.isprintable())
    if atom.kind not in DIVISIONS:
        return f"{atom.kind}({', '.join(map(format_dim, atom.args))})"
    left, right = map(_format_operand, atom.args)
    text = f"{left}//{right}" if atom.kind == "//" else f"{left} % {right}"
    return f"({text})" if brackets else text


def _format_operand(d: Dim) -> str:
    atom = sole_atom(d)
    simple = d >= 0 if isinstance(d, int) else atom is not None and atom.kind not in DIVISIONS
    return format_dim(d) if simple else f"({format_dim(d)})"


def parse_dim(
    text: str, lookup: Callable[[str], Symbol | Variable], definitions: Mapping[str, Dim] = _NO_DEFINITIONS
) -> Dim:
    """Read a dim; `lookup` gives the symbol of a name, or a KeyError, and `definitions` has the derived symbols. A
    DimError says what is wrong with the text."""
    parser = _Parser(text, lookup, definitions)
    result = parser.expression()
    parser.take("")
    return result


def parse_definition(
    text: str, lookup: Callable[[str], Symbol | Variable], definitions: Mapping[str, Dim] = _NO_DEFINITIONS
) -> Dim:
    """Read what a derived symbol stands for, and give the symbol."""
    parser = _Parser(text, lookup, definitions)
    addends = parser.addends()
    parser.take("")
    return derived(build_at_length(collect(itertools.chain(*map(terms_of, addends)))))


class _Parser:
    """Recursive descent: each method reads from the front of the tokens, of which the last one is empty."""

    def __init__(
        self, text: str, lookup: Callable[[str], Symbol | Variable], definitions: Mapping[str, Dim]
    ) -> None:
        self.tokens = deque([*_TOKEN.findall(text), ""])
        self.lookup = lookup
        self.definitions = definitions
        self.depth = 0

    def take(self, expected: str) -> None:
        token = self.tokens.popleft()
        if token != expected:
            raise DimError(f"expected {expected or 'an operator'}, found {token or 'the end'}")

    def expression(self) -> Dim:
        return total(self.addends())

    def addends(self) -> list[Dim]:
        """What `+` and `-` join: a sum is taken at once, so that no part of it becomes a derived symbol."""
        terms = [self.factors()]
        while self.tokens[0] in ("+", "-"):
            sign = 1 if self.tokens.popleft() == "+" else -1
            terms.append(sign * self.factors())
        return terms

    def factors(self) -> Dim:
        result = self.operand()
        while self.tokens[0] in _MULTIPLICATIVE:
            sign, right = self.tokens.popleft(), self.operand()
            if sign == "*":
                _check_product(result, right)
            result = _MULTIPLICATIVE[sign](result, right)
        return result

    def operand(self) -> Dim:
        token = self.tokens.popleft()
        self.depth += 1
        if self.depth > _DEEPEST:
            raise DimError("nested too deeply")
        if token == "-":
            result = -self.operand()
        elif token == "(":
            result = self.expression()
            self.take(")")
        elif token in ("min", "max", "bcast"):
            self.take("(")
            args = [self.expression()]
            while self.tokens[0] == ",":
                self.take(",")
                args.append(self.expression())
            self.take(")")
            result = CONSTRUCTORS[token](*args)
        elif token.isdecimal():
            result = int(token)
        elif token[0:1] == "$" and token != "$":
            result = self.derived(token[1:])
        elif _NAME.fullmatch(token) or token[1:].endswith('"'):
            result = self.symbol(token)
        else:
            raise DimError(f"expected a dim, found {token or 'the end'}")
        self.depth -= 1
        return result

    def derived(self, name: str) -> Dim:
        if name not in self.definitions:
            raise DimError(f"no derived symbol ${name} is defined above")
        return self.definitions[name]

    def symbol(self, token: str) -> Dim:
        try:
            return self.lookup(json.loads(token) if token[0] == '"' else token).expr
        except KeyError:
            raise DimError(f"no symbol is named {token}") from None
        except ValueError as error:  # a bad escape
            raise DimError(str(error)) from None


def _check_product(left: Dim, right: Dim) -> None:
    """Raise for numbers that no size is near: products of long ones take long."""
    bits = sum(max((abs(count).bit_length() for _, count in terms_of(each)), default=0) for each in (left, right))
    if bits > LONGEST_NUMBER:
        raise DimError(f"a product of more than {LONGEST_NUMBER} bits")
