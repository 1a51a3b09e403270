"""PyTorch programs become modules: signatures, names, places, constants, symbolic sizes, and what cannot be read."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

import irc
from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver.text_files import load_text, save_text
from irc.frontends.torch.importer import TABLE, constant
from irc.module import Module
from irc.ops import aten
from tests.architectures import define_nms
from tests.command_line import irc_here, irc_process
from tests.models import relative_error


def check(module: Module, inputs: dict[str, torch.Tensor], results: Any, backends: tuple[str | None, ...] = (None,),
          tolerance: float = 1e-5) -> None:
    """The module gives what PyTorch gave, in the order of its outputs."""
    expected = [leaf for leaf in torch.utils._pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]
    for backend in backends:
        outputs = irc.run(module, {name: x.numpy() for name, x in inputs.items()}, backend=backend).outputs
        assert len(outputs) == len(expected)
        for actual, reference in zip(outputs.values(), expected, strict=True):
            assert str(actual.dtype) == str(reference.dtype).removeprefix("torch.") and actual.shape == reference.shape
            assert relative_error(actual, reference.detach().numpy()) <= tolerance


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.up = nn.Linear(12, 20)
        self.down = nn.Linear(20, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def test_a_block_on_every_road(tmp_path: Path) -> None:
    torch.manual_seed(0)
    block = Block().eval()
    x = torch.randn(3, 5, 12)
    module = irc.from_torch(block, (torch.randn(2, 7, 12),), {"x": {0: Dim("B"), 1: Dim("S", min=2, max=64)}})
    function = module.main
    assert [(s.name, s.low, s.high) for s in function.symbols.values()] == [("B", 0, 10**9), ("S", 2, 64)]
    assert str(function.find("x").type) == "f32[B, S, 12]"
    assert {op.name for op in function.block} == {
        "const", "layer_norm", "transpose", "linear", "add", "gelu", "return"}
    save_text(module, tmp_path / "block.irc")
    assert load_text(tmp_path / "block.irc") == module
    check(module, {"x": x}, block(x), (None, "onnx", "triton"))


def test_names_and_places() -> None:
    module = irc.from_torch(Block(), (torch.randn(2, 12),))
    values = {value.name: value for op in module.main.block for value in op.results}
    assert values["norm"].operation.name == "layer_norm"  # the last value of a module without modules inside
    assert values["up.weight"].operation.attributes["value"].name == "up.weight"
    lines = Path(__file__).read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "return x +" in text)
    where = values["norm"].operation.location
    assert (where.file, where.line, where.name) == ("tests/test_torch_frontend.py", line, "norm")
    assert "/" not in str(module).replace("tests/test_torch_frontend.py", "").replace("torch/nn", "")


def test_constants_share_memory_and_are_held_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(ids))

    model = Tied()
    ids = torch.randint(0, 10, (2, 3))
    module = irc.from_torch(model, (ids,))
    (stored,) = [op.attributes["value"] for op in module.walk() if op.name == "const"]
    check(module, {"ids": ids}, model(ids))
    array = stored.array()
    with torch.no_grad():
        model.embed.weight.fill_(2.0)
    assert (array == 2.0).all()
    with pytest.raises(IrcError, match=r"weights\.changed"):
        stored.array()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.bool,
                                   torch.int8, torch.uint16, torch.complex64])  # fmt: skip
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_constants_of_every_type(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    data = (torch.rand(shape) * 4).to(dtype)
    stored = constant(data, "w")
    assert stored.shape == shape
    wide = data.to(torch.complex64 if dtype.is_complex else torch.float32).numpy()
    assert (stored.array().astype(wide.dtype) == wide).all()


def test_trees_of_inputs_and_outputs() -> None:
    def function(x: torch.Tensor, *, state: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {"sum": x + state["a"], "parts": [state["b"] * 2, (x,)]}

    inputs = {"x": torch.randn(2, 3), "state": {"a": torch.randn(3), "b": torch.randn(4)}}
    module = irc.from_torch(function, inputs)
    assert [argument.name for argument in module.main.arguments] == ["x", "state_a", "state_b"]
    given = {"x": inputs["x"], "state_a": inputs["state"]["a"], "state_b": inputs["state"]["b"]}
    check(module, given, function(**inputs))


def test_what_a_program_writes_is_an_input_and_a_further_result() -> None:
    torch.manual_seed(1)
    model = nn.BatchNorm1d(4).train()
    x = torch.randn(6, 4)
    module = irc.from_torch(model, (x,))
    names = [argument.name for argument in module.main.arguments]
    assert names == ["running_mean", "running_var", "num_batches_tracked", "input"]
    assert module.main.output_names[1:] == tuple(f"{name}.updated" for name in names[:3])
    given = {"running_mean": torch.zeros(4), "running_var": torch.ones(4),
             "num_batches_tracked": torch.tensor(0), "input": x}
    expected = model(x)
    check(module, given, [expected, model.running_mean, model.running_var, model.num_batches_tracked])


def test_sizes_as_data() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = x.shape[0]
        return x.reshape(rows // 2, 2, -1) + rows, torch.arange(rows) * 2, x[: rows // 2, 1:-1], x.mean() * (rows / 2)

    half = Dim("half", min=2, max=32)
    module = irc.from_torch(function, (torch.randn(8, 5),), {"x": {0: 2 * half}})
    x = torch.randn(12, 5)
    check(module, {"x": x}, function(x), (None, "onnx"))


def test_numbers_that_a_run_computes() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count = (x > 0).sum().item()
        torch._check(count <= 20)
        return torch.zeros(count, 3) + x.amax().item(), x

    module = irc.from_torch(function, (torch.randn(4, 5),))
    (symbol,) = module.main.defined_symbols.values()
    assert (symbol.low, symbol.high) == (0, 20)
    x = torch.randn(4, 5)
    check(module, {"x": x}, function(x), (None, "onnx"))


def test_as_many_as_are_true() -> None:
    """Results whose sizes the data says: a symbol each, within what torch.export knows of it."""

    def selects(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.nonzero(x > y), x[x > 0] * 2, torch.masked_select(y, x[:, :1] > 0), x[x[:, 0] > 0], y[:, y[0] > 0]

    def writes(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = x.clone()
        z[x > 0.5] = y[x > 0.5] - 1
        return z, x.masked_scatter(x > 0, torch.arange(100.0)), torch.where(x > 0)[1]

    rows = torch.export.Dim("rows", min=2, max=9)
    for function in (selects, writes):
        example = torch.randn(5, 6), torch.randn(5, 6)
        module = irc.from_torch(function, example, dynamic_shapes=({0: rows}, {0: rows}))
        assert "assert" not in {operation.name for operation in module.walk()}
        for x in (torch.randn(7, 6), torch.ones(2, 6), -torch.rand(3, 6), torch.full((4, 6), torch.nan)):
            inputs = {"x": x, "y": torch.randn(x.shape)}
            check(module, inputs, function(**inputs), (None, "onnx", "triton"))


def test_graph_modules_and_exported_programs() -> None:
    block = Block().eval()
    x = torch.randn(2, 12)
    traced = torch.fx.symbolic_trace(block)
    check(irc.from_torch(traced, (x,)), {"x": x}, block(x))
    program = torch.export.export(block, (x,))
    module = irc.from_torch(program)
    assert module.main.find("up.weight")
    check(module, {"x": x}, block(x))


def test_scalars_are_as_exact_as_in_pytorch() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return (x * 0.1 + 1.1) / 0.3

    x = torch.linspace(-4, 4, 64).to(torch.float16)
    module = irc.from_torch(function, (x,))
    actual = next(iter(interpreter.run(module, {"x": x.numpy()}).values()))
    assert (actual == function(x).numpy()).mean() == 1.0


@pytest.mark.parametrize("name", ["atan2", "copysign"])
def test_signs_and_angles_at_the_edges(name: str) -> None:
    points = torch.tensor([0.0, -0.0, 1.0, -1.0, 3.0, -2.5, math.inf, -math.inf, math.nan, 1e-30, -1e38])
    y, x = (part.reshape(-1).contiguous() for part in torch.meshgrid(points, points, indexing="ij"))
    function = getattr(torch, name)
    module = irc.from_torch(function, (y, x))
    expected = function(y, x).numpy()
    for backend in (None, "onnx", "triton"):
        (actual,) = irc.run(module, {"args_0": y.numpy(), "args_1": x.numpy()}, backend=backend).outputs.values()
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(actual)[number], np.signbit(expected)[number])


NAN, NUMBERS = math.nan, torch.tensor([[0.0, -3.0, math.nan], [2.0, 1.0, 9.0]])
EDGES = {
    "searchsorted": (lambda row, x: torch.searchsorted(row, x), torch.tensor([-1.0, 0.0, 0.0, 2.0, NAN, NAN]), NUMBERS),
    "right": (lambda row, x: torch.searchsorted(row, x, right=True), torch.tensor([-1.0, 0.0, 2.0, 7.0]), NUMBERS),
    "cdist of empty tensors": (lambda x, y: torch.cdist(x, y, p=math.inf), torch.ones(2, 0), torch.ones(3, 0)),
    "cdist of NaN": (lambda x, y: torch.cdist(x, y, p=0.0), torch.tensor([[NAN, 1.0]]), torch.tensor([[0.0, 1.0]])),
    "cummax of bool": (lambda x: torch.cummax(x, 1), torch.tensor([[False, True, False], [True, False, True]])),
    "median of NaN": (lambda x: torch.median(x, 1), torch.tensor([[3.0, NAN, 1.0, NAN], [4.0, 1.0, 3.0, 2.0]])),
}


@pytest.mark.parametrize("name", EDGES)
def test_rows_at_their_edges(name: str) -> None:
    function, *inputs = EDGES[name]
    module = irc.from_torch(function, tuple(inputs))
    given = dict(zip([argument.name for argument in module.main.arguments], inputs, strict=True))
    for backend in (None, "onnx"):
        outputs = irc.run(module, {key: x.numpy() for key, x in given.items()}, backend=backend).outputs
        for actual, expected in zip(outputs.values(), torch.utils._pytree.tree_leaves(function(*inputs)), strict=True):
            np.testing.assert_array_equal(actual, expected.numpy())


def test_all_that_cannot_be_read_is_listed_at_once() -> None:
    class Special(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = torch._standard_gamma(x) + torch._standard_gamma(torch.cos(x))
            drops = nn.functional.scaled_dot_product_attention(x[None], x[None], x[None], None, 0.5)
            return torch._sample_dirichlet(y), drops

    with pytest.raises(IrcError) as caught:
        irc.from_torch(Special(), (torch.randn(3, 3),))
    (finding,) = caught.value.diagnostics
    assert finding.code == "torch.unsupported"
    said = "\n".join(finding.notes)
    assert "2 of _standard_gamma.default (irc has no row for it): tests/test_torch_frontend.py:" in said
    assert "1 of _sample_dirichlet.default" in said and "1 of scaled_dot_product_attention.default (" in said
    assert "instead of scaled_dot_product_attention: module.eval()" in said and "torch.compile" in (finding.help or "")


def test_pytorch_says_why_it_cannot_export() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x

    with pytest.raises(IrcError) as caught:
        irc.from_torch(function, (torch.randn(3),))
    assert caught.value.diagnostics[0].code == "torch.export" and caught.value.diagnostics[0].notes
    with pytest.raises(IrcError, match=r"a int is not a PyTorch program"):
        irc.from_torch(3, ())


def test_torch_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find_spec(name, *a))
    with pytest.raises(IrcError) as caught:
        irc.from_torch(Block(), (torch.randn(2, 12),))
    assert caught.value.diagnostics[0].code == "install.missing_extra"
    assert "irc-compiler[torch]" in (caught.value.diagnostics[0].help or "")


MODEL = '''
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 3)

    def forward(self, x):
        return torch.softmax(self.fc(x), -1)

def net():
    return Net(), (torch.ones(2, 4),), {"x": {0: torch.export.Dim("N")}}

bare = Net()
program = torch.export.export(Net(), (torch.ones(2, 4),))
number = 3
'''


def test_a_model_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "gpt.py").write_text(MODEL)
    done = irc_process("print", "gpt.py:net", folder=tmp_path)
    assert done.code == 0 and "func @main<N>(%x: f32[N, 4])" in done.out and '"gpt.py":10' in done.out
    # On a slow machine a note says how long that took.
    assert "module @net" in done.out and all(line.startswith("note: reading") for line in done.err.splitlines())
    assert irc_here("print", "gpt.py:program", folder=tmp_path).code == 0
    done = irc_here("print", "gpt.py:bare", folder=tmp_path)
    assert done.code == 3 and "error[torch.export]" in done.err and "Traceback" not in done.err
    done = irc_here("print", "gpt.py:number", folder=tmp_path)
    assert done.code == 3 and "error[file.format]" in done.err
    done = irc_here("run", "gpt.py:net", "--dim", "N=3", "--backend", "onnx", folder=tmp_path)
    assert done.code == 0, done.err


DEFINED_BY = {"prims": "torch._inductor.inductor_prims",
              "quantized_decomposed": "torch.ao.quantization.fx._decomposed",
              "transformers": "transformers.integrations.moe"}  # fmt: skip
FIRST_WITH = {"transformers::grouped_mm_fallback_backward.default": (5, 23)}  # the version of that package


@pytest.mark.parametrize("name", sorted(TABLE.rows))
def test_rows_take_what_their_schemas_give(name: str) -> None:
    """Each overload exists in some version, and its row has a parameter for every argument of the schema."""
    define_nms()
    namespace, _, qualified = name.rpartition("::")
    if namespace in DEFINED_BY:
        package = pytest.importorskip(DEFINED_BY[namespace].partition(".")[0])
        pytest.importorskip(DEFINED_BY[namespace])
        if tuple(map(int, package.__version__.split(".")[:2])) < FIRST_WITH.get(name, (0, 0)):
            pytest.skip(f"{package.__name__} {package.__version__} does not have {name} yet")
    packet, _, overload = qualified.partition(".")
    operations = getattr(torch.ops, namespace or "aten")
    if packet in aten.REMOVED and not hasattr(operations, packet):
        pytest.skip(f"PyTorch {torch.__version__} no longer has {name}")
    if not hasattr(operations, packet) or overload not in getattr(operations, packet).overloads():
        pytest.fail(f"PyTorch has no {name}")
    schema = getattr(getattr(operations, packet), overload)._schema
    parameters = inspect.signature(TABLE.rows[name].function).parameters.values()
    takes_any = {each.kind for each in parameters}
    positional = [each for each in schema.arguments if not each.kwarg_only]
    room = sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)
    keywords = {each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY}
    assert inspect.Parameter.VAR_POSITIONAL in takes_any or room >= len(positional)
    for each in schema.arguments:
        if each.kwarg_only:
            assert each.name in keywords or inspect.Parameter.VAR_KEYWORD in takes_any, each.name


class Recurrent(nn.Module):
    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(5, 4, **options)

    def forward(self, x: torch.Tensor, first: Any = None) -> Any:
        return self.layer(x, first)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"num_layers": 2, "bidirectional": True, "batch_first": True}]
)
def test_recurrent_layers_stay_whole(kind: str, options: dict[str, Any]) -> None:
    """One operation a layer, whatever the length; with and without first states, which are distinguished by name."""
    torch.manual_seed(0)
    if kind == "RNN" and not options:
        options = {"nonlinearity": "relu"}
    network = Recurrent(kind, options).eval()
    layers, each = options.get("num_layers", 1), 2 if options.get("bidirectional") else 1
    batch = 0 if options.get("batch_first") else 1
    axes: dict[int, Any] = {batch: Dim("B", min=1, max=64), 1 - batch: Dim("T", min=1, max=64)}
    module = irc.from_torch(network, (torch.randn(6, 6, 5),), dynamic_shapes={"x": axes})
    assert [op.name for op in module.walk() if op.name in ("lstm", "gru", "rnn")] == [kind.lower()] * layers
    for shape in ((1, 3, 5), (7, 2, 5)):
        x = torch.randn(shape)
        check(module, {"x": x}, network(x), (None, "onnx", "triton"))
    first: Any = torch.randn(layers * each, 3, 4)
    first = (first, torch.randn(layers * each, 3, 4)) if kind == "LSTM" else first
    x = torch.randn(3, 7, 5) if batch == 0 else torch.randn(7, 3, 5)
    module = irc.from_torch(network, (x, first))
    given = torch.utils._pytree.tree_leaves((x, first))
    named = {argument.name: tensor for argument, tensor in zip(module.main.arguments, given, strict=True)}
    check(module, named, network(x, first), (None, "onnx", "triton"))


@pytest.mark.skipif(torch.__version__ < "2.12", reason="of a projection PyTorch 2.11's steps give states of 4 axes")
def test_recurrent_layers_that_are_written_out() -> None:
    """With a projection, and with dropout, PyTorch's own steps are read."""
    torch.manual_seed(0)
    network, x = Recurrent("LSTM", {"proj_size": 2}).eval(), torch.randn(3, 2, 5)
    module = irc.from_torch(network, (x,))
    assert not [op for op in module.walk() if op.name == "lstm"]
    check(module, {"x": x}, network(x))
    program = torch.export.export(Recurrent("GRU", {}).eval(), (x,))  # by someone else: step by step
    assert not [op for op in irc.from_torch(program).walk() if op.name == "gru"]


