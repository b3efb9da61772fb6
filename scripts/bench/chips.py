"""Accuracy of networks on simulated chips, cell by cell: `python scripts/bench/chips.py --runs RUNS --minutes 15`.

A cell is a config of scripts/simulate.py with some settings; its network is trained or compressed first where RUNS does
not hold it. Cells that scripts/bench/results/chips.json holds already are left out, no cell is started after
`--minutes`, and an interrupted cell goes on where it stopped. `--rows` picks cells.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from accuracy import add, read

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "chips.json"
FORMS_BITS = {4: 3, 8: 4, 16: 5}
"""Rows of a fragment, and the converter bits that FORMS gives them (section IV-C)."""


class Cell(NamedTuple):
    """One simulation.

    Attributes:
        name: of the row.
        config: in configs/.
        network: folder of the network in RUNS; cells share it.
        settings: arguments of the config and settings of the simulation.
        device: see scripts/simulate.py.
        anchor: what was published.
    """

    name: str
    config: str
    network: str
    settings: tuple[str, ...]
    device: str = "forms"
    anchor: str = ""


def forms(fragment: int, *settings: str, name: str = "", anchor: str = "") -> Cell:
    """Polarized LeNet-5 with 8-bit weights on FORMS; `fragment` 0 is the same without signs, in two columns."""
    rows = fragment or 8
    network = ("bits=8", f"fragment={fragment}")
    device = (f"spec.fragment={rows}", f"spec.adc_bits={FORMS_BITS[rows]}", "spec.input_bits=8", "batch=1000")
    return Cell(
        name or f"FORMS, fragments of {fragment}",
        "forms/mnist.py",
        f"forms-{fragment}-admm",
        (*network, *device, *settings),
        "forms" if fragment else "differential",
        anchor,
    )


VARIED = ("spec.sigma=0.1", "chips=50", "images=2000")
CELLS = (
    Cell(
        "CAP-RAM, one macro",
        "capram/mnist.py",
        "capram-mnist-net",
        ("network.epochs=2", "training.steps=4000", "chips=4", "variations=()"),
        "capram",
        "98.8% of 500 images, as in software",
    ),
    Cell(
        "CAP-RAM, ResNet",
        "capram/cifar10.py",
        "capram-cifar10-net",
        ("network.epochs=8", "training.steps=1500", "chips=2", "variations=()"),
        "capram",
        "89.0% of 500 images, ResNet-20, 1.6 below",
    ),
    forms(4, "chips=1", anchor="loss -0.02 points"),
    forms(8, "chips=1", anchor="loss -0.01 points"),
    forms(16, "chips=1", anchor="loss 0.14 points"),
    forms(8, *VARIED, name="FORMS, fragments of 8, sigma 0.1", anchor="polarization adds 0.02 or less (ResNet-18)"),
    forms(0, *VARIED, name="not polarized, sigma 0.1"),
)


def measure(cell: Cell, runs: Path) -> dict[str, Any]:
    """One cell, run to its end."""
    from rich.console import Console

    from modicum.systems import simulation
    from modicum.systems.simulation_config import load_simulation
    from modicum.train import report

    settings = load_simulation(ROOT / "configs" / cell.config, cell.settings, cell.device)
    folder = runs / "chips" / cell.name.replace(", ", "-").replace(" ", "-")
    started, processed = time.perf_counter(), time.process_time()
    console = Console(stderr=True) if sys.stderr.isatty() else None
    outcome = simulation.run(settings, runs / cell.network, folder, console=console)
    versions = report.versions()
    return {
        **outcome.summary,
        "config": cell.config,
        "settings": list(cell.settings),
        "device_name": cell.device,
        "anchor": cell.anchor,
        "seconds": round(time.perf_counter() - started, 1),
        # a cell that was resumed counts its last part only
        "cpu_seconds": round(time.process_time() - processed, 1),
        "commit": versions["commit"],
        "jax": versions["jax"],
        "machine": versions["machine"],
    }


def main() -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measures networks on chips that are still missing.")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "chips", help="folder of networks and checkpoints")
    parser.add_argument("--rows", default="", help="only rows whose name holds one of these texts (semicolons between)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no cell after so many minutes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from modicum.train import Interrupted

    started = time.perf_counter()
    for cell in CELLS:
        wanted = not arguments.rows or any(text in cell.name for text in arguments.rows.split(";"))
        if not wanted or cell.name in read(arguments.results):
            continue
        if time.perf_counter() - started > 60 * arguments.minutes:
            print("time is up; the same command goes on")
            break
        try:
            measured = measure(cell, arguments.runs)
        except Interrupted:
            return 130
        add(arguments.results, cell.name, measured)
        mean = sum(measured["chips"]) / len(measured["chips"])
        print(
            f"{cell.name}: software {measured['software']:.4f}, chips {mean:.4f}, {measured['seconds']} s", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
