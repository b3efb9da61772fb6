"""Effective input cycles of real networks, and what skipping zeros is worth against ISAAC.

python scripts/bench/effective_cycles.py --runs RUNS     adds cells to scripts/bench/results/effective-cycles.json

A cell is one network, one fragment size, one input format: 500 held-out images pass through the network, and every
layer's mean effective input cycles (FORMS, section III-D) are measured on its real activations. The speed-up over
ISAAC is that of the cost model with these cycles, layer by layer, for the same weights in the same number of crossbars:
crossbars balanced over layers (as ISAAC replicates its early ones) and the slowest layer without replication. It is the
product of three measured factors: what a full crossbar does without skipping, what layers of fewer than 128 rows
save (they have fewer fragments to go through), and what skipping saves. Nothing is fitted to the paper.
"""

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "effective-cycles.json"
FRAGMENTS = {4: 3, 8: 4, 16: 5}
"""Rows, and the bits of FORMS' converters for them."""
FORMATS = {
    "16 bits, largest activation at the highest code": (16, "largest"),
    "16 bits, 8 of them behind the point": (16, 2.0**-8),
    "8 bits, largest activation at the highest code": (8, "largest"),
    "8 bits, 99.9% of activations below the highest code": (8, "quantile"),
}
"""Bits, and what the input step follows."""


NETWORKS = {
    "LeNet-5, MNIST": ("forms/mnist.py", "dense/mnist-LeNet5-*"),
    "small LeNet-5, MNIST": ("capram/mnist.py", "capram-mnist-net"),
    "SmallConvNet, CIFAR-10": ("train/cifar10.py", "cifar10"),
    "ResNet, CIFAR-10": ("forms/cifar10.py", "dense/cifar10-ResNet-*"),
}
"""Config, and where in RUNS the finished runs of scripts/train.py, compress.py and bench/chips.py lie."""


def networks(runs: Path) -> dict[str, tuple[Any, Any, Any]]:
    """Model function, variables and held-out inputs of the networks whose finished runs lie in a folder."""
    from modicum import train
    from modicum.systems.simulation_config import load_simulation

    root = Path(__file__).resolve().parents[2] / "configs"
    found = {}
    for name, (config, pattern) in NETWORKS.items():
        experiment = load_simulation(root / config).experiment
        for folder in sorted(runs.glob(pattern)):
            if (folder / "result.json").exists():
                state = train.train(_as_trained(experiment, folder), folder).state
                inputs = train.load_split(experiment.data, experiment.data.test).inputs[:500]
                found[name] = (experiment.model.apply, state.params, inputs)
    return found


def _as_trained(experiment: Any, folder: Path) -> Any:
    """The experiment with the epochs that the run in a folder had."""
    stored = json.loads((folder / "config.json").read_text())
    return replace(experiment, epochs=stored["epochs"], steps=stored["steps"])


def measure(network: tuple[Any, Any, Any]) -> dict[tuple[int, str], dict[str, Any]]:
    """All cells of one network, by fragment and format: its images pass once."""
    import jax

    from modicum import analog, core

    fun, variables, inputs = network
    seen: dict[str, dict[tuple[int, str], float]] = {}
    signed: dict[str, bool] = {}

    def rule(site: Any, weight: Any, activations: Any) -> Any:
        jax.debug.callback(
            partial(_record, seen, signed, site.name), *_cycles(core.matmul_form(site).inputs(activations))
        )
        return site.apply(weight, activations)

    jax.block_until_ready(jax.jit(core.rewrite(fun, rule))(variables, inputs))
    jax.effects_barrier()
    cells = {}
    for fragment in FRAGMENTS:
        for input_format, (bits, _) in FORMATS.items():
            layers = []
            for site in core.sites(fun, variables, inputs):
                cycles = seen[site.name][fragment, input_format]
                forms, isaac = specs(fragment, bits, signed[site.name])
                measured = analog.Activity(cycles, 0.0)
                costs = (
                    analog.cost(site, forms, measured),
                    analog.cost(site, forms),
                    analog.cost(site, isaac, architecture=analog.ISAAC),
                )
                layers.append(layer(site.name, cycles, costs, len(inputs)))
            cells[fragment, input_format] = {"input_bits": bits, **summary(layers)}
    return cells


def specs(fragment: int, bits: int, signed: bool) -> tuple[Any, Any]:
    """FORMS with fragments of so many rows, and ISAAC, for 8-bit weights and inputs of so many bits."""
    from modicum import analog

    forms = analog.CrossbarSpec(
        fragment=fragment,
        adc_bits=FRAGMENTS[fragment],
        encoding="polarized",
        input_bits=bits,
        input_format="signed" if signed else "unsigned",
    )
    return forms, replace(forms, fragment=128, adc_bits=8, encoding="offset")


