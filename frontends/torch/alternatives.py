"""What to write in place of operators that irc does not read."""

from __future__ import annotations

EVALUATED = 'module.eval(), or torch.compile(module, backend="irc"), in which PyTorch draws the numbers'
DRAWN = 'the numbers as an argument, or torch.compile(program, backend="irc"), in which PyTorch draws them'
PAIRS = "the real and the imaginary part as tensors of their own, as in x * cos - y * sin"
TRANSFORM = "the product with the transform's matrix, of cosines and of sines"
OTHERS = 'torch.compile(program, backend="irc") runs in PyTorch what irc does not read'

ALTERNATIVES = {
    **dict.fromkeys(("native_dropout", "dropout", "rrelu_with_noise_functional", "scaled_dot_product_attention",
                     "alpha_dropout", "feature_dropout"), EVALUATED),
    **dict.fromkeys(("bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "normal",
                     "normal_functional", "poisson", "rand", "rand_like", "randint", "randint_like", "randn",
                     "randn_like", "randperm", "uniform"), DRAWN),
    **dict.fromkeys(("complex", "polar", "view_as_complex", "view_as_real", "real", "imag", "_conj"), PAIRS),
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), TRANSFORM),
    "histogram": "torch.histc, which gives the counts",
}  # fmt: skip


def alternative(overload: str) -> str | None:
    """What to write instead of an overload such as "bernoulli.p", or None."""
    name = overload.partition(".")[0]
    spelling = ALTERNATIVES.get(name)
    return f"instead of {name}: {spelling}" if spelling else None
