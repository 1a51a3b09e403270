"""Text to IR: reads what `irc.printer` writes. The language is described in `irc/text.lark`.

Lark finds the structure; an action for each rule builds the IR as soon as the rule is complete, so that nothing is
held twice and nothing recurses into regions. Names are resolved as they occur (a definition stands before its uses),
and every operation's type rule is applied: written types are compared with those of the rule.

Start with `reader`, which has the actions; it reads parts of operations by `types`, `tensors` and `attributes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from irc import weights
from irc.module import Module
from irc.op import OperationDefinition
from irc.parser.reader import Reader

__all__ = ["parse"]


def parse(text: str, path: Path | None = None, readers: Mapping[str, weights.Reader] | None = None,
          definitions: Mapping[str, OperationDefinition] | None = None) -> Module:  # fmt: skip
    """The module that a text describes.

    `path` is the file of the text: errors show it, and weights are beside it (else in the working folder); `readers`
    open weights in formats other than safetensors; `definitions` are operations beside those of the table. Raises coded
    errors with their place.
    """
    return Reader(text, path, readers or {}, definitions or {}).read()
