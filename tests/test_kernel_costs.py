"""Cost tables of ONNX Runtime's kernels: those that irc has, files, interpolation, and `irc calibrate`."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import irc
from irc import ops
from irc.backends.onnx import Target
from irc.backends.onnx.gains import GAINS, Costs, gains
from irc.diagnostics import IrcError
from irc.driver import Settings, calibrate
from irc.driver.calibrated import KINDS, Node
from irc.driver.calibrating import model_of, runner
from irc.ir import Value
from irc.kernel_costs import BUILT_IN, CostTable, Grid, find_costs, parse_costs
from irc.op import const
from irc.weights import Tensor
from tests.command_line import irc_here

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", BUILT_IN)
def test_tables_have_all_kinds_at_their_sizes(name: str) -> None:
    table = find_costs(name)
    assert list(table.kernels) == list(KINDS) and table.machine and table.method
    for kind, grid in table.kernels.items():
        assert dict(grid.axes) == dict(KINDS[kind].axes), kind


@pytest.mark.parametrize("name", BUILT_IN)
def test_tables_show_what_is_known_of_the_kernels(name: str) -> None:
    """What holds on every processor by how ONNX Runtime's kernels are written; a wrong unit does not pass."""
    cost = find_costs(name).seconds
    rows = {"rows": 128, "width": 512}
    assert 1e-8 < find_costs(name).overhead < 1e-4
    assert cost("SkipLayerNormalization", **rows) > 2 * (
        cost("LayerNormalization", **rows) + cost("Add", elements=65536)
    )
    assert cost("Gemm.pair", rows=128, inner=512, columns=1024) > cost("Gemm.pair", rows=128, inner=512, columns=512)
    assert cost("Attention", heads=8, queries=128, keys=128, width=64) < 0.01
    assert cost("QuickGelu", elements=65536) < cost("Sigmoid", elements=65536) + cost("Mul", elements=65536)
    flops = 4 * 256 * 1024 * 1024 / cost("Gemm.pair", rows=256, inner=1024, columns=1024)
    assert 1e9 < flops < 1e12


def test_every_file_is_a_table() -> None:
    assert {path.stem for path in (ROOT / "irc" / "costs").iterdir()} == set(BUILT_IN)


def test_interpolation_follows_products_of_powers() -> None:
    """Seconds that are a product of powers of the sizes are reproduced between all points of a grid."""
    generator = random.Random(0)
    axes = {"rows": (1, 7, 100), "width": (3, 1000)}
    for _ in range(20):
        powers = {name: generator.uniform(0, 2) for name in axes}

        def seconds(powers: dict[str, float] = powers, **sizes: float) -> float:
            return 1e-6 * math.prod(size ** powers[name] for name, size in sizes.items())

        grid = Grid(axes, tuple(seconds(rows=a, width=b) for a in axes["rows"] for b in axes["width"]))
        for _ in range(20):
            sizes = {name: generator.randint(known[0], known[-1]) for name, known in axes.items()}
            assert math.isclose(grid.at(sizes), seconds(**sizes), rel_tol=1e-9)


def test_outside_of_a_grid_seconds_are_in_proportion() -> None:
    grid = Grid({"rows": (2, 4)}, (2e-6, 3e-6))
    assert math.isclose(grid.at({"rows": 40}), 3e-5) and math.isclose(grid.at({"rows": 1}), 1e-6)


def test_empty_tensors_cost_a_node() -> None:
    table = find_costs()
    assert table.seconds("Gemm.pair", rows=0, inner=512, columns=512) == table.overhead


