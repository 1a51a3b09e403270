"""What computes matrix products, convolutions and attention: the choices of `--products` and of `fuse{products=...}`.

`host` are library calls, `irc` kernels where these are legal, and `auto` whichever is estimated to take less time on a
device. Only names are defined here, so that the command line starts without passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Products = Literal["host", "irc", "auto"]
PRODUCTS: tuple[Products, ...] = ("host", "irc", "auto")


@dataclass(frozen=True)
class Settled:
    """What computes all products of a program, as `auto` found by compiling it in three ways: the seconds that it is
    estimated to take with kernels, with library calls, and with the faster of both for each part."""

    products: Products
    kernel_seconds: float
    library_seconds: float
    mixed_seconds: float
