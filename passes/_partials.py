"""Reductions in parts: each part of the reduced elements is reduced by itself, then the partial results are.

`InParts` rewrites the primitives of a kernel. What a reduction says of itself (`irc.interfaces.Reduction`) is enough:
it is associative and commutative, so that it combines its own partial results, after padding by its identity. Elements
are divided by views (a reshape of the padded operand), so that everything else is as in any other program.

A sum that depends on another reduction is computed with that of its part, and combined by the formula for its form:

    sum(g * exp(x - c))   part: sum(g * exp(x - c'))   whole: sum over parts of part * exp(c' - c)
    sum((x - c)**2)       part: sum((x - c')**2)       whole: sum over parts of part + n' * (c' - c)**2

where c' is the maximum of x in the part, or its mean of n' elements. Both hold for any c. The second is that of Chan,
Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from irc import dims, ops
from irc.dims import Dim
from irc.dtypes import I64, DType, accumulator_of
from irc.interfaces import Combine, Reduction, identity
from irc.ir import Block, Definition, Operation, Value
from irc.kernel.schedule_rules import parts_divide_what_is_reduced
from irc.kernel.steps import Steps, reduced_dims
from irc.op import Builder, OperationDefinition, literal
from irc.ops.named.common import number


@dataclass(frozen=True)
class Parts:
    """How `extent` reduced elements are divided: `number` parts of `size` elements, the last ones of which may have
    less, or none."""

    extent: Dim
    number: Dim
    size: Dim

    @classmethod
    def of_size(cls, extent: Dim, size: Dim) -> Parts:
        """As few parts of a size as hold all elements. A part is rows of the operand, so that its size may be 0: then
        there are no elements, and no parts."""
        number = dims.exact_divide(extent, size)
        return cls(extent, dims.ceil_divide(extent, dims.maximum(size, 1)) if number is None else number, size)

    @property
    def missing(self) -> Dim:
        """The elements by which the parts are more than there are."""
        return self.number * self.size - self.extent


class Arrangement:
    """The operand of a reduction with its reduced axes as one (flat), and that divided into parts.

    place: the axis of the parts. The reduced axes stay where they are if they are neighbors, else they come last.
    """

    def __init__(self, shape: tuple[Dim, ...], reduced: Sequence[int], parts: Parts) -> None:
        self.shape, self.parts = shape, parts
        self.kept_axes = [axis for axis in range(len(shape)) if axis not in reduced]
        adjacent = list(reduced) == list(range(reduced[0], reduced[0] + len(reduced)))
        self.place = reduced[0] if adjacent else len(self.kept_axes)
        self.order = (*self.kept_axes[: self.place], *reduced, *self.kept_axes[self.place :])
        self.kept = tuple(shape[axis] for axis in self.kept_axes)

    def divided_axis(self, axis: int) -> int:
        """Where an axis that is kept is in what is divided."""
        position = self.kept_axes.index(axis % len(self.shape))
        return position if position < self.place else position + 2

    def flat(self, x: Value) -> Value:
        """The operand, or what broadcasts to its shape, with the reduced axes as one."""
        if x.shape != self.shape:
            x = ops.expand(x, shape=self.shape)
        if self.order != tuple(range(len(self.shape))):
            x = ops.transpose(x, permutation=self.order)
        return reshaped(x, self._with(self.parts.extent))

    def divided(self, x: Value, fill: float, *, first: bool = False) -> Value:
        """What is flat, with an axis of parts and one of the elements of a part after it; `fill` pads the last part, or
        the first."""
        if self.parts.missing != 0:
            ends = self._with(self.parts.missing, others=0), (0,) * (len(self.kept) + 1)
            low, high = ends if first else ends[::-1]
            x = ops.pad(x, literal(fill, x.dtype), low=low, high=high)
        return reshaped(x, self._with(self.parts.number, self.parts.size))

    def spread(self, x: Value) -> Value:
        """One value for each part as one for each element of what is flat."""
        x = reshaped(x, self._with(self.parts.number, 1))
        x = ops.expand(x, shape=self._with(self.parts.number, self.parts.size))
        x = reshaped(x, self._with(self.parts.number * self.parts.size))
        if self.parts.missing != 0:
            stops = self._with(self.parts.extent)
            x = ops.slice_(x, starts=(0,) * len(stops), stops=stops, steps=(1,) * len(stops))
        return x

    def along_parts(self, x: Value) -> Value:
        """What is constant along the reduced axes, as a value for all parts of a row."""
        return reshaped(x, self._with(1))

    def counts(self, dtype: DType) -> Value:
        """The number of elements of each part."""
        if self.parts.missing == 0:
            return number(self.parts.size, dtype)
        before = ops.mul(ops.iota(shape=self._with(self.parts.number, others=1), axis=self.place, dtype=I64),
                         ops.dim(value=self.parts.size))  # fmt: skip
        left = ops.maximum(ops.sub(ops.dim(value=self.parts.extent), before), literal(0, I64))
        return ops.cast(ops.minimum(left, ops.dim(value=self.parts.size)), to=dtype)

    def _with(self, *extents: Dim, others: Dim | None = None) -> tuple[Dim, ...]:
        kept = self.kept if others is None else (others,) * len(self.kept)
        return *kept[: self.place], *extents, *kept[self.place :]


class Chain(NamedTuple):
    """How what is summed depends on another reduction: it is computed from the difference `x - c` by `steps`."""

    form: str  # "exp", or "square" of the difference
    difference: Operation
    steps: tuple[Operation, ...]  # from the difference on
    other: Operation


class InParts:
    """The primitives of a kernel again, in a block, with its reductions in parts. Floats narrower than f32 are f32, as
    they are in a kernel.

    values: by value of the kernel's region or of its primitives. partials, wholes: the results for parts, and what is
    combined from them. divisible: the reductions across rows of a kernel that also reduces rows; those are copied.
    """

    def __init__(self, steps: Steps, arguments: Sequence[Value], parts: Parts, *, carries: bool,
                 divisible: Collection[Operation] = ()) -> None:  # fmt: skip
        self.steps, self.parts, self.carries, self.divisible = steps, parts, carries, divisible
        self.block = Block([value.type for value in arguments], [value.name for value in arguments])
        self.values: dict[Value, Value] = {}
        self.partials: dict[Value, None] = {}
        self.wholes: dict[Value, int] = {}  # with the number of kernels after the first in which it can be combined
        self._partial_of: dict[Operation, Value] = {}  # by reduction
        self._below: dict[Value, frozenset[Operation]] = {}  # the reductions that a value depends on
        with Builder(self.block):
            for value, copy in zip(arguments, self.block.arguments, strict=True):
                self.values[steps.inner.get(value, value)] = widened(copy)
            for step in steps.steps:
                self._add(step)

    def _add(self, step: Operation) -> None:
        below = frozenset[Operation]().union(*(self._below.get(value, frozenset()) for value in step.inputs))
        extent = self._extent(step)
        if extent != 1:
            parts_divide_what_is_reduced(step.result.name, extent, self.parts.extent)
            whole = reshaped(self._in_parts(step), step.result.shape)
            whole.name = name_of(step, "whole")
            self.values[step.result], below = whole, below | {step}
        else:
            operands = [None if operand is None else self._operand(step, operand) for operand in step.operands]
            self.values.update(zip(step.results, copied(step, operands), strict=True))
        self._below.update(dict.fromkeys(step.results, below))

    def _operand(self, step: Operation, operand: Value) -> Value:
        """What stands for an operand: what is multiplied is of its own type."""
        value = self.values[operand]
        return value if step.definition.contraction is None else rounded(value, operand.dtype)

    def _extent(self, step: Operation) -> Dim:
        """How many elements, or products, that are divided an element of the result combines; 1 of what is copied."""
        return combined_extent(step) if not self.divisible or step in self.divisible else 1

    def result(self, value: Value) -> Value:
        """What stands for a value of the kernel's region, in its type."""
        return rounded(self.values[self.steps.inner.get(value, value)], value.dtype)

    # -- reductions --------------------------------------------------------------------------------------------

    def _in_parts(self, step: Operation) -> Value:
        """The result of a reduction, without the reduced axes, or of a product."""
        reduction = step.definition.reduction
        if reduction is None:
            return self._product(step) if step.name == "dot" else self._convolution(step)
        arrangement = Arrangement(step.inputs[0].shape, sorted(reduced_dims(step)), self.parts)
        if reduction.finds_index:
            return self._index(step, arrangement, reduction)
        chain = self._chain(step) if self.carries else None
        if chain is not None:
            return self._carried(step, arrangement, chain)
        partial = self._partial(step, arrangement, arrangement.flat(self.values[step.inputs[0]]))
        return self._whole(step.definition, partial, arrangement)

    def _partial(self, step: Operation, arrangement: Arrangement, x: Value) -> Value:
        assert step.definition.reduction is not None
        fill = identity(step.definition.reduction.combine, x.dtype)
        partial = reduced(step.definition, arrangement.divided(x, fill.item()), arrangement.place + 1)
        self._partial_of[step] = partial
        return self._stored(partial, name_of(step, "partial"))

    def _stored(self, partial: Value, name: str) -> Value:
        partial.name = name
        self.partials[partial] = None
        return partial

    def _whole(self, definition: Definition, partial: Value, arrangement: Arrangement) -> Value:
        whole = reduced(definition, partial, arrangement.place)
        self.wholes[whole] = 0
        return whole

    def _index(self, step: Operation, arrangement: Arrangement, reduction: Reduction) -> Value:
        """The index of an extremum: that in the first, or the last, part that has it."""
        place, last = arrangement.place, step.attributes["select_last"]
        x = arrangement.flat(self.values[step.inputs[0]])
        # Padding must not come before an element that is equal.
        x = arrangement.divided(x, identity(reduction.combine, x.dtype).item(), first=last)
        extremum = self._stored(reduced(reducing(reduction.combine), x, place + 1), f"partial_{reduction.combine}")
        part = ops.iota(shape=extremum.shape, axis=place, dtype=I64)
        before = ops.mul(part, ops.dim(value=self.parts.size))
        if last:
            before = ops.sub(before, ops.dim(value=self.parts.missing))
        index = step.definition(x, axis=place + 1, select_last=last)
        index = self._stored(ops.add(index, before), name_of(step, "partial"))
        best = step.definition(extremum, axis=place, select_last=last, keep_dims=True)
        self.wholes[best] = 0
        return self._whole(reducing("sum"), ops.select(ops.equal(part, best), index, literal(0, I64)), arrangement)

    def _product(self, step: Operation) -> Value:
        """A product: those of parts are matrices of a batch. They are rounded in the types of IR, and not in kernels,
        which store the sums."""
        batch, contract = ([(left % step.inputs[0].rank, right % step.inputs[1].rank) for left, right in pairs]
                           for pairs in (step.attributes["batch"], step.attributes["contract"]))  # fmt: skip
        sides = [Arrangement(x.shape, [pair[side] for pair in contract], self.parts)
                 for side, x in enumerate(step.inputs)]  # fmt: skip
        operands = [side.divided(side.flat(rounded(self.values[x], x.dtype)), 0.0)
                    for side, x in zip(sides, step.inputs, strict=True)]  # fmt: skip
        left, right = sides
        batch = [(left.divided_axis(one), right.divided_axis(other)) for one, other in batch]
        product = ops.dot(
            *operands, batch=(*batch, (left.place, right.place)), contract=((left.place + 1, right.place + 1),),
            accumulate=step.attributes["accumulate"],
        )  # fmt: skip
        partial = self._stored(widened(product), name_of(step, "partial"))
        whole = reduced(reducing("sum"), partial, len(batch))
        self.wholes[whole] = 0
        return whole

    def _convolution(self, step: Operation) -> Value:
        """A convolution: parts of its channels are groups."""
        x, weight, *bias = (rounded(self.values[value], value.dtype) for value in step.inputs)
        features, channels, *window = weight.shape
        size = dims.ceil_divide(channels, self.parts.number)
        number = dims.ceil_divide(channels, size) if isinstance(size, int) else self.parts.number
        missing, others = number * size - channels, (0,) * len(window)
        if missing != 0:
            low, high = (0, 0, *others), (0, missing, *others)
            x, weight = (ops.pad(each, literal(0.0, each.dtype), low=low, high=high) for each in (x, weight))
        weight = ops.reshape(weight, shape=(features, number, size, *window))
        weight = ops.transpose(weight, permutation=(1, 0, *range(2, weight.rank)))
        weight = ops.reshape(weight, shape=(number * features, size, *window))
        parts = ops.conv(x, weight, **{**step.attributes, "groups": number})
        batch, _, *extents = parts.shape
        parts = ops.reshape(parts, shape=(batch, number, features, *extents))
        whole = reduced(reducing("sum"), self._stored(widened(parts), name_of(step, "partial")), 1)
        self.wholes[whole] = 0
        if bias:
            whole = ops.add(whole, ops.reshape(widened(bias[0]), shape=(features, *(1 for _ in window))))
        return whole

    # -- sums that depend on another reduction -----------------------------------------------------------------

    def _chain(self, step: Operation) -> Chain | None:
        """How a sum depends on another reduction, where it is one of the forms that combine."""
        form, steps, value = "", list[Operation](), step.inputs[0]
        while (inner := value.operation) is not None and self._below.get(value):
            depends = [bool(self._below.get(operand)) for operand in inner.inputs]
            if len(self._below[value]) > 1:
                return None
            if inner.name == "sub" and form and depends == [False, True]:
                return self._known(step, Chain(form, inner, tuple(reversed(steps)), *self._below[value]))
            is_multiple = any(each.name != "cast" for each in steps)
            place = None if is_multiple and is_square(inner) else followed(inner, depends, form)
            if place is None:
                return None
            form = form or ("exp" if inner.name == "exp" else "square" if is_square(inner) else "")
            steps.append(inner)
            value = inner.inputs[place]
        return None

    def _known(self, step: Operation, chain: Chain) -> Chain | None:
        """The chain, if the difference is to what is constant along the reduced axes, and the other reduction is that
        of the same elements by which parts are combined."""
        (x, constant), other = chain.difference.inputs, chain.other
        gone, kinds = reduced_dims(step), [each.definition.reduction for each in (step, other)]
        shape = tuple(1 if axis in gone else extent for axis, extent in enumerate(x.shape))
        same = x.shape == step.inputs[0].shape and constant.shape == shape and reduced_dims(other) == gone
        needed = [Reduction("sum"), Reduction("max" if chain.form == "exp" else "sum")]
        read = self.values[x] is self.values[other.inputs[0]]
        return chain if same and read and kinds == needed and self.values[x].dtype.is_float else None

    def _carried(self, step: Operation, arrangement: Arrangement, chain: Chain) -> Value:
        x, constant = (self.values[value] for value in chain.difference.inputs)
        partial, counts = self._partial_of[chain.other], arrangement.counts(x.dtype)
        if chain.form == "exp":  # a part may have -inf alone, and -inf - -inf is NaN
            center = ops.select(ops.is_inf(partial), literal(0.0, x.dtype), partial)
        else:
            center = ops.div(partial, ops.maximum(counts, literal(1.0, x.dtype)))
        (value,) = copied(chain.difference, [arrangement.flat(x), arrangement.spread(center)])
        known = {chain.difference.result: value}
        for inner in chain.steps:
            operands = [known.get(each) or arrangement.flat(self.values[each]) for each in inner.inputs]
            (value,) = copied(inner, operands)
            known[inner.result] = value
        result = self._partial(step, arrangement, value)
        whole = arrangement.along_parts(constant)
        if chain.form == "exp":
            rescaled = ops.mul(result, ops.exp(ops.sub(partial, whole)))
        else:
            apart = ops.sub(center, whole)
            rescaled = ops.add(result, ops.mul(counts, ops.mul(apart, apart)))
        return self._unless_empty(self._whole(step.definition, rescaled, arrangement))

    def _unless_empty(self, x: Value) -> Value:
        """A sum over no elements is 0: that by which it is multiplied is often NaN then."""
        if dims.less(0, self.parts.extent) is True:
            return x
        is_empty = ops.equal(ops.dim(value=self.parts.extent), literal(0, I64))
        result: Value = ops.select(is_empty, literal(0.0, x.dtype), x)
        return result


