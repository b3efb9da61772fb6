"""Measures several engines in turns, so that a change of the machine's speed meets all of them.

Each engine is a process that is pinned to its cores and stopped while another one runs. Before anything is measured all
outputs are compared with the reference; an engine that disagrees is left out, with a sentence that says so.
"""

import json
import os
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peers.prepare import ENVIRONMENTS, HERE, REDUCED, programs_of

TOLERANCE = 1e-3
"""Largest relative error of a float32 engine."""
LOAD_SECONDS = 600.0
ANSWER_SECONDS = 300.0
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TBB_NUM_THREADS")


class Command(NamedTuple):
    """How the worker of an engine is started: `python script ENGINE FOLDER --threads N args`.

    Attributes:
        python: the interpreter of its environment.
        script: speaks the protocol of `worker`; ours is `worker.serve(load)` with a `load` of its own.
        args: more arguments.
    """

    python: Path
    script: Path
    args: tuple[str, ...] = ()


def peer(engine: str) -> Command:
    """The command of one of the dense peers.

    Raises:
        ValueError: if there is no such peer.
    """
    if engine not in ENVIRONMENTS:
        raise ValueError(f"engine must be one of {', '.join(ENVIRONMENTS)}, got {engine!r}")
    return Command(programs_of(ENVIRONMENTS[engine]) / "python", HERE / "worker.py")


@contextmanager
def pinned(cores: Collection[int]) -> Iterator[None]:
    """Pins this thread, and the processes that it starts, to some cores for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class WorkerError(RuntimeError):
    """An engine that does not load, answer or agree, in one sentence."""


class Worker:
    """The process of one engine, stopped but for the time of each question.

    A context manager: leaving it kills the process.
    """

    def __init__(self, engine: str, command: Command, folder: Path, threads: int, cores: Collection[int]) -> None:
        self.engine = engine
        self._rest = b""
        self._log = folder / f"worker-{engine}-{threads}.log"
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads)), "CUDA_VISIBLE_DEVICES": ""}
        words = [command.python, command.script, engine, folder, "--threads", threads, *command.args]
        try:
            # threads that the engine starts inherit the cores, and XLA takes as many threads as it has cores
            with pinned(cores), self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [str(word) for word in words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    bufsize=0,
                )
        except OSError as error:
            raise WorkerError(f"{engine}: its environment is not there ({error}): run setup.sh") from error

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        # a stopped process can be killed, not asked to quit
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        limit = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = limit - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise WorkerError(f"{self.engine}: no answer within {seconds:.0f} s")
            read = os.read(self._process.stdout.fileno(), 1 << 16)
            if not read:
                raise WorkerError(f"{self.engine}: {self._end()}")
            self._rest += read
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _end(self) -> str:
        """How the process ended, which has closed its output, and the last line that it wrote beside its answers."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "closed its output"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"ended with {code}: {lines[-1] if lines else 'no message'}"

    def _answer(self, seconds: float) -> dict[str, Any]:
        line = self._line(seconds).decode(errors="replace")
        try:
            answer = json.loads(line)
        except json.JSONDecodeError as error:
            raise WorkerError(f"{self.engine}: an answer must be a line of JSON, got {line[:80]!r}") from error
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def loaded(self) -> dict[str, Any]:
        """What the worker says once it has loaded; it is stopped then."""
        answer = self._answer(LOAD_SECONDS)
        self._process.send_signal(signal.SIGSTOP)
        return answer

    def ask(self, line: str) -> dict[str, Any]:
        """The answer to one command of the protocol.

        Raises:
            WorkerError: if the worker fails, ends or does not answer.
        """
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(line.encode() + b"\n")
            return self._answer(ANSWER_SECONDS)
        except BrokenPipeError as error:
            raise WorkerError(f"{self.engine}: ended before it answered") from error
        finally:
            self._process.send_signal(signal.SIGSTOP)


