"""A rewrite, a group and a policy of one's own: `irc check examples/rules.py`."""

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
    """A bias and the gelu behind it: a pattern only; the planner judges whether it becomes a kernel."""
    return gelu(add(x, b))


@policy
def frugal(merge):
    """Merge what saves bytes, but never into a kernel that holds a reduction already."""
    if any(member.name in ("softmax", "layer_norm") for member in merge.producer.members):
        return reject("keeps reductions apart", at=merge.producer)
    return merge.bytes_saved
