"""What spiking networks reach, neuron by neuron: `python scripts/bench/spiking_accuracy.py --seeds 3 --minutes 30`.

A cell is one task, one neuron, one seed; those that scripts/bench/results/spiking-accuracy.json holds are left out, and
none is started after `--minutes`. Tasks are the configs of configs/spiking; `--tasks` and `--neurons` pick cells, words
after them are further overrides, for tuning (with `--results` elsewhere): `data.train=train[:90%]`
`data.test=train[90%:]`. `memory` in place of all that writes what a training step of the sequential task needs, mode
by mode, by compilation alone. Seconds are wall time, beside whatever else the machine did, of the run or, where it was
cut off, of its last part. On a GPU: `--tasks "cifar10, VGG-11"`.
"""

import argparse
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

from accuracy import add, read

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "spiking-accuracy.json"


class Task(NamedTuple):
    """A config, what it is called with, and settings.

    Attributes:
        config: its name in configs/spiking.
        arguments: of `config`, beside the neuron.
        overrides: settings that differ from the config's.
        neurons: those it is measured by, all where empty.
        seeds: at most so many.
        gpu: whether it wants a GPU, so that it is left out unless it is named.
    """

    config: str
    arguments: tuple[tuple[str, Any], ...] = ()
    overrides: tuple[str, ...] = ()
    neurons: tuple[str, ...] = ()
    seeds: int = 3
    gpu: bool = False


TASKS = {
    "mnist, direct": Task("mnist"),
    "nmnist-small": Task("nmnist"),
    "mnist, latency": Task("mnist", (("code", "latency"), ("gain", 4.0)), ("model.steps=8", "data.augment=false")),
    "mnist, pixels": Task("sequential_mnist", neurons=("carry",), seeds=1),
    "cifar10": Task("cifar10", neurons=("packed LIF", "arctan LIF")),
    "cifar10, VGG-11": Task("cifar10_vgg11", neurons=("packed LIF", "arctan LIF"), gpu=True),
    "cifar10, VGG-11 twice as wide, cutout": Task(
        "cifar10_vgg11", (("width", 128), ("cutout", 16)), neurons=("packed LIF",), gpu=True
    ),
    "cifar10, VGG-11 twice as wide": Task("cifar10_vgg11", (("width", 128),), neurons=("packed LIF",), gpu=True),
}
"""In the order in which they are measured."""


def neurons() -> dict[str, tuple[Any, str]]:
    """Neurons by name, and how their backward pass gets at the past."""
    from modicum.spiking.circle import Carry
    from modicum.spiking.populations import LIF
    from modicum.spiking.smooth_surrogates import Arctan

    return {
        "packed LIF": (LIF(leak=0.5), "packed"),
        "arctan LIF": (LIF(leak=0.5, surrogate=Arctan()), "autodiff"),
        "carry": (Carry(), "reversible"),
    }


def experiment(task: Task, neuron: str, overrides: list[str]) -> Any:
    """The experiment of a cell."""
    from modicum import train

    kind, residuals = neurons()[neuron]
    make = train.read_config(ROOT / "configs" / "spiking" / f"{task.config}.py")
    config = make(neuron=kind, residuals=residuals, **dict(task.arguments))
    return train.parse_overrides(config, [*task.overrides, *overrides])


def measure(task: Task, neuron: str, overrides: list[str], folder: Path) -> dict[str, Any]:
    """The numbers on the held-out split, and what made them; a cell that was cut off goes on in its folder."""
    from rich.console import Console

    from modicum import train

    config, began = experiment(task, neuron, overrides), time.process_time()
    summary = train.train(config, folder, console=Console(stderr=True)).summary
    versions = train.report.versions()
    return {
        **summary,
        "cpu_seconds": round(time.process_time() - began, 1),
        "residuals": config.model.residuals,
        "time_steps": config.model.steps,
        "config": train.describe(config),
        **{name: versions[name] for name in ("commit", "jax", "machine")},
    }


def memory(batch: int) -> dict[str, Any]:
    """Temporary bytes of a gradient of the sequential task, by neuron and mode."""
    import jax
    import jax.numpy as jnp

    from modicum import train

    cells = {}
    shapes = jax.ShapeDtypeStruct((batch, 28, 28, 1), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    modes = {"packed LIF": ("autodiff", "sqrt", "packed"), "carry": ("autodiff", "sqrt", "packed", "reversible")}
    for neuron, names in modes.items():
        for residuals in names:
            model = experiment(TASKS["mnist, pixels"], neuron, [f"model.residuals={residuals}"]).model
            params = jax.eval_shape(model.init, jax.random.key(0), shapes[0])
            gradient = jax.grad(train.classification_loss(model.apply), has_aux=True)
            compiled = jax.jit(gradient).lower(params, shapes).compile()
            cells[f"{neuron} | {residuals}"] = compiled.memory_analysis().temp_size_in_bytes
            print(f"{neuron}, {residuals}: {cells[f'{neuron} | {residuals}']:,} bytes", flush=True)
    versions = train.report.versions()
    return {"batch": batch, "bytes": cells, **{name: versions[name] for name in ("commit", "jax", "machine")}}


def flags() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Trains spiking networks and stores what they reach.")
    parser.add_argument("overrides", nargs="*", help="`memory`, or settings as of scripts/train.py")
    parser.add_argument("--tasks", help="names separated by semicolons; all where none is given")
    parser.add_argument("--neurons", help="likewise")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no cell is started later")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "spiking", help="folder of checkpoints")
    return parser.parse_intermixed_args()


def names(arguments: argparse.Namespace) -> list[tuple[str, str, int]]:
    """The cells that are asked for: all tasks with the first seed, then the next."""
    tasks = arguments.tasks.split(";") if arguments.tasks else [name for name, task in TASKS.items() if not task.gpu]
    chosen = arguments.neurons.split(";") if arguments.neurons else neurons()
    return [
        (task, neuron, seed)
        for seed in range(arguments.seeds)
        for task in tasks
        for neuron in chosen
        if seed < TASKS[task].seeds and neuron in (TASKS[task].neurons or chosen)
    ]


def main() -> None:
    """Measures the cells that are missing."""
    arguments, began = flags(), time.monotonic()
    if arguments.overrides == ["memory"]:
        add(arguments.results, "mnist, pixels | memory", memory(64))
        return
    for task, neuron, seed in names(arguments):
        name = f"{task} | {neuron} | {seed}"
        if name in read(arguments.results) or time.monotonic() - began > 60 * arguments.minutes:
            continue
        folder = arguments.runs / re.sub(r"[^a-z0-9]+", "-", name.lower())
        cell = measure(TASKS[task], neuron, [*arguments.overrides, f"seed={seed}"], folder)
        add(arguments.results, name, cell)
        print(
            f"{name}: {100 * cell['test_accuracy']:.2f}%, {cell['seconds']} s, {cell['cpu_seconds']} of CPU", flush=True
        )


if __name__ == "__main__":
    main()
