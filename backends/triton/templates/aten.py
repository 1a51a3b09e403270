"""Operators that PyTorch computes as they are: its decompositions of matrices, transforms, random numbers.

Random numbers are PyTorch's: torch.manual_seed repeats them.
"""

from __future__ import annotations

import torch

from .errors import ArtefactError


def call(operator, arguments):
    """The results of an overload such as "normal.Tensor_float", each in memory of its own, its elements in order."""
    name, _, which = operator.partition(".")
    try:
        overload = getattr(getattr(torch.ops.aten, name), which or "default")
        results = overload(**arguments)
    except (RuntimeError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise ArtefactError(f"PyTorch could not run {operator}: {error}") from None
    results = results if isinstance(results, tuple) else (results,)
    results = [each.resolve_conj().resolve_neg() for each in results]
    if overload.is_view:
        results = [each.clone(memory_format=torch.contiguous_format) for each in results]
    results = [each.contiguous() for each in results]
    return results[0] if len(results) == 1 else tuple(results)