def combined_extent(step: Operation) -> Dim:
    """How many elements, or products, an element of the result combines; 1 of what is copied as it is."""
    if step.definition.reduction is not None:
        return dims.product(step.inputs[0].shape[axis] for axis in reduced_dims(step))
    if step.name == "dot":
        return dims.product(step.inputs[0].shape[left] for left, _ in step.attributes["contract"])
    return dims.product(step.inputs[1].shape[1:]) if is_divided(step) else 1


def is_divided(step: Operation) -> bool:
    """Whether the products of a step are of parts: of matrices, and of a convolution without groups."""
    contraction = step.definition.contraction
    if step.name != "conv" or contraction is None:
        return step.name == "dot"
    return step.attributes["groups"] == 1 and not contraction.space(step).is_window


def followed(step: Operation, depends: Sequence[bool], form: str) -> int | None:
    """Which operand the chain of a sum goes on to: of a multiple of exp(x - c), of exp(x - c), of (x - c)**2."""
    if step.name == "cast":
        return 0 if step.attributes["to"].is_float and step.attributes["to"].bits >= step.inputs[0].dtype.bits else None
    if form:
        return None
    if step.name == "exp" or is_square(step):
        return 0
    if step.name == "mul" and sum(depends) == 1:
        return depends.index(True)
    return 0 if step.name == "div" and depends == [True, False] else None


