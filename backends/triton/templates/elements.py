"""Element types that PyTorch stores but does not compute with: floats of a byte, unsigned integers of more than one.

`carried` decorates a function of tensors that is written for other types. Operands come to it in one that holds their
values, or, of uint64, in an int64 that stands for them; results go back, rounded once.

Integers of fewer than 8 bits are bytes here: `narrowed` wraps a result into their range.
"""

from __future__ import annotations

import functools
import math

import torch

LEAST = -(2**63)
# Of each float of a byte: its largest number, the least f32 that is rounded beyond it, and what that becomes.
FLOATS = {
    torch.float8_e4m3fn: (448.0, 464.0 + 2.0**-15, math.nan),
    torch.float8_e4m3fnuz: (240.0, 248.0, math.nan),
    torch.float8_e5m2: (57344.0, 61440.0, math.inf),
    torch.float8_e5m2fnuz: (57344.0, 61440.0, math.nan),
}
WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64}
BITS = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64,
        **dict.fromkeys(FLOATS, torch.uint8)}  # fmt: skip


def carried(how, values=1):
    """Decorate a function whose first `values` results have the type of its first operand, as all operands of that
    type have; other results are bools or positions.

    how: "moves" where elements only move; "wraps" where of integers only the low bits count; "orders" where only the
    order counts; "whole" where both do, and uint64 is left to the function. Or a function of the attributes.
    """

    def decorate(function):
        @functools.wraps(function)
        def call(x, *operands, **attributes):
            if x.dtype not in BITS:
                return function(x, *operands, **attributes)
            kind = how if isinstance(how, str) else how(**attributes)
            dtype = x.dtype
            operands = [
                widened(each, kind) if isinstance(each, torch.Tensor) and each.dtype == dtype else each
                for each in operands
            ]
            results = function(widened(x, kind), *operands, **attributes)
            if not isinstance(results, tuple):
                return restored(results, dtype, kind) if values else results
            return tuple(restored(each, dtype, kind) if index < values else each for index, each in enumerate(results))

        return call

    return decorate


def selected(condition, x, y):
    return carried("moves")(lambda x, y: torch.where(condition, x, y))(x, y)


def widened(x, kind):
    if kind == "moves":
        return x.view(BITS[x.dtype])
    if x.dtype in FLOATS:
        return x.float()
    if x.dtype in WIDER:
        return x.to(WIDER[x.dtype])
    return x if kind == "whole" else x.view(torch.int64) ^ LEAST if kind == "orders" else x.view(torch.int64)


def restored(x, dtype, kind):
    if x.dtype == dtype:
        return x
    if kind == "moves":
        return x.view(dtype)
    if dtype in FLOATS:
        # Where only the order counts, the type's least number replaces an infinity that it lacks.
        return to_float8(x, dtype, saturate=kind == "orders" and math.isnan(FLOATS[dtype][2]))
    if dtype in WIDER:
        return x.to(dtype)
    return (x ^ LEAST if kind == "orders" else x).view(dtype)


def to_float8(x, dtype, saturate):
    """x, which is no wider than f32, rounded to nearest even. What is beyond the range becomes, with `saturate`, the
    largest number, else an infinity or NaN."""
    largest, beyond, overflow = FLOATS[dtype]
    wide = x.float()
    end = torch.copysign(torch.full_like(wide, largest if saturate else overflow), wide)
    return torch.where(wide.abs() >= beyond, end, wide).to(dtype)


def to_float32(x):
    """x as f32 for rounding to fewer bits: exact, or else that neighbor whose last bit is 1, so that rounding again is
    rounding once. Source: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums" (2008), section 3."""
    if x.dtype in (torch.int64, torch.uint64):  # f64 cannot hold them: low bits become one
        bits, high = x.view(torch.int64), 1.0
        if x.dtype is torch.uint64:
            large = bits < 0
            bits = torch.where(large, ((bits >> 1) & ~LEAST) | (bits & 1), bits)
            high = torch.where(large, 2.0, 1.0).double()
        wide = ((bits >> 12 | ((bits & 0xFFF) != 0)) << 12).double() * high
        wide = torch.where(bits.abs() < 2**52, bits.double(), wide) if x.dtype is torch.int64 else torch.where(
            ~large & (bits < 2**52), bits.double(), wide)  # fmt: skip
    elif x.dtype in (torch.float64, torch.int32, torch.uint32):
        wide = x.double()
    else:
        return x.float()
    near = wide.float()
    bits = near.view(torch.int32) - (near.double().abs() > wide.abs()).to(torch.int32)
    inexact = (bits.view(torch.float32).double() != wide) & ~torch.isnan(wide)
    return (bits | inexact.to(torch.int32)).view(torch.float32)


def narrowed(x, bits, ends=False):
    """Integers, held in bytes, that have only so many bits: the low ones, or with `ends` the nearest in range."""
    if ends:
        span = 1 << (bits - x.dtype.is_signed)
        return x.clamp(-span if x.dtype.is_signed else 0, span - 1)
    return (x << (8 - bits)) >> (8 - bits) if x.dtype.is_signed else x & ((1 << bits) - 1)


def divided(x, y):
    """Quotient and remainder of uint64; of a division by 0 both are 0."""
    zero, (a, b) = y == 0, (each.view(torch.int64) for each in torch.broadcast_tensors(x, y))
    b = torch.where(zero, 1, b)
    half = torch.div((a >> 1) & ~LEAST, torch.where(b < 0, 1, b), rounding_mode="trunc") << 1
    quotient = torch.where(b < 0, 0, half)
    rest = a - quotient * b
    over = (rest ^ LEAST) >= (b ^ LEAST)
    quotient = torch.where(zero, 0, quotient + over.to(torch.int64))
    rest = torch.where(zero, 0, torch.where(over, rest - b, rest))
    return quotient.view(torch.uint64), rest.view(torch.uint64)


def as_torch_knows(array):
    """An array in the machine's byte order, and of the one of NumPy's two types of 64-bit integers that torch takes."""
    return array.astype(array.dtype.newbyteorder("="), copy=False).view(array.dtype.name)


def in_limbs(function, x, y):
    """A product of integers by products of floats, right in its low bits: 16 bits of each operand at a time, so that
    sums of up to 2**21 products are exact."""
    dtype, limbs = x.dtype, max(1, x.dtype.itemsize // 2)
    if limbs == 1:
        return function(x.double(), y.double()).to(torch.int64).to(dtype)
    x, y, total = x.to(torch.int64), y.to(torch.int64), 0
    for i in range(limbs):
        for j in range(limbs - i):
            part = function(((x >> 16 * i) & 0xFFFF).double(), ((y >> 16 * j) & 0xFFFF).double())
            total = total + (part.to(torch.int64) << 16 * (i + j))
    return total.to(dtype)


def is_integer(x):
    return not (x.dtype.is_floating_point or x.dtype.is_complex)


def random_bits(seed, index, *, stream=0, word=0):
    """Philox4x32-10 of the key `seed` and the counter (index, stream); products of two words wrap around in 64 bits."""
    low = 2**32 - 1
    key, counter = torch.broadcast_tensors(seed.to(torch.int64), index.to(torch.int64))
    c = [counter & low, (counter >> 32) & low, torch.full_like(counter, stream), torch.zeros_like(counter)]
    k = [key & low, (key >> 32) & low]
    for _ in range(10):
        first, second = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(second >> 32) & low ^ c[1] ^ k[0], second & low, (first >> 32) & low ^ c[3] ^ k[1], first & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c[word].to(torch.uint32)
