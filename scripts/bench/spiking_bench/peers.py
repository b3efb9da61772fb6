"""Ours and other libraries on one network: training steps in turns, and the memory of each."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers.interleave import THREADS, Command, cores_for, interleave, pinned
from peers.prepare import programs_of

from modicum import spiking
from spiking_bench import network

WORKER = Path(__file__).resolve().parent / "peer_engines.py"
ENVIRONMENTS = {
    "modicum_packed": "project",
    "modicum_packed_layer": "project",
    "modicum_reversible": "project",
    "modicum_autodiff": "project",
    "spikingjelly": "torch-snn",
    "spikingjelly_memopt": "torch-snn",
    "spikingjelly_memopt_chunks": "torch-snn",
    "snntorch": "torch-snn",
    "spyx": "spyx",
    "spyx_trained_leak": "spyx",
}
"""Environment of each engine; those of peers are made by `setup.sh`."""
OTHER_NEURONS = frozenset({"modicum_reversible", "snntorch", "spyx", "spyx_trained_leak"})
"""Engines whose neurons differ from `LIF` in what they put out; of their loss only finiteness is asked."""
LEARNING_RATE = 1e-6
"""So small that every measured step does the same, though some engines keep what they learn."""
MEMORY = ("xla_temp_bytes", "allocator_peak_bytes")
"""Temporary memory of a step: XLA's plan for the gradient, or the peak of torch's allocator."""


def command(engine: str) -> Command:
    """How an engine's worker is started."""
    return Command(programs_of(ENVIRONMENTS[engine]) / "python", WORKER)


def write(folder: Path, depth: int, steps: int, channels: int, side: int) -> None:
    """The folder that all engines read; weights are on the grid already, so that all have the same."""
    params = network.init(depth, channels, side)
    kernels = [np.asarray(spiking.dyadic(entry["synapse"]["kernel"], network.GRID_BITS)) for entry in params]
    np.savez(folder / "weights.npz", **{f"{number:04d}": kernel for number, kernel in enumerate(kernels)})
    events, labels = network.data(steps, side=side)
    np.savez(folder / "data.npz", events=np.asarray(events), labels=np.asarray(labels))
    settings = {"leak": network.LEAK, "pool": network.POOL, "learning_rate": LEARNING_RATE}
    (folder / "network.json").write_text(json.dumps(settings))


def facts(engine: str, folder: Path) -> dict[str, Any]:
    """Memory, loss, gradient norm and number of parameters of an engine, or "error"."""
    started = command(engine)
    # what is freed goes back to the system, so that the process's size is what is in use
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "MALLOC_MMAP_THRESHOLD_": "65536"}
    with pinned(cores_for(1)):
        try:
            done = subprocess.run(
                [str(started.python), str(started.script), engine, str(folder), "--facts"],
                capture_output=True,
                text=True,
                env=environment,
                timeout=900,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return {"engine": engine, "error": f"{engine}: {error}"}
    if done.returncode:
        return {"engine": engine, "error": f"{engine}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"}
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "step_bytes": next(found[name] for name in MEMORY if name in found)}


def measure(
    depth: int,
    steps: int,
    engines: Sequence[str],
    rounds: int,
    runs: int,
    *,
    channels: int = network.CHANNELS,
    side: int = network.SIDE,
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """One size: memory of each engine in a process of its own, then the time of all in turns, one thread each."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder, depth, steps, channels, side)
        rows = {}
        for engine in engines:
            rows[engine] = facts(engine, folder)
            row = rows[engine]
            tell(row.get("error") or f"{engine}: {row['step_bytes'] / 1e6:.1f} MB, loss {row['loss']:.6f}")
        reference = next(
            (rows[name]["loss"] for name in ("modicum_packed", *engines) if "loss" in rows.get(name, {})), 0
        )
        np.save(folder / "reference.npy", np.array([reference]))
        commands = {engine: command(engine) for engine in engines if "error" not in rows[engine]}
        times = interleave(folder, commands, 1, rounds, runs, OTHER_NEURONS, tell)
        for engine, cell in times.items():
            rows[engine] |= {key: value for key, value in cell.items() if key not in rows[engine]}
    return {"depth": depth, "steps": steps, "rows": list(rows.values()), "ratios": ratios(list(rows.values()))}


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """For each of our engines, how many times the time and memory each peer takes."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    measured = [row for row in rows if "error" not in row]
    for ours in measured:
        if ours["engine"].startswith("modicum"):
            found[ours["engine"]] = {
                peer["engine"]: {
                    "time": peer["cpu_ms_median"] / ours["cpu_ms_median"],
                    "memory": peer["step_bytes"] / ours["step_bytes"],
                }
                for peer in measured
                if not peer["engine"].startswith("modicum")
            }
    return found
