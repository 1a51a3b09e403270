"""How a program is called, as data that JSON holds and tensors, and back: `stated_call` and `restored_call`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export.graph_signature import (
    ConstantArgument,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)

from irc import dims
from irc.diagnostics import IrcError, fail
from irc.dims import Dim
from irc.frontends.torch.calling import Call, Convention, overlap, pairs_in_memory
from irc.frontends.torch.live_weights import Weights
from irc.frontends.torch.parameters import Parameters
from irc.frontends.torch.plain_data import (
    Unsaved,
    restored,
    restored_step,
    restored_structure,
    stated,
    stated_step,
    stated_structure,
)
from irc.frontends.torch.results import Reference, Result, Results, laid_out, order_in_memory
from irc.frontends.torch.tensors import constant
from irc.ir import Function
from irc.torch_arrays import to_tensor
from irc.weights import Tensor

ARGUMENTS = {each.__name__.removesuffix("Argument"): each
             for each in (TensorArgument, SymIntArgument, SymFloatArgument, SymBoolArgument)}  # fmt: skip


OF = inspect.Parameter
KINDS = {kind.name: kind for kind in (OF.POSITIONAL_ONLY, OF.POSITIONAL_OR_KEYWORD, OF.VAR_POSITIONAL, OF.KEYWORD_ONLY,
                                      OF.VAR_KEYWORD)}  # fmt: skip


def stated_call(convention: Convention) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A convention as data, and the tensors that it holds: what the program writes, and what it gives as it is. Raises
    `compiled.unsaved`."""
    results = convention.results
    needed = {*convention.taken, *convention.updated}
    names = set[str]()
    for result in results.results:
        names |= {result.name, result.base or ""}
        names |= {each for step in result.path or () for each in _references((step.args, step.kwargs))}
    arguments = {name: placeholder for name, placeholder in results.arguments.items() if name in names}
    needed.update(arguments.values())
    held, tensors = _stated_tensors({name: each for name, each in convention.held.items() if name in needed})
    return {
        "signature": [_stated_parameter(each) for each in convention.parameters.signature.parameters.values()],
        "inputs": stated_structure(convention.inputs),
        "outputs": stated_structure(convention.outputs),
        "given": [_stated_argument(each) for each in convention.given],
        "returned": [_stated_argument(each) for each in convention.returned],
        "taken": list(convention.taken),
        "updated": list(convention.updated),
        "names": dict(convention.names),
        "results": [_stated_result(each) for each in results.results],
        "arguments": arguments,
        "held": held,
    }, tensors


def restored_call(data: Mapping[str, Any], tensors: Mapping[str, Tensor], function: Function) -> Convention:
    """The convention that `stated_call` gave, for a function of the same arguments. Raises `compiled.class`, and
    KeyError, TypeError or ValueError for data that is none."""
    inputs = restored_structure(data["inputs"])
    signature = inspect.Signature([_restored_parameter(each) for each in data["signature"]])
    results = Results([_restored_result(each) for each in data["results"]], dict(data["arguments"]))
    taken = list(data["taken"])
    convention = RestoredConvention(
        Parameters.of_signature(signature, inputs), results, inputs, restored_structure(data["outputs"]),
        [_restored_argument(each) for each in data["given"]], [_restored_argument(each) for each in data["returned"]],
        taken, list(data["updated"]), _restored_tensors(data["held"], tensors),
        dict(zip(taken, (argument.type for argument in function.arguments), strict=True)), dict(data["names"]),
        Weights())  # fmt: skip
    known = {*convention.held, *(each.name for each in convention.given)}
    if not known.issuperset((*taken, *convention.updated, *results.arguments.values())):
        raise ValueError("it takes what is neither an argument nor held")
    if len(convention.parameters.labels) != len(convention.given) or inputs.num_leaves != len(convention.given):
        raise ValueError("its arguments are not as many as its parameters have")
    if not len(convention.returned) == len(results.results) == convention.outputs.num_leaves:
        raise ValueError("its results are not as many as its structure has")
    _check_types(convention, function)
    return convention


class RestoredConvention(Convention):
    """That of a loaded program. That its results cannot be made as the data state shows when they are made."""

    def result(self, tensors: Sequence[torch.Tensor], call: Call) -> Any:
        try:
            return super().result(tensors, call)
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise fail("compiled.folder", f"the saved program does not say how its results are made: {error!r:.200}",
                       help="compile and save the program again") from error  # fmt: skip


