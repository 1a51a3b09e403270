"""Parts of values: a range of each axis, and from which parts of its operands an operation computes a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from irc import dims
from irc.dims import Dim
from irc.index_map import same
from irc.ir import Operation, Value
from irc.ops import reshape, slice_

Range = tuple[Dim, Dim] | None  # from, up to but not including; None: the whole axis
Part = tuple[Range, ...]
Operands = list[Part]  # () for an operand that is absent

NORMS = ("layer_norm", "rms_norm", "softmax", "log_softmax")  # along their attribute `axis`


def is_whole(part: Part) -> bool:
    return all(each is None for each in part)


def part_within(shape: Sequence[Dim], starts: Sequence[Dim], stops: Sequence[Dim]) -> Part:
    """The part from `starts` up to `stops`."""
    return tuple(None if same(start, 0) and same(stop, extent) else (start, stop)
                 for start, stop, extent in zip(starts, stops, shape, strict=True))  # fmt: skip


def shape_of(part: Part, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    return tuple(extent if each is None else each[1] - each[0] for each, extent in zip(part, shape, strict=True))


def inside(part: Part, outer: Part) -> Part:
    """The part of a whole that is this part of its part `outer`."""
    return tuple(_inside(*pair) for pair in zip(part, outer, strict=True))


def _inside(inner: Range, outer: Range) -> Range:
    if inner is None or outer is None:
        return outer if inner is None else inner
    return outer[0] + inner[0], outer[0] + inner[1]


def are_disjoint(one: Part, other: Part) -> bool:
    """Whether two parts are proven to have no element in common."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return any(dims.less(b[0], a[1]) is False or dims.less(a[0], b[1]) is False for a, b in pairs)


def cut(value: Value, part: Part) -> Value:
    """A part of a value, by a slice."""
    if is_whole(part):
        return value
    starts = tuple(0 if each is None else each[0] for each in part)
    stops = tuple(extent if each is None else each[1] for each, extent in zip(part, value.shape, strict=True))
    return slice_(value, starts=starts, stops=stops, steps=(1,) * len(part))


def computed(operation: Operation, part: Part, operands: Sequence[Value | None]) -> Value:
    """A part of the result, of the parts of the operands from which it is computed."""
    if operation.name == "reshape":
        (operand,) = operands
        assert operand is not None
        return reshape(operand, shape=shape_of(part, operation.result.shape))
    result = operation.definition(*operands, **operation.attributes)
    assert isinstance(result, Value)
    return result


# -- parts of operands -------------------------------------------------------------------------------------------


def operand_parts(operation: Operation, part: Part) -> Operands | None:
    """The parts of the operands from which the operation computes this part of its result; None where it does not
    compute parts alone."""
    if not all(value.type.is_ranked for value in (*operation.inputs, *operation.results)):
        return None
    if operation.definition.pointwise is not None:
        return _all(_broadcast(operand, part, operation.result.shape) for operand in operation.operands)
    parts = PARTS.get(operation.name)
    return None if parts is None else parts(operation, part)


def _all(parts: Iterable[Part | None]) -> Operands | None:
    listed = list(parts)
    known = [part for part in listed if part is not None]
    return known if len(known) == len(listed) else None


def _broadcast(operand: Value | None, part: Part, shape: Sequence[Dim]) -> Part | None:
    """The part of an operand that broadcasts to this shape; None where its extents are not known to fit."""
    if operand is None:
        return ()
    return _spread(operand.shape, part[len(shape) - operand.rank :], shape[len(shape) - operand.rank :])


def _spread(extents: Sequence[Dim], part: Part, shape: Sequence[Dim]) -> Part | None:
    """The part of extents that broadcast to a shape: of an extent that is repeated, all. Of an axis of one element a
    part may be empty."""
    ranges: list[Range] = []
    for dim, each, extent in zip(extents, part, shape, strict=True):
        is_repeated = each is not None and not same(dim, extent)
        if is_repeated and not same(dim, 1):
            return None
        ranges.append(None if is_repeated else each)
    return tuple(ranges)


def _transposed(operation: Operation, part: Part) -> Operands:
    operand: list[Range] = [None] * len(part)
    for axis, each in zip(operation.attributes["permutation"], part, strict=True):
        operand[axis] = each
    return [tuple(operand)]


def _concatenated(operation: Operation, part: Part) -> Operands | None:
    return [part] * len(operation.operands) if part[operation.attributes["axis"]] is None else None


