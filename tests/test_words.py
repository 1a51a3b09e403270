"""Words: documents, comments, docstrings, help texts and messages use the field's terms.

`BANNED` has a pattern for each word to avoid, and what to write instead. Words are banned because they are metaphors
("road"), because they are private to this project ("birth"), or because a standard term exists ("mend"). `NAMES` are
names that do not say what they hold.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Files and folders that are checked, by the beginnings of their paths.
COVERED = (  # one for each line, so that changes merge
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "backends/",
    "docs/",
    "examples/",
    "frontends/",
    "irc/",
    "passes/",
    "pyproject.toml",
    "tests/",
)
NAMES_COVERED = (  # one for each line, so that changes merge
    "backends/",
    "frontends/",
    "irc/",
    "passes/",
    "tests/",
)
NAMES_NOT_COVERED = (  # being rewritten
    "backends/triton/source.py",
    "irc/kernel/schedule.py",
)
SUFFIXES = (".css", ".html", ".js", ".lark", ".md", ".py", ".toml")
EXCLUDED = (
    "docs/iframe-worker.js",  # a library
    "irc/driver/pages/dagre.min.js",  # a library
    "tests/golden/",
    "tests/test_words.py",
)

# Pattern of a word: what to write instead. Patterns match whole words, in upper or lower case.
BANNED = {
    # metaphors
    r"roads?": "path, lowering, frontend",
    r"house": "the repository, the structure",
    r"rooms?": "module",
    r"floors? (?:\d|above|below)": "layer",
    r"flood(?:s|ed|ing)?": "propagate, index propagation",
    r"lives? in": "is defined in, is part of",
    r"births?|born": "is defined; a data-dependent symbol",
    r"(?:takes?|took|taken|carr(?:y|ies|ied)|left|leaves?|leaving|stays?|keeps?|kept) whole": "legal for the target; "
    "kept as an opaque operation",
    r"eras\w+ (?:a |its |the )?(?:kernel's )?braces|braces (?:of|around) \w+": "inline the region",
    r"the truth|tells? the truth": "the reference, the exact value; is consistent",
    r"at hand": "visible, available",
    r"answers? each other|answers? one another": "index map",
    r"passes over (?:a )?NaN": "ignores NaN",
    r"NaN (?:that )?wins|NaN must win": "is propagated",
    r"hands? on": "is data movement",
    r"gives? way(?: to)?": "is replaced by",
    r"(?:gives|give|given|gave|giving) up": "loses; stops",
    r"of nothing": "empty, of an empty tensor",
    # persons and speech
    r"told|tells?": "stated, passed; states, determines, reports",
    r"whoever": "the caller, the user",
    r"nobody|somebody|anybody": "no operation, no other value",
    r"ours": "irc's",
    r"complain(?:s|ts?)?": "error, message",
    r"honest(?:ly)?": "correct",
    r"asks? for|asked for": "requires, requests",
    # standard terms
    r"(?:programs?|modules?|models?|operations?) of (?:PyTorch|ONNX)(?! models)": "PyTorch program, ONNX model",
    r"mend(?:s|ed)?": "fix",
    r"anew": "again",
    r"behind": "after",
    r"as far as": "where, if, within",
    r"that which": "what, the one that",
    r"just so": "exactly",
    r"has x's(?=[.,])": "x's shape, x's type",
    r"comes? by": "executes, reaches",
    r"by way of": "via",
    r"spell(?:s|ed|ing)? out": "decomposed; escaped",
    r"brings?|brought": "defines, contains, adds",
    r"(?<!plan\.)refus(?:es?|ed(?!:)|als?|ing)": "reject, fail; failure",
    r"(?<!')person(?:'s)?": "user",
    # American spelling
    r"\w*(?:neighbour|favour|honour|behaviour)\w*": "neighbor, favor, honor, behavior",
    r"centre[ds]?|labelled": "center, centered, labeled",
    r"\w*(?:optim|normal|initial|quant|serial|recogn|organ|general)is(?:e[ds]?|ing|ations?|able)": "-ize, -ization",
}
# Names of variables, parameters, attributes and functions that do not state what they hold: write `matches`,
# `new_values`, `expected`.
NAMES = {"born", "complaint", "found", "made", "own", "rooms", "told", "truth", "wanted"}


def files() -> list[Path]:
    """The sources and documents, apart from what is generated or copied."""
    kept = []
    for path in sorted(ROOT.rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        hidden = any(part.startswith(".") or part.endswith(".egg-info") for part in path.relative_to(ROOT).parts)
        if path.suffix in SUFFIXES and not hidden and not name.startswith(("build/", *EXCLUDED)):
            kept.append(path)
    return kept


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a document; of a Python file its comments and its strings of several words."""
    source = path.read_text()
    if path.suffix != ".py":
        generated = re.compile(r"<!-- reading-order.*?<!-- end of reading-order -->", re.DOTALL)  # of docstrings
        yield from enumerate(generated.sub(lambda match: "\n" * match[0].count("\n"), source).split("\n"), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for offset, line in enumerate(node.value.split("\n")):
                yield node.lineno + offset, line


@cache
def checked() -> list[tuple[str, int, str]]:
    """File, line number and text of everything that is checked."""
    names = {path: path.relative_to(ROOT).as_posix() for path in files()}
    return [(name, number, text) for path, name in names.items() if name.startswith(COVERED)
            for number, text in texts(path)]  # fmt: skip


@pytest.mark.parametrize("word", BANNED)
def test_word_is_not_used(word: str) -> None:
    pattern = re.compile(rf"\b(?:{word})\b", re.IGNORECASE)
    uses = [f"{name}:{number}: {text.strip()}" for name, number, text in checked() if pattern.search(text)]
    assert not uses, f"write instead: {BANNED[word]}\n" + "\n".join(uses)


def test_replacements_use_no_banned_word() -> None:
    for word in BANNED:
        pattern = re.compile(rf"\b(?:{word})\b", re.IGNORECASE)
        assert not [instead for instead in BANNED.values() if pattern.search(instead)], word


def test_covered_paths_exist() -> None:
    for prefix in (*COVERED, *NAMES_COVERED, *NAMES_NOT_COVERED, *EXCLUDED):
        assert (ROOT / prefix).exists(), prefix


def defined_name(node: ast.AST) -> str:
    """The name of the variable, parameter, attribute or function that a node defines or reads; else empty."""
    if isinstance(node, ast.Attribute):
        return node.attr if isinstance(node.ctx, ast.Store) else ""
    return getattr(node, {ast.Name: "id", ast.arg: "arg", ast.FunctionDef: "name"}.get(type(node), ""), "")


def test_names_say_what_they_hold() -> None:
    uses = []
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py" and name.startswith(NAMES_COVERED) and name not in NAMES_NOT_COVERED:
            for node in ast.walk(ast.parse(path.read_text())):
                if defined_name(node) in NAMES:
                    uses.append(f"{name}:{node.lineno}: {defined_name(node)}")
    assert not uses, "\n".join(uses)
