"""What programs make a device do, seen from outside: launches of kernels, PyTorch operations, and their bytes.

    seen = of_artefact(folder, inputs)     # a written artefact
    seen = of_exported(exported, inputs)   # a program of torch.export, as PyTorch runs it without a compiler

An artefact runs on PyTorch's meta device, which takes the host program the way that it takes on a GPU, while every
operation that PyTorch dispatches is noted; then on the processor under Triton's interpreter, while every address that a
kernel loads from or stores to is. Nothing of irc's own figures is read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch.export.passes import move_to_device_pass
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.triton_harness import RECORDER, Access, Launch, load_artefact

LIBRARY = ("mm", "addmm", "bmm", "baddbmm", "convolution", "attention")
ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "lift_fresh")


@dataclass
class Seen:
    """What ran, by name in order, and the bytes of the elements that each reads and writes, each element once."""

    launches: list[tuple[str, int]] = field(default_factory=list)
    library: list[tuple[str, int]] = field(default_factory=list)
    others: list[tuple[str, int]] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.launches), len(self.library), len(self.others)

    @property
    def operations(self) -> int:
        return sum(self.counts)

    @property
    def bytes(self) -> int:
        return sum(moved for part in (self.launches, self.library, self.others) for _, moved in part)


def of_artefact(folder: Path, inputs: Sequence[torch.Tensor]) -> Seen:
    """A run of an artefact on these inputs, in the order of its own."""
    artefact, seen = load_artefact(folder), Seen()
    model = artefact.load("meta")
    model.stored = {name: x.to("meta") for name, x in model.stored.items()}
    model.program.launch = lambda kernel, *_, **__: seen.launches.append((kernel.fn.__name__, 0))
    model.program.launch_bundle = model.program.launch
    given = [x.to("meta") for x in inputs]
    with noted(seen):
        model(*given)
    recorded = _recorded(artefact, inputs)
    assert [name for name, _ in recorded] == [name for name, _ in seen.launches]
    seen.launches = recorded
    return seen


def _recorded(artefact: Any, inputs: Sequence[torch.Tensor]) -> list[tuple[str, int]]:
    """The kernels that run on the processor, and the bytes of the distinct addresses that each touches."""
    RECORDER.install()
    model, records = artefact.load("cpu"), []
    runtime = sys.modules[f"{artefact.__name__}.runtime"]

    def launch(kernel: Any, *arguments: Any, start: Any = runtime.launch, **options: Any) -> None:
        record = RECORDER.launch = Launch(kernel.fn.__name__)
        held = tensors(arguments)
        RECORDER.buffers = [(x.data_ptr(), x.data_ptr() + x.numel() * x.element_size()) for x in held]
        try:
            start(kernel, *arguments, **options)
        finally:
            RECORDER.launch = None
        records.append((record.name, distinct(record.accesses, stores=False) + distinct(record.accesses, stores=True)))

    model.program.launch, model.program.launch_bundle = launch, partial(launch, start=runtime.launch_bundle)
    model(*(x.clone() for x in inputs))
    return records


def distinct(accesses: Sequence[Access], *, stores: bool) -> int:
    """Bytes of the addresses that loads, or stores, have touched, each once."""
    by_width: dict[int, list[np.ndarray]] = {}
    for access in accesses:
        if access.store == stores:
            by_width.setdefault(access.width, []).append(np.unique(access.addresses))
    return sum(width * np.unique(np.concatenate(parts)).size for width, parts in by_width.items())


def of_exported(exported: torch.export.ExportedProgram, inputs: Sequence[torch.Tensor]) -> Seen:
    """What torch.export has taken down, operation by operation, as PyTorch runs it without a compiler.

    The program is of no use for data afterwards: it is moved to the meta device, in place.
    """
    module, given = move_to_device_pass(exported, "meta").module(), [x.to("meta") for x in inputs]
    seen = Seen()
    with torch.no_grad(), noted(seen):
        module(*given)
    return seen


@contextmanager
def noted(seen: Seen) -> Iterator[None]:
    """Note what PyTorch runs. Attention is one call, as on a GPU; on the meta device it would be taken apart."""
    attend = F.scaled_dot_product_attention

    def attention(q: Any, k: Any, v: Any, attn_mask: Any = None, **options: Any) -> Any:
        with torch._C._DisableTorchDispatch():
            result = attend(q, k, v, attn_mask=attn_mask, **options)
            heads_inside = result.transpose(1, 2).contiguous().transpose(1, 2)
        read = [q, k, v, *([] if attn_mask is None else [attn_mask])]
        seen.library.append(("attention", moved(read) + moved([heads_inside])))
        return heads_inside

    with mock.patch.object(F, "scaled_dot_product_attention", attention), _Mode(seen):
        yield


class _Mode(TorchDispatchMode):
    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        read, written = tensors((args, kwargs)), tensors(result)
        is_view = not func._schema.is_mutable and read and any(alias(a, b) for a in read for b in written)
        if name not in ALLOCATIONS and not is_view:
            part = self.seen.library if name in LIBRARY else self.seen.others
            part.append((name, moved(read) + moved(written)))
        return result


def alias(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata


def tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def moved(of: Sequence[torch.Tensor]) -> int:
    """Bytes of the elements of tensors, found by their addresses, each once."""
    places: dict[tuple[int, int], list[np.ndarray]] = {}
    for tensor in of:
        offsets = np.zeros((), np.int64)
        for extent, stride in zip(tensor.shape, tensor.stride(), strict=True):
            offsets = np.add.outer(offsets, stride * np.arange(extent if stride or not extent else 1))
        key = (tensor.untyped_storage()._cdata, tensor.element_size())
        places.setdefault(key, []).append(tensor.storage_offset() + offsets.reshape(-1))
    return sum(size * np.unique(np.concatenate(parts)).size for (_, size), parts in places.items())
