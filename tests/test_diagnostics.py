"""Diagnostics: the layout of DESIGN.md to the letter, carets under the right word, and a whole code table."""

from __future__ import annotations

import ast
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from irc.diagnostics import (
    CODES,
    UNKNOWN,
    Code,
    Diagnostic,
    Exit,
    InternalError,
    IrcError,
    Location,
    SourceSpan,
    fail,
    printable,
    read_codes,
)
from irc.driver.code_pages import RULES, explain_code
from irc.kernel.rules import LEGALITY_RULES, UNUSED
from irc.numerics import NUMERICS, NUMERICS_RULES
from irc.verifier.rules import VERIFIER_RULES

LINE = "    %y = add %x, %o : f16[B, S, 768]"
SPAN = SourceSpan("block.irc", 12, LINE, 14, 6, "dim 2: 768 vs 770")


def test_the_layout_of_the_design() -> None:
    location = Location("gpt.py", 52, name="h.0.attn").by("legalize").by("rule expand(attention)")
    error = fail("type.broadcast", "add: cannot broadcast f16[B, S, 768] with f16[770]", at=location, text=SPAN)
    assert str(error) == """\
error[type.broadcast]: add: cannot broadcast f16[B, S, 768] with f16[770]
  --> block.irc:12:14
   |  %y = add %x, %o : f16[B, S, 768]
   |           ^^^^^^ dim 2: 768 vs 770
  from: gpt.py:52 (h.0.attn)
  after: legalize, rule expand(attention)
  help: irc explain type.broadcast"""


def test_without_text_the_location_is_the_place() -> None:
    error = fail("onnx.invalid", "bad\nworse", at=Location(name="/h/0/Add"), origin=Location("gpt.py", 3),
                 expected="good", help="fix it", notes=["one", "two"])
    assert str(error) == """\
error[onnx.invalid]: bad
    worse
  --> /h/0/Add
  from: gpt.py:3
  expected: good
  note: one
  note: two
  help: fix it"""
    assert str(fail("file.missing", "no x")) == "error[file.missing]: no x\n  help: irc explain file.missing"


def test_a_location_that_is_the_quoted_line_is_not_repeated() -> None:
    assert "from:" not in str(fail("text.syntax", "no", at=Location("block.irc", 12, 3), text=SPAN))


def test_color_only_adds_escapes() -> None:
    diagnostic = Diagnostic("type.broadcast", "no", text=SPAN)
    colored = diagnostic.render(color=True)
    assert "\x1b[" in colored and "\x1b[" not in diagnostic.render()
    for escape in ("\x1b[1;31m", "\x1b[34m", "\x1b[0m"):
        colored = colored.replace(escape, "")
    assert colored == diagnostic.render()


def caret_lines(source: str, column: int, length: int = 1) -> tuple[str, str]:
    text = fail("text.syntax", "no", text=SourceSpan("a", 1, source, column, length)).diagnostics[0].render()
    quoted, caret = text.split("\n")[2:4]
    return quoted.removeprefix("   |  "), caret.removeprefix("   |  ")


def test_carets() -> None:
    assert caret_lines("\t%x = op", 7, 2) == ("%x = op", "     ^^")
    assert caret_lines("op", 99, 5) == ("op", "  ^")                 # past the end: one column after it
    assert caret_lines("", 1) == ("", "^")
    assert caret_lines("  x", 1) == ("  x", "^")                     # in the indentation
    assert caret_lines("変数 = op", 6, 2) == ("変数 = op", "       ^^")  # wide characters take two columns
    assert caret_lines("a\x1bb c", 5) == ("a\\x1bb c", "       ^")     # an escape is printed as text, and counted


@pytest.mark.parametrize("column", [1, 50, 4000, 9999])
def test_a_long_line_is_clipped_around_the_caret(column: int) -> None:
    source = "".join(chr(ord("a") + i % 26) for i in range(10_000))
    quoted, caret = caret_lines(source, column, 3)
    assert len(quoted) < 120
    under = quoted[caret.index("^"):caret.rindex("^") + 1]
    assert under == source[column - 1:column + 2]
    assert len(caret_lines(source, column, 5000)[1]) < 250


