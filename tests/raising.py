"""Programs before and after raising, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from irc import dims, interpreter
from irc.driver.pipelines import parse_pipeline
from irc.module import Module
from irc.op import trace
from irc.pass_manager import PassContext, PassManager

CLEAN = "canonicalize,fold,cse"


def raised(program: Any, *types: str, numerics: Any = "keeps_more_precision") -> tuple[Module, Module]:
    """A program, and what raising makes of it."""
    module = trace(program, *types)
    before = module.clone()
    passes = parse_pipeline(f"{CLEAN},raise,canonicalize,fold,dce")
    PassManager(passes, PassContext(numerics=numerics), verify_each=True).run(module)
    return before, module


def raised_names(program: Any, *types: str, **options: Any) -> list[str]:
    """The operations after raising, constants and the return left out."""
    _, module = raised(program, *types, **options)
    return [operation.name for operation in module.main.block if operation.name not in ("const", "return")]


def same_numbers(before: Module, after: Module, tolerance: float = 2e-6) -> None:
    draw = np.random.default_rng(0)
    sizes = {symbol: 3 + 2 * index for index, symbol in enumerate(before.main.symbols.values())}
    inputs = {}
    for argument in before.main.arguments:
        values = draw.normal(size=[dims.evaluate(dim, sizes) for dim in argument.shape])
        inputs[argument.name] = (values > 0 if argument.dtype.name == "bool" else values).astype(argument.dtype.numpy)
    for a, b in zip(
        interpreter.run(before, inputs, precision="f64").values(),
        interpreter.run(after, inputs, precision="f64").values(),
        strict=True,
    ):
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * np.nanmax(np.abs(a)))
