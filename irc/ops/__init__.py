"""The op table: primitives by kind in this folder, ops with bodies in `named/`."""
