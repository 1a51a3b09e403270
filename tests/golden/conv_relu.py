"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def conv_relu(
    x_ptr,
    w_ptr,
    b_ptr,
    r_ptr,
    out_ptr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ORDER: tl.constexpr = 8,
):
    """out bf16[8, 64, 56, 56] from x bf16[8, 64, 56, 56], w bf16[64, 64, 3, 3], b bf16[64], r bf16[8, 64, 56, 56]."""
    program = tl.program_id(0)
    blocks_m, blocks_n = tl.cdiv(25088, BLOCK_M), tl.cdiv(64, BLOCK_N)
    block_m, block_n = tl.swizzle2d(program // blocks_n, program % blocks_n, blocks_m, blocks_n, ORDER)
    m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    i_1 = m // 3136
    k_1 = m // 56 % 56
    l = m % 56
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    kl = m % 3136
    conv_1_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, 576, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        r1 = k // 3 % 3
        k_in = k_1[:, None] + r1[None, :] - 1
        r2 = k % 3
        l_in = l[:, None] + r2[None, :] - 1
        r0 = k // 9
        x = tl.load(
            x_ptr + ((i_1[:, None] * 64 + r0[None, :]) * 56 + k_in) * 56 + l_in,
            mask=(k_in >= 0) & (k_in < 56) & (l_in >= 0) & (l_in < 56),
            other=0.0,
        )
        w = tl.load(w_ptr + n[None, :] * 576 + k[:, None])
        conv_1_sum = tl.dot(x, w, conv_1_sum)
    b = tl.load(b_ptr + n[None, :]).to(tl.float32)
    r = tl.load(r_ptr + (i_1[:, None] * 64 + n[None, :]) * 3136 + kl[:, None]).to(tl.float32)
    maximum = tl.maximum(conv_1_sum + b + r, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out_ptr + (i_1[:, None] * 64 + n[None, :]) * 3136 + kl[:, None], maximum)
