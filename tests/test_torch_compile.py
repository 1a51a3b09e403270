"""irc.compile of PyTorch programs: functions that take and give what the programs do."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch import nn
from torch.export import Dim
from torch.utils import _pytree as pytree

import irc
from irc.diagnostics import IrcError

pytestmark = pytest.mark.filterwarnings("ignore")
BACKENDS = ("onnx", "triton")


class Structured(nn.Module):
    """Dictionaries, tuples and keywords in; a dictionary with a tuple, a number and None out."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor], *, more: dict[str, torch.Tensor], flag: bool) -> Any:
        x, y = pair
        z = self.linear(x) * (2 if flag else 3)
        return {"z": z.relu(), "others": (y + more["b"], None, 7), "same": more["a"]}


class Counting(nn.Module):
    """Writes two of its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return x - self.mean


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(tokens))


def check(compiled: Any, program: Any, *args: Any, tolerance: float = 1e-5, **kwargs: Any) -> None:
    with torch.no_grad():
        expected, structure = pytree.tree_flatten(program(*args, **kwargs))
    results, result_structure = pytree.tree_flatten(compiled(*args, **kwargs))
    assert result_structure == structure
    for result, reference in zip(results, expected, strict=True):
        if isinstance(reference, torch.Tensor):
            assert result.dtype == reference.dtype
            torch.testing.assert_close(result, reference, rtol=tolerance, atol=tolerance)
        else:
            assert result == reference


@pytest.mark.parametrize("backend", BACKENDS)
def test_structures_come_back_as_they_are(backend: str) -> None:
    torch.manual_seed(0)
    module = Structured().eval()

    def inputs() -> dict[str, Any]:
        return {
            "pair": (torch.randn(2, 4), torch.randn(5)),
            "flag": True,
            "more": {"a": torch.arange(3), "b": torch.randn(5)},
        }

    compiled = irc.compile(module, inputs(), backend=backend)
    for _ in range(2):
        check(compiled, module, **inputs())
    with pytest.raises(IrcError, match=r"run\.input_shape"):
        compiled(pair=(torch.randn(2, 4),), flag=True, more={})
    with pytest.raises(IrcError, match=r"run\.input_shape.*\n.*True"):
        compiled(**{**inputs(), "flag": False})
    with pytest.raises(IrcError, match=r"run\.input_shape.*the argument pair\[0\], dim 1 is 5"):
        compiled(**{**inputs(), "pair": (torch.randn(2, 5), torch.randn(5))})
    with pytest.raises(IrcError, match=r"run\.input_dtype.*the argument pair\[0\] holds f64"):
        compiled(**{**inputs(), "pair": (torch.randn(2, 4).double(), torch.randn(5))})


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_vary_as_the_program_allows(backend: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16)).eval()
    batch = Dim("batch", min=1, max=32)
    compiled = irc.compile(module, (torch.randn(3, 8),), backend=backend, dynamic_shapes=({0: batch},))
    for rows in (1, 3, 17):
        check(compiled, module, torch.randn(rows, 8))
    check(compiled, module, torch.randn(8, 5).t())  # not contiguous
    with pytest.raises(IrcError, match=r"run\.dim_range.*the argument input, dim 0: batch is 33"):
        compiled(torch.randn(33, 8))


@pytest.mark.parametrize("backend", BACKENDS)
def test_buffers_that_are_written_are_written(backend: str) -> None:
    torch.manual_seed(0)
    eager, module = Counting(), Counting()
    compiled = irc.compile(module, (torch.randn(4, 3),), backend=backend)
    updates = {argument.name for argument in compiled.module.main.updates.values()}
    assert updates == {"calls", "mean"} and "updates %mean" in str(compiled.module)
    for calls in (1, 2, 3):
        x = torch.randn(4, 3)
        torch.testing.assert_close(compiled(x), eager(x))
        assert int(module.calls) == calls
        torch.testing.assert_close(module.mean, eager.mean)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 16), (3, 16), (2, 1, 1, 16), (4, 1, 16)])
def test_attention_masks_of_one_row(backend: str, shape: tuple[int, ...]) -> None:
    """As with a cache of keys, of which all queries see the same."""

    def attend(x: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, keys, keys, attn_mask=mask)

    torch.manual_seed(0)
    args = torch.randn(2, 4, 3, 8), torch.randn(2, 4, 16, 8), torch.rand(shape) < 0.7
    check(irc.compile(attend, args, backend=backend), attend, *args)


class Learning(nn.Module):
    """Writes a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.weight.add_(x)
        return self.weight * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_that_are_written_are_written(backend: str) -> None:
    eager, module = Learning(), Learning()
    compiled = irc.compile(module, (torch.randn(3),), backend=backend)
    for _ in range(2):
        x = torch.randn(3)
        torch.testing.assert_close(compiled(x), eager(x).detach())
        torch.testing.assert_close(module.weight, eager.weight)


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_that_share_memory_with_what_is_written(backend: str) -> None:
    """Results do not show what a program has read of an argument, so that none may be written meanwhile."""

    def reversing(c: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        c.copy_(x.flip(0))
        return c.sum(0)

    compiled = irc.compile(reversing, (torch.randn(6, 2), torch.randn(6, 2)), backend=backend)
    both = torch.randn(13, 2)
    for c, x in ((both[:6], both[:6]), (both[:6], both[1:7]), (both[:12:2], both[:12:2])):
        with pytest.raises(IrcError, match=r"run\.input_alias.*the arguments c and x share memory"):
            compiled(c, x)
    expected = both[6:12].flip(0)
    compiled(both[:6], both[6:12])
    torch.testing.assert_close(both[:6], expected)
    needy = torch.zeros(6, 2, requires_grad=True)
    compiled(needy, both[:6])
    torch.testing.assert_close(needy.detach(), both[:6].flip(0))


class Caching(nn.Module):
    """Writes into its arguments: a cache at a position, and one of which it returns a view."""

    def forward(self, x: torch.Tensor, keys: torch.Tensor, counts: list[torch.Tensor]) -> Any:
        keys[:, 2:3] = x
        counts[0].add_(1)
        old = counts[1].clone()
        counts[1].copy_(counts[1].t().clone())
        return (keys * x).sum(-1), old


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_that_are_written_are_written(backend: str) -> None:
    torch.manual_seed(0)

    def arguments(turned: bool = False) -> Any:
        keys = torch.randn(2, 3, 5).transpose(1, 2) if turned else torch.randn(2, 5, 3)
        return torch.randn(2, 1, 3), keys, [torch.zeros((), dtype=torch.int64), torch.randn(3, 3)]

    eager, compiled = Caching(), irc.compile(Caching(), arguments(), backend=backend)
    assert len(compiled.module.main.updates) == 3
    for turned in (False, False, True):
        x, keys, counts = arguments(turned)
        theirs = x.clone(), keys.clone(), [count.clone() for count in counts]
        torch.testing.assert_close(compiled(x, keys, counts), eager(*theirs))
        torch.testing.assert_close((x, keys, counts), theirs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats(backend: str, dtype: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 3)).to(dtype).eval()
    x = torch.randn(5, 8, dtype=dtype)
    compiled = irc.compile(module, (x,), backend=backend)
    check(compiled, module, x, tolerance=2e-2)


def test_copies_are_the_same_program() -> None:
    """As of functions; so modules that hold one can be copied."""
    module, x = Counting(), torch.randn(4, 3)
    compiled = irc.compile(module, (x,))
    holder = nn.Linear(3, 3)
    holder.program = compiled
    assert copy.copy(compiled) is compiled and copy.deepcopy(holder).program is compiled
    copy.deepcopy(compiled)(x)
    assert int(module.calls) == 1


def test_tied_weights_are_kept_once() -> None:
    module = Tied().eval()
    compiled = irc.compile(module, (torch.tensor([[1, 2]]),))
    constants = [op for op in compiled.module.main.block if op.name == "const" and op.result.type.is_ranked]
    assert sum(op.result.shape == (10, 6) for op in constants) == 1
    check(compiled, module, torch.tensor([[3, 9]]))


def test_other_programs() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.exp(x) @ y

    args = torch.randn(2, 3), torch.randn(3, 2)
    check(irc.compile(function, args), function, *args)
    exported = torch.export.export(Tied().eval(), (torch.tensor([[1, 2]]),))
    check(irc.compile(exported), exported.module(), torch.tensor([[4, 5]]))
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval())
    check(irc.compile(traced, (torch.randn(2, 4),)), traced, torch.randn(2, 4))


