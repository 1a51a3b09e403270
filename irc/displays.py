"""What notebooks show of a module: the page of `irc view`.

It is written in a higher layer, so the package `irc`, which knows all layers, registers here what writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

page_of: Callable[[Any], str | None] | None = None
