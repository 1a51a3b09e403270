"""How programs are exported by PyTorch: whose faults are whose, what threads see of it, and for which sizes."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.fx.experimental._config as symbolic_shapes_config
from torch import nn
from torch.export import Dim

import irc
from irc.diagnostics import IrcError, fail
from irc.driver.fx_graphs import FILE, _naming_operations
from irc.frontends.torch import exporting
from irc.frontends.torch.exporting import quiet, unlogged
from irc.frontends.torch.guards import KEPT_APART
from irc.op import trace
from tests.torch_calls import assert_like

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.ones(5, 4)


# -- whose faults are whose --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", ["exporting.least_right_sizes", "exporting._without_offsets", "dynamic_shapes.ranges_in"])  # fmt: skip
def test_a_fault_in_irc_is_not_called_one_of_pytorch(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: Any) -> Any:
        raise ZeroDivisionError("at fault")

    monkeypatch.setattr(f"irc.frontends.torch.{part}", faulty)
    table = torch.ones(8, 4)
    with pytest.raises(ZeroDivisionError, match="at fault"):
        irc.from_torch(lambda x: x + table[: x.shape[0]], (X,), dynamic_shapes={"x": {0: "N"}})


def test_an_error_of_irc_inside_of_a_program_keeps_its_code() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        raise fail("usage.value", "not such a tensor")

    with pytest.raises(IrcError, match="not such a tensor") as caught:
        irc.from_torch(program, (X,))
    assert caught.value.code == "usage.value"


@pytest.mark.parametrize("error", [ValueError("a size"), fail("usage.value", "a size")])
def test_errors_while_a_graph_is_recorded(error: Exception) -> None:
    """Those of PyTorch name the operation, and their own traceback is kept; those of irc are as they are."""
    operation = trace(irc.ops.exp, "f32[2]").main.returned[0].operation
    assert operation is not None

    def raising() -> None:
        raise error

    with pytest.raises(IrcError, match="a size") as caught, _naming_operations({2: operation}):
        exec(compile("\nraising()", FILE, "exec"), {"raising": raising})
    assert (caught.value is error) if isinstance(error, IrcError) else (caught.value.__cause__ is error)


def changing(x: torch.Tensor, others: list[torch.Tensor]) -> torch.Tensor:
    others.append(x)
    return x * 2


def guarded() -> torch.export.ExportedProgram:
    program = torch.export.export(nn.ReLU(), (X,))
    setattr(program, KEPT_APART, ["L['input'].stride()[0] == 7"])
    return program


WARNED: dict[str, tuple[Callable[[], Any], Any, Any]] = {
    "puts other things": (lambda: changing, (X, [X + 1]), None),
    "larger sizes only": (lambda: lambda x: x[-2:] + torch.ones(2, 4), (X,), ({0: Dim("N", min=0, max=9)},)),
    "irc does not check": (guarded, (), None),
}


@pytest.mark.parametrize("read", [irc.compile, irc.from_torch])
@pytest.mark.parametrize("message", WARNED)
def test_warnings_name_the_line_of_the_caller(message: str, read: Callable[..., Any]) -> None:
    program, inputs, shapes = WARNED[message]
    with pytest.warns(UserWarning, match=message) as caught:
        read(program(), inputs, dynamic_shapes=shapes)
    assert {each.filename for each in caught if message in str(each.message)} == {__file__}


# -- what threads see of it --------------------------------------------------------------------------------------


def test_other_threads_and_libraries_log_while_a_program_is_exported(caplog: pytest.LogCaptureFixture) -> None:
    def log(where: str) -> None:
        for name in ("torch.export.later", "torchserve", "server"):
            logging.getLogger(name).warning(where)

    def program(x: torch.Tensor) -> torch.Tensor:
        log("here")
        thread = threading.Thread(target=log, args=("there",))
        thread.start()
        thread.join()
        return x + 1

    irc.from_torch(program, (X,))
    seen = {(record.name, record.getMessage()) for record in caplog.records if record.getMessage() in ("here", "there")}
    assert seen == {("torchserve", "here"), ("server", "here"), *((each, "there") for each in
                    ("torch.export.later", "torchserve", "server"))}  # fmt: skip
    caplog.clear()
    log("after")
    assert len(caplog.records) == 3


def test_threads_leave_the_filters_of_warnings_and_logs_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    """The one that begins first ends first."""
    before = list(warnings.filters), caplog.handler.filters[:], logging.root.manager.disable
    inside, entered, leave = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with quiet(), unlogged():
            inside.set()
            leave.wait(60)

    def second() -> None:
        inside.wait(60)
        with quiet(), unlogged():
            entered.set()

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    assert inside.wait(60) and not entered.wait(0.2)
    leave.set()
    for thread in threads:
        thread.join()
    assert entered.is_set()
    assert before == (list(warnings.filters), caplog.handler.filters, logging.root.manager.disable)


# -- for which sizes ---------------------------------------------------------------------------------------------

SLICED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "two dropped": lambda x: x[2:], "one dropped": lambda x: x[1:], "last dropped": lambda x: x[:-1],
    "columns": lambda x: x.T[:, 1:] * 2, "difference": lambda x: x.diff(dim=0),
    "turned": lambda x: torch.cat([x[2:], x[:2]]), "shifted": lambda x: nn.functional.pad(x[:-1], (0, 0, 1, 0)),
    "flattened": lambda x: x[1:].reshape(-1),
    "reduced": lambda x: x[1:].sum(0),
}  # fmt: skip
SHAPES: dict[str, Any] = {"name": "N", "dim": Dim("N"), "hint": Dim.DYNAMIC}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SLICED)
def test_slices_are_exported_for_all_sizes(name: str, shape: str) -> None:
    """PyTorch fails at some of them where it assumes that sizes are 2 or more, or guards that the slice is not 1."""
    program = SLICED[name]
    module = irc.from_torch(program, (X,), dynamic_shapes={"x": {0: SHAPES[shape]}})
    for size in (0, 1, 2, 3, 4, 9):
        x = torch.randn(size, 4)
        assert_like([torch.from_numpy(irc.run(module, {"x": x.numpy()}).outputs.popitem()[1])], [program(x)])


def test_slices_whose_extents_pytorch_cannot_compare() -> None:
    """Whose two parts have the same extent for all sizes, which PyTorch cannot say."""

    def program(x: torch.Tensor) -> torch.Tensor:
        return x[3:] + x[:-3]

    compiled = irc.compile(program, (X,), dynamic_shapes={"x": {0: "N"}})
    for size in (0, 1, 2, 3, 4, 9):
        x = torch.randn(size, 4)
        torch.testing.assert_close(compiled(x), program(x))


@pytest.mark.parametrize("program", [lambda x: x[1:].squeeze(0), lambda x: x[1:].squeeze() * 2,
                                     lambda x: x[-2:].squeeze((0, 1))])  # fmt: skip
def test_ranks_that_a_size_decides_are_those_of_the_sizes_that_are_taken(program: Any) -> None:
    """Where PyTorch does not assume that sizes are 2 or more, it keeps what is squeezed without a guard."""
    module = irc.from_torch(program, (X,), dynamic_shapes={"x": {0: "N"}})
    for size in (0, 1, 2, 3, 9):
        x = torch.randn(size, 4)
        try:
            outputs = irc.run(module, {"x": x.numpy()}).outputs
        except IrcError as error:
            assert error.code in ("run.dim_range", "run.assert") and size < 3
        else:
            assert_like([torch.from_numpy(outputs.popitem()[1])], [program(x)])


def of_one_row(x: torch.Tensor) -> torch.Tensor:
    return x * 7 if x.shape[0] == 1 else x + 1


def of_any_row(x: torch.Tensor) -> torch.Tensor:
    return x.amax(0) if x.shape[0] else x.new_zeros(x.shape[1])


def of_rows_of_its_own(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    while y.shape[0] < 2:
        y = torch.cat([y, y, x + 1])
    return y


# Programs, with the sizes for which they take another branch than for larger ones.
BRANCHING: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, ...]]] = {
    "one row": (of_one_row, (1,)), "any row": (of_any_row, (0,)), "rows of its own": (of_rows_of_its_own, (0, 1)),
    "elements": (lambda x: x * 7 if 1 < x.numel() < 8 else x + 1, (1,)),
    "product": (lambda x: x + 1 if x.shape[0] * x.shape[1] != 4 else x * 7, (1,)),
    "rounded": (lambda x: x[: max(x.shape[0] // 2, 1)] * 1, (0, 1)),
    "greater": (lambda x: x.repeat(max(1, x.shape[0]), 1), (0,)),
    "not one": (lambda x: x * (1 if not x.shape[0] != 1 else 7), (1,)), "alike": (lambda x: x * len(x.shape), ()),
    "above": (lambda x: x + 1 if x.shape[0] > 3 else x * 7, (0, 1, 2, 3)),
    "same": (lambda x: x + 1 if x.shape[0] == x.T.shape[1] else x * 7, ()),
    "half": (lambda x: x + 1 if x.shape[0] * 0.5 >= 1 else x * 7, (0, 1)),
    "floats": (lambda x: x + 1 if x.shape[0] > x.shape[0] * 0.5 else x * 7, (0,)),
}  # fmt: skip


@pytest.mark.parametrize("name", BRANCHING)
def test_no_size_takes_the_branch_of_others(name: str) -> None:
    """PyTorch decides `if rows == 1` by its assumption that sizes are 2 or more, and states no guard."""
    program, others = BRANCHING[name]
    compiled = irc.compile(program, (X,), dynamic_shapes={"x": {0: "N"}})
    for size in range(10):
        x = torch.randn(size, 4)
        try:
            actual = compiled(x)
        except IrcError as error:
            assert error.code in ("run.dim_range", "run.assert") and size <= max(others, default=-1)
        else:
            torch.testing.assert_close(actual, program(x))


def test_branches_of_libraries_choose_between_ways_to_compute_the_same() -> None:
    """scaled_dot_product_attention of a decoder is causal where it has more than one query."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                      num_attention_heads=2, use_cache=False)  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    tokens = torch.randint(11, (2, 5))
    compiled = irc.compile(model, kwargs={"input_ids": tokens}, dynamic_shapes={"input_ids": {0: "B", 1: "S"}})
    for shape in ((2, 5), (1, 1), (3, 1), (1, 4)):
        given = torch.randint(11, shape)
        torch.testing.assert_close(compiled(input_ids=given).logits, model(input_ids=given).logits, atol=1e-5, rtol=0)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The programs that PyTorch is asked to export."""
    exports, export = list[Any](), torch.export.export

    def counted(*args: Any, **options: Any) -> Any:
        exports.append(args)
        return export(*args, **options)

    monkeypatch.setattr("torch.export.export", counted)
    return exports


def test_a_program_is_exported_once_where_no_size_is_excluded(exports: list[Any]) -> None:
    irc.from_torch(lambda x: (x @ x.T).softmax(1), (X,), dynamic_shapes={"x": {0: "N"}})
    assert len(exports) == 1
    irc.from_torch(SLICED["two dropped"], (X,))
    assert len(exports) == 2


@pytest.mark.parametrize(("program", "count"), [(lambda x: x * 2, 1), (lambda x: x[-2:] * 2, 2)])
def test_sizes_are_examined_once_for_each_export(program: Any, count: int, exports: list[Any],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    examined, least = list[Any](), exporting.least_right_sizes

    def counted(program: Any) -> Any:
        examined.append(program)
        return least(program)

    monkeypatch.setattr(exporting, "least_right_sizes", counted)
    irc.from_torch(program, (X,), dynamic_shapes={"x": {0: Dim("N", min=0, max=64)}})
    assert len(examined) == len(exports) == count


def raising(x: torch.Tensor) -> torch.Tensor:
    assert x.dim() == 3
    return x


FAILING: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Any]] = {
    "branch on data": (lambda x: x * 2 if x.sum() > 0 else x, {0: "N"}),
    "size of data": (lambda x: x * torch.ones(int(x.sum())), {0: "N"}),
    "assertion": (raising, {0: "N"}),
    "no size of a result": (lambda x: nn.functional.fractional_max_pool2d(x, 2), {0: "N"}),
    "operands": (lambda x: x @ torch.ones(5, 5), {0: "N"}),
    "no such axis": (lambda x: x * 2, {5: "N"}),
    "no dim": (lambda x: x * 2, {0: 2.5}),
    "range": (lambda x: x * 2, {0: Dim("N", min=8)}),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_fails_for_all_sizes_is_exported_once(name: str, exports: list[Any]) -> None:
    program, shape = FAILING[name]
    with pytest.raises(IrcError, match=r"torch\.export"):
        irc.from_torch(program, (X,), dynamic_shapes={"x": shape})
    assert len(exports) == 1


@pytest.mark.parametrize("setting", [True, False])
def test_a_users_own_setting_of_small_sizes_holds(setting: bool) -> None:
    seen = set[bool]()

    def program(x: torch.Tensor) -> torch.Tensor:
        seen.add(symbolic_shapes_config.backed_size_oblivious)
        return x * 2

    with symbolic_shapes_config.patch(backed_size_oblivious=setting):
        for shapes in (None, {"x": {0: "N"}}):
            irc.from_torch(program, (X,), dynamic_shapes=shapes)
        assert symbolic_shapes_config.backed_size_oblivious is setting
    assert seen == {setting}


@pytest.mark.parametrize("program", [lambda x: x.squeeze(0), lambda x: (x * 2).squeeze(), lambda x: x.squeeze((0, 1))])
def test_a_dim_that_is_squeezed_at_1_is_2_or_more(program: Any) -> None:
    compiled = irc.compile(program, (torch.randn(3, 4),), dynamic_shapes=({0: "N"},))
    for rows in (2, 5):
        x = torch.randn(rows, 4)
        torch.testing.assert_close(compiled(x), program(x))
    with pytest.raises(IrcError, match=r"run\.dim_range"):
        compiled(torch.randn(1, 4))


def test_dims_that_are_kept_in_any_case_are_squeezed() -> None:
    def program(x: torch.Tensor) -> Any:
        return x.unsqueeze(1).squeeze(1), x.sum(1, keepdim=True).squeeze(-1), x.sum().squeeze(0)

    compiled = irc.compile(program, (torch.randn(3, 4),), dynamic_shapes=({0: "N"},))
    for rows in (0, 1, 2, 5):
        x = torch.randn(rows, 4)
        torch.testing.assert_close(compiled(x), program(x))
