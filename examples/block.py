"""Example programs: `irc print examples/block.py:block`. Each function returns a module."""

import irc
from irc.module import Module
from irc.ops import add, attention, gelu, layer_norm, less, matmul, mul, reshape, scan, select, softmax, transpose

HEADS, SIZE = 4, 64


def block() -> Module:
    """A transformer block over x [B, S, 64] with four heads."""

    def heads(x, name):
        batch, length, _ = x.shape
        split = reshape(x, shape=(batch, length, HEADS, SIZE // HEADS))
        return transpose(split, permutation=(0, 2, 1, 3), name=name)

    def forward(x, wq, wk, wv, wo, w1, b1, w2, scale, bias):
        batch, length, _ = x.shape
        h = layer_norm(x, scale, bias, name="ln_1")
        q, k, v = (heads(matmul(h, w), name) for w, name in ((wq, "q"), (wk, "k"), (wv, "v")))
        context = transpose(attention(q, k, v, name="context"), permutation=(0, 2, 1, 3))
        merged = reshape(context, shape=(batch, length, SIZE))
        y = add(x, matmul(merged, wo, name="proj"), name="attended")
        hidden = gelu(add(matmul(layer_norm(y, scale, bias, name="ln_2"), w1, name="up"), b1), name="hidden")
        return add(y, matmul(hidden, w2, name="down"), name="out")

    square = f"f32[{SIZE}, {SIZE}]"
    return irc.trace(
        forward, f"f32[B, S, {SIZE}]", square, square, square, square,
        f"f32[{SIZE}, {4 * SIZE}]", f"f32[{4 * SIZE}]", f"f32[{4 * SIZE}, {SIZE}]", f"f32[{SIZE}]", f"f32[{SIZE}]",
    )  # fmt: skip


def scaled() -> Module:
    """(x @ w) * 0.5, which the rule `scale_into_weight` of rules.py matches."""
    return irc.trace(lambda x, w: mul(matmul(x, w, name="product"), 0.5, name="y"), "f32[B, 32]", "f32[32, 16]")


def scores() -> Module:
    """A softmax with a scale before it and a bias after it: one kernel, which loads each element once."""

    def forward(x, b):
        return add(softmax(mul(x, 0.125, name="scaled"), name="p"), b, name="y")

    return irc.trace(forward, "f32[M, ?N in (1, 4096)]", "f32[N]")


def nucleus() -> Module:
    """Of logits in descending order, the probabilities of the fewest tokens that add up to 0.9; the others are 0."""

    def forward(logits):
        p = softmax(logits, name="p")
        before = scan(p, kind="sum", axis=-1, exclusive=True, name="before")
        return select(less(before, 0.9), p, 0.0, name="y")

    return irc.trace(forward, "f32[M, ?N in (1, 8192)]")
