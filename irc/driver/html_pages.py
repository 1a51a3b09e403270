"""HTML pages in one file each: scripts, styles and data are parts of the page, which loads nothing.

The sources of pages are the files of the folder `pages`. A page is a template whose scripts and styles are named in it,
and a report as JSON, which its script draws. Text of a model reaches the page only as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from irc._version import __version__
from irc.diagnostics import printable

FOLDER = files("irc.driver") / "pages"
SCRIPT = re.compile(r'<script src="([\w.-]+)"(?: type="(text/plain)" id="(\w+)")?></script>')
STYLE = re.compile(r'<link rel="stylesheet" href="([\w.-]+)"/>')
# What JSON need not escape, but HTML and JavaScript read as markup or as ends of lines.
ESCAPES = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
# Nothing is loaded. A worker lays out graphs; `blob:` is where its script is.
POLICY = ("default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; worker-src blob:; img-src data: blob:; "
          "base-uri 'none'; form-action 'none'")  # fmt: skip


def page(template: str, title: str, data: Any) -> str:
    """The page of a template, such as "view", with this title and data, which `json` can write."""
    hashes: list[str] = []

    def script(match: re.Match[str]) -> str:
        text, kind, name = _source(match[1]), match[2], match[3]
        if kind is not None:  # the source of a worker
            return f'<script type="{kind}" id="{name}">{text}</script>'
        hashes.append(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")
        return f"<script>{text}</script>"

    text = SCRIPT.sub(script, _source(f"{template}.html"))
    text = STYLE.sub(lambda match: f"<style>\n{_source(match[1])}</style>", text)
    parts = {
        "policy": html.escape(POLICY.format(scripts=" ".join(hashes))),
        "title": html.escape(printable(title)),
        "version": html.escape(__version__),
        "data": json_in_html(data),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def json_in_html(data: Any) -> str:
    """JSON that may stand in a script element: no character in it ends the element or begins markup."""
    text = json.dumps(finite(data), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return re.sub("[<>&\u2028\u2029]", lambda match: ESCAPES[match[0]], text)


def finite(part: Any) -> Any:
    """Data with None for infinite numbers and NaN, which JSON does not have."""
    if isinstance(part, float):
        return part if math.isfinite(part) else None
    if isinstance(part, Mapping):
        return {key: finite(value) for key, value in part.items()}
    return [finite(each) for each in part] if isinstance(part, (list, tuple)) else part


def _source(name: str) -> str:
    """A file of the folder `pages`; a script in it may not hold the end of its element."""
    return (FOLDER / name).read_text(encoding="utf-8")
