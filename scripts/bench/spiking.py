"""Spiking networks: memory of the gradient, time of a training step, peers.

python scripts/bench/spiking.py memory        writes scripts/bench/results/spiking-memory.json and .png; runs nothing,
                                              so that it may be called on a busy machine
python scripts/bench/spiking.py time          writes spiking-time.json: every scheme and node, in turns
python scripts/bench/spiking.py operators     writes spiking-operators.json: gradients of a convolution inside a loop
python scripts/bench/spiking.py accelerator   writes spiking-accelerator.json: every scheme on the GPU that JAX sees
python scripts/bench/spiking.py peers         writes spiking-peers.json: SpikingJelly, snnTorch, Spyx and ours, in turns

The network is a stem, D convolutions of C channels, all with neurons, and a readout of pooled spikes, on event frames
of 32 x 32. `scripts/bench/spiking_bench/setup.sh` makes the peers' environments; those absent are left out.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas."""
    return tuple(int(word) for word in text.split(","))


def tell(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


def write(path: Path, entry: dict[str, Any], load_average: float) -> None:
    """A results file, with what made it."""
    from modicum import train

    train.report.write_json(path, {**entry, "load_average": load_average, "versions": train.report.versions()})


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Bytes; all of them by compilation alone."""
    # buffers are assigned before LLVM sees the program, whose optimizations take most of the time
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    from spiking_bench import memory, network

    schemes = arguments.schemes.split(",") if arguments.schemes else tuple(network.SCHEMES)
    long = None if arguments.no_long else memory.LONG
    sizes = {"channels": arguments.channels, "side": arguments.side}
    entry: dict[str, Any] = {
        **sizes,
        "batch": network.BATCH,
        "nodes": memory.nodes(arguments.node_steps),
        "coupled": memory.coupled(arguments.blocks, **sizes, tell=tell),
        "cells": {},
    }
    for depth in arguments.depths:
        entry["cells"] |= memory.networks(depth, arguments.steps, **sizes, schemes=schemes, long=long, tell=tell)
        entry["summary"] = memory.summary(entry["cells"])
        # deep networks take minutes to compile: what there is, is kept
        write(arguments.results / "spiking-memory.json", entry, os.getloadavg()[0])
    memory.draw(entry, arguments.results / "spiking-memory.png")
    return entry


def pinned_to(threads: int) -> None:
    """Pins this process before JAX counts its cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def timed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Training steps and nodes."""
    pinned_to(arguments.threads)
    from spiking_bench import timing

    sizes = {"channels": arguments.channels, "side": arguments.side}
    cells = [
        timing.networks(depth, steps, rounds=arguments.rounds, **sizes, tell=tell)
        for depth in arguments.depths
        for steps in arguments.steps
    ]
    return {
        **sizes,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "networks": cells,
        "nodes": timing.nodes(rounds=arguments.rounds, neurons=arguments.neurons, tell=tell),
        "coupled": timing.coupled(arguments.blocks, rounds=arguments.rounds, **sizes, tell=tell),
    }


def operators(arguments: argparse.Namespace) -> dict[str, Any]:
    """A convolution inside a loop."""
    pinned_to(arguments.threads)
    from spiking_bench import timing

    sizes = {"channels": arguments.channels, "side": arguments.side}
    return {**sizes, "rows": timing.operators(arguments.steps, rounds=arguments.rounds, **sizes, tell=tell)}


def peers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Other libraries."""
    from spiking_bench import peers

    sizes = {"channels": arguments.channels, "side": arguments.side}
    engines = arguments.engines.split(",") if arguments.engines else tuple(peers.ENVIRONMENTS)
    results = [
        peers.measure(arguments.depth, steps, engines, arguments.rounds, arguments.runs, **sizes, tell=tell)
        for steps in arguments.steps
    ]
    return {**sizes, "depth": arguments.depth, "rounds": arguments.rounds, "results": results}


def accelerator(arguments: argparse.Namespace) -> dict[str, Any]:
    """Training steps on a GPU: bytes, wall time, gradients."""
    import jax
    from spiking_bench import accelerator

    sizes = {"channels": arguments.channels, "side": arguments.side, "batch": arguments.batch}
    entry: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        **sizes,
        "rounds": arguments.rounds,
        "long_inverse_differs": accelerator.long_inverse(4096, 1 << 14),
        "networks": [],
    }
    for steps in arguments.steps:
        cell = accelerator.networks(arguments.depth, steps, rounds=arguments.rounds, **sizes, tell=tell)
        entry["networks"].append(cell)
        write(arguments.results / "spiking-accelerator.json", entry, os.getloadavg()[0])
    return entry


COMMANDS = {"memory": memory, "time": timed, "operators": operators, "accelerator": accelerator, "peers": peers}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    defaults = {
        "memory": "4,8,16,32,64,128,256",
        "time": "16,32,64",
        "operators": "16",
        "accelerator": "16,128",
        "peers": "16,64",
    }
    for name, steps in defaults.items():
        command = commands.add_parser(name, help=COMMANDS[name].__doc__)
        command.add_argument("--steps", type=numbers, default=numbers(steps), help="numbers of time steps")
        command.add_argument("--channels", type=int, default=64 if name == "accelerator" else 16)
        command.add_argument("--side", type=int, default=32, help="of the event frames")
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
        if name in ("memory", "time"):
            command.add_argument("--depths", type=numbers, default=(4, 16, 64) if name == "memory" else (4, 16))
            blocks = (4, 16, 64, 256) if name == "memory" else (16,)
            command.add_argument("--blocks", type=numbers, default=blocks, help="numbers of coupled blocks")
        if name in ("time", "operators"):
            command.add_argument("--threads", type=int, default=1)
        if name != "memory":
            command.add_argument("--rounds", type=int, default=7)
    for name, option, value in (("time", "--neurons", 1 << 18), ("peers", "--depth", 4), ("peers", "--runs", 2)):
        commands.choices[name].add_argument(option, type=int, default=value)
    commands.choices["accelerator"].add_argument("--depth", type=int, default=16)
    commands.choices["accelerator"].add_argument("--batch", type=int, default=32)
    commands.choices["memory"].add_argument("--schemes", help="some of them, separated by commas")
    commands.choices["memory"].add_argument("--node-steps", type=numbers, default=(4, 15, 16, 64, 256))
    commands.choices["memory"].add_argument("--no-long", action="store_true", help="leave 1,024 steps out")
    commands.choices["peers"].add_argument("--engines", help="some of them, separated by commas")
    return top


def main() -> int:
    """Measures, prints and writes."""
    arguments = parser().parse_args()
    load_average = os.getloadavg()[0]
    entry = COMMANDS[arguments.command](arguments)
    path = arguments.results / f"spiking-{arguments.command}.json"
    write(path, entry, load_average)
    tell(str(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
