"""Complex numbers of PyTorch programs: computed by their parts on both backends, beside eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.utils import _pytree as pytree

import irc
from irc.backends.triton import compile_artefact, emit
from irc.diagnostics import IrcError

pytestmark = pytest.mark.filterwarnings("ignore")
BACKENDS = ("onnx", "triton")
C64 = torch.complex64


def functions(z: torch.Tensor, w: torch.Tensor) -> Any:
    return (z.exp(), z.expm1(), z.exp2(), z.log(), w.log10(), (z + 0.1).log1p(), z.sqrt(), w.reciprocal(), w.rsqrt(),
            z.square(), z**3, z**w, 2**z, w**-0.5, z.sigmoid(), z.sin(), z.cos(), z.tan(), z.sinh(), z.cosh(), z.tanh(),
            z.sgn(), torch.zeros_like(z) ** (w.real + 1j), (z * 0) ** 0)  # fmt: skip


def arranged(z: torch.Tensor, w: torch.Tensor) -> Any:
    both = torch.cat([z, w.flip(0)], -1).roll(1, 0)
    padded = nn.functional.pad(z, (1, 2), value=1.5)[:, 1:]
    return both.T.reshape(-1) * 2, padded, z.tril() + w.unsqueeze(0), torch.stack([z, w]).movedim(0, 1).conj() * 1j


def indexed(z: torch.Tensor, w: torch.Tensor) -> Any:
    place = torch.zeros(1, z.shape[1], dtype=torch.long)
    return w[:, [0, 0]] * 2, z.scatter_add(0, place, w[:1] * 2), torch.where(z.real > 0, z, w) + 1


PROGRAMS: dict[str, Callable[..., Any]] = {
    "arithmetic": lambda z, w: (z * w, z / w, z + w, z - w * 2, -z, z.real * w + 3, z * (1 - 2j), z.conj() * w),
    "functions": functions,
    "parts": lambda z, w: (z.abs(), w.angle(), z.imag, w.real, torch.view_as_real(z * w), torch.polar(z.abs(), w.real)),
    "products": lambda z, w: (z @ w.mT, torch.einsum("ij,kj->ikj", z, w), nn.functional.linear(z, w),
                              torch.addmm(w.real.to(C64) @ w.mT, z, w.mT, beta=2, alpha=1 - 2j),
                              torch.addr(z, z[:, 0], w.sum(0), beta=1j), torch.vdot(z.reshape(-1), w.reshape(-1)),
                              torch.addmv(z[:, 0] * 2, z, w.sum(0), alpha=2j)),
    "sums": lambda z, w: (z.sum(-1), w.mean(1), z.cumsum(1), torch.linalg.vecdot(z, w), z.norm(),
                          torch.linalg.vector_norm(w, 1, dim=-1), z.var(1), w.std(), torch.var_mean(z, 1)),
    "comparisons": lambda z, w: (z == w, z != z, z.isnan(), z.isinf(), torch.isclose(z, w), z.any(), w.count_nonzero()),
    "types": lambda z, w: (z.to(torch.complex128) * w, z.float(), w.int(), z.bool(),
                           z.real.to(C64) * 2, torch.complex(z.real, w.imag) * w),
    "arranged": arranged, "indexed": indexed,
    "results": lambda z, w: (z, w.T, z + 0, torch.ones(2, dtype=C64)),
}  # fmt: skip


def close(actual: Any, expected: Any) -> None:
    for one, other in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(one, other.resolve_conj(), equal_nan=True)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_programs_give_what_eager_gives(backend: Any, name: str) -> None:
    program, generator = PROGRAMS[name], torch.Generator().manual_seed(3)
    examples = [torch.randn(3, 4, dtype=C64, generator=generator) for _ in range(2)]
    dynamic = irc.compile(program, tuple(examples), backend=backend, dynamic_shapes=({0: "B"}, {0: "B"}))
    for rows in (3, 1, 5):
        given = [torch.randn(rows, 4, dtype=C64, generator=generator) for _ in range(2)]
        close(dynamic(*given), program(*given))
    for shape in ((1, 1), (0, 4)):
        given = [torch.randn(shape, dtype=C64, generator=generator) for _ in range(2)]
        if name != "indexed" or 0 not in shape:  # a row 0 is indexed
            close(irc.compile(program, tuple(given), backend=backend)(*given), program(*given))


@pytest.mark.parametrize("backend", BACKENDS)
def test_magnitudes_and_quotients_stay_within_the_range(backend: Any) -> None:
    edges = torch.tensor([0, -0.0, 1e-30, 3e38, -3e38, float("inf"), -float("inf"), 1e-44])
    z = torch.complex(edges[:, None].expand(8, 8), edges.expand(8, 8)).contiguous()
    close(irc.compile(lambda z: (z.abs(), z.angle(), z.sgn()[:5, :5]), (z,), backend=backend)(z),
          (z.abs(), z.angle(), z.sgn()[:5, :5]))  # fmt: skip
    large = torch.tensor([3e38 + 3e38j, 1e-30 - 2e-30j, 2e38 + 1j])
    close(irc.compile(lambda x, y: x / y, (large, large), backend=backend)(large, large.flip(0)), large / large.flip(0))
    negative = torch.tensor([complex(-4.0, 0.0), complex(-4.0, -0.0), complex(0.0, -0.0), complex(-1e-20, 1e-30)])
    close(irc.compile(lambda z: z.sqrt(), (negative,), backend=backend)(negative), negative.sqrt())


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_parts_are_exact_where_they_cancel_or_overflow(backend: Any) -> None:
    """Each part, beside PyTorch's complex128 rounded once."""
    edges = torch.tensor([0, -0.0, 1e-30, -1e-30, 1e-8, 1e-4, 0.5, 1 - 2**-20, -1, 3, 100, -100])
    z = torch.complex(edges[:, None].expand(12, 12), edges.expand(12, 12)).flatten()
    low, high = torch.view_as_real(z).abs().aminmax(dim=1)
    z = z[(low == 0) | (high != 100)]  # exp(100) is infinite; its product with a small sine is not

    def program(z: torch.Tensor) -> Any:
        return (z.exp(), z.expm1(), z.log(), z.log1p(), z.sigmoid(), z.sin(), z.cos(), z.sinh(), z.cosh(), z.sqrt())

    for one, other in zip(irc.compile(program, (z,), backend=backend)(z), program(z.to(torch.complex128)), strict=True):
        expected = torch.view_as_real(other.to(C64))
        torch.testing.assert_close(torch.view_as_real(one), expected, rtol=4e-6, atol=1e-43, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 12, 100, 1000])