def test_kernels_are_interpreted_whatever_was_imported_before(tmp_path: Any) -> None:
    """Triton may be there to compile kernels, and does so as before afterwards."""
    script = """
import torch, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import irc

module, x = torch.nn.Sequential(torch.nn.LayerNorm(16), torch.nn.Softmax(-1)).eval(), torch.randn(3, 16)

def compiles():
    source = ASTSource(fn=total, signature={"x": "*fp32", "N": "constexpr"}, constexprs={"N": 64}, attrs={})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]

@triton.jit
def total(x, N: tl.constexpr):
    tl.store(x, tl.sum(tl.load(x + tl.arange(0, N)), axis=0))

before = compiles()
for backend in ("onnx", "triton", "onnx", "triton"):
    torch.testing.assert_close(irc.compile(module, (x,), backend=backend)(x), module(x).detach())
assert compiles() == before
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    (tmp_path / "script.py").write_text(script)  # Triton reads the source of kernels
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_mistakes(tmp_path: Any) -> None:
    module = nn.Linear(4, 4)
    with pytest.raises(IrcError, match=r"usage\.arguments"):
        irc.compile(module, (torch.randn(2, 4),), output=tmp_path / "model.onnx")
    with pytest.raises(IrcError, match=r"usage\.arguments"):
        irc.compile(tmp_path / "model.onnx", (torch.randn(2, 4),))
    with pytest.raises(IrcError, match=r"usage\.backend"):
        irc.compile(module, (torch.randn(2, 4),), backend="cuda")
    assert not list(tmp_path.iterdir())


def test_arguments_of_other_types() -> None:
    """Each is named, whichever function has it."""
    program, x = nn.Linear(4, 4), (torch.randn(2, 4),)
    module = irc.from_torch(program, x)
    wrong: list[tuple[str, Any]] = [
        ("pipeline", lambda: irc.compile(program, x, pipeline=5)), ("pipeline", lambda: irc.opt(module, None)),
        ("pipeline", lambda: irc.kernels(module, pipeline=b"default")),
        ("kwargs", lambda: irc.compile(program, x, kwargs=5)),
        ("settings", lambda: irc.compile(program, x, settings={"target": "cpu"})),
        ("settings", lambda: irc.to_fx(module, settings=5)), ("settings", lambda: irc.run(module, settings="cpu")),
        ("output", lambda: irc.compile(module, output=5)), ("onnx", lambda: irc.compile(module, onnx={"tune": True})),
        ("folder", lambda: irc.load_compiled(None)), ("folder", lambda: irc.compile(program, x).save(5)),
        ("name", lambda: irc.from_torch(program, x, name=5)), ("specialize", lambda: irc.load(module, specialize=5)),
        *((name, lambda name=name, value=value: irc.Settings(**{name: value})) for name, value in (
            ("target", 5), ("opset", "20"), ("device", 5), ("costs", 5), ("dims", 5), ("loads", "rules.py"),
            ("verify_each", "no"), ("numerics", "exactly"), ("numerics", []), ("products", "ours"))),
    ]  # fmt: skip
    for name, call in wrong:
        with pytest.raises(IrcError, match=rf"`{name}`") as error:
            call()
        assert error.value.code == "usage.value", name


def test_programs_are_compiled_in_threads() -> None:
    """PyTorch exports one program at a time: those of other threads wait."""
    modules = [nn.Sequential(nn.Linear(8, 3 + index), nn.GELU()).eval() for index in range(4)]
    x = torch.randn(2, 8)
    with ThreadPoolExecutor(len(modules)) as pool:
        programs = list(pool.map(lambda module: irc.compile(module, (x,), backend="onnx"), modules))
        results = list(pool.map(lambda program: program(x), programs))
    for module, one in zip(modules, results, strict=True):
        torch.testing.assert_close(one, module(x).detach(), rtol=1e-4, atol=1e-5)


def test_numbers_that_are_rounded_in_a_kernel() -> None:
    """All that the kernel computes is known: in its text there are numbers of Python alone."""

    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.ones_like(x) * torch.ones_like(x), dim=1)

    x = torch.randn(5, 1).half()
    compiled = irc.compile(program, (x,), backend="triton", dynamic_shapes=({0: "B"},))
    torch.testing.assert_close(compiled(x), program(x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_checked", [True, False], ids=["checked", "unchecked"])
@pytest.mark.parametrize("norm", [None, nn.LayerNorm(8)], ids=["plain", "norm"])
@pytest.mark.parametrize("hides", [True, float("-inf"), -1.0], ids=["bool", "infinite", "finite"])
def test_padding_of_encoders(hides: Any, norm: Any, is_checked: bool, backend: str) -> None:
    """Without gradients eager PyTorch gives 0 there, where the padding is at the ends of rows; else numbers. Where it
    does not check that, it moves the zeros to the ends. A function may call the encoder."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, norm=norm, mask_check=is_checked).eval()
    encoder.requires_grad_(norm is None)
    at_ends = torch.tensor([[False] * 5, [False, False, True, True, True]])
    within = torch.tensor([[True] + [False] * 4, [False, False, True, False, True]])
    whole_row = torch.tensor([[False] * 5, [True] * 5])

    def mask_of(padding: torch.Tensor) -> torch.Tensor:
        return padding if hides is True else torch.zeros(2, 5).masked_fill(padding, hides)

    x = torch.randn(2, 5, 8)
    program = encoder if hides is not True else lambda x, src_key_padding_mask: encoder(x, None, src_key_padding_mask)
    optimized = irc.compile(program, (x,), backend=backend, kwargs={"src_key_padding_mask": mask_of(at_ends)})
    assert "forward" not in vars(encoder) and encoder.use_nested_tensor and encoder.norm is norm
    for padding in (at_ends, within, whole_row):
        with torch.no_grad():
            expected = encoder(x, src_key_padding_mask=mask_of(padding))
        empty = (torch.arange(5) >= (~padding).sum(1, keepdim=True)) if not is_checked else padding
        assert norm is not None or bool((expected[empty] == 0).all()) == (not is_checked or padding is not within)
        torch.testing.assert_close(optimized(x, src_key_padding_mask=mask_of(padding)), expected, atol=1e-5, rtol=1e-5)


