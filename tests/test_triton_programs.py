"""The Triton backend's host programs and artefacts: names, buffers, updates, folders, control flow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import irc
from irc import dtypes, interpreter, ops
from irc.backends.triton import PIPELINE, emit, peak_bytes
from irc.diagnostics import IrcError
from irc.dtypes import BF16
from irc.ir import Value
from irc.op import trace
from irc.verifier import verify
from tests import triton_harness as harness
from tests.triton_cases import Case, check, stretched_along_a_part_of_an_axis, tiled_softmax

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# -- the artefact ----------------------------------------------------------------------------------------------

def mixed(x: Value, w: Value, s: Value, b: Value) -> Value:
    """A host call between two kernels."""
    return ops.softmax(ops.matmul(ops.layer_norm(x, s, b), w), axis=-1)


MIXED = ("f32[B, 24]", "f32[24, 10]", "f32[24]", "f32[24]")


def fused_mixed() -> Any:
    from irc.backends.triton import PIPELINE, Target
    from irc.driver.pipelines import parse_pipeline
    from irc.op import trace
    from irc.pass_manager import PassContext, PassManager

    module = trace(mixed, *MIXED)
    PassManager(parse_pipeline(PIPELINE), PassContext(target=Target())).run(module)
    return module


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**inherited, **environment}, check=False
    )


# Elements that stand at several places of one axis; whether that is one kernel is for the legality rules to say.
def reduced_with_itself(x: Value) -> tuple[Value, Value]:
    """A sum over one element beside that element, which is 0: the guards of neither read are tested."""
    upper = ops.trilu(x, upper=True, k=1)
    norm = ops.reduce_l2(upper, axes=(0, 1), keep_dims=True)
    return norm, ops.concat(norm, upper, axis=0)


SPREAD = [
    Case("tile", lambda x: ops.tile(ops.softmax(x, axis=1), repeats=(1, 3)), ("f32[B, S]",)),
    Case("tiled_softmax", tiled_softmax, ("f32[B, S]",)),
    Case("stretched", stretched_along_a_part_of_an_axis, ("f32[B, S]", "f32[B, 5, S]")),
    Case("index_in_bf16", lambda x: ops.add(x, ops.iota(shape=(9,), axis=0, dtype=BF16)), ("bf16[9]",), tolerance=1e-2),
    Case("reduced_constant", reduced_with_itself, ("f32[1, 1]",)),
    Case("expand_rows", lambda x: ops.reshape(ops.expand(ops.softmax(x, axis=1), shape=(3, *x.shape)), shape=(
        3 * x.shape[0], x.shape[1])), ("f32[B, S]",)),
]


@pytest.mark.parametrize("case", SPREAD, ids=lambda case: case.name)
def test_what_is_spread_is_reduced_and_stored_once(case: Case, tmp_path: Path) -> None:
    run = harness.run(case.function, *case.types, folder=tmp_path / "model", sizes=case.sizes)
    for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
        assert harness.relative_error(actual, expected) < case.tolerance


NAMES = ["tl", "x_ptr", "launch", "host", "BLOCK_I", "lambda", "print", "a.b", "a_b", "net/a/b", "a/b", "v" * 200]


@pytest.mark.parametrize("result", ["tanh", "w" * 200])
def test_names_do_not_collide(result: str, tmp_path: Path) -> None:
    """Every value has a name that means something in the text around it, or that shortens to that of another."""

    def chain(*xs: Value) -> Value:
        x = xs[0]
        for name, y in zip(NAMES, xs, strict=True):
            x = ops.softmax(ops.add(x, y), axis=0, name=f"{name}:0")
        return ops.tanh(x, name=result)

    module = irc.trace(chain, *["f32[tl]"] * len(NAMES))
    for argument, name in zip(module.main.arguments, NAMES, strict=True):
        argument.name = name
    for fused in (irc.opt(module, PIPELINE), module):
        run = harness.run(fused, folder=tmp_path / "artefact", fuse=False)
        for actual, expected in zip(run.outputs.values(), run.expected.values(), strict=True):
            assert harness.relative_error(actual, expected) < 1e-6


def test_host_calls_stand_between_kernels(tmp_path: Path) -> None:
    run = harness.run(fused_mixed(), folder=tmp_path / "model", fuse=False, sizes={"B": 9})
    check(run, 1e-5)
    assert [launch.name for launch in run.launches] and run.program.host_calls == ["matmul"]
    assert len(run.launches) == 2


@pytest.mark.parametrize("size", [1, 2, 7])
def test_an_axis_against_itself_is_no_diagonal(size: int, tmp_path: Path) -> None:
    """Both dims of the result run over the axis of `x`, which is one axis of a kernel."""

    def program(x: Value) -> tuple[Value, Value]:
        scores = ops.softmax(x, axis=0)
        square = ops.add(ops.reshape(scores, shape=(size, 1)), x)
        return square, ops.mul(ops.reshape(ops.exp(x), shape=(1, size)), ops.reshape(x, shape=(size, 1)))

    for fuse in ("fuse", "fuse{policy=none}"):
        module = irc.opt(trace(program, f"f32[{size}]"), fuse)
        check(harness.run(module, folder=tmp_path / fuse[4:10], fuse=False), 1e-5)


def test_equal_layers_share_their_kernels(tmp_path: Path) -> None:
    """One source for kernels that differ in names alone; a number, a type or a shape makes another."""

    def program(x: Value, w: Value, b: Value, c: Value) -> tuple[Value, ...]:
        hidden = x
        for layer in range(3):
            hidden = ops.gelu(ops.add(ops.matmul(hidden, w), b if layer else c), name=f"layer.{layer}")
        half = ops.add(ops.matmul(hidden, w), 0.5, name="half")
        quarter = ops.add(ops.matmul(half, w), 0.25, name="quarter")
        return quarter, ops.add(ops.matmul(quarter, w), 0.5, name="half again")

    module = irc.opt(trace(program, "f32[B, 8]", "f32[8, 8]", "f32[8]", "f32[8]"), PIPELINE)
    run = harness.run(module, folder=tmp_path / "model", sizes={"B": 5}, fuse=False)
    check(run, 1e-5)
    assert [launched.source.name for launched in run.program.kernels] == ["layer_0", "half", "quarter"]
    assert list(run.program.launches.values()) == ["layer_0"] * 3 + ["half", "quarter", "half"]
    assert len(run.launches) == 6
    manifest = harness.load_artefact(tmp_path / "model").load().manifest
    assert [entry["launches"] for entry in manifest["kernels"]] == [3, 2, 1]


def test_buffers_serve_again(tmp_path: Path) -> None:
    """A launch writes where a dead buffer was, if only launches and products read that; the peak says what is left."""

    def program(x: Value, w: Value) -> Value:
        hidden = ops.exp(x, name="hidden")
        hidden = ops.tanh(ops.matmul(hidden, w, name="product"), name="again")
        return ops.neg(ops.matmul(hidden, w), name="result")

    module = irc.opt(trace(program, "f32[B, 8]", "f32[8, 8]"), PIPELINE)
    check(harness.run(module, folder=tmp_path / "a", sizes={"B": 3}, fuse=False), 1e-5)
    text = emit(module, tmp_path / "b").text
    assert "again = hidden  # whose memory" in text and "result = again  # whose memory" in text
    loaded = harness.load_artefact(tmp_path / "b").load()
    inputs = {"x": np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8), "w": np.eye(8, dtype=np.float32)}
    expected = -np.tanh(np.exp(inputs["x"]))
    for _ in range(2):
        np.testing.assert_allclose(harness.to_numpy(loaded.run(inputs)["result"]), expected, rtol=1e-6)
    (symbol,) = module.main.symbols.values()
    assert peak_bytes(module, {symbol: 5}) == 2 * 4 * 5 * 8
    assert loaded.manifest["memory"] == {"peak_bytes": 2 * 4 * 64 * 8, "sizes": {"B": 64}}


def test_a_buffer_that_a_call_may_return_does_not_serve_again(tmp_path: Path) -> None:
    """`sort` is no product, and a view lives on."""

    def program(x: Value) -> tuple[Value, Value]:
        first = ops.exp(x, name="first")
        order, _ = ops.sort(first, axis=0)
        second = ops.neg(order, name="second")
        return second, ops.transpose(ops.exp(second, name="third"), permutation=(1, 0))

    text = emit(irc.opt(trace(program, "f32[4, 4]"), PIPELINE), tmp_path / "a").text
    assert "whose memory" not in text


def updating(function: Callable[..., Any], *types: str, pipeline: str = PIPELINE) -> Any:
    """A program whose first result updates its first argument."""
    module = irc.opt(trace(function, *types), pipeline)
    module.main.updates = {0: module.main.arguments[0]}
    verify(module)
    return module


def cut(x: Value, first: int, last: int) -> Value:
    return ops.slice_(x, starts=(first, 0), stops=(last, 6), steps=(1, 1))


def turned(x: Value) -> Value:
    return ops.transpose(x, permutation=(1, 0))


def place(x: Value, depth: int) -> Value:
    """An index vector, some of whose elements are negative, that is computed of x."""
    numbers = ops.reshape(ops.slice_(x, starts=(0, 0), stops=(1, depth), steps=(1, 1)), shape=(1, depth))
    return ops.cast(ops.mul(ops.tanh(numbers), 6.0), to=dtypes.I64)


IN_PLACE: dict[str, tuple[Callable[..., Any], bool]] = {
    # by what the program is, and whether kernels may write the argument itself
    "pointwise": (lambda c, x: ops.add(ops.mul(c, 0.5), x), True),
    "not read": (lambda c, x: ops.exp(x), True),
    "read before": (lambda c, x: ops.exp(ops.matmul(c, x)), True),
    "part": (lambda c, x: ops.concat(ops.slice_(x, starts=(0, 0), stops=(6, 3), steps=(1, 1)),
                                     ops.slice_(c, starts=(0, 3), stops=(6, 6), steps=(1, 1)), axis=1), True),
    "rows": (lambda c, x: ops.softmax(ops.add(c, x), axis=-1), True),
    "columns": (lambda c, x: ops.softmax(ops.add(c, x), axis=0), True),
    "read by another output": (lambda c, x: (y := ops.exp(x), ops.add(c, y)), False),
    "read by both outputs": (lambda c, x: (y := ops.add(c, x), ops.mul(c, ops.tanh(y))), True),
    "held by several threads": (lambda c, x: (ops.mul(ops.reduce_max(c, axes=(1,), keep_dims=True), ops.exp(c)),
                                              ops.neg(x)), True),
    "read elsewhere": (lambda c, x: ops.add(ops.reverse(c, axes=(0,)), x), False),
    "transposed": (lambda c, x: ops.add(ops.transpose(c, permutation=(1, 0)), x), False),
    "shifted": (lambda c, x: ops.pad(ops.slice_(c, starts=(1, 0), stops=(6, 6), steps=(1, 1)), low=(0, 0),
                                     high=(1, 0)), False),
    "read later": (lambda c, x: (ops.exp(x), ops.matmul(c, ops.exp(x))), False),
    "given back": (lambda c, x: (ops.exp(x), c), False),
    "viewed": (lambda c, x: (ops.exp(x), ops.transpose(c, permutation=(1, 0))), False),
    "twice a result": (lambda c, x: (y := ops.exp(x), y), False),
    "itself turned": (lambda c, x: ops.transpose(c, permutation=(1, 0)), False),
    "of a product": (lambda c, x: ops.matmul(c, x), False),
    "selected": (lambda c, x: ops.select(ops.less(x, 0.0), ops.exp(x), c), True),
    "spliced": (lambda c, x: ops.concat(cut(c, 0, 2), cut(x, 0, 3), cut(c, 5, 6), axis=0), True),
    "one row": (lambda c, x: ops.scatter(c, place(x, 1), cut(x, 1, 2)), True),
    "one element": (lambda c, x: ops.scatter(c, place(x, 2), ops.reduce_sum(cut(x, 1, 2), axes=(1,))), True),
    "one column": (lambda c, x: turned(ops.scatter(turned(c), place(x, 1), cut(x, 1, 2))), True),
    "selected elsewhere": (lambda c, x: ops.select(ops.less(x, 0.0), x, turned(c)), False),
    "one for all": (lambda c, x: ops.expand(ops.reduce_max(c, axes=(0, 1), keep_dims=True), shape=(6, 6)), False),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_arguments_are_updated(name: str, tmp_path: Path) -> None:
    """The caller's tensor holds the new contents, written by the kernel itself where nothing else reads it."""
    function, in_place = IN_PLACE[name]
    module = updating(function, "f32[6, 6]", "f32[6, 6]")
    text = emit(module, tmp_path / "model").text
    assert ("# which it updates" in text) is in_place
    model = harness.load_artefact(tmp_path / "model").load()
    assert [entry["in_place"] for entry in model.signature["outputs"] if "updates" in entry] == [in_place]
    generator = np.random.default_rng(0)
    arrays = {value.name: generator.normal(size=(6, 6)).astype(np.float32) for value in module.main.arguments}
    expected = interpreter.run(module, arrays)
    (updated, *_), first = arrays, module.main.output_names[0]
    for layout in (lambda x: x.clone(), lambda x: x.t().contiguous().t()):
        given = {key: layout(torch.from_numpy(array)) for key, array in arrays.items()}
        outputs = model.run(given)
        for key, array in expected.items():
            assert harness.relative_error(harness.to_numpy(outputs[key]), array) < 1e-5
        assert harness.relative_error(given[updated].numpy(), expected[first]) < 1e-5
        assert outputs[first] is given[updated]
    kept = {key: array.copy() for key, array in arrays.items()}
    model.run(arrays)
    assert all(np.array_equal(arrays[key], kept[key]) for key in kept)  # arrays are only read


