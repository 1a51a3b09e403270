"""Python text of expressions: operators with as few parentheses as needed, dims and indices in Horner form."""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from irc import dims
from irc.diagnostics import printable
from irc.dims import Atom, Dim, Expr, Function, Indirect, Symbol, Variable
from irc.dtypes import DType, single

COMPARE, OR, XOR, AND, SHIFT, SUM, PRODUCT, UNARY, ATOM = range(9)

LARGEST_INDEX = 2**31 - 1
DIVISIBILITY = 16  # the multiples of it are what Triton compiles kernels separately for

SMALLEST_NORMAL, LARGEST_SHORT = 2.0**-126, 3.4028234e38  # of f32

TYPES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32",
    "i16": "int16", "i8": "int8", "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8", "bool": "int1",
    "f8e4m3fn": "float8e4nv", "f8e5m2": "float8e5", "f8e4m3fnuz": "float8e4b8", "f8e5m2fnuz": "float8e5b16",
}  # fmt: skip
RESERVED = frozenset(
    {*keyword.kwlist, "tl", "triton", "m", "n", "i", "range", "float", "int", "bool", "min", "max", "abs", "sum",
     "round", "pow", "print", "len", "start", "constexpr", "torch", "kernels", "weights", "launch", "host", "blocks",
     "ROWS", "COLUMNS"}
)  # fmt: skip


@dataclass(frozen=True)
class Code:
    """An expression and the precedence of its outermost operator."""

    text: str
    level: int = ATOM

    def at(self, level: int) -> str:
        """The text as an operand that must bind at least as tightly as `level`."""
        return self.text if self.level >= level else f"({self.text})"


def binary(operator: str, level: int, left: Code, right: Code) -> Code:
    """`left operator right`; comparisons do not chain, and the right side of the others binds more tightly."""
    associative = operator in ("+", "*", "&", "|", "^")
    same = right.level == level and associative and not set("-/%") & set(right.text) and operator != "*"
    left_text = left.at(level + 1) if level == COMPARE else left.at(level)
    return Code(f"{left_text} {operator} {right.text if same else right.at(level + 1)}", level)


def call(function: str, *arguments: Code | str) -> Code:
    parts = [argument if isinstance(argument, str) else argument.text for argument in arguments]
    return Code(f"{function}({', '.join(parts)})")


def method(value: Code, name: str, *arguments: str) -> Code:
    return Code(f"{value.at(ATOM)}.{name}({', '.join(arguments)})")


def type_name(dtype: DType) -> str:
    return f"tl.{TYPES[dtype.name]}"


def number(value: object, dtype: DType) -> Code:
    """A literal: the shortest text that reads back as the same number."""
    if dtype.is_float:
        real = float(str(value))
        if math.isnan(real):
            return Code('float("nan")')
        if math.isinf(real):
            return Code('float("inf")' if real > 0 else 'float("-inf")')
        if real == 0 and math.copysign(1, real) < 0:  # Triton makes 0 of a literal -0.0
            bits = f"tl.full((), {-(1 << (dtype.bits - 1))}, tl.int{dtype.bits})"
            return Code(f"{bits}.to({type_name(dtype)}, bitcast=True)")
        if dtype.name == "f64" and real != single(real):  # as an argument of a function it would become f32
            return Code(f"tl.full((), {real!r}, tl.float64)")
        if dtype.name != "f64" and 0 < abs(real) < SMALLEST_NORMAL:  # Triton would take it for a float64
            return Code(f"tl.full((), {real!r}, {type_name(dtype)})")
        if dtype.name != "f64" and abs(real) > LARGEST_SHORT:  # the shortest text may lie beyond the largest f32
            real = float(value)  # type: ignore[arg-type]
        text = repr(real)
    elif dtype.name == "bool":
        text = "True" if value else "False"
    else:
        text = str(int(str(value)))
    return Code(text, UNARY if text.startswith("-") else ATOM)


