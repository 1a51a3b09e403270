"""The IR: Function > Block > Operation, in SSA form; `irc.module` has the Module of functions.

An operation has operands, results, attributes, regions and a location. Control flow is structured: a region
holds exactly one block, and the regions of `if` and `loop` capture values by dominance, while functions and
`kernel` are isolated. Values know their uses and keep the names their source gave them.

Blocks are linked lists with order labels (`irc.order`): an insertion takes amortized O(log n) time in a block of n
operations, and constant time at its ends; erasing, replacing uses and a dominance query take constant time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from irc import dims, order
from irc.diagnostics import UNKNOWN, Location, did_you_mean, fail
from irc.dims import Derived, Dim, Symbol
from irc.index_map import Coordinates, Point
from irc.interfaces import Contraction, DataMovement, Gather, Interface, Pointwise, Reduction, Scan, Trait, Window
from irc.types import TensorType
from irc.weights import Tensor

# int, float, bool, str, None, DType, Dim, Symbol, Tensor, FunctionName, or tuples and dictionaries of these.
Attribute = Any
PLAIN = (int, float, str, type(None))  # in which no dim hides: trees have lists of 100,000 numbers


class FunctionName(str):
    """An attribute that names a function of the module, printed `@name`."""

    __slots__ = ()


_watching: ContextVar[Callable[[Value, Value], object] | None] = ContextVar("irc_watching", default=None)


@contextmanager
def watching_replacements(watch: Callable[[Value, Value], object]) -> Iterator[None]:
    """Call `watch(old, new)` whenever all uses of a value become uses of another."""
    token = _watching.set(watch)
    try:
        yield
    finally:
        _watching.reset(token)


class Value:
    """A result of an operation or an argument of a block.

    `uses` maps (operation, operand index) to None: a dictionary, so that removal is constant and the order that of
    insertion.
    """

    __slots__ = ("index", "name", "owner", "type", "uses")

    def __init__(self, type_: TensorType, owner: Operation | Block, index: int, name: str = "") -> None:
        self.type = type_
        self.owner = owner
        self.index = index
        self.name = name
        self.uses: dict[tuple[Operation, int], None] = {}

    @property
    def dtype(self) -> Any:
        return self.type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The dims; raises `type.rank` when unranked."""
        return self.type.dims

    @property
    def rank(self) -> int:
        return self.type.rank

    @property
    def operation(self) -> Operation | None:
        """The operation that defines this value, or None for an argument of a block."""
        return self.owner if isinstance(self.owner, Operation) else None

    @property
    def block(self) -> Block | None:
        """The block in which this value is defined."""
        return self.owner.block if isinstance(self.owner, Operation) else self.owner

    @property
    def is_anonymous(self) -> bool:
        """Whether the name is a mere number, which a name from the source replaces."""
        return not self.name or self.name.isdecimal()

    def users(self) -> Iterator[Operation]:
        """Each operation that uses the value, once, in order of first use."""
        return iter(dict.fromkeys(operation for operation, _ in self.uses))

    def replace_uses(self, new: Value, where: Callable[[Operation], bool] | None = None) -> None:
        """Make every use of this value (or those in operations that satisfy `where`) a use of `new`."""
        if new is self:
            return
        watch = _watching.get()
        if watch is not None and where is None:
            watch(self, new)
        for operation, index in list(self.uses):
            if where is None or where(operation):
                operation.set_operand(index, new)

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


# How coordinates of a result correspond to those of operands (`irc.index_map`).
Pull = Callable[[Value, Coordinates], tuple[Point, ...]]
Push = Callable[[Value, Point], Point | None]


class Parameter(Protocol):
    """An operand or an attribute in a declaration."""

    @property
    def name(self) -> str: ...


class AttributeParameter(Parameter, Protocol):
    @property
    def annotation(self) -> Any: ...
    @property
    def default(self) -> Any: ...


