"""Many programs in worker processes: what kills a process, or never ends, is a failure of the program that did it."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from tests.fuzz.judging import CERTAIN, SAMPLES
from tests.fuzz.paths import Outcome

KINDS = ("onnx", "torch")
LONGEST = 120.0  # seconds for a program
LIFETIME = 400  # programs of a worker process: artefacts and exported programs stay in its memory


class Job(NamedTuple):
    """Which program: everything it depends on."""

    kind: str
    seed: int
    index: int
    features: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}-{self.index}"


@dataclass(frozen=True)
class Result:
    """What is wrong with a program, how large it is, and how many elements of its results were compared of how many."""

    job: Job
    outcomes: tuple[Outcome, ...]
    size: int = 0
    compared: int = 0
    elements: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.is_failure]


def program_of(job: Job, runs: int = SAMPLES) -> Any:
    """The program of a job, judged by so many perturbed runs."""
    if job.kind == "onnx":
        from tests.fuzz import onnx_programs

        return onnx_programs.generate(job.seed, job.index, job.features, runs)
    from tests.fuzz import torch_programs

    return torch_programs.generate(job.seed, job.index, job.features, runs)


def run_job(job: Job, folder: Path | None = None) -> Result:
    """Make a program and run it on every path; a failure is saved to a folder of its own."""
    from tests.fuzz.paths import outcomes

    started = time.monotonic()
    program = program_of(job)
    listed = outcomes(program)
    if any(outcome.kind == "difference" for outcome in listed):
        program = program_of(job, CERTAIN)
        listed = outcomes(program)
    judged = [each for truths in program.truths for each in truths.values()]
    elements = sum(each.value.size for each in judged)
    result = Result(job, tuple(listed), program.size, elements - sum(int(each.undecided.sum()) for each in judged),
                    elements, time.monotonic() - started)  # fmt: skip
    if folder is not None and result.failures:
        place = folder / job.name
        place.mkdir(parents=True, exist_ok=True)
        program.save(place)
        (place / "report").write_text("\n".join([*map(str, listed), *commands(result, place, program)]) + "\n", "utf-8")
    return result


def commands(result: Result, folder: Path | None = None, program: Any = None) -> list[str]:
    """The lines for a shell that repeat a failure, and reduce it."""
    job = result.job
    lines = [f"python -m tests.fuzz --kind {job.kind} --seed {job.seed} --only {job.index}"]
    if folder is not None and program is not None and result.failures:
        first = result.failures[0]
        backend = f" --backend {first.path.split()[0]}" if first.path.split()[0] in ("onnx", "triton") else ""
        inputs = folder / f"inputs.{first.feed or 0}.npz"
        lines.append(f"irc reduce {folder}/{program.source} --input {inputs}{backend}")
    return lines


# -- workers -------------------------------------------------------------------------------------------------------

Run = Callable[[Job, Path | None], Result]


def _work(connection: Connection, run: Run, folder: Path | None) -> None:
    """Run the jobs that come until None does."""
    import torch

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the libraries print of a program is not what is looked for
    connection.send("ready")
    while (job := connection.recv()) is not None:
        try:
            connection.send(run(job, folder))
        except Exception:
            connection.send(Result(job, (Outcome("fuzzer", "crash", traceback.format_exc()[-1500:]),)))


@dataclass
class _Worker:
    run: Run
    folder: Path | None
    longest: float
    process: Any = None
    connection: Any = None
    job: Job | None = None
    started: float = 0.0
    done: int = 0

    def give(self, job: Job) -> None:
        if self.process is None or not self.process.is_alive() or self.done >= LIFETIME:
            self.close()
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=_work, args=(theirs, self.run, self.folder), daemon=True)
            self.process.start()
            theirs.close()
            self.connection.recv()  # that it is ready
            self.done = 0
        self.job, self.started = job, time.monotonic()
        self.connection.send(job)
        self.done += 1

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self.started > self.longest

    def result(self) -> Result:
        """What came of the job; a process that ended, or takes too long, is its failure."""
        assert self.job is not None
        job, self.job = self.job, None
        try:
            if self.connection.poll():
                result: Result = self.connection.recv()
                return result
            said = f"not finished after {self.longest:.0f} seconds"
            self.process.kill()
        except (EOFError, ConnectionResetError):
            self.process.join()
            said = f"the process ended with {self.process.exitcode}"
        self.close()
        return Result(job, (Outcome("process", "crash", said),))

    def close(self) -> None:
        """End the process, by itself where it waits for a job."""
        if self.process is not None:
            with suppress(BrokenPipeError):
                self.connection.send(None)
            self.process.join(timeout=0.0 if self.job is not None else 5.0)
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None


def run_all(
    jobs: Iterator[Job], workers: int, folder: Path | None = None, *, run: Run = run_job, longest: float = LONGEST
) -> Iterator[Result]:
    """The results of jobs, as they come; `longest` is how many seconds one may take."""
    crew = [_Worker(run, folder, longest) for _ in range(workers)]
    try:
        while True:
            for worker in crew:
                if worker.job is None and (job := next(jobs, None)) is not None:
                    worker.give(job)
            busy = [worker for worker in crew if worker.job is not None]
            if not busy:
                return
            wait([worker.connection for worker in busy], timeout=1.0)
            for worker in busy:
                if worker.connection.poll() or worker.is_late:
                    yield worker.result()
    finally:
        for worker in crew:
            worker.close()
