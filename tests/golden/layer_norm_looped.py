"""The kernels, as Triton source. BLOCK sizes are chosen at the launches in program.py."""

import triton
import triton.language as tl


@triton.jit
def square_from_mean(x, total, count):
    """What x adds to the squared distances of `count` numbers from their mean, where x is the last of them and they add
    up to `total` (Welford)."""
    count = tl.cast(count, x.dtype)
    distance = x - total * (1.0 / count)
    return distance * distance * (count / tl.maximum(count - 1.0, 1.0))


@triton.jit
def squares_from(squares, total, count, mean):
    """The squared distances from `mean` of `count` numbers that add up to `total`, and whose squared distances from
    their own mean add up to `squares` (Chan)."""
    distance = total / tl.maximum(count, 1) - mean
    return tl.where(count > 0, squares + count * distance * distance, 0.0)


@triton.jit
def layer_norm_looped(
    x_ptr,
    s_ptr,
    b_ptr,
    out_ptr,
    S,
    B,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    INDEX: tl.constexpr,
):
    """out f32[B, S] from x f32[B, S], s f32[S], b f32[S]."""
    m = (tl.program_id(0).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    m_inside = m < B
    total_lanes = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    total_lanes_1 = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    for start in range(0, S, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        n_inside = n < S
        x = tl.load(x_ptr + m * S + n, mask=m_inside & n_inside, other=0.0)
        total_lanes += x
        total_lanes_1 += tl.where(n_inside, square_from_mean(x, total_lanes, start // BLOCK_N + 1), 0.0)
    total = tl.sum(total_lanes, axis=1, keep_dims=True)
    cast = tl.cast(S, tl.int64).to(tl.float32)
    div = total / cast
    counts = tl.cdiv(S - tl.arange(0, BLOCK_N)[None, :], BLOCK_N)
    total_1 = tl.sum(squares_from(total_lanes_1, total_lanes, counts, div), axis=1, keep_dims=True)
    sqrt = tl.sqrt(total_1 / cast + 1e-05)
    for start in range(0, S, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)[None, :]
        n_inside = n < S
        inside = m_inside & n_inside
        x = tl.load(x_ptr + m * S + n, mask=inside, other=0.0)
        s = tl.load(s_ptr + n, mask=n_inside, other=0.0)
        b = tl.load(b_ptr + n, mask=n_inside, other=0.0)
        tl.store(out_ptr + m * S + n, (x - div) / sqrt * s + b, mask=inside)
