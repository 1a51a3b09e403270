"""The rows of all operations, by name: what is not here is emitted by its body."""

from __future__ import annotations

from irc import ops
from irc.backends.onnx import (
    activation,
    arrangement,
    attention,
    control,
    division,
    foreign,
    indexing,
    linear,
    normalization,
    pointwise,
    pooling,
    powers,
    quantization,
    recurrent,
    reduction,
    sorting,
    view,
)  # fmt: skip
from irc.backends.onnx.row import Row

MODULES = (
    pointwise, division, powers, reduction, view, indexing, linear, sorting, control, foreign,
    activation, normalization, pooling, quantization, arrangement, attention, recurrent,
)  # fmt: skip

ROWS: dict[str, Row] = {}
for _module in MODULES:
    for _item in vars(_module).values():
        for _row in _item if isinstance(_item, list) else [_item]:
            if isinstance(_row, Row):
                assert ROWS.setdefault(_row.name, _row) is _row, f"two rows for {_row.name}"
# A primitive whose declaration names the operator that it is needs no row.
for _definition in ops.TABLE.values():
    if _definition.kind == "primitive" and _definition.pointwise is not None and _definition.pointwise.onnx is not None:
        ROWS.setdefault(_definition.name, pointwise.one_operator(_definition.name, _definition.pointwise.onnx))
