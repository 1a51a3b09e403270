"""Frontends: each turns one kind of program into irc's IR. They never import one another."""
