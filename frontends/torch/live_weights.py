"""The weights of a compiled program: whether they have changed since, and the program with those of now."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram

from irc.diagnostics import fail
from irc.frontends.torch.tensors import memory_key, state_of, why_not_dense
from irc.module import Module


class Kept(NamedTuple):
    """A weight as it was: `holder[name]` is where it is found, `state` has no count of its writes where it is no
    constant of the compiled program but is read at each call, `kind` is what it was in words, and `targets` are what
    the exported program calls it."""

    holder: dict[str, Any]
    name: str
    tensor: torch.Tensor
    state: tuple[int, int | None]
    kind: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Weights:
    """Parameters, buffers and other tensors of a program as they were when it was compiled; the code has copies.

    `program` holds them, and `read` makes a module of it.
    """

    name: str = ""
    kept: Sequence[Kept] = ()
    program: ExportedProgram | None = None
    read: Callable[[], Module] | None = None

    @classmethod
    def of(cls, source: Any, program: ExportedProgram, targets: Mapping[str, str], taken: Sequence[str],
           read: Callable[[], Module]) -> Weights:  # fmt: skip
        """Those of a program that PyTorch exported of `source`: `targets` are their names by placeholder, of which
        those that are `taken` are arguments of the function."""
        named: dict[Any, list[str]] = {}  # by the memory
        written = set()
        for placeholder, target in targets.items():
            tensor = tensors_of(program, target)[target]
            if isinstance(tensor, torch.Tensor) and why_not_dense(tensor) is None:
                named.setdefault(memory_key(tensor), []).append(target)
                written |= {memory_key(tensor)} if placeholder in taken else set()
        inside = [inner for module in modules_of(source) for inner in module.modules()]
        places = [(holder, name) for inner in inside for holder in (inner._parameters, inner._buffers)
                  for name, each in holder.items()
                  if each is not None and why_not_dense(each) is None and memory_key(each) in named]  # fmt: skip
        placed = {memory_key(holder[name]) for holder, name in places}
        places += [({name: tensors_of(program, name)[name]}, name)
                   for memory, (name, *_) in named.items() if memory not in placed]  # fmt: skip
        kept = []
        for holder, name in places:
            memory, (address, version) = memory_key(holder[name]), state_of(holder[name])
            state = address, None if memory in written else version
            kept.append(Kept(holder, name, holder[name], state, described(holder[name]), tuple(named[memory])))
        return cls(type(source).__name__, kept, program, read)

    def is_changed(self) -> bool:
        """Whether one of them was written to or replaced. PyTorch counts no writes through `.data` or NumPy."""
        for holder, name, tensor, address, version in self._watched:  # by hand, since a call costs microseconds
            if holder.get(name) is not tensor or tensor.data_ptr() != address:
                return True
            if version is not None and tensor._version != version:
                return True
        return False

    @cached_property
    def _watched(self) -> list[tuple[Any, ...]]:
        """What `is_changed` reads of each weight."""
        return [(kept.holder, kept.name, kept.tensor, *kept.state) for kept in self.kept]

    def renewed(self) -> Weights:
        """Those of now, which the program then holds. Raises `weights.changed` where one has another shape or element
        type, is on another device, or is gone, and where two that were one tensor are no longer."""
        assert self.program is not None
        now: dict[str, torch.Tensor] = {}
        kept: list[Kept] = []
        for weight in self.kept:
            new: Any = weight.holder.get(weight.name)
            first = weight.targets[0]
            if not isinstance(new, torch.Tensor) or why_not_dense(new) is not None:
                raise self._changed(f"the weight {first} is no dense tensor now", weight.kind)
            if described(new) != weight.kind:
                raise self._changed(f"the weight {first} is {described(new)} now", weight.kind)
            if memory_key(now.setdefault(first, new)) != memory_key(new):
                raise self._changed(f"the weight {first} has memory of its own", "that of another weight")
            address, version = state_of(new)
            state = address, None if weight.state[1] is None else version
            kept.append(weight._replace(tensor=new, state=state))
        for weight in kept:
            for target in weight.targets:
                tensors_of(self.program, target)[target] = weight.tensor
        return Weights(self.name, kept, self.program, self.read)

    def _changed(self, what: str, expected: str) -> Exception:
        return fail("weights.changed", f"{what}, and the program {self.name} was compiled with another",
                    expected=f"{expected}, as when it was compiled", help="compile the program again")  # fmt: skip


def tensors_of(program: ExportedProgram, target: str) -> dict[str, Any]:
    """Where a program holds the tensor of this name."""
    return program.state_dict if target in program.state_dict else program.constants


def described(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)} on {tensor.device}"


def modules_of(source: Any) -> list[torch.nn.Module]:
    """The modules whose weights a program uses: itself, or those that its function is a method of or names."""
    if isinstance(source, torch.nn.Module):
        return [source]
    named = [getattr(source, "__self__", None)]
    with suppress(TypeError):  # no function of Python
        variables = inspect.getclosurevars(source)
        named += [*variables.nonlocals.values(), *variables.globals.values()]
    return [each for each in named if isinstance(each, torch.nn.Module)]
