"""A policy to start from: copy the file, change it, and give it in a pipeline (docs/research.md)."""

from irc.policy import policy, reject

MOST_MEMBERS = 2


@policy
def small(merge):
    """Merge what saves bytes, into kernels of at most MOST_MEMBERS operations."""
    members = len(merge.merged.members)
    if members > MOST_MEMBERS:
        return reject(f"a kernel of {members} operations is more than {MOST_MEMBERS}", at=merge.merged)
    if merge.recomputes_reduction:
        return reject("it would recompute a reduction", at=merge.producer)
    return merge.bytes_saved