def _normalized(operation: Operation, part: Part) -> Operands | None:
    if operation.attributes["axis"] % len(part) != len(part) - 1 or part[-1] is not None:
        return None
    return _all(_broadcast(operand, part, operation.result.shape) for operand in operation.operands)


def _multiplied(operation: Operation, part: Part) -> Operands | None:
    x, y, *bias = operation.inputs
    if min(x.rank, y.rank) < 2:
        return None
    leading, shape = part[:-2], operation.result.shape[:-2]
    batches = [_spread(each.shape[:-2], leading[len(leading) - each.rank + 2 :], shape[len(shape) - each.rank + 2 :])
               for each in (x, y)]  # fmt: skip
    if batches[0] is None or batches[1] is None:
        return None
    return [(*batches[0], part[-2], None), (*batches[1], None, part[-1]), *((part[-1],) for _ in bias)]


def _gemm(operation: Operation, part: Part) -> Operands | None:
    (rows, columns), attributes = part, operation.attributes
    a = (None, rows) if attributes["transpose_a"] else (rows, None)
    b = (columns, None) if attributes["transpose_b"] else (None, columns)
    if len(operation.operands) < 3 or operation.operands[2] is None:
        return [a, b]
    c = _broadcast(operation.operands[2], part, operation.result.shape)
    return None if c is None else [a, b, c]


def _attended(operation: Operation, part: Part) -> Operands | None:
    """Of queries, and of columns of the values. A causal attention counts queries from the first."""
    batch, heads, queries, depth = part
    q, _, _, *masks = operation.inputs
    if batch is not None or heads is not None or (queries is not None and operation.attributes["causal"]):
        return None
    operands: Operands = [(None, None, queries, None), (None,) * 4, (None, None, None, depth)]
    for mask in masks:
        rows: Part = (None,) * mask.rank
        if queries is not None and mask.rank > 1 and not same(mask.shape[-2], 1):
            if not same(mask.shape[-2], q.shape[2]):
                return None
            rows = (*rows[:-2], queries, None)
        operands.append(rows)
    return operands


def _reshaped(operation: Operation, part: Part) -> Operands | None:
    """Axes that keep their extents, and the first of several axes that are made of one or become one."""
    source, shape = operation.inputs[0].shape, operation.result.shape
    operand: list[Range] = [None] * len(source)
    for before, after in _groups(source, shape):
        ranges = [part[axis] for axis in after]
        if all(each is None for each in ranges):
            continue
        first = next((axis for axis in after if not same(shape[axis], 1)), None)
        outer = next((axis for axis in before if not same(source[axis], 1)), None)
        if first is None or outer is None or any(part[axis] is not None for axis in after if axis != first):
            return None
        chosen = part[first]
        assert chosen is not None
        if same(shape[first], source[outer]):
            operand[outer] = chosen
            continue
        scaled = _scaled(chosen, shape[first], source[outer])
        if scaled is None:
            return None
        operand[outer] = scaled
    return [tuple(operand)]


def _scaled(chosen: tuple[Dim, Dim], extent: Dim, outer: Dim) -> Range:
    """A range of the first axis of several, as one of the first axis of those that they are made of."""
    if not all(isinstance(each, int) for each in (*chosen, extent, outer)):
        return None
    start, stop = chosen
    assert isinstance(start, int) and isinstance(stop, int) and isinstance(extent, int) and isinstance(outer, int)
    ends = [end * outer for end in (start, stop)]
    if any(end % extent for end in ends):
        return None
    return ends[0] // extent, ends[1] // extent


def _groups(source: Sequence[Dim], shape: Sequence[Dim]) -> list[tuple[list[int], list[int]]]:
    """The fewest axes of the source that have as many elements as some axes of the result, from the first on. What
    cannot be divided further is one group."""
    groups, before, after = list[tuple[list[int], list[int]]](), list[int](), list[int]()
    left, right = list(range(len(source)))[::-1], list(range(len(shape)))[::-1]
    while left or right:
        sizes = dims.product(source[axis] for axis in before), dims.product(shape[axis] for axis in after)
        if before and after and same(*sizes):
            groups.append((before, after))
            before, after = [], []
        elif left and (not before or not right or (after and dims.less(*sizes) is not False)):
            before.append(left.pop())
        else:
            after.append(right.pop())
    return [*groups, (before, after)]


PARTS: dict[str, Callable[[Operation, Part], Operands | None]] = {
    "attention": _attended, "concat": _concatenated, "gemm": _gemm, "linear": _multiplied, "matmul": _multiplied,
    "reshape": _reshaped, "transpose": _transposed, **dict.fromkeys(NORMS, _normalized),
}  # fmt: skip
