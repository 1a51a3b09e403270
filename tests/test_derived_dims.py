"""Large dims become derived symbols: the laws of dims hold with them, and so do text, passes and both backends."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc import dims, interpreter
from irc.diagnostics import IrcError
from irc.dims import LIMIT, Derived, Dim, Expr, Function, derived_below, equal, evaluate, expression, maximum, symbol
from irc.driver.models import find_backend
from irc.driver.running import run_onnx, run_triton
from irc.frontends.onnx import from_model
from irc.ir import mentioned_dims
from irc.kernel import derive
from irc.kernel.dag import Load, walk
from irc.kernel.traffic import count as traffic
from irc.module import Module, difference
from irc.op import trace
from irc.ops import add, concat, dim
from irc.parser import parse
from irc.passes.dce import eliminate
from irc.verifier import verify
from tests import chains
from tests.growth import assert_linear_time, calls_of
from tests.onnx_models import NO_FOLDER, check_close, in_runtime

b, s, t = (symbol(name).expr for name in "BST")


def large(x: Dim, y: Dim) -> Dim:
    """A dim whose definition is just over the limit."""
    dim = x
    while isinstance(dim, Expr) and not isinstance(sole(dim), Derived):
        dim = maximum(dim // 2 + y, 90 - dim)
    return dim


def sole(d: Dim) -> Any:
    return d.terms[0][0][0][0] if isinstance(d, Expr) and len(d.terms) == 1 and d.terms[0][0] else None


# -- dims -----------------------------------------------------------------------------------------------------------


def test_the_same_definition_is_the_same_symbol() -> None:
    d = large(s, t)
    assert sole(d) is sole(large(s, t)) and sole(d) is not sole(large(t, s))
    assert sole(d).definition.size > LIMIT and d.size == 1 and str(d) == f"${sole(d).name}"
    assert dims.free_symbols(d) == (sole(s), sole(t)) and dims.bounds(d) == dims.bounds(sole(d).definition)


def test_values_and_questions_look_into_definitions() -> None:
    d = large(s, t)
    definition = sole(d).definition
    for sizes in ({sole(s): 3, sole(t): 90}, {sole(s): 50, sole(t): 1}):
        assert evaluate(d, sizes) == evaluate(definition, sizes)
        assert dims.substitute(d, sizes) == evaluate(d, sizes)
        assert dims.estimate(d + 1, sizes) == evaluate(d, sizes) + 1
    assert dims.substitute(d, {sole(s): t, sole(t): s}) == large(t, s)
    assert equal(2 * d, 2 * d) is True and equal(d + 1, d) is False and dims.less(d, d) is False
    assert dims.linear_in(d + s, sole(s)) is None and dims.linear_in(d + b, sole(b)) == (1, d)
    sizes = dims.evaluate_array(d, {sole(s): np.array([3, 50]), sole(t): np.array([90, 1])})
    assert np.array_equal(sizes, [evaluate(d, {sole(s): x, sole(t): y}) for x, y in ((3, 90), (50, 1))])


def test_a_chain_of_definitions_is_evaluated_once_and_without_recursion() -> None:
    stages, d = [], s
    for _ in range(1500):
        d = expression.derived(d // 2 + t)
        stages.append(d)
    assert len(derived_below([d])) == 1500
    for size in (1, 2, 3):
        expected = size
        for _ in range(1500):
            expected = expected // 2 + 5
        assert [evaluate(stage, {sole(s): size, sole(t): 5}) for stage in stages][-1] == expected
        assert evaluate(dims.substitute(d, {sole(t): 5}), {sole(s): size}) == expected
    few, many = (calls_of(lambda stage=stages[count - 1]: evaluate(dims.substitute(stage, {sole(t): 5}), {sole(s): 9}))
                 for count in (150, 1500))  # fmt: skip
    assert many < 10 * 1.5 * few


def test_no_dim_is_larger_than_the_limit() -> None:
    parts = [symbol(f"P{index}").expr // 2 + 1 for index in range(9)]
    bounded = [dims.product(parts), dims.total(part * part for part in parts), maximum(*parts, *(p * 3 for p in parts)),
               dims.product(parts) // dims.product(parts[:4]), dims.broadcast(*parts)]  # fmt: skip
    for d in bounded:
        assert d.size <= LIMIT
    sizes = {atom: 4 for part in parts for atom in dims.free_symbols(part)}
    assert evaluate(bounded[0], sizes) == 3**9 and evaluate(bounded[1], sizes) == 81
    assert evaluate(bounded[2], sizes) == 9 and evaluate(bounded[3], sizes) == 3**5 and evaluate(bounded[4], sizes) == 3
    assert equal(bounded[0], dims.product(reversed(parts))) is not False


@contextmanager
def limited(limit: int) -> Iterator[None]:
    """A small limit on dims, for a while; what was computed with another one is not remembered."""

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("irc.dims") or name == "irc.index_map":
                for function in vars(module).values():
                    getattr(function, "cache_clear", lambda: None)()

    before = expression.LIMIT
    forget()
    expression.LIMIT = limit
    try:
        yield
    finally:
        expression.LIMIT = before
        forget()


@pytest.fixture(scope="class")
def limit_of_four() -> Iterator[None]:
    with limited(4):
        yield


@pytest.fixture
def limit_of_three() -> Iterator[None]:
    with limited(3):
        yield


@pytest.mark.usefixtures("limit_of_four")
class TestLawsOfDims:
    """The laws that tests/test_dims_random.py compares with brute force, where almost every sum is a derived symbol."""

    from tests.test_dims_random import (
        test_answers_are_never_wrong,
        test_simplification_keeps_values,
        test_substitution_keeps_values,
    )

    test_answers_are_never_wrong = staticmethod(test_answers_are_never_wrong)
    test_simplification_keeps_values = staticmethod(test_simplification_keeps_values)
    test_substitution_keeps_values = staticmethod(test_substitution_keeps_values)


# -- text -----------------------------------------------------------------------------------------------------------


def written(extent: str, definitions: str = "", signature: str = "", use: str = "") -> str:
    return (f"irc text 1\nmodule @m {{\n  func @main<S, T{signature}>(%x: f32[S]{use}) -> f32[{extent}] {{\n"
            f"    {definitions}\n    %y = concat %x, %x {{axis = 0}} : f32[2*S]\n"
            f"    %z = refine %y : f32[{extent}]\n    return %z\n  }}\n}}\n")  # fmt: skip


def test_a_definition_is_written_once_before_its_first_mention() -> None:
    d = large(s, t)
    module = trace(lambda x: add(dim(value=d), concat(dim(value=(d + 1,)), x, axis=0)), "i64[3]")
    module.main.symbols.update({name: sole(extent) for name, extent in (("S", s), ("T", t))})
    text = str(module)
    assert text.count(f"{d} = [") == 1 and text.index(f"{d} = [") < text.index("dim {")
    again = parse(text)
    assert difference(again, module) is None and str(again) == text
    verify(again)


def test_definitions_by_hand() -> None:
    for text in (
        written("$n", "$n = [min(T, 2*S)]"),
        written("$n", signature=", $n = [max(2*S, T)]", use=", %w: f32[$n]"),
        written("$of_both + 1", '$half = [S//2]\n    $of_both = [$half*T + "T"]'),
    ):
        module = parse(text)
        verify(module)
        again = parse(str(module))
        assert difference(again, module) is None and str(again) == str(module)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (written("$n"), "dim.syntax", "no derived symbol $n is defined above"),
        (written("$n", "$n = [S + Q]"), "dim.unbound", "no symbol `Q`"),
        (written("$n", "$n = [S + ]"), "dim.syntax", "found the end"),
        (written("$n", "$n = [S + T]\n    $n = [S]"), "text.redefined_name", "$n is defined twice"),
        (written("$n", "$n = [$m + 1]\n    $m = [S]"), "dim.syntax", "no derived symbol $m"),
        (written("S", signature=", $n = [Q]"), "dim.unbound", "no symbol `Q`"),
        (written("S", "$n [S]"), "text.syntax", "unexpected"),
    ],
)
def test_what_is_wrong_with_a_definition(text: str, code: str, message: str) -> None:
    with pytest.raises(IrcError) as caught:
        parse(text)
    assert caught.value.code == code and message in str(caught.value)


def test_a_definition_over_symbols_that_are_not_visible() -> None:
    stray = large(s, t)
    module = trace(lambda x: concat(x, x, axis=0), "f32[?S in (1, 9)]")
    module.main.returned[0].type = module.main.returned[0].type.with_shape([stray])
    with pytest.raises(IrcError, match="V12") as caught:
        verify(module)
    assert "mentions S, which is not visible here" in str(caught.value)


# -- graphs ---------------------------------------------------------------------------------------------------------

SIZES = ({"N": 1, "H": 37, "W": 50, "B": 2, "S": 5, "T": 3}, {"N": 2, "H": 8, "W": 5, "B": 1, "S": 1, "T": 4},
         {"N": 1, "H": 1, "W": 2, "B": 3, "S": 11, "T": 1})  # fmt: skip


def sizes_of(number: int) -> dict[str, int]:
    return {**SIZES[number], **{f"S{index}": 1 + (7 * index + number) % 5 for index in range(24)}}


def all_dims(module: Module) -> Iterator[Dim]:
    for operation in module.walk():
        yield from mentioned_dims(operation)


@pytest.mark.parametrize("name", [*chains.SIZES])
def test_stages_are_imported_in_linear_time(name: str) -> None:
    protos = [chains.SIZES[name](stages) for stages in (25, 50)]
    module = from_model(protos[1], NO_FOLDER)
    verify(module)
    assert all(isinstance(d, int) or d.size <= LIMIT for d in all_dims(module))
    assert max(map(len, str(module).splitlines())) < 6000
    few, many = (calls_of(lambda proto=proto: from_model(proto, NO_FOLDER)) for proto in protos)
    assert many < 2 * 1.3 * few


def test_dims_of_many_pools_stop_growing() -> None:
    """Extents that are halved until nothing is left of them: the divisions must not nest."""
    largest = [max(d.size for d in all_dims(from_model(chains.SIZES["SAME pools"](stages), NO_FOLDER))
                   if not isinstance(d, int)) for stages in (80, 320)]  # fmt: skip
    assert largest[0] == largest[1]


@pytest.mark.parametrize("names", [lambda index: f"S{index}", lambda index: None, lambda index: f"d{index}"])
def test_many_inputs_are_imported_in_linear_time(names: Callable[[int], str | None]) -> None:
    """Each input has a dim of its own: named, without a name, or named as irc names what has no name."""
    protos = {count: chains.joined_inputs(count, names) for count in (200, 1600)}
    assert len(from_model(protos[200], NO_FOLDER).main.symbols) == 200
    assert_linear_time(lambda count: partial(from_model, protos[count], NO_FOLDER), *protos)


def test_symbols_of_definitions_are_not_collected_while_inputs_are_joined() -> None:
    """Sizes that broadcast against all of those before: sets of the symbols in each definition would be quadratic."""
    size = symbol("S").expr
    for index in range(600):
        size = dims.broadcast(size, symbol(f"S{index}").expr)
    definitions = derived_below([size])
    assert len(definitions) > 20 and not any(each._symbols for each in definitions)
    last = definitions[-1]
    assert len(last.symbols) > 560 and last.newest == max(each.serial for each in last.symbols)
    first = min(last.symbols, key=lambda each: each.serial)
    assert dims.substitute(size, {first: 1}) != size


def test_scopes_and_liveness_look_at_each_definition_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of many inputs has a derived symbol over all that came before at every few additions."""
    counts = []
    below = dims.symbols_below
    for count in (200, 800):
        module, looked = from_model(chains.summed_inputs(count), NO_FOLDER), []

        def counted(mentioned: Any, seen: set[Derived], looked: list[Any] = looked) -> Iterator[Any]:
            for each in below(mentioned, seen):
                looked.append(each)
                yield each

        monkeypatch.setattr(dims, "symbols_below", counted)
        verify(module)
        assert eliminate(module.main) == 0
        counts.append(len(looked))
    assert 400 < counts[0] and counts[1] < 5 * counts[0]


