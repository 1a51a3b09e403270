"""What programs of PyTorch do: each method adds some lines, and gives the variables that later steps may use.

A method raises Reject where it does not fit, as does what eager PyTorch rejects. What PyTorch leaves undefined is not
made; LEFT_OPEN says where.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch

from tests.fuzz.steps import Reject, Steps, broadcast, is_static, step
from tests.fuzz.torch_source import NARROW, Kind, Source, Variable

# Operation -> what PyTorch leaves open about it, so that eager PyTorch is no oracle there.
LEFT_OPEN = {
    "casts": "floats that are NaN, infinite or out of the range of an integer type",
    "division": "the smallest integer by -1, truncating (eager PyTorch is killed)",
    "index_put_, scatter_": "equal indices, which assign in no order",
    "view(dtype), signbit, copysign": "the bits of NaN",
    "var_mean": "the mean beside an infinity, NaN by Welford's algorithm",
    "attention": "NaN and infinities, also of keys and values that are masked (eager PyTorch differs by its kernel)",
    "alpha of add and sub": "a product out of range of a sum within it (fused in eager PyTorch, by most kernels)",
    "median, topk, kthvalue": "which of equal elements it is",
}
FLOATS = ("torch.float32", "torch.float32", "torch.float32", "torch.float64", "torch.float16", "torch.bfloat16")
INTEGERS = ("torch.int64", "torch.int64", "torch.int32", "torch.int16", "torch.int8", "torch.uint8")
UNARY: dict[str, Kind] = {
    "{x}.neg()": "exact", "{x}.abs()": "exact", "torch.relu({x})": "exact", "{x}.floor()": "exact",
    "{x}.ceil()": "exact", "{x}.round()": "exact", "{x}.trunc()": "exact", "{x}.sign()": "exact",
    "F.relu6({x})": "exact", "F.hardtanh({x})": "exact", "torch.nan_to_num({x})": "exact", "{x}.frac()": "rounded",
    "{x}.exp()": "rounded", "{x}.sqrt()": "rounded", "{x}.rsqrt()": "rounded", "{x}.reciprocal()": "rounded",
    "{x}.log()": "rounded", "{x}.log1p()": "rounded", "{x}.expm1()": "rounded", "{x}.exp2()": "rounded",
    "{x}.log2()": "rounded", "{x}.sin()": "absolute", "{x}.cos()": "absolute", "{x}.atan()": "rounded",
    "{x}.tanh()": "absolute", "{x}.sigmoid()": "absolute", "{x}.erf()": "absolute", "{x}.erfc()": "absolute",
    "F.gelu({x})": "absolute", "F.gelu({x}, approximate='tanh')": "absolute", "F.silu({x})": "absolute",
    "F.softplus({x})": "absolute", "F.elu({x})": "absolute", "F.leaky_relu({x})": "rounded", "F.mish({x})": "absolute",
    "F.hardswish({x})": "absolute", "F.hardsigmoid({x})": "absolute", "F.logsigmoid({x})": "absolute",
    "{x}.square()": "rounded", "torch.logit({x}, eps=1e-3)": "absolute", "F.softsign({x})": "rounded",
    "F.celu({x})": "absolute", "F.selu({x})": "absolute", "{x}.asinh()": "rounded", "{x}.sinh()": "rounded",
    "{x}.clamp(min=0)": "exact", "{x}.clamp(-1, 1.5)": "exact", "{x}.clamp_max(0.5)": "exact",
    "F.hardshrink({x})": "exact", "F.softshrink({x})": "rounded", "F.threshold({x}, 0.1, 20)": "exact",
    "{x}.round(decimals=1)": "rounded", "torch.special.entr({x})": "rounded", "torch.sinc({x})": "absolute",
}  # fmt: skip
INTEGER_UNARY = ("{x}.neg()", "{x}.abs()", "{x}.sign()", "{x}.square()", "{x}.bitwise_not()", "{x}.clamp(min=1)",
                 "{x}.clamp(-2, 3)", "torch.relu({x})", "{x}.float().sqrt()", "{x} // 3", "{x} % 3", "{x} >> 1",
                 "{x} << 2", "{x} & 3", "{x} ^ 5", "{x} | 4", "torch.fmod({x}, 3)",
                 "torch.div({x}, 3, rounding_mode='trunc')", "{x} % -3", "{x} // -2")  # fmt: skip
SCALAR: dict[str, Kind] = {
    "{x} + {k}": "rounded", "{x} - {k}": "rounded", "{k} - {x}": "rounded", "{x} * {k}": "rounded",
    "{x} / {k}": "rounded", "{k} / {x}": "rounded", "{x} ** 2": "rounded", "{x} ** 3": "rounded",
    "{x} ** 0.5": "rounded", "{x} ** -1": "rounded", "{x} ** 2.0": "rounded", "{x} ** 0": "exact",
    "{x} % {k}": "rounded", "{x} // {k}": "rounded", "torch.fmod({x}, {k})": "rounded", "2 ** {x}": "rounded",
    "torch.add({x}, {x}, alpha={k})": "rounded", "torch.rsub({x}, {k})": "rounded",
}  # fmt: skip
BINARY: dict[str, Kind] = {
    "{x} + {y}": "rounded", "{x} - {y}": "rounded", "{x} * {y}": "rounded", "{x} / {y}": "rounded",
    "torch.maximum({x}, {y})": "exact", "torch.minimum({x}, {y})": "exact", "torch.fmax({x}, {y})": "exact",
    "torch.fmin({x}, {y})": "exact", "{x} % {y}": "rounded", "{x} // {y}": "rounded", "torch.fmod({x}, {y})": "rounded",
    "torch.add({x}, {y}, alpha=2)": "rounded", "torch.sub({x}, {y}, alpha=3)": "rounded",
    "torch.copysign({x}, {y})": "exact", "torch.atan2({x}, {y})": "rounded", "torch.hypot({x}, {y})": "rounded",
    "torch.lerp({x}, {y}, 0.25)": "rounded", "torch.addcmul({x}, {y}, {x}, value=0.5)": "rounded",
    "torch.addcdiv({x}, {y}, {x}, value=0.5)": "rounded", "torch.where({x} > {y}, {x}, {y})": "exact",
    "torch.where({x} == {y}, {x}, -{x})": "exact", "torch.heaviside({x}, {y})": "exact",
    "torch.clamp({x}, min={y})": "exact",
    "torch.logaddexp({x}, {y})": "rounded", "torch.xlogy({x}, {y})": "rounded",
    "F.prelu({x}, {y}.reshape(-1)[:1])": "rounded",
}  # fmt: skip
INTEGER_BINARY = ("{x} + {y}", "{x} - {y}", "{x} * {y}", "{x} // {y}", "{x} % {y}", "torch.maximum({x}, {y})",
                  "torch.minimum({x}, {y})", "{x} & {y}", "{x} | {y}", "{x} ^ {y}", "{x} << {y}", "{x} >> {y}",
                  "torch.where({x} > {y}, {x}, {y})", "torch.clamp({x}, max={y})", "{x} / {y}")  # fmt: skip
COMPARE = ("{x} > {y}", "{x} >= {y}", "{x} < {y}", "{x} <= {y}", "{x} == {y}", "{x} != {y}", "torch.isclose({x}, {y})")
REDUCTIONS: dict[str, Kind] = {
    "sum": "accumulated", "mean": "accumulated", "amax": "exact", "amin": "exact", "var": "accumulated",
    "std": "accumulated", "logsumexp": "accumulated", "prod": "accumulated", "all": "exact", "any": "exact",
    "norm": "accumulated", "nansum": "accumulated", "count_nonzero": "exact",
}  # fmt: skip
ONE_AXIS = ("prod", "argmax", "argmin", "max", "min", "median", "cummax", "sort")


class TorchSteps(Steps):
    """The steps of one program."""

    def __init__(self, source: Source, rng: random.Random, pool: list[Variable], features: frozenset[str]) -> None:
        super().__init__(rng, pool, features)
        self.s = source

    # -- choices ---------------------------------------------------------------------------------------------------

    def number(self, least_rank: int = 0) -> Variable:
        return self.any(lambda value: value.dtype != torch.bool and value.rank >= least_rank)

    def mask(self, x: Variable) -> Variable:
        return self.any(lambda y: y.dtype == torch.bool and broadcast(x, y))

    def broadcastable(self, x: Variable) -> Variable:
        return self.any(lambda y: y.dtype != torch.bool and broadcast(x, y))

    # -- elementwise -------------------------------------------------------------------------------------------------

    @step(4)
    def unary(self) -> Sequence[Variable]:
        x = self.number()
        if x.is_integer:
            return [self.s.one(self.rng.choice(INTEGER_UNARY).format(x=x))]
        text = self.rng.choice(list(UNARY))
        return [self.s.one(text.format(x=x), kind=UNARY[text])]

    @step(2.5)
    def scalar(self) -> Sequence[Variable]:
        x, text = self.number(), self.rng.choice(list(SCALAR))
        k = self.rng.choice(["2", "0.5", "-1", "3", "1.5", "0", "1", "inf" if self.rng.random() < 0.2 else "-2.5"])
        if "alpha" in text and not x.is_moderate:
            raise Reject("open")
        return [self.s.one(text.format(x=x, k=k), kind=SCALAR[text])]

    @step(6)
    def binary(self) -> Sequence[Variable]:
        x = self.number()
        y = self.broadcastable(x) if self.rng.random() < 0.9 else x
        if self.rng.random() < 0.4:
            x, y = y, x
        if x.is_integer and y.is_integer:
            return [self.s.one(self.rng.choice(INTEGER_BINARY).format(x=x, y=y))]
        often = list(BINARY)[:4]
        text = self.rng.choice(often if self.rng.random() < 0.5 else list(BINARY))
        if ("copysign" in text and y.has_nan) or ("alpha" in text and not y.is_moderate):
            raise Reject("open")
        return [self.s.one(text.format(x=x, y=y), kind=BINARY[text])]

    @step(2)
    def compare(self) -> Sequence[Variable]:
        x = self.any()
        y = (
            str(self.broadcastable(x))
            if self.rng.random() < 0.6
            else self.rng.choice(["0", "0.5", "1", "-1", "x0.numel()"])
        )
        return [self.s.one(self.rng.choice(COMPARE[:-1]).format(x=x, y=y))]

    @step(0.5)
    def classify(self) -> Sequence[Variable]:
        x = self.float()
        texts = ["torch.isnan({x})", "torch.isinf({x})", "torch.isfinite({x})"]
        text = self.rng.choice([*texts, *([] if x.has_nan else ["torch.signbit({x})"])])
        return [self.s.one(text.format(x=x))]

    @step(0.7)
    def logic(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.dtype == torch.bool)
        text = self.rng.choice(
            ["~{x}", "{x} & {y}", "{x} | {y}", "{x} ^ {y}", "{x}.logical_not()", "{x} + {y}", "{x} * 2"]
        )
        y = self.mask(x)
        return [self.s.one(text.format(x=x, y=y))]

    @step(2)
    def where(self) -> Sequence[Variable]:
        x = self.any()
        mask = self.mask(x)
        other = self.rng.choice(["0", "-inf", "1.5", f"{self.broadcastable(x)}", f"{x} * 2"])
        text = self.rng.choice(["torch.where({m}, {x}, {y})", "torch.where({m}, {y}, {x})"])
        if other in ("0", "-inf", "1.5") and self.rng.random() < 0.5:
            text = "{x}.masked_fill({m}, {y})"
        return [self.s.one(text.format(m=mask, x=x, y=other))]

    @step(3)
    def cast(self) -> Sequence[Variable]:
        x = self.any()
        to = self.rng.choice([*FLOATS, *INTEGERS, "torch.bool"])
        if "narrow floats" not in self.features and to in ("torch.float16", "torch.bfloat16"):
            raise Reject("narrow floats")
        if x.is_float and to in INTEGERS:
            info = torch.iinfo(getattr(torch, to.removeprefix("torch.")))
            for tensor in x.tensors:
                wide = tensor.double()
                if not ((wide > info.min - 0.5) & (wide < info.max - 1024)).all():
                    raise Reject("out of range")
        return [self.s.one(f"{x}.to({to})")]

    @step(0.3)
    def bits(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.dtype in (torch.float32, torch.int32) and not value.has_nan)
        return [self.s.one(f"{x}.view({'torch.int32' if x.is_float else 'torch.float32'})")]

    # -- views -------------------------------------------------------------------------------------------------------

    @step(3)
    def permute(self) -> Sequence[Variable]:
        x = self.tensor(2)
        order, one, other = self.rng.sample(range(x.rank), x.rank), self.axis(x), self.axis(x)
        return [self.s.one(self.rng.choice([f"{x}.permute({order})", f"{x}.transpose({one}, {other})", f"{x}.mT",
                                            f"{x}.movedim({one}, {other})"]))]  # fmt: skip

    @step(2)
    def flatten(self) -> Sequence[Variable]:
        x = self.tensor()
        start = self.rng.randrange(x.rank)
        stop = self.rng.randrange(start, x.rank)
        return [self.s.one(self.rng.choice([f"{x}.flatten({start}, {stop})", f"{x}.reshape(-1)"]))]

    @step(1.5)
    def unflatten(self) -> Sequence[Variable]:
        x = self.tensor()
        axis, factor = self.axis(x), self.rng.choice([1, 2, 3])
        parts = (-1, factor) if self.rng.random() < 0.5 else (factor, -1)
        return [self.s.one(f"{x}.unflatten({axis}, {parts})")]

    @step(1.5)
    def reshape(self) -> Sequence[Variable]:
        """To the extents of another order."""
        x = self.tensor()
        order = self.rng.sample(range(x.rank), x.rank)
        extents = [str(x.shape[axis][0]) if is_static(x, axis) else f"{x}.shape[{axis}]" for axis in order]
        return [self.s.one(f"{x}.reshape({', '.join(extents)})")]

    @step(1)
    def squeeze(self) -> Sequence[Variable]:
        x = self.any(lambda value: any(set(extent) == {1} for extent in value.shape))
        axes = [axis for axis in range(x.rank) if set(x.shape[axis]) == {1}]
        return [self.s.one(f"{x}.squeeze({self.rng.choice(axes)})")]

    @step(1.5)
    def unsqueeze(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.rank < 5)
        text = self.rng.choice(
            [f"{x}.unsqueeze({self.rng.randint(-x.rank - 1, x.rank)})", f"{x}[None]", f"{x}[..., None]"]
        )
        return [self.s.one(text)]

    @step(3)
    def expand(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.rank < 5)
        if self.rng.random() < 0.4:
            y = self.any(
                lambda y: (
                    y.rank >= x.rank
                    and all(
                        one == other or set(one) == {1}
                        for one, other in zip(reversed(x.shape), reversed(y.shape), strict=False)
                    )
                )
            )
            return [self.s.one(f"{x}.expand_as({y})")]
        shape = [self.rng.choice([1, 2, 3]) if set(extent) == {1} else -1 for extent in x.shape]
        return [self.s.one(f"{x}.expand({[*[2] * self.rng.randint(0, 1), *shape]})")]

    @step(4)
    def subscript(self) -> Sequence[Variable]:
        """Slices with steps, single elements, new axes, all at once."""
        x = self.tensor()
        parts = []
        for extent in x.shape[: self.rng.randint(1, x.rank)]:
            least = min(extent)
            start, step = self.rng.choice(["", "1", "-2", "0"]), self.rng.choice(["", "", "2", "3"])
            stop = self.rng.choice(["", "-1", "2", "100"])
            kinds = [f"{start}:{stop}:{step}", f"{start}:{stop}", ":", "..."]
            kinds += [str(self.rng.randint(-least, least - 1))] if least else []
            kinds += ["None"]
            part = self.rng.choice(kinds)
            if part == "..." and "..." in parts:
                part = ":"
            parts.append(part)
        return [self.s.one(f"{x}[{', '.join(parts)}]")]

    @step(1.5)
    def part(self) -> Sequence[Variable]:
        x = self.tensor()
        axis = self.axis(x)
        extent = min(x.shape[axis])
        if extent == 0:
            raise Reject("nothing")
        start = self.rng.randint(0, extent)
        texts = [f"{x}.narrow({axis}, {start}, {extent - start})",
                 f"{x}.select({axis}, {self.rng.randint(-extent, extent - 1)})",
                 f"{x}.unfold({axis}, {self.rng.randint(1, extent)}, {self.rng.choice([1, 2])})"]  # fmt: skip
        if x.rank >= 2:
            texts.append(f"{x}.diagonal({self.rng.choice([0, 1, -1])}, 0, {x.rank - 1})")
        return [self.s.one(self.rng.choice(texts))]

    @step(1.5)
    def split(self) -> Sequence[Variable]:
        x = self.tensor()
        axis = self.axis(x)
        if not is_static(x, axis):
            raise Reject("dynamic")
        extent = x.shape[axis][0]
        first = self.rng.randint(0, extent)
        if extent == 2 and self.rng.random() < 0.5:
            return self.s.line(f"{x}.unbind({axis})", outputs=2)
        if extent >= 2 and self.rng.random() < 0.5:
            return self.s.line(f"{x}.chunk(2, {axis})", outputs=2)
        return self.s.line(f"{x}.split([{first}, {extent - first}], {axis})", outputs=2)

    # -- copies ------------------------------------------------------------------------------------------------------

    @step(4)
    def cat(self) -> Sequence[Variable]:
        x = self.tensor()
        axis, values = self.axis(x), [x]
        for _ in range(self.rng.randint(1, 2)):
            values.append(self.joinable(x, axis, same_type=False))
        self.rng.shuffle(values)
        return [self.s.one(f"torch.cat([{', '.join(map(str, values))}], {axis})")]

    @step(1)
    def stack(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.rank < 5)
        y = self.like(x)
        return [self.s.one(f"torch.stack([{x}, {y}], {self.rng.randint(-x.rank - 1, x.rank)})")]

    @step(3)
    def moved(self) -> Sequence[Variable]:
        x = self.tensor()
        axis, by = self.axis(x), self.rng.randint(-3, 4)
        texts = [f"{x}.flip({axis})", f"{x}.flip({list(range(x.rank))})", f"{x}.roll({by}, {axis})", f"{x}.roll({by})"]
        if x.rank >= 2:
            texts += [f"{x}.tril({self.rng.randint(-1, 1)})", f"{x}.triu({self.rng.randint(-1, 1)})",
                      f"torch.rot90({x}, {self.rng.randint(1, 3)}, [0, 1])",
                      f"{x}.roll([1, {by}], [0, 1])"]  # fmt: skip
        return [self.s.one(self.rng.choice(texts))]

    @step(2)
    def repeat(self) -> Sequence[Variable]:
        x = self.tensor()
        times = [self.rng.choice([1, 1, 2, 3]) for _ in range(x.rank + self.rng.randint(0, 1))]
        text = self.rng.choice([f"{x}.repeat({times})", f"{x}.tile({times})",
                                f"{x}.repeat_interleave({self.rng.choice([1, 2, 3])}, {self.axis(x)})"])  # fmt: skip
        return [self.s.one(text)]

    @step(3)
    def pad(self) -> Sequence[Variable]:
        x = self.tensor()
        mode = self.rng.choice(["constant", "constant", "reflect", "replicate", "circular"])
        if mode == "constant":
            low = -1 if self.rng.random() < 0.3 else 0
            pads = [self.rng.choice([low, 0, 1, 2]) for _ in range(2 * self.rng.randint(1, x.rank))]
            return [
                self.s.one(
                    f"F.pad({x}, {pads}, value={self.rng.choice(['0', '1.5', '-inf'] if x.is_float else ['0', '1'])})",
                )
            ]
        pads = [self.rng.choice([0, 1, 2]) for _ in range(2 * max(1, x.rank - 2))]
        return [self.s.one(f"F.pad({x}, {pads}, mode='{mode}')")]

    @step(2)
    def indexed(self) -> Sequence[Variable]:
        """By constant indices."""
        x = self.tensor()
        axis = self.axis(x) % x.rank
        extent = min(x.shape[axis])
        if extent == 0:
            raise Reject("nothing")
        rows = [self.rng.randrange(extent) for _ in range(self.rng.randint(1, 3))]
        along = [-1 if each == axis else 1 for each in range(x.rank)]
        signed = [row - extent if self.rng.random() < 0.3 and is_static(x, axis) else row for row in rows]
        texts = [f"{x}.index_select({axis}, torch.tensor({rows}))", f"{x}[{':, ' * axis}torch.tensor({signed})]",
                 f"torch.take_along_dim({x}, torch.tensor({rows}).reshape({along}), {axis})",
                 f"{x}[{':, ' * axis}{rows}]"]  # fmt: skip
        if x.rank >= 2 and min(*x.shape[0], *x.shape[1]) > 0:
            both = [[self.rng.randrange(min(extent)) for _ in range(2)] for extent in x.shape[:2]]
            texts.append(f"{x}[torch.tensor({both[0]}), torch.tensor({both[1]})]")
        return [self.s.one(self.rng.choice(texts))]

    @step(1.5)
    def gathered(self) -> Sequence[Variable]:
        """By indices that are computed from integers of the program."""
        x = self.tensor()
        integers = self.any(lambda value: value.is_integer and value.rank <= 2)
        axis = self.axis(x) % x.rank
        extent = min(x.shape[axis])
        if extent == 0:
            raise Reject("nothing")
        index = self.s.one(f"{integers}.long() % {min(extent, 7)}")
        texts = [f"{x}[{':, ' * axis}{index}]"]
        if index.rank == 1:
            texts.append(f"{x}.index_select({axis}, {index})")
        if x.rank == 2 and x.is_float:
            texts.append(f"F.embedding({index} % {max(1, min(x.shape[0]))}, {x})")
        if index.rank == x.rank:
            texts.append(f"{x}.gather({axis}, {index})")
        return [self.s.one(self.rng.choice(texts))]

    @step(1.2)
    def scattered(self) -> Sequence[Variable]:
        x = self.tensor()
        extent = min(x.shape[0])
        if extent == 0:
            raise Reject("nothing")
        rows = self.rng.sample(range(extent), self.rng.randint(1, min(2, extent)))
        twice, index = [rows[0]] * 2, f"torch.tensor({rows})"
        along, rest = [-1, *[1] * (x.rank - 1)], "[:1]" if len(rows) == 1 else "[:2]"
        texts = [f"{x}.index_copy(0, {index}, {x}{rest} * 1)", f"{x}.index_fill(0, {index}, 1)",
                 f"torch.index_put({x}, [{index}], {x}{rest})", f"{x}.select_scatter({x}[-1] * 1, 0, {rows[0]})",
                 f"{x}.slice_scatter({x}[1:] * 1, 0, 1)",
                 f"{x}.scatter(0, {index}.reshape({along}).expand_as({x}{rest}), {x}{rest} * 1)"]  # fmt: skip
        kind: Kind = "exact"
        if x.dtype != torch.bool and extent >= 2 and self.rng.random() < 0.5:
            index, kind = f"torch.tensor({twice})", "accumulated"
            spread = f"{index}.reshape({along}).expand_as({x}[:2])"
            reduction = self.rng.choice(["sum", "prod", "amax", "amin", "mean"])
            texts = [f"{x}.index_add(0, {index}, {x}[:2])", f"{x}.scatter_add(0, {spread}, {x}[:2])",
                     f"torch.index_put({x}, [{index}], {x}[:2], accumulate=True)",
                     f"{x}.scatter_reduce(0, {spread}, {x}[:2], '{reduction}')"]  # fmt: skip
        return [self.s.one(self.rng.choice(texts), kind=kind)]

    @step(0.4)
    def one_hot(self) -> Sequence[Variable]:
        x = self.any(lambda value: value.is_integer and value.rank <= 3)
        return [self.s.one(f"F.one_hot({x}.long() % 3, 3)")]

    @step(0.3)
    def bucketed(self) -> Sequence[Variable]:
        x = self.number()
        return [self.s.one(f"torch.bucketize({x}, torch.tensor([-1., 0., 0.5, 2.]), right={self.rng.random() < 0.5})")]

    # -- reductions --------------------------------------------------------------------------------------------------

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
            found = self.s.line(f"{x}.topk({self.rng.randint(0, extent)}, {axis}, largest={keep})", outputs=2)
            return found[:1]  # which of equal elements comes first is open
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
        found = self.s.line(f"{x}.{name}({axis}, keepdim={keep})", outputs=2)
        return found[:1] if name == "median" else found

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
        axis = self.axis(x)
        texts = [f"F.normalize({x}, dim={axis})", f"({x} - {x}.mean({axis}, True)) / ({x}.std({axis}, True) + 1)",
                 f"{x} * torch.rsqrt(({x} * {x}).mean({axis}, True) + 1e-6)"]  # fmt: skip
        if is_static(x, x.rank - 1) and x.shape[-1][0]:
            texts += [f"F.layer_norm({x}, [{x.shape[-1][0]}])", f"F.rms_norm({x}, [{x.shape[-1][0]}])"]
        return [self.s.one(self.rng.choice(texts), kind="accumulated")]

    # -- in place ------------------------------------------------------------------------------------------------------

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

    # -- products ------------------------------------------------------------------------------------------------------

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

    # -- sizes and positions -------------------------------------------------------------------------------------------

    @step(1)
    def positions(self) -> Sequence[Variable]:
        """0, 1, 2 ... along an axis, in arithmetic that may wrap around."""
        x = self.tensor()
        dtype = self.rng.choice([*INTEGERS, "torch.float32"])
        found = self.s.one(f"torch.arange({x}.shape[{self.axis(x)}], dtype={dtype})")
        if found.is_integer and "integer limits" in self.features:
            factor = {
                torch.int8: 77,
                torch.uint8: 201,
                torch.int16: 30011,
                torch.int32: 1664525000,
                torch.int64: 2**62 + 3,
            }
            found = self.s.one(f"{found} * {factor[found.dtype]} + {self.rng.choice([1, 100])}")
        return [found]

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
