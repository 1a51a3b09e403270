"""Control flow of PyTorch: cond, while_loop, scan and map against eager PyTorch, in every frontend and backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._higher_order_ops.map import map as over_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim

import irc
from irc.diagnostics import IrcError
from tests.test_torch_frontend import check

PATHS = (None, "onnx", "triton")


class Branches(nn.Module):
    """Each branch has parameters of its own, and one uses the extent of its operand."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: self.left(x).relu(), lambda x: self.right(x) * x.shape[0], (x,))


class Nested(nn.Module):
    """The outer condition is about an extent, the inner one about data."""

    def forward(self, x: torch.Tensor) -> Any:
        def inside(x: torch.Tensor) -> Any:
            return torch.cond(x.sum() > 0, lambda x: (x + 1, x.sum(0)), lambda x: (x - 1, x.amax(0)), (x,))

        return torch.cond(x.shape[0] > 4, inside, lambda x: (x * 3, x[0] + 0), (x,))


class Until(nn.Module):
    """A loop whose number of rounds depends on the data."""

    def forward(self, x: torch.Tensor) -> Any:
        def going(i: torch.Tensor, x: torch.Tensor) -> Any:
            return (i < 5) & (x.sum() < 40)

        return while_loop(going, lambda i, x: (i + 1, x * 1.5 + i), (torch.zeros((), dtype=torch.int64), x))


class Counted(nn.Module):
    """A loop that carries an integer, up to an extent."""

    def forward(self, x: torch.Tensor) -> Any:
        _, counted = while_loop(lambda i, x: i < x.shape[0], lambda i, x: (i + 1, x + i), (0, x))
        return counted


class Large(nn.Module):
    """A loop that carries an integer which is no extent."""

    def forward(self, x: torch.Tensor) -> Any:
        def more(s: int, i: int, x: torch.Tensor) -> Any:
            return s * 100_000 + 1, i + 1, x + s

        return while_loop(lambda s, i, x: i < 3, more, (1, 0, x))[2]


class Recurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, first: torch.Tensor) -> Any:
        def step(state: torch.Tensor, row: torch.Tensor) -> Any:
            new = torch.tanh(self.cell(state) + row)
            return new, new * 2

        return scan(step, first, x, dim=0)


class Rows(nn.Module):
    def forward(self, x: torch.Tensor, first: torch.Tensor) -> Any:
        return over_rows(lambda row, w: row.sin() * w, x, first)


class Uneven(nn.Module):
    """Branches that give another extent each."""

    def forward(self, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: x[:2] * 2, lambda x: x[:3] + 1, (x,))


@pytest.mark.parametrize("model", [Branches(), Nested(), Until(), Counted(), Large(), Recurrence(), Rows()],
                         ids=lambda model: type(model).__name__)
def test_control_flow(model: nn.Module) -> None:
    torch.manual_seed(0)
    more = (torch.randn(4),) if isinstance(model, (Recurrence, Rows)) else ()
    shapes: dict[str, Any] = {"x": {0: Dim("B", min=2)}, **({"first": None} if more else {})}
    module = irc.from_torch(model, (torch.randn(3, 4), *more), dynamic_shapes=shapes)
    for x, paths in ((torch.rand(3, 4), PATHS[:2]), (-torch.rand(7, 4), PATHS), (-torch.rand(3, 4), PATHS[:2])):
        check(module, dict(zip(("x", "first"), (x, *more), strict=False)), model(x, *more), paths)


def test_branches_of_different_extents() -> None:
    module = irc.from_torch(Uneven(), (torch.randn(5, 4),))
    assert "f32[?e in (0, 1000000000), 4]" in str(module)
    for x, paths in ((torch.rand(5, 4), PATHS[:2]), (-torch.rand(5, 4), PATHS)):
        check(module, {"x": x}, Uneven()(x), paths)


def test_control_flow_in_a_file(tmp_path: Path) -> None:
    model = Branches()
    program = torch.export.export(model, (torch.randn(3, 4),), dynamic_shapes={"x": {0: Dim("B", min=2)}})
    torch.export.save(program, tmp_path / "model.pt2")
    module = irc.load(tmp_path / "model.pt2")
    check(module, {"x": -torch.ones(5, 4)}, model(-torch.ones(5, 4)))


@torch.library.custom_op("irc_control::halved", mutates_args=())
def halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


@torch.library.custom_op("irc_control::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


halved.register_fake(torch.empty_like)
doubled.register_fake(torch.empty_like)


def test_what_a_branch_holds_that_cannot_be_read_is_listed() -> None:
    def function(x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: halved(x) + 1, lambda x: doubled(x) * 1, (x,))

    with pytest.raises(IrcError) as caught:
        irc.from_torch(function, (torch.eye(3),))
    notes = "\n".join(caught.value.diagnostics[0].notes)
    assert caught.value.code == "torch.unsupported"
    assert "::halved" in notes and "::doubled" in notes and "of cond" not in notes, notes
