"""What differs between two plan files: entries that were merged, split, added or changed, schedules and products.

Entries are compared by their members, so that names, the order of entries and the plans' histories do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from irc.disjoint_sets import DisjointSets
from irc.plan_file import Entry, PlanFile
from irc.schedule_options import NO_OPTIONS

Key = tuple[str | None, frozenset[str]]  # the function and the members of an entry
MOST_NAMES = 6  # that a text lists


@dataclass(frozen=True)
class Difference:
    """One difference: its kind, the names of the entries (or the members) in either plan, and a sentence.

    Kinds are merged, split, changed, added, removed, duplicated, schedule, siblings, products, bundles, comment,
    and made_for.
    """

    kind: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text


def differences(one: PlanFile, other: PlanFile) -> list[Difference]:
    """What differs from one plan to another, in the order of the other; empty for equal plans."""
    return [*of_purpose(one, other), *of_groups(one.groups, other.groups), *of_same_groups(one.groups, other.groups),
            *of_copies(one.groups, other.groups), *of_siblings(one.siblings, other.siblings),
            *of_products(one.products, other.products), *of_bundles(one.bundles, other.bundles),
            *of_comments("the plan", one.comment, other.comment)]  # fmt: skip


def of_purpose(one: PlanFile, other: PlanFile) -> Iterator[Difference]:
    """What the plans were made for."""
    before, after = one.made_for.stated, other.made_for.stated
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key):
            values = tuple(shown(each.get(key)) for each in (before, after))
            yield Difference("made_for", values[:1], values[1:], f"made for {key} {values[0]}, then {values[1]}")


def of_groups(before: Sequence[Entry], after: Sequence[Entry]) -> Iterator[Difference]:
    """Entries whose sets of members only one plan has, those that share members together."""
    known, kept = {key(entry) for entry in before}, {key(entry) for entry in after}
    old = [entry for entry in before if key(entry) not in kept]
    new = [entry for entry in after if key(entry) not in known]
    for ones, others in sharing(old, new):
        names = tuple(entry.name for entry in ones), tuple(entry.name for entry in others)
        members = [dict.fromkeys(name for entry in side for name in entry.members) for side in (ones, others)]
        is_same = members[0].keys() == members[1].keys()
        if len(others) == 1 and len(ones) > 1 and is_same:
            yield Difference("merged", *names, f"{named(ones)} are merged: {label(others[0])} has {listed(members[1])}")
        elif len(ones) == 1 and len(others) > 1 and is_same:
            yield Difference("split", *names, f"{label(ones[0])} is split: {parts(others)}")
        else:
            yield from changed(ones, others)


def changed(before: Sequence[Entry], after: Sequence[Entry]) -> Iterator[Difference]:
    """How entries that share members differ. Each is in one difference: with the entry of its name, or else with that
    of the most members in common, or it is new or removed."""
    pairs = matched(before, after)
    for entry in after:
        one = pairs.get(entry)
        if one is None:
            yield Difference("added", (), (entry.name,), f"{label(entry)} is new: {listed(entry.members)}")
            continue
        named_now = "" if one.name == entry.name else f"is now @{entry.name}, and "
        text = f"{label(one)} {named_now}{gains_and_losses(one.members, entry.members)}"
        yield Difference("changed", (one.name,), (entry.name,), text)
    for entry in set_apart(before, pairs.values()):
        yield Difference("removed", (entry.name,), (), f"{label(entry)} is removed: {listed(entry.members)}")


def matched(before: Sequence[Entry], after: Sequence[Entry]) -> dict[Entry, Entry]:
    """Entries of the later plan with those of the earlier one that they are compared with, each at most once."""
    names = {(entry.function, entry.name): entry for entry in before}
    pairs = {entry: names[entry.function, entry.name] for entry in after if (entry.function, entry.name) in names}
    shared: dict[tuple[Entry, Entry], int] = {}
    holders = held(before)
    for entry in set_apart(after, pairs):
        for name in entry.members:
            for one in holders.get((entry.function, name), ()):
                shared[entry, one] = shared.get((entry, one), 0) + 1
    taken = set(pairs.values())
    for entry, one in sorted(shared, key=lambda pair: (-shared[pair], len(pair[1].members))):
        if entry not in pairs and one not in taken:
            pairs[entry] = one
            taken.add(one)
    return pairs


def set_apart(entries: Iterable[Entry], others: Iterable[Entry]) -> list[Entry]:
    """The entries that are none of the others, in order."""
    known = set(others)
    return [entry for entry in entries if entry not in known]


def gains_and_losses(before: Sequence[str], after: Sequence[str]) -> str:
    """`gains %a and loses %b, %c`."""
    known, kept = set(before), set(after)
    gained = [name for name in after if name not in known]
    lost = [name for name in before if name not in kept]
    changes = [f"gains {listed(gained)}"] if gained else []
    changes += [f"loses {listed(lost)}"] if lost else []
    return " and ".join(changes)


def sharing(before: Sequence[Entry], after: Sequence[Entry]) -> list[tuple[list[Entry], list[Entry]]]:
    """Entries of both plans that share members, also through others, in the order of the later plan."""
    sets: DisjointSets[Entry] = DisjointSets()
    holder: dict[tuple[str | None, str], Entry] = {}
    for entry in (*after, *before):
        for name in entry.members:
            sets.join(entry, holder.setdefault((entry.function, name), entry))
    components: dict[Entry, tuple[list[Entry], list[Entry]]] = {}
    for side, entries in ((1, after), (0, before)):
        for entry in entries:
            components.setdefault(sets.find(entry), ([], []))[side].append(entry)
    return list(components.values())


def of_same_groups(before: Sequence[Entry], after: Sequence[Entry]) -> Iterator[Difference]:
    """Schedules, comments and hashes of entries with the same members."""
    known = {key(entry): entry for entry in before}
    for entry in after:
        one = known.get(key(entry))
        if one is None:
            continue
        options = [(each.schedule or NO_OPTIONS).stated for each in (one, entry)]
        if options[0] != options[1]:
            texts = [", ".join(f"{name} = {value}" for name, value in each.items()) or "by rules" for each in options]
            text = f"schedule of {label(entry)}: {' -> '.join(texts)}"
            yield Difference("schedule", (one.name,), (entry.name,), text)
        if one.hash and entry.hash and one.hash.partition(":")[0] != entry.hash.partition(":")[0]:
            yield Difference("changed", (one.name,), (entry.name,), f"{label(entry)} computes something else: its hash "
                             f"is {entry.hash}, and was {one.hash}")  # fmt: skip
        yield from of_comments(label(entry), one.comment, entry.comment)


def of_copies(before: Sequence[Entry], after: Sequence[Entry]) -> Iterator[Difference]:
    """Members that are in more or fewer entries than before."""
    holders = [held(entries) for entries in (before, after)]
    for member in dict.fromkeys((*holders[1], *holders[0])):
        old, new = (each.get(member, ()) for each in holders)
        if len(old) != len(new) and max(len(old), len(new)) > 1:
            names = tuple(entry.name for entry in old), tuple(entry.name for entry in new)
            places = [f"in {named(each)}" if each else "in no entry" for each in (old, new)]
            yield Difference("duplicated", *names, f"%{member[1]} is computed {places[1]}, and was {places[0]}")


def held(entries: Iterable[Entry]) -> dict[tuple[str | None, str], list[Entry]]:
    """The entries that have each member."""
    holders: dict[tuple[str | None, str], list[Entry]] = {}
    for entry in entries:
        for name in entry.members:
            holders.setdefault((entry.function, name), []).append(entry)
    return holders


def of_siblings(before: Sequence[Entry] | None, after: Sequence[Entry] | None) -> Iterator[Difference]:
    """Products that are joined in one plan."""
    yield from of_stated("siblings", "products", "joined", "%", before, after)


def of_bundles(before: Sequence[Entry] | None, after: Sequence[Entry] | None) -> Iterator[Difference]:
    """Kernels that are launched together in one plan."""
    yield from of_stated("bundles", "kernels", "launched together", "@", before, after)


def of_stated(kind: str, what: str, are: str, mark: str, before: Sequence[Entry] | None,
              after: Sequence[Entry] | None) -> Iterator[Difference]:  # fmt: skip
    """The entries of a list that rules choose where it is left out; `mark` stands before the names of its members."""
    if before is None or after is None:
        texts = ["by rules" if each is None else "as stated" for each in (before, after)]
        if texts[0] != texts[1]:
            yield Difference(kind, (texts[0],), (texts[1],), f"{what} are {are} {' -> '.join(texts)}")
        return
    known, kept = ({key(entry): entry for entry in each} for each in (before, after))
    for entry in before:
        if key(entry) not in kept:
            yield Difference(kind, entry.members, (), f"{listed(entry.members, mark)} are no longer {are}")
    for entry in after:
        one = known.get(key(entry))
        if one is None:
            yield Difference(kind, (), entry.members, f"{listed(entry.members, mark)} are {are}")
        else:
            yield from of_comments(f"{kind} {listed(entry.members, mark)}", one.comment, entry.comment)


def of_products(before: Sequence[Entry], after: Sequence[Entry]) -> Iterator[Difference]:
    """What computes products, where a plan states it."""
    old, new = computed_by(before), computed_by(after)
    for member in dict.fromkeys((*new, *old)):
        one, other = (each.get(member, "not stated") for each in (old, new))
        if one != other:
            yield Difference("products", (one,), (other,), f"products of %{member[1]}: {one} -> {other}")


def computed_by(entries: Iterable[Entry]) -> Mapping[tuple[str | None, str], str]:
    return {(entry.function, name): entry.products or "irc" for entry in entries for name in entry.members}


def of_comments(what: str, before: Sequence[str], after: Sequence[str]) -> Iterator[Difference]:
    if tuple(before) != tuple(after):
        yield Difference("comment", tuple(before), tuple(after), f"comment of {what}: {' '.join(after) or 'removed'}")


def key(entry: Entry) -> Key:
    return entry.function, frozenset(entry.members)


def shown(value: object) -> str:
    """A value of `made_for` as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={size}" for name, size in value.items())
    return "not stated" if value is None else str(value)


def label(entry: Entry) -> str:
    """`@a`, of a function other than the main one `@a of @f`."""
    return f"@{entry.name}" if entry.function is None else f"@{entry.name} of @{entry.function}"


def named(entries: Sequence[Entry]) -> str:
    """`@a, @b and @c`."""
    labels = [label(entry) for entry in entries]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def parts(entries: Sequence[Entry]) -> str:
    return ", ".join(f"{label(entry)} ({listed(entry.members)})" for entry in entries)


def listed(names: Iterable[str], mark: str = "%") -> str:
    """Names of values, or of kernels (`@`), as text."""
    names = list(names)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(f"{mark}{name}" for name in names[:MOST_NAMES]) + more
