"""PyTorch's own examples of its modules (module_db) and of programs to export (exportdb): interpreted and compiled with
both backends, against eager PyTorch.

Quick runs take the first example of every eighth module and every eighth program, `-m slow` all examples, and modules
in training mode too where that differs.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("triton")
pytest.importorskip("expecttest")

import torch
from torch._export.db.examples import all_examples
from torch.testing._internal.common_modules import module_db
from torch.utils import _pytree as pytree

from irc.diagnostics import IrcError
from irc.driver.callables import imported_program
from tests.operator_paths import SEED, difference, plain, runs, said

STRIDE = 8  # of the modules and the programs in a quick run
MODULES = {info.name.removeprefix("nn."): info for info in module_db}
PROGRAMS = all_examples()
# Their samples have draws of f64 only; the backend onnx, which calls no PyTorch, rejects them.
IN_F64 = {"FractionalMaxPool2d", "FractionalMaxPool3d"}
# What PyTorch does not export, with a part of its words.
NOT_EXPORTED = {"GaussianNLLLoss": "data-dependent", "CTCLoss": "_ctc_loss"}
pytestmark = pytest.mark.filterwarnings("ignore")


def copied(arguments: Any) -> Any:
    return pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, arguments)


def check(module: torch.nn.Module, args: Any, kwargs: Any, is_unsupported: bool = False) -> None:
    """Compare a module on every path with eager PyTorch, with the tolerances of `torch.testing`. The backend onnx may
    reject it by name where that is said."""
    torch.manual_seed(SEED)
    with torch.no_grad():
        expected = pytree.tree_leaves(copy.deepcopy(module)(*copied(args), **copied(kwargs)))
    imported, convention = imported_program(module, copied(args), kwargs=copied(kwargs))
    for path, make in runs(imported, convention).items():
        try:
            program = make()
        except IrcError as error:
            assert path == "onnx" and is_unsupported and error.code == "backend.unsupported", said(error)
            continue
        torch.manual_seed(SEED)
        actual = pytree.tree_leaves(program(*copied(args), **copied(kwargs)))
        for one, other in zip(actual, expected, strict=True):
            if isinstance(other, torch.Tensor):
                assert not difference("", plain(one), plain(other), None), path
            else:
                assert one == other, path


def dtype_of(name: str) -> torch.dtype:
    return torch.float64 if name in IN_F64 else torch.float32


def examples(name: str, training: bool) -> Any:
    info = MODULES[name]
    inputs = info.module_inputs_func(info, device="cpu", dtype=dtype_of(name), requires_grad=False, training=training)
    return [each for each in inputs if each.forward_input is not None]


def check_example(name: str, example: Any, training: bool) -> None:
    torch.manual_seed(0)
    module = MODULES[name].module_cls(*example.constructor_input.args, **example.constructor_input.kwargs)
    module = module.to(dtype_of(name)).train(training)
    args, kwargs = example.forward_input.args, example.forward_input.kwargs
    if name.startswith("Lazy"):
        module(*copied(args), **copied(kwargs))  # which gives its parameters their shapes
    if name not in NOT_EXPORTED:
        check(module, args, kwargs, is_unsupported=training or name in IN_F64)
        return
    with pytest.raises(IrcError) as caught:
        check(module, args, kwargs)
    assert caught.value.code == "torch.export" and NOT_EXPORTED[name] in said(caught.value)


def some_quick(names: Any) -> Any:
    return pytest.mark.parametrize("name", [
        pytest.param(name, marks=[] if index % STRIDE == 0 else pytest.mark.slow)
        for index, name in enumerate(sorted(names))])  # fmt: skip


@some_quick(MODULES)
def test_the_first_example_of_each_module(name: str) -> None:
    check_example(name, examples(name, training=False)[0], training=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODULES) - set(NOT_EXPORTED)))
def test_all_examples_of_modules(name: str) -> None:
    for training in (False, True)[: 1 + MODULES[name].train_and_eval_differ]:
        for example in examples(name, training):
            check_example(name, example, training)


@some_quick(PROGRAMS)
def test_programs_to_export(name: str) -> None:
    case = PROGRAMS[name]
    check(case.model, case.example_args, case.example_kwargs)
