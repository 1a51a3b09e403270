"""`--products auto` for a whole program: kernels, library calls, or the faster of both for each part.

The pass `fuse` compares kernels and calls part by part (`irc.passes._products`), in a program whose products are not
joined, and before kernels are split. So the program is compiled in three ways, each is counted as it is emitted, and
the one with the least estimated time is taken. Start at `settle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, takewhile
from typing import Any

from irc.module import Module
from irc.pass_manager import Pass, PassContext, PassManager
from irc.products import PRODUCTS, Products, Settled
from irc.sizes import representative_sizes

# Passes before fusion that do the same whatever computes products.
COMMON = ("canonicalize", "fold", "cse", "dce", "raise", "bias", "grouped_heads")


def settle(module: Module, passes: Sequence[Pass], context: PassContext) -> None:
    """State in the context what computes the products of the program, where that is left to irc; `module` is the
    program before the passes, and is not changed.

    A plan that is followed states it, too: by what it was made for, or by its choices where these are all the same.
    """
    if context.products != "auto" or context.settled is not None:
        return
    from irc.passes.fuse import Fuse  # imported here, since it needs kernels: other commands start faster

    fuse = next((step for step in passes if isinstance(step, Fuse)), None)
    if fuse is None or fuse.products:
        return
    fuse.prepare(context)
    if context.followed is not None:
        stated = {entry.products for entry in context.followed.products}
        stated = {context.followed.made_for.products} - {None} or stated
        for products in PRODUCTS:
            if stated == {products}:
                compute(products, context)
        return
    seconds = seconds_of_each(module, passes, context)
    # Of equal times kernels come before choices for each part, and these before calls.
    in_order: tuple[Products, ...] = ("irc", "auto", "host")
    best = min(in_order, key=seconds.__getitem__)
    if best != "auto":
        context.settled = Settled(best, seconds["irc"], seconds["host"], seconds["auto"])
    compute(best, context)


def seconds_of_each(module: Module, passes: Sequence[Pass], context: PassContext) -> dict[Products, float]:
    """The estimated seconds of the program as it is emitted, with products computed by each of `PRODUCTS`."""
    from irc.driver.figures import by_operation
    from irc.driver.roofline import estimate

    common = list(takewhile(lambda step: step.pipeline_name() in COMMON, passes))
    start = module.clone()
    PassManager(common, trial(context, "auto")).run(start)
    seconds: dict[Products, float] = {}
    for products in PRODUCTS:
        tried, copy = trial(context, products), start.clone()
        PassManager(passes[len(common) :], tried).run(copy)
        counted, _ = by_operation(copy, representative_sizes(copy.main, context.sizes))
        seconds[products] = estimate(chain.from_iterable(counted.values()), context.device)
    return seconds


def compute(products: Products, context: PassContext) -> None:
    """Let passes do what is for such products."""
    target: Any = context.target
    context.products, context.target = products, None if target is None else replace(target, products=products)


def trial(context: PassContext, products: Products) -> PassContext:
    """A context for a copy of the program, which notes and records nothing."""
    tried = replace(context, statistics={}, plans={}, joined={}, notes=[], show_note=None, remarks=None,
                    reproduce=None)  # fmt: skip
    compute(products, tried)
    return tried
