"""Random well-typed modules for Hypothesis: every dtype, symbols, odd names, locations, regions, kernels, calls.

@given(modules())
def test_it(module): ...
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from irc import dims, ops
from irc.diagnostics import UNKNOWN, Location
from irc.dtypes import ALL, BOOL, F32, I64, STRING
from irc.ir import Block, Function, Region, Value
from irc.module import Module
from irc.op import Builder, const, return_, yield_
from irc.types import TensorType
from irc.weights import Tensor

UNARY = ("neg", "abs", "exp", "tanh", "sigmoid", "gelu", "softmax")
KERNEL = 9  # the depth that stands for: inside a kernel, pure operations only
BINARY = ("add", "sub", "mul", "maximum")
names = st.one_of(
    st.sampled_from(
        ["x", "h.0.attn", "/h/0/Add_output_0", "a-b$", "odd name", 'quo"te', "back\\slash", "é→", "_", "//", "0"]
    ),
    st.text(min_size=1, max_size=8),
)
symbol_names = st.one_of(
    st.sampled_from(["B", "S", "batch.size", "min", "f32", "odd name", 'q"', "a]b", "x, y", "in", "(", "_"]),
    st.text(min_size=1, max_size=5),
)
texts = st.one_of(st.none(), names)
locations = st.one_of(
    st.just(UNKNOWN),
    st.builds(Location, texts, st.integers(0, 99), st.integers(0, 99), texts, st.lists(names, max_size=2).map(tuple)),
)


@st.composite
def tensors(draw: st.DrawFn, dtype: object = None) -> Tensor:
    """A small unnamed tensor of any dtype, with any bits."""
    chosen = draw(st.sampled_from(ALL)) if dtype is None else dtype
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = int(np.prod(shape, dtype=int))
    if chosen is STRING:
        array = np.empty(count, object)
        array[:] = draw(st.lists(st.text(max_size=5), min_size=count, max_size=count))
        return Tensor.of(array.reshape(shape), STRING)
    size = chosen.packed_bytes(count)
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if chosen is BOOL:
        data = bytearray(byte & 1 for byte in data)
    elif chosen.sub_byte and size and count * chosen.bits % 8:
        data[-1] &= (1 << count * chosen.bits % 8) - 1
    if count and draw(st.booleans()):  # one element for many, often an odd one
        array = Tensor.packed(chosen, shape, bytes(data)).array()
        return Tensor.of(np.broadcast_to(array.reshape(-1)[:1].reshape(()), shape), chosen)
    return Tensor.packed(chosen, shape, bytes(data))


class _Maker:
    """Builds one function; `values` are the f32 values that may be used where building goes on."""

    def __init__(self, draw: st.DrawFn, function: Function, callees: list[Function]) -> None:
        self.draw, self.function, self.callees = draw, function, callees

    def value(self, values: list[Value]) -> Value:
        return self.draw(st.sampled_from(values))

    def name(self) -> str:
        return self.draw(st.one_of(st.just(""), names))

    def fill(self, block: Block, values: list[Value], depth: int) -> list[Value]:
        """Append some operations to a block; returns the values that can be used after them."""
        values = list(values)
        kinds = ["unary", "binary", "const", "dim", "shape", "wide"]
        if depth != KERNEL:
            kinds += ["bind", "refine", "extern", *(["if", "loop", "kernel"] if depth < 2 else [])]
            kinds += ["call"] if self.callees else []
        for kind in self.draw(st.lists(st.sampled_from(kinds), max_size=6 if depth == 0 else 3)):
            with Builder(block, location=self.draw(locations)):
                values += getattr(self, f"make_{kind}")(values, depth)
        return values

    def make_unary(self, values: list[Value], depth: int) -> list[Value]:
        x = self.value(values)
        return [ops.TABLE[self.draw(st.sampled_from(UNARY))](x, name=self.name())]

    def make_binary(self, values: list[Value], depth: int) -> list[Value]:
        x = self.value(values)
        return [ops.TABLE[self.draw(st.sampled_from(BINARY))](x, x, name=self.name())]

    def make_const(self, values: list[Value], depth: int) -> list[Value]:
        const(value=self.draw(tensors()), name=self.name())
        return []

    def symbol(self, stem: str) -> dims.Symbol:
        low = self.draw(st.integers(0, 3))
        return self.function.fresh_symbol(
            self.draw(st.one_of(st.just(stem), symbol_names)), low, low + 40, self.draw(st.integers(1, 3))
        )

    def dim(self, values: list[Value]) -> dims.Dim:
        known: list[dims.Dim] = [dim for value in values for dim in value.type.shape or ()]
        x, y = (self.draw(st.sampled_from([*known, 1, 2, 7])) for _ in range(2))
        choices = [x, x + y, x * y, (x + 31) // 32, x % 4, dims.minimum(x, y)]
        if 1 in (x, y) or dims.equal(x, y) is not False:
            choices.append(dims.broadcast(x, y))
        return self.draw(st.sampled_from(choices))

    def make_dim(self, values: list[Value], depth: int) -> list[Value]:
        ops.TABLE["dim"](value=tuple(self.dim(values) for _ in range(self.draw(st.integers(0, 3)))), name=self.name())
        return []

    def make_bind(self, values: list[Value], depth: int) -> list[Value]:
        builder, scalar = Builder.active(), const(value=Tensor.of(3, I64))
        symbol = self.symbol("n")
        builder.create(ops.TABLE["bind"], [scalar], {"symbol": symbol}, symbols=[symbol])
        return [ops.TABLE["iota"](shape=(symbol.expr, 2), axis=0, dtype=F32, name=self.name())]

    def make_refine(self, values: list[Value], depth: int) -> list[Value]:
        x, symbol = self.value(values), self.symbol("u")
        shape = self.draw(
            st.sampled_from([(symbol.expr,), (2 * symbol.expr, symbol.expr), (symbol.expr, symbol.expr + 1)])
        )
        unranked = self.extern([x], [TensorType(F32, None)])
        operation = Builder.active().create(
            ops.TABLE["refine"], unranked, types=[TensorType(F32, shape)], symbols=[symbol]
        )
        return list(operation.results)

    def make_shape(self, values: list[Value], depth: int) -> list[Value]:
        x = self.value(values)
        return [ops.TABLE["reshape"](x, shape=(x.type.elements,), name=self.name())]

    def make_wide(self, values: list[Value], depth: int) -> list[Value]:
        x = self.value(values)
        return [
            ops.TABLE["cast"](ops.TABLE["cast"](x, to=self.draw(st.sampled_from(ALL[:8]))), to=F32, name=self.name())
        ]

    def extern(
        self, operands: list[Value | None], types: list[TensorType], symbols: tuple[dims.Symbol, ...] = ()
    ) -> list[Value]:
        attribute = st.one_of(
            st.integers(-9, 9), st.floats(), st.text(max_size=5), tensors(),
            st.lists(st.text(max_size=3), max_size=2).map(tuple),
            st.lists(st.integers(-5, 5), max_size=3).map(tuple), st.booleans(),
            st.lists(st.tuples(st.integers(0, 1), st.floats()), max_size=2).map(tuple),
        )  # fmt: skip
        attributes = {
            "domain": self.draw(names), "op_type": "Odd", "version": 1,
            "attributes": self.draw(st.dictionaries(names, attribute, max_size=3)),
        }  # fmt: skip
        operation = Builder.active().create(ops.TABLE["extern"], operands, attributes, types=types, symbols=symbols,
                                            names=[self.name() for _ in types])  # fmt: skip
        return list(operation.results)

    def make_extern(self, values: list[Value], depth: int) -> list[Value]:
        symbols = (self.symbol("e"), self.symbol("e"))
        types = [TensorType(F32, (symbols[1].expr, 2)), TensorType(F32, (symbols[0].expr, symbols[1].expr))]
        return self.extern([self.value(values), None, self.value(values)], types, symbols)

    def region(self, values: list[Value], depth: int, yielded: Value, arguments: Block | None = None) -> Region:
        block = arguments or Block()
        region = Region(block)
        self.fill(block, values, depth + 1)
        with Builder(block) as builder:
            builder.create(yield_, [yielded])
        return region

    def make_if(self, values: list[Value], depth: int) -> list[Value]:
        builder, x = Builder.active(), self.value(values)
        condition = const(value=Tensor.of(True, BOOL))
        regions = [self.region(values, depth, x), self.region(values, depth, x)]
        return list(
            builder.create(ops.TABLE["if"], [condition], types=[x.type], regions=regions, names=[self.name()]).results
        )

    def make_loop(self, values: list[Value], depth: int) -> list[Value]:
        builder, x = Builder.active(), self.value(values)
        symbol = self.symbol("t")
        carried = TensorType(F32, (symbol.expr,))
        block = Block([TensorType(I64, ()), TensorType(BOOL, ()), carried], [self.name(), self.name(), self.name()])
        region = Region(block)
        self.fill(block, [*values, block.arguments[2]], depth + 1)
        with Builder(block) as inner:
            inner.create(yield_, [block.arguments[1], block.arguments[2], x])
        scanned = TensorType(F32, None if x.type.shape is None else (self.symbol("r").expr, *x.type.shape))
        outside = self.symbol("out")
        defined = [symbol, outside, *(s for s in scanned.symbols()[:1])]
        start = self.extern([], [TensorType(F32, None)])
        types = [TensorType(F32, (outside.expr,)), scanned]
        operation = builder.create(ops.TABLE["loop"], [None, None, *start], types=types, regions=[region],
                                   symbols=defined)  # fmt: skip
        return list(operation.results)

    def make_kernel(self, values: list[Value], depth: int) -> list[Value]:
        builder, operands = Builder.active(), [self.value(values) for _ in range(self.draw(st.integers(1, 2)))]
        block = Block([value.type for value in operands], [self.name() for _ in operands])
        region = Region(block)
        inner = self.fill(block, block.arguments, KERNEL)
        with Builder(block) as inside:
            inside.create(yield_, [inner[-1]])
        attributes = {"name": self.draw(names), "kind": "pointwise"}
        return list(
            builder.create(ops.TABLE["kernel"], operands, attributes, regions=[region], names=[self.name()]).results
        )

    def make_call(self, values: list[Value], depth: int) -> list[Value]:
        callee = self.draw(st.sampled_from(self.callees))
        # Of any size: the verifier compares the type of the result with the size of the operand.
        symbol = self.function.fresh_symbol(self.draw(st.one_of(st.just("c"), symbol_names)))
        operand = self.value(values)
        if operand.type.shape is None or len(operand.type.shape) != 1:
            operand = self.make_shape([operand], depth)[0]
        types = [TensorType(F32, (symbol.expr,))]
        return list(
            Builder.active()
            .create(ops.TABLE["call"], [operand], {"callee": callee.name}, types=types, symbols=[symbol])
            .results
        )


@st.composite
def modules(draw: st.DrawFn) -> Module:
    """A module of one to three functions over f32 values; the others can be called by those after them."""
    module = Module(draw(names))
    callees: list[Function] = []
    for function_name in draw(
        st.lists(names, min_size=0, max_size=2, unique=True).map(lambda chosen: [*chosen, "main "])
    ):
        function = Function(function_name, location=draw(locations))
        for symbol_name in draw(st.lists(symbol_names, min_size=1, max_size=3, unique=True)):
            low = draw(st.integers(0, 4))
            limits = draw(st.sampled_from([(dims.IMPORTED_LOW, dims.IMPORTED_HIGH, 1), (low, low + 64, 4)]))
            function.symbol(symbol_name, *limits)
        symbols = [symbol.expr for symbol in function.symbols.values()]
        is_callee = function_name != "main "
        for shape in [(symbols[0],)] if is_callee else [(symbols[0],), (symbols[-1], 8), (2, 3)]:
            function.block.add_argument(TensorType(F32, shape), draw(st.one_of(st.just(""), names)))
        values = _Maker(draw, function, callees).fill(function.block, function.arguments, 0)
        results = [function.arguments[0]] if is_callee else draw(st.lists(st.sampled_from(values), max_size=3))
        with Builder(function.block, location=draw(locations)) as builder:
            builder.create(return_, results)
        if draw(st.booleans()):
            function.result_names = tuple(
                draw(st.lists(names, min_size=len(results), max_size=len(results), unique=True))
            )
        fitting = [(place, argument) for place, value in enumerate(results) for argument in function.arguments
                   if value.type == argument.type]  # fmt: skip
        if fitting and draw(st.booleans()):
            function.updates = dict([draw(st.sampled_from(fitting))])
        module.add(function)
        if is_callee:
            callees.append(function)
    return module