class Definition(Protocol):
    """The declaration of an operation, as its uses in the IR see it; `irc.op.OperationDefinition` has the meaning of
    each member."""

    name: str
    traits: frozenset[Trait]
    interfaces: tuple[Interface, ...]
    pointwise: Pointwise | None
    movement: DataMovement | None
    reduction: Reduction | None
    contraction: Contraction | None
    window: Window | None
    scan: Scan | None
    gather: Gather | None
    is_named: bool
    is_terminator: bool
    is_isolated: bool
    has_effect: bool
    has_declared_types: bool
    pull: Pull | None
    push: Push | None
    execute: Callable[[Any], Any] | None
    element_of: Callable[..., Any] | None
    of_dims: Callable[..., Any] | None
    source_function: Callable[..., Any]
    reference_function: Callable[..., Any] | None

    @property
    def operand_specs(self) -> Sequence[Parameter]: ...
    @property
    def attribute_specs(self) -> Mapping[str, AttributeParameter]: ...
    @property
    def has_reference(self) -> bool: ...
    def check_operands(self, operand_types: Sequence[TensorType | None]) -> None: ...
    def normalize(self, attributes: Mapping[str, Any]) -> dict[str, Attribute]: ...
    def infer(self, operand_types: Sequence[TensorType | None], attributes: Mapping[str, Attribute],
              declared: Sequence[TensorType] | None = None, regions: Sequence[Region] = ()
              ) -> tuple[TensorType, ...]: ...  # fmt: skip
    def evaluate(self, arrays: Sequence[Any], attributes: Mapping[str, Attribute]) -> tuple[Any, ...]: ...
    def body(self, operand_types: Sequence[TensorType | None], attributes: Mapping[str, Attribute]) -> Function: ...
    def __call__(self, *operands: Any, name: str = "", **attributes: Any) -> Any: ...


class Operation:
    """One step: `results = definition operands {attributes} : types regions`.

    `symbols` are the dims defined here (`bind`, `refine`, extern): they are written in the result types.
    An operand is None where an optional one is absent. `next` and `previous` are its neighbors in the block, and
    `order_label` increases along the block (`irc.order`); only blocks set them.
    """

    __slots__ = ("attributes", "block", "definition", "location", "next", "operands", "order_label", "previous",
                 "regions", "results", "symbols")

    def __init__(self, definition: Definition, operands: Iterable[Value | None] = (),
                 attributes: Mapping[str, Attribute] | None = None, result_types: Iterable[TensorType] = (),
                 regions: Iterable[Region] = (), *, names: Sequence[str] = (), symbols: Iterable[Symbol] = (),
                 location: Location = UNKNOWN) -> None:
        self.definition = definition
        self.operands: list[Value | None] = []
        self.attributes: dict[str, Attribute] = dict(attributes or {})
        self.results = _values(self, result_types, names)
        self.regions = list(regions)
        self.symbols = tuple(symbols)
        self.location = location
        self.block: Block | None = None
        self.previous: Operation | None = None
        self.next: Operation | None = None
        self.order_label = 0
        self.set_operands(operands)
        for region in self.regions:
            region.parent = self

    @property
    def name(self) -> str:
        """The name of its definition, e.g. `add`."""
        return self.definition.name

    @property
    def result(self) -> Value:
        """The only result."""
        (result,) = self.results
        return result

    @property
    def inputs(self) -> list[Value]:
        """The operands that are present."""
        return [operand for operand in self.operands if operand is not None]

    @property
    def operand_types(self) -> list[TensorType | None]:
        """The types of all operands, None for each that is absent."""
        return [None if operand is None else operand.type for operand in self.operands]

    def body(self) -> Function:
        """The body of a named operation at its operands' types and its attributes. It is shared: do not edit it."""
        return self.definition.body(self.operand_types, self.attributes)

    @property
    def parent(self) -> Operation | None:
        """The operation whose region holds this one, or None at the top of a function."""
        return None if self.block is None or self.block.region is None else self.block.region.parent

    @property
    def function(self) -> Function | None:
        return None if self.block is None else self.block.function

    @property
    def has_effect(self) -> bool:
        """Whether it must be kept though nothing uses its results, itself or by an operation inside it."""
        if self.definition.has_effect or self.definition.is_terminator:
            return True
        inside = (inner for region in self.regions for inner in region.block)
        return any(inner.has_effect for inner in inside if not inner.definition.is_terminator)

    def set_operand(self, index: int, value: Value | None) -> None:
        """Replace one operand and keep the use lists true."""
        old = self.operands[index]
        if old is not None:
            del old.uses[self, index]
        self.operands[index] = value
        if value is not None:
            value.uses[self, index] = None

    def set_operands(self, values: Iterable[Value | None]) -> None:
        """Replace all operands; their number may change."""
        for index in range(len(self.operands)):
            self.set_operand(index, None)
        new = list(values)
        self.operands = [None] * len(new)
        for index, value in enumerate(new):
            self.set_operand(index, value)

    def erase(self) -> None:
        """Remove it from its block; its results must be unused."""
        for result in self.results:
            if result.uses:
                raise ValueError(f"%{result.name} of {self.name} is still used by {next(result.users()).name}")
        for region in self.regions:
            for inner in reversed(list(region.block)):
                inner.erase()
        if self.block is not None:
            self.block.remove(self)
        self.set_operands(())

    def replace(self, values: Sequence[Value]) -> None:
        """Replace the results by `values` and erase the operation.

        A new value that has only a number takes over the name of the result it stands for.
        """
        for result, value in zip(self.results, values, strict=True):
            result.replace_uses(value)
        old_names = [result.name for result in self.results]
        self.erase()
        for name, value in zip(old_names, values, strict=True):
            if value.is_anonymous and not name.isdecimal():
                rename(value, name)

    def walk(self) -> Iterator[Operation]:
        """Itself and every operation inside it, outer before inner; the current one may be erased."""
        yield self
        for region in self.regions:
            for inner in region.block:
                yield from inner.walk()

    def defined(self) -> Iterator[Value]:
        """Every value that it or anything inside it defines."""
        for operation in self.walk():
            yield from operation.results
            for region in operation.regions:
                yield from region.block.arguments

    def __repr__(self) -> str:
        results = ", ".join(f"%{result.name}" for result in self.results)
        operands = ", ".join("_" if operand is None else f"%{operand.name}" for operand in self.operands)
        return f"<{results} = {self.name} {operands}>"


