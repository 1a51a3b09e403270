"""The Triton backend: writes a folder of plain Python and Triton source that runs without irc.

    emit(module, folder, targets=("sm_90",))   # kernels of the fused module as Triton, the rest as PyTorch calls
    takes(operation)                           # whether legalize leaves an operation whole
    peak_bytes(module, sizes)                  # the most memory that its results take at a time
    is_artefact(folder)                        # whether a folder holds what emit has written, and nothing else
    compile_artefact(folder, ("sm_90",))       # registers, spills and shared memory of each kernel, without a GPU

Kernels are derived from the regions of the module's `kernel` operations, which alone say what they compute. One that
cannot be written in Triton runs as host calls instead, with the same results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irc.backends.triton.artefact import emit, is_artefact
from irc.backends.triton.calls import TORCH_TYPES, host_functions
from irc.backends.triton.compile import TARGETS, Resources, compile_artefact
from irc.backends.triton.description import device_operations
from irc.backends.triton.device_operation import DeviceOperation
from irc.backends.triton.donation import peak_bytes
from irc.backends.triton.launches import launched
from irc.backends.triton.naming import kernel_name
from irc.backends.triton.writing import write_kernel
from irc.group import Group
from irc.interfaces import Trait
from irc.ir import Operation, Value
from irc.kernel.failure import LegalityFailure
from irc.kernel.steps import Steps
from irc.module import EdgeCases
from irc.named_pipelines import DEFAULT
from irc.op import OperationDefinition
from irc.products import Products

PIPELINE = DEFAULT


def takes(operation: Operation, products: Products = "host") -> bool:
    """Whether an operation is legal: PyTorch or a control structure computes it, or its body can be one kernel.
    `products` says whether kernels may compute attention and products."""
    if operation.name == "attention" and not is_fused_attention(operation):
        return products != "host" and not isinstance(Group([operation]).kernel, LegalityFailure)
    is_of_host = Trait.HOST in operation.definition.traits or operation.definition.is_isolated
    if is_of_host or operation.name in host_functions():
        return all(value.dtype.name in TORCH_TYPES for value in (*operation.inputs, *operation.results))
    if not operation.definition.is_named:
        return False
    if any(member.definition.window is not None for member in operation.body().block):
        return False  # windows of few places are unrolled by a pass of their own
    if Trait.LIBRARY in operation.definition.traits:  # a product that no library call computes
        return products == "irc" and not isinstance(Group([operation]).kernel, LegalityFailure)
    try:
        Steps([operation])
    except LegalityFailure:
        return False
    return True


def is_fused_attention(operation: Operation) -> bool:
    """Whether PyTorch's scaled_dot_product_attention computes it: it has no causal mask beside another, and gives 0 for
    a row that is masked."""
    attributes, has_mask = operation.attributes, len(operation.inputs) > 3
    if not has_mask:
        return True  # the first key is visible to each query
    return attributes["masked_rows"] == "zero" and not attributes["causal"]


@dataclass(frozen=True)
class Target:
    """A GPU to compile kernels for, in addition to writing their source; the legal operations are the same for each."""

    name: str | None = None
    products: Products = "host"

    def takes(self, operation: Operation, edge_cases: EdgeCases = "defined") -> bool:
        """Whether the operation is emitted whole. Kernels do what is defined, whatever `edge_cases` allows."""
        return takes(operation, self.products)

    def calls(self, operation: Operation) -> bool:
        """Whether PyTorch computes the operation in one call."""
        return takes(operation, "host")

    def raises(self, definition: OperationDefinition) -> bool:
        """Every operation whose decomposition a subgraph is: its body becomes a kernel, or PyTorch computes it."""
        return True

    def pays(self, rewrite: str, operations: Sequence[Operation], replacements: Sequence[Operation] = ()) -> bool:
        """No rewrite that is for the kernels of ONNX Runtime."""
        return False


def kernel_source(operation: Operation, labels: Mapping[Value, str]) -> str | LegalityFailure:
    """The Triton source of a `kernel` operation, or why it runs as host calls; `labels` name the values that it loads
    and stores."""
    kernel = launched(operation)
    if isinstance(kernel, LegalityFailure):
        return kernel
    return write_kernel(kernel, kernel_name(operation), labels).text


__all__ = ["PIPELINE", "TARGETS", "DeviceOperation", "Resources", "Target", "compile_artefact", "device_operations",
           "emit", "is_artefact", "kernel_source", "peak_bytes", "takes"]  # fmt: skip