def test_indices_of_a_long_sum_stay_short() -> None:
    """What an addition reads of the one before is bounded by its own extent alone."""
    module = from_model(chains.summed_inputs(20), NO_FOLDER)
    kernel = derive([operation for operation in module.main.block if operation.name == "add"])
    sizes = [node.index.size for node in walk(kernel.roots) if isinstance(node, Load) and isinstance(node.index, Expr)]
    assert len(sizes) == 20 and max(sizes) < 16


@pytest.mark.parametrize("number_of_stages", [2, 5])
def test_sums_of_inputs_that_broadcast(number_of_stages: int) -> None:
    proto = chains.summed_inputs(number_of_stages)
    compiled = irc.opt(from_model(proto, NO_FOLDER), find_backend("triton").PIPELINE, backend="triton")
    for sizes in itertools.product((1, 3), repeat=number_of_stages):
        inputs = chains.inputs(proto, {f"S{number}": size for number, size in enumerate(sizes)})
        (output,) = run_triton(compiled, inputs)[0].values()
        check_close(output, in_runtime(proto, inputs)[0])


@pytest.mark.parametrize("name", [*chains.SIZES])
def test_four_stages_as_in_the_runtime(name: str, tmp_path: Path) -> None:
    proto = chains.SIZES[name](4)
    onnx.save(proto, tmp_path / "model.onnx")
    module = irc.load(tmp_path / "model.onnx")
    assert difference(parse(str(module), tmp_path / "x.irc") if "conv" not in name else module, module) is None
    emitted = irc.opt(module, find_backend("onnx").PIPELINE, backend="onnx")
    for number in range(len(SIZES)):
        inputs = chains.inputs(proto, sizes_of(number), number)
        expected = in_runtime(proto, inputs)
        for outputs in (interpreter.run(module, inputs), run_onnx(emitted, inputs)):
            for output, value in zip(outputs.values(), expected, strict=True):
                check_close(output, value)