def test_transforms_on_onnx_runtime(length: int, dtype: torch.dtype) -> None:
    """ONNX Runtime's own transform has a relative error of 1e-4 at 1,000 elements of f32, and of 5e-8 for inverses."""
    x = torch.randn(2, length, dtype=dtype, generator=torch.Generator().manual_seed(0))
    z = torch.complex(x, x.flip(1) + 1)

    def program(x: torch.Tensor, z: torch.Tensor) -> Any:
        fft = torch.fft
        return (fft.fft(z), fft.ifft(z, norm="ortho"), fft.rfft(x, norm="forward"), fft.irfft(z, n=length), fft.fft(x),
                fft.irfft(z, n=length + 1, norm="ortho"), fft.hfft(z, n=length), fft.ihfft(x), fft.rfft2(x),
                fft.irfft2(z, s=(2, length)), fft.fft2(z), fft.rfft(x, n=length + 3), fft.fftshift(fft.fft(x, dim=0)))

    compiled = irc.compile(program, (x, z), backend="onnx")
    rtol = 2e-6 if dtype is torch.float32 else 1e-12
    for ours, theirs in zip(compiled(x, z), program(x, z), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= rtol * theirs.abs().max()


def test_transforms_of_dynamic_length() -> None:
    def program(x: torch.Tensor) -> Any:
        z = torch.fft.rfft(x, norm="ortho")
        return torch.fft.irfft(z * 2, n=x.shape[-1]), torch.fft.ifft(z, norm="forward").abs()

    compiled = irc.compile(program, (torch.randn(2, 12),), backend="onnx", dynamic_shapes=({1: "N"},))
    for length in (12, 2, 7, 31):
        x = torch.randn(2, length)
        close(compiled(x), program(x))


def rotated(q: torch.Tensor, k: torch.Tensor, turns: torch.Tensor) -> Any:
    """Rotary positions as the first Llama wrote them."""
    turns = turns[: q.shape[1]][:, None]
    both = (torch.view_as_complex(each.float().reshape(*each.shape[:-1], -1, 2)) for each in (q, k))
    return tuple(torch.view_as_real(each * turns).flatten(3).type_as(q) for each in both)


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(32.0), 1e4 ** (-torch.arange(0, 8, 2) / 8))
        self.turns = torch.polar(torch.ones_like(angles), angles)

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> Any:
        return rotated(q, k, self.turns)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_rotary_positions(backend: Any, dtype: torch.dtype) -> None:
    module, shapes = Rotary(), ({1: "S"}, {1: "S"})
    q, k = (torch.randn(2, 6, 3, 8, dtype=dtype) for _ in range(2))
    compiled = irc.compile(module, (q, k), backend=backend, dynamic_shapes=shapes)
    for length in (6, 9, 2):
        q, k = (torch.randn(2, length, 3, 8, dtype=dtype) for _ in range(2))
        close(compiled(q, k), module(q, k))
    turns = module.turns
    as_argument = irc.compile(rotated, (q, k, turns), backend=backend)
    close(as_argument(q, k, turns), module(q, k))
    close(as_argument(q, k, turns.conj().conj().clone().conj()), rotated(q, k, turns.conj()))
    if backend == "triton":
        listed = irc.kernels(irc.from_torch(module, (q, k), dynamic_shapes=shapes))
        assert (listed.launches, listed.library_calls, listed.host_operations) == (1, 0, 0)


