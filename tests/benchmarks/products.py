"""Launches and bytes of blocks and networks with products in kernels, beside those of TorchInductor's plans.

    python -m tests.benchmarks.products [NAME ...] [--small] [--device NAME]

A Markdown row for each block of `tests.blocks` and each network of `tests.benchmarks.networks`, in bf16 at the sizes of
a model in use: launches (kernels, library calls and host operations), MB of global memory traffic and estimated
microseconds, with products as library calls (`host`) and in kernels (`irc`); what TorchInductor of PyTorch 2.13
dispatches for the same program by default, and of blocks with its templates for products
(`max_autotune_gemm_backends="TRITON"`); and the share of the flops that are in kernels with `irc`. Figures are counted
from the emitted program, without a GPU; `tests.benchmarks.dispatched` compares such figures with what runs. Those of
TorchInductor are the launches of its schedule for sm_90, and the bytes that it counts for them
(`GraphLowering.count_bytes`; of tables the rows that are gathered), in `inductor.json`. Microseconds are estimates of
one model (`irc.kernel.roofline`) for all plans, and no measurements.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import irc
from irc.device import DEFAULT_DEVICE, Device, find_device
from irc.driver.figures import by_operation
from irc.driver.models import Settings
from irc.driver.optimizing import run_pipeline
from irc.driver.roofline import estimate
from irc.dtypes import BF16
from irc.kernel.roofline import Matrices, call_estimate
from irc.module import Module
from irc.named_pipelines import DEFAULT
from tests.benchmarks.networks import NETWORKS, network
from tests.blocks import BLOCKS, block

MB, US = 1e6, 1e-6
# TorchInductor's kernels and calls: bytes, flops and results (matrices, rows, columns) of each; totals of others.
INDUCTOR: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "inductor.json").read_text())
KNOWN = (*BLOCKS, *NETWORKS)
HEAD = ("launches, MB, us", "host", "irc", "Inductor", "Inductor, templates", "MB, irc / Inductor",
        "us, irc / Inductor", "flops in kernels")  # fmt: skip
WITH_PRODUCTS = ("feed_forward", "encoder", "encoder_masked", "encoder_fused", "decoder_fused", "decoder")


class Figures(NamedTuple):
    """Launches, calls and host operations of a plan, the bytes that they move, the estimated seconds, None where these
    are not known, and the share of flops in kernels."""

    operations: int
    distinct_bytes: int
    seconds: float | None = None
    share: float = 0.0

    def __str__(self) -> str:
        time = "" if self.seconds is None else f", {self.seconds / US:.0f}"
        return f"{self.operations}, {self.distinct_bytes / MB:.0f}{time}"


def program(name: str, large: bool) -> Module:
    """The program of a block, or of a network, which has one size."""
    module, inputs = network(name) if name in NETWORKS else block(name, large=large)
    return irc.from_torch(module, inputs)


def compiled(source: Module, products: str, device: Device) -> Figures:
    """The figures of irc's plan."""
    module, _ = run_pipeline(source, DEFAULT, "triton", Settings(products=products))  # type: ignore[arg-type]
    operations = [each for parts in by_operation(module, {})[0].values() for each in parts]
    moved = sum(each.distinct_bytes for each in operations)
    outside = sum(each.flops for each in operations if each.kernel is None)
    share = 1 - outside / max(1, sum(each.flops for each in operations))
    return Figures(len(operations), moved, estimate(operations, device), share)


def inductor(name: str, device: Device) -> dict[str, Figures]:
    """The figures of TorchInductor's plans by name, where they are known. Its kernels move their bytes once, at the
    rate of memory; its calls are those of a library."""
    plans = {plan: Figures(each["operations"], each["bytes"]) for plan, each in INDUCTOR.get(name, {}).items()}
    operations = INDUCTOR.get(name, {}).get("default", {}).get("each", ())
    if operations:
        estimates = (call_estimate(each["bytes"], each.get("flops", 0), products_of(each), device)
                     for each in operations)  # fmt: skip
        plans["default"] = plans["default"]._replace(seconds=sum(each.seconds for each in estimates))
    return plans


def products_of(call: dict[str, Any]) -> Matrices | None:
    """The results of one of TorchInductor's calls of a library."""
    return Matrices(*call["result"], BF16, call["name"] == "attention") if "result" in call else None


def row(name: str, large: bool, device: Device) -> tuple[str, list[float]]:
    """The row of a block or a network, and the ratios in it, where there are some."""
    source = program(name, large)
    host, inside = (compiled(source, products, device) for products in ("host", "irc"))
    others = inductor(name, device)
    cells = [name, *map(str, (host, inside, others.get("default", ""), others.get("templates", "")))]
    ratios = []
    if "default" in others:
        ratios = [inside.distinct_bytes / others["default"].distinct_bytes]
        if inside.seconds is not None and others["default"].seconds is not None:
            ratios.append(inside.seconds / others["default"].seconds)
    cells += [f"{ratio:.2f}" for ratio in ratios] + [""] * (2 - len(ratios)) + [f"{inside.share:.1%}"]
    return f"| {' | '.join(cells)} |", ratios


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.products", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(KNOWN)}")
    parser.add_argument("--small", action="store_true", help="blocks at small sizes, without other plans")
    parser.add_argument("--device", default=DEFAULT_DEVICE, metavar="NAME|FILE.toml",
                        help="the device of the estimates")  # fmt: skip
    options = parser.parse_args()
    device = find_device(options.device)
    print(f"| {' | '.join(HEAD)} |", f"{'|---' * len(HEAD)}|", sep="\n")
    of_products = []
    for name in options.names or KNOWN:
        line, ratios = row(name, not options.small, device)
        print(line, flush=True)
        of_products += [ratios] if name in WITH_PRODUCTS else []
    if of_products:
        means = (math.exp(sum(map(math.log, column)) / len(of_products)) for column in zip(*of_products, strict=True))
        cells = ["geometric mean of blocks with products", *[""] * 4, *(f"{mean:.2f}" for mean in means), ""]
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
