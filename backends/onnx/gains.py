"""Which rewrites ONNX Runtime's CPU provider gains from, at the shapes of a program.

`gains` is what `Target.pays` asks. Each rewrite has a function in `GAINS`, which compares the kernels that the runtime
runs before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irc.ir import Operation


def gains(rewrite: str, operations: Sequence[Operation]) -> bool:
    """Whether a rewrite of these operations makes a model faster on the CPU."""
    return GAINS[rewrite](operations)


def always(operations: Sequence[Operation]) -> bool:
    """Measured to be faster at all shapes that were tried, see the pages of the passes."""
    return True


GAINS: dict[str, Callable[[Sequence[Operation]], bool]] = {
    "attention_rows": always,
    "flatten_rows": always,
    "visible_rows": always,
}
