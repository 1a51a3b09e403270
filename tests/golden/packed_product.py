"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def packed(
    x_ptr,
    weight_ptr,
    scale_ptr,
    out_ptr,
    M,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    INDEX: tl.constexpr,
    ORDER: tl.constexpr = 8,
):
    """out f16[M, 4096] from x f16[M, 4096], weight u8[4096, 128, 16], scale f16[4096, 128]."""
    program = tl.program_id(0).to(INDEX)
    blocks_m, blocks_n = tl.cdiv(M, BLOCK_M), tl.cdiv(4096, BLOCK_N)
    block_m, block_n = tl.swizzle2d(program // blocks_n, program % blocks_n, blocks_m, blocks_n, ORDER)
    m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    m_inside = m < M
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, 4096, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K)).to(INDEX)
        x = tl.load(x_ptr + m[:, None] * 4096 + k[None, :], mask=m_inside[:, None], other=0.0)
        weight = tl.load(weight_ptr + n[None, :] * 2048 + k[:, None] // 2)
        mul = (k[:, None] % 2).to(tl.uint8) * 4
        scale = tl.load(scale_ptr + n[None, :] * 128 + k[:, None] // 32).to(tl.float32)
        second = (((weight >> mul & 15).to(tl.float32) - 8.0) * scale).to(tl.float16)
        total = tl.dot(x, second, total)
    tl.store(out_ptr + m[:, None] * 4096 + n[None, :], total, mask=m_inside[:, None])