class Step(torch.nn.Module):
    """One position of a cache is written, and what all positions hold is summed."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.register_buffer("cache", torch.randn(2, 3, 200, 16))

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        if self.form == "index_put":
            self.cache[:, :, position] = x
        elif self.form == "index_copy":
            self.cache.index_copy_(2, position, x)
        elif self.form == "slice_scatter":
            self.cache[:, :, 5:6] = x
        else:
            here = (torch.arange(200) == position)[None, None, :, None]
            self.cache.copy_(torch.where(here, x, self.cache))
        return torch.matmul(self.cache, self.cache.transpose(2, 3))


@pytest.mark.parametrize("form", ["index_put", "index_copy", "slice_scatter", "where"])
def test_a_step_writes_its_position_of_a_cache_alone(form: str, tmp_path: Path) -> None:
    """Nothing else of the cache is read or written by the kernel, and the byte model says so."""
    step, x, position = Step(form), torch.randn(2, 3, 1, 16), torch.tensor([5])
    before = step.cache.clone()
    module = irc.opt(irc.from_torch(step, (x, position)), PIPELINE)
    inputs = {"cache": before.numpy().copy(), "x": x.numpy(), "position": position.numpy()}
    inputs = {value.name: inputs[value.name] for value in module.main.arguments}
    run = harness.run(module, folder=tmp_path / "a", inputs=inputs, fuse=False)
    result = step(x, position)
    np.testing.assert_allclose(run.outputs["cache.updated"], step.cache.numpy())
    np.testing.assert_allclose(next(iter(run.outputs.values())), result.numpy(), rtol=1e-4, atol=1e-4)
    (launch,) = run.launches
    assert launch.predicted is not None
    written = 4 * 2 * 3 * 16
    assert sum(each.bytes for each in launch.accesses if each.store) == written
    assert launch.counted <= launch.predicted.loaded_bytes and launch.predicted.distinct_bytes <= 2 * written + 8


def test_what_several_threads_hold_is_not_written_at_once(tmp_path: Path) -> None:
    """A value of each row beside reductions of rows: one thread might write it before another has read it."""
    def program(c: Value, x: Value) -> tuple[Value, Value]:
        new = ops.mul(c, 0.5)
        return new, ops.mul(ops.softmax(x, axis=-1), ops.reshape(new, shape=(300, 1)))

    module = updating(program, "f32[300]", "f32[300, 700]")
    assert len([each for each in module.main.block if each.name == "kernel"]) == 1
    assert "# which it updates" not in emit(module, tmp_path / "model").text


def test_inputs_that_share_memory_with_what_is_updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = updating(lambda c, x: ops.add(c, ops.reverse(x, axes=(0,))), "f32[6]", "f32[6]")
    emit(module, tmp_path / "model")
    artefact = harness.load_artefact(tmp_path / "model")
    both = torch.randn(12)
    with pytest.raises(artefact.ArtefactError, match="'c' and 'x' share memory, and the program updates 'c'"):
        artefact.load()(both[:6], both[3:9])
    program = artefact.load()
    program(both[:6], both[6:])
    rows = {str(index): row for index, row in enumerate(torch.randn(99, 6))}
    program.updates = dict.fromkeys(rows, "")
    monkeypatch.setattr(artefact.runtime, "overlap", pytest.fail)  # of an optimizer's thousands it would take seconds
    program._check_apart(rows)


def test_text_goes_to_externs(tmp_path: Path) -> None:
    text = """irc text 1