def test_hostile_names_cannot_write_to_the_terminal() -> None:
    text = str(fail("onnx.invalid", "node '\x1b[2J\u202e'", at=Location("\x07.onnx", name="\r\ud800"), notes=["\x00"]))
    assert all(line.isprintable() for line in text.split("\n"))
    assert "\\x1b[2J\\u202e" in text and "\\ud800" in text
    assert printable("h.0/attn é") == "h.0/attn é"


def test_locations() -> None:
    location = Location("gpt.py", 41, 8, "h.0.attn")
    assert str(location) == "gpt.py:41:8 (h.0.attn)"
    assert str(Location("gpt.py")) == "gpt.py" and str(Location(name="n")) == "n" and str(UNKNOWN) == "unknown"
    assert location.by("raise(gelu)").by("raise(gelu)").by("fold").made_by == ("raise(gelu)", "fold")
    assert location.made_by == ()
    assert not UNKNOWN.known and location.known


def test_placed_fills_only_what_is_missing() -> None:
    here, there = Location("a", 1), Location("b", 2)
    error = IrcError([Diagnostic("type.rank", "one"), Diagnostic("type.rank", "two", there)]).placed(here, SPAN)
    assert [d.location for d in error.diagnostics] == [here, there]
    assert all(d.text == SPAN for d in error.diagnostics)
    assert isinstance(fail("internal.error", "x").placed(here), InternalError)


def test_the_first_finding_decides() -> None:
    error = IrcError([Diagnostic("check.differs", "a"), Diagnostic("type.dtype", "b")])
    assert (error.code, error.exit_code) == ("check.differs", 1)
    assert str(error).count("error[") == 2
    assert pickle.loads(pickle.dumps(error)).diagnostics == error.diagnostics


def test_internal_errors_end_with_70() -> None:
    error = fail("internal.pass", "fold raised")
    assert isinstance(error, InternalError) and error.exit_code == 70


def test_unknown_codes_are_our_bug() -> None:
    with pytest.raises(AssertionError, match=r"no\.such"):
        fail("no.such", "x")
    with pytest.raises(AssertionError):
        IrcError([])


def test_every_code_is_explained() -> None:
    for code, entry in CODES.items():
        area, what = code.split(".")
        assert area.isidentifier() and what.isidentifier() and code == code.lower()
        assert entry.exit_code in set(Exit) - {Exit.FINE}
        assert (entry.exit_code == Exit.INTERNAL) == (area == "internal")
        text = explain_code(code)
        assert text.startswith(f"{code}: {entry.summary}\n") and max(map(len, text.split("\n"))) <= 120
        for sentence in (entry.explanation, entry.remedy):
            assert sentence.strip() == sentence and "  " not in sentence and sentence


@pytest.mark.parametrize("number", RULES)
def test_every_rule_has_a_page(number: str) -> None:
    rule = RULES[number]
    head, why, example = rule.page.split("\n\n")
    assert head and why.startswith("Why: ") and example.startswith("Example: ")
    assert rule.statement[0].isupper() and rule.statement.endswith(".") and rule.reason.endswith(".") and rule.example
    text = explain_code(number)
    assert text.startswith(f"{number}: [{rule.code}] ") and max(map(len, text.split("\n"))) <= 120
    for part in (rule.reason[:20], rule.example, CODES[rule.code].remedy[:20], f"{rule.functions[0].__name__} ("):
        assert part in text
    assert f"irc doc {number}" in explain_code(rule.code)


