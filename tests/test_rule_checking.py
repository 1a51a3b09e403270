"""`irc check RULES.py`: seeds, cancellation, and rules that `--numerics` leaves out."""

from __future__ import annotations

import functools
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from irc.driver.rule_checking import check_rule, check_rules
from irc.driver.term_sizes import term_sizes
from irc.numerics import NUMERICS, NUMERICS_RULES, Numerics
from irc.op import trace
from irc.ops import add, div, equal, exp, floor, log, matmul, mul, reduce_mean, reduce_sum, relu, select, sub, tanh
from irc.rewrite import PatternRule, rewrite
from tests.command_line import EXAMPLES, irc_here

row_mean = functools.partial(reduce_mean, axes=(-1,), keep_dims=True)


def bias_and_gain(x: Any, w: Any, b: Any, g: Any) -> Any:
    """((x @ w) + b) * g -> x @ (w * g) + b * g"""
    return mul(add(matmul(x, w), b), g), add(matmul(x, mul(w, g)), mul(b, g))


def matrices(w: Any, b: Any, g: Any) -> Any:
    return (w.rank == 2 and b.rank <= 1 and g.rank <= 1) or "w must be a matrix, b and g at most vectors"


def variance(x: Any) -> Any:
    m = row_mean(x)
    return row_mean(mul(sub(x, m), sub(x, m))), sub(row_mean(mul(x, x)), mul(m, m))


def difference_of_squares(x: Any, y: Any) -> Any:
    return sub(mul(x, x), mul(y, y)), mul(sub(x, y), add(x, y))


def difference_of_logarithms(x: Any, y: Any) -> Any:
    return log(div(exp(x), exp(y))), sub(x, y)


def sum_of_products(x: Any, y: Any, z: Any) -> Any:
    return sub(matmul(x, y), matmul(x, z)), matmul(x, sub(y, z))


def of_equal_rank(y: Any, z: Any) -> Any:
    return y.rank == z.rank or "a vector would be a row of the sum"


GUARDS = {bias_and_gain: matrices, sum_of_products: of_equal_rank}
CORRECT = (bias_and_gain, variance, difference_of_squares, difference_of_logarithms, sum_of_products)


def declared(function: Any, name: str = "") -> PatternRule:
    def copy(*leaves: Any) -> Any:
        return function(*leaves)

    functools.update_wrapper(copy, function)  # whose signature it has, too
    copy.__name__ = name or function.__name__
    rule = rewrite(numerics="reassociates")(copy)
    if function in GUARDS:
        rule.when(GUARDS[function])
    return rule


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("function", CORRECT, ids=lambda function: function.__name__)
def test_correct_rules_whose_terms_cancel_pass(function: Any, seed: int) -> None:
    report = check_rule(declared(function), seed=seed)
    assert report.failure is None, "\n".join(report.lines())


def forgets_a_gain(x: Any, w: Any, b: Any, g: Any) -> Any:
    return mul(add(matmul(x, w), b), g), add(matmul(x, mul(w, g)), b)


def slightly_off(x: Any, y: Any) -> Any:
    return sub(mul(x, x), mul(y, y)), mul(sub(x, y), add(x, mul(y, 1.0 + 1e-7)))


def off_by_a_little(x: Any) -> Any:
    return sub(add(x, 1.0), 1.0), add(x, 1e-6)


@pytest.mark.parametrize("function", [forgets_a_gain, slightly_off, off_by_a_little], ids=lambda each: each.__name__)
def test_wrong_rules_fail_with_every_seed(function: Any) -> None:
    for seed in range(3):
        assert check_rule(declared(function), seed=seed).failure is not None


@pytest.mark.parametrize("numerics", NUMERICS)
def test_the_example_of_a_page_breaks_its_rule(numerics: Numerics, tmp_path: Path) -> None:
    heading, _, text = NUMERICS_RULES[numerics].example.partition("\n")
    imports = "from irc.dtypes import F16\nfrom irc.ops import *\nfrom irc.rewrite import rewrite\n"
    file = tmp_path / "rules.py"
    file.write_text(f"{imports}{dedent(text)}\n")
    (report,) = check_rules(file).rules
    assert report.numerics == numerics and report.failure is not None
    assert report.programs and report.failure.inputs, f"{heading} {report.failure.message}"


