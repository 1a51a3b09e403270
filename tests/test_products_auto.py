"""`products=auto`: what computes products is chosen by estimated times."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import irc
from irc import interpreter, ops
from irc.device import built_in, file_text
from irc.driver.counting import is_library, kernel_operations
from irc.driver.explaining import followed
from irc.driver.figures import by_operation
from irc.driver.models import Settings
from irc.driver.optimizing import run_pipeline
from irc.driver.printing import module_after
from irc.driver.roofline import estimate
from irc.driver.workbench import Workbench
from irc.module import Module
from irc.named_pipelines import DEFAULT
from irc.pass_manager import PassContext
from irc.sizes import representative_sizes
from tests.benchmarks.networks import NETWORKS, network
from tests.blocks import block
from tests.command_line import EXAMPLES, irc_here
from tests.programs import arrays
from tests.random_graphs import Graph, graphs
from tests.random_products import PRODUCTS

BLOCK = f"{EXAMPLES}/block.py:block"
DEVICES = ("h100", "mi300x")
# Choices for each part: of these, products of one operand are not joined, and kernels are divided after the choice.
PIPELINE = DEFAULT.replace("siblings,", "").replace("split,", "")


@lru_cache
def source_of(name: str) -> Module:
    return irc.from_torch(*(network(name) if name in NETWORKS else block(name, large=True)))


def optimized(source: Module, products: str, device: str = "h100", pipeline: str = PIPELINE,
              sizes: dict[str, int] | None = None) -> tuple[Module, PassContext]:  # fmt: skip
    chosen = Settings(products=products, device=device, dims=sizes or {})  # type: ignore[arg-type]
    return run_pipeline(source, pipeline, "triton", chosen)


def seconds(module: Module, device: str, sizes: dict[str, int] | None = None) -> float:
    counted, _ = by_operation(module, representative_sizes(module.main, sizes or {}))
    return estimate([each for parts in counted.values() for each in parts], built_in(device))


def choices(context: PassContext, function: str = "main") -> list[dict[str, Any]]:
    return json.loads(context.plans[function].text).get("products", [])  # type: ignore[no-any-return]


def kernels(module: Module) -> list[str]:
    return [each.attributes["name"] for each in kernel_operations(module)]


def in_kernels(module: Module) -> set[str]:
    return {each.results[0].name for kernel in kernel_operations(module) for each in kernel.regions[0].block
            if is_library(each)}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "pipeline"), [
    ("feed_forward", PIPELINE), ("feed_forward", DEFAULT), ("decoder_fused", PIPELINE), ("decoder_fused", DEFAULT),
    ("encoder_masked", DEFAULT), ("resnet18", DEFAULT), ("convnext_block", DEFAULT),
])  # fmt: skip
def test_the_choice_takes_no_more_time_than_either(name: str, pipeline: str, device: str) -> None:
    """Of decoder_fused and resnet18 kernels for all products take less time than the faster for each part: products
    that are joined, and kernels that are divided."""
    check_least(source_of(name), pipeline, device)


def check_least(source: Module, pipeline: str, device: str, sizes: dict[str, int] | None = None) -> None:
    times = {products: seconds(optimized(source, products, device, pipeline, sizes)[0], device, sizes)
             for products in ("host", "irc", "auto")}  # fmt: skip
    assert times["auto"] <= (1 + 1e-9) * min(times["host"], times["irc"]), times


@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(graphs(PRODUCTS))
def test_the_choice_takes_no_more_time_than_either_of_random_graphs(graph: Graph) -> None:
    named = {symbol.name for symbol in representative_sizes(graph.module.main, {})}
    check_least(graph.module, DEFAULT, "h100", {name: size for name, size in graph.sizes.items() if name in named})


@pytest.mark.parametrize("products", ["irc", "host"])
def test_the_choice_for_a_whole_program_is_in_the_plan(products: str, tmp_path: Path) -> None:
    """The plan states the three times; it is followed with and without --products auto."""
    device = "h100"
    if products == "host":
        path = tmp_path / "slow.toml"
        path.write_text(file_text("h100").replace("kernel_products = 0.6", "kernel_products = 0.0001"))
        device = str(path)
    source = source_of("decoder_fused")
    module, context = optimized(source, "auto", device, DEFAULT)
    assert kernels(module) == kernels(optimized(source, products, device, DEFAULT)[0])
    (choice,) = choices(context)
    assert choice["products"] == products and len(choice["members"]) > 3
    assert choice["reason"].startswith(f"the program takes with kernels {choice['kernel_us']:.3g} us, ")
    assert "with the faster of each part" in choice["reason"].replace(", the", ", with the")
    (tmp_path / "plan.json").write_text(context.plans["main"].text)
    following = DEFAULT.replace("fuse", f"fuse{{plan={tmp_path}/plan.json}}").replace(",split", "")
    for option in ("auto", products):
        again, _ = optimized(source, option, device, following)
        assert kernels(again) == kernels(optimized(source, products, device, DEFAULT.replace(",split", ""))[0])


def test_every_command_sees_the_choice_for_the_whole() -> None:
    """Also those that stop before kernels are made, or follow plans."""
    source, chosen = source_of("decoder_fused"), Settings(products="auto")
    expected = kernels(optimized(source, "irc", pipeline=DEFAULT)[0])
    assert "split_linear" in str(module_after(source, DEFAULT, "siblings", "triton", chosen))
    assert kernels(followed(source, source.main.output_names[0], None, chosen)[0]) == expected
    bench = Workbench(source, None, chosen)
    assert bench.made_for(None).products == "irc"
    assert kernels(bench.run(bench.fuse).module) == expected


@pytest.mark.parametrize("name", ("pointwise", "feed_forward", "encoder_masked", "decoder"))
def test_choices_are_in_the_plan_and_in_the_program(name: str) -> None:
    module, context = optimized(source_of(name), "auto")
    inside = in_kernels(module)
    for each in choices(context):
        assert each["kernel_us"] > 0 and each["library_us"] > 0
        assert " us, " in each["reason"] or each["reason"].startswith("no library computes"), each
        assert each["products"] in ("irc", "host")
    libraries = [each for each in module.main.block if is_library(each)]
    assert len(libraries) == sum(len(each["members"]) for each in choices(context) if each["products"] == "host")
    assert bool(inside) == any(each["products"] == "irc" for each in choices(context))


def test_a_fast_library_and_a_fast_kernel_are_chosen(tmp_path: Path) -> None:
    """The device decides: where kernels reach a hundredth of the peak, libraries compute, and the other way around."""
    source = source_of("encoder")
    for slow, expected in (("kernel_products", "host"), ("library_products", "irc")):
        text = file_text("h100")
        value = next(line for line in text.splitlines() if line.startswith(f"{slow} ="))
        path = tmp_path / f"{slow}.toml"
        path.write_text(text.replace(value, f"{slow} = 0.001"))
        module, context = optimized(source, "auto", str(path))
        assert {each["products"] for each in choices(context)} == {expected}
        assert bool(in_kernels(module)) == (expected == "irc")
        assert kernels(module) == kernels(optimized(source, expected, str(path))[0])


def test_attention_that_no_library_computes_is_a_kernel(tmp_path: Path) -> None:
    """Causal attention with a mask; a library that is infinitely fast does not compute it. The choice for each part:
    calls for what attention consists of may take less time than that."""
    path = tmp_path / "fast.toml"
    path.write_text(file_text("h100").replace("kernel_products = 0.6", "kernel_products = 0.0001"))

    def program(q: Any, mask: Any, w: Any) -> Any:
        return ops.matmul(ops.attention(q, q, q, mask, causal=True), w)

    types = ("f32[2, 4, 64, 32]", "f32[64, 64]", "f32[32, 32]")
    source = irc.trace(program, *types)
    module, context = optimized(source, "auto", str(path), PIPELINE.replace("fuse", "fuse{products=auto}"))
    by_member = {member: each for each in choices(context) for member in each["members"]}
    attention = next(each for each in by_member.values() if each["reason"].startswith("no library"))
    assert attention["products"] == "irc"
    inputs = {name: array.astype(np.float32) for name, array in arrays(module, np.random.default_rng(0)).items()}
    for name, expected in interpreter.run(source, inputs).items():
        np.testing.assert_allclose(interpreter.run(module, inputs)[name], expected, rtol=1e-5, atol=1e-6)


def test_a_plan_of_auto_is_replayed(tmp_path: Path) -> None:
    source = source_of("feed_forward")
    module, context = optimized(source, "auto")
    assert 0 < len(in_kernels(module)) < 2 + len(choices(context))
    (tmp_path / "plan.json").write_text(context.plans["main"].text)
    again, second = optimized(source, "auto", "mi300x", PIPELINE.replace("fuse", f"fuse{{plan={tmp_path}/plan.json}}"))
    assert in_kernels(again) == in_kernels(module) and not choices(second)
    assert kernels(again) == kernels(module)


def test_the_options_agree(tmp_path: Path) -> None:
    source = source_of("feed_forward")
    by_option = optimized(source, "irc", pipeline=PIPELINE.replace("fuse", "fuse{products=auto}"))[0]
    assert in_kernels(by_option) == in_kernels(optimized(source, "auto")[0])
    done = irc_here("opt", BLOCK, "-p", "fuse{products=both}", folder=tmp_path)
    assert done.code == 2 and "host, irc, auto" in done.err


def test_choices_are_explained(tmp_path: Path) -> None:
    model = tmp_path / "model.irc"
    done = irc_here("opt", BLOCK, "-p", PIPELINE, "--products", "auto", "--dim", "B=8", "--dim", "S=512",
                    "-o", str(model), "--plan", "plan.json", folder=tmp_path)  # fmt: skip
    assert done.code == 0, done.err
    plan = json.loads((tmp_path / "plan.json").read_text())
    for each in plan["products"]:
        explained = irc_here("explain", str(model), f"%{each['members'][0]}", folder=tmp_path)
        assert f"fuse(products={each['products']}: {each['reason']})" in explained.out, explained.err


def test_functions_have_choices_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "m.irc").write_text("""irc text 1
module @m {
func @main(%x: bf16[4096, 1024], %w: bf16[1024, 4096]) -> bf16[4096, 4096] {
  %y = call @part %x, %w : bf16[4096, 4096]
  return %y
}
func @part(%x: bf16[4096, 1024], %w: bf16[1024, 4096]) -> bf16[4096, 4096] {
  %z = matmul %x, %w : bf16[4096, 4096]
  %g = gelu %z : bf16[4096, 4096]
  return %g
}
}
""")
    done = irc_here("opt", "m.irc", "-p", "fuse", "--products", "auto", "--plan", "plan.json", folder=tmp_path)
    assert done.code == 0, done.err
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [each.get("function") for each in plan["products"]] == ["part"]
