"""Backends: each writes one kind of artefact. They never import one another."""
