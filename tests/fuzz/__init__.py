"""A differential fuzzer: random programs on every path of irc, against an oracle that is not irc.

    python -m tests.fuzz --seed 3 --count 500            ONNX and PyTorch programs alternately
    python -m tests.fuzz --seed 3 --only 1234 --print    one of them

`onnx_programs` and `torch_programs` make programs, `paths` runs them, `judging` compares, `running` has the worker
processes. A program is a function of (kind, seed, index, features) alone.
"""