def is_square(step: Operation) -> bool:
    return step.name == "mul" and step.inputs[0] is step.inputs[1]


def copied(step: Operation, operands: Sequence[Value | None]) -> list[Value]:
    """The results of the same primitive of other operands."""
    if step.name == "cast" and operands[0] is not None and operands[0].dtype is step.attributes["to"]:
        return [operands[0]]
    names = [result.name for result in step.results]
    definition = cast(OperationDefinition, step.definition)
    copy = Builder.active().create(definition, operands, step.attributes, names=names)
    return [widened(result) for result in copy.results]


def name_of(step: Operation, what: str) -> str:
    """The name of a partial result, or of the whole, of a reduction."""
    if not step.result.is_anonymous:
        return f"{step.result.name}_{what}"
    reduction = step.definition.reduction
    kind = "product" if reduction is None else "index" if reduction.finds_index else reduction.combine
    return f"{what}_{kind}"


def reshaped(x: Value, shape: tuple[Dim, ...]) -> Value:
    result: Value = x if x.shape == shape else ops.reshape(x, shape=shape)
    return result


def reduced(definition: Definition, x: Value, axis: int) -> Value:
    return Builder.active().create(cast(OperationDefinition, definition), [x], {"axes": (axis,)}).result


def reducing(combine: Combine) -> OperationDefinition:
    """The operation that combines elements so, and gives the element."""
    return next(each for each in ops.TABLE.values() if each.reduction == Reduction(combine))


def rounded(value: Value, dtype: DType) -> Value:
    """The value in a type; one that was widened from it as it was."""
    if value.dtype is dtype:
        return value
    before = value.operation
    if before is not None and before.name == "cast" and before.inputs[0].dtype is dtype:
        return before.inputs[0]
    result: Value = ops.cast(value, to=dtype)
    return result


def widened(value: Value) -> Value:
    """The value in the type that kernels hold it in."""
    register = accumulator_of(value.dtype)
    return value if register is value.dtype else ops.cast(value, to=register)
