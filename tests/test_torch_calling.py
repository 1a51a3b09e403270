"""Calls of compiled PyTorch programs: arguments as their caller gives them, in any structure."""

from __future__ import annotations

import copy
import dataclasses
import enum
import random
import re
import warnings
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch import nn
from torch.export import Dim
from torch.utils import _pytree as pytree

import irc
from irc.diagnostics import IrcError
from irc.frontends.torch.parameters import same_constant
from tests.torch_calls import BACKENDS, assert_like, compiled, interpret, sharing

pytestmark = pytest.mark.filterwarnings("ignore")
Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass
class Record:
    first: Any
    second: Any


torch.export.register_dataclass(Record)


# -- random programs -------------------------------------------------------------------------------------------


def leaves_by_key(node: Any) -> list[Any]:
    """The leaves, those of dictionaries in the order of their keys as text."""
    if isinstance(node, dict):
        return [leaf for key in sorted(node, key=str) for leaf in leaves_by_key(node[key])]
    if isinstance(node, (tuple, list, Record)):
        parts = (node.first, node.second) if isinstance(node, Record) else node
        return [leaf for part in parts for leaf in leaves_by_key(part)]
    return [node]


class RandomProgram(nn.Module):
    """Takes a random structure, and gives another one of what it was given, views of that, and what it computes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draw = random.Random(seed)
        self.weight = nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(seed)))
        self.register_buffer("x", torch.zeros(3))  # called as the argument
        self.inputs = {"x": self.structure(3), "more": self.structure(3)}
        self.steps = [
            self.draw.choice("new same view write buffer twice number constant none weight".split())
            for _ in range(self.draw.randint(2, 6))
        ]
        self.choices = [(self.draw.randrange(100), self.draw.randrange(100)) for _ in self.steps]

    def structure(self, depth: int) -> Any:
        kind = self.draw.choice("leaf tuple list dict ordered pair record".split() if depth else ["leaf"])
        if kind == "leaf":
            return ("tensor", self.draw.choice(((3,), (2, 3), (4, 1, 3), (1, 3))))
        parts = [self.structure(depth - 1) for _ in range(2)]
        if kind == "record":
            return Record(*parts)
        keys = self.draw.sample(("a", "b.c", "last", "x", 7), 2)
        makers: dict[str, Callable[[], Any]] = {
            "tuple": lambda: ("of", *parts, "constant"), "list": lambda: [*parts, None], "pair": lambda: Pair(*parts),
            "dict": lambda: dict(zip(keys, parts, strict=True)),
            "ordered": lambda: OrderedDict(zip(keys, parts, strict=True)),
        }  # fmt: skip
        return makers[kind]()

    def arguments(self, seed: int, mixed: bool = False) -> dict[str, Any]:
        """Arguments of the structure; mixed ones have the keys of dictionaries in another order."""
        generator = torch.Generator().manual_seed(seed)

        def filled(node: Any) -> Any:
            if isinstance(node, tuple) and node and node[0] == "tensor":
                return torch.randn(node[1], generator=generator)
            if isinstance(node, (dict, OrderedDict)):
                parts = [(key, filled(part)) for key, part in node.items()]
                return type(node)(parts[::-1] if mixed else parts)
            if isinstance(node, Pair):
                return Pair(*map(filled, node))
            if isinstance(node, Record):
                return Record(filled(node.first), filled(node.second))
            return type(node)(map(filled, node)) if isinstance(node, (tuple, list)) else node

        parts = {name: filled(node) for name, node in self.inputs.items()}
        return dict(reversed(parts.items())) if mixed else parts

    def forward(self, x: Any, more: Any, factor: float = 2.0) -> Any:
        given = [leaf for leaf in leaves_by_key((x, more)) if isinstance(leaf, torch.Tensor)]
        results: list[Any] = []
        for step, (chosen, number) in zip(self.steps, self.choices, strict=True):
            tensor = given[chosen % len(given)]
            if step == "new":
                results.append(tensor * self.weight + factor)
            elif step == "same":
                results.append(tensor)
            elif step == "view":
                results.append((tensor.reshape(-1), tensor.transpose(0, -1), tensor[..., 1:])[number % 3])
            elif step == "write":
                tensor.mul_(number)
            elif step == "buffer":
                self.x.add_(tensor.reshape(-1)[:3])
                results.append(self.x)
            elif step == "twice":
                results += [tensor + number] * 2
            elif step == "number":
                results += [tensor.shape[0], (tensor.sum() * 0 + number).item(), (tensor > 1000).any().item()]
            elif step == "weight":
                results += [self.weight, self.weight + tensor]
            else:
                results.append(None if step == "none" else number)
        half = len(results) // 2
        return {"last": results[-1], "all": results[:half], "more": Pair(tuple(results[half:]), {})}


@pytest.mark.parametrize("seed, backend", [
    *((seed, "interpreter") for seed in range(16)), *((seed, "onnx") for seed in range(16, 26)),
    *((seed, "triton") for seed in range(26, 32)),
])  # fmt: skip
def test_random_structures(seed: int, backend: str) -> None:
    """In both directions, with what is written to arguments and buffers, and what shares memory with what."""
    module, eager = RandomProgram(seed), RandomProgram(seed)
    program = compiled(module, module.arguments(0), backend)
    for call, mixed in ((0, False), (1, True)):
        arguments, theirs = module.arguments(call, mixed), module.arguments(call, mixed)
        given = {name: part for name, part in arguments.items() if name == "more"}
        actual = program(arguments["x"], **given) if mixed else program(**arguments)
        with torch.no_grad():
            expected = eager(**theirs)
        assert_like(actual, expected)
        assert_like((arguments, module.x), (theirs, eager.x))
        mine, others = (
            [*pytree.tree_leaves((each, weight.weight, weight.x)), *pytree.tree_leaves(result)]
            for each, weight, result in ((arguments, module, actual), (theirs, eager, expected))
        )
        assert sharing(mine) == sharing(others)


# -- arguments -------------------------------------------------------------------------------------------------


class Keywords(nn.Module):
    def forward(self, x: Any, y: Any = None, *, mask: Any = None, scale: float = 2.0, mode: str = "a") -> Any:
        return (x if y is None else x - y) * scale + (0 if mask is None else mask)


class Stars(nn.Module):
    def forward(self, x: Any, *others: Any, last: Any, **named: Any) -> Any:
        return x + sum(others) * 2 + last * named["k"]


def three() -> torch.Tensor:
    return torch.randn(3)


def integers() -> torch.Tensor:
    return torch.arange(3, dtype=torch.int32)


T = three  # stands for a new tensor in this table
CALLS: list[tuple[Any, Any, list[Any], list[Any]]] = [
    # A program, its example inputs; calls that it takes; and calls that it does not, with the error.
    (
        Keywords(), ((T, T), {}),
        [((T, T), {}), ((T,), {"y": T}), ((), {"y": T, "x": T}), ((T, T), {"scale": 2.0, "mask": None, "mode": "a"})],
        [(((T,), {}), r"run\.input_dtype.*argument y is missing, or None\n.*f32\[3\]"),
         ((), r"run\.input_missing.*'x'\n.*\(x, y=None, \*, mask=None"),
         (((T, T, T), {}), r"run\.input_unknown.*too many positional"),
         (((T, T), {"x": T}), r"run\.input_unknown.*multiple values for argument 'x'"),
         (((T, T), {"z": T}), r"run\.input_unknown.*keyword argument 'z'"),
         (((T, T), {"mask": T}), r"run\.input_shape.*argument mask is a tensor\n.*None, its default"),
         (((T, T), {"scale": 3.0}), r"run\.input_shape.*argument scale is 3\.0\n.*2\.0, its default"),
         (((T, T), {"scale": 2}), r"run\.input_shape.*argument scale is 2\n.*2\.0"),
         (((T, T), {"mode": "b"}), r"run\.input_shape.*argument mode is 'b'\n.*'a'")],
    ),
    (
        Keywords(), ((), {"mask": T, "x": T, "scale": 3.0}),
        [((T,), {"mask": T, "scale": 3.0}), ((), {"x": T, "scale": 3.0, "mask": T}),
         ((T, None), {"mask": T, "scale": 3.0})],
        [(((T,), {"mask": T}), r"run\.input_shape.*argument scale is 2\.0\n.*3\.0"),
         (((T,), {"mask": T, "scale": True}), r"argument scale is True\n.*3\.0")],
    ),
    (
        Stars(), ((T, T, T), {"last": T, "k": T}),
        [((T, T, T), {"k": T, "last": T})],
        [(((T, T), {"k": T, "last": T}), r"run\.input_missing.*argument others\[1\] is missing"),
         (((T, T, T, T), {"k": T, "last": T}), r"run\.input_unknown.*no argument others\[2\]"),
         (((T, T, T), {"last": T}), r"run\.input_missing.*argument k is missing"),
         (((T, T, T), {"last": T, "k": T, "n": T}), r"run\.input_unknown.*no argument n"),
         (((T, lambda: torch.randn(4), T), {"last": T, "k": T}), r"run\.input_shape.*others\[0\], dim 0 is 4\n.*3")],
    ),
    (
        lambda a, b, /, c: a + b * c, ((T, T, T), {}),
        [((T, T), {"c": T})], [(((T,), {"b": T, "c": T}), r"run\.input_\w+.*'b'")],
    ),
    (
        lambda past, n: past["k"][0] * n + past["v"].left, (({"k": [T], "v": Pair(T, 1)}, 2), {}),
        [(({"v": Pair(T, 1), "k": (T,)}, 2), {}), ((OrderedDict(v=Pair(T, 1), k=[T]), 2), {}),
         ((), {"n": 2, "past": {"k": [T], "v": Pair(T, 1)}})],
        [(({"k": [T]}, 2), r'run\.input_shape.*argument past has no key "v"\n.*"k", "v"'),
         (({"k": [T], "v": Pair(T, 1), "w": T}, 2), r'run\.input_shape.*argument past has a key "w"'),
         (({"k": [T, T], "v": Pair(T, 1)}, 2), r'run\.input_shape.*argument past\["k"\] is a list of 2\n.*list of 1'),
         (({"k": T, "v": Pair(T, 1)}, 2), r'run\.input_shape.*argument past\["k"\] is a tensor\n.*a list of 1'),
         (({"k": [T], "v": (T, 1)}, 2), r'run\.input_shape.*argument past\["v"\] is a tuple of 2\n.*a Pair with 2'),
         (({"k": Pair(T, T), "v": Pair(T, 1)}, 2),
          r'run\.input_shape.*argument past\["k"\] is a Pair of 2\n.*list of 1'),
         (({"k": [3.0], "v": Pair(T, 1)}, 2), r'run\.input_dtype.*argument past\["k"\]\[0\] is 3\.0\n.*f32\[3\]'),
         (({"k": [lambda: np.zeros(3, np.float32)], "v": Pair(T, 1)}, 2),
          r'run\.input_dtype.*past\["k"\]\[0\] is a ndarray\n.*\n.*from_numpy'),
         (({"k": [integers], "v": Pair(T, 1)}, 2), r'run\.input_dtype.*past\["k"\]\[0\] holds i32\n.*f32\[3\]'),
         (({"k": [T], "v": Pair(lambda: torch.randn(3, 1), 1)}, 2),
          r'run\.input_shape.*past\["v"\]\.left has shape \[3, 1\]'),
         (({"k": [T], "v": Pair(T, 2)}, 2), r'run\.input_shape.*argument past\["v"\]\.right is 2\n.*1'),
         (({"k": [T], "v": Pair(T, T)}, 2), r'run\.input_shape.*argument past\["v"\]\.right is a tensor\n.*1'),
         (({"k": [T], "v": Pair(T, 1)}, 2.0), r"run\.input_shape.*argument n is 2\.0\n.*2")],
    ),
    (
        lambda r, d: r.first[0] + d[0] + r.second["q"],
        ((Record([T], defaultdict(list, {"q": T, "p": T})), deque([T])), {}),
        [((Record([T], {"p": T, "q": T}), deque([T])), {})],
        [((Record([T], {"p": T}), deque([T])), r'run\.input_shape.*argument r\.second has no key "q"'),
         ((Record([integers], {"p": T, "q": T}), deque([T])), r"run\.input_dtype.*r\.first\[0\] holds i32"),
         ((Record([T], {"p": T, "q": T}), deque([T, T])), r"run\.input_shape.*argument d is a deque")],
    ),
]  # fmt: skip


def from_tree(tree: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf() if callable(leaf) else leaf, tree)


def as_call(call: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    is_whole = isinstance(call, tuple) and len(call) == 2 and isinstance(call[0], tuple) and isinstance(call[1], dict)
    args, kwargs = call if is_whole else (call, {})
    return from_tree(args), from_tree(kwargs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", range(len(CALLS)))
def test_arguments_are_bound_as_python_does(case: int, backend: str) -> None:
    program, examples, taken, refused = CALLS[case]
    args, kwargs = as_call(examples)
    optimized = compiled(program, args, backend, kwargs=kwargs)
    for call in (examples, *taken):
        torch.manual_seed(1)
        args, kwargs = as_call(call)
        assert_like(optimized(*args, **kwargs), program(*args, **kwargs))
    for call, message in refused:
        args, kwargs = as_call(call)
        with pytest.raises(IrcError, match=message):
            optimized(*args, **kwargs)


def test_example_inputs() -> None:
    linear, x = nn.Linear(3, 3), torch.randn(3, 3)
    with torch.no_grad():
        for inputs in (x, (x,), [x], {"input": x}):
            assert_like(interpret(linear, inputs)(x), linear(x))
        assert_like(irc.compile(linear, x)(x), linear(x))
        assert str(irc.from_torch(linear, x).main.arguments[0].type) == "f32[3, 3]"
        # One tensor twice, or one that is a weight: other calls give two.
        assert_like(interpret(lambda a, b: a - b, (x, x))(x, x * 2), x - x * 2)
        assert_like(interpret(linear, (linear.weight,))(x), linear(x))
    for inputs, message in (
        (np.zeros(3), r"usage\.value.*a ndarray"), (3, r"usage\.value.*a int"), ("x", r"usage\.value.*a str"),
        ({0: x}, r"usage\.value.*key 0"), ((x, x), r"torch\.export.*too many positional"),
        ((), r"torch\.export.*'input'"), ({"y": x}, r"torch\.export.*'input'"),
        ((np.zeros((3, 3)),), r"torch\.tensor.*example input input is a NumPy ndarray"),
        ((x.to_sparse(),), r"torch\.tensor.*example input input is a tensor of the layout sparse_coo"),
    ):  # fmt: skip
        for read in (irc.compile, irc.from_torch):
            with pytest.raises(IrcError, match=message):
                read(linear, inputs)
    with pytest.raises(IrcError, match=r"usage\.arguments"):
        irc.compile("model.onnx", kwargs={"x": x})


def test_fields_that_are_none() -> None:
    """A field that is None is no part of its container: it is that in every call, or in none."""

    def program(record: Record) -> Record:
        return Record(record.first * 2, None if record.second is None else record.second + 1)

    x = torch.randn(3)
    for second, other, message in ((None, x, "second is not None"), (x, None, "second is None")):
        run = interpret(program, (Record(x, second),))
        assert_like(run(Record(x + 1, second)), program(Record(x + 1, second)))
        with pytest.raises(IrcError, match=rf"run\.input_shape.*record\.{message}"):
            run(Record(x, other))


KINDS: dict[str, Callable[[], torch.Tensor]] = {
    "a tensor of the layout sparse_coo": lambda: torch.eye(3).to_sparse(),
    "a tensor of the layout sparse_csr": lambda: torch.eye(3).to_sparse_csr(),
    "a quantized tensor": lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]),
    "a tensor on the device meta": lambda: torch.eye(3, device="meta"),
    "a FakeTensor": lambda: torch._subclasses.FakeTensorMode().from_tensor(torch.eye(3)),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_without_dense_elements(backend: str) -> None:
    optimized = irc.compile(lambda pair: pair["x"] + 1, ({"x": torch.eye(3)},), backend=backend)
    for kind, make in KINDS.items():
        with pytest.raises(IrcError, match=rf'torch\.tensor.*the argument pair\["x"\] is {kind}'):
            optimized({"x": make()})
    with pytest.raises(IrcError, match=r"torch\.tensor.*transformation of torch\.func"):
        torch.func.vmap(lambda x: optimized({"x": x}))(torch.randn(2, 3, 3))
    module = nn.Module()
    module.forward = lambda x: x @ module.w  # type: ignore[method-assign]
    module.register_buffer("w", torch.eye(3).to_sparse())
    with pytest.raises(IrcError, match=r"torch\.(tensor|export|unsupported)"):
        irc.compile(module, (torch.eye(3),), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_that_negate_and_conjugate(backend: str) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            base = torch.arange(1.0, 5.0)
            self.register_buffer("plain", base)
            self.register_buffer("negative", torch._neg_view(base))  # the same memory, read in another way
            self.register_buffer("turned", torch.randn(4, 4).t())
            self.register_buffer("repeated", torch.randn(1).expand(4))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            y.add_(1)
            return x @ self.turned + self.plain * 3 + self.negative + self.repeated

    module, base = Weighted(), torch.randn(4)
    optimized = irc.compile(module, (torch.randn(4), torch.randn(4)), backend=backend)
    for x in (torch._neg_view(base), base.flip(0)[::2].repeat(2), torch.randn(1).expand(4), torch.randn(4, 2)[:, 1]):
        y, theirs = torch._neg_view(torch.arange(4.0)), torch._neg_view(torch.arange(4.0))
        assert_like(optimized(x, y), module(x, theirs))
        assert_like(y, theirs)
    z = torch.randn(3, dtype=torch.complex64)
    for result in (interpret(lambda z: z * 2, (z,))(z.conj()), interpret(lambda z: z * 2, (z.conj(),))(z.conj())):
        assert_like(result, (z.conj() * 2).resolve_conj())


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers(backend: str) -> None:
    """Integers, floats and bools that a run computes, and integers that a call gives."""

    def sizes(x: torch.Tensor, n: int) -> Any:
        return x.shape[0], x.shape[0] * 2 + 1, x.numel() / 2, x.shape[0] > 3, x.expand(n, *x.shape), n, n * x.shape[0]

    optimized = irc.compile(
        sizes, (torch.randn(3, 4), 5), backend=backend, dynamic_shapes=({0: Dim("rows")}, Dim.DYNAMIC)
    )
    for rows, n in ((3, 5), (2, 7), (6, 2)):
        x = torch.randn(rows, 4)
        assert_like(optimized(x, n), sizes(x, n))
    for wrong in (2.0, True, torch.tensor(2)):
        with pytest.raises(IrcError, match=r"run\.input_dtype.*argument n is .*\n.*an int"):
            optimized(torch.randn(3, 4), wrong)

    def items(i: torch.Tensor, f: torch.Tensor, b: torch.Tensor) -> Any:
        return {"i": i.item(), "more": i.item() + 1, "f": f.sum().item(), "b": b.all().item(), "scaled": f * i.item()}

    optimized = irc.compile(items, (torch.tensor(3), torch.randn(2), torch.tensor([True])), backend=backend)
    for i, b in ((0, True), (-5, False), (5_000_000_000, True)):
        arguments = torch.tensor(i), torch.randn(2), torch.tensor([b])
        assert_like(optimized(*arguments), items(*arguments))


@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_of_every_type(backend: str) -> None:
    """Also where the backend computes in NumPy, which has two types of 64-bit integers."""
    for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int64):
        x = torch.tensor([[1, 2, 3], [0, 5, torch.iinfo(dtype).max]], dtype=torch.uint64).to(dtype)
        optimized = irc.compile(lambda x: (x.t(), x.reshape(3, 2)), (x,), backend=backend)
        for result, expected in zip(optimized(x), (x.t(), x.reshape(3, 2)), strict=True):
            assert result.dtype is dtype and result.tolist() == expected.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_results(backend: str) -> None:
    optimized = irc.compile(lambda x: None, (torch.randn(3),), backend=backend)
    assert optimized(torch.randn(3)) is None
    optimized = irc.compile(lambda x: (1, "a", []), (torch.randn(3),), backend=backend)
    assert optimized(torch.randn(3)) == (1, "a", [])


def test_sizes_have_their_own_names() -> None:
    """Whatever the order in which `dynamic_shapes` names the arguments."""

    def function(first: Any, second: Any, *rest: Any) -> Any:
        return first["b"][:, None] + first["a"] + second + rest[0]

    inputs = {"b": torch.randn(3), "a": torch.randn(5)}, torch.randn(5), torch.randn(1)
    rows, columns = {0: Dim("rows")}, {0: Dim("columns")}
    for shapes in ({"second": columns, "rest": (None,), "first": {"a": columns, "b": rows}},
                   ({"a": columns, "b": rows}, columns, (None,))):  # fmt: skip
        module = irc.from_torch(function, inputs, shapes)
        types = {argument.name: str(argument.type) for argument in module.main.arguments}
        assert (types["first_b"], types["first_a"], types["second"]) == ("f32[rows]", "f32[columns]", "f32[columns]")


def test_sizes_beside_shapes_that_say_nothing() -> None:
    """Whatever says that no dim of an argument varies, the names are those of the other argument's dims."""

    def function(x: Any, y: Any, n: int = 2) -> Any:
        return x + y[0] * n, y

    inputs = (torch.randn(3), (torch.randn(4, 3), torch.randn(5)))
    rows = ({0: Dim("rows")}, {0: Dim("count")})
    says_nothing: list[Any] = [({}, rows), (None, rows), [(None,), rows], [{0: Dim.STATIC}, rows], {"x": {}, "y": rows},
                               {"y": rows, "x": None}]  # fmt: skip
    for shapes in says_nothing:
        types = [str(argument.type) for argument in irc.from_torch(function, inputs, shapes).main.arguments]
        assert types == ["f32[3]", "f32[rows, 3]", "f32[count]"], shapes
    module = irc.from_torch(function, (*inputs, 3), ({}, ({}, rows[1]), None))
    types = [str(argument.type) for argument in module.main.arguments]
    assert types == ["f32[3]", "f32[4, 3]", "f32[count]"]
    optimized = irc.compile(lambda x, y: x + y, (torch.randn(3), torch.randn(4, 3)), dynamic_shapes=({}, {0: Dim("B")}))
    x, y = torch.randn(3), torch.randn(7, 3)
    assert_like(optimized(x, y), x + y)


