"""What becomes of the results of a program: no two share memory, and those that update an input are written to it."""

from __future__ import annotations

import torch


def finish(outputs, inputs, updates, held):
    """Give the outputs memory of their own, apart from what is `held`; `updates` has the inputs that they update."""
    written = {output for name, output in updates.items() if outputs[output] is inputs[name]}
    separate(outputs, set(outputs) - written, held)
    for name, output in updates.items():
        if isinstance(inputs[name], torch.Tensor):
            update(inputs[name], output, outputs)


def memory(tensor):
    """What tensors have in common that share memory; on the meta device there are no addresses."""
    storage = tensor.untyped_storage()
    return storage.data_ptr() or storage._cdata


def overlap(one, other):
    """Whether two tensors share elements; of those with gaps only whether they are the same."""
    if one.device != other.device or not one.numel() or not other.numel():
        return False
    start, begin = one.data_ptr(), other.data_ptr()
    if one.is_contiguous() and other.is_contiguous():
        return start < begin + other.nbytes and begin < start + one.nbytes
    return start == begin and one.shape == other.shape and one.stride() == other.stride()


def separate(outputs, names, held):
    """Put copies in place of the outputs of these names that share memory with what is held or with one another."""
    taken = {memory(tensor) for tensor in held if isinstance(tensor, torch.Tensor)}
    for name, tensor in outputs.items():
        if name in names and isinstance(tensor, torch.Tensor) and tensor.numel():
            if memory(tensor) in taken:
                outputs[name] = tensor = tensor.clone()
            taken.add(memory(tensor))


def update(given, output, outputs):
    """Write an output to the caller's tensor that it updates, unless a kernel has, and let that tensor stand for it."""
    if outputs[output] is given:
        torch.autograd.graph.increment_version(given)  # a kernel has written it
        return
    given = given if given.dtype == outputs[output].dtype else given.view(outputs[output].dtype)
    with torch.no_grad():
        outputs[output] = given.copy_(outputs[output])
