"""What becomes of the results of a program: no two share memory, and those that update an input are written to it."""

from __future__ import annotations

from types import SimpleNamespace

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


def pairs_in_memory(tensors):
    """The names of each two tensors whose ranges of addresses intersect, in order: others share no elements."""
    ranges = []
    for position, tensor in enumerate(tensors.values()):
        if tensor.numel():
            start = memory(tensor) if tensor.is_meta else tensor.data_ptr()
            reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            ranges.append((start, start + (1 if tensor.is_meta else (reach + 1) * tensor.element_size()), position))
    pairs, before, names = [], [], list(tensors)  # `before`: ends and positions
    for start, end, position in sorted(ranges):
        before = [(other_end, other) for other_end, other in before if other_end > start]
        pairs += [(min(other, position), max(other, position)) for _, other in before]
        before.append((end, position))
    return [(names[one], names[other]) for one, other in sorted(pairs)]


def overlap(one, other):
    """Whether two tensors share elements."""
    if one.device != other.device or not one.numel() or not other.numel():
        return False
    if one.is_meta:
        return memory(one) == memory(other)
    start, begin = one.data_ptr(), other.data_ptr()
    if one.is_contiguous() and other.is_contiguous():
        return start < begin + other.nbytes and begin < start + one.nbytes
    import numpy

    try:
        return bool(numpy.shares_memory(at_addresses_of(one), at_addresses_of(other), max_work=1_000_000))
    except numpy.exceptions.TooHardError:
        return True


def at_addresses_of(tensor):
    """An array at the addresses of a tensor, of another device perhaps: its elements are never read."""
    import numpy

    size = tensor.element_size()
    strides = tuple(stride * size for stride in tensor.stride())
    place = {"data": (tensor.data_ptr(), True), "shape": tuple(tensor.shape), "strides": strides}
    return numpy.asarray(SimpleNamespace(__array_interface__={**place, "typestr": f"|V{size}", "version": 3}))


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