@pytest.mark.slow
def test_kernels_compile_for_all_targets(tmp_path: Path) -> None:
    q, k = (torch.randn(2, 16, 8, 8) for _ in range(2))
    z, w = (torch.randn(300, 64, dtype=C64) for _ in range(2))
    for name, program, given in (("rotary", Rotary(), (q, k)), ("arithmetic", PROGRAMS["arithmetic"], (z, w)),
                                 ("sums", PROGRAMS["sums"], (z, w))):  # fmt: skip
        module = irc.opt(irc.from_torch(program, given), "default", backend="triton")
        emit(module, tmp_path / name)
        for resources in compile_artefact(tmp_path / name, ("sm_80", "sm_90", "sm_100", "gfx942")):
            assert not resources.error and resources.fits, resources
            assert not resources.spilled_bytes and not resources.local_bytes, resources


def test_numbers_that_only_move_between_transforms_stay_complex() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft(torch.fft.rfft(x).reshape(2, -1).conj()[:, 1:])

    module = irc.opt(irc.from_torch(program, (torch.randn(2, 1, 8),)), "default", backend="triton")
    called = [each.attributes["op_type"] for each in module.walk() if each.name == "extern"]
    assert called == ["_fft_r2c", "_conj", "_fft_c2r"]


class Mixer(nn.Module):
    """A layer that multiplies a spectrum by weights, as in global filter networks and Fourier operators."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs = nn.Parameter(torch.randn(3, 4, 5, 2))
        self.weight = nn.Parameter(torch.randn(3, 3, 4, dtype=C64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.pairs)
        y = torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho").mean(2)
        lines = torch.fft.rfft(y)
        mixed = torch.zeros_like(lines)
        mixed[:, :, :4] = torch.einsum("bix,iox->box", lines[:, :, :4], self.weight)
        return torch.fft.irfft(mixed, n=x.shape[-1]) + lines.abs().sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_compile_with_gradients(backend: str) -> None:
    """On ONNX Runtime all of it is compiled, transforms, too; with kernels PyTorch runs these between the parts."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    module, x = Mixer(), torch.randn(2, 3, 4, 8)
    compiled = torch.compile(module, backend="irc", options={"backend": backend})
    results = []
    for run in (compiled, module):
        module.zero_grad()
        y = run(x)
        y.square().sum().backward()
        results.append([y.detach(), *(each.grad.clone() for each in module.parameters())])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    for graph in irc.report().graphs[-2:]:
        assert {name for name, _ in graph.in_pytorch} <= {"_fft_r2c.default", "_fft_c2r.default", "_fft_c2c.default"}
        assert not graph.in_pytorch or backend == "triton"