class Block:
    """A list of operations with arguments; the last operation is the terminator once it is whole.

    `function_` is set for the block of a function, `region` for one inside an operation.
    """

    __slots__ = ("_size", "arguments", "first", "function_", "last", "region")

    def __init__(self, argument_types: Iterable[TensorType] = (), names: Sequence[str] = ()) -> None:
        self.arguments = _values(self, argument_types, names)
        self.region: Region | None = None
        self.function_: Function | None = None
        self.first: Operation | None = None
        self.last: Operation | None = None
        self._size = 0

    @property
    def function(self) -> Function | None:
        """The function that holds the block, at any depth; None while an operation around it is detached."""
        holder = self.region.parent if self.region is not None else None
        return self.function_ if holder is None else holder.function

    @property
    def terminator(self) -> Operation:
        """The last operation, which must end the block."""
        if self.last is None or not self.last.definition.is_terminator:
            raise fail("verify.region", "a block must end with `return` or `yield`")
        return self.last

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Operation]:
        """The operations in order; the current one may be erased or replaced while iterating."""
        operation = self.first
        while operation is not None:
            following = operation.next
            yield operation
            operation = following

    def __reversed__(self) -> Iterator[Operation]:
        operation = self.last
        while operation is not None:
            before = operation.previous
            yield operation
            operation = before

    def add_argument(self, type_: TensorType, name: str = "") -> Value:
        value = Value(type_, self, len(self.arguments), name)
        self.arguments.append(value)
        function = self.function
        if function is not None:
            function.claim(value)
        return value

    def remove_argument(self, argument: Value) -> None:
        """Remove an argument; its uses are for the caller to replace."""
        self.arguments.remove(argument)
        for index, each in enumerate(self.arguments):
            each.index = index
        function = self.function
        if function is not None:
            function.release(argument)

    def append(self, operation: Operation) -> Operation:
        return self.insert(operation, None)

    def insert(self, operation: Operation, before: Operation | None) -> Operation:
        """Insert a detached operation before another one of this block, or at the end for None."""
        if operation.block is not None:
            raise ValueError(f"{operation.name} is already in a block")
        previous = self.last if before is None else before.previous
        operation.block = self
        self._join(previous, operation)
        self._join(operation, before)
        order.label(operation)
        self._size += 1
        function = self.function
        if function is not None:
            for value in operation.defined():
                function.claim(value)
        return operation

    def remove(self, operation: Operation) -> Operation:
        """Detach an operation without erasing it: its operands stay, its names become free."""
        self._join(operation.previous, operation.next)
        function = self.function
        if function is not None:
            for value in operation.defined():
                function.release(value)
        operation.block = operation.previous = operation.next = None
        self._size -= 1
        return operation

    def _join(self, before: Operation | None, after: Operation | None) -> None:
        """Make two operations neighbors; None stands for the beginning and for the end of the block."""
        if before is None:
            self.first = after
        else:
            before.next = after
        if after is None:
            self.last = before
        else:
            after.previous = before