@pytest.mark.parametrize("name", ["minima and maxima", "reshapes"])
def test_two_stages_on_triton(name: str) -> None:
    proto = chains.SIZES[name](2)
    compiled = irc.opt(from_model(proto, NO_FOLDER), find_backend("triton").PIPELINE, backend="triton")
    for number in range(len(SIZES)):
        inputs = chains.inputs(proto, sizes_of(number), number)
        outputs, _ = run_triton(compiled, inputs)
        for output, value in zip(outputs.values(), in_runtime(proto, inputs), strict=True):
            check_close(output, value)


@pytest.mark.usefixtures("limit_of_three")
def test_definitions_in_branches_and_loops() -> None:
    """With a small limit every region has definitions, which hold there and not after it."""
    for name in ("branches with sizes", "loops with sizes"):
        proto = chains.SIZES[name](2)
        module = from_model(proto, NO_FOLDER)
        assert any(derived_below(all_dims(module)))
        again = parse(str(module))
        assert difference(again, module) is None
        verify(module.clone())
        for backend, run in (("onnx", run_onnx), ("triton", lambda m, inputs: run_triton(m, inputs)[0])):
            compiled = irc.opt(module.clone(), find_backend(backend).PIPELINE, backend=backend)
            inputs = chains.inputs(proto, SIZES[0])
            for output, value in zip(run(compiled, inputs).values(), in_runtime(proto, inputs), strict=True):
                check_close(output, value)


