"""What `irc check` measures: values against an evaluation in f64 and against the program as it was imported."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc.driver import checking, measuring
from irc.driver.measuring import Yardstick

INF, NAN = math.inf, math.nan
OVERFLOW = """irc text 1
module @overflow {
  func @main(%x: f16[4]) -> (f16[4], f32[]) {
    %y = mul %x, %x : f16[4]
    %z = cast %y {to = f32, saturate = false} : f32[4]
    %s = reduce_sum %z {axes = [0], keep_dims = false} : f32[]
    return %y, %s
  }
}
"""


def f16(*values: float) -> Any:
    return np.array(values, np.float16)


def test_an_overflow_may_be_what_either_gives_and_nothing_else() -> None:
    measure = Yardstick(f16(1, INF, -INF, NAN), np.array([1, 7e4, -7e4, 2]))
    assert measure.unsettled == 3 and measure.allowed == 4 * 2.0**-10
    for same in (f16(1, INF, -INF, NAN), np.array([1, 7e4, -INF, 2.0]), np.array([1, 70001, -7e4, INF])):
        assert measure.error(same) <= measure.allowed
    wrong = ([1, 6e4, -INF, NAN], [1, -INF, -INF, NAN], [1, NAN, -INF, NAN], [1, INF, -INF, 3], [2, INF, -INF, NAN],
             [INF, INF, -INF, NAN])  # fmt: skip
    for values in wrong:
        assert measure.error(np.array(values)) > measure.allowed, values


def test_what_is_allowed_is_finite_whatever_the_program_gives() -> None:
    ends = [np.array(each, np.float32) for each in ([INF], [NAN], [0], [1e-30], [3])]
    for actual in ends:
        for exact in ends:
            measure = Yardstick(actual, exact.astype(np.float64))
            assert math.isfinite(measure.allowed) and measure.error(actual) <= measure.allowed
            assert measure.error(np.array([1e20], np.float32)) > measure.allowed


def test_integers_are_the_programs_own_or_those_of_f64() -> None:
    measure = Yardstick(np.array([3, 4, 5]), np.array([3, 5, 5]))
    assert (measure.unsettled, measure.allowed) == (1, 0)
    assert measure.error(np.array([3, 4, 5])) == measure.error(np.array([3, 5, 5])) == 0
    for values in ([3, 6, 5], [3, 4, 4]):
        assert measure.error(np.array(values)) > 0


def test_sequences_and_shapes() -> None:
    parts = Yardstick([f16(INF), f16(1)], [np.array([7e4]), np.array([1.0])])
    assert parts.unsettled == 1 and math.isfinite(parts.allowed)
    assert parts.error([f16(INF), f16(1)]) == 0 and parts.error([f16(3), f16(1)]) > parts.allowed
    assert parts.error([f16(INF)]) == INF
    shapes = Yardstick(f16(1, 2), np.array([1.0]))  # such as what nonzero gives of numbers that underflow
    assert shapes.error(f16(1, 2)) == shapes.error(np.array([1.0])) == 0
    assert 0 < shapes.allowed < 1e-2 and shapes.error(f16(1, 2, 3)) == INF and shapes.error(f16(3)) > shapes.allowed


@pytest.mark.parametrize("wrong", [None, 0.5, -INF])
def test_a_backend_is_held_to_something_where_f16_overflows(wrong: Any, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """With a planted fault in what runs, elements that overflow included, the check fails."""
    (tmp_path / "overflow.irc").write_text(OVERFLOW)
    given = {"x": f16(300, 2, 3, 400)}
    if wrong is not None:
        run = checking.run_compiled
        monkeypatch.setattr(checking, "run_compiled", lambda *args: (
            {name: np.where(np.isinf(array), wrong, array) for name, array in run(*args)[0].items()}, "planted"))
    report = irc.check(tmp_path / "overflow.irc", given, backend="onnx")
    assert report.passed is (wrong is None)
    for output in report.stages[0].outputs:
        assert output.unsettled and output.error <= output.allowed < 1e-2


def test_relative_error_of_nothing_and_of_infinities() -> None:
    assert measuring.relative_error(np.zeros(0), np.zeros(0)) == 0
    assert measuring.relative_error(np.array([INF, 1]), np.array([INF, 1])) == 0
    assert measuring.relative_error(np.array([INF, 1]), np.array([-INF, 1])) == INF
