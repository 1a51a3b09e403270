"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def attention(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    S,
    T,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    INDEX: tl.constexpr,
):
    """out bf16[B, 32, S, 128] from q bf16[B, 32, S, 128], k bf16[B, 8, T, 128], v bf16[B, 8, T, 128]."""
    program = tl.program_id(0).to(INDEX)
    blocks_m = tl.cdiv(S, BLOCK_M)
    block_m = program % blocks_m
    b = program // blocks_m
    k = tl.arange(0, BLOCK_K)
    m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    m_inside = m < S
    j = b // 4
    e = tl.arange(0, BLOCK_E)
    q = tl.load(q_ptr + (b * S + m[:, None]) * 128 + k[None, :], mask=m_inside[:, None], other=0.0)
    highest = tl.full((BLOCK_M, 1), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M, 1), tl.float32)
    out = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    for start in range(0, tl.minimum(T, (block_m + 1) * BLOCK_M), BLOCK_N):
        n = (start + tl.arange(0, BLOCK_N)).to(INDEX)
        n_inside = n < T
        k_1 = tl.load(k_ptr + (j * T + n[None, :]) * 128 + k[:, None], mask=n_inside[None, :], other=0.0)
        select = tl.where(n[None, :] <= m[:, None], tl.dot(q, k_1) * 0.088388346, float("-inf"))
        select = tl.where(n_inside[None, :], select, float("-inf"))
        rescale = tl.maximum(highest, tl.max(select, axis=1, keep_dims=True))
        reference = tl.where(rescale == float("-inf"), 0.0, rescale)
        highest, rescale = rescale, tl.exp(highest - reference)
        exp = tl.exp(select - reference)
        v = tl.load(v_ptr + (j * T + n[:, None]) * 128 + e[None, :], mask=n_inside[:, None], other=0.0)
        total = total * rescale + tl.sum(exp, axis=1, keep_dims=True)
        out = tl.dot(exp.to(tl.bfloat16), v, out * rescale)
    select = tl.where(tl.where(total == total, highest, total) == float("-inf"), 1.0, total)
    tl.store(out_ptr + (b * S + m[:, None]) * 128 + e[None, :], out / select, mask=m_inside[:, None])
