"""Raising functions of one value: what is raised, what must not be, and that nothing but rounding changes."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

import irc
from irc import interpreter
from irc.driver.pipelines import parse_pipeline
from irc.dtypes import by_name
from irc.module import Module
from irc.op import trace
from irc.ops import (
    add,
    cast,
    const,
    div,
    dot,
    erf,
    exp,
    gelu,
    hard_sigmoid,
    layer_norm,
    matmul,
    maximum,
    minimum,
    mul,
    neg,
    pow_,
    reciprocal,
    reduce_max,
    reduce_mean,
    reduce_sum,
    reshape,
    rms_norm,
    sigmoid,
    sqrt,
    sub,
    tanh,
    transpose,
)
from irc.pass_manager import PassContext, PassManager
from irc.passes._normal_form import Normalizer
from irc.passes._raise_functions import FUNCTIONS, forms
from irc.verifier import verify
from irc.weights import Tensor
from tests.raising import CLEAN, raised, raised_names, same_numbers

# -- the normal form -------------------------------------------------------------------------------------------


def same(left: Any, right: Any, *types: str) -> bool:
    """Whether two programs have one normal form."""
    module = trace(lambda x: (left(x), right(x)), *types)
    normalizer = Normalizer()
    for argument in module.main.arguments:
        normalizer.bind(argument)
    a, b = module.main.returned
    return normalizer.term(a) is normalizer.term(b)


X = "f32[B, 4]"
EQUAL = {
    "square": (lambda x: mul(x, x), lambda x: pow_(x, 2.0)),
    "factor_or_quotient": (lambda x: div(x, math.sqrt(2)), lambda x: mul(0.70710678, x)),
    "associated": (lambda x: mul(mul(x, 0.5), exp(x)), lambda x: mul(exp(x), mul(0.5, x))),
    "rsqrt": (lambda x: div(1.0, sqrt(x)), lambda x: pow_(x, -0.5)),
    "reciprocal": (lambda x: reciprocal(sqrt(x)), lambda x: pow_(x, -0.5)),
    "negated_difference": (lambda x: neg(sub(x, 1.0)), lambda x: sub(1.0, x)),
    "scaled_sum": (lambda x: mul(add(x, 3.0), 2.0), lambda x: add(mul(x, 2.0), 6.0)),
    "number_leaves_a_sum": (
        lambda x: reduce_sum(mul(x, 0.25), axes=(1,)),
        lambda x: div(reduce_sum(x, axes=(1,)), 4.0),
    ),
    "kept_dims": (
        lambda x: sub(x, reduce_max(x, axes=(1,), keep_dims=True)),
        lambda x: sub(x, reshape(reduce_max(x, axes=(-1,)), shape=(x.shape[0], 1))),
    ),
    "view_through_arithmetic": (
        lambda x: transpose(exp(mul(x, 2.0)), permutation=(1, 0)),
        lambda x: exp(mul(2.0, transpose(x, permutation=(1, 0)))),
    ),
    "reduced_axis_moved": (
        lambda x: reduce_sum(x, axes=(0,)),
        lambda x: reduce_sum(transpose(x, permutation=(1, 0)), axes=(1,)),
    ),
    "views_that_cut_across_axes": (
        lambda x: exp(reshape(transpose(transpose(reshape(x, shape=(2, x.shape[0], 2)), permutation=(2, 0, 1)),
                                        permutation=(1, 2, 0)), shape=x.shape)),
        lambda x: exp(x),
    ),
    "number_leaves_a_product": (
        lambda x: dot(mul(x, 3.0), x, contract=((1, 1),)),
        lambda x: mul(dot(x, x, contract=((1, 1),)), 3.0),
    ),
}
DIFFERENT = {
    "root_of_a_square": (lambda x: sqrt(mul(x, x)), lambda x: add(x, 0.0)),
    "square_of_a_root": (lambda x: mul(sqrt(x), sqrt(x)), lambda x: mul(x, 1.0)),
    "quotient_of_itself": (lambda x: mul(div(x, x), x), lambda x: mul(x, 1.0)),
    "zero_times_itself": (lambda x: add(x, mul(x, 0.0)), lambda x: mul(x, 1.0)),
    "difference_of_itself": (lambda x: add(sub(x, x), exp(x)), lambda x: exp(x)),
    "root_of_a_product": (
        lambda x: sqrt(mul(x, exp(x))),
        lambda x: mul(sqrt(x), sqrt(exp(x))),
    ),
    "another_constant": (lambda x: mul(x, 0.7071), lambda x: mul(x, 0.70712)),
    "another_axis": (lambda x: sub(x, reduce_max(x, axes=(0,), keep_dims=True)),
                     lambda x: sub(x, reduce_max(x, axes=(1,), keep_dims=True))),
    "a_cast_to_integers": (
        lambda x: cast(cast(x, to=by_name("i32")), to=by_name("f32")),
        lambda x: mul(x, 1.0),
    ),
    "a_rounding_to_f16": (
        lambda x: cast(cast(x, to=by_name("f16")), to=by_name("f32")),
        lambda x: mul(x, 1.0),
    ),
    "an_eight_bit_rounding": (
        lambda x: cast(cast(x, to=by_name("f8e5m2")), to=by_name("f32")),
        lambda x: mul(x, 1.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_one_normal_form(name: str):
    assert same(*EQUAL[name], X)


@pytest.mark.parametrize("name", DIFFERENT)
def test_two_normal_forms(name: str):
    assert not same(*DIFFERENT[name], X)


# -- every spelling of every operation -------------------------------------------------------------------------

FORMS = [
    pytest.param(form, id=f"{form.definition.name}-{form.spelling}-{'-'.join(str(v) for _, v in form.fixed)}")
    for definition in FUNCTIONS
    for group in forms().values()
    for form in group
    if form.definition is definition
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_each_spelling_is_found_and_means_the_same(form: Any, dtype: str):
    definition = form.definition
    required = {"axes": (1,)} if "axes" in definition.attribute_specs else {}
    body = definition.source_function if form.spelling is None else definition.spellings[form.spelling]
    attributes = definition.normalize({**required, **dict(form.fixed)})

    def program(x):
        return body(x, **attributes)

    before, after = raised(program, f"{dtype}[B, 8]")
    kinds = [operation.name for operation in after.main.block if operation.name != "return"]
    name = "elu" if definition.name == "celu" else definition.name  # with alpha 1 they are one function
    assert kinds == [name], kinds
    same_numbers(before, after, 2e-6 if dtype == "f32" else 1e-3)  # constants of f16 are rounded


def float_attributes(form: Any) -> list[str]:
    return [name for name, spec in form.definition.attribute_specs.items() if spec.annotation is float]


VARIED = [form for form in FORMS if form.values[0].spelling is not None and float_attributes(form.values[0])]


@pytest.mark.parametrize("form", VARIED)
def test_spellings_agree_for_other_attributes(form: Any):
    """What a spelling says must hold for every attribute with which it can be traced."""
    definition, floats = form.definition, float_attributes(form)
    from irc.diagnostics import IrcError
    from tests.programs import static_type

    for value in (-0.5, 0.3, 1.7):
        attributes = definition.normalize({**dict(form.fixed), **dict.fromkeys(floats, value)})
        types = [static_type("f32[4, 8]")]
        try:
            spelled = Module("m", [definition.body(types, attributes, form.spelling)])
        except IrcError:
            continue  # the spelling says that it does not hold here
        body = Module("m", [definition.body(types, attributes)])
        x = np.random.default_rng(1).normal(size=(4, 8))
        (a,), (b,) = (
            list(interpreter.run(module, {module.main.arguments[0].name: x}, precision="f64").values())
            for module in (body, spelled)
        )
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-9)


# -- near-misses -----------------------------------------------------------------------------------------------


def erf_gelu(x: Any, *, half: float = 0.5, root: float = 1.4142135, one: float = 1.0) -> Any:
    return mul(x, mul(add(erf(div(x, root)), one), half))


def test_gelu_with_another_constant_is_no_gelu():
    assert raised_names(erf_gelu, "f32[B, 8]") == ["gelu"]
    for wrong in ({"half": 0.499}, {"root": 1.4145}, {"one": 0.999}):
        assert "gelu" not in raised_names(lambda x, w=wrong: erf_gelu(x, **w), "f32[B, 8]")


@pytest.mark.parametrize("narrow", ["f16", "bf16"])
def test_a_rounding_that_is_asked_for_stays(narrow: str):
    def gated(x, *, view):
        rounded = cast(view(cast(x, to=by_name(narrow))), to=by_name("f32"))
        return mul(x, div(1.0, add(1.0, exp(neg(reshape(rounded, shape=x.shape))))))

    for view in (lambda x: x, lambda x: reshape(x, shape=(24,))):
        assert "silu" not in raised_names(lambda x, view=view: gated(x, view=view), "f32[3, 8]")


def test_gelu_of_two_values_is_no_gelu():
    kinds = raised_names(lambda x, y: mul(y, mul(add(erf(div(x, math.sqrt(2))), 1), 0.5)), "f32[B, 8]", "f32[B, 8]")
    assert "gelu" not in kinds


def test_a_curve_that_is_read_elsewhere_is_not_computed_twice():
    def program(x):
        curve = erf(div(x, math.sqrt(2)))
        return mul(x, mul(add(curve, 1), 0.5)), curve

    assert "gelu" not in raised_names(program, "f32[B, 8]")


def test_arithmetic_that_is_read_elsewhere_stays():
    def program(x):
        half = mul(x, 0.5)
        return mul(half, add(erf(div(x, math.sqrt(2))), 1)), half

    before, after = raised(program, "f32[B, 8]")
    assert sorted(o.name for o in after.main.block if o.name not in ("const", "return")) == ["gelu", "mul"]
    same_numbers(before, after)


def test_softmax_normalizes_what_it_sums():
    def shifted_elsewhere(x):
        grown = exp(sub(x, reduce_max(x, axes=(1,), keep_dims=True)))
        return div(grown, reduce_sum(grown, axes=(0,), keep_dims=True))

    def scaled_elsewhere(x):
        grown = exp(sub(x, reduce_max(x, axes=(1,), keep_dims=True)))
        return div(grown, reduce_sum(exp(mul(x, 2.0)), axes=(1,), keep_dims=True))

    before, after = raised(shifted_elsewhere, "f32[4, 4]")  # a softmax over axis 0, of the difference
    kinds = [o for o in after.main.block if o.name != "return"]
    assert [o.name for o in kinds] == ["reduce_max", "sub", "softmax"] and kinds[2].attributes == {"axis": 0}
    same_numbers(before, after)
    assert "softmax" not in raised_names(scaled_elsewhere, "f32[4, 4]")


def test_softmax_finds_its_axis_and_a_guarded_maximum():
    def program(x):
        largest = maximum(reduce_max(x, axes=(1,)), -math.inf)
        grown = exp(sub(x, reshape(largest, shape=(x.shape[0], 1, 5))))
        return div(grown, reshape(reduce_sum(grown, axes=(1,)), shape=(x.shape[0], 1, 5)))

    before, after = raised(program, "f32[B, 7, 5]")
    (operation,) = [o for o in after.main.block if o.name != "return"]
    assert (operation.name, operation.attributes) == ("softmax", {"axis": 1})
    same_numbers(before, after)


def spelled_norm(x: Any, scale: Any, bias: Any, *, axis: int = 2, epsilon: float = 1e-6, count: float = 8) -> Any:
    mean = div(reduce_sum(x, axes=(axis,), keep_dims=True), count)
    centered = sub(x, mean)
    variance = div(reduce_sum(mul(centered, centered), axes=(axis,), keep_dims=True), count)
    return add(mul(mul(centered, reciprocal(sqrt(add(variance, epsilon)))), scale), bias)


def with_parameters(program: Any, shape: tuple[int, ...]) -> Any:
    draw = np.random.default_rng(3)
    scale, bias = (draw.normal(size=shape).astype(np.float32) for _ in range(2))

    def whole(x):
        return program(x, const(value=Tensor.of(scale)), const(value=Tensor.of(bias)))

    return whole


def test_layer_norm_with_parameters_and_epsilon():
    before, after = raised(with_parameters(spelled_norm, (1, 1, 8)), "f32[B, S, 8]")
    (operation,) = [o for o in after.main.block if o.name not in ("const", "return")]
    assert operation.name == "layer_norm" and operation.attributes == {"axis": 2, "epsilon": 1e-6}
    same_numbers(before, after)


def test_layer_norm_over_a_middle_axis_stands_between_transposes():
    def program(x, scale, bias):
        return spelled_norm(x, scale, bias, axis=1)

    before, after = raised(with_parameters(program, (1, 8, 1)), "f32[B, 8, S]")
    kinds = [o.name for o in after.main.block if o.name not in ("const", "return")]
    assert kinds == ["transpose", "layer_norm", "transpose"]
    same_numbers(before, after)


def test_norms_with_a_wrong_count_or_axis_are_none():
    for wrong in ({"count": 9.0}, {"axis": 1}):
        program = with_parameters(lambda x, s, b, w=wrong: spelled_norm(x, s, b, **w), (1, 1, 8))
        assert "layer_norm" not in raised_names(program, "f32[4, 6, 8]")


def test_bias_before_scale_is_no_layer_norm():
    def program(x, scale, bias):
        return mul(add(spelled_norm(x, 1.0, 0.0), bias), scale)

    kinds = raised_names(with_parameters(program, (8,)), "f32[B, S, 8]")
    assert kinds == ["layer_norm", "add", "mul"]


def test_named_operations_within_a_spelling_are_seen_through():
    def program(x):
        centered = sub(x, reduce_mean(x, axes=(2,), keep_dims=True))
        power = reduce_mean(pow_(centered, 2.0), axes=(2,), keep_dims=True)
        return div(centered, sqrt(add(power, 1e-12)))

    assert raised_names(program, "f32[B, S, 8]") == ["layer_norm"]
    assert raised_names(lambda x: mul(x, sigmoid(x)), "f32[B, 8]") == ["silu"]


def test_rms_norm_is_no_layer_norm():
    def program(x):
        return div(x, sqrt(add(reduce_mean(mul(x, x), axes=(2,), keep_dims=True), 1e-5)))

    assert raised_names(program, "f32[B, S, 8]") == ["rms_norm"]
    assert rms_norm in FUNCTIONS and layer_norm in FUNCTIONS and gelu in FUNCTIONS


def test_nothing_but_exact_forms_at_exact_numerics():
    assert "gelu" not in raised_names(erf_gelu, "f32[B, 8]", numerics="exact")


def test_the_name_and_the_makers_are_noted():
    _, module = raised(lambda x: mul(tanh(x), erf_gelu(x)), "f32[B, 8]")
    module = trace(lambda x: mul(x, mul(add(erf(div(x, math.sqrt(2))), 1), 0.5), name="h.0.act"), "f32[B, 8]")
    PassManager(parse_pipeline("raise")).run(module)
    (returned,) = module.main.returned
    assert returned.name == "h.0.act"
    assert returned.operation is not None and returned.operation.location.made_by == ("raise(gelu)",)


# -- int8 weights ----------------------------------------------------------------------------------------------


def quantized(scale_shape: tuple[int, ...], dtype: Any = np.int8) -> Any:
    draw = np.random.default_rng(5)
    weight = draw.integers(-100, 100, size=(40, 90)).astype(dtype)
    scale = draw.random(scale_shape).astype(np.float32)

    def program(x):
        small = const(value=Tensor.of(weight, name="weight_q"))
        return matmul(x, mul(cast(small, to=by_name("f32")), const(value=Tensor.of(scale, name="scale"))))

    return program


@pytest.mark.parametrize("shape, axis", [((1, 90), 1), ((40, 1), 0), ((), 0), ((90,), 1)])
@pytest.mark.parametrize("numerics", ["exact", "keeps_more_precision"])
def test_int8_weights_stay_small(shape: tuple[int, ...], axis: int, numerics: str):
    before, after = raised(quantized(shape), "f32[B, 40]", numerics=numerics)
    assert Counter(o.name for o in after.main.block)["dequantize"] == 1
    sizes = [o.attributes["value"] for o in after.main.block if o.name == "const"]
    assert any(tensor.dtype.name == "i8" for tensor in sizes) and all(t.nbytes <= 3600 for t in sizes)
    (operation,) = [o for o in after.main.block if o.name == "dequantize"]
    assert operation.attributes["axis"] == axis
    x = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    a, b = (next(iter(interpreter.run(module, {"x": x}).values())) for module in (before, after))
    assert np.array_equal(a, b)


def test_scales_of_single_elements_are_no_dequantize():
    assert "dequantize" not in raised_names(quantized((40, 90)), "f32[B, 40]")


# -- trained models --------------------------------------------------------------------------------------------


def test_trained_models():
    from irc.frontends.onnx import load
    from tests.models import model_path

    expected = {
        "magika": {"gelu": 2, "layer_norm": 2, "softmax": 1},
        "minilm_int8": {"attention": 6, "dequantize": 38, "gelu": 6},
    }
    for name, counts in expected.items():
        module = load(model_path(name))
        context = PassContext()
        PassManager(parse_pipeline(f"{CLEAN},raise,canonicalize,fold,cse,dce"), context).run(module)
        assert context.statistics["raise"] == counts
        verify(module)


@pytest.mark.parametrize("dtype, is_raised", [("f32", True), ("f64", False)])
def test_constants_of_f64_are_those_of_f64(dtype: str, is_raised: bool) -> None:
    """Six digits of a sixth, or the f32 number, are another function in f64."""
    for sixth in (0.166667, float(np.float32(1 / 6))):
        module = trace(lambda x: mul(x, hard_sigmoid(x, alpha=sixth, beta=0.5)), f"{dtype}[8]")  # noqa: B023
        raised = irc.opt(module, "raise")
        assert any(operation.name == "hard_swish" for operation in raised.main.block) is is_raised
    last = trace(lambda x: div(mul(x, minimum(maximum(add(x, 3.0), 0.0), 6.0)), 6.0), f"{dtype}[8]")
    (operation,) = (each for each in irc.opt(last, "raise").main.block if each.name == "hard_swish")
    assert operation.attributes["division"] == "last", "the product overflows"
    exact = trace(lambda x: mul(x, hard_sigmoid(x, alpha=1 / 6, beta=0.5)), f"{dtype}[8]")
    assert any(operation.name == "hard_swish" for operation in irc.opt(exact, "raise").main.block)
