"""Complex numbers as two real values, the real and the imaginary part, of which kernels and ONNX have operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from irc import ops
from irc.disjoint_sets import DisjointSets
from irc.dtypes import part_of
from irc.ir import Operation, Value, rename
from irc.module import Module
from irc.op import Builder, const, literal
from irc.ops import aten
from irc.ops.extern import is_call_of_torch
from irc.pass_manager import Pass, PassContext
from irc.passes import _complex_arithmetic as arithmetic
from irc.passes._complex_arithmetic import Parts
from irc.passes._fourier import TRANSFORMS
from irc.types import TensorType
from irc.weights import Tensor

# Operands of a rule: those that are complex by their parts.
Rule = Callable[..., "Parts | Value | list[Parts]"]


@dataclass
class ComplexParts(Pass):
    """Compute complex numbers by their real and imaginary parts, each a value of its own.

    transforms: "torch", whose Fourier transforms PyTorch computes, and so does it what has no rule here; between these
        numbers stay complex where they are only moved. Or "onnx": transforms are the operator DFT, and all that has a
        rule is real.

    Where a complex value is still needed, by what has no rule or as a result of the program, `view_as_complex` makes
    it of its parts, and `view_as_real` gives the parts of an argument: in PyTorch both are views, and an ONNX model has
    pairs there, on a last axis of 2.

    Before: %y = mul %z, %w : c64[N]
    After:  %0 = mul %z_real, %w_real; %1 = mul %z_imag, %w_imag; %y_real = sub %0, %1; ... : f32[N]
    """

    transforms: Literal["torch", "onnx"] = "torch"

    def run(self, module: Module, context: PassContext) -> bool:
        ruled = [(operation, rule) for operation in module.walk() if (rule := self._rule(operation)) is not None]
        if self.transforms == "torch":
            computed = _with_arithmetic([operation for operation, _ in ruled])
            ruled = [(operation, rule) for operation, rule in ruled if operation in computed]
        rewriting = _Rewriting()
        for operation, rule in ruled:
            rewriting.write(operation, rule)
        rewriting.finish()
        context.count("complex_parts", "rewritten", len(ruled))
        return bool(ruled)

    def _rule(self, operation: Operation) -> Rule | None:
        """How an operation that takes or gives complex numbers is written; None of others, and where there is none."""
        if not _is_complex(operation) or operation.block is None:
            return None
        if not all(value.type.is_ranked for value in (*operation.inputs, *operation.results)):
            return None
        if is_call_of_torch(operation):
            op_type = operation.attributes["op_type"]
            transform = TRANSFORMS.get(op_type) if self.transforms == "onnx" else None
            return CALLS.get(op_type) if transform is None else transform
        if operation.attributes.get("reduction", "none") not in ("none", "add"):
            return None
        return RULES.get(operation.name)


def _is_complex(operation: Operation) -> bool:
    return any(value.dtype.is_complex for value in (*operation.inputs, *operation.results))


def _with_arithmetic(operations: Sequence[Operation]) -> set[Operation]:
    """Of operations those that are connected, by complex values, with one that computes: the others only move numbers
    between calls of PyTorch, which views do for nothing."""
    sets = DisjointSets[Value]()
    for operation in operations:
        first, *others = _complex_values(operation)
        for other in others:
            sets.join(first, other)
    computed = {sets.find(_complex_values(operation)[0]) for operation in operations if _computes(operation)}
    return {operation for operation in operations if sets.find(_complex_values(operation)[0]) in computed}


def _complex_values(operation: Operation) -> list[Value]:
    return [value for value in (*operation.inputs, *operation.results) if value.dtype.is_complex]


def _computes(operation: Operation) -> bool:
    """Whether PyTorch would launch a kernel for the operation, which is no copy."""
    if is_call_of_torch(operation):
        return operation.attributes["op_type"] not in VIEWS
    return operation.definition is not const and operation.name not in MOVES


@dataclass
class _Rewriting:
    """Operations that are being written by parts; those that they replace stay until the last of them is."""

    parts: dict[Value, Parts] = field(default_factory=dict)
    written: list[tuple[Operation, list[Parts | Value]]] = field(default_factory=list)

    def write(self, operation: Operation, rule: Rule) -> None:
        operands = [self.of(value) if value is not None and value.dtype.is_complex else value
                    for value in operation.operands]  # fmt: skip
        with Builder.before_operation(operation, operation.location.by("complex_parts")):
            given = rule(operation, *operands)
        results: list[Parts | Value] = list(given) if isinstance(given, list) else [given]
        for value, result in zip(operation.results, results, strict=True):
            if isinstance(result, Parts):
                self._name(value, result)
                self.parts[value] = result
        self.written.append((operation, results))

    def of(self, value: Value) -> Parts:
        """The parts of a complex value; those of what has no rule are computed where it is defined."""
        if value not in self.parts:
            assert value.block is not None
            before = value.block.first if value.operation is None else value.operation.next
            assert before is not None
            with Builder.before_operation(before, before.location.by("complex_parts")):
                pairs = _call("view_as_real", value, TensorType(part_of(value.dtype), (*value.shape, 2)))
                self.parts[value] = arithmetic.parted(pairs)
            self._name(value, self.parts[value])
        return self.parts[value]

    def _name(self, value: Value, parts: Parts) -> None:
        if not value.is_anonymous:
            for part, suffix in zip(parts, ("real", "imag"), strict=True):
                if part.is_anonymous and part.operation is not None:
                    rename(part, f"{value.name}_{suffix}")

    def finish(self) -> None:
        """Replace the operations by what was written: last first, so that what still reads a complex value is known."""
        for operation, results in reversed(self.written):
            with Builder.before_operation(operation, operation.location.by("complex_parts")):
                values = [self._joined(value, result) if isinstance(result, Parts) else result
                          for value, result in zip(operation.results, results, strict=True)]  # fmt: skip
            for value, new in zip(operation.results, values, strict=True):
                if value.uses:
                    value.replace_uses(new)
            names = [value.name for value in operation.results]
            operation.erase()
            for name, new in zip(names, values, strict=True):
                if new.is_anonymous and not name.isdecimal():
                    rename(new, name)

    def _joined(self, value: Value, parts: Parts) -> Value:
        return _call("view_as_complex", arithmetic.stacked(parts), value.type) if value.uses else parts.real


def _call(op_type: str, value: Value, type_: TensorType) -> Value:
    return Builder.active().create(ops.extern, [value], aten.call_of(op_type), types=[type_]).result


# -- rules -----------------------------------------------------------------------------------------------------


def _by_part(operation: Operation, *operands: Parts | Value | None) -> Parts | list[Parts]:
    """The same operation on each part: what only moves numbers, chooses them or adds them up."""
    real, imaginary = (
        operation.definition(*(each[part] if isinstance(each, Parts) else each for each in operands),
                             **operation.attributes) for part in (0, 1))  # fmt: skip
    if isinstance(real, Value):
        return Parts(real, imaginary)
    return [Parts(*each) for each in zip(real, imaginary, strict=True)]


def _product(operation: Operation, x: Parts, y: Parts, added: Parts | None = None) -> Parts:
    """A sum of products, which is linear in both operands, with what may be added to it."""
    def product(a: Value, b: Value, c: Value | None = None) -> Value:
        result: Value = operation.definition(*(each for each in (a, b, c) if each is not None), **operation.attributes)
        return result

    real, imaginary = (None, None) if added is None else added
    return Parts(ops.sub(product(x.real, y.real, real), product(x.imaginary, y.imaginary)),
                 ops.add(product(x.real, y.imaginary, imaginary), product(x.imaginary, y.real)))  # fmt: skip


def _function(function: Callable[..., Parts | Value]) -> Rule:
    return lambda operation, *operands: function(*operands)


def _constant(operation: Operation) -> Parts:
    tensor = operation.attributes["value"]
    dtype, elements = part_of(tensor.dtype), tensor.array()
    return Parts(*(const(value=Tensor.of(part, dtype, tensor.name and f"{tensor.name}.{suffix}"))
                   for part, suffix in ((elements.real, "real"), (elements.imag, "imag"))))  # fmt: skip


def _cast(operation: Operation, x: Parts | Value) -> Parts:
    """To a complex type, from another or from a real one."""
    dtype = part_of(operation.result.dtype)
    if isinstance(x, Parts):
        return Parts(*(ops.cast(part, to=dtype) for part in x))
    return Parts(ops.cast(x, to=dtype), ops.expand(literal(0, dtype), shape=x.shape))


def _equal(operation: Operation, x: Parts, y: Parts) -> Value:
    result: Value = ops.bitwise_and(ops.equal(x.real, y.real), ops.equal(x.imaginary, y.imaginary))
    return result


def _not_equal(operation: Operation, x: Parts, y: Parts) -> Value:
    result: Value = ops.bitwise_or(ops.not_equal(x.real, y.real), ops.not_equal(x.imaginary, y.imaginary))
    return result


def _of_parts(operation: Operation, *parts: Value) -> Parts:
    """Two real operands, which are broadcast."""
    shape = operation.result.shape
    return Parts(*(part if part.shape == shape else ops.expand(part, shape=shape) for part in parts))


def _of_polar(operation: Operation, size: Value, angle: Value) -> Parts:
    return arithmetic.polar(*_of_parts(operation, size, angle))


# Those that only move numbers.
MOVES = frozenset({"concat", "expand", "gather", "gather_elements", "gather_nd", "pad", "reshape", "reverse", "slice",
                   "split", "tile", "transpose", "trilu"})  # fmt: skip
VIEWS = frozenset({"_conj", "view_as_complex", "view_as_real"})  # of PyTorch's operators those that copy nothing

FUNCTIONS: dict[str, Callable[..., Parts | Value]] = {
    "abs": arithmetic.magnitude, "add": arithmetic.added, "cos": arithmetic.cosine,
    "cosh": arithmetic.hyperbolic_cosine, "div": arithmetic.divided, "exp": arithmetic.exponential,
    "mul": arithmetic.multiplied, "neg": arithmetic.negated, "reciprocal": arithmetic.inverse,
    "sin": arithmetic.sine, "sinh": arithmetic.hyperbolic_sine, "sqrt": arithmetic.root,
    "square": arithmetic.squared, "sub": arithmetic.subtracted, "tan": arithmetic.tangent,
    "tanh": arithmetic.hyperbolic_tangent,
}  # fmt: skip
RULES: dict[str, Rule] = {
    **dict.fromkeys((*MOVES, "select", "reduce_sum", "scatter", "scatter_elements"), _by_part),
    **dict.fromkeys(("conv", "conv_transpose", "dot", "gemm", "matmul"), _product),
    **{name: _function(function) for name, function in FUNCTIONS.items()},
    "const": _constant, "cast": _cast, "equal": _equal, "not_equal": _not_equal,
}  # fmt: skip
CALLS: dict[str, Rule] = {
    "_conj": _function(arithmetic.conjugate), "_conj_physical": _function(arithmetic.conjugate),
    "complex": _of_parts, "polar": _of_polar, "view_as_complex": _function(arithmetic.parted),
    "view_as_real": _function(arithmetic.stacked),
}  # fmt: skip

# Operators of ATen that are written as other operations, by what computes transforms.
WRITTEN = {"torch": frozenset(CALLS), "onnx": frozenset(CALLS) | TRANSFORMS.keys()}