def functions_that_raise() -> dict[str, set[str]]:
    """The functions that report a numbered rule, with the numbers that they report."""
    root = Path(__file__).parent.parent
    raised: dict[str, set[str]] = {}
    folders = ("irc", "frontends", "passes", "backends")
    for path in (path for folder in folders for path in (root / folder).rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == "LegalityFailure":
                        number = call.args[0]
                        assert isinstance(number, ast.Constant), f"{path.name}:{call.lineno}: a number that is computed"
                        raised.setdefault(function.name, set()).add(number.value)
    return raised


def test_rules_that_are_raised_and_documented_are_the_same() -> None:
    """A legality failure states its number; failures of the verifier get it from the row of the function."""
    raised = functions_that_raise()
    assert set().union(*raised.values()) == LEGALITY_RULES.keys()
    for number, rule in LEGALITY_RULES.items():
        assert [raised[function.__name__] for function in rule.functions] == [{number}] * len(rule.functions)
    listed = [function.__name__ for rule in LEGALITY_RULES.values() for function in rule.functions]
    folder = Path(__file__).parent.parent / "irc" / "kernel"
    here = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*rules.py"))
    assert sorted(name for name in raised if f"\ndef {name}(" in here) == sorted(listed)
    for table in (LEGALITY_RULES, VERIFIER_RULES):
        assert len({rule.functions for rule in table.values()}) == len(table)
        assert {rule.code.partition(".")[0] for rule in table.values()} == {"fuse" if "F1" in table else "verify"}
    documented = {code for code in CODES if code.startswith(("fuse.", "verify."))}
    assert {rule.code for rule in (LEGALITY_RULES | VERIFIER_RULES).values()} == documented
    assert tuple(NUMERICS_RULES) == NUMERICS


SECTION = "## a.b\n\nwrong (exit status 3)\n\nBecause\nof this.\n\nWhat to do: Fix it.\n\n"


def test_the_code_page_is_read_strictly() -> None:
    page = f"# Codes\n\nProse.\n\n{SECTION}# Group\n\n{SECTION.replace('a.b', 'a.c')}"
    code = Code("wrong", Exit.BAD_INPUT, "Because of this.", "Fix it.")
    assert read_codes(page) == {"a.b": code, "a.c": code}
    for good, bad in (("a.b", "ab"), ("3", "x"), ("3", "5"), (" (exit status 3)", ""), ("What to do: ", ""),
                      ("\n\n", "\n"), ("Because", "Because\n\n"), ("Fix it.", "")):
        with pytest.raises(ValueError, match="section"):
            read_codes(SECTION.replace(good, bad))
    with pytest.raises(ValueError, match="twice"):
        read_codes(SECTION * 2)


def test_codes_of_the_source_and_of_the_table_are_the_same() -> None:
    root = Path(__file__).parent.parent
    files = [path for folder in ("irc", "frontends", "passes", "backends") for path in (root / folder).rglob("*.py")]
    used = {(path.name, code) for path in files
            for code in re.findall(r'(?:fail|Diagnostic)\(\s*"([a-z_.]+)"', path.read_text(encoding="utf-8"))}
    assert len(used) > 20 and not [each for each in sorted(used) if each[1] not in CODES]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    never_raised = [code for code in CODES if f'"{code}"' not in text and f"[{code}]" not in text]
    assert not never_raised


def test_rules_that_texts_mention_exist() -> None:
    root = Path(__file__).parent.parent
    patterns = ("irc/**/*.py", "passes/*.py", "backends/**/*.py", "tests/*.py", "docs/*.md", "*.md")
    texts = {path: path.read_text(encoding="utf-8") for each in patterns for path in root.glob(each)}
    unknown = [f"{path.name}: {number}" for path, text in texts.items() if path.name != "CHANGELOG.md"
               for number in re.findall(r"(?<!no )\b(?:[Rr]ules?|doc|explain|and|to) ([FV][0-9]+)\b", text)
               if number not in RULES and number not in UNUSED]  # fmt: skip
    removed = [path.name for path, text in texts.items()
               for number in re.findall(r"\b[Rr]ule ([FV][0-9]+)\b(?! was removed)", text) if number in UNUSED]
    assert not unknown and not removed


def test_explaining_an_unknown_code_suggests() -> None:
    with pytest.raises(IrcError, match=r"type\.broadcast") as caught:
        explain_code("type.brodcast")
    assert (caught.value.code, caught.value.exit_code) == ("usage.unknown_code", 2)


def test_loads_no_array_library() -> None:
    subprocess.run([sys.executable, "-c", "import sys, irc.diagnostics; assert 'numpy' not in sys.modules"], check=True)
