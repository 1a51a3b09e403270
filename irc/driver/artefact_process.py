"""A server process that has imported PyTorch, and runs artefacts of the Triton backend in forks of itself.

A fork has the modules that a new process would take seconds to import. Run as a script, this file is the server, which
imports nothing of irc: it reads requests, lines of JSON, and answers each with an exit status.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OUTPUT = "output"  # the file in a run's folder that has its printed output
# Prefixes of variables that Python and libraries read when they are loaded: a change needs a new server.
LOADING = ("TRITON", "TORCH", "PYTORCH", "CUDA", "HIP", "ROCR", "NVIDIA", "OMP", "MKL", "KMP", "OPENBLAS", "PYTHON",
           "LD")  # fmt: skip


class ArtefactProcess:
    """The server. It is started at the first run, and again if it ended or `LOADING` variables have changed. Each run
    has the current environment."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._environment: dict[str, str] = {}

    def run(self, folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
        """Run `python -m artefact ARGUMENTS` in the folder that holds the artefact; returns the exit status, negative
        for a signal, and the printed output."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            request = {"folder": str(folder), "arguments": [*arguments], "environment": dict(os.environ)}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BaseException:  # such as an interrupt: the next run would read this run's answer
            self.close()
            raise
        if not answer:
            self.close()
            return 1, "the process that runs artefacts ended"
        printed = folder / OUTPUT
        return int(answer), printed.read_text("utf-8", "replace") if printed.is_file() else ""

    def _started(self) -> subprocess.Popen[str]:
        current = {name: value for name, value in os.environ.items() if name.startswith(LOADING)}
        if self._process is not None and (self._process.poll() is not None or self._environment != current):
            self.close()
        if self._process is None:
            self._environment = current
            # In a group of its own: Ctrl-C is for irc, which ends the server and the run in it by `close`.
            self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             text=True, encoding="utf-8", process_group=0)  # fmt: skip
        return self._process

    def close(self) -> None:
        """End the server, and the run in it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None


ARTEFACTS = ArtefactProcess()
atexit.register(ARTEFACTS.close)


def serve() -> None:
    """Answer requests until standard input ends."""
    sys.path.pop(0)  # this folder
    import torch

    if torch.version.cuda is None and torch.version.hip is None:  # with a GPU each fork decides
        os.environ["TRITON_INTERPRET"] = "1"
    if os.environ.get("TRITON_INTERPRET") == "1":
        import triton.language  # noqa: F401
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in requests:
        child = os.fork()
        if not child:
            _run_request(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _run_request(request: dict[str, Any]) -> None:
    """Run the artefact of a request, and exit."""
    import runpy
    import traceback

    status = 1
    interpret = os.environ.get("TRITON_INTERPRET")
    os.environ.clear()
    os.environ.update(request["environment"], **({} if interpret is None else {"TRITON_INTERPRET": interpret}))
    os.chdir(request["folder"])
    printed = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    sys.path.insert(0, request["folder"])
    sys.argv = ["artefact", *request["arguments"]]
    try:
        runpy.run_module("artefact", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
