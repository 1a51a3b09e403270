"""From a kernel to Triton source that reads as written by hand.

The nest is walked once. Loads, reductions and what is used more than once get names, from the source where it has
one; the rest is written inside the expression that uses it. Index lines and masks are those of `index_source`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irc.backends.triton import pointwise
from irc.backends.triton.accesses import Access, AccessLine, is_wide, marked
from irc.backends.triton.index_source import FLOAT8, INDEX, ORDER, IndexWriter
from irc.backends.triton.lines import LINE_LENGTH, Part
from irc.backends.triton.masks import analyse
from irc.backends.triton.text import AND, COMPARE, SUM, Code, binary, call, identifier, method, number, plain, type_name
from irc.dims import Dim, Variable
from irc.dtypes import BOOL, F32, FLOATS8, DType
from irc.interfaces import identity
from irc.ir import Value
from irc.kernel import Accumulate, Carry, Kernel, Loop, Placed, Scope, Tile
from irc.kernel.carry import computed_of_elements
from irc.kernel.dag import (
    Apply,
    Check,
    Constant,
    Index,
    Load,
    Node,
    Reduce,
    Scan,
    Select,
    Store,
    indices_compared,
    variables,
    walk,
)
from irc.schedule_options import ScheduleOptions

INLINE_LENGTH = 60
REPEATED = frozenset({"sign", "pow", "is_nan", "shift_left", "shift_right"})  # write an operand more than once
RUNNING = {"sum": "sums", "prod": "products", "max": "maxima", "min": "minima", "log_sum_exp": "logarithms"}
COMBINED = {"max": "larger", "min": "smaller", "log_sum_exp": "log_sum_exp"}  # functions of two runs of elements
REDUCED = {"sum": "total", "prod": "product", "max": "greatest", "min": "least"}  # names where the source has none


@dataclass(frozen=True)
class KernelSource:
    """One kernel as text, and what its launch needs."""

    name: str
    text: str
    buffers: tuple[Value, ...]
    sizes: tuple[Dim, ...]
    parameters: tuple[str, ...]  # names of buffers, then sizes
    tiles: tuple[Tile, ...]
    warps: int
    options: ScheduleOptions
    helpers: tuple[str, ...]
    accesses: tuple[Access, ...]
    extents: tuple[Dim, ...] = ()  # by which a launch chooses the type of indices, if it does
    float8: DType | None = None  # the floats of 8 bits that it multiplies as the device can
    order: int | None = None  # how many blocks of rows run in turn, where that is a parameter

    @property
    def constants(self) -> dict[str, int | str]:
        """What the text is compiled for, as at a typical launch, but for what a device chooses."""
        blocks = {f"BLOCK_{tile.name.upper()}": tile.typical for tile in self.tiles if not tile.single}
        index = {INDEX: "int32"} if self.extents else {}
        return {**blocks, **index, **({ORDER: self.order} if self.order is not None else {})}


def content(kernel: Kernel) -> Hashable:
    """What makes the source of a kernel, but for its names: equal layers have equal kernels."""
    buffers = (*kernel.inputs, *kernel.outputs)
    numbers: dict[Any, int] = {each: number for number, each in enumerate((*buffers, *walk(kernel.roots)))}

    def numbered(part: Any) -> Hashable:
        if isinstance(part, (Node, Value)):
            return numbers[part]
        return tuple(map(numbered, part)) if isinstance(part, tuple) else part

    nodes = tuple(numbered(node.content) for node in numbers if isinstance(node, Node))
    types = tuple(value.type for value in buffers)
    return nodes, types, kernel.parallel, kernel.bound, kernel.across, kernel.numerics, kernel.options


class KernelWriter(IndexWriter):
    """Writes a kernel without products; `ProductWriter` writes those with products."""

    def __init__(self, kernel: Kernel, name: str, labels: Mapping[Value, str], is_bundled: bool = False) -> None:
        super().__init__(kernel, name, labels, is_bundled)
        self.masking = analyse(kernel)
        self.text_axes: dict[Node, frozenset[Variable]] = {}  # the axes that the text of a value varies over

    # -- the function ------------------------------------------------------------------------------------------

    def source(self) -> KernelSource:
        body = list(self._scopes(self.schedule.nest))
        blocks = [f"BLOCK_{tile.name.upper()}: tl.constexpr" for tile in self.schedule.tiles if not tile.single]
        blocks += [f"{INDEX}: tl.constexpr"] if self.has_variants else []
        blocks += [f"{FLOAT8}: tl.constexpr"] if self.float8 is not None else []
        blocks += [f"{ORDER}: tl.constexpr = {self.order}"] if self.order is not None else []
        program = [self.program] if self.is_bundled else []
        arguments = [*program, *self.buffers.values(), *self.parameters.by_dim.values(), *blocks]
        head = f"def {self.name}({', '.join(arguments)}):"
        if len(head) > LINE_LENGTH:
            head = "\n".join([f"def {self.name}(", *(f"    {argument}," for argument in arguments), "):"])
        decorator = "@triton.jit(debug=True)" if self.kernel.checks else "@triton.jit"  # or they would be left out
        before = "\n".join([decorator, head, *self._doc()])
        text = "\n".join([before, *body])
        parameters = (*self.buffers.values(), *self.parameters.by_dim.values())
        return KernelSource(
            self.name, text + "\n", tuple(self.buffers), tuple(self.parameters.by_dim), parameters,
            self.schedule.tiles, self.schedule.warps, self.kernel.options, tuple(self.helpers),
            tuple(Access(number, number + line.lines - 1, is_wide(line.access, self.schedule))
                  for number, line in enumerate(body, before.count("\n") + 1) if isinstance(line, AccessLine)),
            self.extents if self.has_variants else (), self.float8, self.order,
        )  # fmt: skip

    def _doc(self) -> Iterator[str]:
        """The docstring: what is written from what."""
        named = [f"{name.removesuffix('_ptr')} {plain(str(value.type))}" for value, name in self.buffers.items()]
        written, read = named[len(self.kernel.inputs) :], named[: len(self.kernel.inputs)] or ["nothing"]
        line = f'    """{", ".join(written)} from {", ".join(read)}."""'
        if len(line) <= LINE_LENGTH:
            yield line
            return
        line = f'    """{written[0]}'
        for between, value in [*((", ", value) for value in written[1:]), (" from ", read[0]),
                               *((", ", value) for value in read[1:])]:  # fmt: skip
            if len(f"{line}{between}{value},") > LINE_LENGTH:
                yield f"{line}{between}".rstrip()
                line = f"    {value}"
            else:
                line += f"{between}{value}"
        yield from (f"{line}.", '    """')

    def _scopes(self, scopes: Sequence[Scope]) -> Iterator[str]:
        """The lines of a list of scopes; loops are rendered where they stand."""
        uses = count_uses(scopes)
        masks = Counter(self._mask_key(scope) for scope in scopes)
        for scope in scopes:
            self._scope(scope, uses, masks)
        yield from self.part.text()

    def _scope(self, scope: Scope, uses: Counter[Node], masks: Counter[object]) -> None:
        if isinstance(scope, Loop):
            self._loop(scope)
        elif isinstance(scope, Accumulate):
            assert isinstance(scope.reduce, Reduce)
            self._accumulate(scope.reduce)
        elif isinstance(scope, Reduce):
            self._finish(scope)
        elif isinstance(scope, Scan):
            self._scan(scope)
        elif isinstance(scope, Store):
            self._store(scope, masks)
        elif isinstance(scope, Check):
            self._check(scope, masks)
        else:
            assert isinstance(scope, Node)
            self._compute(scope, uses, masks)

    def _assign(self, node: Node, code: Code, fallback: str, hint: str | None = None) -> None:
        load = node if isinstance(node, Load) else None
        self.values[node] = self._assigned(code, node.hint if hint is None else hint, fallback, load)

    def _assigned(self, code: Code, hint: str, fallback: str = "value", load: Load | None = None) -> Code:
        """Write the line that assigns a value, which may be that of a load, to a name."""
        name = self.names.fresh(hint, fallback, here=True)
        line = f"{name} = {code.text}"
        self._line(line if load is None else marked(line, load))
        return Code(name)

    # -- values ------------------------------------------------------------------------------------------------

    def _compute(self, node: Node, uses: Counter[Node], masks: Counter[object]) -> None:
        if isinstance(node, Load):
            self._load(node, masks)
            return
        if isinstance(node, Constant):
            self.values[node] = number(node.value, node.dtype)
            return
        if node.as_index is not None and not uses[node]:
            return  # only comparisons of indices read it
        code, fallback = self._expression(node)
        self.text_axes[node] = self._axes_of_text(node)
        if uses[node] == 1 and len(code.text) <= INLINE_LENGTH:
            self.values[node] = code
        else:
            self._assign(node, code, fallback)

    def _axes_of_text(self, node: Node) -> frozenset[Variable]:
        """The axes that the text of a node varies over: not those of guards that it need not test."""
        if isinstance(node, Select) and not self._tests(node):
            return self._text_axes(node.operands[0])
        own = variables(*node.indices) if node.is_placed else frozenset[Variable]()
        return own.union(*map(self._text_axes, node.operands))

    def _text_axes(self, node: Node) -> frozenset[Variable]:
        return self.text_axes.get(node, node.axes)

    def _tests(self, node: Select) -> list[Code]:
        """The comparisons of a selection; none where the first operand has the value in every case."""
        implied = node in self.masking.implied
        return [] if implied else [test for guard in node.guards for test in self._guard(guard)]

    def _expression(self, node: Node) -> tuple[Code, str]:
        if isinstance(node, Apply) and indices_compared(node):
            compared = [self.index.code(index) for index in indices_compared(node)]
            return pointwise.write(node, compared, self._helper), node.name
        operands = [self.values[operand] for operand in node.operands]
        if isinstance(node, Index):
            return self._index_value(node), "index"
        if isinstance(node, Select):
            tests = self._tests(node)
            if not tests:
                return operands[0], "value"
            condition = tests[0].text if len(tests) == 1 else " & ".join(test.at(AND + 1) for test in tests)
            return pointwise.choose(condition, node.operands[:2], operands[:2]), "value"
        assert isinstance(node, Apply)
        return pointwise.write(node, operands, self._helper), node.name

    def _index_value(self, node: Index) -> Code:
        code = self.index.code(node.index)
        if not node.axes:
            return call("tl.cast", code, type_name(node.dtype))
        return method(code, "to", type_name(node.dtype))

    def _load(self, node: Load, masks: Counter[object]) -> None:
        address = self._address(node)
        mask = self._mask(node, masks)
        is_byte = node.buffer.dtype in FLOATS8
        fill = "0" if is_byte else number(self.masking.fills[node], node.dtype).text
        masked = f", mask={mask}, other={fill}" if mask else ""
        code = Code(f"tl.load({address}{masked})")
        if is_byte and not self._keeps_type(node):
            code = call(self._helper("from_float8"), code, type_name(node.buffer.dtype))
        elif node.dtype is F32 and node.buffer.dtype is not F32 and not self._keeps_type(node):
            code = method(code, "to", "tl.float32")
        self._assign(node, code, "x", self.labels[node.buffer])

    def _keeps_type(self, node: Load) -> bool:
        """Whether a load is used in the type of its buffer, rather than in the type that kernels compute in."""
        return False

    def _store(self, store: Store, masks: Counter[object]) -> None:
        address = self._address(store)
        mask = self._mask(store, masks)
        value = self.values[store.node].text
        self._line(marked(f"tl.store({address}, {value}{f', mask={mask}' if mask else ''})", store))

    def _check(self, check: Check, masks: Counter[object]) -> None:
        mask = self._mask(check, masks)
        condition = self.values[check.node].text
        self._line(f'tl.device_assert({condition}, "{check.message}"{f", mask={mask}" if mask else ""})')

    # -- reductions --------------------------------------------------------------------------------------------

    def _body(self, node: Reduce | Scan) -> Code:
        """The argument of a reduction or scan, with the lanes beyond the columns masked where they would count."""
        body = node.operands[0]
        columns = self._reduced_tile(node)
        assert columns is not None
        neutral = number(identity(node.kind, node.dtype), node.dtype)
        if columns.masked and node in self.masking.wheres:
            return call("tl.where", self._inside(columns), self.values[body], neutral)
        if not self._text_axes(body) & set(columns.axes):
            return call("tl.where", f"{self._tile(columns)} >= 0", self.values[body], neutral)
        return self.values[body]

    def _scan(self, node: Scan) -> None:
        code = self._scanned(node, self._body(node))
        if node.kind == "sum" and node.dtype.is_float and not node.exclusive:
            code = binary("+", SUM, code, Code("0.0"))  # of -0 alone 0
        self._assign(node, code, RUNNING[node.kind])

    def _scanned(self, node: Scan, body: Code) -> Code:
        """What a scan has combined to at each lane of a block."""
        axis, reverse = f"axis={self._reduced_position(node)}", ["reverse=True"] if node.reverse else []
        if node.exclusive:
            name, combine = self._elements(body).text, f"combine_fn={self._helper(f'{node.kind}_before')}"
            nothing = number(identity(node.kind, node.dtype), node.dtype)
            runs = f"(tl.full({name}.shape, {nothing.text}, {name}.dtype), {name})"
            return Code(f"{call('tl.associative_scan', runs, axis, combine, *reverse).text}[0]")
        if node.kind == "sum":
            code = call("tl.cumsum", body, axis, *reverse)
            return method(code, "to", type_name(node.dtype)) if is_narrow(node.dtype) else code
        if node.kind == "prod":
            return call("tl.cumprod", body, axis, *reverse)
        combine = f"combine_fn={self._helper(COMBINED[node.kind])}"
        return call("tl.associative_scan", body, axis, combine, *reverse)

    def _elements(self, body: Code) -> Code:
        """What is scanned, by a name, for text that has it several times."""
        return body if body.text.isidentifier() else self._assigned(body, "elements")

    def _reduced_tile(self, node: Reduce | Scan) -> Tile | None:
        """The tile axis that a reduction, or scan, is over."""
        return self.schedule.rows if set(node.bound) == set(self.kernel.across) else self.schedule.columns

    def _reduced_position(self, node: Reduce | Scan) -> int:
        """The position of that axis in the shape of a tile."""
        return self.schedule.shaped.index(self._reduced_tile(node))

    def _lane_tiles(self, node: Reduce) -> Sequence[Tile]:
        """The tile axes of the lanes that a reduction is accumulated in."""
        return self.schedule.shaped

    def _accumulators(self, loop: Loop) -> None:
        """Define what a loop accumulates in."""
        for scope in loop.body:
            node = scope.maximum if isinstance(scope, Carry) else getattr(scope, "reduce", None)
            if isinstance(node, Reduce):
                blocks = [f"BLOCK_{tile.name.upper()}" for tile in self._lane_tiles(node)]
                shape = f"({', '.join(blocks)}{',' if len(blocks) == 1 else ''})"
                neutral = number(identity(node.kind, node.dtype), node.dtype)
                name = self.names.fresh(f"{identifier(node.hint) or REDUCED[node.kind]}_lanes")
                self._line(f"{name} = tl.full({shape}, {neutral.text}, {type_name(node.dtype)})")
                self.values[node] = Code(name)

    def _loop(self, loop: Loop) -> None:
        self._accumulators(loop)
        outside, self.part = self.part, Part(self.part.indent + "    ")
        block = f"BLOCK_{loop.tile.name.upper()}"
        if loop.reverse:
            self.part.prelude["start"] = f"start = tl.cdiv({self._range(loop)}, {block}) * {block} - {block} - done"
        taken = set(self.names.taken)
        lines = list(self._scopes(loop.body))
        self.part = outside
        kept = (self.parameters.by_dim.values(), self.axis_names.values(), self.function_names.values())
        self.names.retired |= self.names.taken
        self.names.taken = taken.union(*kept)  # names made inside are free again
        self._line(f"for {'done' if loop.reverse else 'start'} in range(0, {self._range(loop)}, {block}):")
        self.part.lines.extend(marked(line.removeprefix(outside.indent), line) for line in lines)

    def _range(self, loop: Loop) -> str:
        """The end of the range of a loop."""
        return self.parameters.code(loop.tile.extent).text

    def _accumulate(self, node: Reduce) -> None:
        total, body = self.values[node].text, self._body(node)
        if node.dtype is BOOL:
            self._line(f"{total} = {total} {'|' if node.kind == 'max' else '&'} {body.at(AND)}")
        elif node.kind in ("sum", "prod"):
            self._line(f"{total} {'+' if node.kind == 'sum' else '*'}= {body.text}")
        else:
            self._line(f"{total} = {self._extremum(node)}")

    def _extremum(self, node: Reduce) -> str:
        """The maximum, or minimum, of what a lane has seen."""
        keep_nan = ["propagate_nan=tl.PropagateNan.ALL"] if node in self.masking.nan else []
        return call(f"tl.{node.kind}imum", self.values[node], self._body(node), *keep_nan).text

    def _finish(self, node: Reduce) -> None:
        body = self.values[node] if node in self.values else self._body(node)
        self._assign(node, self._reduced(node, body), REDUCED[node.kind])

    def _reduced(self, node: Reduce, body: Code) -> Code:
        two = len(self.schedule.shaped) > 1
        axis = f"axis={self._reduced_position(node)}"
        keep = ["keep_dims=True"] if two else []
        if node.dtype is BOOL:
            whole = call(f"tl.{node.kind}", method(body, "to", "tl.int32"), axis, *keep)
            return binary("!=", COMPARE, whole, Code("0"))
        if node.kind == "prod":
            return call("tl.reduce", body, axis, f"combine_fn={self._helper('multiply')}", *keep)
        if node in self.masking.nan:
            return call(self._helper(f"{node.kind}_or_nan"), body, axis, f"keep_dims={two}")
        code = call(f"tl.{node.kind}", body, axis, *keep)
        return method(code, "to", type_name(node.dtype)) if is_narrow(node.dtype) else code


