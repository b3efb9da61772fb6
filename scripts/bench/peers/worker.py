"""One engine in one process: `python worker.py ENGINE FOLDER --threads N`, then one command a line on standard input.

Every answer is one line of JSON on standard output; the first tells what was loaded.

    run N      N inferences of one image -> {"wall_ms": [...], "cpu_ms": [...]}: CPU time of all threads of the process
    output     one inference -> {"output": PATH of a .npy}
    quit       ends the process, as does the end of the input

A failure is {"error": SENTENCE}. An engine of ours is served by `serve(load)` from a script of its own.
"""

import argparse
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np


def timed(run: Callable[[], Any], count: int) -> dict[str, list[float]]:
    """Wall and CPU milliseconds of each of some runs."""
    wall, cpu = [], []
    for _ in range(count):
        cpu_started, started = time.process_time_ns(), time.perf_counter_ns()
        run()
        wall.append((time.perf_counter_ns() - started) / 1e6)
        cpu.append((time.process_time_ns() - cpu_started) / 1e6)
    return {"wall_ms": wall, "cpu_ms": cpu}


def answer(line: str, run: Callable[[], np.ndarray], path: Path) -> dict[str, Any]:
    """The answer to one command.

    Raises:
        ValueError: if there is no such command.
    """
    command, *rest = line.split()
    if command == "run" and len(rest) == 1 and rest[0].isdigit():
        return timed(run, int(rest[0]))
    if command == "output" and not rest:
        np.save(path, np.asarray(run()))
        return {"output": str(path)}
    raise ValueError(f"a command must be 'run N', 'output' or 'quit', got {line.strip()!r}")


def speak(load: Callable[[], Any], name: str, path: Path, commands: TextIO, answers: TextIO) -> int:
    """Loads an engine and answers commands until they end.

    Args:
        load: makes an object with `version` and `run`.
        name: of the engine.
        path: where outputs are written.
        commands: lines that come in.
        answers: lines that go out.

    Returns:
        0, or 1 if the engine does not load.
    """

    def tell(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    started = time.perf_counter()
    try:
        engine = load()
        engine.run()
    except Exception as error:
        # whatever an engine raises, its row says so and the others go on
        tell({"error": f"{name}: {type(error).__name__}: {error}"})
        return 1
    seconds = time.perf_counter() - started
    # collections in the middle of a measured run would count as the engine's
    gc.collect()
    gc.freeze()
    gc.disable()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tell({"engine": name, "version": engine.version, "load_seconds": seconds, "resident_mib": resident})
    for line in commands:
        if not line.strip():
            continue
        if line.split()[0] == "quit":
            break
        try:
            tell(answer(line, engine.run, path))
        except Exception as error:
            tell({"error": f"{name}: {type(error).__name__}: {error}"})
    return 0


def serve(load: Callable[[str, Path, int], Any]) -> int:
    """The main function of a worker: reads the command line, keeps standard output for answers.

    Args:
        load: engine name, folder of the network and threads -> an object with `version` and `run() -> array`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    # engines print to standard output as they like, from C++ as well: they get standard error in its place
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    path = arguments.folder / f"output-{arguments.engine}-{arguments.threads}.npy"

    def loaded() -> Any:
        return load(arguments.engine, arguments.folder, arguments.threads)

    return speak(loaded, arguments.engine, path, sys.stdin, answers)


def load(engine: str, folder: Path, threads: int) -> Any:
    """One of the engines of `engines.LOADERS`."""
    from peers.engines import LOADERS

    if engine not in LOADERS:
        raise ValueError(f"engine must be one of {', '.join(LOADERS)}")
    return LOADERS[engine](folder, threads)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(serve(load))