class Region:
    """A block inside an operation."""

    __slots__ = ("block", "parent")

    def __init__(self, block: Block | None = None) -> None:
        self.block = block if block is not None else Block()
        self.block.region = self
        self.parent: Operation | None = None


class Function:
    """A named function with its symbols, its arguments and one block that ends in `return`.

    `symbols` are those of the signature; `defined_symbols` those that an operation inside defines. `symbol` is the only
    place that makes one: two symbols of one function never share a name.
    """

    def __init__(self, name: str, argument_types: Iterable[TensorType] = (), argument_names: Sequence[str] = (), *,
                 location: Location = UNKNOWN) -> None:
        self.name = name
        self.symbols: dict[str, Symbol] = {}
        self.defined_symbols: dict[str, Symbol] = {}
        self.location = location
        self.result_names: tuple[str, ...] | None = None  # None: each result is called as the value returned
        self.updates: dict[int, Value] = {}  # by a result's position, the argument whose new contents it is
        self.defaults: dict[Value, Tensor] = {}  # what arguments are that a run of the program is not given
        self._names: dict[str, Value] = {}
        self._suffixes: dict[str, int] = {}
        self._symbol_numbers: dict[str, int] = {}
        self.block = Block(argument_types, argument_names)
        self.block.function_ = self
        for argument in self.arguments:
            self.claim(argument)

    @property
    def arguments(self) -> list[Value]:
        return self.block.arguments

    @property
    def returned(self) -> list[Value]:
        """The values that it returns."""
        return self.block.terminator.inputs

    @property
    def output_names(self) -> tuple[str, ...]:
        """What its results are called: `result_names`, or the names of the values returned, made unique."""
        if self.result_names is not None:
            return self.result_names
        names: dict[str, None] = {}
        for value in self.returned:
            name, number = value.name, 0
            while name in names:
                number += 1
                name = f"{value.name}_{number}"
            names[name] = None
        return tuple(names)

    def symbol(self, name: str, low: int = dims.IMPORTED_LOW, high: int = dims.IMPORTED_HIGH, multiple: int = 1, *,
               defined: bool = False) -> Symbol:
        """Make the symbol `name`: of the signature, or `defined` by an operation. A name is taken only once."""
        if name in self.symbols or name in self.defined_symbols:
            raise fail("dim.redeclared", f"@{self.name} already has a symbol `{name}`")
        symbol = dims.symbol(name, low, high, multiple)
        (self.defined_symbols if defined else self.symbols)[name] = symbol
        return symbol

    def fresh_symbol(self, hint: str, low: int = 0, high: int = dims.IMPORTED_HIGH, multiple: int = 1) -> Symbol:
        """A symbol that an operation defines, named `hint` or, if that is taken, `hint_1` and so on."""
        name, count = hint, self._symbol_numbers.get(hint, 0)
        while name in self.symbols or name in self.defined_symbols:
            count += 1
            name = f"{hint}_{count}"
        self._symbol_numbers[hint] = count
        return self.symbol(name, low, high, multiple, defined=True)

    def find_symbol(self, name: str) -> Symbol:
        """The symbol called `name`; raises `dim.unbound`."""
        symbol = self.symbols.get(name) or self.defined_symbols.get(name)
        if symbol is None:
            raise fail("dim.unbound", f"@{self.name} has no symbol `{name}`")
        return symbol

    def find(self, name: str) -> Value:
        """The value called `name` (without the percent sign); raises `text.undefined_name`."""
        if name not in self._names:
            similar = did_you_mean(f"%{name}", (f"%{known}" for known in self._names))
            raise fail("text.undefined_name", f"@{self.name} has no value %{name}", help=similar)
        return self._names[name]

    def value_names(self) -> list[str]:
        """The names of all values."""
        return list(self._names)

    def named(self, name: str) -> Value | None:
        """The value called `name`, or None."""
        return self._names.get(name)

    def claim(self, value: Value) -> None:
        """Give a value a name that is unique in the function: its own, or one with a number after it."""
        name = value.name
        if self._names.get(name) is value:
            return
        if not name or name in self._names:
            stem = "" if value.is_anonymous else f"{name}_"
            number = self._suffixes.get(stem, 0 if not stem else 1)
            while (name := f"{stem}{number}") in self._names:
                number += 1
            self._suffixes[stem] = number + 1
        value.name = name
        self._names[name] = value

    def release(self, value: Value) -> None:
        if self._names.get(value.name) is value:
            del self._names[value.name]

    def walk(self) -> Iterator[Operation]:
        """Every operation, outer before inner."""
        for operation in self.block:
            yield from operation.walk()

    def __repr__(self) -> str:
        return f"<function @{self.name}>"


