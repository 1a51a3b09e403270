"""Each rule of the verifier is broken once, and exactly that rule is reported."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import modules

from irc import dims, ops
from irc.diagnostics import IrcError, Location
from irc.dtypes import BOOL, F32, I64
from irc.ir import Block, Function, Operation, Region, Value
from irc.module import Module
from irc.op import Builder, const, return_, yield_
from irc.parser import parse
from irc.types import TensorType
from irc.verifier import MOST, check, verify
from irc.verifier.rules import VERIFIER_RULES
from irc.weights import Tensor

VECTOR = TensorType(F32, (4,))
TEXT = """irc text 1
module @m {
  func @double(%d: f32[4]) -> f32[4] {
    %dd = add %d, %d : f32[4]
    return %dd
  }
  func @main<B>(%x: f32[4], %y: f32[B]) -> (out: f32[4], f: f32[4]) {
    %c = const true : bool[]
    %n = const 3 : i64[]
    bind %n {symbol = ?u in (0, 8)}
    %z = iota {shape = [u], axis = 0, dtype = f32} : f32[u]
    %e = exp %x : f32[4] loc(#1)
    %k = kernel @k (%p = %e) {kind = "pointwise"} : f32[4] {
      %q = tanh %p : f32[4]
      yield %q
    }
    %i = if %c : f32[4] {
      %t = neg %k : f32[4]
      yield %t
    } else {
      yield %k
    }
    %f = call @double %i : f32[4]
    return %i, %f
  }
}
#1 = loc("model.py":7:2, "block.exp")
"""


# The errors by which the parser rejects examples of pages.
PARSED = {
    "V1": "text.undefined_name", "V2": "text.undefined_name", "V4": "text.redefined_name", "V5": "type.dtype",
    "V7": "text.type_mismatch", "V8": "text.syntax", "V9": "type.region", "V11": "dim.redeclared",
    "V12": "dim.unbound",
}  # fmt: skip


def broken(change: Callable[[Function, dict[str, Operation]], object]) -> list[str]:
    """The rules that fail in the module above after a change."""
    module = parse(TEXT)
    verify(module)
    main = module.functions["main"]
    operations = {
        operation.results[0].name if operation.results else operation.name: operation for operation in main.walk()
    }
    change(main, operations)
    failures = list(check(module))
    assert failures
    with pytest.raises(IrcError) as caught:
        verify(module)
    codes = [VERIFIER_RULES[failure.rule].code for failure in failures[:MOST]]
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == codes
    return [failure.rule for failure in failures]


def add_before(operation: Operation, new: Operation) -> Operation:
    assert operation.block is not None
    return operation.block.insert(new, operation)


def unary(name: str, operand: Value) -> Operation:
    return Operation(ops.TABLE[name], [operand], {}, [operand.type])


def test_use_before_definition():
    def change(main, by_name):
        late = by_name["i"]
        add_before(by_name["e"], unary("tanh", late.result))

    assert broken(change) == ["V1"]


def test_use_of_what_a_region_defines():
    assert broken(lambda main, by_name: add_before(by_name["f"], unary("tanh", by_name["t"].result))) == ["V1"]


def test_kernel_captures():
    assert broken(lambda main, by_name: by_name["q"].set_operand(0, main.arguments[0])) == ["V2"]


def test_stale_use_lists():
    def forget(main, by_name):
        del main.arguments[0].uses[by_name["e"], 0]

    def leave_behind(main, by_name):
        unary("tanh", main.arguments[0])  # never inserted

    def wrong_owner(main, by_name):
        by_name["e"].result.owner = by_name["k"]

    for change in (forget, leave_behind, wrong_owner):
        assert broken(change) == ["V3"]


def test_names():
    def change(main, by_name):
        by_name["e"].result.name = "t"

    assert broken(change) == ["V4"]


def test_operands():
    assert broken(lambda main, by_name: by_name["e"].set_operands([])) == ["V5"]
    assert broken(lambda main, by_name: by_name["e"].set_operand(0, by_name["c"].result)) == ["V5"]


@pytest.mark.parametrize(
    "attributes", [{}, {"shape": (4,), "axis": 0, "dtype": F32, "more": 1}, {"shape": [4], "axis": 0, "dtype": F32},
                   {"axis": 0, "shape": (4,), "dtype": F32}, {"shape": (4,), "axis": False, "dtype": F32}],
)  # fmt: skip
def test_attributes(attributes):
    def change(main, by_name):
        by_name["z"].attributes = attributes

    assert broken(change) == ["V6"]


def test_result_types():
    def change(main, by_name):
        by_name["z"].result.type = TensorType(F32, (5,))

    assert broken(change) == ["V7"]
    assert broken(lambda main, by_name: by_name["z"].results.clear()) == ["V7"]


def test_declared_types():
    def change(main, by_name):
        refine = Operation(ops.TABLE["refine"], [main.arguments[0]], {}, [TensorType(F32, (5,))])
        add_before(by_name["e"], refine)

    assert broken(change) == ["V7"]


def test_blocks_end_once():
    assert broken(lambda main, by_name: by_name["return"].erase()) == ["V8"]
    assert broken(lambda main, by_name: add_before(by_name["f"], Operation(return_, main.arguments[:1]))) == ["V8"]
    assert broken(lambda main, by_name: by_name["t"].block.last.erase()) == ["V8"]


def test_regions_fit():
    def yields_too_much(main, by_name):
        ending = by_name["t"].block.last
        ending.set_operands([*ending.operands, *ending.operands])

    def argument_type(main, by_name):
        by_name["k"].set_operand(0, main.arguments[1])  # f32[B] where the region takes f32[4]: not provably wrong
        by_name["k"].regions[0].block.arguments[0].type = TensorType(F32, (5, 5))

    assert broken(yields_too_much) == ["V9"]
    assert set(broken(argument_type)) == {"V7", "V9"}


def test_kernel_is_pure():
    def change(main, by_name):
        inside = by_name["q"]
        condition = Operation(const, (), {"value": Tensor.of(True, BOOL)}, [TensorType(BOOL, ())])
        add_before(inside, condition)
        add_before(inside, Operation(ops.TABLE["assert"], [condition.result], {"message": "no"}))

    assert broken(change) == ["V10"]


def test_symbol_made_twice():
    def again(main, by_name):
        bind = by_name["bind"]
        symbol = bind.attributes["symbol"]
        add_before(bind, Operation(ops.TABLE["bind"], bind.operands, {"symbol": symbol}, symbols=[symbol]))

    def namesake(main, by_name):
        symbol = dims.symbol("B")
        add_before(
            by_name["e"], Operation(ops.TABLE["bind"], by_name["bind"].operands, {"symbol": symbol}, symbols=[symbol])
        )

    assert broken(again) == ["V11"]
    assert broken(namesake) == ["V11"]


def test_symbol_before_its_definition():
    def change(main, by_name):
        symbol = by_name["bind"].attributes["symbol"]
        attributes = {"shape": (symbol.expr,), "axis": 0, "dtype": F32}
        early = Operation(ops.TABLE["iota"], [], attributes, [TensorType(F32, (symbol.expr,))])
        add_before(by_name["bind"], early)

    assert broken(change) == ["V12", "V12"]  # in the attribute and in the type


def test_symbol_of_another_function():
    def change(main, by_name):
        main.arguments[1].type = TensorType(F32, (dims.symbol("B").expr,))

    assert broken(change) == ["V12"]


def test_symbol_behind_its_region():
    """A symbol of a loop's argument is visible inside the loop only."""
    text = """irc text 1
module @m {
  func @main<N>(%x: f32[N]) -> f32[?] {
    %y = loop _, _, %x : f32[?out in (0, 9)] {
      (%i: i64[], %go: bool[], %a: f32[?t in (0, 9)])
      %d = dim {value = t} : i64[]
      yield %go, %a
    }
    return %y
  }
}
""".replace("f32[?] {", "f32[out] {").replace("{\n      (%i", "{ (%i")
    module = parse(text)
    verify(module)
    (loop,) = [operation for operation in module.walk() if operation.name == "loop"]
    symbol = next(symbol for symbol in loop.symbols if symbol.name == "t")
    ending = module.main.block.terminator
    ending.block.insert(Operation(ops.TABLE["dim"], [], {"value": symbol.expr}, [TensorType(I64, ())]), ending)
    assert [failure.rule for failure in check(module)] == ["V12"]


def test_calls():
    def target(main, by_name):
        by_name["f"].attributes["callee"] = type(by_name["f"].attributes["callee"])("nobody")

    def operands(main, by_name):
        by_name["f"].set_operand(0, by_name["n"].result)

    def result(main, by_name):
        by_name["f"].result.type = TensorType(F32, (3,))

    def count(main, by_name):
        by_name["f"].set_operands([])

    for change in (target, operands, result, count):
        assert broken(change) == ["V13"]


def test_recursion():
    text = TEXT.replace("%dd = add %d, %d : f32[4]", "%dd = call @double %d : f32[4]")
    assert [failure.rule for failure in check(parse(text))] == ["V13"]


def test_call_binds_the_symbols_of_its_target():
    text = """irc text 1
module @m {
  func @pair<N>(%a: f32[N], %b: f32[N, 2]) -> f32[2*N] {
    %r = iota {shape = [2*N], axis = 0, dtype = f32} : f32[2*N]
    return %r
  }
  func @main(%x: f32[3], %y: f32[3, 2]) -> f32[6] {
    %z = call @pair %x, %y : f32[6]
    return %z
  }
}
"""
    verify(parse(text))
    wrong = [text.replace("%x: f32[3]", "%x: f32[4]"), text.replace("f32[6]", "f32[7]")]
    for each in wrong:
        assert [failure.rule for failure in check(parse(each))] == ["V13"]


def test_result_names():
    def missing(main, by_name):
        main.result_names = ("one",)

    def twice(main, by_name):
        main.result_names = ("one", "one")

    assert broken(missing) == ["V14"]
    assert broken(twice) == ["V14"]


def test_updates():
    def of_another_type(main, by_name):
        main.updates = {0: main.arguments[1]}

    def of_nothing(main, by_name):
        main.updates = {2: main.arguments[0]}

    def of_no_argument(main, by_name):
        main.updates = {0: by_name["e"].result}

    def twice(main, by_name):
        main.updates = {0: main.arguments[0], 1: main.arguments[0]}

    for change in (of_another_type, of_nothing, of_no_argument, twice):
        assert broken(change) == ["V15"]


def test_defaults():
    four = Tensor.of([0.0, 1.0, 2.0, 3.0], F32)

    def of_another_type(main, by_name):
        main.defaults = {main.arguments[0]: Tensor.of([0, 1, 2, 3], I64)}

    def of_another_extent(main, by_name):
        main.defaults = {main.arguments[0]: Tensor.of([0.0, 1.0, 2.0], F32)}

    def of_another_rank(main, by_name):
        main.defaults = {main.arguments[1]: Tensor.of(0.5, F32)}

    def of_no_argument(main, by_name):
        main.defaults = {by_name["e"].result: four}

    def of_what_is_updated(main, by_name):
        main.defaults = {main.arguments[0]: four}
        main.updates = {0: main.arguments[0]}

    for change in (of_another_type, of_another_extent, of_another_rank, of_no_argument, of_what_is_updated):
        assert broken(change) == ["V16"], change.__name__


def test_every_rule_is_broken_above():
    with open(__file__) as file:
        source = file.read()
    assert list(VERIFIER_RULES) == [f"V{number}" for number in range(1, 17)]
    assert [number for number in VERIFIER_RULES if f'"{number}"' not in source] == []


@pytest.mark.parametrize("number", [number for number, rule in VERIFIER_RULES.items() if "func @" in rule.example])
def test_the_example_of_a_page_breaks_its_rule(number):
    """Text cannot state all of them: the parser rejects uses of what is not defined, and infers types itself."""
    text = VERIFIER_RULES[number].example.partition("\n")[2]
    try:
        failures = check(parse(f"irc text 1\nmodule @m {{\n{text}\n}}\n"))
    except IrcError as error:
        assert error.code == PARSED[number]
    else:
        assert {failure.rule for failure in failures} == {number} and number not in PARSED


def test_error_says_rule_and_place():
    module = parse(TEXT)
    exp = next(operation for operation in module.walk() if operation.name == "exp")
    exp.set_operands([])
    with pytest.raises(IrcError) as caught:
        verify(module)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.location == Location("model.py", 7, 2, "block.exp")
    assert diagnostic.message == "V5: @main: exp: 0 operands given"


def test_at_most_twenty_failures():
    function = Function("main", [VECTOR])
    with Builder(function.block) as builder:
        for _ in range(100):
            ops.TABLE["neg"](function.arguments[0]).type = TensorType(F32, (5,))
        builder.create(return_, [])
    with pytest.raises(IrcError) as caught:
        verify(Module("m", [function]))
    assert len(caught.value.diagnostics) == MOST


def test_function_under_another_name():
    module = parse(TEXT)
    module.functions["double"].name = "other"
    assert "V4" in [failure.rule for failure in check(module)]


def test_deep_regions():
    """The walk bears what the parser admits."""
    function = Function("main", [TensorType(BOOL, ())])
    inner = function.arguments[0]
    block = Block()
    with Builder(block) as builder:
        builder.create(yield_, [inner])
    for _ in range(60):
        other, outer = Block(), Block()
        with Builder(other) as builder:
            builder.create(yield_, [inner])
        with Builder(outer) as builder:
            regions = [Region(block), Region(other)]
            result = builder.create(ops.TABLE["if"], [inner], types=[inner.type], regions=regions).result
            builder.create(yield_, [result])
        block = outer
    region = Region(block)
    with Builder(function.block) as builder:
        other = Block()
        with Builder(other) as inside:
            inside.create(yield_, [inner])
        results = builder.create(ops.TABLE["if"], [inner], types=[inner.type], regions=[region, Region(other)]).results
        builder.create(return_, results)
    verify(Module("m", [function]))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(modules())
def test_random_modules_are_well_formed(module):
    verify(module)
    verify(module.clone())
