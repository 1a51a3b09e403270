"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def sum_before(x, x_last, y, y_last):
    """The sum of a run but its last element, and that element, where one run follows another."""
    return x + x_last + y, y_last


@triton.jit
def nucleus(logits_ptr, out_ptr, B, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, INDEX: tl.constexpr):
    """out f32[B, 1000] from logits f32[B, 1000]."""
    m = (tl.program_id(0).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    n = tl.arange(0, BLOCK_N)[None, :]
    m_inside = m < B
    n_inside = n < 1000
    inside = m_inside & n_inside
    logits = tl.load(logits_ptr + m * 1000 + n, mask=inside, other=float("-inf"))
    greatest = tl.max(logits, axis=1, keep_dims=True)
    exp = tl.exp(logits - greatest)
    total = tl.sum(exp, axis=1, keep_dims=True)
    div = exp / total
    sums = tl.associative_scan((tl.full(div.shape, 0.0, div.dtype), div), axis=1, combine_fn=sum_before)[0]
    tl.store(out_ptr + m * 1000 + n, tl.where(sums < 0.9, div, 0.0), mask=inside)