def _values(owner: Operation | Block, types: Iterable[TensorType], names: Sequence[str]) -> list[Value]:
    """The results of an operation or the arguments of a block; those without a name get one from the function."""
    return [Value(type_, owner, i, names[i] if i < len(names) else "") for i, type_ in enumerate(types)]


def dims_in(attribute: Attribute) -> list[Dim]:
    """The symbolic dims in an attribute, in order."""
    if isinstance(attribute, (dims.Expr, Symbol)):
        return [attribute if isinstance(attribute, dims.Expr) else attribute.expr]
    parts = attribute.values() if isinstance(attribute, dict) else attribute if isinstance(attribute, tuple) else ()
    return [dim for part in parts if not isinstance(part, PLAIN) for dim in dims_in(part)]


def with_dims(attribute: Attribute, change: Callable[[dims.Expr | Symbol], Attribute]) -> Attribute:
    """An attribute with its symbolic dims changed."""
    if isinstance(attribute, (dims.Expr, Symbol)):
        return change(attribute)
    if isinstance(attribute, dict):
        return {name: with_dims(part, change) for name, part in attribute.items()}
    if isinstance(attribute, tuple) and not all(isinstance(part, PLAIN) for part in attribute):
        return tuple(with_dims(part, change) for part in attribute)
    return attribute


def rename(value: Value, name: str) -> None:
    """Give a value a name, made unique in its function."""
    function = value.block.function if value.block is not None else None
    if function is not None:
        function.release(value)
    value.name = name
    if function is not None:
        function.claim(value)


def dominates(value: Value, operation: Operation) -> bool:
    """Whether `value` is defined on every way to `operation` and visible there: isolation hides what is outside."""
    home = value.block
    while operation.block is not home:
        parent = operation.parent
        if parent is None or parent.definition.is_isolated:
            return False
        operation = parent
    return value.operation is None or value.operation.order_label < operation.order_label


def mentioned_dims(operation: Operation) -> list[Dim]:
    """The dims in an operation's types and attributes, and in the types of its regions' arguments."""
    values = [*operation.results, *(argument for region in operation.regions for argument in region.block.arguments)]
    return [*(dim for value in values for dim in value.type.shape or ()), *dims_in(operation.attributes)]


def mentioned_symbols(operation: Operation, seen: set[Derived] | None = None) -> Iterator[Symbol]:
    """The symbols in these dims that have no definition; without those below the derived symbols in `seen`, which is
    extended."""
    return dims.symbols_below(mentioned_dims(operation), set() if seen is None else seen)
