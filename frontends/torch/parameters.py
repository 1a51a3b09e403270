"""The parameters of a PyTorch program: which argument of a call is which leaf of its example inputs.

A call binds arguments as Python does: positional, by keyword, or left to their defaults. What it gives must have the
structure of the example inputs, whose leaves are then in the order in which PyTorch exported them. Errors name an
argument as its caller does: `past["k"][0]`.
"""

from __future__ import annotations

import inspect
import json
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from irc.diagnostics import IrcError, check_argument, fail

DICTIONARIES = (dict, OrderedDict, defaultdict)
SEQUENCES = (tuple, list)
COMPILED_WITH = "with which the program was exported"


def example_inputs(inputs: Any, keywords: Mapping[str, Any] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of what the user gives: a tuple or list of positional ones, a dictionary of
    keyword ones, or one tensor; and keyword ones apart. Raises `usage.value`."""
    if isinstance(inputs, torch.Tensor):
        inputs = (inputs,)
    is_mapping = isinstance(inputs, Mapping)
    if not (inputs is None or is_mapping or type(inputs) in SEQUENCES):
        raise fail("usage.value", f"the example inputs are a {type(inputs).__name__}",
                   expected="a tuple of positional arguments, a dictionary of keyword arguments, or one tensor",
                   help="write irc.compile(program, (x,)) for a program of one argument")  # fmt: skip
    check_argument("kwargs", keywords, (Mapping, type(None)), "a dictionary of keyword arguments")
    named = {**(inputs if is_mapping else {}), **(keywords or {})}
    for name in named:
        if not isinstance(name, str):
            raise fail("usage.value", f"the keyword arguments have a key {name!r}", expected="names of parameters",
                       help="a dictionary that is itself an argument goes into a tuple: (d,)")  # fmt: skip
    return () if inputs is None or is_mapping else tuple(inputs), named


@dataclass(frozen=True)
class Slot:
    """One argument of the example inputs: the parameter that took it, its place within `*args` or `**kwargs`, and what
    it is called in errors."""

    parameter: str
    part: int | str | None
    label: str
    structure: pytree.TreeSpec


class Parameters:
    """The parameters of a program, and the structure of the example inputs.

    `labels` are what the leaves of the example inputs are called, in order.
    """

    def __init__(
        self, signature: inspect.Signature, positional: Sequence[pytree.TreeSpec], named: Mapping[str, pytree.TreeSpec]
    ) -> None:
        self.signature = signature
        self.slots = self._slots(positional, named)
        self.labels = [label for slot in self.slots for label in labels_of(slot.structure, slot.label)]

    @classmethod
    def of(cls, source: Any, structure: pytree.TreeSpec, names: Sequence[str] = ()) -> Parameters:
        """Those of a program for example inputs of this structure: positional ones, and keyword ones by name. `names`
        are what PyTorch calls them, for a program whose own signature is not known."""
        first, second = children_of(structure)
        signature = signature_of(source, names, len(children_of(first)), list(second.context))
        return cls.of_signature(signature, structure)

    @classmethod
    def of_signature(cls, signature: inspect.Signature, structure: pytree.TreeSpec) -> Parameters:
        """Those of a signature, as `of` has them."""
        first, second = children_of(structure)
        return cls(signature, children_of(first), dict(zip(second.context, children_of(second), strict=True)))

    @classmethod
    def of_program(cls, source: Any, program: ExportedProgram) -> Parameters:
        """Those of a program that PyTorch has exported of `source`."""
        entry, structure = program.module_call_graph[0].signature, program.call_spec.in_spec
        assert structure is not None
        return cls.of(source, structure, (entry.forward_arg_names if entry is not None else None) or ())

    def _slots(self, positional: Sequence[pytree.TreeSpec], named: Mapping[str, pytree.TreeSpec]) -> list[Slot]:
        slots, waiting = [], list(positional)
        parameters = list(self.signature.parameters.values())
        for parameter in parameters:
            if parameter.kind is parameter.VAR_POSITIONAL:
                slots += [
                    Slot(parameter.name, index, f"{parameter.name}[{index}]", structure)
                    for index, structure in enumerate(waiting)
                ]
                waiting = []
            elif waiting and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                slots.append(Slot(parameter.name, None, parameter.name, waiting.pop(0)))
        extra = next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), "")
        for name, structure in named.items():
            is_own = name in self.signature.parameters and name != extra
            slots.append(Slot(name if is_own else extra, None if is_own else name, name, structure))
        return slots

    def leaves(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The leaves that a call gives, in the order of the labels. Raises `run.input_missing`, `run.input_unknown` and
        `run.input_shape`."""
        given = self._bound(args, kwargs)
        self._check_others(given)
        leaves: list[Any] = []
        for slot in self.slots:
            collect(self._value(slot, given), slot.structure, slot.label, leaves)
        return leaves

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            code = "run.input_missing" if "missing" in str(error) else "run.input_unknown"
            raise fail(
                code,
                f"the program is called with other arguments than it takes: {error}",
                expected=self.in_words,
                help="call it as the program itself",
            ) from None

    @property
    def in_words(self) -> str:
        """The signature, without annotations."""
        plain = [each.replace(annotation=each.empty) for each in self.signature.parameters.values()]
        return str(inspect.Signature(plain))

    def _value(self, slot: Slot, given: Mapping[str, Any]) -> Any:
        parameter = self.signature.parameters[slot.parameter]
        if slot.part is None:
            return given.get(slot.parameter, parameter.default)
        parts = given.get(slot.parameter, ())
        if slot.part in (range(len(parts)) if isinstance(slot.part, int) else parts):
            return parts[slot.part]
        raise fail("run.input_missing", f"the argument {slot.label} is missing",
                   expected=f"all arguments {COMPILED_WITH}")  # fmt: skip

    def _check_others(self, given: Mapping[str, Any]) -> None:
        """What the example inputs left to its default must still have that."""
        taken: dict[str, set[Any]] = {}
        for slot in self.slots:
            taken.setdefault(slot.parameter, set()).add(slot.part)
        for name, value in given.items():
            parameter = self.signature.parameters[name]
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                parts = value if parameter.kind is parameter.VAR_KEYWORD else range(len(value))
                more = [part for part in parts if part not in taken.get(name, ())]
                if more:
                    label = more[0] if isinstance(more[0], str) else f"{name}[{more[0]}]"
                    raise fail("run.input_unknown", f"the program has no argument {label}",
                               expected="only arguments that the example inputs have",
                               help="give it among the example inputs, and compile again")  # fmt: skip
            elif name not in taken and not same_constant(value, parameter.default):
                raise fail(
                    "run.input_shape",
                    f"the argument {name} is {described(value)}",
                    expected=f"{parameter.default!r}, its default, {COMPILED_WITH}",
                    help="give it among the example inputs, and compile again",
                )


def signature_of(source: Any, names: Sequence[str], positional: int, named: Sequence[str]) -> inspect.Signature:
    """How Python calls the program. Of an ExportedProgram, and of functions of C, only the names of the arguments that
    the example inputs had are known, or not even those."""
    if not isinstance(source, ExportedProgram):
        with suppress(ValueError, TypeError):
            return inspect.signature(source.forward if isinstance(source, torch.nn.Module) else source)
    names = names[:positional] if len(names) >= positional else [f"args_{index}" for index in range(positional)]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in named]
    return inspect.Signature(parameters)