class Names:
    """Identifiers made from names of the source, each given once; those of a loop that has ended (`retired`) again, but
    only to what is defined after it."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.taken = {*RESERVED, *reserved}
        self.retired: set[str] = set()

    def fresh(self, hint: str, fallback: str = "value", *, here: bool = False) -> str:
        """A name; `here` says that it is defined in the next line, rather than at the top of the kernel."""
        stem = identifier(hint) or fallback
        name, count = stem, 0
        while name in self.taken or (name in self.retired and not here):
            count += 1
            name = f"{stem}_{count}"
        self.taken.add(name)
        return name


def identifier(text: str) -> str:
    """`h.0.ln_1` as `h_0_ln_1`, a path by its end (`net/Dense_0/Add:0` is `Dense_0_Add`); empty if it says nothing."""
    path = [part for part in re.split(r"[/;]", text) if part]
    short = re.sub(r"(:0|_output_0)(_\d+)?$", r"\2", "_".join(path[-2:]))
    name = re.sub(r"\W+", "_", short, flags=re.ASCII).strip("_")
    if not name or name.isdecimal():
        return ""
    return f"v{name}" if name[0].isdigit() else name


class Parameters:
    """Run-time dims as arguments of a kernel: symbols, and whatever is made of symbols alone, which the host
    computes, so that the kernel has no products that could overflow.

    Triton learns of an argument only whether 16 divides it. So a size that is a multiple of 4, say, is passed as a
    quarter of it and multiplied again in the kernel: accesses up to such an edge may be 128 bits wide too.
    """

    def __init__(self, names: Names, index_type: str = "") -> None:
        self.names, self.index_type = names, index_type or "tl.int64"
        self.by_dim: dict[Dim, str] = {}

    def code(self, dim: Dim) -> Code:
        if isinstance(dim, int):
            return Code(str(dim), UNARY if dim < 0 else ATOM)
        multiple = dims.multiple_of(dim)
        scale = multiple & -multiple
        if 1 < scale < DIVISIBILITY:
            part = self._argument(dims.floor_divide(dim, scale))
            if dims.bounds(dim)[1] > LARGEST_INDEX:
                part = call("tl.cast", part, self.index_type)
            return binary("*", PRODUCT, part, Code(str(scale)))
        return self._argument(dim)

    def _argument(self, dim: Dim) -> Code:
        if dim not in self.by_dim:
            text = dims.format_dim(dim)
            for sign, word in (("//", "_div_"), ("+", "_plus_"), ("-", "_minus_"), ("%", "_mod_")):
                text = text.replace(sign, word)
            self.by_dim[dim] = self.names.fresh(re.sub(r"\W+", "_", text)[:40], "size")
        return Code(self.by_dim[dim])


class IndexText:
    """Writes index expressions. `atom` gives the text of a variable or a loaded index, `named` a name for a part that
    may be needed again, `helper` notes that a function is used."""

    def __init__(
        self,
        parameters: Parameters,
        atom: Callable[[Variable | Indirect], Code],
        named: Callable[[Function, Code], Code],
        helper: Callable[[str], str],
    ) -> None:
        self.parameters = parameters
        self.atom = atom
        self.named = named
        self.helper = helper

    def code(self, index: Dim) -> Code:
        if isinstance(index, int) or is_size(index):
            return self.parameters.code(index)
        groups: dict[tuple[tuple[Atom, int], ...], Dim] = {}
        for monomial, coefficient in index.terms:
            varying = tuple((atom, power) for atom, power in monomial if not is_size(atom.expr))
            fixed = dims.product([coefficient, *(atom.expr for atom, power in monomial for _ in range(power)
                                                 if is_size(atom.expr))])  # fmt: skip
            groups[varying] = groups.get(varying, 0) + fixed
        constant = groups.pop((), 0)
        if isinstance(constant, int) and constant > 0 and all(map(is_negative, groups.values())):
            terms = [(self._monomial(key), -scale) for key, scale in groups.items()]
            return binary("-", SUM, Code(str(constant)), self._horner(terms))
        return self._offset(self._horner([(self._monomial(key), scale) for key, scale in groups.items()]), constant)

    def _monomial(self, monomial: tuple[tuple[Atom, int], ...]) -> Code:
        factors = [self._atom(atom) for atom, power in monomial for _ in range(power)]
        result = factors[0]
        for factor in factors[1:]:
            result = binary("*", PRODUCT, result, factor)
        return result

    def _atom(self, atom: Atom) -> Code:
        if isinstance(atom, (Variable, Indirect)):
            return self.atom(atom)
        assert isinstance(atom, Function)
        arguments = [self.code(argument) for argument in atom.args]
        if atom.kind in ("min", "max"):
            result = arguments[0]
            for argument in arguments[1:]:
                result = call("tl.minimum" if atom.kind == "min" else "tl.maximum", result, argument)
            return self.named(atom, result)
        if dims.bounds(atom.args[0])[0] < 0:
            return call(self.helper("floor_divide" if atom.kind == "//" else "floor_mod"), *arguments)
        return binary(atom.kind, PRODUCT, arguments[0], arguments[1])

    def _horner(self, terms: list[tuple[Code, Dim]]) -> Code:
        """`(b * S + s) * 64 + k`: the factor that most terms share is taken out."""
        scaled = [scale for _, scale in terms if scale != 1]
        best: tuple[int, Dim] = (1, 0)
        for factor in scaled:
            shared = sum(dims.exact_divide(scale, factor) is not None for scale in scaled)
            if shared > best[0] and factor != -1:
                best = (shared, factor)
        if best[0] > 1:
            inside: list[tuple[Code, Dim]] = []
            outside: list[tuple[Code, Dim]] = []
            for text, scale in terms:
                quotient = dims.exact_divide(scale, best[1]) if scale != 1 else None
                if quotient is None:
                    outside.append((text, scale))
                else:
                    inside.append((text, quotient))
            terms = [(self._horner(inside), best[1]), *outside]
        # Scaled terms first, subtracted ones last: m * 64 + n.
        ordered = sorted(terms, key=lambda term: 2 if is_negative(term[1]) else int(term[1] == 1))
        result: Code | None = None
        for text, scale in ordered:
            sign = "-" if is_negative(scale) and result is not None else "+"
            term = self._scaled(text, -scale if sign == "-" else scale)
            result = term if result is None else binary(sign, SUM, result, term)
        assert result is not None
        return result

    def _scaled(self, text: Code, scale: Dim) -> Code:
        return text if scale == 1 else binary("*", PRODUCT, text, self.parameters.code(scale))

    def _offset(self, text: Code, constant: Dim) -> Code:
        if constant == 0:
            return text
        if isinstance(constant, int) and constant < 0:
            return binary("-", SUM, text, Code(str(-constant)))
        return binary("+", SUM, text, self.parameters.code(constant))


def plain(text: str) -> str:
    """Text of the source that may stand in a docstring: it neither ends it nor escapes what follows."""
    return printable(text.replace("\\", "/").replace('"', "'"))


def quoted(text: str) -> str:
    """The text as a Python string, on one line and printable: names come from foreign files."""
    return printable(json.dumps(text, ensure_ascii=False))


def is_negative(scale: Dim) -> bool:
    return isinstance(scale, int) and scale < 0


def is_size(index: Dim) -> bool:
    """Whether it is made of symbols alone, so that the host knows it."""
    return all(isinstance(atom, Symbol) for atom in dims.free_atoms(index))


def constant_part(index: Dim) -> Dim:
    """The terms of an index that do not vary."""
    if not isinstance(index, Expr):
        return index
    kept: list[Dim] = []
    for monomial, coefficient in index.terms:
        factors = [atom.expr for atom, power in monomial for _ in range(power)]
        if all(map(is_size, factors)):
            kept.append(dims.product([coefficient, *factors]))
    return dims.total(kept)
