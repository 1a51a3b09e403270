"""What programs may contain, by name, and what they do not contain yet.

Everything is on but for what `OFF` names, with the reason; `--features all` turns that on too.
"""

from __future__ import annotations

ALL = frozenset({
    "dynamic sizes",  # named dims, at several sizes
    "zero sizes",  # extents of 0
    "empty named dims",  # named dims of 0
    "special floats",  # NaN, infinities, -0, huge and tiny numbers in the inputs
    "integer limits",  # integers at the ends of their types
    "narrow floats",  # f16, bf16
    "control flow",
    "data-dependent sizes",
    "in-place updates",  # of intermediate values and of arguments
    "views of outputs",  # results that are arguments, or are given twice
    "products",  # matrix products, convolutions, pooling: host calls on Triton
    "quantization",
})  # fmt: skip

# Feature -> why programs do not have it by default.
OFF: dict[str, str] = {}


def chosen(text: str) -> frozenset[str]:
    """ "default", "all", or names with commas between, each "-name" taken away from the default."""
    if text == "all":
        return ALL
    features = ALL - OFF.keys()
    if text == "default":
        return features
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name.removeprefix("-") not in ALL:
            raise ValueError(f"no feature {name.removeprefix('-')!r}: {', '.join(sorted(ALL))}")
    taken = {name[1:] for name in names if name.startswith("-")}
    named = {name for name in names if not name.startswith("-")}
    return frozenset(named) if named else features - taken
