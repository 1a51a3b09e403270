"""Steps of PyTorch programs: reductions, normalizations, products, updates, sizes, branches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tests.fuzz.steps import Reject, is_static, step
from tests.fuzz.torch_choices import INTEGERS, TorchChoices
from tests.fuzz.torch_source import NARROW, Kind, Variable

REDUCTIONS: dict[str, Kind] = {
    "sum": "accumulated", "mean": "accumulated", "amax": "exact", "amin": "exact", "var": "accumulated",
    "std": "accumulated", "logsumexp": "accumulated", "prod": "accumulated", "all": "exact", "any": "exact",
    "norm": "accumulated", "nansum": "accumulated", "count_nonzero": "exact",
}  # fmt: skip


class NumericSteps(TorchChoices):
    """Steps of PyTorch programs: reductions, normalizations, products, updates, sizes, branches."""

    def reduced(self, x: Variable, name: str, axes: Sequence[int], keep: bool) -> Variable:
        text = f"{x}.{name}({list(axes)}, keepdim={keep})"
        if name in ("prod", "count_nonzero"):
            text = f"{x}.{name}({axes[0]}" + (f", keepdim={keep})" if name == "prod" else ")")
        if name in ("var", "std"):
            text = f"{x}.{name}({list(axes)}, correction={self.rng.choice([0, 1])}, keepdim={keep})"
        if name == "norm":
            text = (
                f"torch.linalg.vector_norm({x}, {self.rng.choice(['2', '1', 'inf', '0', '3'])}, {list(axes)}, {keep})"
            )
        if name == "nansum":
            text = f"torch.nansum({x}, {list(axes)}, keepdim={keep})"
        return self.s.one(text, kind=REDUCTIONS[name])

    @step(5)
    def reduce(self) -> Sequence[Variable]:
        x = self.tensor()
        names = list(REDUCTIONS) if x.is_float else ["sum", "prod", "amax", "amin", "all", "any", "count_nonzero"]
        return [self.reduced(x, self.rng.choice(names), self.axes(x), self.rng.random() < 0.5)]

    @step(1.2)
    def reduce_all(self) -> Sequence[Variable]:
        x = self.any()
        name = self.rng.choice(["sum", "mean", "max", "min", "prod", "all", "any", "amax", "argmax", "std", "norm"])
        return [
            self.s.one(
                f"{x}.{name}()",
                kind="exact" if name in ("max", "min", "all", "any", "amax", "argmax") else "accumulated",
            )
        ]

    @step(2)
    def one_axis(self) -> Sequence[Variable]:
        x = self.tensor()
        axis, keep = self.axis(x), self.rng.random() < 0.5
        name = self.rng.choice(["argmax", "argmin", "max", "min", "median", "cumsum", "cumprod", "cummax", "cummin",
                                "sort", "topk", "kthvalue", "logcumsumexp", "argsort",
                                "aminmax", "var_mean"])  # fmt: skip
        extent = min(x.shape[axis])
        if name in ("argmax", "argmin"):
            return [self.s.one(f"{x}.{name}({axis}, keepdim={keep})")]
        if name in ("cumsum", "cumprod", "logcumsumexp"):
            return [self.s.one(f"{x}.{name}({axis})", kind="accumulated")]
        if name in ("cummax", "cummin"):
            return self.s.line(f"{x}.{name}({axis})", outputs=2)
        if name in ("sort", "argsort"):
            pair = self.s.line(f"torch.sort({x}, stable=True, dim={axis}, descending={keep})", outputs=2)
            return pair
        if name == "topk":
            values = self.s.line(f"{x}.topk({self.rng.randint(0, extent)}, {axis}, largest={keep})", outputs=2)
            return values[:1]  # which of equal elements comes first is open
        if name == "kthvalue":
            return self.s.line(
                f"{x}.kthvalue({self.rng.randint(1, max(1, extent))}, {axis}, keepdim={keep})", outputs=2
            )[:1]
        if name == "aminmax":
            return self.s.line(f"{x}.aminmax(dim={axis}, keepdim={keep})", outputs=2)
        if name == "var_mean" and not x.is_finite:
            raise Reject("open")
        if name == "var_mean":
            return self.s.line(f"torch.var_mean({x}, {axis}, keepdim={keep})", kind="accumulated", outputs=2)
        values = self.s.line(f"{x}.{name}({axis}, keepdim={keep})", outputs=2)
        return values[:1] if name == "median" else values

    @step(4)
    def shared_reduction(self) -> Sequence[Variable]:
        """A reduction of a value beside the value itself: broadcast back, concatenated, subtracted, divided by."""
        x = self.float(1)
        axis = self.rng.randrange(x.rank)
        name = self.rng.choice(["amax", "amin", "sum", "mean", "std", "norm", "prod", "logsumexp"])
        kept = self.reduced(x, name, [axis], True)
        other, part = self.rng.randrange(x.rank), self.rng.choice(["0", "-1", "1:", ":2", "::2"])
        kind = self.rng.choice(["cat", "expand", "sub", "div", "rows", "part", "where"])
        texts: dict[str, tuple[str, Kind]] = {
            "cat": (f"torch.cat([{kept}, {x}], {axis})", "exact"),
            "expand": (f"torch.cat([{kept}.expand_as({x}), {x}], {other})", "exact"),
            "sub": (f"{x} - {kept}", "rounded"), "div": (f"{x} / {kept}", "rounded"),
            "rows": (f"{kept}.squeeze({axis}) - {x}", "rounded"),
            "part": (f"{x}[..., {part}] / {x}.{self.rng.choice(['amax', 'sum', 'mean'])}()", "accumulated"),
            "where": (f"torch.where({x} > {kept} * 0.5, {x}, {kept})", "exact"),
        }  # fmt: skip
        text, rounding = texts[kind]
        return [kept, self.s.one(text, kind=rounding)]

    @step(1.5)
    def softmax(self) -> Sequence[Variable]:
        x = self.float(1)
        name = self.rng.choice(["softmax", "log_softmax", "softmax"])
        return [self.s.one(f"{x}.{name}({self.axis(x)})", kind="accumulated")]

    @step(1.5)
    def normalize(self) -> Sequence[Variable]:
        x = self.float(1)
        if not x.has_moderate_squares:
            raise Reject("eager gives 0 or NaN by the shape: see docs/numerics.md")
        axis = self.axis(x)
        texts = [f"F.normalize({x}, dim={axis})", f"({x} - {x}.mean({axis}, True)) / ({x}.std({axis}, True) + 1)",
                 f"{x} * torch.rsqrt(({x} * {x}).mean({axis}, True) + 1e-6)"]  # fmt: skip
        if is_static(x, x.rank - 1) and x.shape[-1][0]:
            texts += [f"F.layer_norm({x}, [{x.shape[-1][0]}])", f"F.rms_norm({x}, [{x.shape[-1][0]}])"]
        return [self.s.one(self.rng.choice(texts), kind="accumulated")]

    def copied(self) -> Variable:
        """Something that may be written: a copy, or an argument of the program."""
        x = self.any(lambda value: value.rank >= 1)
        if self.rng.random() < 0.3:
            inputs = [value for value in self.pool if value.name in self.s.inputs and value.rank >= 1]
            if inputs:
                return self.rng.choice(inputs)
        return self.s.one(f"{x}.clone()")

    @step(3, "in-place updates")
    def in_place(self) -> Sequence[Variable]:
        x = self.copied()
        target = str(x)
        if self.rng.random() < 0.6:
            kinds = [f"{x}[{self.rng.choice(['1:', ':-1', '::2', '0', '-1', '...'])}]", f"{x}.flatten()", f"{x}.T"]
            kinds += [f"{x}[..., {self.rng.choice(['1:', ':-1', '::2', '0', '-1'])}]", f"{x}.transpose(0, -1)"]
            target = self.rng.choice(kinds)
        y = self.any(lambda y: y.dtype == x.dtype)
        other = str(y) if self.rng.random() < 0.5 else self.rng.choice(["2", "1", "0"])
        mask = self.any(lambda y: y.dtype == torch.bool) if self.rng.random() < 0.3 else None
        if self.rng.random() < 0.2:
            other = str(self.s.one(f"{target}.sum(0, True)", kind="accumulated"))
        rounded: list[str] = [f"{target}.add_({other})", f"{target}.mul_({other})"]
        if y.is_moderate and other == str(y):
            rounded.append(f"{target}.sub_({other}, alpha=2)")
        exact = [f"{target}.copy_({other})", f"{target}.zero_()", f"{target}.fill_({other})", f"{target}.clamp_(min=0)",
                 f"{target}.neg_()", f"{target}.relu_()"]  # fmt: skip
        if target.endswith("]"):
            exact.append(f"{target} = {other}")
            rounded.append(f"{target} += {other}")
        if mask is not None:
            exact = [f"{target}.masked_fill_({mask}, 1)", f"{x}[{mask}] = 1", f"{x}[{x} > 0] = 0"]
        if self.rng.random() < 0.5:
            self.s.change(self.rng.choice(exact), x)
        else:
            self.s.change(self.rng.choice(rounded), x, kind="rounded")
        return [x]

    @step(1, "in-place updates")
    def in_place_rows(self) -> Sequence[Variable]:
        x = self.copied()
        extent = min(x.shape[0])
        if extent == 0:
            raise Reject("nothing")
        rows = self.rng.sample(range(extent), self.rng.randint(1, min(2, extent)))
        texts = [f"{x}[torch.tensor({rows})] = 1", f"{x}.index_fill_(0, torch.tensor({rows}), 2)",
                 f"{x}.index_copy_(0, torch.tensor({rows}), {x}[:{len(rows)}].clone())",
                 f"{x}.index_put_([torch.tensor({rows})], {x}[-1].clone())", f"{x}[{rows}] += 1"]  # fmt: skip
        self.s.change(self.rng.choice(texts), x)
        return [x]

    def numbers(self, x: Variable, shape: Sequence[int]) -> Variable:
        """Numbers between -1 and 1, in x's type, exact in each."""
        numbers = f"(torch.arange({math.prod(shape)}) * 5 % 9 - 4).reshape({list(shape)})"
        return self.s.one(f"{numbers}.to({x.dtype}) / 4")

    @step(1, "products")
    def product(self) -> Sequence[Variable]:
        x = self.float(1)
        if x.rank >= 2 and self.rng.random() < 0.5:
            return [self.s.one(f"{x} @ {x}.mT", kind="accumulated")]
        if not is_static(x, x.rank - 1):
            raise Reject("dynamic")
        columns = self.rng.choice([1, 2, 5])
        weight = self.numbers(x, [columns, x.shape[-1][0]])
        return [self.s.one(self.rng.choice([f"F.linear({x}, {weight})", f"{x} @ {weight}.T"]), kind="accumulated")]

    @step(0.4, "products")
    def product_with_vector(self) -> Sequence[Variable]:
        x = self.float(2)
        axis = self.rng.choice([-1, -2])
        if not is_static(x, x.rank + axis):
            raise Reject("dynamic")
        vector = self.numbers(x, [x.shape[axis][0]])
        texts = [f"{x} @ {vector}"] if axis == -1 else [f"{vector} @ {x}", f"{x}.mT @ {vector}"]
        return [self.s.one(self.rng.choice(texts), kind="accumulated")]

    @step(0.3, "products")
    def einsum(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.is_float and value.rank == 2)
        return [
            self.s.one(
                f"torch.einsum('{self.rng.choice(['ij,ij->i', 'ij,kj->ik', 'ij,ij->ji'])}', {x}, {x})",
                kind="accumulated",
            )
        ]

    @step(0.4, "products")
    def convolution(self) -> Sequence[Variable]:
        x = self.any(
            lambda value: value.dtype in (torch.float32, torch.float64) and value.rank in (3, 4) and is_static(value, 1)
        )
        channels, spatial = x.shape[1][0], x.rank - 2
        if channels == 0:
            raise Reject("no channels")
        weight = self.numbers(x, [2, channels, *[2] * spatial])
        named = f"stride={self.rng.choice([1, 2])}, padding={self.rng.choice([0, 1])}"
        return [self.s.one(f"F.conv{spatial}d({x}, {weight}, {named})", kind="accumulated")]

    @step(0.5, "products")
    def pooling(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.is_float and value.rank in (3, 4))
        spatial = x.rank - 2
        stride = self.rng.choice([1, 2])
        texts = [f"F.max_pool{spatial}d({x}, 2, {stride})", f"F.avg_pool{spatial}d({x}, 2, {stride})",
                 f"F.adaptive_avg_pool{spatial}d({x}, 1)",
                 f"F.interpolate({x}, scale_factor=2, mode='nearest')"]  # fmt: skip
        return [self.s.one(self.rng.choice(texts), kind="accumulated")]

    @step(0.3, "products")
    def attention(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.is_finite and value.is_float and value.dtype not in NARROW
                     and value.rank in (3, 4))  # fmt: skip
        return [
            self.s.one(
                f"F.scaled_dot_product_attention({x}, {x}, {x}, is_causal={self.rng.random() < 0.5})",
                kind="accumulated",
            )
        ]

    @step(1)
    def positions(self) -> Sequence[Variable]:
        """0, 1, 2 ... along an axis, in arithmetic that may wrap around."""
        x = self.tensor()
        dtype = self.rng.choice([*INTEGERS, "torch.float32"])
        value = self.s.one(f"torch.arange({x}.shape[{self.axis(x)}], dtype={dtype})")
        if value.is_integer and "integer limits" in self.features:
            factor = {
                torch.int8: 77,
                torch.uint8: 201,
                torch.int16: 30011,
                torch.int32: 1664525000,
                torch.int64: 2**62 + 3,
            }
            value = self.s.one(f"{value} * {factor[value.dtype]} + {self.rng.choice([1, 100])}")
        return [value]

    @step(1)
    def sized(self) -> Sequence[Variable]:
        x = self.tensor()
        axis = self.axis(x)
        texts = [f"{x} * {x}.shape[{axis}]", f"torch.tensor({x}.shape)", f"{x} + {x}.numel()", f"torch.ones_like({x})",
                 f"torch.zeros_like({x}).cumsum(0)", f"torch.full({x}.shape, 2.5)",
                 f"{x}.new_ones({x}.shape[{axis}], 2)", f"torch.arange({x}.numel()).reshape({x}.shape)"]  # fmt: skip
        return [self.s.one(self.rng.choice(texts), kind="rounded")]

    @step(0.2, "data-dependent sizes")
    def found_nonzero(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.dtype == torch.bool and value.rank >= 1)
        return [self.s.one(f"{x}.nonzero()")]

    @step(0.3, "control flow")
    def branch(self) -> Sequence[Variable]:
        x = self.float()
        y = self.like(x)
        then, otherwise = self.rng.sample(["a + b", "a * b", "(a - b).abs()", "torch.maximum(a, b)"], 2)
        condition = self.s.one(f"({x}.sum() > 0)")
        branches = f"lambda a, b: {then}, lambda a, b: {otherwise}"
        return [self.s.one(f"cond({condition}, {branches}, ({x}, {y}))", kind="rounded")]
