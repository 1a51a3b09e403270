"""A rewrite rule, a group and a policy in a user's file: `irc check examples/rules.py` tests the rule."""

from irc.ops import add, gelu, matmul, mul
from irc.policy import group, policy, reject
from irc.rewrite import rewrite


@rewrite(numerics="reassociates")
def scale_into_weight(x, w, s):
    """(x @ w) * s  ->  x @ (w * s)"""
    return mul(matmul(x, w), s), matmul(x, mul(w, s))


@scale_into_weight.when
def scalar(s):
    return s.rank == 0 or "the scale must be a scalar"


@group
def bias_gelu(x, b):
    """A bias and a gelu: a pattern, whose matches are proposed as kernels."""
    return gelu(add(x, b))


@policy
def frugal(merge):
    """Merge what saves bytes, but nothing into a kernel with a reduction."""
    if any(member.name in ("softmax", "layer_norm") for member in merge.producer.members):
        return reject("keeps reductions apart", at=merge.producer)
    return merge.bytes_saved
