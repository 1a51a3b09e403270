"""Pipelines with a name.

`clean` converts a program to its normal form, `default` goes on to kernels, and `eager` is what others are measured
against: the operations as they were imported, each by itself.
"""

CLEAN = "canonicalize,fold,cse,raise,fold,canonicalize,cse,dce"
DEFAULT = (
    "canonicalize,fold,cse,complex_parts,raise,fold,canonicalize,random_numbers,bias,grouped_heads,masked_rows,siblings,"
    "legalize,windows,scatters,canonicalize,fold,cse,dce,layout,fuse,layout,channels_last,split,dce,bundle"
)
EAGER = "fold,dce,masked_rows,legalize,fold,dce,eager,dce"
ALIASES = {"clean": CLEAN, "default": DEFAULT, "eager": EAGER}
