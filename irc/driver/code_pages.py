"""The pages of error codes and of numbered rules, as `irc explain CODE` and `irc doc F6` show them."""

from __future__ import annotations

import re
import textwrap

from irc.diagnostics import CODES, did_you_mean, fail
from irc.kernel.rules import LEGALITY_RULES, UNUSED
from irc.numbered_rules import NumberedRule
from irc.numerics import NUMERICS_RULES
from irc.verifier.rules import VERIFIER_RULES

RULES = {**LEGALITY_RULES, **VERIFIER_RULES, **NUMERICS_RULES}
WIDTH = 100  # columns


def is_code(text: str) -> bool:
    return text in CODES or text in RULES or text in UNUSED


def explain_code(text: str) -> str:
    """What a code means, what to do, how the process ends, and which rules have the code; or the page of a rule."""
    if text in RULES:
        return rule_page(RULES[text])
    if text in UNUSED:
        raise fail("usage.unknown_code", f"rule {text} was removed: {UNUSED[text]}", help="irc doc rules")
    if re.fullmatch("[FV][0-9]+", text):
        raise fail("usage.unknown_code", f"there is no rule {text}", help="irc doc rules lists them")
    if text not in CODES:
        raise fail("usage.unknown_code", f"there is no diagnostic code {text!r}",
                   help=did_you_mean(text, CODES, "irc doc codes lists them"))  # fmt: skip
    entry = CODES[text]
    explanation = textwrap.fill(entry.explanation, WIDTH)
    having = [number for number, rule in RULES.items() if rule.code == text]
    pages = [f"{'Rule' if len(having) == 1 else 'Rules'}: {', '.join(f'irc doc {each}' for each in having)}"]
    return "\n".join([f"{text}: {entry.summary}", "", explanation, "", *_what_to_do(text), *(pages if having else [])])


def _what_to_do(code: str) -> list[str]:
    entry = CODES[code]
    status = f"Exit status: {int(entry.exit_code)} ({entry.exit_code.meaning})"
    return [textwrap.fill(f"What to do: {entry.remedy}", WIDTH), status]


def rule_page(rule: NumberedRule) -> str:
    """The page of a numbered rule: what it demands, why, an example that breaks it, what to do, and the function."""
    parts = [wrapped(f"{rule.number}: [{rule.code}] ", rule.statement), wrapped("Why: ", rule.reason)]
    parts.append(f"Example: {rule.example}")
    parts.append("\n".join([*_what_to_do(rule.code), textwrap.fill(f"Checked by: {rule.places}", WIDTH)]))
    return "\n\n".join(parts)


def wrapped(head: str, text: str) -> str:
    """A paragraph of at most `WIDTH` columns that begins with `head`; further lines of an entry are indented."""
    hanging = " " * (7 if head.startswith(" ") else 0)
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=hanging, break_on_hyphens=False)
