"""What a simulation shows: a table per layer, and pictures."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from modicum import analog
from modicum.systems.drawing import save
from modicum.systems.simulation_config import Simulation


def table(summary: dict[str, Any], folder: Path) -> Table:
    """A line per layer, per example, and the accuracies below."""
    chips = 100 * np.asarray(summary["chips"])
    shown = Table(title=f"{summary['model']} on {summary['data']}: per example, on {summary['device']}")
    shown.add_column("layer", no_wrap=True)
    measured = summary["layers"][0]["activity"] or {}
    for name in ("arrays", "MACs", "conversions", "energy, nJ", "time, us", "area, mm2", *measured):
        shown.add_column(name.replace("_", " "), justify="right")
    for layer in (*summary["layers"], summary["total"]):
        shown.add_row(
            layer["name"].removeprefix("params/"),
            f"{layer['crossbars']:,}",
            f"{layer['macs']:,}",
            f"{layer['conversions']:,.0f}",
            f"{1e9 * layer['energy_joules']:.3g}",
            f"{1e6 * layer['latency_seconds']:.3g}",
            f"{layer['area_mm2']:.3g}",
            *(f"{value:.3g}" for value in (layer["activity"] or {}).values()),
        )
    shown.caption = (
        f"Held-out accuracy, {summary['test_examples']:,} examples: software {100 * summary['software']:.2f}%, "
        f"{len(chips)} chips {chips.mean():.2f}% (least {chips.min():.2f}%, most {chips.max():.2f}%); the run that was "
        f"metered {100 * summary['measured_accuracy']:.2f}%. {folder}"
    )
    return shown


def figures(simulation: Simulation, summary: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what there is to draw; PNGs that are whole or not there.

    `accuracy.png`: against variation, with the spread over chips; `energy.png`: by layer and component;
    `cycles.png`: effective input cycles by layer (crossbars); `transfer.png`: transfer curve and integral
    non-linearity of a macro (CAP-RAM).
    """
    drawn = [_drawn(_accuracy, summary, folder / "accuracy.png"), _drawn(_energy, summary, folder / "energy.png")]
    if any("effective_bits" in (layer["activity"] or {}) for layer in summary["layers"]):
        drawn.append(_drawn(_cycles, summary, folder / "cycles.png"))
    if isinstance(simulation.spec, analog.ChargeSpec):
        curve = transfer(simulation.spec, simulation.chips)
        drawn.append(_drawn(_transfer, curve, folder / "transfer.png", 2))
    return drawn


def _drawn(draw: Any, data: Any, path: Path, columns: int = 1) -> Path:
    drawing = Figure(figsize=(6.4 * columns, 4.4), layout="constrained", dpi=120)
    draw(drawing.subplots(1, columns), data)
    save(drawing, path)
    return path


def _accuracy(axes: Any, summary: dict[str, Any]) -> None:
    axes.axhline(100 * summary["software"], color="#222222", linewidth=1, label="software")
    curve = {float(sigma): values for sigma, values in summary["variations"].items()}
    if curve:
        sigmas = sorted(curve)
        axes.boxplot([100 * np.asarray(curve[sigma]) for sigma in sigmas], tick_labels=[f"{s:g}" for s in sigmas])
        axes.set(xlabel="programming variation (sigma)")
    else:
        axes.plot(100 * np.asarray(summary["chips"]), "o", color="#4c72b0", label="chips")
        axes.set(xlabel="chip")
    count = len(summary["chips"])
    axes.set(ylabel=f"held-out accuracy (%), {summary['test_examples']:,} examples", title=f"{count} chips each")
    axes.legend(fontsize=8)


def _energy(axes: Any, summary: dict[str, Any]) -> None:
    names = [layer["name"].removeprefix("params/").removesuffix("/kernel") for layer in summary["layers"]]
    bottom = np.zeros(len(names))
    for part, whole in sorted(summary["total"]["parts"].items(), key=lambda item: -item[1]):
        heights = np.array([1e9 * layer["parts"].get(part, 0.0) for layer in summary["layers"]])
        if whole >= 0.01 * summary["total"]["energy_joules"]:
            axes.bar(names, heights, bottom=bottom, label=part)
            bottom += heights
    axes.set(ylabel="energy of one example (nJ)", title="components of 1% of the energy and more")
    axes.tick_params(axis="x", rotation=60, labelsize=7)
    axes.legend(fontsize=7)


def _cycles(axes: Any, summary: dict[str, Any]) -> None:
    names = [layer["name"].removeprefix("params/").removesuffix("/kernel") for layer in summary["layers"]]
    axes.bar(names, [layer["activity"]["effective_bits"] for layer in summary["layers"]], color="#4c72b0")
    axes.set(ylabel="mean input cycles of a fragment and pass", title="effective input cycles")
    axes.tick_params(axis="x", rotation=60, labelsize=7)


def transfer(spec: analog.ChargeSpec, chips: int = 8, reads: int = 32) -> dict[str, np.ndarray]:
    """Codes of simulated slices against the sum that they should convert, and their integral non-linearity.

    The first `0 ... 128` lines carry the highest code against weights of 1, as in the paper's measurement; codes are
    means over reads, and the non-linearity is what a straight line leaves of each slice (of a pair: of its positive
    side).

    Args:
        spec: macro, read ideal in what is not the macro's: weight step 1, input step 1, no sign of the inputs.
        chips: slices, each of a macro of its own.
        reads: of every input.

    Returns:
        `sums` in converter steps `(129,)`, `codes` `(chips, 129)`, `inl` in converter steps `(chips, 129)`.
    """
    lines, highest = 128, 2 ** min(spec.input_bits, 4) - 1
    one = analog.capram(spec, weight_scale=1.0, input_scale=1.0, input_format="unsigned")
    counts = np.arange(lines + 1)
    inputs = jnp.asarray(np.where(np.arange(lines)[None] < counts[:, None], highest, 0), jnp.float32)
    repeated = jnp.tile(inputs, (reads, 1))

    @jax.jit
    def read(key: Any) -> Any:
        programming, reading = jax.random.split(key)
        chip = one.program(programming, jnp.ones((lines, 1)), one.spec)
        return one.read(reading, chip, repeated, one.spec)

    sums = counts * highest / spec.lsb
    answers = [np.asarray(read(jax.random.key(chip))).reshape(reads, -1).mean(0) / spec.lsb for chip in range(chips)]
    # where the converter saturates there is no line to differ from
    limit = spec.codes[1] if np.isfinite(spec.codes[1]) else np.inf
    inside = sums < limit - 1
    fits = [np.polyval(np.polyfit(sums[inside], answer[inside], 1), sums) for answer in answers]
    inl = np.where(inside, np.asarray(answers) - np.asarray(fits), np.nan)
    return {"sums": sums, "codes": np.asarray(answers), "inl": inl}


def _transfer(axes: Any, curve: dict[str, np.ndarray]) -> None:
    left, right = axes
    left.plot(curve["sums"], curve["codes"].T, linewidth=0.8)
    left.set(xlabel="sum of products (converter steps)", ylabel="code, mean of reads", title="transfer curve")
    right.plot(curve["sums"], curve["inl"].T, linewidth=0.8)
    right.set(xlabel="sum of products (converter steps)", ylabel="converter steps", title="integral non-linearity")