# -- structures ------------------------------------------------------------------------------------------------


def register_caches() -> None:
    """Make the caches that models of transformers take and give known to PyTorch as containers of tensors."""
    from transformers.integrations.executorch import register_dynamic_cache_export_support

    register_dynamic_cache_export_support()


def register_dataclasses(arguments: Any) -> None:
    """Make the classes of dataclasses among the arguments known to PyTorch as containers of their fields.

    PyTorch's own `register_dataclass` makes instances by a call of the class, which runs `__post_init__` again, leaves
    out what is no argument of `__init__`, and fails where that was written by hand.
    """
    while unknown := {type(leaf) for leaf in pytree.tree_leaves(arguments) if is_record(type(leaf))}:
        for kind in unknown:
            register_record(kind)


def is_record(kind: type) -> bool:
    """Whether a class is nothing but a dataclass: not one of modules, tensors or dictionaries too."""
    return is_dataclass(kind) and kind.__new__ is object.__new__ and not issubclass(kind, torch.nn.Module)


def register_record(kind: type) -> None:
    """Make a dataclass known to PyTorch. As in its own `register_dataclass`, the context has the names of the fields
    that have a value and of those that are None; fields that are not set are in neither."""
    names = [field.name for field in fields(kind)]

    def flatten(record: Any) -> tuple[list[Any], list[list[str]]]:
        values = {name: getattr(record, name) for name in names if hasattr(record, name)}
        given = {name: value for name, value in values.items() if value is not None}
        return list(given.values()), [list(given), [name for name in values if name not in given]]

    def flatten_with_keys(record: Any) -> tuple[list[tuple[Any, Any]], list[list[str]]]:
        values, context = flatten(record)
        return [(pytree.GetAttrKey(name), value) for name, value in zip(context[0], values, strict=True)], context

    def unflatten(values: Iterable[Any], context: list[list[str]]) -> Any:
        given, empty = context
        if not {*given, *empty} <= set(names):
            raise ValueError(f"a {kind.__name__} has no fields {given} and {empty}")
        record: Any = object.__new__(kind)
        for name, value in (*zip(given, values, strict=True), *((name, None) for name in empty)):
            object.__setattr__(record, name, value)  # also where the class is frozen
        return record

    pytree.register_pytree_node(kind, flatten, unflatten, flatten_with_keys_fn=flatten_with_keys,
                                serialized_type_name=f"{kind.__module__}.{kind.__qualname__}")  # fmt: skip


def children_of(structure: pytree.TreeSpec) -> list[pytree.TreeSpec]:
    """The structures of the parts; none of a leaf."""
    return list(structure.children() if hasattr(structure, "children") else structure.children_specs)