@dataclass
class Measured:
    sample: Any
    weight: int = 3


def test_dataclasses_that_pytorch_does_not_know() -> None:
    def program(given: Measured) -> Measured:
        return Measured(given.sample["x"] * given.weight)

    x = torch.randn(3)
    optimized = irc.compile(program, (Measured({"x": x}),))
    result = optimized(Measured({"x": x + 1}))
    assert type(result) is Measured
    torch.testing.assert_close(result.sample, (x + 1) * 3)
    with pytest.raises(IrcError, match=r"run\.input_shape"):
        optimized(Measured({"x": x}, 4))


@dataclass
class Counted:
    """`__post_init__` changes a field, and sets one that no argument gives."""

    x: Any
    scale: InitVar[int]
    half: Any = field(init=False)
    unset: Any = field(init=False)
    absent: Any = None

    def __post_init__(self, scale: int) -> None:
        self.x, self.half = self.x + 1, self.x / 2 * scale


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    half: Any = field(default=2, init=False)


@dataclass
class WrittenByHand:
    x: Any
    half: Any

    def __init__(self, both: Any) -> None:
        self.x, self.half = both, both / 2


RECORDS: dict[str, Any] = {
    "post_init": lambda x: Counted(x, 3),
    "post_init_nested": lambda x: WrittenByHand(Counted(x, 3).x),
    "frozen": Frozen,
    "init": WrittenByHand,
}


