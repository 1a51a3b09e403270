"""The Triton backend: writes a folder of plain Python and Triton source."""