GOOD = {"schema": "irc.costs/1", "machine": "m", "method": "n",
        "kernels": {"Reshape": {"axes": {"elements": [1, 8]}, "seconds": [1e-6, 2e-6]}}}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        None,
        {"schema": "irc.costs/9"},
        {"kernels": {}},
        {"kernels": []},
        {"kernels": {"Reshape": []}},
        {"kernels": {"Reshape": {"axes": {}, "seconds": []}}},
        {"kernels": {"Reshape": {"axes": {"elements": [8, 1]}, "seconds": [1e-6, 2e-6]}}},
        {"kernels": {"Reshape": {"axes": {"elements": [0, 1]}, "seconds": [1e-6, 2e-6]}}},
        {"kernels": {"Reshape": {"axes": {"elements": [1.5]}, "seconds": [1e-6]}}},
        {"kernels": {"Reshape": {"axes": {"elements": [True]}, "seconds": [1e-6]}}},
        {"kernels": {"Reshape": {"axes": {"elements": [1, 8]}, "seconds": [1e-6]}}},
        {"kernels": {"Reshape": {"axes": {"elements": [1]}, "seconds": [0]}}},
        {"kernels": {"Reshape": {"axes": {"elements": [1]}, "seconds": ["fast"]}}},
        {"kernels": {"Reshape": {"axes": {"elements": [1]}, "seconds": [math.inf]}}},
        {"kernels": {"Reshape": {"axes": {"elements": [1]}, "seconds": [math.nan]}}},
    ],
)
def test_files_that_are_no_tables(change: dict[str, object] | None) -> None:
    parse_costs(json.dumps(GOOD).encode(), "good.json")
    content = b"\xff" if change is None else json.dumps({**GOOD, **change}).encode()
    with pytest.raises(IrcError) as caught:
        parse_costs(content, "bad.json")
    assert caught.value.code == "costs.file" and "bad.json" in str(caught.value)


def test_unknown_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(IrcError, match="avx512") as caught:
        find_costs("avx521")
    assert caught.value.code == "costs.unknown"
    with pytest.raises(IrcError) as caught:
        find_costs(str(tmp_path / "none.json"))
    assert caught.value.code == "file.missing"


def test_settings_choose_the_table_of_a_target(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD))
    target = Settings(costs=str(path), target="cpu").target_of("onnx")
    assert isinstance(target, Target) and target.costs is not None
    assert target.costs.overhead == 1e-6  # and kinds that the file lacks are those of the default
    assert target.costs.kernels["Gemm.pair"] is find_costs().kernels["Gemm.pair"]
    with pytest.raises(IrcError, match="--costs"):
        Settings(costs="avx2").target_of("triton")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_runs(name: str) -> None:
    """At the smallest sizes of its grid; twice, since a model of several nodes is what is measured."""
    kind = KINDS[name]
    node = kind.node(**{axis: sizes[0] for axis, sizes in kind.axes.items()})
    runner(node, 2)()
    graph = model_of(node, 2).graph
    assert len(graph.node) == (4 if node.back else 2)
    if node.back:  # nodes have constants of their own, of which the runtime does not make one
        assert len({each.raw_data for each in graph.initializer}) == 4 * len(node.constants)


def test_calibrate_writes_a_table(tmp_path: Path) -> None:
    result = irc_here("calibrate", "-o", "costs.json", "--kind", "Softmax", folder=tmp_path)
    assert result.code == 0 and "2 kinds of kernels at 16 sizes" in result.out, result.err
    table = find_costs(str(tmp_path / "costs.json"))
    assert "onnxruntime" in table.method and table.kernels["Softmax"].seconds != find_costs().kernels["Softmax"].seconds


def test_calibrate_reports_its_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IrcError, match="Softmaxx"):
        calibrate(tmp_path / "a.json", kinds=("Softmaxx",))
    assert not list(tmp_path.iterdir())
    result = irc_here("calibrate", "-o", ".", folder=tmp_path)
    assert result.code == 2 and "error[" in result.err
    monkeypatch.setitem(
        KINDS, "Abs", type(KINDS["Abs"])("Abs", {"elements": (8,)}, lambda elements: Node("None", ((8,),)))
    )
    with pytest.raises(IrcError, match="0 runs"):
        calibrate(tmp_path / "a.json", runs=0)
    report = calibrate(tmp_path / "b.json", kinds=("Abs",), runs=2)
    assert list(report.failures) == ["Abs"] and report.kinds == 1


# -- where rewrites pay ------------------------------------------------------------------------------------------

S = "f32[B, S, 64]"


def normed(x: Value, y: Value, w: Value) -> Value:
    """A product, a sum, a norm: [B, S, 64]."""
    g = const(value=Tensor.of(np.ones(64, np.float32), name="g"))
    return ops.layer_norm(ops.add(ops.matmul(x, w), y), g, axis=-1)


def attended(q: Value, k: Value, v: Value) -> Value:
    """Attention of 4 heads, whose rows are apart."""
    def heads(x: Value) -> Value:
        return ops.transpose(ops.reshape(x, shape=(2, 32, 4, 16)), permutation=(0, 2, 1, 3))

    result = ops.attention(heads(q), heads(k), heads(v), masked_rows="nan_as_zero")
    return ops.reshape(ops.transpose(result, permutation=(0, 2, 1, 3)), shape=(2, 32, 64))


