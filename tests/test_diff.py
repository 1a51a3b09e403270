"""irc diff: equal by rules, no difference found, or a witness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
from irc import dtypes, ops
from irc.diagnostics import IrcError
from irc.driver import Settings
from irc.driver.differing import DiffReport
from irc.driver.edge_inputs import edge_inputs
from irc.module import Module
from tests import planted
from tests.command_line import EXAMPLES, irc_here
from tests.onnx_models import imported
from tests.test_blame import SNEAKY, encoder, scaled_body

SCORES = f"{EXAMPLES / 'block.py'}:scores"


def traced(function: Any, *types: str) -> Module:
    return irc.trace(function, *types)


def difference(first: Any, second: Any, *types: str, **options: Any) -> DiffReport:
    numerics = options.pop("numerics", "keeps_more_precision")
    return irc.diff(traced(first, *types), traced(second, *types), settings=Settings(numerics=numerics), **options)


# -- equal -----------------------------------------------------------------------------------------------------

EQUAL = {
    "itself": (lambda x: ops.softmax(x), lambda x: ops.softmax(x)),
    "operands in another order": (lambda x: ops.add(ops.exp(x), ops.tanh(x)),
                                  lambda x: ops.add(ops.tanh(x), ops.exp(x))),
    "computed twice": (lambda x: ops.add(ops.exp(x), ops.exp(x)), lambda x: (lambda y: ops.add(y, y))(ops.exp(x))),
    "two transposes": (lambda x: ops.transpose(ops.transpose(x, permutation=(1, 0)), permutation=(1, 0)), lambda x: x),
    "a body": (lambda x: ops.silu(x), lambda x: ops.mul(x, ops.sigmoid(x))),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_equal_by_rules(name: str) -> None:
    report = difference(*EQUAL[name], "f32[N, 8]", tries=2)
    assert report.verdict == "equal by rules" and report.reason and report.passed and report.tried == 0


def test_a_model_equals_what_passes_make_of_it_and_its_compiled_form(tmp_path: Path) -> None:
    path = encoder(tmp_path, 1)
    irc.print(path, pipeline="clean", after="dce", output=tmp_path / "clean.irc")
    assert irc.diff(path, tmp_path / "clean.irc").verdict == "equal by rules"
    irc.print(path, pipeline="clean,fuse", after="fuse", output=tmp_path / "fused.irc")
    assert irc.diff(path, tmp_path / "fused.irc").verdict == "equal by rules"
    irc.compile(path, backend="onnx", output=tmp_path / "compiled.onnx")
    report = irc.diff(path, tmp_path / "compiled.onnx", tries=8)
    assert report.passed, report.witness


@pytest.mark.parametrize("first, second", [
    (lambda x: ops.sqrt(ops.mul(x, x)), lambda x: ops.maximum(x, ops.neg(x))),
    (lambda x: ops.reduce_sum(ops.mul(x, 3.0), axes=(1,)), lambda x: ops.mul(ops.reduce_sum(x, axes=(1,)), 3.0)),
])  # fmt: skip
def test_what_differs_by_rounding_alone_is_no_difference(first: Any, second: Any) -> None:
    report = difference(first, second, "f32[N, 8]", finite=True)
    assert report.verdict == "no difference found", report.witness
    assert difference(first, second, "f32[N, 8]", finite=True, numerics="exact").verdict == "differs"


RAISES = {  # what may stop one program of the two, beside an addition
    "an assertion": '%m = reduce_max %x {axes = [0], keep_dims = false} : f32[]\n%c = less %m, %m : bool[]\n'
                    'assert %c {message = "it is large"}',
    "an index": "%g = gather %x, %i {axis = 0} : f32[]",
    "a division": '%d = div %i, %i {rounding = "trunc", by_zero = "error"} : i64[]',
    "an assertion in a branch": '%b = if %p : bool[] {\nassert %p {message = "no"}\nyield %p\n} else {\n'
                                'assert %p {message = "no"}\nyield %p\n}',
    "a symbol": "bind %i {symbol = ?S in (1, 8)}",
}  # fmt: skip


def doubled(tmp_path: Path, lines: str, name: str) -> Path:
    path = tmp_path / f"{name}.irc"
    head = "irc text 1\nmodule @m {\nfunc @main(%x: f32[8], %i: i64[], %p: bool[]) -> f32[8] {\n"
    path.write_text(f"{head}{lines}\n%y = add %x, %x : f32[8]\nreturn %y\n}}\n}}\n")
    return path


@pytest.mark.parametrize("name", RAISES)
def test_programs_that_stop_in_other_cases_are_not_equal_by_rules(tmp_path: Path, name: str) -> None:
    first, second = doubled(tmp_path, RAISES[name], "first"), doubled(tmp_path, "", "second")
    for pair in ((first, second), (second, first)):
        assert irc.diff(*pair, tries=4).verdict != "equal by rules"
    if "branch" not in name:
        assert irc.diff(first, first).verdict == "equal by rules"


def test_a_failed_assertion_is_a_difference(tmp_path: Path) -> None:
    report = irc.diff(doubled(tmp_path, "", "first"), doubled(tmp_path, RAISES["an assertion"], "second"), tries=4)
    assert report.verdict == "differs" and report.witness is not None and "it is large" in report.witness.second


# -- different -------------------------------------------------------------------------------------------------

DIFFERENT = {
    "a sign": (lambda x: ops.maximum(x, ops.neg(x)), lambda x: x),
    "a scale": (lambda x: ops.mul(x, 1.0), lambda x: ops.mul(x, 1.000001)),
    "NaN": (lambda x: ops.maximum(x, 0.0), lambda x: ops.select(ops.less(x, 0.0), 0.0, ops.select(
        ops.equal(x, x), x, 0.0))),
    "an infinity": (lambda x: ops.sub(x, x), lambda x: ops.mul(ops.clip(x, -1e30, 1e30), 0.0)),
    "a narrower type": (lambda x: ops.exp(x), lambda x: ops.cast(ops.exp(ops.cast(x, to=dtypes.F16)), to=x.dtype)),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_witness_shows_the_difference(name: str) -> None:
    first, second = DIFFERENT[name]
    report = difference(first, second, "f32[N, 8]")
    assert report.verdict == "differs" and not report.passed and report.witness is not None
    given = report.witness.inputs
    one, other = (irc.run(traced(each, "f32[N, 8]"), given).outputs for each in (first, second))
    (a,), (b,) = one.values(), other.values()
    index = report.witness.index
    assert str(a[index]) == report.witness.first and str(b[index]) == report.witness.second
    assert report.witness.first != report.witness.second


def test_signed_zeros_differ_where_results_must_be_equal_to_the_last_bit() -> None:
    pair = (lambda x: ops.mul(ops.relu(x), 1.0), lambda x: ops.add(ops.relu(x), 0.0))
    assert difference(*pair, "f32[N, 8]").passed
    report = difference(lambda x: ops.neg(ops.mul(x, 0.0)), lambda x: ops.mul(x, 0.0), "f32[4]", numerics="exact")
    assert report.verdict == "differs" and {report.witness.first, report.witness.second} == {"0.0", "-0.0"}  # type: ignore[union-attr]


def test_the_first_value_that_differs_is_named(tmp_path: Path) -> None:
    def model(scale: float) -> Module:
        def main(x: Any) -> Any:
            y = ops.tanh(ops.mul(x, scale, name="scaled"), name="y")
            return ops.exp(ops.add(y, 1.0, name="z"), name="out")

        return traced(main, "f32[N, 8]")

    report = irc.diff(model(1.5), model(1.25), output=tmp_path / "witness.npz")
    assert report.witness is not None
    assert (report.witness.first_value, report.witness.output) == ("%scaled, mul", "out")
    stored = np.load(tmp_path / "witness.npz")
    assert np.array_equal(stored["x"], report.witness.inputs["x"]) and report.file.endswith("witness.npz")
    again = irc.diff(model(1.5), model(1.25), tmp_path / "witness.npz", tries=0)
    assert again.verdict == "differs" and again.tried == 1


# -- signatures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first, second", [
    ("f32[N, 8]", "f16[N, 8]"), ("f32[N, 8]", "f32[8]"), ("f32[4, 8]", "f32[5, 8]"),
])  # fmt: skip
def test_models_without_a_common_input_are_rejected(first: str, second: str) -> None:
    with pytest.raises(IrcError, match=r"diff\.signature"):
        irc.diff(traced(lambda x: ops.exp(x), first), traced(lambda x: ops.exp(x), second))
    with pytest.raises(IrcError, match=r"diff\.signature"):
        irc.diff(traced(lambda x: x, first), traced(lambda x, y: (x, y), first, first))


def test_inputs_are_matched_by_name_else_by_position_and_sizes_are_fixed() -> None:
    one = imported("(float[N, 4] a, float[N, 4] b) => (float[N, 4] y) { y = Sub (a, b) }")
    swapped = imported("(float[N, 4] b, float[N, 4] a) => (float[N, 4] y) { y = Sub (a, b) }")
    renamed = imported("(float[3, 4] p, float[3, 4] q) => (float[3, 4] z) { z = Sub (p, q) }")
    assert irc.diff(one, swapped).verdict == "equal by rules"
    report = irc.diff(one, renamed)
    assert report.verdict == "equal by rules" and report.sizes == (("N", 3),)


def test_loops_and_branches_are_compared_by_inputs() -> None:
    text = ("(float[N] x, bool c) => (float[N] y) {{ y = If (c) <then_branch = t () => (float[N] a) {{ a = Exp (x) }},"
            " else_branch = e () => (float[N] b) {{ b = {} (x) }}> }}")  # fmt: skip
    same = irc.diff(imported(text.format("Neg")), imported(text.format("Neg")), tries=4)
    assert same.verdict == "no difference found" and same.tried == 4 and same.passed
    assert irc.diff(imported(text.format("Neg")), imported(text.format("Abs"))).verdict == "differs"


# -- compiled, and the command line ----------------------------------------------------------------------------


def test_mistakes_of_a_pass_and_of_an_operation_have_witnesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encoder(tmp_path, 1)
    (tmp_path / "sneaky.py").write_text(SNEAKY)
    settings = Settings(loads=[str(tmp_path / "sneaky.py")])
    irc.print(path, pipeline="clean,sneaky", after="sneaky", output=tmp_path / "sneaky.irc", settings=settings)
    report = irc.diff(path, tmp_path / "sneaky.irc")
    assert report.verdict == "differs" and report.witness is not None and report.witness.first_value.startswith("%l0i")
    scaled_body("layer_norm", monkeypatch)
    irc.compile(path, backend="triton", output=tmp_path / "wrong.triton")
    assert irc.diff(path, tmp_path / "wrong.triton", originals=True).verdict == "differs"


def test_a_mistake_in_a_kernel_has_a_witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from irc.backends.triton import source

    path = encoder(tmp_path, 1)
    irc.compile(path, backend="triton", output=tmp_path / "right.triton")
    assert irc.diff(tmp_path / "right.triton", path, tries=2).verdict == "no difference found"
    monkeypatch.setattr(source, "analyse", source.analyse)
    (tmp_path / "kernels.py").write_text(planted.WRONG_KERNELS)
    irc.compile(path, backend="triton", output=tmp_path / "wrong.triton",
                settings=Settings(loads=[str(tmp_path / "kernels.py")]))  # fmt: skip
    assert irc.diff(path, tmp_path / "wrong.triton").verdict == "differs"


def test_the_command_says_which_and_exits_so(tmp_path: Path) -> None:
    for name, body in (("a", "Relu (x)"), ("b", "Relu (x)"), ("c", "Abs (x)")):
        onnx.save(onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["" : 21]> g (float[N, 3] x) => (float[N, 3] y) {{ y = {body} }}'
        ), tmp_path / f"{name}.onnx")  # fmt: skip
    done = irc_here("diff", "a.onnx", "b.onnx", folder=tmp_path)
    assert (done.code, done.out) == (0, "equal by rules: they have the same operations\n")
    done = irc_here("diff", "a.onnx", "c.onnx", "-o", "w.npz", folder=tmp_path)
    assert done.code == 1 and done.out.startswith("differs: %y[") and "wrote w.npz" in done.out
    done = irc_here("diff", "a.onnx", "c.onnx", "--json", folder=tmp_path)
    assert done.code == 1 and json.loads(done.out)["schema"] == "irc.diff/1"
    done = irc_here("diff", "a.onnx", "c.onnx", "-o", "a.onnx", folder=tmp_path)
    assert done.code == 2 and "Traceback" not in done.err


def test_inputs_are_at_edges_and_within_ranges() -> None:
    module = traced(lambda x, i: (ops.exp(x), ops.gather(x, i, axis=0)), "f16[N, 4]", "i64[M]")
    seen, sizes = [], set()
    for _, (drawn, arrays) in zip(range(30), edge_inputs(module.main, {}, 0), strict=False):
        sizes.add(drawn.get("N"))
        seen.append(arrays["x"].astype(np.float64).reshape(-1))
        assert arrays["x"].dtype == np.float16 and arrays["x"].shape[1] == 4
    everything = np.concatenate(seen)
    assert np.isnan(everything).any() and np.isinf(everything).any() and 65504 in everything and len(sizes) > 5
    for _, (_, arrays) in zip(range(30), edge_inputs(module.main, {"N": 3}, 0, finite=True), strict=False):
        assert np.isfinite(arrays["x"]).all() and arrays["x"].shape == (3, 4)