module @m {
  func @main(%s: string[2]) -> (length: i64[], t: string[2]) {
    %q = extern %s {domain = "", op_type = "SplitToSequence", version = 11, attributes = {axis = 0}}
         : opaque["sequence(string)"]
    %n = extern %q {domain = "", op_type = "SequenceLength", version = 11, attributes = {}} : i64[]
    return %n, %s
  }
}
"""
    from irc.parser import parse

    emit(parse(text), tmp_path / "model")
    outputs = harness.load_artefact(tmp_path / "model").load().run({"s": np.array(["a", "bc"])})
    assert int(outputs["length"]) == 2 and outputs["t"].tolist() == ["a", "bc"]


def test_windows_over_nothing(tmp_path: Path) -> None:
    windows = {"kind": "sum", "window": (2,), "strides": (2,), "dilations": (2,), "low": (1,), "high": (1,)}
    for size in (0, 1, 4):
        module = irc.opt(trace(lambda x: ops.window_reduce(x, **windows), f"f32[{size}]"), "legalize")
        check(harness.run(module, folder=tmp_path / str(size), fuse=False), 1e-6)


def test_a_row_that_is_read_again_is_not_written_at_once(tmp_path: Path) -> None:
    module = updating(lambda c: ops.softmax(c, axis=-1), "f32[300, 20000]")
    assert "# which it updates" not in emit(module, tmp_path / "model").text
    model = harness.load_artefact(tmp_path / "model").load()
    cache = torch.randn(300, 20000)
    expected = torch.softmax(cache, -1)
    model(cache)
    torch.testing.assert_close(cache, expected)


def test_arguments_that_are_exchanged(tmp_path: Path) -> None:
    module = trace(lambda a, b: (b, a), "f32[4]", "f32[4]")
    module.main.updates = dict(enumerate(module.main.arguments))
    module.main.result_names = ("a.updated", "b.updated")
    emit(module, tmp_path / "model")
    a, b = torch.arange(4.0), torch.ones(4)
    outputs = harness.load_artefact(tmp_path / "model").load()(a, b)
    assert a.tolist() == [1.0] * 4 and b.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert outputs["a.updated"] is a and outputs["b.updated"] is b


def test_updates_take_no_memory(tmp_path: Path) -> None:
    module = updating(lambda c, x: ops.add(c, x), "f32[6, 6]", "f32[6, 6]")
    assert peak_bytes(module, {}) == 0
    module.main.updates = {}
    assert peak_bytes(module, {}) == 6 * 6 * 4


def test_a_loop_that_counts_asks_nothing(tmp_path: Path) -> None:
    """How often it goes round is known from sizes, so that the host does not wait for the device."""
    from irc.parser import parse

    text = """irc text 1
