"""`products=auto`: what computes products is chosen by estimated times."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc import interpreter, ops
from irc.device import built_in, file_text
from irc.driver.counting import is_library, kernel_operations
from irc.driver.figures import by_operation
from irc.driver.models import Settings
from irc.driver.optimizing import run_pipeline
from irc.driver.roofline import estimate
from irc.module import Module
from irc.named_pipelines import DEFAULT
from irc.pass_manager import PassContext
from tests.blocks import block
from tests.command_line import EXAMPLES, irc_here
from tests.programs import arrays

BLOCK = f"{EXAMPLES}/block.py:block"
DEVICES = ("h100", "mi300x")
# Products of one operand are not joined for auto, and kernels are divided after the choice.
PIPELINE = DEFAULT.replace("siblings,", "").replace("split,", "")


@lru_cache
def source_of(name: str) -> Module:
    return irc.from_torch(*block(name, large=True))


def optimized(source: Module, products: str, device: str = "h100",
              pipeline: str = PIPELINE) -> tuple[Module, PassContext]:  # fmt: skip
    return run_pipeline(source, pipeline, "triton", Settings(products=products, device=device))  # type: ignore[arg-type]


def seconds(module: Module, device: str) -> float:
    operations = [each for parts in by_operation(module, {})[0].values() for each in parts]
    return estimate(operations, built_in(device))


def choices(context: PassContext, function: str = "main") -> list[dict[str, Any]]:
    return json.loads(context.plans[function].text).get("products", [])  # type: ignore[no-any-return]


def kernels(module: Module) -> list[str]:
    return [each.attributes["name"] for each in kernel_operations(module)]


def in_kernels(module: Module) -> set[str]:
    return {each.results[0].name for kernel in kernel_operations(module) for each in kernel.regions[0].block
            if is_library(each)}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ("feed_forward", "decoder_fused"))
def test_the_choice_takes_no_more_time_than_either(name: str, device: str) -> None:
    source = source_of(name)
    times = {products: seconds(optimized(source, products, device)[0], device) for products in ("host", "irc", "auto")}
    assert times["auto"] <= 1.0001 * min(times["host"], times["irc"]), times


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
    """Causal attention with a mask; a library that is infinitely fast does not compute it."""
    path = tmp_path / "fast.toml"
    path.write_text(file_text("h100").replace("kernel_products = 0.6", "kernel_products = 0.0001"))

    def program(q: Any, mask: Any, w: Any) -> Any:
        return ops.matmul(ops.attention(q, q, q, mask, causal=True), w)

    types = ("f32[2, 4, 64, 32]", "f32[64, 64]", "f32[32, 32]")
    source = irc.trace(program, *types)
    module, context = optimized(source, "auto", str(path))
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
