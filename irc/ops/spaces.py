"""The iteration spaces of contractions: which elements of operands are multiplied, and into which element they sum."""

from __future__ import annotations

from collections.abc import Iterator

from irc.dims import Dim, floor_divide, less_equal
from irc.index_map import Coordinates
from irc.interfaces import Contracting, Space


def dot_space(operation: Contracting) -> Space:
    """[*batch, *free axes of x, *free axes of y, *contracted axes] of a `dot`."""
    x, y = (value.shape for value in operation.inputs)
    pairs = [[pair[0] % len(x), pair[1] % len(y)] for pair in operation.attributes["batch"]]
    contracted = [(left % len(x), right % len(y)) for left, right in operation.attributes["contract"]]
    batch = len(pairs)
    taken_x, taken_y = ({pair[side] for pair in (*pairs, *contracted)} for side in (0, 1))
    free_x = [axis for axis in range(len(x)) if axis not in taken_x]
    free_y = [axis for axis in range(len(y)) if axis not in taken_y]
    order_x = [*(pair[0] for pair in pairs), *free_x, *(pair[0] for pair in contracted)]
    order_y = [*(pair[1] for pair in pairs), *free_y, *(pair[1] for pair in contracted)]
    rows, columns = batch + len(free_x), batch + len(free_x) + len(free_y)

    def maps(at: Coordinates) -> tuple[Coordinates, Coordinates, Coordinates]:
        of_x = dict(zip(order_x, (*at[:rows], *at[columns:]), strict=True))
        of_y = dict(zip(order_y, (*at[:batch], *at[rows:]), strict=True))
        return tuple(of_x[axis] for axis in range(len(x))), tuple(of_y[axis] for axis in range(len(y))), at[:columns]

    common = [(x[left], y[right]) for left, right in (*pairs, *contracted)]
    return Space((*operation.result.shape, *(x[left] for left, _ in contracted)), maps, fits=_equal(*common))


def convolution_space(operation: Contracting) -> Space:
    """[N, M, *output, C/groups, *K] of a `conv`: the window at an element of the result."""
    weight, groups, rank = operation.inputs[1].shape, operation.attributes["groups"], operation.result.rank
    per_group = floor_divide(weight[0], groups)
    has_groups = groups > 1 and per_group != 0

    def maps(at: Coordinates) -> tuple[Coordinates, Coordinates, Coordinates]:
        (batch, feature, *position), (channel, *tap) = at[:rank], at[rank:]
        source = floor_divide(feature, per_group) * weight[1] + channel if has_groups else channel
        return (batch, source, *_at_tap(position, tap, operation)), (feature, channel, *tap), at[:rank]

    is_window = weight[1] == 1 and (groups > 1 or weight[0] == 1)
    is_divided = has_groups and weight[1] != 1 and per_group != 1
    channels = [(operation.inputs[0].shape[1], weight[1] * groups), (weight[0], per_group * groups)]
    channels += [(bias.shape[0], weight[0]) for bias in operation.inputs[2:]]
    fits = (*_equal(*channels), *_windows_fit(operation))
    return Space((*operation.result.shape, *weight[1:]), maps, ((1, per_group),) if is_divided else (), fits, is_window)


def _equal(*pairs: tuple[Dim, Dim]) -> tuple[Dim, ...]:
    """Dims that are at least 0 where the two dims of each pair are equal."""
    return tuple(difference for one, other in pairs for difference in (one - other, other - one))


def _windows_fit(operation: Contracting) -> Iterator[Dim]:
    """For each spatial axis a dim that is at least 0 where a window fits; none where the padding alone is as long as
    all of a window but one element."""
    attributes, (x, weight) = operation.attributes, (value.shape for value in operation.inputs[:2])
    lists = (attributes["dilations"], attributes["low"], attributes["high"])
    for extent, window, dilation, low, high in zip(x[2:], weight[2:], *lists, strict=True):
        missing = dilation * (window - 1) - low - high
        if less_equal(missing, 0) is not True:
            yield extent - missing - 1


def transposed_convolution_space(operation: Contracting) -> Space:
    """[N, C, *S, M/groups, *K] of a `conv_transpose`: where each element of x is added, times the weight."""
    x, weight, rank = operation.inputs[0].shape, operation.inputs[1].shape, operation.result.rank
    per_group = floor_divide(x[1], operation.attributes["groups"])

    def maps(at: Coordinates) -> tuple[Coordinates, Coordinates, Coordinates]:
        (batch, channel, *position), (feature, *tap) = at[:rank], at[rank:]
        target = floor_divide(channel, per_group) * weight[1] + feature
        return at[:rank], (channel, feature, *tap), (batch, target, *_at_tap(position, tap, operation))

    return Space((*x, *weight[1:]), maps)


def _at_tap(position: list[Dim], tap: list[Dim], operation: Contracting) -> list[Dim]:
    """The place, on the strided side of a convolution, of an element of a window; outside of it where it is padding."""
    attributes = operation.attributes
    parts = zip(position, tap, attributes["strides"], attributes["dilations"], attributes["low"], strict=True)
    return [at * stride + offset * dilation - low for at, offset, stride, dilation, low in parts]
