"""The examples that `--help` prints, by command: each with what it shows. tests/test_help.py runs them in order, in a
folder that holds `model.onnx` and a copy of `examples/`."""

from __future__ import annotations

SCORES = "examples/block.py:scores"

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "irc": (
        ("irc print model.onnx", "the IR of a model"),
        ("irc print model.onnx --after fuse --summary", "its kernels and calls after fusion"),
        ("irc compile model.onnx", "writes model.irc.onnx"),
        ("irc compile model.onnx --backend triton", "writes the folder model.triton"),
        ("irc check model.onnx --each", "compares the IR after each pass with f64"),
        ("irc doc", "topics of the reference"),
    ),
    "compile": (
        ("irc compile model.onnx", "writes model.irc.onnx"),
        ("irc compile model.onnx --target cpu -o cpu.onnx", "with operators of ONNX Runtime for CPUs"),
        ("irc compile model.onnx --target cpu --tune --tune-seconds 1", "the fastest of what is timed here"),
        ("irc compile model.onnx --quantize weights=int8 -o small.onnx", "states the error"),
        ("irc compile model.onnx --keep-kernels -o view.onnx", "each kernel a local function"),
        (f"irc compile {SCORES} --backend triton -o out", "writes the folder out"),
    ),
    "print": (
        ("irc print model.onnx", "as imported"),
        ("irc print model.onnx --after fuse", "after the pass fuse of the default pipeline"),
        ("irc print model.onnx --after fuse --summary", "a line for each kernel and call"),
        (f"irc print {SCORES} --around %p -n 1", "an operation and its neighbors"),
        ("irc print model.onnx -o model.irc", "writes model.irc and model.safetensors"),
        ("irc print model.onnx --after fuse -o stage.onnx", "for Netron: each kernel a local function"),
    ),
    "opt": (
        ("irc opt model.onnx -p fold,cse,dce", ""),
        ("irc opt model.onnx -p fold,cse,dce --statistics --verify-each", ""),
        ("irc opt model.onnx -p default --plan plan.json -o fused.irc", ""),
        ('irc opt model.onnx -p "default{fuse.plan=plan.json}"', "replays a plan"),
        ("irc print model.onnx | irc opt - -p clean", "reads IR from standard input"),
    ),
    "plan": (
        ("irc plan model.onnx --dim B=16 -o plan.json", "writes the plan of the default pipeline"),
        ("irc plan edit plan.json --split y", "a kernel for each operation of @y, and what that costs"),
        ("irc plan edit plan.json --merge active,scaled,shifted,y -o merged.json", "or is an error with the rule"),
        ("irc plan diff plan.json merged.json model.onnx", "what differs, and both costs"),
        ('irc kernels model.onnx -p "default{fuse.plan=merged.json}"', "replays a plan"),
    ),
    "run": (
        ("irc run model.onnx --dim B=4 --output out.npz", "on random inputs"),
        ("irc run model.onnx --dim B=4 --backend onnx", "compiled, in ONNX Runtime"),
        ("irc extract model.onnx --to %y --dim B=4 -o part.irc", ""),
        ("irc run part.irc --input part.npz", "on given inputs"),
    ),
    "check": (
        ("irc check model.onnx --dim B=4", ""),
        ("irc check model.onnx --each --backend onnx", "every pass, and the compiled model"),
        ("irc check model.onnx --dim B=4 --blame --backend onnx", "names what is at fault, and not what follows it"),
        ("irc check examples/rules.py", "tests the rewrite rules of a file"),
        ("irc check examples/rules.py examples/block.py:scaled", "and where they match in a model"),
    ),
    "diff": (
        (f"irc opt {SCORES} -p clean -o clean.irc", ""),
        (f"irc diff {SCORES} clean.irc", "equal by rules"),
        ("irc diff model.onnx model.onnx --numerics exact", ""),
    ),
    "extract": (
        (f"irc extract {SCORES} --from %scaled --to %p -o part.irc", "and part.npz"),
        ("irc run part.irc --input part.npz", ""),
    ),
    "reduce": (
        (
            f"irc reduce {SCORES} --load examples/planted_bug.py -p canonicalize,sharpen,fuse -o small",
            "writes the folder small",
        ),
        ("irc print small/program.irc", ""),
    ),
    "explain": (
        ("irc explain type.broadcast", "an error code"),
        ("irc explain F6", "a legality rule of fusion"),
        (f"irc explain {SCORES} %y", "where a value comes from and what computes it"),
        (f'irc explain {SCORES} %p %y -p "fuse{{policy=none}}"', "why two values are in two kernels"),
        (f'irc explain {SCORES} %p %y -p "fuse{{policy=none}}" --apply joined.json', "writes a plan with one"),
        (f"irc explain {SCORES} %p --remarks", "every decision of fusion on a value"),
    ),
    "kernels": (
        ("irc kernels model.onnx --dim B=16", ""),
        ("irc kernels model.onnx --dim B=16 --json", ""),
        (f"irc kernels {SCORES} --target sm_90", "compiles each kernel; needs torch and triton"),
    ),
    "view": (
        ("irc view model.onnx", "writes model.html"),
        (f"irc view {SCORES} --check -o scores.html", "colors by error, too"),
        (f'irc view {SCORES} -p greedy=default -p none="default{{fuse.policy=none}}" -o two.html', "side by side"),
    ),
    "experiment": (
        ("irc experiment model.onnx --dim B=16 -p base=default -p eager=eager", ""),
        (
            f'irc experiment {SCORES} model.onnx -p greedy=default -p none="default{{fuse.policy=none}}"'
            " --html table.html",
            "",
        ),
        (f"irc experiment {SCORES} --dim M=128:1024:*2 -p greedy=default --cache measured --csv table.csv", ""),
    ),
    "profile": (("irc profile model.onnx --dim B=16 --rounds 5", "time by operation, value and line"),),
    "bench": (("irc bench model.onnx --dim B=16 --rounds 10", ""),),
    "tune": (
        (f"irc compile {SCORES} --backend triton -o out", ""),
        ("irc tune out", "writes out/tuning.json; needs a GPU"),
        (f"irc compile {SCORES} --backend triton -o out", "with the schedules of out/tuning.json"),
    ),
    "cache": (
        ("irc cache", "where compiled programs are kept, and their bytes"),
        ("irc cache --clear", ""),
    ),
    "calibrate": (
        ("irc calibrate -o costs.json --kind Softmax --kind Add", "without --kind: all, in one to two minutes"),
        ("irc compile model.onnx --target cpu --costs costs.json", "rewrites where it pays on this machine"),
    ),
    "doc": (
        ("irc doc", "the topics"),
        ("irc doc ops", "a line for each operation"),
        ("irc doc layer_norm", "an operation: operands, attributes, source, body"),
        ("irc doc fuse", "a pass: options, pipelines, rules"),
        ("irc doc small --load examples/policy.py", "a policy of your own"),
    ),
    "completion": (
        ("irc completion bash", 'put `eval "$(irc completion bash)"` into ~/.bashrc'),
        ("irc completion zsh", 'put `eval "$(irc completion zsh)"` into ~/.zshrc'),
        ("irc completion fish", "redirect to ~/.config/fish/completions/irc.fish"),
    ),
}
