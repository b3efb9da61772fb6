"""Effective input cycles of real networks, and what skipping zeros is worth against ISAAC.

python scripts/bench/effective_cycles.py --runs RUNS     adds cells to scripts/bench/results/effective-cycles.json

A cell is one network, one fragment size, one input format: 1,000 held-out images pass through the network, and every
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


def networks(runs: Path) -> dict[str, tuple[Any, Any, Any]]:
    """Model function, variables and held-out inputs of the networks whose finished runs lie in a folder."""
    from modicum import train
    from modicum.systems import compression
    from modicum.systems.compression_config import load_recipe
    from modicum.systems.simulation_config import load_simulation

    root = Path(__file__).resolve().parents[2] / "configs"
    found = {}
    for name, config in {
        "LeNet-5, MNIST": "forms/mnist.py",
        "ResNet, CIFAR-10": "forms/cifar10.py",
        "small LeNet-5, MNIST": "capram/mnist.py",
    }.items():
        made = load_simulation(root / config)
        recipe = made.network if "forms" in config else None
        experiment = made.experiment
        if recipe is None:
            folders = [runs / "capram-mnist-net"]
        else:
            recipe = load_recipe(root / config)
            folders = sorted(
                (runs / "dense").glob(compression.dense_folder(recipe, runs).name.rsplit("-", 1)[0] + "-*")
            )
        for folder in folders:
            if (folder / "result.json").exists():
                state = train.train(_as_trained(experiment, folder), folder).state
                inputs = train.load_split(experiment.data, experiment.data.test).inputs[:1000]
                found[name] = (experiment.model.apply, state.params, inputs)
    return found


def _as_trained(experiment: Any, folder: Path) -> Any:
    """The experiment with the epochs that the run in a folder had."""
    stored = json.loads((folder / "config.json").read_text())
    return replace(experiment, epochs=stored["epochs"], steps=stored["steps"])


def measure(network: tuple[Any, Any, Any], fragment: int, input_format: str) -> dict[str, Any]:
    """One cell."""
    from modicum import analog

    fun, variables, inputs = network
    bits, step = FORMATS[input_format]
    forms = analog.CrossbarSpec(
        fragment=fragment, adc_bits=FRAGMENTS[fragment], encoding="polarized", input_bits=bits, weight_scale="max"
    )
    isaac = replace(forms, fragment=128, adc_bits=8, encoding="offset")
    devices = {}
    for name, spec, table in (("forms", forms, analog.FORMS), ("isaac", isaac, analog.ISAAC)):
        quantile = 0.999 if step == "quantile" else 1.0
        scaled = analog.scaled(
            fun, analog.crossbar(spec, architecture=table), variables, inputs, quantile=quantile, weights=False
        )
        devices[name] = _stepped(scaled, step) if isinstance(step, float) else scaled
    rows = {name: analog.report(fun, device, variables, inputs).rows for name, device in devices.items()}
    return {"input_bits": bits, **summary(rows["forms"], rows["isaac"], bits, len(inputs))}


def _stepped(device: Any, step: float) -> Any:
    def chosen(site: Any) -> Any:
        picked = device(site)
        return picked._replace(spec=replace(picked.spec, input_scale=step))

    return chosen


def summary(forms: Any, isaac: Any, bits: int, examples: int) -> dict[str, Any]:
    """Effective cycles by layer, and the speed-up with what it is made of.

    Args:
        forms: rows of the report, effective cycles measured.
        isaac: of the same network; it streams all bits.
        bits: of an input.
        examples: in the batch that the rows are of.
    """
    from modicum import analog

    layers = []
    for mine, other in zip(forms, isaac, strict=True):
        cycles = mine.activity.effective_bits
        layers.append(
            {
                "name": mine.name,
                "effective_cycles": cycles,
                "seconds": mine.latency_seconds / examples,
                "unskipped_seconds": mine.latency_seconds / examples * bits / max(cycles, 1e-9),
                "isaac_seconds": other.latency_seconds / examples,
                "crossbars": mine.crossbars,
                "isaac_crossbars": other.crossbars,
            }
        )

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
        for fragment in FRAGMENTS:
            for input_format in FORMATS:
                cell = f"{name} | {fragment} | {input_format}"
                if cell not in stored["cells"]:
                    stored["cells"][cell] = measure(network, fragment, input_format)
                    stored["full_crossbar"] = {str(size): full_crossbar(size) for size in FRAGMENTS}
                    report.write_json(arguments.results, {**stored, "versions": report.versions()})
                    done = stored["cells"][cell]
                    print(f"{cell}: {done['mean_cycles']:.2f} cycles, {done['speedup']:.3f} x ISAAC", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
