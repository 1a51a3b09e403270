"""What the pass `channels_last` changes: two tables in Markdown, of networks and of kernels. Nothing is timed.

    python -m tests.benchmarks.channels_last [NAME ...] [--target sm_90]

For each network of convolutions of `tests.benchmarks.networks`, in bf16 with products in kernels, without the pass and
with it: launches, MB of global memory traffic, and the accesses of global memory that threads make, counted from the
nests of the kernels. For the convolution between two others, compiled for a GPU without one: registers of a thread,
bytes that it spills, and its instructions that load global memory by their bits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import irc
from irc.backends.triton import TARGETS, compile_artefact, emit
from irc.driver.figures import by_operation
from irc.driver.models import Settings
from irc.kernel import kernel_of
from irc.kernel.access_width import accesses_of_threads
from irc.module import Module
from irc.sizes import representative_sizes
from tests.benchmarks.networks import network

CONVOLUTIONAL = ("resnet18", "mobilenet_v3", "unet_block", "convnext_block")
# Channels, positions along each side, filters, places of a window along each side, stride and groups.
INNER = ((64, 56, 64, 3, 1, 1), (64, 56, 128, 3, 2, 1), (256, 14, 256, 3, 1, 1), (64, 56, 256, 1, 1, 1),
         (256, 14, 64, 1, 1, 1), (512, 7, 512, 1, 1, 1), (64, 56, 64, 3, 1, 64), (512, 14, 512, 3, 1, 512))  # fmt: skip


def optimized(module: Module, values: str) -> Module:
    return irc.opt(module, f"default{{channels_last.values={values}}}", backend="triton",
                   settings=Settings(products="irc"))  # fmt: skip


def figures(module: Module) -> str:
    """Launches, MB and millions of accesses."""
    operations = [each for parts in by_operation(module, {})[0].values() for each in parts]
    sizes = representative_sizes(module.main, {})
    accesses = sum(accesses_of_threads(kernel_of(each), sizes) for each in module.walk() if each.name == "kernel")
    return f"{len(operations)}, {sum(each.distinct_bytes for each in operations) / 1e6:.0f}, {accesses / 1e6:.0f}"


class Inner(nn.Module):
    """A convolution between two others, which have windows of three places, so that they are kernels of their own."""

    def __init__(self, channels: int, filters: int, window: int, stride: int, groups: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(8, channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(channels, filters, window, stride, window // 2, groups=groups), nn.ReLU(),
            nn.Conv2d(filters, 8, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def compiled(module: Module, target: str) -> str:
    """Registers, spilled bytes and loads of the kernel of the convolution between the others, or of parts of it."""
    with tempfile.TemporaryDirectory() as folder:
        emit(module, Path(folder) / "a")
        kernels = compile_artefact(Path(folder) / "a", (target,))
    each = next(each for each in kernels if each.kernel.startswith("layers_3"))
    assert not each.error, each
    loads = ", ".join(f"{number} of {bits}" for bits, number in each.loads.items())
    return f"{each.registers}, {each.spilled_bytes}: {loads}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.channels_last",
                                     description=__doc__.split("\n")[0])  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(CONVOLUTIONAL)}")
    parser.add_argument("--target", choices=TARGETS, default="sm_90")
    options = parser.parse_args()
    print("| launches, MB, millions of accesses | as computed | channels last |", "|---|---|---|", sep="\n")
    for name in options.names or CONVOLUTIONAL:
        source = irc.from_torch(*network(name))
        cells = [figures(optimized(source, values)) for values in ("none", "chosen")]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n| registers, spilled bytes: loads ({options.target}) | as computed | channels last |\n|---|---|---|")
    for channels, side, filters, window, stride, groups in INNER:
        model = Inner(channels, filters, window, stride, groups).eval().to(torch.bfloat16)
        source = irc.from_torch(model, (torch.randn(8, 8, side, side, dtype=torch.bfloat16),))
        cells = [compiled(optimized(source, values), options.target) for values in ("none", "chosen")]
        kind = "depthwise" if groups > 1 else f"{channels} to {filters}"
        label = f"{window}x{window}, {kind}, {side}x{side}" + (f", stride {stride}" if stride > 1 else "")
        print(f"| {label} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
