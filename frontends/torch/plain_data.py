"""Python's constants, structures of arguments, and steps of views as data that JSON holds, and back.

Reading imports nothing and calls nothing of the data's choosing: classes are those that this process has imported, and
the functions of steps are views of ATen and arithmetic of sizes.
"""

from __future__ import annotations

import enum
import math
import operator
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from irc.diagnostics import fail
from irc.frontends.torch.parameters import is_record, register_caches, register_record
from irc.frontends.torch.results import OF_SIZES, Reference, Step

LEAF = "*"
PLAIN = (bool, int, str, type(None))
OF_TORCH = (torch.dtype, torch.layout, torch.memory_format)
CONTAINERS: dict[str, Any] = {
    "tuple": tuple, "list": list, "dict": dict, "OrderedDict": OrderedDict, "defaultdict": defaultdict, "deque": deque,
}  # fmt: skip
NAMES = {kind: name for name, kind in CONTAINERS.items()}
# Of ATen's other private functions some, such as _reshape_alias, read outside of a tensor's memory.
PRIVATE_VIEWS = frozenset({"_conj.default", "_neg_view.default"})


class Unsaved:
    """Stands for a default that was not saved: equal to nothing."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def stated(value: Any) -> Any:
    """A constant as data. Raises `compiled.unsaved` for what is neither a constant of Python or of PyTorch, nor a
    tuple, list or dictionary of such."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is complex:
        return {"complex": [stated(value.real), stated(value.imag)]}
    if kind is list or isinstance(value, torch.fx.immutable_collections.immutable_list):
        return [stated(each) for each in value]
    if kind in (tuple, torch.Size):
        return {"tuple": [stated(each) for each in value]}
    if kind is dict:
        return {"dict": [[stated(name), stated(each)] for name, each in value.items()]}
    if isinstance(value, OF_TORCH):
        return {"torch": str(value).removeprefix("torch.")}
    if kind is torch.device:
        return {"device": str(value)}
    if kind is Reference:
        return {"value": value.name}
    if kind is Unsaved:
        return {"unsaved": value.text}
    if isinstance(value, enum.Enum):
        return {"enum": [class_name(kind), value.name]}
    if isinstance(value, type):
        return {"class": class_name(value)}
    raise fail("compiled.unsaved", f"the program has {value!r:.100}, which is no constant",
               expected="numbers, texts, None, and tuples, lists and dictionaries of such")


def restored(data: Any) -> Any:
    """The constant that `stated` gave. Raises ValueError for data that is none, and `compiled.class`."""
    if type(data) in (*PLAIN, float):
        return data
    if isinstance(data, list):
        return [restored(each) for each in data]
    (kind, content), *others = data.items()
    if others or kind not in READERS:
        raise ValueError(f"there is no constant {data!r:.100}")
    return READERS[kind](content)


def _of_torch(name: str) -> Any:
    value = getattr(torch, name)
    if not isinstance(value, OF_TORCH):
        raise ValueError(f"torch.{name} is no constant")
    return value


def _member(content: Any) -> Any:
    kind = class_named(content[0])
    if not issubclass(kind, enum.Enum):
        raise ValueError(f"{content[0]} is no enumeration")
    return kind[content[1]]


READERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "complex": lambda parts: complex(*map(restored, parts)),
    "tuple": lambda parts: tuple(map(restored, parts)),
    "dict": lambda pairs: {restored(name): restored(each) for name, each in pairs},
    "torch": _of_torch,
    "device": torch.device,
    "value": Reference,
    "unsaved": Unsaved,
    "enum": _member,
    "class": lambda name: class_named(name),
}