def cached(q: Value, past: Value) -> Value:
    """Attention of 4 heads to 128 cached tokens and a new one."""
    heads = ops.transpose(ops.reshape(q, shape=(2, 1, 4, 16)), permutation=(0, 2, 1, 3))
    keys = ops.concat(past, heads, axis=2)
    result = ops.attention(heads, keys, ops.concat(past, ops.neg(heads), axis=2))
    return ops.reshape(ops.transpose(result, permutation=(0, 2, 1, 3)), shape=(2, 1, 64))


def rotated(x: Value, cos: Value, sin: Value) -> Value:
    return ops.add(ops.mul(x, cos), ops.mul(x, sin))


def perceptron(x: Value, w: Value, v: Value) -> Value:
    return ops.matmul(ops.gelu(ops.matmul(x, w)), v)


def swapped(x: Value) -> Value:
    first = ops.relu(ops.transpose(x, permutation=(1, 0, 2, 3)))
    return ops.transpose(first, permutation=(0, 2, 1, 3))


ROWS = ["matmul", "add", "layer_norm"]
PROGRAMS = {"flatten_rows": (normed, (S, S, "f32[64, 64]"), ROWS),
            "attention_rows": (attended, ("f32[2, 32, 64]",) * 3, ["attention"]),
            "cached_attention": (cached, ("f32[2, 1, 64]", "f32[2, 4, 128, 16]"), ["attention"]),
            "rotary": (rotated, ("f32[2, 8, S, 64]", *["f32[1, 1, S, 64]"] * 2), ["add"]),
            "visible_rows": (attended, ("f32[2, 32, 64]",) * 3, ["attention"]),
            "row_gathers": (swapped, ("f32[8, 16, 16, 96]",), ["transpose"]),
            "products_as_conv": (perceptron, ("f32[8, 256]", "f32[256, 256]", "f32[256, 256]"), ["matmul", "gelu"]),
            "blocked_layout": (ops.mul, ("f32[1, 96, 14, 14]", "f32[1, 96, 1, 1]"), ["mul"])}  # fmt: skip


def scaled(table: CostTable, factor: float, *kinds: str) -> CostTable:
    """The table with other times of some kinds."""
    grids = {kind: replace(table.kernels[kind], seconds=tuple(factor * each for each in table.kernels[kind].seconds))
             for kind in kinds}  # fmt: skip
    return replace(table, kernels={**table.kernels, **grids})


# What makes a rewrite lose: kernels before it that were so fast, or those after it so slow.
LOSES = {
    "flatten_rows": (1e-6, ("SkipLayerNormalization",)),
    "attention_rows": (1e-6, ("Transpose.rows", "Attention.heads")),
    "cached_attention": (1e4, ("Attention",)),
    "rotary": (1e4, ("RotaryEmbedding",)),
    "visible_rows": (1e3, ("Attention", "Attention.masked")),
    "row_gathers": (1e3, ("Gather",)),
    "products_as_conv": (1e3, ("Conv.pair",)),
    "blocked_layout": (1e3, ("Expand",)),
}


@pytest.mark.parametrize("name", GAINS)
def test_the_table_decides_a_rewrite(name: str) -> None:
    """Every rewrite has a program here for which the tables of irc say yes, and a table of other times says no."""
    program, types, members = PROGRAMS[name]
    module = irc.opt(irc.trace(program, *types), "cse", backend="onnx")
    operations = [each for each in module.walk() if each.name in members]
    sizes = {"B": 4, "S": 128}
    for table in map(find_costs, BUILT_IN):
        assert gains(name, operations, table, sizes)
    factor, kinds = LOSES[name]
    assert not gains(name, operations, scaled(find_costs(), factor, *kinds), sizes)


def test_sizes_of_symbols_decide() -> None:
    """The time of a norm grows with the rows that --dim states; 64 of a symbol where it states none."""
    module = irc.trace(normed, S, S, "f32[64, 64]")
    operations = [each for each in module.walk() if each.name in ROWS]
    times = [GAINS["flatten_rows"](operations, Costs(find_costs(), sizes))[0]
             for sizes in ({"B": 1, "S": 1}, {}, {"B": 64, "S": 64}, {"B": 64, "S": 512})]  # fmt: skip
    assert times[0] < times[1] == times[2] < times[3]
    target = Settings(target="cpu", dims={"B": 2, "S": 3}).target_of("onnx")
    assert dict(target.sizes) == {"B": 2, "S": 3}
