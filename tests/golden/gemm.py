"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def gemm(
    x_ptr,
    w_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    M,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    INDEX: tl.constexpr,
    ORDER: tl.constexpr = 8,
):
    """out bf16[M, 4096] from x bf16[M, 1024], w bf16[1024, 4096], bias bf16[4096], residual bf16[M, 4096]."""
    program = tl.program_id(0).to(INDEX)
    blocks_m, blocks_n = tl.cdiv(M, BLOCK_M), tl.cdiv(4096, BLOCK_N)
    block_m, block_n = tl.swizzle2d(program // blocks_n, program % blocks_n, blocks_m, blocks_n, ORDER)
    m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    m_inside = m < M
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    up_1_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, 1024, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K)).to(INDEX)
        x = tl.load(x_ptr + m[:, None] * 1024 + k[None, :], mask=m_inside[:, None], other=0.0)
        w = tl.load(w_ptr + k[:, None] * 4096 + n[None, :])
        up_1_sum = tl.dot(x, w, up_1_sum)
    bias = tl.load(bias_ptr + n[None, :]).to(tl.float32)
    add = up_1_sum + bias
    cast = (add * 0.5 * (tl.erf(add * 0.70710677) + 1.0)).to(tl.bfloat16).to(tl.float32)
    residual = tl.load(residual_ptr + m[:, None] * 4096 + n[None, :], mask=m_inside[:, None], other=0.0).to(tl.float32)
    tl.store(out_ptr + m[:, None] * 4096 + n[None, :], cast + residual, mask=m_inside[:, None])
