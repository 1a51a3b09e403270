"""Launches and bytes of blocks with products in kernels, beside those of TorchInductor's plans.

    python -m tests.benchmarks.products [NAME ...] [--small]

A Markdown row for each block, in bf16 at the sizes of a model in use: launches (kernels, library calls and host
operations) and MB of global memory traffic, with products as library calls (`host`) and in kernels (`irc`); and what
TorchInductor of PyTorch 2.13 dispatches for the same program by default, and with its templates for products
(`max_autotune_gemm_backends="TRITON"`). Figures are counted from the emitted program, without a GPU;
`tests.benchmarks.dispatched` compares such figures with what runs.
"""

from __future__ import annotations

import argparse
import sys

import irc
from irc.driver.figures import KernelsReport
from irc.driver.models import Settings
from tests.blocks import BLOCKS, block

MB = 1e6
# Kernels and library calls, and bytes, of TorchInductor's plan: by default, and with templates.
INDUCTOR: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "pointwise": ((1, 134225920), (1, 134225920)),
    "softmax": ((1, 67108864), (1, 67108864)),
    "add_norm": ((1, 67112960), (1, 67112960)),
    "feed_forward": ((3, 167782400), (2, 100673536)),
    "encoder": ((10, 240668160), (9, 190336512)),
    "encoder_masked": ((10, 240676352), (9, 190344704)),
    "encoder_fused": ((10, 240668160), (9, 190336512)),
    "decoder_fused": ((15, 820518912), (13, 694689792)),
    "decoder": ((18, 1927815168), (15, 1768431616)),
}


def report(name: str, products: str, large: bool) -> KernelsReport:
    """The kernels and calls of a block."""
    module, inputs = block(name, large=large)
    settings = Settings(products=products)  # type: ignore[arg-type]
    return irc.kernels(irc.from_torch(module, inputs), settings=settings)


def figures(counted: KernelsReport) -> tuple[int, int]:
    """Launches, calls and host operations; and bytes."""
    return counted.launches + counted.library_calls + counted.host_operations, counted.distinct_bytes


def row(name: str, large: bool) -> str:
    """The row of a block."""
    host, inside = (figures(report(name, products, large)) for products in ("host", "irc"))
    default, templates = INDUCTOR[name]
    cells = [f"{count}, {size / MB:.0f}" for count, size in (host, inside, default, templates)]
    return f"| {name} | {' | '.join(cells)} | {inside[1] / default[1]:.2f} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.products", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(BLOCKS)}")
    parser.add_argument("--small", action="store_true", help="at small sizes, for which there are no other plans")
    options = parser.parse_args()
    print("| launches, MB | host | irc | Inductor | Inductor, templates | MB, irc / Inductor |")
    print("|---|---|---|---|---|---|")
    for name in options.names or BLOCKS:
        print(row(name, not options.small), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
