"""How a program of PyTorch is called: from its arguments to tensors in the order of a function's, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from irc.diagnostics import fail
from irc.dtypes import DType
from irc.frontends.torch.importer import constant, taken_inputs
from irc.frontends.torch.reading import DTYPES


class Convention:
    """The structure of a program's inputs and outputs, and what it writes of its buffers and arguments.

    The function that the importer makes of the program takes the tensors of `arguments` and gives those of `results`.
    """

    def __init__(self, program: ExportedProgram) -> None:
        signature, structure = program.graph_signature, program.call_spec
        assert structure.in_spec is not None and structure.out_spec is not None
        self.inputs, self.outputs = structure.in_spec, structure.out_spec
        self.taken = list(taken_inputs(signature))
        self.given = [spec for spec in signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
        self.names = [spec.arg.name if spec.kind is InputKind.USER_INPUT else str(spec.target)
                      for spec in self.taken if isinstance(spec.arg, TensorArgument)]
        self.updated = [self.names.index(str(spec.target)) for spec in signature.output_specs
                        if spec.kind is not OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)]
        held = {**program.constants, **program.state_dict}
        self.held = {str(spec.target): held[str(spec.target)] for spec in self.taken
                     if spec.kind is not InputKind.USER_INPUT}

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The tensors for a call with these arguments; raises `run.input_shape` for another structure."""
        _, names = self.inputs.children() if hasattr(self.inputs, "children") else self.inputs.children_specs
        known = list(names.context or ())
        ordered = {name: kwargs[name] for name in known if name in kwargs} | dict(kwargs)
        leaves, structure = pytree.tree_flatten((tuple(args), ordered))
        if structure != self.inputs:
            raise fail("run.input_shape", "the program is called with another structure of arguments",
                       expected=f"{self.inputs.num_leaves} leaves, as in the example inputs")
        waiting, found = iter(leaves), []
        for spec in self.taken:
            if spec.kind is not InputKind.USER_INPUT:
                found.append(self.held[str(spec.target)])
                continue
            leaf = next(waiting)
            if isinstance(spec.arg, ConstantArgument):
                if leaf != spec.arg.value:
                    raise fail("run.input_shape", f"the argument {spec.arg.name} is {leaf!r}",
                               expected=f"{spec.arg.value!r}, with which the program was exported")
                continue
            if not isinstance(leaf, torch.Tensor):
                raise fail("run.input_dtype", f"the argument {spec.arg.name} is a {type(leaf).__name__}",
                           expected="a tensor")
            found.append(leaf)
        self._check_apart(found)
        return found

    def _check_apart(self, tensors: Sequence[torch.Tensor]) -> None:
        """What the program updates must be no other argument's memory: results do not tell what it read of that."""
        for position in self.updated:
            for other, tensor in enumerate(tensors):
                if other != position and overlap(tensors[position], tensor):
                    one, another = self.names[position], self.names[other]
                    raise fail("run.input_alias", f"the arguments {one} and {another} share memory, and the program "
                               f"updates {one}", help="pass a copy of one")  # fmt: skip

    def result(self, tensors: Sequence[torch.Tensor], arguments: Sequence[torch.Tensor]) -> Any:
        """What the program gives, of the results of a run; the buffers and arguments that it writes are written."""
        waiting = iter(tensors)
        leaves = [next(waiting) if isinstance(spec.arg, TensorArgument) else spec.arg.value for spec in self.given]
        with torch.no_grad():
            for position, new in zip(self.updated, waiting, strict=True):
                if new is not arguments[position]:
                    arguments[position].copy_(new)
        return pytree.tree_unflatten(leaves, self.outputs)


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors share elements; of those with gaps only whether they are the same. The runtime of artefacts
    has it too, which stands alone."""
    if one.device != other.device or not one.numel() or not other.numel():
        return False
    start, begin = one.data_ptr(), other.data_ptr()
    if one.is_contiguous() and other.is_contiguous():
        return start < begin + other.nbytes and begin < start + one.nbytes
    return start == begin and one.shape == other.shape and one.stride() == other.stride()


def to_array(tensor: torch.Tensor) -> Any:
    """A tensor as an array that shares its memory where it can; types that NumPy lacks are those of ml_dtypes."""
    return constant(tensor, "").array()


def to_tensor(array: Any, dtype: DType) -> torch.Tensor:
    """An array of such elements as a tensor."""
    theirs = next(theirs for theirs, ours in DTYPES.items() if ours is dtype)
    array = np.ascontiguousarray(array).reshape(np.shape(array))  # which would give a scalar an axis
    if array.dtype.kind == "V" or dtype.name == "bf16" or (dtype.is_float and dtype.bits <= 8):
        return torch.from_numpy(array.view(np.uint8 if dtype.bits == 8 else np.uint16).copy()).view(theirs)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
