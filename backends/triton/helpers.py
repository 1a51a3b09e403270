"""The functions of templates/functions.py, which artefacts get as they need them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache

from irc.backends.triton.calls import TEMPLATES, statements_of

FUNCTIONS = TEMPLATES / "functions.py"


@cache
def helper_sources() -> dict[str, str]:
    """The source of each function by name, in order."""
    text = FUNCTIONS.read_text("utf-8")
    lines = text.splitlines()
    sources = {}
    for node in statements_of(text):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            sources[node.name] = "\n".join(lines[node.decorator_list[0].lineno - 1 : node.end_lineno])
    return sources


def needed_helpers(names: Iterable[str]) -> list[str]:
    """The sources of these functions and of those that they call, in order."""
    sources = helper_sources()
    needed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [other for other in sources if re.search(rf"\b{other}\(", sources[name])]
    return [source for name, source in sources.items() if name in needed]