def is_narrow(dtype: DType) -> bool:
    """Integers that Triton widens to 32 bits where it adds them up or finds their extrema."""
    return dtype.is_integer and dtype.bits < 32


def count_uses(scopes: Sequence[Scope]) -> Counter[Node]:
    """How often the text of a node would appear in these scopes; use inside a loop counts as often."""
    uses: Counter[Node] = Counter()

    def count(scope: Scope, weight: int) -> None:
        nodes: list[Node] = []
        if isinstance(scope, Loop):
            for inner in scope.body:
                count(inner, 2)
            return
        if isinstance(scope, Carry):
            uses[scope.point.elements] += 2 * weight
            return
        if isinstance(scope, Placed):
            scope = scope.node
        if isinstance(scope, Accumulate) and scope.point is not None and isinstance(scope.reduce, Reduce):
            nodes.append(computed_of_elements(scope.reduce, scope.point))
        else:
            nodes += scope.reduce.operands if isinstance(scope, Accumulate) else scope.below
        if isinstance(scope, Node) and indices_compared(scope):
            return
        if isinstance(scope, Load) or (isinstance(scope, Apply) and scope.name in REPEATED):
            nodes *= 2  # of a load they are in the address and in its guard
        for node in nodes:
            uses[node] += weight

    for scope in scopes:
        count(scope, 1)
    return uses