def test_baked_in_sizes_leave_no_definition() -> None:
    module = from_model(chains.SIZES["minima and maxima"](6), NO_FOLDER)
    assert derived_below(all_dims(module))
    baked = module.clone({"B": 2, "S": 5, "T": 3})
    verify(baked)
    assert not derived_below(all_dims(baked)) and not any(isinstance(d, Expr) for d in all_dims(baked))
    assert derived_below(all_dims(module.clone({"B": 2})))


@pytest.mark.usefixtures("limit_of_three")
def test_functions_and_kept_kernels() -> None:
    """A local function takes the symbols that its definitions rest on."""
    module = from_model(chains.SIZES["reshapes"](3), NO_FOLDER)
    compiled = irc.opt(module, irc.backends.onnx.KERNELS_PIPELINE, backend="onnx")
    proto = irc.backends.onnx.emit(compiled, keep_kernels=True)
    onnx.checker.check_model(proto, full_check=True)
    original = chains.SIZES["reshapes"](3)
    for number in range(len(SIZES)):
        inputs = chains.inputs(original, SIZES[number])
        for actual, expected in zip(in_runtime(proto, inputs), in_runtime(original, inputs), strict=True):
            check_close(actual, expected)


def test_atoms_other_than_symbols_are_not_replaced_inside_definitions() -> None:
    d = large(s, t)
    quotient = Function("//", (s, 2))
    assert dims.substitute(d + s // 2, {quotient: b}) == d + b
    assert dims.substitute(d + 1, {sole(d): b}) == b + 1


def test_calls_are_linear_in_symbols() -> None:
    """Of sums of inputs that each have a dim of their own, whose dims rest on all symbols before."""
    protos = [chains.summed_inputs(count) for count in (200, 400, 1600)]
    _, small, large = (calls_of(lambda proto=proto: from_model(proto, NO_FOLDER)) for proto in protos)
    assert large < 4 * 1.15 * small


def test_a_cost_does_not_depend_on_symbols_that_a_kernel_does_not_have() -> None:
    module = trace(lambda x, y: add(x, y), "f32[S, 8]", "f32[T, 8]")
    operation = module.main.block.first
    assert operation is not None
    symbols = list(module.main.symbols.values())

    def calls(more: int) -> int:
        sizes = dims.Sizes({symbol: 4 for symbol in [*symbols, *map(dims.Symbol, map(str, range(more)))]})
        kernel = derive([operation])
        return calls_of(lambda: traffic(kernel, sizes))

    assert calls(10) and calls(2000) < calls(10) + 200
