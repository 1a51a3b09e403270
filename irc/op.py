"""How operations are declared, and how calling one builds IR.

There are three kinds of operation. A *primitive* has a type rule and a NumPy reference; a *named* operation
has a body written in other operations, which is its only semantics; an *extern* operation is opaque.
Each is declared once, as a function: positional parameters are operands, keyword-only parameters attributes,
and the docstring is its reference page.

    @primitive(Pointwise(onnx="Add"), Trait.COMMUTATIVE)
    def add(x: NumberType, y: NumberType, /) -> TensorType:      # the type rule: types in, types out
        '''Sum, with NumPy broadcasting.'''
        return broadcast_types(x, y)

    @add.reference
    def _(x, y): return np.add(x, y)

    @op
    def silu(x: Float, /) -> Value:                              # the body: values in, values out
        '''x * sigmoid(x).'''
        return mul(x, sigmoid(x))

`irc.interfaces` defines what a declaration may state of an operation besides. Calling a definition with values
appends an operation at the active `Builder`; numbers become constants.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any, Literal, TypeVar

from irc import dims, types
from irc.diagnostics import UNKNOWN, IrcError, Location, did_you_mean, fail
from irc.dims import Symbol
from irc.dtypes import BOOL, F32, I64, DType, accumulator_of
from irc.execution import Execution
from irc.interfaces import (
    Contraction,
    DataMovement,
    Gather,
    Interface,
    Pointwise,
    Reduction,
    Scan,
    Scatter,
    Trait,
    Window,
)
from irc.ir import Attribute, Block, Function, Operation, Pull, Push, Region, Value
from irc.module import Module
from irc.scalar_builder import Scalar, ScalarBuilder
from irc.signature import (
    BOOLEAN,
    INTEGER,
    REQUIRED,
    AnyTensor,
    AnythingType,
    AnyType,
    AttributeSpec,
    BitsType,
    BooleanType,
    Constraint,
    Float,
    FloatOrComplexType,
    FloatType,
    Integer,
    IntegerType,
    Number,
    NumberType,
    OperandSpec,
    Real,
    RealType,
    check_declaration,
    signature,
)
from irc.types import TensorType, checked_size
from irc.user_code import blaming, is_user_code, place_of_code
from irc.weights import Tensor

__all__ = [  # the parts of a declaration with what its parameters are annotated with
    "AnyTensor", "AnyType", "AnythingType", "AttributeSpec", "BitsType", "BooleanType", "Builder", "Constraint",
    "Float", "FloatOrComplexType", "FloatType", "Integer", "IntegerType", "Number", "NumberType", "OperandSpec",
    "OperationDefinition", "REQUIRED", "Real", "RealType", "const", "literal", "op", "primitive", "return_",
    "spelling", "trace", "trace_function", "yield_",
]  # fmt: skip

BODY_CACHE_SIZE = 8192
AnInterface = TypeVar("AnInterface")


class OperationDefinition:
    """One operation of the table: schema, type rule, semantics and documentation in one place.

    Interfaces and traits (`irc.interfaces`) are attributes: `pointwise`, `movement`, `reduction`, ... hold the
    interface or None, `traits` the rest.
    """

    def __init__(self, function: Callable[..., Any], kind: Literal["primitive", "named", "extern"],
                 stated: Iterable[Interface | Trait] = ()) -> None:  # fmt: skip
        self.name = function.__name__.strip("_")  # `slice_` and `if_` would hide what Python calls so
        self.kind = kind
        self.interfaces, self.traits = _stated(function, tuple(stated))
        self.pointwise = self._interface(Pointwise)
        self.movement = self._interface(DataMovement)
        self.reduction = self._interface(Reduction)
        self.contraction = self._interface(Contraction)
        self.window = self._interface(Window)
        self.scan = self._interface(Scan)
        self.gather = self._interface(Gather)
        self.scatter = self._interface(Scatter)
        self.source_function = function
        self.spellings: list[Callable[..., Any]] = []
        if is_user_code(function):
            check_declaration(function)
        self.is_named = kind == "named"
        self.has_effect = Trait.EFFECT in self.traits
        self.is_terminator = Trait.TERMINATOR in self.traits
        self.is_isolated = Trait.ISOLATED in self.traits
        self.has_declared_types = Trait.DECLARED_TYPES in self.traits
        self._rule: Callable[..., Any] | None = None if self.is_named else function
        self.reference_function: Callable[..., Any] | None = None
        self.of_dims: Callable[..., Any] | None = None
        self.execute: Callable[[Execution], Any] | None = None
        self.element_of: Callable[..., Any] | None = None
        self.pull: Pull | None = None
        self.push: Push | None = None

    @cached_property
    def doc(self) -> str:
        """The docstring, without its indentation."""
        return inspect.cleandoc(self.source_function.__doc__ or "")

    @cached_property
    def _signature(self) -> tuple[tuple[OperandSpec, ...], dict[str, AttributeSpec]]:
        """Read when it is first needed: a program uses few of the operations, and annotations take time to evaluate."""
        return signature(self.source_function)

    @property
    def operand_specs(self) -> tuple[OperandSpec, ...]:
        """The operands, in order."""
        return self._signature[0]

    @property
    def attribute_specs(self) -> dict[str, AttributeSpec]:
        """The attributes by name, in order."""
        return self._signature[1]

    def _interface(self, kind: type[AnInterface]) -> AnInterface | None:
        return next((each for each in self.interfaces if isinstance(each, kind)), None)

    # -- declaring ---------------------------------------------------------------------------------------------

    def reference(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: the NumPy meaning of a primitive; arrays in operand order, attributes by keyword."""
        self.reference_function = function
        return function

    def on_dims(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: what a primitive computes of dims, where its reference takes numbers only: see
        `irc.ops.symbolic`."""
        self.of_dims = function
        return function

    def execution(self, function: Callable[[Execution], Any]) -> Callable[[Execution], Any]:
        """Decorator: the meaning of an operation that needs more than arrays: see `irc.execution`."""
        self.execute = function
        return function

    def types(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: a type rule for a named operation, so that errors speak of it and not of its body."""
        self._rule = function
        return function

    def element(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: the scalar that a kernel computes for one element, where neither index maps nor a pointwise
        meaning define it. The function takes a `ScalarBuilder` (`irc.scalar_builder`), the operation, coordinates, and
        the guards under which they count; it returns a scalar, or is a generator that requests those it needs."""
        self.element_of = function
        return function

    def index_maps(self, pull: Pull, push: Push | None = None) -> None:
        """The maps between the coordinates of a view's result and of its operands: see `irc.index_map`."""
        self.pull, self.push = pull, push

    @property
    def has_reference(self) -> bool:
        return self.reference_function is not None

    # -- meaning -----------------------------------------------------------------------------------------------

    def normalize(self, attributes: Mapping[str, Any]) -> dict[str, Attribute]:
        """All attributes in schema order, defaults filled in; raises `type.attribute`."""
        unknown = [name for name in attributes if name not in self.attribute_specs]
        if unknown:
            known = ", ".join(self.attribute_specs) or "none"
            raise fail("type.attribute", f"{self.name} has no attribute `{unknown[0]}`", expected=f"one of: {known}")
        normal = {}
        for name, spec in self.attribute_specs.items():
            value = attributes.get(name, spec.default)
            if value is REQUIRED:
                raise fail("type.attribute", f"{self.name}: attribute `{name}` is missing")
            try:
                normal[name] = spec.coerce(value) if name in attributes else value
            except IrcError as error:
                raise _prefixed(error, self.name) from None
        return normal

    def check_operands(self, operand_types: Sequence[TensorType | None]) -> None:
        """Number, presence and element kinds of the operands; raises `type.operands` or `type.dtype`."""
        specs = self.operand_specs
        variadic = bool(specs) and specs[-1].variadic
        needed = sum(not spec.optional and not spec.variadic for spec in specs)
        if len(operand_types) < needed or (len(operand_types) > len(specs) and not variadic):
            signature = ", ".join(("*" if s.variadic else "") + s.name + ("?" if s.optional else "") for s in specs)
            raise fail("type.operands", f"{self.name}: {len(operand_types)} operands given", expected=f"({signature})")
        for index, type_ in enumerate(operand_types):
            spec = specs[min(index, len(specs) - 1)]
            if type_ is None:
                if not spec.optional:
                    raise fail("type.operands", f"{self.name}: operand `{spec.name}` is missing")
            elif not spec.constraint.admits(type_.dtype):
                message = f"{self.name}: operand `{spec.name}` is {type_}"
                raise fail("type.dtype", message, expected=spec.constraint.words)

    def infer(self, operand_types: Sequence[TensorType | None], attributes: Mapping[str, Attribute],
              declared: Sequence[TensorType] | None = None, regions: Sequence[Region] = ()) -> tuple[TensorType, ...]:
        """Result types from operand types and normalized attributes.

        `declared` are the types stated in the text or by the builder, the only source for `declared`
        operations. Raises coded errors that begin with the operation's name.
        """
        self.check_operands(operand_types)
        try:
            if self._rule is None:
                return tuple(value.type for value in self.body(operand_types, attributes).returned)
            fixed = sum(not spec.variadic for spec in self.operand_specs)
            padded = [*operand_types, *[None] * (fixed - len(operand_types))]
            extra: dict[str, Any] = {}
            if self.has_declared_types:
                extra["declared"] = None if declared is None else tuple(declared)
            if Trait.REGIONS in self.traits:
                extra["regions"] = tuple(regions)
            return tuple(map(checked_size, self._ruled(padded, attributes, extra)))
        except IrcError as error:
            raise _prefixed(error, self.name) from None

    def _ruled(self, operand_types: Sequence[TensorType | None], attributes: Mapping[str, Attribute],
               extra: Mapping[str, Any]) -> tuple[TensorType, ...]:
        """What the type rule returns."""
        assert self._rule is not None
        with self._blaming("type rule", self._rule):
            try:
                inferred = _as_tuple(self._rule(*operand_types, **attributes, **extra))
            except dims.DimError as error:
                raise fail("type.broadcast", str(error)) from None
        if is_user_code(self._rule) and not all(isinstance(type_, TensorType) for type_ in inferred):
            raise fail("op.declaration", f"the type rule of `{self.name}` returned {inferred!r}",
                       at=place_of_code(self._rule), expected="a type, or a tuple of types")  # fmt: skip
        return inferred

    def evaluate(self, arrays: Sequence[Any], attributes: Mapping[str, Attribute]) -> tuple[Any, ...]:
        """Run a primitive's NumPy reference; dims in attributes must already be integers."""
        if self.reference_function is None:
            if is_user_code(self.source_function):
                raise fail("op.declaration", f"the primitive `{self.name}` has no reference, and cannot be run",
                           at=place_of_code(self.source_function), help=f"declare one with `@{self.name}.reference`")
            raise NotImplementedError(f"{self.name} has no NumPy reference: the interpreter runs it itself")
        with self._blaming("reference", self.reference_function):
            return _as_tuple(self.reference_function(*arrays, **attributes))

    def _blaming(self, part: str, function: Callable[..., Any]) -> AbstractContextManager[None]:
        """Around a call of a part of the declaration: what a user's own raises becomes `op.raised`."""
        if not is_user_code(function):
            return nullcontext()
        return blaming("op.raised", f"the {part} of `{self.name}` raised an exception", function, places_coded=False)

    def body(self, operand_types: Sequence[TensorType | None], attributes: Mapping[str, Attribute],
             spelling: int | None = None) -> Function:
        """The body of a named operation, or the spelling of that number, traced over the caller's symbols.

        It is memoized: do not edit it.
        """
        if not self.is_named:
            raise ValueError(f"{self.name} is {self.kind} and has no body")
        written = self.source_function if spelling is None else self.spellings[spelling]
        return _traced(self, written, tuple(operand_types), tuple(attributes.items()))

    # -- building ----------------------------------------------------------------------------------------------

    def __call__(self, *operands: Any, name: str = "", **attributes: Any) -> Any:
        """Append this operation at the active builder; returns its result, or a tuple of several."""
        if not isinstance(name, str):
            raise fail("type.attribute", f"{self.name}: the name {name!r} of the result", expected="text")
        values = [self._operand(index, operand, operands) for index, operand in enumerate(operands)]
        while values and values[-1] is None:
            values.pop()
        operation = Builder.active().create(self, values, attributes, names=(name,) if name else ())
        return operation.results[0] if len(operation.results) == 1 else tuple(operation.results)

    def _operand(self, index: int, operand: Any, operands: Sequence[Any]) -> Value | None:
        if operand is None or isinstance(operand, Value):
            return operand
        if not isinstance(operand, (bool, int, float, complex)):
            unknown = Builder.active().unknown_number(operand)
            if unknown is not None:
                return unknown
            raise fail("type.operands", f"{self.name}: operand {index} is {operand!r}", expected="a value or a number")
        spec = self.operand_specs[min(index, len(self.operand_specs) - 1)]
        if spec.constraint is BOOLEAN:
            return literal(operand, BOOL)
        if spec.constraint is INTEGER and self.pointwise is None:
            return literal(operand, I64)
        for position, other in enumerate(operands):
            kind = self.operand_specs[min(position, len(self.operand_specs) - 1)].constraint
            if isinstance(other, Value) and kind is not BOOLEAN:
                return literal(operand, other.dtype)
        return literal(operand, F32 if isinstance(operand, float) else I64)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


def _stated(function: Callable[..., Any],
            stated: tuple[Interface | Trait, ...]) -> tuple[tuple[Interface, ...], frozenset[Trait]]:  # fmt: skip
    """The interfaces and the traits of a declaration; raises `op.declaration` for anything else."""
    kinds = typing.get_args(Interface)
    known = [*(f"{kind.__name__}(...)" for kind in kinds), *map(str, Trait)]
    wrong = [each for each in stated if not isinstance(each, (*kinds, Trait))]
    if wrong:
        text = wrong[0].__name__ if inspect.isclass(wrong[0]) else str(wrong[0])
        raise fail("op.declaration", f"`{function.__name__}` is declared with {wrong[0]!r}", at=place_of_code(function),
                   expected=f"interfaces and traits of irc.interfaces: {', '.join(known)}",
                   help=did_you_mean(text, [*(kind.__name__ for kind in kinds), *map(str, Trait)]))  # fmt: skip
    interfaces = tuple(each for each in stated if not isinstance(each, Trait))
    if len({type(each) for each in interfaces}) < len(interfaces):
        raise fail("op.declaration", f"`{function.__name__}` states one interface twice", at=place_of_code(function),
                   expected="each at most once")  # fmt: skip
    return interfaces, frozenset(each for each in stated if isinstance(each, Trait))


def _as_tuple(results: Any) -> tuple[Any, ...]:
    """What a rule, reference or body gave: one thing, or several."""
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


@lru_cache(maxsize=BODY_CACHE_SIZE)
def _traced(definition: OperationDefinition, written: Callable[..., Any], operand_types: tuple[TensorType | None, ...],
            attributes: tuple[tuple[str, Attribute], ...]) -> Function:
    definition.check_operands(operand_types)
    specs = definition.operand_specs
    names = [specs[min(index, len(specs) - 1)].name for index in range(len(operand_types))]
    with definition._blaming("body", written):
        return trace_function(definition.name, partial(written, **dict(attributes)), operand_types, names)


def _prefixed(error: IrcError, name: str) -> IrcError:
    first = error.diagnostics[0]
    if first.message.startswith(f"{name}:"):
        return error
    return IrcError((replace(first, message=f"{name}: {first.message}"), *error.diagnostics[1:]))


def primitive(*stated: Interface | Trait) -> Callable[[Callable[..., Any]], OperationDefinition]:
    """Declare a primitive: the function is the type rule, `.reference` adds the NumPy meaning."""
    return lambda function: OperationDefinition(function, "primitive", stated)


@typing.overload
def op(function: Callable[..., Any], /) -> OperationDefinition: ...
@typing.overload
def op(*stated: Interface | Trait) -> Callable[[Callable[..., Any]], OperationDefinition]: ...
def op(*stated: Any) -> Any:
    """Declare a named operation, `@op` or with what is stated of it, `@op(Pointwise())`: the function is its body."""
    if len(stated) == 1 and callable(stated[0]) and stated[0] not in typing.get_args(Interface):
        return OperationDefinition(stated[0], "named")
    return lambda body: OperationDefinition(body, "named", stated)


def spelling(definition: OperationDefinition) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add another way in which people write a named operation; raising knows it as well as the body."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        definition.spellings.append(function)
        return function

    return add


# -- building IR -----------------------------------------------------------------------------------------------

_active: ContextVar[Builder | None] = ContextVar("irc_active_builder", default=None)


class Builder:
    """A place where operations are put: at the end of a block, or before an operation."""

    def __init__(self, block: Block, before: Operation | None = None, location: Location = UNKNOWN) -> None:
        self.block = block
        self.before = before
        self.location = location

    @staticmethod
    def before_operation(operation: Operation, location: Location | None = None) -> Builder:
        if operation.block is None:
            raise ValueError("the operation is detached")
        return Builder(operation.block, operation, operation.location if location is None else location)

    @staticmethod
    def active() -> Builder:
        builder = _active.get()
        if builder is None:
            raise fail("usage.no_builder", "an operation was called outside of a trace",
                       help="call it inside `irc.trace(...)`, a rule, a body, or `with builder:`")
        return builder

    def unknown_number(self, operand: object) -> Value | None:
        """The value that stands for an operand that is neither a value nor a number; None where nothing does."""
        return None

    def __enter__(self) -> Builder:
        self._token = _active.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.reset(self._token)

    def create(
        self, definition: OperationDefinition, operands: Sequence[Value | None],
        attributes: Mapping[str, Any] | None = None, *, types: Sequence[TensorType] | None = None,
        regions: Sequence[Region] = (), names: Sequence[str] = (), symbols: Sequence[Symbol] = (),
    ) -> Operation:
        """Make an operation, infer its result types (`types` are the declared ones) and insert it."""
        try:
            normal = definition.normalize(attributes or {})
            operand_types = [None if value is None else value.type for value in operands]
            result_types = definition.infer(operand_types, normal, types, regions)
        except IrcError as error:
            raise error.placed(self.location) from None
        operation = Operation(
            definition, operands, normal, result_types, regions, names=names, symbols=symbols, location=self.location
        )
        self.block.insert(operation, self.before)
        return operation


@primitive(Trait.HOST, Trait.NO_ALLOCATION, Trait.EXACT)
def const(*, value: Tensor) -> TensorType:
    """A constant: inline when it is small and has no name, or by name from the module's weights.

    Declared here because calling an operation with a number makes one.
    """
    return TensorType(value.dtype, value.shape)


@const.reference
def _const(*, value: Tensor) -> Any:
    return value.array()


@const.element
def _const_element(builder: ScalarBuilder[Scalar], operation: Operation, *_: object) -> Scalar:
    content = operation.attributes["value"].array()
    return builder.constant(accumulator_of(operation.result.dtype), content.reshape(-1)[0])


def is_constant(value: Value) -> bool:
    """Whether a value is the result of a `const`."""
    return value.operation is not None and value.operation.definition is const


@primitive(Trait.TERMINATOR, Trait.HOST)
def return_(*values: AnythingType) -> tuple[TensorType, ...]:
    """End a function with its results. Declared here because every trace ends in one."""
    return ()


@primitive(Trait.TERMINATOR, Trait.HOST)
def yield_(*values: AnythingType) -> tuple[TensorType, ...]:
    """End the block of a region with its results."""
    return ()


def literal(number: bool | int | float | complex, dtype: DType) -> Value:
    """A constant scalar at the active builder."""
    result: Value = const(value=Tensor.of(number, dtype))
    return result


# -- tracing ---------------------------------------------------------------------------------------------------


def trace_function(
    name: str, body: Callable[..., Any], operand_types: Sequence[TensorType | None], names: Sequence[str] = ()
) -> Function:
    """Run `body` on symbolic values of these types and return what it built as a function.

    None among the types passes None: an optional operand that is absent.
    """
    present = [type_ for type_ in operand_types if type_ is not None]
    present_names = [names[i] for i, type_ in enumerate(operand_types) if type_ is not None and i < len(names)]
    function = Function(name, present, present_names)
    arguments = iter(function.arguments)
    values = [None if type_ is None else next(arguments) for type_ in operand_types]
    with Builder(function.block) as builder:
        results = _as_tuple(body(*values))
        for value in results:
            if not isinstance(value, Value):
                raise fail("type.operands", f"{name} returned {value!r}", expected="a value or a tuple of values")
        builder.create(return_, results)
    return function


def trace(function: Callable[..., Any], *operand_types: str | TensorType, name: str = "main") -> Module:
    """Make a module from a Python function that calls operations.

    Types are given as text, such as "f16[B, S, 768]"; a name in a shape is a symbol that ranges over
    [0, 10^9], or, written `?B in (1, 64)`, over what is said.

        trace(lambda x, w, b: gelu(add(matmul(x, w), b)), "f16[B, S, 768]", "f16[768, 3072]", "f16[3072]")
    """
    symbols: dict[str, Symbol] = {}

    def lookup(symbol_name: str) -> Symbol:
        return symbols.get(symbol_name) or declare(symbol_name, dims.IMPORTED_LOW, dims.IMPORTED_HIGH, 1)

    def declare(symbol_name: str, low: int, high: int, multiple: int) -> Symbol:
        symbols[symbol_name] = dims.symbol(symbol_name, low, high, multiple)
        return symbols[symbol_name]

    def read(text: str) -> TensorType:
        try:
            return types.parse_type(text, lookup, declare)
        except dims.DimError as error:
            raise fail("dim.syntax", f"the type {text!r}: {error}") from None

    parsed = [read(type_) if isinstance(type_, str) else type_ for type_ in operand_types]
    parameters = inspect.signature(function).parameters.values()
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    traced = trace_function(name, function, parsed, names)
    for symbol in (symbol for type_ in parsed for symbol in type_.symbols()):
        traced.symbols.setdefault(symbol.name, symbol)
    return Module("traced", [traced])
