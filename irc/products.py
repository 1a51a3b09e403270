"""What computes matrix products, convolutions and attention: the choices of `--products` and of `fuse{products=...}`.

`host` are library calls, `irc` kernels where these are legal, and `auto` whichever is estimated to take less time on a
device. Only names are defined here, so that the command line starts without passes.
"""

from __future__ import annotations

from typing import Literal

Products = Literal["host", "irc", "auto"]
PRODUCTS: tuple[Products, ...] = ("host", "irc", "auto")
