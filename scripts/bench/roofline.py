"""How near each kernel of a network comes to what the core can do: `python scripts/bench/roofline.py vgg16_8x`.

Reads a network that scripts/bench/latency.py has written, tunes its kernels (or takes what was found before), times
each alone on one thread, and draws them under the roof of the core: its multiply-adds, and its bandwidth to each level
of memory, measured in the same run. Writes scripts/bench/results/roofline-NETWORK.json and .png.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ours
import peak
from peers import network

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"


def measured(folder: Path) -> list[dict[str, Any]]:
    """Each product of a network: its operations on weights that are not skipped, bytes and seconds."""
    from modicum.mobile import native

    machine = native.host()
    program = native.build(ours.graph_of(network.read(folder)), machine, "bench", ours.chooser("modicum", machine))
    seconds = native.load(program, machine).profile(np.load(folder / "input.npy"))
    rows = []
    for built in program.built:
        if built.macs:
            moved = built.payload + built.index + built.source + built.target
            rows.append(
                {
                    "layer": built.name,
                    "kernel": built.kernel,
                    "macs": built.macs,
                    "dense_macs": built.dense_macs,
                    "bytes": moved,
                    "seconds": seconds[built.name],
                    "gflops": 2e-9 * built.macs / seconds[built.name],
                    "operations_per_byte": 2 * built.macs / moved,
                }
            )
    return rows


def draw(rows: list[dict[str, Any]], peaks: dict[str, Any], title: str, path: Path) -> None:
    """Layers under the roof."""
    from matplotlib.figure import Figure

    from modicum.systems import drawing

    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    across = np.geomspace(0.2, 1000, 200)
    top = peaks["fma_gflops"]
    for level in peaks["loads"]:
        rate = level["gb_per_second"]
        name = f"loads from {level['bytes'] >> 10:,} KiB: {rate:.0f} GB/s"
        axes.plot(across, np.minimum(top, across * rate), label=name, linewidth=1)
    axes.axhline(top, color="black", linewidth=1, label=f"multiply-adds: {top:.0f} GFLOP/s")
    for row in rows:
        axes.plot(row["operations_per_byte"], row["gflops"], "o", color="tab:red", markersize=4)
        axes.annotate(row["layer"].split("/")[-2], (row["operations_per_byte"], row["gflops"]), fontsize=6)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="operations on weights that are not skipped, per byte of weights and activations",
        ylabel="GFLOP/s, one thread",
        title=title,
        ylim=(top / 200, top * 1.5),
    )
    axes.legend(fontsize=7, loc="lower right")
    drawing.save(figure, path)


def main() -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Draws the kernels of a network under the roof of a core.")
    parser.add_argument("network", help="a network that scripts/bench/latency.py has written, vgg16_8x for instance")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "latency")
    arguments = parser.parse_args()
    folder = arguments.folder / arguments.network
    if not (folder / "reference.npy").exists():
        print(f"roofline: network must lie in {arguments.folder}, got {arguments.network!r}", file=sys.stderr)
        return 2
    from modicum.train import report

    peaks, rows = peak.measure(), measured(folder)
    versions = report.versions()
    facts = {name: versions[name] for name in ("commit", "jax", "machine")}
    path = RESULTS / f"roofline-{arguments.network}.json"
    report.write_json(path, {"network": arguments.network, "peaks": peaks, "layers": rows, **facts})
    draw(rows, peaks, f"{arguments.network}: kernels under the roof of one core", path.with_suffix(".png"))
    for row in rows:
        print(f"{row['layer']:<28} {row['kernel']:<26} {1e6 * row['seconds']:9.1f} us {row['gflops']:7.1f} GFLOP/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