def relative_error(output: np.ndarray, reference: np.ndarray) -> float:
    """`max |y - r| / max |r|`; infinite where the sizes differ or a number is not finite.

    An image may come with its channels first: `(b, c, h, w)` for a reference `(b, h, w, c)`.
    """
    if output.ndim == reference.ndim == 4 and output.shape != reference.shape:
        output = output.transpose(0, 2, 3, 1)
    output, reference = np.ravel(output).astype(np.float64), np.ravel(reference)
    if output.shape != reference.shape or not np.isfinite(output).all():
        return float("inf")
    return float(np.max(np.abs(output - reference)) / np.max(np.abs(reference)))


def check_output(engine: str, output: np.ndarray, reference: np.ndarray, reduced: bool = False) -> float:
    """The relative error of an engine's output.

    Raises:
        WorkerError: if it is above `TOLERANCE` and the engine's precision is not reduced, or not finite.
    """
    error = relative_error(output, reference)
    if error == float("inf") or (error > TOLERANCE and not reduced):
        raise WorkerError(f"{engine}: output must agree with the reference within {TOLERANCE:g}, got {error:.3g}")
    return error


def summary(samples: Mapping[str, list[float]]) -> dict[str, Any]:
    """Minimum and medians, in milliseconds, of what `run` answered."""
    return {
        "wall_ms_min": min(samples["wall_ms"]),
        "wall_ms_median": statistics.median(samples["wall_ms"]),
        "cpu_ms_median": statistics.median(samples["cpu_ms"]),
        "samples": len(samples["wall_ms"]),
    }


def cores_for(threads: int) -> list[int]:
    """The first cores that this process may use.

    Raises:
        ValueError: if there are fewer than threads.
    """
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise ValueError(f"threads must be between 1 and {len(cores)}, the cores of this process, got {threads}")
    return cores[:threads]


def interleave(
    folder: str | Path,
    commands: Mapping[str, Command],
    threads: int = 1,
    rounds: int = 10,
    runs: int = 3,
    reduced: Collection[str] = REDUCED,
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """Loads, compares and measures engines in turns.

    Args:
        folder: a network folder that `prepare.prepare` has converted.
        commands: of each engine, by name; `peer(name)` for the peers.
        threads: of each engine, each pinned to a core.
        rounds: turns of every engine; the order moves on by one each round.
        runs: measured inferences in a turn, after one that brings the caches back and does not count.
        reduced: engines of less than float32, whose error is only told.
        tell: is given a line for each engine that has loaded or failed, and for each round.

    Returns:
        By engine: "version", "load_seconds", "resident_mib", "relative_error", "wall_ms_min", "wall_ms_median",
        "cpu_ms_median", "samples" and "load_average" (before the first round), or "error", a sentence.
    """
    folder = Path(folder)
    cores = cores_for(threads)
    reference = np.load(folder / "reference.npy")
    cells: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    samples: dict[str, dict[str, list[float]]] = {}
    # before the engines load, which is work of our own
    load_average = os.getloadavg()[0]
    with ExitStack() as stack:
        for engine, command in commands.items():
            try:
                worker = stack.enter_context(Worker(engine, command, folder, threads, cores))
                cells[engine] = {**worker.loaded(), "threads": threads, "load_average": load_average}
                output = np.load(worker.ask("output")["output"])
                cells[engine]["relative_error"] = check_output(engine, output, reference, engine in reduced)
            except WorkerError as error:
                cells[engine] = {"engine": engine, "threads": threads, "error": str(error)}
                tell(str(error))
                continue
            tell(f"{engine}: loaded in {cells[engine]['load_seconds']:.1f} s")
            workers[engine] = worker
            samples[engine] = {"wall_ms": [], "cpu_ms": []}
        for turn in range(rounds):
            tell(f"round {turn + 1} of {rounds}")
            names = list(workers)
            shift = turn % max(1, len(names))
            for engine in names[shift:] + names[:shift]:
                try:
                    workers[engine].ask("run 1")
                    for name, values in workers[engine].ask(f"run {runs}").items():
                        samples[engine][name] += values
                except WorkerError as error:
                    cells[engine] = {"engine": engine, "threads": threads, "error": str(error)}
                    del workers[engine]
    for engine in workers:
        cells[engine] |= summary(samples[engine])
    return cells
