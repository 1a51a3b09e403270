"""Rewrite: apply a user's rules."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from irc.diagnostics import fail
from irc.module import Module
from irc.numerics import allows, not_allowed
from irc.pass_manager import Pass, PassContext
from irc.rewrite import Rule, RuleStatistics, apply_rules
from irc.user_files import is_reference, load_user_module, load_user_object


@dataclass
class Rewrite(Pass):
    """Apply rules until none applies.

    rules: a file (`rules.py`: all rules in it, in order) or one rule of it (`rules.py:NAME`); without it, the rules
           of the files of --load.

    Rules of a class that --numerics does not allow are not tried, which a note says. For each rule the statistics say
    how often its root was seen, how often it matched, and why it was rejected. `irc check rules.py` tests the rules.
    """

    rules: str | None = None

    def run(self, module: Module, context: PassContext) -> bool:
        rules = self._chosen(context)
        for rule in rules:
            if not allows(context.numerics, rule.numerics):
                context.note(f"rewrite: `{rule.name}` is not tried: {not_allowed(rule.numerics, context.numerics)}")
        statistics: dict[str, RuleStatistics] = {}
        changed = False
        for function in module.functions.values():
            changed |= apply_rules(function, rules, numerics=context.numerics, statistics=statistics)
        for name, record in statistics.items():
            context.count(f"rewrite({name})", "tried", record.tried)
            context.count(f"rewrite({name})", "matched", record.matched)
            for reason, number in record.rejected.items():
                context.count(f"rewrite({name})", f"rejected: {reason}", number)
        return changed

    def _chosen(self, context: PassContext) -> list[Rule]:
        if self.rules is None:
            rules = [rule for loaded in context.loaded for rule in rules_of(loaded)]
        elif is_reference(self.rules):
            named = load_user_object(self.rules)
            rules = [named] if isinstance(named, Rule) else []
        else:
            rules = rules_of(load_user_module(self.rules))
        if not rules:
            raise fail("pass.option", f"rewrite found no rules in {self.rules or 'the loaded files'}",
                       expected="functions with @rewrite(numerics=...)")  # fmt: skip
        return rules


def rules_of(module: ModuleType) -> list[Rule]:
    """The rules that a file defines, in order."""
    return [
        thing
        for thing in vars(module).values()
        if isinstance(thing, Rule) and thing.function.__module__ == module.__name__
    ]
