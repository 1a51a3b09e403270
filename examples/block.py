"""Programs to look at: `irc print examples/block.py:block`. Each name is a function that makes a module."""

import irc
from irc.ir import Module
from irc.ops import add, attention, gelu, layer_norm, matmul, mul, reshape, softmax, transpose

HEADS, SIZE = 4, 64


def block() -> Module:
    """A transformer block over x [B, S, 64] with four heads, as a model would spell it."""

    def heads(x, batch, length):
        return transpose(reshape(x, shape=(batch, length, HEADS, SIZE // HEADS)), permutation=(0, 2, 1, 3))

    def forward(x, wq, wk, wv, wo, w1, b1, w2, scale, bias):
        batch, length, _ = x.shape
        h = layer_norm(x, scale, bias)
        q, k, v = (heads(matmul(h, w), batch, length) for w in (wq, wk, wv))
        context = transpose(attention(q, k, v), permutation=(0, 2, 1, 3))
        y = add(x, matmul(reshape(context, shape=(batch, length, SIZE)), wo))
        return add(y, matmul(gelu(add(matmul(layer_norm(y, scale, bias), w1), b1)), w2))

    square = f"f32[{SIZE}, {SIZE}]"
    return irc.trace(
        forward, f"f32[B, S, {SIZE}]", square, square, square, square,
        f"f32[{SIZE}, {4 * SIZE}]", f"f32[{4 * SIZE}]", f"f32[{4 * SIZE}, {SIZE}]", f"f32[{SIZE}]", f"f32[{SIZE}]",
    )  # fmt: skip


def scaled() -> Module:
    """(x @ w) * 0.5: what the rule `scale_into_weight` of rules.py is about."""
    return irc.trace(lambda x, w: mul(matmul(x, w), 0.5), "f32[B, 32]", "f32[32, 16]")


def scores() -> Module:
    """A softmax with a scale before it and a bias after it: one kernel that loads each element once."""
    return irc.trace(lambda x, b: add(softmax(mul(x, 0.125)), b), "f32[M, N]", "f32[N]")
