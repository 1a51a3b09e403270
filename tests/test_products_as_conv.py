"""Products of rows as convolutions in ONNX Runtime's layout: what is matched and left, and that results stay."""

from __future__ import annotations

import platform
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import irc
from irc.backends.onnx import PIPELINE, Target, emit
from irc.driver import Settings
from irc.driver.calibrating import as_text
from irc.frontends.onnx import from_model
from irc.kernel_costs import find_costs
from tests.onnx_models import NO_FOLDER, check_close, in_runtime, model
from tests.test_kernel_costs import scaled
from tests.test_onnx_rewrites import compiled, nodes, random, with_weights

INNER, WIDE = 512, 2048  # of matrices for which the tables say that convolutions are faster
GELU = "h = Gelu(p)"
BETWEEN = {
    "nothing": "h = Identity(p)",
    "relu": "h = Relu(p)",
    "gelu": GELU,
    "gelu by tanh": 'h = Gelu<approximate="tanh">(p)',
    "tanh": "h = Tanh(p)",
    "silu": "s = Sigmoid(p) h = Mul(p, s)",
    "square": "h = Mul(p, p)",
    "sum": "q = MatMul(x, v) s = Sigmoid(p) h = Add(q, s)",
    "gate": "q = MatMul(x, v) s = Sigmoid(p) t = Mul(p, s) h = Mul(t, q)",
}


def perceptron(between: str = GELU, rows: Any = 64, first: str = "p = Gemm(x, w, b)", last: str = "y = Gemm(h, u, c)",
               inner: int = INNER, columns: int = WIDE) -> onnx.ModelProto:  # fmt: skip
    """Two products of rows [rows, inner], and what is between them."""
    weights = {"w": random(inner, columns), "wt": random(columns, inner), "v": random(inner, columns, seed=1),
               "u": random(columns, inner)}  # fmt: skip
    text = f"(float[{rows},{inner}] x) => (y) {{ {first} {between} {last} }}"
    used = {name: array / 16 for name, array in weights.items() if re.search(rf"\b{name}\b", text)}
    return with_weights(model(text, 21), b=random(columns), c=random(inner), **used)


def optimized(proto: onnx.ModelProto, x: Any, written: Path | None = None) -> list[Any]:
    """The outputs with ONNX Runtime's optimizations, which choose the layout; the model that they make is `written`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if written is not None:
        options.optimized_model_filepath = str(written)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})  # type: ignore[no-any-return]


def check_results(rewritten: onnx.ModelProto, proto: onnx.ModelProto, x: Any) -> None:
    """The results are those of the model, with ONNX Runtime's optimizations and without them."""
    expected = in_runtime(proto, {"x": x})
    for outputs in (optimized(rewritten, x), in_runtime(rewritten, {"x": x})):
        for actual, each in zip(outputs, expected, strict=True):
            check_close(actual, each)


def checked(proto: onnx.ModelProto, x: Any, target: str = "cpu") -> Counter[str]:
    """The operators of the compiled model, whose results are those of the model."""
    rewritten = compiled(proto, target)
    check_results(rewritten, proto, x)
    return nodes(rewritten)


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_products_and_what_is_between_them(between: str) -> None:
    x = random(64, INNER)
    operators = checked(perceptron(between), x)
    assert operators["Conv"] == (3 if "x, v" in between else 2) and operators["Gemm"] == operators["MatMul"] == 0
    assert operators["Transpose"] == 2
    x[3], x[5, 7], x[9, 1] = np.nan, np.inf, -np.inf
    checked(perceptron(between), x)


@pytest.mark.parametrize("first", ["p = MatMul(x, w)", "p = Gemm(x, w)", "p = Gemm<transB=1>(x, wt, b)",
                                   "m = MatMul(x, w) p = Add(m, b)"])  # fmt: skip
@pytest.mark.parametrize("rows", [16, 49, 197])
def test_forms_of_products(first: str, rows: int) -> None:
    assert checked(perceptron(first=first, rows=rows), random(rows, INNER))["Conv"] == 2


@pytest.mark.parametrize(("options", "x"), [
    ({"first": "p = Gemm<alpha=2.0>(x, w, b)", "last": "y = Identity(h)"}, (64, INNER)),
    ({"first": "p = Gemm<beta=0.5>(x, w, b)", "last": "y = Identity(h)"}, (64, INNER)),
    ({"first": "n = Neg(x) p = Gemm<transA=1>(n, w, b)", "rows": INNER, "last": "y = Identity(h)"}, (INNER, INNER)),
    ({"first": "s = Transpose(x) p = MatMul(x, s)", "last": "y = Identity(h)"}, (64, INNER)),  # a computed matrix
    ({"first": "p = Gemm(x, w, x)", "columns": INNER, "inner": INNER, "last": "y = Identity(h)"}, (64, INNER)),
    ({"first": "p = Gemm(x, w, b)", "last": "y = MatMul(h, w)", "columns": INNER}, (64, INNER)),  # it is read twice
    ({"columns": 2056}, (64, INNER)),  # no whole blocks
    ({"inner": 520}, (64, 520)),
    ({"inner": 32, "columns": 64}, (64, 32)),  # small matrices
    ({"rows": "S"}, (64, INNER)),  # which may be none
])  # fmt: skip
def test_other_products_stay(options: dict[str, Any], x: tuple[int, ...]) -> None:
    operators = checked(perceptron(**options), random(*x))
    assert operators["Conv"] == 0 and operators["Gemm"] + operators["MatMul"] > 0


