"""The verbs as Python functions: this is where frontends, passes and backends are joined.

Each verb returns a dataclass or a module; the command line prints it and `--json` dumps it. MODEL is everywhere
a path to an `.onnx` or `.irc` file, `FILE.py:NAME` (a module, or a function without parameters that makes one),
`-` for text on standard input, or a `Module`.
"""

from __future__ import annotations

from irc.driver.checking import check
from irc.driver.compiling import compile, kernels, opt, run
from irc.driver.documentation import doc
from irc.driver.explaining import explain
from irc.driver.models import Settings, load
from irc.driver.printing import print
from irc.op import trace

__all__ = ["Settings", "check", "compile", "doc", "explain", "kernels", "load", "opt", "print", "run", "trace"]