def test_a_tensor_of_numpy_is_not_changed() -> None:
    """Arrays that constants share stay writable for their owner."""
    data = torch.zeros(3)
    constant(data, "w").array()
    data.numpy()[0] = 1.0
    assert np.isclose(data[0].item(), 1.0)


def test_a_pooled_value_that_is_joined_with_itself() -> None:
    """Axis 1 of a `cat` is no reading of the pooling's second result."""

    def joined(x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.max_pool2d(x, 3, 1, 1)
        return torch.cat([x, pooled], 1) + pooled.sum(1, keepdim=True)

    x = torch.randn(2, 3, 5, 7)
    check(irc.from_torch(joined, (x,)), {"x": x}, joined(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rms_norm_adds_the_epsilon_of_the_type_that_it_computes_in(dtype: torch.dtype) -> None:
    def normalized(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(x, [2])

    x = torch.tensor([[1e-3, 2e-3], [1e-2, 0]], dtype=dtype)
    tolerance = 2e-3 if dtype is torch.float16 else 1e-6
    check(irc.from_torch(normalized, (x,)), {"x": x}, normalized(x), tolerance=tolerance)


def test_an_axis_that_export_takes_for_1_keeps_its_extent() -> None:
    def joined(x: torch.Tensor) -> torch.Tensor:
        part = x[:, 1:2]
        return torch.cat([part.amax(0, keepdim=True).expand_as(part[:1]), part], 0)

    module = irc.from_torch(joined, (torch.randn(3, 4),), dynamic_shapes=({1: torch.export.Dim("n", min=0, max=9)},))
    for size in (4, 2, 1):
        x = torch.randn(3, size)
        check(module, {"x": x}, joined(x))


SLICES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "two": lambda x: x[-2:], "steps": lambda x: x[-2:100:2], "one": lambda x: x[1:2],
    "first": lambda x: x[:2],
}  # fmt: skip
OF_ITS_EXTENT: dict[str, Callable[[torch.Tensor], Any]] = {
    "expand_as": lambda part: torch.ones(1, 2).expand_as(part), "new_full": lambda part: part.new_full(part.shape, 2.0),
    "arange": lambda part: torch.arange(part.shape[0]), "ones": lambda part: torch.ones(2, part.shape[0]),
    "own": lambda part: part.expand_as(part), "repeat": lambda part: part.repeat_interleave(2, 0),
    "view_as": lambda part: part.exp().view_as(part),
}  # fmt: skip


@pytest.mark.parametrize("use", OF_ITS_EXTENT)
@pytest.mark.parametrize("name", SLICES)
def test_extents_of_slices_are_right_for_0_and_1(name: str, use: str) -> None:
    """Whose sizes PyTorch takes for 2 or more as it exports."""

    def function(x: torch.Tensor) -> Any:
        return OF_ITS_EXTENT[use](SLICES[name](x))

    rows = torch.export.Dim("rows", min=0, max=9)
    module = irc.from_torch(function, (torch.randn(3, 2),), dynamic_shapes=({0: rows},))
    for size in (4, 2, 1, 0):
        x = torch.randn(size, 2)
        check(module, {"x": x}, function(x))


def test_sizes_for_which_pytorch_exports_no_right_program_are_rejected() -> None:
    """PyTorch takes the slice to have two rows, and rejects the program where it is not to assume that."""
    rows = torch.export.Dim("rows", min=0, max=9)
    with pytest.warns(UserWarning, match="the least size is 2 for dim 0 of `x`"):
        module = irc.from_torch(lambda x: x[-2:] + torch.ones(2, 2), (torch.randn(3, 2),), dynamic_shapes=({0: rows},))
    for size in (4, 2):
        x = torch.randn(size, 2)
        check(module, {"x": x}, x[-2:] + 1)
    for size in (1, 0):
        with pytest.raises(IrcError, match=f"rows is {size}"):
            irc.run(module, {"x": np.zeros((size, 2), np.float32)})


def test_no_more_sizes_are_rejected_than_those_that_are_wrong() -> None:
    """Where PyTorch does not assume that sizes are 2 or more, it states that of each dim of what torch.cond takes."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda a: a + 1, lambda a: a * 2, (x,)) + x[-2:].amax(0)

    dims = {0: torch.export.Dim("rows", min=0, max=9), 1: torch.export.Dim("columns", min=0, max=9)}
    with pytest.warns(UserWarning, match="the least size is 2 for dim 0 of `x`"):
        module = irc.from_torch(function, (torch.randn(3, 4),), dynamic_shapes=(dims,))
    for columns in (3, 1, 0):
        x = torch.randn(2, columns)
        check(module, {"x": x}, (x + 1 if x.sum() > 0 else x * 2) + x.amax(0))


def test_a_rank_that_depends_on_a_size_is_that_of_larger_sizes() -> None:
    """The diagonal of rows x 2 above the main one has one element, or none for no rows; squeeze keeps an empty axis."""
    rows = torch.export.Dim("rows", min=0, max=9)
    with pytest.warns(UserWarning, match="the least size is 1 for dim 0 of `x`"):
        module = irc.from_torch(lambda x: x.diagonal(1).squeeze(0), (torch.randn(3, 2),), dynamic_shapes=({0: rows},))
    for size in (4, 1):
        x = torch.randn(size, 2)
        check(module, {"x": x}, x.diagonal(1).squeeze(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [torch.log10, torch.log2])
def test_logarithms_of_subnormals(function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> None:
    """Whose rounded powers of 10 they may be, far from the power itself; whole numbers elsewhere."""
    step = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    normal = torch.tensor([1e-30, 1e-3, 8.0, 1e3, 1e10], dtype=dtype)
    x = torch.cat([torch.arange(1, 300, 7, dtype=dtype) * step, normal])
    module = irc.from_torch(lambda x: function(x), (x,))
    check(module, {"x": x}, function(x), (None, "onnx"), tolerance=2e-7)


@pytest.mark.parametrize("x", [torch.tensor(-2.0), torch.tensor(3.0), -torch.ones(4), -torch.ones(2, 1)])
def test_a_scalar_takes_the_only_slope_of_prelu(x: torch.Tensor) -> None:
    def constant(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.prelu(x, torch.tensor([0.25]))

    def given(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return nn.functional.prelu(x, weight)

    weight = torch.tensor([-0.5])
    check(irc.from_torch(constant, (x,)), {"x": x}, constant(x), (None, "onnx"))
    check(irc.from_torch(given, (x, weight)), {"x": x, "weight": weight}, given(x, weight), (None, "onnx"))


def test_no_two_nodes_of_an_onnx_model_have_one_name() -> None:
    """The node that gives a value as a second result, beside those that are named after the value's place: ONNX Runtime
    rejects a model with two nodes of one name."""

    def twice(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        total = x.sum()
        return total.prod(), total

    given = torch.tensor([7.0], dtype=torch.bfloat16)
    product, total = irc.compile(twice, (given,), backend="onnx")(given)
    assert float(product) == float(total) == 7
