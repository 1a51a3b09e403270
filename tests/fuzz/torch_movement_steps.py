"""Steps of PyTorch programs: shapes, slices, indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tests.fuzz.steps import Reject, is_static, step
from tests.fuzz.torch_choices import TorchChoices
from tests.fuzz.torch_source import Kind, Variable


class MovementSteps(TorchChoices):
    """Steps of PyTorch programs: shapes, slices, indices."""

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
