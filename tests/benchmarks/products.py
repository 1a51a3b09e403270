"""Launches and bytes of blocks and networks with products in kernels, beside those of TorchInductor's plans.

    python -m tests.benchmarks.products [NAME ...] [--small]

A Markdown row for each block of `tests.blocks` and each network of `tests.benchmarks.networks`, in bf16 at the sizes of
a model in use: launches (kernels, library calls and host operations) and MB of global memory traffic, with products as
library calls (`host`) and in kernels (`irc`); what TorchInductor of PyTorch 2.13 dispatches for the same program by
default, and of blocks with its templates for products (`max_autotune_gemm_backends="TRITON"`); and the share of
the flops that are in kernels with `irc`. Figures are counted from the emitted program, without a GPU;
`tests.benchmarks.dispatched` compares such figures with what runs. Those of TorchInductor are the launches of its
schedule for sm_90, and the bytes that it counts for them (`GraphLowering.count_bytes`).
"""

from __future__ import annotations

import argparse
import sys

import irc
from irc.driver.figures import KernelsReport
from irc.driver.models import Settings
from irc.module import Module
from tests.benchmarks.networks import NETWORKS, network
from tests.blocks import BLOCKS, block

MB = 1e6
# Kernels and library calls, and bytes, of TorchInductor's plan: by default, and with templates.
INDUCTOR: dict[str, tuple[tuple[int, int], ...]] = {
    "pointwise": ((1, 134225920), (1, 134225920)),
    "softmax": ((1, 67108864), (1, 67108864)),
    "add_norm": ((1, 67112960), (1, 67112960)),
    "feed_forward": ((3, 167782400), (2, 100673536)),
    "encoder": ((10, 240668160), (9, 190336512)),
    "encoder_masked": ((10, 240676352), (9, 190344704)),
    "encoder_fused": ((10, 240668160), (9, 190336512)),
    "decoder_fused": ((15, 820518912), (13, 694689792)),
    "decoder": ((18, 1927815168), (15, 1768431616)),
    "resnet18": ((57, 248416336),),
    "mobilenet_v3": ((129, 315045328),),
    "convnext_block": ((7, 130214784),),
}
KNOWN = (*BLOCKS, *NETWORKS)


def program(name: str, large: bool) -> Module:
    """The program of a block, or of a network, which has one size."""
    module, inputs = network(name) if name in NETWORKS else block(name, large=large)
    return irc.from_torch(module, inputs)


def report(source: Module, products: str) -> KernelsReport:
    """The kernels and calls of a program."""
    return irc.kernels(source, settings=Settings(products=products))  # type: ignore[arg-type]


def figures(counted: KernelsReport) -> tuple[int, int]:
    """Launches, calls and host operations; and bytes."""
    return counted.launches + counted.library_calls + counted.host_operations, counted.distinct_bytes


def share_of_flops(counted: KernelsReport) -> float:
    """The share of the flops of kernels and library calls that is in kernels."""
    return 1 - sum(call.flops for call in counted.calls) / max(1, counted.flops)


def row(name: str, large: bool) -> str:
    """The row of a block or a network."""
    source = program(name, large)
    host, inside = (report(source, products) for products in ("host", "irc"))
    others = INDUCTOR.get(name, ())
    cells = [f"{count}, {size / MB:.0f}" for count, size in (figures(host), figures(inside), *others)]
    cells += [""] * (2 - len(others))
    ratio = f"{figures(inside)[1] / others[0][1]:.2f}" if others else ""
    return f"| {name} | {' | '.join(cells)} | {ratio} | {share_of_flops(inside):.1%} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.products", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(KNOWN)}")
    parser.add_argument("--small", action="store_true", help="blocks at small sizes, without other plans")
    options = parser.parse_args()
    print("| launches, MB | host | irc | Inductor | Inductor, templates | MB, irc / Inductor | flops in kernels |")
    print("|---|---|---|---|---|---|---|")
    for name in options.names or KNOWN:
        print(row(name, not options.small), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
