"""`dynamic_shapes`: which dims of a PyTorch program are dynamic, as users state it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch.export import Dim

import irc
from irc.diagnostics import IrcError
from irc.frontends.torch.dynamic_shapes import ranges_in
from irc.frontends.torch.guards import KEPT_APART

pytestmark = pytest.mark.filterwarnings("ignore")


def types(compiled: Any) -> list[str]:
    return [str(argument.type) for argument in compiled.module.main.arguments]


def of_all(x: Any, y: Any = None, *rest: Any, more: Any = None, **others: Any) -> Any:
    tensors = [x, *([y] if y is not None else []), *rest, *(more or {}).values(), *others.values()]
    return [tensor * 2 for tensor in tensors]


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("args", "kwargs", "shapes", "expected"),
    [((ones(2, 3),), {}, {"x": {0: "B"}}, ["f32[B, 3]"]),
     ((ones(2, 3),), {}, {"x": ("B", None)}, ["f32[B, 3]"]),
     ((ones(2, 3),), {}, ({0: "B"},), ["f32[B, 3]"]),
     ((ones(2, 3),), {}, {"x": {0: Dim("B"), 1: "N"}}, ["f32[B, N]"]),
     ((ones(2, 3), ones(2)), {}, {"y": {0: "B"}, "x": {0: "B"}}, ["f32[B, 3]", "f32[B]"]),
     ((ones(2, 3), ones(4)), {}, {"y": {0: "B"}}, ["f32[2, 3]", "f32[B]"]),
     ((ones(2), ones(2), ones(3), ones(4)), {}, {"rest": (None, {0: "B"})}, ["f32[2]", "f32[2]", "f32[3]", "f32[B]"]),
     ((ones(2),), {"more": {"b": ones(3), "a": ones(4)}}, {"more": {"a": {0: "B"}}}, ["f32[2]", "f32[3]", "f32[B]"]),
     ((ones(2),), {"p": ones(3), "q": ones(4)}, {"q": {0: "B"}}, ["f32[2]", "f32[3]", "f32[B]"]),
     ((ones(2),), {"p": ones(3)}, {"others": {"p": {0: "B"}}}, ["f32[2]", "f32[B]"])],
)  # fmt: skip
def test_arguments_may_be_left_out_and_dims_given_by_name(args: Any, kwargs: Any, shapes: Any, expected: Any) -> None:
    compiled = irc.compile(of_all, args, kwargs=kwargs, dynamic_shapes=shapes)
    assert sorted(types(compiled)) == sorted(expected)
    for one, other in zip(compiled(*args, **kwargs), of_all(*args, **kwargs), strict=True):
        assert torch.equal(one, other)


def test_the_range_of_a_named_dim_is_what_the_program_allows() -> None:
    table = torch.randn(64, 4)

    def program(x: torch.Tensor) -> torch.Tensor:
        return x + table[: x.shape[0]]

    compiled = irc.compile(program, (torch.randn(5, 4),), dynamic_shapes={"x": {0: "S"}})
    x = torch.randn(64, 4)
    torch.testing.assert_close(compiled(x), program(x))
    with pytest.raises(IrcError, match=r"run\.dim_range"):
        compiled(torch.randn(65, 4))


def test_a_named_dim_that_must_be_a_number_is_an_error() -> None:
    with pytest.raises(IrcError) as error:
        irc.compile(lambda x: x.reshape(2, 3), (ones(6),), dynamic_shapes={"x": {0: "S"}})
    assert error.value.code == "torch.export"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [({"z": {0: "B"}}, "dynamic_shapes has the argument `z`"),
     ({"x": {0: "a b"}}, "a dim with the name 'a b'")],
)  # fmt: skip
def test_other_names_are_errors(shapes: Any, message: str) -> None:
    with pytest.raises(IrcError, match=message) as error:
        irc.compile(lambda x: x + 1, (ones(2, 3),), dynamic_shapes=shapes)
    assert error.value.code == "usage.value"


def test_ranges_that_pytorch_suggests() -> None:
    suggested = ["S = Dim('S', min=2, max=64)", "T = 4", "U = 2*_U", "V = Dim('V')"]
    message = "\n  ".join(["Constraints violated (S)!\nSuggested fixes:", *suggested])
    assert ranges_in(message) == {"S": {"min": 2, "max": 64}, "T": None, "U": None, "V": None}
    assert ranges_in("no suggestion: S = Dim('S', max=3)") == {}


def model_of(name: str) -> tuple[Any, torch.Tensor]:
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 100, "bos_token_id": None, "eos_token_id": None}
    if name == "bert":
        config = transformers.BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                                         intermediate_size=64, max_position_embeddings=64)  # fmt: skip
        model = transformers.BertModel(config)
    elif name == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **small)
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                          num_key_value_heads=2, intermediate_size=64, **small)  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    return model.eval(), torch.randint(0, 100, (2, 8))


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_models_of_transformers_with_a_dictionary_of_inputs(name: str) -> None:
    model, ids = model_of(name)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    dynamic = {"input_ids": {1: "S"}, "attention_mask": {1: "S"}}
    compiled = irc.compile(model, inputs, dynamic_shapes=dynamic)
    if name != "llama" or torch.__version__ >= "2.12":  # where the mask has a symbol of its own, guarded to be equal
        assert types(compiled) == ["i64[2, S]", "i64[2, S]"]
    longer = {"input_ids": torch.randint(0, 100, (2, 13)), "attention_mask": torch.ones(2, 13, dtype=torch.int64)}
    with torch.no_grad():
        ours, theirs = compiled(**longer), model(**longer)
    assert type(ours) is type(theirs)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)


def test_caches_of_transformers_as_arguments_and_results() -> None:
    model, ids = model_of("llama")
    with torch.no_grad():
        first = model(input_ids=ids)
        cache = next(value for value in first.values() if not isinstance(value, torch.Tensor))
        key = next(name for name, value in first.items() if value is cache)
        step = {"input_ids": ids[:, :1], key: cache}
        compiled = irc.compile(model, step, dynamic_shapes={key: [[{2: "P"}] * 2] * 2})
        ours = compiled(**step)
        assert cache.layers[0].keys.shape[2] == 8
        theirs = model(**step)
    assert ours[key].layers[1].values.shape[2] == 9
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-5, atol=1e-5)
    for one, other in zip(ours[key].layers, theirs[key].layers, strict=True):
        torch.testing.assert_close(one.keys, other.keys)
        torch.testing.assert_close(one.values, other.values)


# -- guards: programs that are exported for some sizes only ----------------------------------------------------


class Branches(torch.nn.Module):
    """Takes another branch for sizes that are less than half as large, together."""

    def forward(self, x: torch.Tensor, past: dict[str, torch.Tensor], *, n: int = 3) -> torch.Tensor:
        if x.shape[0] * x.shape[1] > 20:
            x = x * 2
        if x.shape[0] / past["k"].shape[0] < 0.75 and past["k"].shape[0] % x.shape[0] == 1:
            x = x + 1
        return x + past["k"].sum() if max(x.shape[0] + n, x.shape[1]) < 5 + n else x


def branching(backend: Any) -> Any:
    dynamic = {"x": {0: "S", 1: "B"}, "past": {"k": {0: "K"}}, "n": Dim.DYNAMIC}
    example = (torch.randn(4, 7), {"k": torch.randn(9)})
    return irc.compile(Branches(), example, kwargs={"n": 4}, backend=backend, dynamic_shapes=dynamic)


@pytest.mark.parametrize("backend", ["onnx", "triton"])
def test_other_sizes_than_a_program_is_exported_for_are_refused(backend: Any) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
    compiled = branching(backend)
    for s, b, k, n in [(4, 7, 9, 4), (3, 7, 7, 5), (4, 8, 13, 9)]:
        given = torch.randn(s, b), {"k": torch.randn(k)}
        torch.testing.assert_close(compiled(*given, n=n), Branches()(*given, n=n))
    for s, b, k, n, said in [(2, 7, 9, 4, r"x.shape\[1\] \* x.shape\[0\] > 20"), (4, 7, 8, 4, r"% x.shape\[0\] == 1"),
                             (4, 7, 5, 4, "< 0.75"), (4, 12, 9, 1, r"max\(")]:  # fmt: skip
        with pytest.raises(IrcError, match=said) as caught:
            compiled(torch.randn(s, b), {"k": torch.randn(k)}, n=n)
        assert caught.value.code == ("run.assert" if backend == "onnx" else "backend.failed")


def test_assertions_read_numbers_that_are_tensors() -> None:
    def program(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return x[n.long() % 2] if x.shape[0] * x.shape[1] > 20 else x

    for dtype in (torch.int64, torch.int8, torch.bool):
        one = torch.ones((), dtype=dtype)
        compiled = irc.compile(program, (torch.randn(4, 6), one), dynamic_shapes=({0: "S", 1: "B"}, None))
        for x in (torch.randn(5, 6), torch.randn(2, 12)):
            torch.testing.assert_close(compiled(x, one), program(x, one))
        with pytest.raises(IrcError) as error:
            compiled(torch.randn(4, 3), one)
        assert error.value.code == "run.assert"


def test_guards_that_are_not_understood_are_named() -> None:
    dynamic = {"x": {0: Dim("S"), 1: Dim("B")}, "past": {"k": {0: Dim("K")}}}
    program = torch.export.export(Branches(), (torch.randn(4, 7), {"k": torch.randn(9)}), dynamic_shapes=dynamic)
    for text in ("L['x'].stride()[0] == 7", "open('f') == 1", "L['y'].size()[0] > 1", "(" * 300, "1" + "+1" * 4900,
                 "1 // 0 == 1", "L['x'].size()[0] @ 9 > 1", "[1] == 1"):  # fmt: skip
        setattr(program, KEPT_APART, [text, "L['x'].size()[0] > 3"])
        with pytest.warns(UserWarning, match="under a condition that irc does not check"):
            module = irc.from_torch(program)
        assert sum(operation.name == "assert" for operation in module.main.block) == 1


def of_item(x: torch.Tensor) -> Any:
    return x[0, 0].item()


NUMBERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "signs": lambda x: x * -of_item(x) + abs(of_item(x)),
    "sizes": lambda x: x * -x.shape[0] + abs(3 - x.shape[0]) - max(x.shape[0], 4) * min(x.shape[0], 5),
    "whole": lambda x: x * math.floor(of_item(x)) + math.ceil(of_item(x)) - math.trunc(of_item(x)) * round(of_item(x)),
    "quotients": lambda x: x * (of_item(x) // 2.0) + of_item(x) % 2.0 - of_item(x) / 3 + x.shape[0] / 4,
    "remainders": lambda x: x * (x.shape[0] // 2) + x.shape[0] % 3,
    "powers": lambda x: x * x.shape[0] ** 2 + x.shape[0] ** 0.5 + abs(of_item(x)) ** 1.5,
    "bits": lambda x: x * (x.shape[0] & 6) + (x.shape[0] | 8) + (x.shape[0] >> 1) - (x.shape[0] << 2),
    "roots": lambda x: x * torch._sym_sqrt(abs(of_item(x))),
    "chosen": lambda x: x * torch.sym_ite(of_item(x) > 0, of_item(x), -3 * of_item(x)) + torch.sym_float(x.shape[0]),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_programs_are_those_of_python(name: str) -> None:
    program = NUMBERS[name]
    compiled = irc.compile(program, (torch.ones(6, 4),), dynamic_shapes=({0: "B"},))
    for rows, first in ((6, 1.25), (2, -1.5), (9, 2.5), (5, -0.75), (40, -2.5), (7, 0.5)):
        x = torch.linspace(-2, 3, rows * 4).reshape(rows, 4)
        x[0, 0] = first
        torch.testing.assert_close(compiled(x), program(x))


@pytest.mark.parametrize("of_size", [lambda n: int(n * 0.5), lambda n: n & 4])
def test_guards_have_the_functions_of_numbers(of_size: Any) -> None:
    """PyTorch exports a program that branches on them for the sizes that take the branch of the example."""
    compiled = irc.compile(lambda x: x * 2 if of_size(x.shape[0]) == of_size(6) else x, (ones(6),),
                           dynamic_shapes=({0: "B"},))  # fmt: skip
    torch.testing.assert_close(compiled(ones(6)), ones(6) * 2)
    with pytest.raises(IrcError) as error:
        compiled(ones(11))
    assert error.value.code == "run.assert"