module @loops {
  func @main<N in [1, 100]>(%x: f32[N, 4]) -> (f32[4], f32[N, 4]) {
    %zeros = const 0.0 : f32[4]
    %n = dim {value = N} : i64[]
    %last, %all = loop %n, _, %zeros : f32[4], f32[N, 4] {
      (%i: i64[], %go: bool[], %sum: f32[4])
      %row = gather %x, %i {axis = 0} : f32[4]
      %next = add %sum, %row : f32[4]
      yield %go, %next, %next
    }
    return %last, %all
  }
}
"""
    module = irc.opt(parse(text), PIPELINE)
    check(harness.run(module, folder=tmp_path / "a", sizes={"N": 7}, fuse=False), 1e-6)
    program = (tmp_path / "a" / "program.py").read_text()
    assert "in torch.arange(N, device=device):" in program and "bool(" not in program and "int(" not in program


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_a_count_below_0_is_none(rows: int) -> None:
    from irc.parser import parse

    module = parse("""irc text 1
module @loops {
  func @main<N>(%x: f32[N]) -> (y: f32[N]) {
    %n = dim {value = N - 3} : i64[]
    %y = loop %n, _, %x : f32[N] { (%i: i64[], %going: bool[], %h: f32[N])
      %g = add %h, %h : f32[N]
      yield %going, %g
    }
    return %y
  }
}
""")
    x = np.ones(rows, np.float32)
    assert irc.run(module, {"x": x}, backend="triton").outputs["y"].tolist() == [2.0 ** max(0, rows - 3)] * rows


def test_the_folder_runs_without_irc(tmp_path: Path) -> None:
    emit(fused_mixed(), tmp_path / "model.triton")
    inputs = harness.random_inputs(fused_mixed(), {"B": 4})
    np.savez(tmp_path / "in.npz", **inputs)
    # irc cannot be imported: a package of that name which fails stands in its way.
    (tmp_path / "irc").mkdir()
    (tmp_path / "irc" / "__init__.py").write_text("raise ImportError('irc is not needed')")
    done = run_python(
        str(tmp_path / "model.triton"), "--input", str(tmp_path / "in.npz"), "--output", str(tmp_path / "out.npz"),
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "interpreted: no GPU" in done.stderr
    with np.load(tmp_path / "out.npz") as outputs:
        (actual,) = (outputs[name] for name in outputs.files)
    (expected,) = interpreter.run(fused_mixed(), inputs).values()
    assert harness.relative_error(actual, expected) < 1e-5


def test_wrong_inputs_are_named(tmp_path: Path) -> None:
    emit(fused_mixed(), tmp_path / "model")
    inputs = harness.random_inputs(fused_mixed(), {"B": 4})
    artefact = harness.load_artefact(tmp_path / "model")
    model = artefact.load()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({**inputs, "x": inputs["x"].astype(np.float64)}, "'x' is float64, expected float32"),
        ({**inputs, "x": inputs["x"][:, :5]}, "'x' has extent 5 in axis 1, expected 24"),
        ({**inputs, "x": inputs["x"][0]}, "'x' has shape"),
        ({**inputs, "y": inputs["x"]}, "there is no input 'y'"),
        ({"x": inputs["x"]}, "input 'w' is missing"),
    ]
    for arrays, message in wrong:
        with pytest.raises(artefact.ArtefactError, match=message):
            model.run(arrays)


def test_a_size_out_of_its_range_is_named(tmp_path: Path) -> None:
    emit(trace(lambda x: ops.relu(x), "f32[?B in (1, 9), 4]"), tmp_path / "model")
    artefact = harness.load_artefact(tmp_path / "model")
    for size in (0, 10):
        with pytest.raises(artefact.ArtefactError, match=f"B .* is {size}, expected"):
            artefact.load().run({"x": np.zeros((size, 4), np.float32)})


def test_writing_needs_neither_torch_nor_triton(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['triton'] = None\n"
        "from irc import ops; from irc.op import trace; from irc.backends.triton import emit\n"
        f"emit(trace(lambda x: ops.relu(x), 'f32[B, 4]'), {str(tmp_path / 'model')!r})"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


def test_artefacts_do_not_depend_on_hashing(tmp_path: Path) -> None:
    code = (
        "import sys; from irc.backends.triton import emit; from tests.test_triton_programs import fused_mixed\n"
        "emit(fused_mixed(), sys.argv[1])"
    )
    for seed in ("1", "2"):
        done = run_python("-c", code, str(tmp_path / seed), PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
    for path in sorted((tmp_path / "1").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes(), path


def test_nothing_of_anybody_else_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(IrcError, match=r"file\.exists|exists"):
        emit(fused_mixed(), folder)
    assert (folder / "thesis.tex").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    emit(fused_mixed(), tmp_path / "other")
    emit(fused_mixed(), tmp_path / "other")  # its own may be


def test_int8_weights_stay_int8(tmp_path: Path) -> None:
    from irc.op import const, trace
    from irc.weights import Tensor

    weight = np.random.default_rng(0).integers(-128, 127, (16, 8)).astype(np.int8)

    def function(x: Value) -> Value:
        wide = ops.cast(const(value=Tensor.of(weight, name="w")), to=dtypes.F32)
        return ops.add(x, ops.mul(wide, 0.01))

    run = harness.run(trace(function, "f32[16, 8]"), folder=tmp_path / "model")
    check(run, 1e-6)
    size = (tmp_path / "model" / "weights.safetensors").stat().st_size
    assert size < weight.size + 400


def test_what_triton_lacks_runs_on_the_host(tmp_path: Path) -> None:
    run = harness.run(lambda x: ops.tanh(x), "f64[3, 5]", folder=tmp_path / "model")
    assert not run.launches and list(run.program.rejected) == ["fused"]
    assert harness.relative_error(*[next(iter(r.values())) for r in (run.outputs, run.expected)]) < 1e-12


# -- control flow and bridges in the host program ----------------------------------------------------------------

def test_if_and_loop(tmp_path: Path) -> None:
    from irc.parser import parse

    text = """irc text 1