class Mode(enum.Enum):
    FIRST = 1


def test_example_inputs_that_are_no_constants(capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(3)
    for constant in (Mode.FIRST, torch.Generator()):
        named = rf"torch\.unsupported.*argument y_0 is a {type(constant).__name__}"
        with pytest.raises(IrcError, match=named if torch.__version__ >= "2.12" else r"torch\.export"):
            interpret(lambda x, y: x + 1, (x, [constant]))
    for constant in (torch.float32, object(), 1j, slice(2)):
        with pytest.raises(IrcError, match=r"torch\.export"):
            interpret(lambda x, y: x + 1, (x, constant))
    with pytest.raises(IrcError, match=r"torch\.export.*\n.*same reduction dim"):
        interpret(nn.Linear(3, 2), torch.randn(2, 4))
    assert capfd.readouterr() == ("", "")  # PyTorch logs tracebacks


def test_programs_where_models_are_expected() -> None:
    for verb in (irc.run, irc.print, irc.kernels, irc.load):
        for program in (nn.Linear(3, 2), lambda x: x, torch.randn(100)):
            with pytest.raises(IrcError, match=r"usage\.model.*of type \w+\n.*\n.*irc\.from_torch") as caught:
                verb(program)
            assert len(str(caught.value)) < 300
        for other in (None, 5, [1] * 1000, b"model.onnx"):
            with pytest.raises(IrcError, match=r"usage\.model.*of type \w+\n"):
                verb(other)
        with pytest.raises(IrcError, match=r"usage\.model.*x\.\.\.\n"):
            verb("x" * 5000)


# -- what may be written, and what is constant -----------------------------------------------------------------


@pytest.mark.parametrize("backend", ["interpreter", *BACKENDS])
def test_arguments_that_are_not_updated(backend: str) -> None:
    """Nothing is written when a call is rejected."""

    def update(cache: list[torch.Tensor], x: torch.Tensor) -> Any:
        cache[0].add_(1)
        cache[1].sub_(x)
        return x * 2

    new = lambda: torch.zeros(2, 3)  # noqa: E731
    optimized, base = compiled(update, ([new(), new()], new()), backend), torch.zeros(2, 8)
    with torch.inference_mode():
        unwritable = new()
    for cache, x, message in (
        ([base[:, 0:3], new()], base[:, 2:5], r"cache\[0\] and x share memory"),
        ([base[:, 0:6:2], base[:, 2:8:2]], new(), r"cache\[0\] and cache\[1\] share memory"),
        ([new(), base[:, 3:6]], base[:, 3:6], r"cache\[1\] and x share memory"),
        ([new(), torch.zeros(1, 3).expand(2, 3)], new(), r"cache\[1\] has elements that share memory"),
        ([new(), unwritable], new(), r"cache\[1\] is an inference tensor"),
    ):
        with pytest.raises(IrcError, match=rf"run\.input_alias.*argument.* {message}.*updates"):
            optimized(cache, x)
        assert not any(each.any() for each in cache)
    for first, second, x in (
        (base[:, 0:3], base[:, 3:6], base[:, 6:7].expand(2, 3)),
        (base[:, 0:6:2], base[:, 1:7:2], base[:, 7:8].expand(2, 3)),
        (new(), new().t().reshape(3, 2).t(), new()),
    ):
        copies = [each.clone() for each in (first, second, x)]
        assert_like(optimized([first, second], x), update(copies[:2], copies[2]))
        assert_like([first, second, x], copies)


class Appending(nn.Module):
    def forward(self, x: torch.Tensor, cache: dict[str, torch.Tensor]) -> Any:
        cache["k"] = torch.cat([cache["k"], x])
        return cache["k"].sum(0)


CONTAINERS: dict[str, tuple[Any, Any, str | None]] = {
    # A program, its arguments, and which of them it puts other things into.
    "replaced": (Appending(), {"cache": {"k": three}, "x": three}, "cache"),
    "appended": (lambda x, parts: parts[0].append(x), {"x": three, "parts": [[three]]}, "parts"),
    "removed": (lambda x, *parts: parts[1].pop("k") + x, (three, three, {"k": three, "v": three}), r"parts\[1\]"),
    "written": (lambda x, parts: parts[0].add_(x), (three, [three]), None),
    "of its own": (lambda x, parts: [*list(parts), x], (three, [three]), None),
    "keywords": (lambda x, **named: named.pop("k") + x, {"x": three, "k": three}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_that_are_changed(name: str) -> None:
    """Exporting keeps what is written to tensors, and loses what is put into lists and dictionaries: it warns."""
    program, inputs, changed = CONTAINERS[name]
    for read in (irc.from_torch, interpret):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read(program, from_tree(inputs))
        warned = [str(each.message) for each in caught if "puts other things into" in str(each.message)]
        assert len(warned) == (changed is not None)
        assert changed is None or re.search(rf"its argument {changed};.*as results", warned[0])
    assert not (isinstance(program, nn.Module) and (program._forward_hooks or program._forward_pre_hooks))


CONSTANTS: list[tuple[Any, Any]] = [
    (0.0, -0.0), (1, 1.0), (1, True), (2.5, 2), (float("nan"), 0.0), ("a", "b"), (None, 0), ((1, 2), (1.0, 2)),
    ([1, [2]], [1, [True]]), ({"k": 0.0}, {"k": -0.0}), ((1, 2), [1, 2]), ((1,), (1, 2)),
]  # fmt: skip


def test_constants_are_the_same_to_a_program() -> None:
    """As defaults and as arguments: what equals them for Python may be something else."""
    for constant, other in CONSTANTS:
        assert same_constant(constant, copy.deepcopy(constant)) and not same_constant(constant, other)
        assert not same_constant(other, constant)
    optimized = interpret(lambda x, sizes=(1, 2): x * sizes[0], torch.arange(3))
    assert_like(optimized(torch.arange(3), (1, 2)), torch.arange(3))
    with pytest.raises(IrcError, match=r"argument sizes is \(1\.0, 2\)\n.*\(1, 2\), its default"):
        optimized(torch.arange(3), (1.0, 2))
    optimized = interpret(lambda x, y: x / y, (torch.ones(3), 0.0))
    with pytest.raises(IrcError, match=r"argument y is -0\.0\n.*0\.0"):
        optimized(torch.ones(3), -0.0)


@pytest.mark.parametrize("backend", ["onnx", "triton"])
def test_an_argument_without_elements_is_updated_whatever_its_strides(backend: str) -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        x.relu_()
        return x + 1

    x = torch.empty_strided((0, 2, 3), (0, 0, 0))
    assert torch.equal(irc.compile(program, (x,), backend=backend)(x), program(x))
