"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def rms_swiglu(
    x_ptr,
    scale_ptr,
    gate_ptr,
    up_ptr,
    out_ptr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ORDER: tl.constexpr = 8,
):
    """out bf16[4, 1024, 5632] from x bf16[4, 1024, 2048], scale bf16[2048], gate bf16[2048, 5632], up bf16[2048, 5632].
    """
    program = tl.program_id(0)
    blocks_m, blocks_n = tl.cdiv(4096, BLOCK_M), tl.cdiv(5632, BLOCK_N)
    block_m, block_n = tl.swizzle2d(program // blocks_n, program % blocks_n, blocks_m, blocks_n, ORDER)
    m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    total_lanes = tl.full((BLOCK_M, BLOCK_K), 0.0, tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    total_1 = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, 2048, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(x_ptr + m[:, None] * 2048 + k[None, :]).to(tl.float32)
        scale = tl.load(scale_ptr + k[None, :]).to(tl.float32)
        mul = x * scale
        gate = tl.load(gate_ptr + k[:, None] * 5632 + n[None, :])
        up = tl.load(up_ptr + k[:, None] * 5632 + n[None, :])
        total_lanes += x * x
        total = tl.dot(mul.to(tl.bfloat16), gate, total)
        total_1 = tl.dot(mul.to(tl.bfloat16), up, total_1)
    total_2 = tl.sum(total_lanes, axis=1, keep_dims=True)
    sqrt = tl.sqrt(total_2 / 2048.0 + 1e-05)
    div = total / sqrt
    cast = (div * (1.0 / (tl.exp(div * -1.0) + 1.0))).to(tl.bfloat16).to(tl.float32)
    tl.store(out_ptr + m[:, None] * 5632 + n[None, :], cast * (total_1 / sqrt))