module @control {
  func @main<N in [1, 100]>(%x: f32[N, 4], %flag: bool[], %n: i64[]) -> (f32[N, 4], f32[N, 4]) {
    %a = if %flag : f32[N, 4] {
      %e = exp %x : f32[N, 4]
      yield %e
    } else {
      %m = neg %x : f32[N, 4]
      yield %m
    }
    %true = const true : bool[]
    %b = loop %n, %true, %x : f32[N, 4] {
      (%i: i64[], %go: bool[], %acc: f32[N, 4])
      %next = add %acc, %a : f32[N, 4]
      yield %go, %next
    }
    return %a, %b
  }
}
"""
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    for number, flag in enumerate((True, False)):
        inputs = {"x": x, "flag": np.array(flag), "n": np.array(3, np.int64)}
        run = harness.run(parse(text), folder=tmp_path / str(number), inputs=inputs, fuse=False)
        check(run, 1e-6)


def test_externs_run_as_embedded_models(tmp_path: Path) -> None:
    from irc.ir import Function
    from irc.module import Module
    from irc.op import Builder, return_
    from tests.programs import static_type

    function = Function("main", [static_type("f32[3, 4, 4]")], ["x"])
    builder = Builder(function.block)
    attributes = {"domain": "", "op_type": "Det", "version": 11, "attributes": {}}
    determinant = builder.create(ops.lookup("extern"), function.arguments, attributes, types=[static_type("f32[3]")])
    builder.create(return_, determinant.results)
    run = harness.run(Module("determinant", [function]), folder=tmp_path / "model", fuse=False)
    check(run, 1e-6)
    assert [extern.op for extern in run.program.externs] == ["Det"]
    assert [path.name for path in (tmp_path / "model" / "externs").iterdir()] == ["det_0.onnx"]


def test_long_lines_that_end_in_brackets_are_split_without_becoming_tuples() -> None:
    from irc.backends.triton.lines import wrapped

    long = "a_name_from_the_source_model" * 5
    namespace = {long: 2.0}
    lines = {f"x = 0.5 * ({long} + 1.0)": 1.5, f"x = max({long}, 3.0)": 3.0, f"x = ({long},)": (2.0,),
             f"x = max({long}, 3.0).__add__(1.0)": 4.0}  # fmt: skip
    for line, expected in lines.items():
        split = list(wrapped(line))
        assert len(split) > 2
        exec("\n".join(split), namespace)
        assert namespace["x"] == expected