def test_models_have_pairs_where_arguments_and_results_are_complex(tmp_path: Path) -> None:
    z = torch.randn(3, 4, dtype=C64)
    irc.compile(irc.from_torch(lambda z: (z * 2).T, (z,), dynamic_shapes=({0: "N"},)), output=tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    for value, shape in ((model.graph.input[0], ["N", 4, 2]), (model.graph.output[0], [4, "N", 2])):
        tensor = value.type.tensor_type
        assert tensor.elem_type == onnx.TensorProto.FLOAT
        assert [dim.dim_param or dim.dim_value for dim in tensor.shape.dim] == shape
    module = irc.from_torch(lambda z: (z * 2).T, (z,))
    (argument,) = module.main.arguments
    (result,) = irc.run(module, {argument.name: z.numpy()}, backend="onnx").outputs.values()
    np.testing.assert_allclose(result, (z * 2).T.numpy())


def test_models_with_complex_numbers_are_tuned(tmp_path: Path) -> None:
    """Of no candidate and not of the input are complex numbers left, which ONNX Runtime does not have."""
    def program(z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft(torch.fft.fft(torch.nn.functional.gelu(z.real) @ w + 1) * z[..., :1])

    given = torch.randn(2, 3, 8, dtype=C64), torch.randn(8, 6)
    module = irc.from_torch(program, given)
    report = irc.compile(module, output=tmp_path / "tuned.onnx", settings=irc.Settings(target="cpu"),
                         onnx=irc.OnnxOptions(tune=True, seconds=0.1))  # fmt: skip
    assert report.tuned is not None and {"all rewrites", "input", "input again"} < set(report.tuned.candidates)
    assert all(reason.startswith("the same model as") for reason in report.tuned.without.values())
    session = onnxruntime.InferenceSession(tmp_path / "tuned.onnx")
    (pairs,) = session.run(None, dict(zip("zw", (torch.view_as_real(given[0]).numpy(), given[1].numpy()), strict=True)))
    close(torch.view_as_complex(torch.from_numpy(pairs)), program(*given))


def test_what_has_no_rule_is_rejected_by_name_for_onnx() -> None:
    z = torch.randn(3, dtype=C64)
    with pytest.raises(IrcError) as caught:
        irc.compile(lambda z: (z.asin() * z, z.prod()), (z,))
    assert caught.value.code == "backend.unsupported"
    assert {each.message.partition(" ")[0] for each in caught.value.diagnostics} == {"asin", "reduce_prod"}
    program = irc.from_torch(lambda z: z * 2, (z,))
    with pytest.raises(IrcError, match="ONNX Runtime has no complex numbers"):
        irc.compile(program, pipeline="fold,dce")
    close(irc.compile(lambda z: z.asin() * z, (z,), backend="triton")(z), z.asin() * z)


def test_stages_agree() -> None:
    x = torch.randn(2, 8)
    module = irc.from_torch(lambda x: torch.fft.irfft(torch.fft.rfft(x) * (2 - 1j)).abs() + 1, (x,))
    for backend in BACKENDS:
        assert irc.check(module, backend=backend).passed