def class_name(kind: type) -> str:
    """How a class is found again. Raises `compiled.unsaved` for one that its module does not have under its name."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _lookup(name) is not kind:
        raise fail("compiled.unsaved", f"the class {kind.__qualname__} is not found by its name in {kind.__module__}",
                   help="define it at the top of a module")  # fmt: skip
    return name


def class_named(name: str) -> Any:
    """The class of a name, in a module that is imported. Raises `compiled.class`."""
    kind = _lookup(name)
    if not isinstance(kind, type):
        module, _, inner = name.partition(":")
        raise fail("compiled.class", f"the saved program takes or gives {inner or name} of {module}",
                   expected="a module that is imported and has this class", help=f"import {module} before loading")
    return kind


def _lookup(name: str) -> Any:
    module, _, path = name.partition(":")
    value: Any = sys.modules.get(module)
    for part in path.split("."):  # attributes that modules compute may import others
        value = getattr(value, "__dict__", {}).get(part)
    return value


# -- structures ------------------------------------------------------------------------------------------------


def stated_structure(structure: pytree.TreeSpec) -> Any:
    """A structure as data. Raises `compiled.unsaved`."""
    if structure.is_leaf():
        return LEAF
    kind, parts = structure.type, [stated_structure(part) for part in structure.children()]
    if kind is pytree.namedtuple:
        return {"named": class_name(structure.context), "parts": parts}
    name = NAMES.get(kind) or class_name(kind)
    return {"kind": name, "context": stated(structure.context), "parts": parts}


def restored_structure(data: Any) -> pytree.TreeSpec:
    """The structure that `stated_structure` gave. Raises ValueError, and `compiled.class` for a class that PyTorch does
    not know as a container."""
    if data == LEAF:
        return pytree.tree_structure(0)
    parts = [restored_structure(part) for part in data["parts"]]
    if "named" in data:
        named = class_named(data["named"])
        if not pytree.is_namedtuple_class(named) or len(named._fields) != len(parts):
            raise ValueError(f"{data['named']} is no named tuple of {len(parts)}")
        return pytree.TreeSpec(pytree.namedtuple, named, parts)
    kind = CONTAINERS.get(data["kind"]) or class_named(data["kind"])
    if kind not in pytree.SUPPORTED_NODES and kind.__module__.startswith("transformers."):
        register_caches()
    if kind not in pytree.SUPPORTED_NODES and isinstance(kind, type) and is_record(kind):
        register_record(kind)
    if kind not in pytree.SUPPORTED_NODES:
        raise fail("compiled.class", f"PyTorch does not know {data['kind']} as a container of tensors",
                   help="register it before loading, as torch.export.register_dataclass does")
    context = restored(data["context"])
    if kind in NAMES and not _fits(kind, context, len(parts)):
        raise ValueError(f"{context!r:.100} is not of a {data['kind']} of {len(parts)}")
    return pytree.TreeSpec(kind, context, parts)


def _fits(kind: Any, context: Any, parts: int) -> bool:
    """Whether PyTorch makes a container with so many parts of this context."""
    if kind in (tuple, list):
        return context is None
    if kind is deque:
        return context is None or (type(context) is int and context >= 0)
    if kind is defaultdict:
        if not isinstance(context, list) or len(context) != 2 or not (context[0] is None or callable(context[0])):
            return False
        context = context[1]
    return isinstance(context, list) and len(dict.fromkeys(context)) == parts


# -- steps of views --------------------------------------------------------------------------------------------


def stated_step(step: Step) -> dict[str, Any]:
    """A step as data. Raises `compiled.unsaved`."""
    target = None if step.target is None else _function_name(step.target)
    return {"name": step.name, "target": target, "args": stated(step.args), "kwargs": stated(dict(step.kwargs))}


def restored_step(data: Any) -> Step:
    """The step that `stated_step` gave; raises ValueError for a function that is no view."""
    name, kwargs = data["target"], restored(data["kwargs"])
    return Step(data["name"], None if name is None else _function(name), restored(data["args"]), kwargs)


def _function_name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        name = str(target)
    else:
        name = f"{target.__module__.removeprefix('_')}.{getattr(target, '__name__', '')}"
    try:
        assert _function(name) is target
    except (ValueError, AssertionError):
        raise fail("compiled.unsaved", f"a result is a view by {name}, which is no view of ATen",
                   help="let the program give a copy of it") from None  # fmt: skip
    return name


def _function(name: str) -> Any:
    namespace, _, rest = name.partition(".")
    function = None
    if namespace == "operator":
        function = getattr(operator, rest, None)
    elif namespace == "aten" and (not rest.startswith("_") or rest in PRIVATE_VIEWS):
        packet, _, overload = rest.partition(".")
        function = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    if function is None or not (function in OF_SIZES or getattr(function, "is_view", False) or _may_view(function)):
        raise ValueError(f"{name} is no view")
    return function


def _may_view(function: Any) -> bool:
    """Whether an operation of ATen writes nothing, and takes tensors first: einsum and others may give a view."""
    schema = getattr(function, "_schema", None)
    if schema is None or schema.is_mutable or not schema.arguments:
        return False
    return any(kind.isSubtypeOf(each) for kind in (schema.arguments[0].type, schema.arguments[-1].type)
               for each in (torch._C.TensorType.get(), torch._C.ListType.ofTensors()))  # fmt: skip
