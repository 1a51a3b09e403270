"""What the annotation of an attribute, such as `tuple[int | Expr, ...]`, says of a value and of a list's elements."""

from __future__ import annotations

from functools import lru_cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin


@lru_cache(maxsize=1024)
def kinds_of(annotation: Any) -> frozenset[Any]:
    """The plain types that an annotation allows outside of lists: of `int | Expr`, both; of a Literal, its values'."""
    if get_origin(annotation) is Literal:
        return frozenset(type(value) for value in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return frozenset().union(*map(kinds_of, get_args(annotation)))
    return frozenset([annotation])


@lru_cache(maxsize=1024)
def element_of(annotation: Any, index: int) -> Any:
    """The annotation of a list's element: of `tuple[int, ...]`, int."""
    for candidate in get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,):
        arguments = get_args(candidate)
        if get_origin(candidate) is tuple and arguments:
            return arguments[0 if arguments[-1] is Ellipsis else min(index, len(arguments) - 1)]
    return Any
