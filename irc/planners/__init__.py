"""The planners that irc has, a file each, to use and to start from (`irc doc planners`)."""

from __future__ import annotations

from irc.planners import anneal, beam, exact, greedy

PLANNERS = {each.name: each for each in (greedy.greedy, beam.beam, exact.exact, anneal.anneal)}