def test_a_matrix_that_is_computed_when_the_model_is_loaded_is_constant() -> None:
    assert checked(perceptron(first="n = Neg(w) p = Gemm(x, n, b)"), random(64, INNER))["Conv"] == 2


def test_what_no_product_reads_is_computed_on_rows() -> None:
    """The second GELU and the sum are of rows: what they compute is read by no product."""
    proto = perceptron(last="u0 = Gemm(h, u, c) g = Gelu(u0) a = Add(g, x) n = Softmax(h) y = Concat<axis=1>(a, n)")
    rewritten = compiled(proto)
    check_results(rewritten, proto, random(64, INNER))
    types = [node.op_type for node in rewritten.graph.node]
    assert types.count("Conv") == 2 and types.count("Transpose") == 3 and types.index("Gelu") < types.index("Softmax")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="ONNX Runtime has blocks of channels on x86")
@pytest.mark.parametrize("between", [BETWEEN[name] for name in ("nothing", "relu", "gelu", "gelu by tanh", "square")])
def test_the_runtime_reorders_rows_once_on_either_side(between: str, tmp_path: Path) -> None:
    """What is between the products stays in the layout, and the transposes are part of the reordering."""
    optimized(compiled(perceptron(between)), random(64, INNER), tmp_path / "model.onnx")
    types = nodes(onnx.load(tmp_path / "model.onnx"))
    assert types["ReorderInput"] == types["ReorderOutput"] == 1 and types["Transpose"] == 0 and types["Conv"] == 2


def test_a_portable_model_keeps_products() -> None:
    assert checked(perceptron(), random(64, INNER), "portable")["Conv"] == 0


@pytest.mark.parametrize(("bits", "operator"), [("int4", "MatMulNBits"), ("int8", "Conv")])
def test_weights_of_4_bits_are_those_of_products(bits: str, operator: str, tmp_path: Path) -> None:
    onnx.save(perceptron(), tmp_path / "model.onnx")
    irc.compile(tmp_path / "model.onnx", output=tmp_path / "out.onnx", settings=Settings(target="cpu"),
                onnx=irc.OnnxOptions(quantize=f"weights={bits}"))  # fmt: skip
    assert nodes(onnx.load(tmp_path / "out.onnx"))[operator] == 2


def test_modules_of_pytorch() -> None:
    """Whose weights are transposed; a batch that may be 0 keeps products."""
    module = torch.nn.Sequential(torch.nn.Linear(INNER, WIDE), torch.nn.GELU(), torch.nn.Linear(WIDE, INNER)).eval()
    x = torch.randn(3, 16, INNER)
    for dynamic, operator in ((None, "conv"), ({"input": {0: "B"}}, "linear")):
        function = irc.compile(module, (x,), backend="onnx", dynamic_shapes=dynamic, settings=Settings(target="cpu"))
        assert Counter(operation.name for operation in function.module.walk())[operator] == 2
        torch.testing.assert_close(function(x), module(x), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def slow_products(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A cost table by which products take very long."""
    table = scaled(find_costs(), 1e4, "Gemm.pair")
    grids = {name: {"axes": grid.axes, "seconds": grid.seconds} for name, grid in table.kernels.items()}
    path = tmp_path_factory.mktemp("costs") / "costs.json"
    path.write_text(as_text("none", "none", grids))
    return Settings(target="cpu", costs=str(path))


def test_random_programs_of_products(slow_products: Settings) -> None:
    """Random products and operations between them, of small matrices; of most programs some become convolutions."""
    convolutions = [_of_random_program(seed, slow_products) for seed in range(40)]
    assert sum(map(bool, convolutions)) > 25 and max(convolutions) > 3


def _of_random_program(seed: int, slow_products: Settings) -> int:
    """How many convolutions a program has that agrees with the model."""
    generator = np.random.default_rng(seed)
    widths, body, weights = {"x": 32}, [], dict[str, Any]()
    for index in range(generator.integers(3, 9)):
        x = str(generator.choice(sorted(widths)))
        alike = [name for name in sorted(widths) if widths[name] == widths[x]]
        kind = generator.choice(["product", "product", "unary", "binary", "norm"])
        widths[f"t{index}"] = widths[x]
        if kind == "product":
            columns = int(generator.choice([16, 32, 48, 40]))
            weights |= {f"w{index}": random(widths[x], columns, seed=index) / 8, f"b{index}": random(columns)}
            widths[f"t{index}"] = columns
            body.append(f"t{index} = Gemm({x}, w{index}, b{index})")
        elif kind == "unary":
            body.append(f"t{index} = {generator.choice(['Relu', 'Gelu', 'Tanh', 'Sigmoid', 'Neg'])}({x})")
        elif kind == "binary":
            body.append(f"t{index} = {generator.choice(['Add', 'Mul'])}({x}, {generator.choice(alike)})")
        else:
            body.append(f"t{index} = Softmax({x})")
    outputs = sorted({body[-1].split()[0], *generator.choice(sorted(set(widths) - {"x"}), 2)})
    proto = with_weights(model(f"(float[7,32] x) => ({', '.join(outputs)}) {{ {' '.join(body)} }}", 21), **weights)
    module = irc.opt(from_model(proto, NO_FOLDER), PIPELINE, backend="onnx", settings=slow_products)
    rewritten = emit(module, target=Target("cpu"))
    check_results(rewritten, proto, random(7, 32, seed=seed))
    return nodes(rewritten)["Conv"]
