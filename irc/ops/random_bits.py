"""Random bits as a pure function of a seed and a position, from which kernels draw random numbers.

What draws the seed is an operation of its own, an extern. Since `philox` depends on its operands alone, passes and
planners need no case for it: computed twice, it gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from irc.diagnostics import fail
from irc.dtypes import U32
from irc.interfaces import Pointwise
from irc.op import IntegerType, primitive
from irc.ops.numerics import Array
from irc.ops.rules import broadcast_types
from irc.types import TensorType

ROUNDS = 10
MULTIPLIERS, KEY_STEPS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF


@primitive(Pointwise(flops=10 * ROUNDS))
def philox(seed: IntegerType, index: IntegerType, /, *, stream: int = 0, word: Literal[0, 1, 2, 3] = 0) -> TensorType:
    """32 random bits that follow from the operands: a word of what Philox4x32-10 makes of a key and a counter.

    The key is the seed in 64 bits. The counter has the index in its lower 64 bits, and the stream above them. Draws of
    one seed differ where their streams do.
    Shapes: operands broadcast as in NumPy; the result is u32.
    Attributes: stream, below 2^32; word, one of four.
    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011); tl.philox of Triton.
    Edge cases: integers of fewer than 64 bits are extended, signed ones by their sign.
    """
    if not 0 <= stream <= LOW:
        raise fail("type.attribute", f"stream {stream}", expected="0, 1, ... below 2^32")
    return broadcast_types(seed, index).with_dtype(U32)


@philox.reference
def _philox(seed: Array, index: Array, *, stream: int, word: int) -> Array:
    key, counter = (each.astype(np.int64).astype(np.uint64) for each in np.broadcast_arrays(seed, index))
    above = np.full_like(counter, stream)
    words = philox_4x32([counter & LOW, counter >> 32, above, np.zeros_like(above)], [key & LOW, key >> 32])
    return np.asarray(words[word].astype(np.uint32))


def philox_4x32(counter: Sequence[Array], key: Sequence[Array]) -> list[Array]:
    """The four words of 32 bits that ten rounds make of a counter of four words and a key of two, all in u64."""
    c, k = list(counter), list(key)
    for _ in range(ROUNDS):
        first, second = c[0] * MULTIPLIERS[0], c[2] * MULTIPLIERS[1]  # of 64 bits
        c = [(second >> 32) ^ c[1] ^ k[0], second & LOW, (first >> 32) ^ c[3] ^ k[1], first & LOW]
        k = [(each + step) & LOW for each, step in zip(k, KEY_STEPS, strict=True)]
    return c
