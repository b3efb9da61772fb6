"""A graph as native programs, with what has no kernel left to XLA."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from modicum.mobile import graph as graphs
from modicum.mobile.graph import Dense, Graph, Layer, Other, Reshape
from modicum.mobile.native.call import Library, load
from modicum.mobile.native.machine import Machine
from modicum.mobile.native.parts import kernel_exists
from modicum.mobile.native.program import Chooser, build
from modicum.mobile.report import Kernel


@dataclass(frozen=True, eq=False)
class Part:
    """Layers that are computed together.

    Attributes:
        graph: those layers, from the one value they read to the one value that others read.
        library: their program, None where XLA computes them.
    """

    graph: Graph
    library: Library | None


@dataclass(frozen=True, eq=False)
class Network:
    """A whole network, called like a function of a batch.

    Attributes:
        graph: all layers.
        parts: in order.
    """

    graph: Graph
    parts: tuple[Part | Layer, ...]

    def __call__(self, x: Any) -> Any:
        """The output of a batch; works under `jit`."""
        values = {self.graph.input: x}
        for part in self.parts:
            if isinstance(part, Layer):
                values[part.output] = graphs.layer(part, *(values[name] for name in part.inputs))
            elif part.library is None:
                values[part.graph.output] = graphs.run(part.graph, values[part.graph.input])
            else:
                values[part.graph.output] = part.library(values[part.graph.input])
        return values[self.graph.output]

    def report(self, x: np.ndarray | None = None) -> tuple[Kernel, ...]:
        """Steps in order; timed on the first image of `x` where there is one."""
        rows: list[Kernel] = []
        values: dict[str, Any] = {self.graph.input: None if x is None else jnp.asarray(x)}
        for part in self.parts:
            if isinstance(part, Part) and part.library is not None:
                read = values[part.graph.input]
                seconds = {} if read is None else part.library.profile(np.asarray(read)[:1])
                rows += [
                    Kernel(
                        name=built.name,
                        kernel=built.kernel,
                        macs=built.macs,
                        dense_macs=built.dense_macs,
                        payload=built.payload,
                        index=built.index,
                        seconds=seconds.get(built.name),
                    )
                    for built in part.library.program.built
                ]
                values[part.graph.output] = None if read is None else part.library(read)
                continue
            layers = (part,) if isinstance(part, Layer) else part.graph.layers
            for layer in layers:
                rows.append(Kernel(name=layer.name, kernel=f"xla: {_operator(layer)}"))
                read = [values[name] for name in layer.inputs]
                values[layer.output] = None if x is None else graphs.layer(layer, *read)
        return tuple(rows)

    @property
    def libraries(self) -> tuple[Library, ...]:
        """The native programs."""
        return tuple(part.library for part in self.parts if isinstance(part, Part) and part.library is not None)

    @property
    def left(self) -> dict[str, str]:
        """Layers that XLA computes, and their operators."""
        found = {}
        for part in self.parts:
            layers = (part,) if isinstance(part, Layer) else (part.graph.layers if part.library is None else ())
            found.update({layer.name: _operator(layer) for layer in layers})
        return found


def _operator(layer: Layer) -> str:
    return layer.operator if isinstance(layer, Other) else type(layer).__name__.lower()


def without_kernel(graph: Graph) -> dict[str, str]:
    """Layers that have no kernel where they stand, and their operators."""
    readers: dict[str, list[Layer]] = {}
    for layer in graph.layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer)

    def has(layer: Layer) -> bool:
        if isinstance(layer, Reshape):
            # a flat vector is only another way to read an image, which products alone know
            return len(layer.shape) == 2 and all(isinstance(reader, Dense) for reader in readers.get(layer.output, []))
        return kernel_exists(layer)

    return {layer.name: _operator(layer) for layer in graph.layers if not has(layer)}


def _stretches(graph: Graph) -> Iterator[tuple[bool, list[Layer]]]:
    """Layers in a row that all have kernels, or all have none."""
    left = without_kernel(graph)
    for native, layers in itertools.groupby(graph.layers, lambda layer: layer.name not in left):
        yield native, list(layers)


def _joined(graph: Graph, layers: Sequence[Layer], shapes: dict[str, tuple[int, ...]]) -> Graph | None:
    """The layers as a graph, where one value goes in and one comes out."""
    made = {layer.output for layer in layers}
    outside = [layer for layer in graph.layers if layer.output not in made]
    read = {name for layer in layers for name in layer.inputs} - made
    wanted = {name for layer in outside for name in layer.inputs} | {graph.output}
    given = [layer.output for layer in layers if layer.output in wanted]
    if len(read) != 1 or len(given) != 1:
        return None
    (source,) = read
    return Graph(source, shapes[source], given[0], tuple(layers))


def whole(library: Library) -> Network:
    """A network that is one program, whose layers are known to the program alone."""
    graph = Graph("x", library.program.input_shape, "y", ())
    return Network(graph, (Part(graph, library),))


def network(
    graph: Graph, machine: Machine, threads: int = 1, chooser: Chooser | None = None, name: str = "model"
) -> Network:
    """Compiles what has kernels, and leaves the rest to XLA.

    Args:
        graph: fused layers.
        machine: this one.
        threads: threads of a run.
        chooser: how products are computed; see `build`.
        name: prefix of the C functions.
    """
    shapes = {graph.input: graph.input_shape} | {layer.output: layer.shape for layer in graph.layers}
    parts: list[Part | Layer] = []
    for native, layers in _stretches(graph):
        joined = _joined(graph, layers, shapes)
        if joined is None:
            parts += layers
        elif native:
            program = build(joined, machine, f"{name}_{len(parts)}" if parts else name, chooser)
            parts.append(Part(joined, load(program, machine, threads)))
        else:
            parts.append(Part(joined, None))
    return Network(graph, tuple(parts))
