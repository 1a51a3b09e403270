"""Kernels in Triton's interpreter, whatever Triton was imported for, and rounded and wrapped around as on GPUs.

Triton decides when its functions are defined whether they are compiled or interpreted. `interpreted` is the time in
which functions that are defined are interpreted, those of Triton's language among them; before and after it all is as
it was, so that other code of the process may compile kernels.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from contextlib import contextmanager, nullcontext

import torch

_lock = threading.RLock()
_depth = 0
_interpreting = {}  # interpreted functions, by what they stand for


@contextmanager
def interpreted():
    """The time in which kernels are defined and run by the interpreter, in one thread."""
    global _depth
    with _lock:
        _depth += 1
        try:
            with _replaced() if _depth == 1 else nullcontext():
                yield
        finally:
            _depth -= 1


@contextmanager
def _replaced():
    """Triton's language with functions that are interpreted, and that check what they assert, but not whether integers
    stay in range. In the end all is undone, as is what the interpreter changes and leaves so."""
    import triton
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction, interpreter_builder
    from triton.runtime.jit import JITFunction

    modules = [module for name, module in list(sys.modules.items()) if name.startswith("triton.language")]
    owners = [*modules, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base]
    before = [(owner, dict(vars(owner))) for owner in owners]
    options = interpreter_builder.options
    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = True
        for owner, attributes in before:
            for name, function in attributes.items():
                if isinstance(function, JITFunction):
                    if id(function) not in _interpreting:
                        _interpreting[id(function)] = InterpretedFunction(function.fn)
                    setattr(owner, name, _interpreting[id(function)])
        interpreter_builder.options = dataclasses.replace(options, debug=True, sanitize_overflow=False)
        try:
            yield
        finally:
            interpreter_builder.options = options
            for owner, attributes in before:
                for name, value in attributes.items():
                    if vars(owner).get(name) is not value:
                        setattr(owner, name, value)


def round_to_bfloat16():
    """Make Triton's interpreter round numbers to bfloat16, as GPUs do: it cuts floats off, gives other numbers for
    those below the smallest normal one, and takes integers for the bits of numbers."""
    import numpy
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cuts = InterpreterBuilder.cast_impl
    if getattr(cuts, "rounds", False):
        return

    def cast_impl(self, source, target):
        types = source.dtype.scalar, target.scalar
        if types == (tl.bfloat16, tl.float32):
            return TensorHandle((source.data.astype(numpy.uint32) << 16).view(numpy.float32), tl.float32)
        if types[1] != tl.bfloat16 or not (types[0] == tl.float32 or types[0].is_int()):
            return cuts(self, source, target)
        wide = torch.from_numpy(numpy.array(source.data))
        return TensorHandle(wide.to(torch.bfloat16).view(torch.int16).numpy().view(numpy.uint16), target.scalar)

    cast_impl.rounds = True
    InterpreterBuilder.cast_impl = cast_impl


def wrap_sums():
    """Make Triton's interpreter keep the low bits of a sum of integers, as GPUs do: it fails for one that is out of
    range."""
    import numpy
    from triton.runtime.interpreter import ReduceOps

    strict = ReduceOps.to_tensor
    if getattr(strict, "wraps", False):
        return

    def to_tensor(self, result, dtype):
        if isinstance(result, numpy.integer) and dtype.is_int() and not dtype.is_int1():
            signed = dtype.is_int_signed()
            result = result.astype(f"{'' if signed else 'u'}int{dtype.primitive_bitwidth}")
        return strict(self, result, dtype)

    to_tensor.wraps = True
    ReduceOps.to_tensor = to_tensor


def multiply_as_f32():
    """Make Triton's interpreter multiply matrices as GPUs do: of bfloat16 it multiplies the bits, and it rounds sums of
    float16 products on the way to float32."""
    import numpy
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    strict = InterpreterBuilder.create_dot
    if getattr(strict, "widens", False):
        return

    def widened(handle):
        if handle.dtype.scalar == tl.bfloat16:
            return TensorHandle((handle.data.astype(numpy.uint32) << 16).view(numpy.float32), tl.float32)
        if handle.dtype.scalar == tl.float16:
            return TensorHandle(handle.data.astype(numpy.float32), tl.float32)
        return handle

    def create_dot(self, a, b, d, *options):
        return strict(self, widened(a), widened(b), d, *options)

    create_dot.widens = True
    InterpreterBuilder.create_dot = create_dot


def splat_conditions():
    """Make Triton's interpreter fill blocks with conditions as such: it takes the result of a comparison of scalars for
    a number of their type, on which logical operations fail."""
    import numpy
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    strict = InterpreterBuilder.create_splat
    if getattr(strict, "fills", False):
        return

    def create_splat(self, result_type, scalar):
        if result_type.scalar != tl.int1:
            return strict(self, result_type, scalar)
        return TensorHandle(numpy.full(result_type.shape, scalar.data.item(), bool), tl.int1)

    create_splat.fills = True
    InterpreterBuilder.create_splat = create_splat


def index_by_item():
    """Make Triton's interpreter, of 3.6, read a scalar that ends a range: NumPy no longer takes its array for one."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor
    if getattr(patch, "indexes", False):
        return

    def patch_tensor(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    patch_tensor.indexes = True
    interpreter._patch_lang_tensor = patch_tensor
