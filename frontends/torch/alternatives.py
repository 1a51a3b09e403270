"""What to write in place of operators that irc does not read."""

from __future__ import annotations

EVALUATED = 'module.eval(), or torch.compile(module, backend="irc"), in which PyTorch draws the numbers'
OTHERS = 'torch.compile(program, backend="irc") runs in PyTorch what irc does not read'

ALTERNATIVES = dict.fromkeys(("dropout", "scaled_dot_product_attention", "alpha_dropout", "feature_dropout"), EVALUATED)


def alternative(overload: str) -> str | None:
    """What to write instead of an overload such as "dropout.default", or None."""
    name = overload.partition(".")[0]
    spelling = ALTERNATIVES.get(name)
    return f"instead of {name}: {spelling}" if spelling else None
