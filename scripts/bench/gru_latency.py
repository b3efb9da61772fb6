"""Microseconds of one step of a gated recurrent unit, batch 1, one thread: block-pruned ours beside dense engines.

python scripts/bench/gru_latency.py                    writes scripts/bench/results/gru-latency.json
python scripts/bench/gru_latency.py --sizes 1024 --rates 20,100 --rounds 3

Inputs are as wide as the state. Weights are random, projected onto RTMobile's sets (24 strips, 8 column blocks: columns
up to 32 times fewer, then rows); ours computes what is left of them. All engines take turns in one run, each a process
on one core, after their outputs have been compared with float64. Ours is timed over frames in one call of C, the peers
with one call a frame, which is what they offer; `peers/setup.sh` makes their environments, those absent are left out.
"""

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from gru_engines import REPEATS
from peers.interleave import Command, Worker, WorkerError, check_output, cores_for
from peers.prepare import programs_of
from rich.console import Console
from rich.table import Table

from modicum import train
from modicum.constraints import BlockColumnRow

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "gru-latency.json"
PEERS = {
    "numpy": "project",
    "xla": "project",
    "xla_transposed": "project",
    "torch": "torch",
    "onnxruntime": "onnx",
    "openvino": "onnx",
}
"""Environment of each dense engine."""
STRIPS, BLOCKS, MOST_COLUMN_RATE = 24, 8, 32.0
FRAMES = 16
"""So few that they stay beside the weights in the cache."""


def pruned(weight: np.ndarray, rate: float) -> np.ndarray:
    """The projection onto a set that keeps at most `1 / rate` of the weights, scaled up to the same energy.

    Args:
        weight: `(inputs, outputs)`.
        rate: 1 leaves it as it is.
    """
    if rate == 1:
        return weight
    inputs, outputs = weight.shape
    columns = max(1, int(inputs / BLOCKS / min(rate, MOST_COLUMN_RATE)))
    rows = min(outputs, int(outputs * inputs / (BLOCKS * columns) / rate))
    sets = BlockColumnRow(columns, rows, strips=STRIPS, blocks=BLOCKS, sweeps=0)
    kept = np.array(sets.project(jnp.asarray(weight)))
    return kept * np.float32(np.sqrt((weight**2).sum() / (kept**2).sum()))


def reference(weights: dict[str, np.ndarray], frames: np.ndarray) -> np.ndarray:
    """The last state, `(f,)`, in float64."""
    w, u, bias, own = (array.astype(np.float64) for array in weights.values())
    f, h = len(own), np.zeros(len(own))
    for x in frames.astype(np.float64):
        driven, returned = x @ w + bias, h @ u
        gates = 1 / (1 + np.exp(-driven[: 2 * f] - returned[: 2 * f]))
        h = (1 - gates[f:]) * np.tanh(driven[2 * f :] + gates[:f] * (returned[2 * f :] + own)) + gates[f:] * h
    return h


def write(folder: Path, size: int, rate: float) -> tuple[np.ndarray, float]:
    """Makes a folder that engines load, of weights and frames.

    Returns:
        The frames, and how many times fewer weights are left.
    """
    generator = np.random.default_rng(size)
    kernels = [
        pruned((generator.normal(size=(size, 3 * size)) / np.sqrt(size)).astype(np.float32), rate) for _ in range(2)
    ]
    biases = [(0.1 * generator.normal(size=width)).astype(np.float32) for width in (3 * size, size)]
    names = ("input_kernel", "recurrent_kernel", "input_bias", "candidate_bias")
    weights = dict(zip(names, (*kernels, *biases), strict=True))
    frames = generator.normal(size=(FRAMES, size)).astype(np.float32)
    folder.mkdir()
    np.savez(folder / "weights.npz", **weights)
    np.save(folder / "frames.npy", frames)
    return frames, sum(kernel.size for kernel in kernels) / sum(np.count_nonzero(kernel) for kernel in kernels)


def measure(size: int, rates: list[float], rounds: int, runs: int) -> list[dict[str, Any]]:
    """One size: every engine is loaded, compared, and measured in turns.

    Args:
        size: width of state and inputs.
        rates: of ours; at rate 1 the peers have the same weights.
        rounds: turns of each engine.
        runs: measured runs in a turn, after one that does not count.
    """
    cores = cores_for(1)
    rows: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        engines = [("modicum", rate) for rate in rates] + [(name, 1.0) for name in PEERS]
        for rate in dict.fromkeys([*rates, 1.0]):
            folder = Path(scratch) / f"{rate:g}x"
            frames, kept = write(folder, size, rate)
            with np.load(folder / "weights.npz") as arrays:
                weights = {name: arrays[name] for name in arrays.files}
            for name in [name for name, of in engines if of == rate]:
                ours = name == "modicum"
                steps = FRAMES * (REPEATS if ours else 1)
                row = {"engine": name, "size": size, "rate": rate, "kept": kept, "steps": steps}
                key = f"{name} {rate:g}x"
                command = Command(programs_of(PEERS.get(name, "project")) / "python", HERE / "gru_engines.py")
                try:
                    worker = stack.enter_context(Worker(name, command, folder, 1, cores))
                    row["version"] = worker.loaded()["version"]
                    expected = reference(weights, np.tile(frames, (steps // FRAMES, 1)))
                    row["relative_error"] = check_output(name, np.load(worker.ask("output")["output"]), expected)
                except WorkerError as error:
                    Console().print(f"left out: {error}", highlight=False)
                    continue
                rows[key], workers[key], samples[key] = row, worker, []
        for turn in range(rounds):
            names = list(workers)
            shift = turn % max(1, len(names))
            for key in names[shift:] + names[:shift]:
                workers[key].ask("run 1")
                samples[key] += workers[key].ask(f"run {runs}")["wall_ms"]
    for key, row in rows.items():
        micro = [1e3 * value / row["steps"] for value in samples[key]]
        row |= {"us_min": min(micro), "us_median": statistics.median(micro), "samples": len(micro)}
    return list(rows.values())


def table(rows: list[dict[str, Any]]) -> Table:
    """Microseconds of each engine, and how many times faster than the fastest dense peer of its size."""
    shown = Table(title="one step, batch 1, one thread")
    for name in ("size", "engine", "weights", "min us", "median us", "x fastest peer (min)", "(median)"):
        shown.add_column(name, justify="left" if name == "engine" else "right")
    for row in rows:
        peers = [other for other in rows if other["size"] == row["size"] and other["engine"] != "modicum"]
        ratios = [
            f"{min(peer[name] for peer in peers) / row[name]:.1f}" if peers else "-" for name in ("us_min", "us_median")
        ]
        times = f"{row['us_min']:.2f}", f"{row['us_median']:.2f}"
        shown.add_row(str(row["size"]), row["engine"], f"1/{row['kept']:.1f}", *times, *ratios)
    return shown


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="512,1024,2048")
    parser.add_argument("--rates", default="1,10,20,29,50,100")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rates = [float(rate) for rate in arguments.rates.split(",")]
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes.split(","):
        rows += measure(int(size), rates, arguments.rounds, arguments.runs)
    Console().print(table(rows))
    train.report.write_json(
        arguments.results, {"rows": rows, "load_average": load, "versions": train.report.versions()}
    )


if __name__ == "__main__":
    main()
