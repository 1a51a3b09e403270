"""Passes: one idea a file. A pipeline names a pass by its module's name in this folder."""