def _check_types(convention: Convention, function: Function) -> None:
    """Raise ValueError where the function does not give what the convention returns, with as many dims as it orders,
    and what it updates, in its shape."""
    computed = [result for result, each in zip(convention.results.results, convention.returned, strict=True)
                if not isinstance(each, ConstantArgument)]  # fmt: skip
    given = [value.type for value in function.returned]
    if len(given) != len(computed) + len(convention.updated):
        raise ValueError(f"its code gives {len(given)} results")
    for result, type_ in zip(computed, given, strict=False):
        if result.order is not None and len(result.order) != type_.rank:
            raise ValueError(f"{result.name}, with the order {result.order}, is {type_}")
    for name, new in zip(convention.updated, given[len(computed):], strict=True):
        old = convention.types.get(name)
        shape: Sequence[Dim] | None = convention.held[name].shape if old is None else old.shape
        if shape is None or new.shape is None or len(shape) != len(new.shape) or any(
                dims.equal(*pair) is False for pair in zip(shape, new.shape, strict=True)):  # fmt: skip
            raise ValueError(f"{name} is updated by {new}")


def _references(value: Any) -> list[str]:
    if isinstance(value, Reference):
        return [value.name]
    parts: Sequence[Any] = list(value.values()) if isinstance(value, dict) else value
    return [name for part in parts for name in _references(part)] if isinstance(parts, (tuple, list)) else []


def _stated_parameter(parameter: inspect.Parameter) -> dict[str, Any]:
    plain = {"name": parameter.name, "kind": parameter.kind.name}
    if parameter.default is parameter.empty:
        return plain
    try:
        return plain | {"default": stated(parameter.default)}
    except IrcError:  # only a call that gives it would compare it
        return plain | {"default": stated(Unsaved(f"{parameter.default!r:.100}"))}


def _restored_parameter(data: Mapping[str, Any]) -> inspect.Parameter:
    default = restored(data["default"]) if "default" in data else inspect.Parameter.empty
    return inspect.Parameter(data["name"], KINDS[data["kind"]], default=default)


def _stated_argument(argument: Any) -> dict[str, Any]:
    if isinstance(argument, ConstantArgument):
        return {"kind": "Constant", "name": argument.name, "value": stated(argument.value)}
    kind = type(argument).__name__.removesuffix("Argument")
    if kind not in ARGUMENTS:
        raise fail("compiled.unsaved", f"the program takes or gives {argument.name}, a {kind}")
    return {"kind": kind, "name": argument.name}


def _restored_argument(data: Mapping[str, Any]) -> Any:
    if data["kind"] == "Constant":
        return ConstantArgument(data["name"], restored(data["value"]))
    return ARGUMENTS[data["kind"]](data["name"])


def _stated_result(result: Result) -> dict[str, Any]:
    path = None if result.path is None else [stated_step(step) for step in result.path]
    return {"name": result.name, "path": path, "base": result.base, "order": result.order and list(result.order)}


def _restored_result(data: Mapping[str, Any]) -> Result:
    path = None if data["path"] is None else tuple(map(restored_step, data["path"]))
    order = None if data["order"] is None else tuple(data["order"])
    if order is not None and sorted(order) != list(range(len(order))):
        raise ValueError(f"{data['order']} is no order of dims")
    return Result(data["name"], path, data["base"], order)


def _stated_tensors(held: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Tensors by placeholder: where each is stored and how it lies in memory; one that has two names is stored once."""
    places: dict[str, Any] = {}
    stored: dict[str, Tensor] = {}
    first_names: dict[int, str] = {}
    for name, tensor in held.items():
        if not isinstance(tensor, torch.Tensor):
            raise fail("compiled.unsaved", f"the program holds {name}, a {type(tensor).__name__}")
        place = first_names.setdefault(id(tensor), name)
        if place == name:
            stored[name] = constant(tensor, name)
        order = order_in_memory(tensor)
        places[name] = {"tensor": place, "order": order and list(order), "needs_gradient": tensor.requires_grad,
                        "is_parameter": isinstance(tensor, torch.nn.Parameter)}  # fmt: skip
    names = list(stored)
    for one, other in pairs_in_memory([held[name] for name in names]):
        if overlap(held[names[one]], held[names[other]]):
            raise fail("compiled.unsaved", f"the program holds {names[other]} and {names[one]}, which share memory",
                       help="let the program hold tensors with memory of their own")  # fmt: skip
    return places, stored


def _restored_tensors(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    by_place: dict[str, torch.Tensor] = {}
    for each in data.values():
        name = each["tensor"]
        if name not in by_place:
            array = tensors[name].array()
            order = None if each["order"] is None else tuple(each["order"])
            if order is not None and sorted(order) != list(range(array.ndim)):
                raise ValueError(f"{each['order']} is no order of the dims of {name}")
            tensor = laid_out(to_tensor(array.copy(), tensors[name].dtype), order)
            is_parameter, needs_gradient = bool(each["is_parameter"]), bool(each["needs_gradient"])
            by_place[name] = torch.nn.Parameter(tensor, needs_gradient) if is_parameter else tensor
    return {name: by_place[each["tensor"]] for name, each in data.items()}
