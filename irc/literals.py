"""The elements of tensors as words, exact to the bit, both ways.

Floats are written by the shortest decimal that their dtype rounds to them; a NaN that is not the canonical quiet one
by its bits, in hexadecimal. Complex numbers are pairs, strings are quoted in the way of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from irc.diagnostics import fail
from irc.dtypes import BOOL, F64, STRING, DType, from_numpy, limits
from irc.weights import Tensor

SPLAT_OVER = 8  # of more equal elements than these, one is written


def quote(text: str) -> str:
    """A string in quotes; what is not printable is escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def format_literal(tensor: Tensor) -> str:
    """The elements as nested lists, exact to the bit."""
    array, shape = tensor.array(), tensor.shape
    if tensor.size > SPLAT_OVER and tensor.is_splat():
        array, shape = array.reshape(-1)[:1], ()
    texts = element_texts(array, tensor.dtype)
    for axis in reversed(range(len(shape))):
        extent = shape[axis]
        lists = (texts[extent * index : extent * (index + 1)] for index in range(prod(shape[:axis])))
        texts = [f"[{', '.join(elements)}]" for elements in lists]
    return texts[0]


def element_texts(array: np.ndarray[Any, Any], dtype: DType) -> list[str]:
    """The text of each element, in order."""
    flat = array.reshape(-1)
    if dtype is STRING:
        return [quote(element) for element in flat.tolist()]
    if dtype is BOOL:
        return ["true" if element else "false" for element in flat.tolist()]
    if dtype.is_integer:
        return [str(element) for element in flat.astype(np.int64 if dtype.is_signed else np.uint64).tolist()]
    if dtype.is_complex:
        parts = flat.view(np.float32 if dtype.bits == 64 else np.float64)
        texts = element_texts(parts, from_numpy(parts.dtype))
        return [f"({real}, {imaginary})" for real, imaginary in zip(texts[::2], texts[1::2], strict=True)]
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = flat.astype(np.float64).tolist()
    texts = [repr(value) if dtype is F64 else _shortest(value.hex(), dtype) for value in values]
    canonical = np.full(1, np.nan).astype(dtype.numpy).tobytes()
    for index, value in enumerate(values):
        if value != value and flat[index].tobytes() != canonical:
            texts[index] = f"0x{flat[index].tobytes()[::-1].hex()}"
    return texts


@lru_cache(maxsize=4096)
def _shortest(bits: str, dtype: DType) -> str:
    """The shortest decimal that `dtype` rounds to a number. (Given by its bits, as 0.0 and -0.0 are equal keys.)"""
    number = float.fromhex(bits)
    for digits in range(1, 17):
        text = repr(float(f"{number:.{digits}g}"))
        with np.errstate(over="ignore"):
            rounded = float(np.float64(text).astype(dtype.numpy))
        if rounded == number:
            return text
    return repr(number)


def read_elements(elements: Sequence[str], dtype: DType) -> np.ndarray[Any, Any]:
    """The elements as an array of one axis.

    Raises ValueError or OverflowError for a word that is no element, `type.dtype` for an integer out of range.
    """
    if dtype is STRING:
        array = np.empty(len(elements), object)
        array[:] = [json.loads(element) for element in elements]
        for element in array:
            if not isinstance(element, str):
                raise ValueError(f"{element!r} is no string")
            element.encode("utf-8", "surrogateescape")  # a ValueError where it is neither text nor bytes
        return array
    words = [element.strip() for element in elements]
    if dtype is BOOL:
        return np.array([("false", "true").index(word) for word in words], bool)
    if dtype.is_integer:
        numbers = [int(word) for word in words]
        low, high = limits(dtype)
        if numbers and not (low <= min(numbers) and max(numbers) <= high):
            raise fail("type.dtype", f"an element does not fit {dtype}", expected=f"integers from {low} to {high}")
        return np.array(numbers, np.int64 if dtype.is_signed else np.uint64).astype(dtype.numpy)
    if dtype.is_complex:
        parts = [part for word in words for part in complex_parts(word)]
        return _floats(parts, np.dtype(np.float32 if dtype.bits == 64 else np.float64)).view(dtype.numpy)
    return _floats(words, dtype.numpy)


def complex_parts(word: str) -> list[str]:
    """The two numbers of `(1.0, -2.0)`."""
    real, imaginary = word.removeprefix("(").removesuffix(")").split(",")
    return [real.strip(), imaginary.strip()]


def _floats(words: Sequence[str], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Decimals, and hexadecimal words, which are the bits of an element."""
    bits = {index: int(word, 16) for index, word in enumerate(words) if word.startswith("0x")}
    wide = np.array([0.0 if index in bits else float(word) for index, word in enumerate(words)], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        array = wide.astype(dtype)
    for index, pattern in bits.items():
        array.view(f"u{dtype.itemsize}")[index] = pattern
    return array