@pytest.mark.parametrize("name", RECORDS)
def test_dataclasses_are_made_of_their_fields(name: str, tmp_path: Any) -> None:
    """As arguments and as results, whatever a call of the class would do."""
    make = RECORDS[name]

    def program(given: Any) -> Any:
        return make(given.x * 3 + given.half), [given]

    x = torch.arange(3.0)
    optimized = irc.compile(program, (make(x),))
    optimized.save(tmp_path / "saved")
    for compiled in (optimized, irc.load_compiled(tmp_path / "saved")):
        (result, [same]), (expected, _) = compiled(make(x + 2)), program(make(x + 2))
        assert type(result) is type(expected) and type(same) is type(expected)
        for one, other in ((result, expected), (same, make(x + 2))):
            torch.testing.assert_close((one.x, one.half), (other.x, other.half))
            assert getattr(one, "absent", None) is None and not hasattr(one, "unset")


def test_a_dataclass_that_is_a_dictionary_too_is_left_to_pytorch() -> None:
    @dataclass
    class Both(dict):  # type: ignore[type-arg]
        x: Any

    with pytest.raises(IrcError, match=r"torch\.export"):
        irc.compile(lambda given: given.x + 1, (Both(torch.ones(3)),))


def test_a_saved_dataclass_is_loaded_where_pytorch_does_not_know_it(tmp_path: Any) -> None:
    optimized = irc.compile(lambda given: Counted(given.half, 2), (Counted(torch.ones(3), 2),))
    optimized.save(tmp_path / "saved")
    script = f"""
import irc, torch
from {Counted.__module__} import Counted
result = irc.load_compiled({str(tmp_path / "saved")!r})(Counted(torch.ones(3), 2))
print(result.x.tolist(), result.half.tolist())
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout == "[2.0, 2.0, 2.0] [1.0, 1.0, 1.0]\n", done.stderr
