"""How a PyTorch program is called: from its arguments to tensors in the order of a function's, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, SymIntArgument, TensorArgument
from torch.utils import _pytree as pytree

from irc.diagnostics import fail
from irc.frontends.torch.live_weights import Weights, tensors_of
from irc.frontends.torch.parameters import COMPILED_WITH, Parameters, described, same_constant
from irc.frontends.torch.results import Results
from irc.frontends.torch.signatures import given_results, taken_inputs, updated_input
from irc.frontends.torch.tensors import to_array, why_not_dense
from irc.ir import Function
from irc.module import Module
from irc.torch_arrays import to_tensor
from irc.types import TensorType

WORK = 1_000_000  # of finding an element that two tensors share


@dataclass(frozen=True)
class Call:
    """The arguments of one call: tensors for the function, and what stands for each placeholder of PyTorch's."""

    tensors: list[torch.Tensor]
    by_placeholder: Mapping[str, Any]


@dataclass(frozen=True)
class Convention:
    """How a program is called, and what it writes of its buffers and arguments: the function takes the tensors of a
    call and gives those of `result`.

    `inputs` and `outputs` are the structures of the arguments and of the results; `given` has a description of each
    leaf of the arguments, and `returned` of each of the results. `taken` are the placeholders of the function's
    arguments, of the types `types` and the names `names`, and `updated` those that are written. `held` are tensors of
    the program itself, by placeholder.
    """

    parameters: Parameters
    results: Results
    inputs: pytree.TreeSpec
    outputs: pytree.TreeSpec
    given: Sequence[Any]
    returned: Sequence[Any]
    taken: Sequence[str]
    updated: Sequence[str]
    held: Mapping[str, Any]
    types: Mapping[str, TensorType]
    names: Mapping[str, str]  # what the function's arguments are called in errors
    weights: Weights

    @classmethod
    def of(cls, source: Any, parameters: Parameters, program: ExportedProgram, functional: ExportedProgram,
           function: Function, read: Callable[[], Module]) -> Convention:  # fmt: skip
        """Of a program: `program` is what PyTorch exported of `source`, `functional` the same without anything done in
        place, and `function` what `read`, the importer, made of that."""
        signature = functional.graph_signature
        assert program.call_spec.in_spec is not None and program.call_spec.out_spec is not None
        taken = [spec.arg.name for spec in taken_inputs(signature)]
        tensors = {**program.constants, **program.state_dict}
        held = {spec.arg.name: tensors[spec.target] for spec in signature.input_specs if spec.target in tensors}
        targets = {spec.arg.name: str(spec.target) for spec in signature.input_specs if spec.arg.name in held}
        given = [spec.arg for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
        labels = dict(zip((spec.name for spec in given), parameters.labels, strict=True))
        return cls(
            parameters, Results.of_program(program), program.call_spec.in_spec, program.call_spec.out_spec, given,
            [spec.arg for spec in signature.output_specs if spec.kind is OutputKind.USER_OUTPUT], taken,
            [updated_input(signature, spec) for spec in given_results(signature)
             if spec.kind is not OutputKind.USER_OUTPUT], held,
            dict(zip(taken, (argument.type for argument in function.arguments), strict=True)),
            {argument.name: labels.get(placeholder, argument.name)
             for argument, placeholder in zip(function.arguments, taken, strict=True)},
            Weights.of(source, functional, targets, taken, read))  # fmt: skip

    @cached_property
    def labels(self) -> dict[str, str]:
        """What the leaves of the arguments are called in errors, by placeholder."""
        return dict(zip((spec.name for spec in self.given), self.parameters.labels, strict=True))

    @property
    def is_plain(self) -> bool:
        """Whether all arguments are positional tensors, which the function takes in this order, and all results tensors
        with memory of their own, of dims in order: such a call needs no `Call`."""
        positional, named = self.inputs.children()
        return (
            not self.updated
            and named.num_leaves == 0
            and all(child.is_leaf() for child in positional.children())
            and all(isinstance(spec, TensorArgument) for spec in (*self.given, *self.returned))
            and [spec.name for spec in self.given] == self.taken
            and self.results.are_plain
        )

    @cached_property
    def is_single(self) -> bool:
        """Whether the program gives one leaf, in no container."""
        return self.outputs.is_leaf()

    def structured(self, tensors: Sequence[torch.Tensor]) -> Any:
        """What a program that `is_plain` gives, of the results of a run."""
        return tensors[0] if self.is_single else pytree.tree_unflatten(tensors, self.outputs)

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """The tensors for a call with these arguments. Raises `run.input_missing`, `run.input_unknown`,
        `run.input_shape`, `run.input_dtype`, `run.input_alias` and `torch.tensor`."""
        leaves = self.parameters.leaves(args, kwargs)
        values = dict(self.held)
        for spec, leaf, label in zip(self.given, leaves, self.parameters.labels, strict=True):
            values[spec.name] = checked(spec, leaf, label, self.types.get(spec.name))
        taken = [values[name] for name in self.taken]  # tensors and numbers
        tensors = [each if isinstance(each, torch.Tensor) else torch.as_tensor(each, device="cpu") for each in taken]
        tensors = [tensor.resolve_conj().resolve_neg() for tensor in tensors]
        self._check_apart(tensors)
        return Call(tensors, values)

    def _check_apart(self, tensors: Sequence[torch.Tensor]) -> None:
        """What the program updates must be no other argument's memory: results do not show what it read of that."""
        if not self.updated:
            return
        positions = {name: position for position, name in enumerate(self.taken)}
        updated = {positions[name]: self.labels.get(name, name) for name in self.updated}
        for position, label in updated.items():
            if (reason := why_not_writable(tensors[position])) is not None:
                raise fail("run.input_alias", f"the argument {label} {reason}, and the program updates it",
                           help="pass a copy")  # fmt: skip
        for first, second in pairs_in_memory(tensors):
            if (first in updated or second in updated) and overlap(tensors[first], tensors[second]):
                one, other = (first, second) if first in updated else (second, first)
                another = self.labels.get(self.taken[other], self.taken[other])
                raise fail("run.input_alias", f"the arguments {updated[one]} and {another} share memory, and the "
                           f"program updates {updated[one]}", help="pass a copy of one")  # fmt: skip

    def result(self, tensors: Sequence[torch.Tensor], call: Call) -> Any:
        """What the program gives, of the results of a run; the buffers and arguments that it writes are written."""
        device = next((tensor.device for tensor in call.tensors if tensor.device.type != "cpu"), torch.device("cpu"))
        waiting = iter(tensors)
        computed = [spec.value if isinstance(spec, ConstantArgument)
                    else next(waiting).to(device) if isinstance(spec, TensorArgument)
                    else next(waiting).item() for spec in self.returned]  # fmt: skip
        with torch.no_grad():
            for name, new in zip(self.updated, waiting, strict=True):
                if new is not call.by_placeholder[name]:
                    call.by_placeholder[name].copy_(new)
        return pytree.tree_unflatten(self.results.of(computed, call.by_placeholder), self.outputs)

    def renewed(self) -> tuple[Convention, Module]:
        """The same with the weights of now, and the module that has these. Raises `weights.changed`."""
        weights = self.weights.renewed()
        assert weights.read is not None and weights.program is not None
        specs = weights.program.graph_signature.input_specs
        held = {spec.arg.name: tensors_of(weights.program, spec.target)[spec.target] for spec in specs
                if spec.arg.name in self.held}  # fmt: skip
        return replace(self, held=held, weights=weights), weights.read()

    def held_arrays(self) -> dict[str, Any]:
        """What the program holds of what it writes, copied, by the names of the function's arguments."""
        pairs = [(name, held) for name, held in zip(self.names, self.taken, strict=True) if held not in self.labels]
        return {name: to_array(self.held[held]).copy() for name, held in pairs}

    def example(self, arrays: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call with copies of these arrays, which are in the order of the function's arguments."""
        given = dict(zip(self.taken, zip(arrays.values(), self.types.values(), strict=True), strict=True))
        leaves = []
        for spec in self.given:
            if isinstance(spec, ConstantArgument):
                leaves.append(spec.value)
                continue
            array, type_ = given[spec.name]
            leaves.append(int(array) if isinstance(spec, SymIntArgument) else to_tensor(array.copy(), type_.dtype))
        args, kwargs = pytree.tree_unflatten(leaves, self.inputs)
        return args, kwargs

    def computed(self, result: Any) -> list[Any]:
        """The parts of what the program gives that the function computes, as arrays."""
        leaves = pytree.tree_leaves(result)
        computed_leaves = [leaf for leaf, spec in zip(leaves, self.returned, strict=True)
                           if not isinstance(spec, ConstantArgument)]  # fmt: skip
        return [to_array(leaf) if isinstance(leaf, torch.Tensor) else np.asarray(leaf) for leaf in computed_leaves]


def checked(spec: Any, leaf: Any, label: str, type_: TensorType | None) -> Any:
    """The leaf of a call that an argument of the exported program takes; raises where it takes no such thing."""
    if isinstance(spec, ConstantArgument):
        if not same_constant(leaf, spec.value):
            raise fail("run.input_shape", f"the argument {label} is {described(leaf)}",
                       expected=f"{spec.value!r}, {COMPILED_WITH}")  # fmt: skip
    elif isinstance(spec, SymIntArgument):
        if not isinstance(leaf, int) or isinstance(leaf, bool):
            raise fail("run.input_dtype", f"the argument {label} is {described(leaf)}", expected="an int")
    elif not isinstance(leaf, torch.Tensor):
        what = "missing, or None" if leaf is None else described(leaf)
        is_tree = not pytree.tree_is_leaf(leaf) and any(map(torch.is_tensor, pytree.tree_leaves(leaf)))
        maker = "torch.from_numpy" if type(leaf).__module__ == "numpy" else "torch.tensor"
        raise fail("run.input_dtype", f"the argument {label} is {what}", expected=f"a tensor, {type_}",
                   help="give the tensor in it" if is_tree else f"{maker}(...) makes one")  # fmt: skip
    elif (reason := why_not_dense(leaf)) is not None:
        raise fail("torch.tensor", f"the argument {label} is {reason}", expected="a dense tensor with elements")
    return leaf


def pairs_in_memory(tensors: Sequence[torch.Tensor]) -> list[tuple[int, int]]:
    """The positions of each two tensors whose ranges of addresses intersect, in order: others share no elements. The
    runtime of artefacts has it too, which stands alone."""
    ranges = []
    for position, tensor in enumerate(tensors):
        if tensor.numel():
            start = tensor.data_ptr()
            reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            ranges.append((start, start + (reach + 1) * tensor.element_size(), position))
    pairs, before = list[tuple[int, int]](), list[tuple[int, int]]()  # `before`: ends and positions
    for start, end, position in sorted(ranges):
        before = [(other_end, other) for other_end, other in before if other_end > start]
        pairs += [(min(other, position), max(other, position)) for _, other in before]
        before.append((end, position))
    return sorted(pairs)


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors share elements. The runtime of artefacts has it too, which stands alone."""
    if one.device != other.device or not one.numel() or not other.numel():
        return False
    start, begin = one.data_ptr(), other.data_ptr()
    if one.is_contiguous() and other.is_contiguous():
        return start < begin + other.nbytes and begin < start + one.nbytes
    work: Any = WORK  # NumPy's stubs allow only the literals -1 and 0
    try:
        return bool(np.shares_memory(at_addresses_of(one), at_addresses_of(other), max_work=work))
    except np.exceptions.TooHardError:
        return True


def at_addresses_of(tensor: torch.Tensor) -> Any:
    """An array at the addresses of a tensor, of another device perhaps: its elements are never read."""
    size = tensor.element_size()
    strides = tuple(stride * size for stride in tensor.stride())
    place = {"data": (tensor.data_ptr(), True), "shape": tuple(tensor.shape), "strides": strides}
    return np.asarray(SimpleNamespace(__array_interface__={**place, "typestr": f"|V{size}", "version": 3}))


def why_not_writable(tensor: torch.Tensor) -> str | None:
    """Why PyTorch does not write to a tensor; None where it does."""
    repeats = any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    if repeats and tensor.numel():
        return "has elements that share memory"
    return "is an inference tensor" if tensor.is_inference() and not torch.is_inference_mode_enabled() else None