def _cycles(groups: Any) -> tuple[Any, list[Any]]:
    """Lowest input of a layer, and its effective cycles for every fragment and format, in order."""
    import jax.numpy as jnp

    from modicum import analog

    vectors = groups.reshape(-1, groups.shape[-1])
    size = jnp.abs(vectors)
    found = []
    for fragment in FRAGMENTS:
        for bits, step in FORMATS.values():
            highest = jnp.quantile(size.ravel()[:: max(size.size // 2**20, 1)], 0.999)
            highest = jnp.max(size) if step == "largest" else highest
            spacing = step if isinstance(step, float) else highest / (2**bits - 1)
            # the sign of an image's pixels makes two passes, each of which is counted
            spec = specs(fragment, bits, signed=True)[0]
            codes = jnp.clip(jnp.round(vectors / spacing), -(2**bits - 1), 2**bits - 1).astype(jnp.int32)
            both = analog.effective_bits(codes, spec)
            found.append(jnp.where(jnp.min(vectors) < 0, both, 2 * both))
    return jnp.min(vectors), found


def _record(
    seen: dict[str, dict[tuple[int, str], float]], signed: dict[str, bool], name: str, least: Any, found: list[Any]
) -> None:
    signed[name] = bool(least < 0)
    names = [(fragment, input_format) for fragment in FRAGMENTS for input_format in FORMATS]
    seen[name] = {cell: float(value) for cell, value in zip(names, found, strict=True)}


def layer(name: str, cycles: float, costs: tuple[Any, Any, Any], examples: int) -> dict[str, Any]:
    """One layer of a cell, per example; costs with skipping, without, and ISAAC's."""
    skipping, streaming, isaac = costs
    return {
        "name": name,
        "effective_cycles": cycles,
        "seconds": skipping.latency_seconds / examples,
        "unskipped_seconds": streaming.latency_seconds / examples,
        "isaac_seconds": isaac.latency_seconds / examples,
        "joules": skipping.energy_joules / examples,
        "isaac_joules": isaac.energy_joules / examples,
        "crossbars": skipping.crossbars,
        "isaac_crossbars": isaac.crossbars,
    }


def summary(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Effective cycles by layer, and the speed-up with what it is made of.

    Args:
        layers: from `layer`.
    """
    from modicum import analog

    def work(seconds: str, crossbars: str) -> float:
        return sum(layer[seconds] * layer[crossbars] for layer in layers)

    mine, unskipped = work("seconds", "crossbars"), work("unskipped_seconds", "crossbars")
    other = work("isaac_seconds", "isaac_crossbars")
    slowest = max(layer["isaac_seconds"] for layer in layers) / max(layer["seconds"] for layer in layers)
    area = analog.ISAAC.chip_total[1] / analog.FORMS.chip_total[1]
    return {
        "layers": layers,
        "mean_cycles": sum(layer["effective_cycles"] for layer in layers) / len(layers),
        "skip_gain": unskipped / mine,
        "unskipped_speedup": other / unskipped,
        "speedup": other / mine,
        "speedup_per_area": other / mine * area,
        "work_per_joule": sum(layer["isaac_joules"] for layer in layers) / sum(layer["joules"] for layer in layers),
        "speedup_slowest_layer": slowest,
    }


def full_crossbar(fragment: int) -> float:
    """Speed of a full crossbar against ISAAC's without any skipping: seconds of one input bit of 128 rows."""
    from modicum import analog

    isaac = analog.ISAAC.crossbar_rows / analog.ISAAC.converters / analog.ISAAC.converter_hertz
    rows = analog.FORMS.crossbar_rows
    return isaac / (rows // fragment * rows / analog.FORMS.converters / analog.FORMS.converter_hertz)


def main() -> int:
    """Measures the cells of the networks that are there."""
    parser = argparse.ArgumentParser(description="Effective input cycles, and the speed-up over ISAAC.")
    parser.add_argument("--runs", type=Path, required=True, help="folder of finished runs (scripts/bench/chips.py)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    from modicum.train import report

    stored = json.loads(arguments.results.read_text()) if arguments.results.exists() else {"cells": {}}
    for name, network in networks(arguments.runs).items():
        if any(cell.startswith(f"{name} | ") for cell in stored["cells"]):
            continue
        for (fragment, input_format), done in measure(network).items():
            cell = f"{name} | {fragment} | {input_format}"
            stored["cells"][cell] = done
            print(f"{cell}: {done['mean_cycles']:.2f} cycles, {done['speedup']:.3f} x ISAAC", flush=True)
        stored["full_crossbar"] = {str(size): full_crossbar(size) for size in FRAGMENTS}
        report.write_json(arguments.results, {**stored, "versions": report.versions()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
