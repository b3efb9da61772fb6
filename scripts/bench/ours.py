"""Our own kernels as an engine of the latency benchmark: a worker of the protocol in peers/worker.py.

`modicum` is tuned on this machine. The others leave one thing out, for the ablation: `modicum_untuned` takes the
model's choice, `modicum_no_elimination` loads an input anew for each tap, `modicum_no_reorder` leaves the kernels in
the order of the input channels; these two keep the model's register tiles.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from peers import network
from peers.worker import serve

ENGINES = ("modicum", "modicum_untuned", "modicum_no_elimination", "modicum_no_reorder")


def graph_of(read: network.Network) -> Any:
    """The layers of a network folder as `modicum.mobile.graph` has them."""
    from modicum.mobile import graph

    def pairs(value: Any) -> Any:
        return tuple(map(pairs, value)) if isinstance(value, list) else value

    layers = []
    for entry in read.layers:
        fields = {name: pairs(value) for name, value in entry.items() if name not in ("kind", "pool")}
        if entry["kind"] == "Pool":
            fields["kind"] = entry["pool"]
        layers.append(getattr(graph, entry["kind"])(**fields))
    return graph.Graph(read.input, read.input_shape, read.output, tuple(layers))


def chooser(engine: str, machine: Any) -> Any:
    """How products are computed under an engine's name."""
    from modicum.mobile.native.choose import Choice
    from modicum.mobile.native.families import every
    from modicum.mobile.native.tune import Tuner

    if engine == "modicum":
        return Tuner(machine, progress=lambda name, tried, _: print(f"{name}: {tried} kernels", file=sys.stderr))
    changes = {
        "modicum_untuned": {},
        "modicum_no_elimination": {"taps": 1, "shapes": 1},
        "modicum_no_reorder": {"chunk": 1},
    }[engine]

    def chosen(_: Any, problem: Any) -> Any:
        best = every(problem, machine)[0][1]
        return replace(best, **changes) if isinstance(best, Choice) else best

    return chosen


class Engine:
    """A network in memory that is there."""

    def __init__(self, engine: str, folder: Path, threads: int) -> None:
        import modicum
        from modicum.mobile import native

        self.version = modicum.__version__
        machine = native.host()
        program = native.build(graph_of(network.read(folder)), machine, "bench", chooser(engine, machine))
        self._library = native.load(program, machine, threads)
        self._image = np.load(folder / "input.npy")
        self._arena = native.aligned(program.arena)
        self._output = np.empty(program.output_shape, np.float32)

    def run(self) -> np.ndarray:
        """One image."""
        self._library.call(self._image, self._output, self._arena)
        return self._output


if __name__ == "__main__":
    sys.exit(serve(Engine))