def collect(value: Any, structure: pytree.TreeSpec, label: str, leaves: list[Any]) -> None:
    """Add the leaves of a value to `leaves`; raises `run.input_shape` where it has another structure."""
    if structure.is_leaf():
        leaves.append(value)
        return
    parts = _parts(value, structure, label)
    for part, inner, key in zip(parts, children_of(structure), keys_of(structure), strict=True):
        collect(part, inner, label + key, leaves)


def _parts(value: Any, structure: pytree.TreeSpec, label: str) -> list[Any]:
    """The parts of a value, in the order of the structure's: dictionaries may have their keys in any order, and lists
    and tuples of any class stand for one another."""
    kind, context, keys = structure.type, structure.context, keys_of(structure)
    if kind in DICTIONARIES and isinstance(value, DICTIONARIES):
        names = context[1] if kind is defaultdict else context
        known = f"the keys {', '.join(map(_key, names))}" if names else "no keys"
        for name in names:
            if name not in value:
                raise _unlike(f"{label} has no key {_key(name)}", known)
        for name in value:
            if name not in names:
                raise _unlike(f"{label} has a key {_key(name)}", known)
        return [value[name] for name in names]
    if kind in SEQUENCES and isinstance(value, SEQUENCES):
        parts, fits = list(value), True
    else:
        fits = pytree._get_node_type(value) is kind
        parts, own_context = pytree.SUPPORTED_NODES[kind].flatten_fn(value) if fits else ([], context)
        if fits and own_context != context:
            fits = False
            _check_fields(label, _fields_of(own_context), _fields_of(context))
    if not fits or len(parts) != len(keys):
        raise _unlike(f"{label} is {described(value)}", _kind(structure))
    return parts


def _check_fields(label: str, given: list[str], fields: list[str]) -> None:
    """Raise `run.input_shape` for a field that is None, and so no part of its container, in the call or in the example
    inputs alone."""
    for name in given:
        if fields and name not in fields:
            raise _unlike(f"{label}.{name} is not None", "None")
    for name in fields:
        if given and name not in given:
            raise _unlike(f"{label}.{name} is None", "a value")


def _unlike(what: str, expected: str) -> IrcError:
    return fail("run.input_shape", f"the argument {what}", expected=f"{expected}, as in the example inputs")


def _kind(structure: pytree.TreeSpec) -> str:
    kind = structure.context if structure.type is pytree.namedtuple else structure.type
    name, count = getattr(kind, "__name__", str(kind)), len(children_of(structure))
    what = f"of {count}" if kind in (*SEQUENCES, *DICTIONARIES) else f"with {count} fields"
    return f"{_article(name)} {name} {what}"


def labels_of(structure: pytree.TreeSpec, label: str) -> list[str]:
    """What the leaves of a structure are called, after what all of it is."""
    if structure.is_leaf():
        return [label]
    parts = zip(children_of(structure), keys_of(structure), strict=True)
    return [inner for part, key in parts for inner in labels_of(part, label + key)]


def keys_of(structure: pytree.TreeSpec) -> list[str]:
    """How each part is reached in Python: `[0]`, `["k"]`, `.field`."""
    kind, context, count = structure.type, structure.context, len(children_of(structure))
    if kind in DICTIONARIES:
        return [f"[{_key(name)}]" for name in (context[1] if kind is defaultdict else context)]
    if kind is pytree.namedtuple:
        return [f".{name}" for name in context._fields]
    fields = _fields_of(context)
    return [f".{name}" for name in fields] if len(fields) == count else [f"[{index}]" for index in range(count)]


def _fields_of(context: Any) -> list[str]:
    """The names of the fields that are not None, where a structure's context has them: that of dataclasses, and of the
    outputs of transformers."""
    fields = context[0] if isinstance(context, (tuple, list)) and context and isinstance(context[0], list) else context
    named = isinstance(fields, list) and all(isinstance(name, str) for name in fields)
    return fields if named else []


def _key(name: Any) -> str:
    return json.dumps(name, ensure_ascii=False) if isinstance(name, str) else repr(name)


def described(value: Any) -> str:
    """A value in a few words, for an error."""
    if isinstance(value, torch.Tensor):
        return "a tensor"
    is_container = isinstance(value, (*SEQUENCES, *DICTIONARIES))
    leaves = pytree.tree_leaves(value) if is_container else [value]
    if all(leaf is None or isinstance(leaf, (bool, int, float, complex, str)) for leaf in leaves):
        text = repr(value)
        if not is_container or len(text) <= 60:
            return text
    count, kind = f" of {len(value)}" if is_container else "", type(value).__name__
    return f"{_article(kind)} {kind}{count}"


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiouAEIOU" else "a"


def same_constant(one: Any, other: Any) -> bool:
    """Whether two constants of Python, or containers of some, are one to a program: 1, 1.0 and True are not, and 0.0
    and -0.0 neither."""
    leaves, structure = pytree.tree_flatten(one)
    others, other_structure = pytree.tree_flatten(other)
    return structure == other_structure and all(map(_same_leaf, leaves, others))


def _same_leaf(one: Any, other: Any) -> bool:
    if one is other or type(one) is not type(other) or isinstance(one, torch.Tensor):
        return one is other
    if isinstance(one, (float, complex)):
        return repr(one) == repr(other)
    return bool(one == other)
