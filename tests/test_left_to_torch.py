"""Operators that irc leaves to PyTorch: called on the host by artefacts and by the interpreter, rejected for ONNX, and
run by PyTorch itself under torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch.utils import _pytree as pytree

import irc
from irc import interpreter
from irc.diagnostics import IrcError
from irc.frontends.torch.tensors import to_array
from irc.ops import aten
from irc.parser import parse

pytestmark = pytest.mark.filterwarnings("ignore")


def svd(x: torch.Tensor) -> Any:
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    return (u * s[..., None, :] * 2) @ v, s


def spectrum(x: torch.Tensor) -> Any:
    return torch.view_as_real(torch.fft.rfft(x * 2)), torch.fft.irfft(torch.fft.rfft(x), n=x.shape[-1]) + 1


def solved(x: torch.Tensor) -> Any:
    square = x @ x.mT + 3 * torch.eye(x.shape[-2])
    return torch.linalg.solve(square, x), torch.linalg.cholesky(square), torch.linalg.det(square)


def drawn(x: torch.Tensor) -> Any:
    y = x + torch.rand(x.shape) * 2 + torch.randn(x.shape[0], 1, 1)
    return torch.nn.functional.dropout(y, 0.4), torch.bernoulli(torch.sigmoid(x)), torch.randint(3, 9, x.shape), y


def special(x: torch.Tensor) -> Any:
    return torch.special.bessel_j0(x), torch.igamma(x.abs(), torch.full_like(x, 2.0)) * x


def distinct(x: torch.Tensor) -> Any:
    rows, inverse, counts = torch.unique(x.round(), dim=0, return_inverse=True, return_counts=True)
    return rows * 2, inverse, counts


PROGRAMS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (svd, spectrum, solved, drawn, special, distinct)}  # fmt: skip
X = torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(0))


def close(actual: Any, expected: Any) -> None:
    for one, other in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def eager(program: Callable[..., Any], x: torch.Tensor) -> Any:
    torch.manual_seed(7)
    return program(x)


@pytest.mark.parametrize("name", PROGRAMS)
def test_artefacts_and_the_interpreter_give_what_eager_gives(name: str) -> None:
    """For another size than that of the example; random numbers that PyTorch draws are those of the same seed."""
    if name == "distinct" and torch.__version__ < "2.12":
        pytest.skip("PyTorch 2.11 exports the positions of unique_dim as f32")
    program = PROGRAMS[name]
    compiled = irc.compile(program, (X,), backend="triton", pipeline="default{random_numbers.by=host}",
                           dynamic_shapes=({0: "B"},))  # fmt: skip
    module = irc.from_torch(program, (X,), dynamic_shapes=({0: "B"},))
    for x in (X, torch.cat([X, X * 2])):
        expected = eager(program, x)
        torch.manual_seed(7)
        close(compiled(x), expected)
        (argument,) = module.main.arguments
        outputs = interpreter.run(module, {argument.name: to_array(x)}, draws=7)
        close([torch.from_numpy(each) for each in outputs.values()], pytree.tree_leaves(expected))


@pytest.mark.parametrize("name", PROGRAMS)
def test_modules_are_read_again_from_their_text(name: str) -> None:
    module = irc.from_torch(PROGRAMS[name], (X,), dynamic_shapes=({0: "B"},))
    assert str(parse(str(module))) == str(module)


def test_onnx_has_no_such_operators() -> None:
    with pytest.raises(IrcError) as caught:
        irc.compile(lambda x: torch.linalg.qr(x)[1] + torch.special.airy_ai(x) + torch.rand_like(x), (X[0],))
    assert caught.value.code == "backend.unsupported"
    said = "\n".join(each.message for each in caught.value.diagnostics)
    for name in ("linalg_qr", "special_airy_ai", "rand_like"):
        assert f"ONNX has no {name} of PyTorch" in said
    assert "torch.compile" in said and "module.eval()" in said


def test_torch_compile_leaves_them_to_pytorch() -> None:
    torch._dynamo.reset()

    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.qr(x * 2 + 1)[1].relu() * torch.special.bessel_j0(x)

    close(torch.compile(program, backend="irc")(X), program(X))
    left = {name for name, _ in irc.report().graphs[-1].in_pytorch}
    assert left == {"linalg_qr.default", "special_bessel_j0.default"}


@pytest.mark.skipif(torch.__version__ < "2.12", reason="PyTorch 2.11 exports linalg.inv without its check")
def test_matrices_without_a_factor_stop_the_run() -> None:
    module = irc.from_torch(lambda x: torch.linalg.inv(x), (X[0, :, :3],))
    with pytest.raises(IrcError) as caught:
        interpreter.run(module, {module.main.arguments[0].name: to_array(torch.zeros(3, 3))})
    assert caught.value.code == "run.assert" and "linalg.inv" in str(caught.value)


def test_only_operators_of_the_table_are_called() -> None:
    module = irc.from_torch(lambda x: torch.linalg.qr(x)[0], (X[0],))
    for other in ("from_file", "_linalg_svd.U", "__class__"):
        with pytest.raises(IrcError) as caught:
            parse(str(module).replace('"linalg_qr"', f'"{other}"'))
        assert caught.value.code == "type.attribute"


@pytest.mark.parametrize("op_type", aten.OPERATORS)
def test_the_table_says_what_schemas_say(op_type: str) -> None:
    """The tensors in order; nothing is written; random ones are those that PyTorch marks."""
    if op_type in aten.REMOVED and not hasattr(torch.ops.aten, op_type):
        with pytest.raises(IrcError, match=f"the installed PyTorch has no operator {op_type}"):
            aten.overload(torch.ops.aten, op_type)
        return
    overload = aten.overload(torch.ops.aten, op_type)
    schema = overload._schema
    tensors = [each.name for each in schema.arguments if "Tensor" in str(each.type)]
    assert tensors == aten.tensors_of(op_type)
    assert not schema.is_mutable
    assert (torch.Tag.nondeterministic_seeded in overload.tags) == (op_type in aten.RANDOM)
    typed = any(each.name == "dtype" for each in schema.arguments)
    assert typed == (op_type in aten.TYPED)