def test_the_name_of_a_rule_changes_nothing() -> None:
    reports = ["\n".join(check_rule(declared(forgets_a_gain, name), seed=1).lines()).partition(":")[2]
               for name in ("one", "another", "a_third_name")]  # fmt: skip
    assert len(set(reports)) == 1


def test_seed_chooses_the_programs(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "from irc.ops import add, mul\nfrom irc.rewrite import rewrite\n"
        '@rewrite(numerics="reassociates")\ndef wrong(x, y): return mul(x, y), add(x, y)\n'
    )
    done = [irc_here("check", "wrong.py", "--seed", seed, folder=tmp_path) for seed in (0, 1, 2, 0)]
    assert {each.code for each in done} == {1} and done[0].out == done[3].out
    assert len({each.out for each in done}) == 3


def test_term_sizes() -> None:
    """Of sums the terms that cancel, of decisions nothing but what they decide about."""

    def size(program: Any, *arrays: float | list[float]) -> float:
        values = [np.asarray(array, np.float64) for array in arrays]
        module = trace(program, *(f"f64[{', '.join(map(str, value.shape))}]" for value in values))
        names = [argument.name for argument in module.main.arguments]
        return term_sizes(module, dict(zip(names, values, strict=True)), 0)[0]

    assert 2e3 < size(lambda x: sub(x, x), 1e4) < 2e4
    assert 2e2 < size(lambda x: reduce_sum(x, axes=(0,)), [1e3, -1e3, 1.0]) < 2e3
    assert 2e2 < size(lambda x, y: matmul(x, y), [1e3, -1e3], [1.0, 1.0]) < 2e3
    assert size(lambda x: mul(relu(x), 2.0), 3.0) <= 6.0 * 1.01
    assert size(lambda x, y: select(equal(mul(x, y), 6.0), add(x, y), 1e9), 2.0, 3.0) <= 5.0 * 1.01
    assert size(lambda x: floor(mul(x, 2.0)), 3.0) == 0.0
    assert size(lambda x: tanh(x), [1.0, np.nan]) <= 1.0
    assert size(lambda x: exp(x), np.inf) == 0.0


# -- rules that are not tried ------------------------------------------------------------------------------------

RULES = EXAMPLES / "rules.py"
NOTE = "note: rewrite: `scale_into_weight` is not tried: --numerics keeps_more_precision does not allow reassociates"
VERBS: dict[str, tuple[object, ...]] = {
    "opt": ("-p",),
    "print": ("-p",),
    "kernels": ("-p",),
    "check": ("-p",),
    "check --each": ("--each", "-p"),
    "compile": ("-o", "out.onnx", "-p"),
    "compile --backend triton": ("--backend", "triton", "-o", "out", "-p"),
    "extract": ("--to", "%y", "-p"),
    "explain": ("%y", "-p"),
    "bench": ("--rounds", 2, "-p"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_rules_that_numerics_leaves_out_are_named(tmp_path: Path, verb: str) -> None:
    model = f"{EXAMPLES}/block.py:scaled"
    command = (verb.split()[0], model, *VERBS[verb], "rewrite,legalize", "--load", RULES)
    done = irc_here(*command, folder=tmp_path)
    assert done.code == 0 and done.err.count(NOTE) == 1, done.err
    assert "is not tried" not in irc_here(*command, "--numerics", "reassociates", "--force"
                                          if verb in ("opt", "print", "extract") or "compile" in verb
                                          else "--verify-each", folder=tmp_path).err  # fmt: skip


def test_experiment_names_rules_that_numerics_leaves_out(tmp_path: Path) -> None:
    pipelines = ("-p", "base=default", "-p", "own=rewrite,default")
    command = ("experiment", f"{EXAMPLES}/block.py:scaled", *pipelines, "--load", RULES)
    assert irc_here(*command, folder=tmp_path).err.count(NOTE) == 1
    assert "is not tried" not in irc_here(*command, "--numerics", "reassociates", folder=tmp_path).err


def test_checking_rules_on_models_knows_numerics(tmp_path: Path) -> None:
    model = trace(lambda x, w: mul(matmul(x, w), 2.0), "f32[4, 8]", "f32[8, 3]")
    words = "--numerics keeps_more_precision does not allow reassociates"
    assert words in str(check_rules(RULES, {"m": model}, numerics="keeps_more_precision"))
    assert "--numerics" not in str(check_rules(RULES, {"m": model}, numerics="reassociates"))
    assert words in irc_here("check", RULES, f"{EXAMPLES}/block.py:scaled", folder=tmp_path).out
