"""A graph as native programs, with what has no kernel left to XLA."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from modicum.mobile import graph as graphs
from modicum.mobile.graph import Dense, Graph, Layer, Other, Reshape
from modicum.mobile.native.call import Library, load
from modicum.mobile.native.machine import Machine
from modicum.mobile.native.program import Chooser, build, kernel_exists


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


def _native(graph: Graph) -> dict[str, bool]:
    """Whether each layer has a kernel where it stands."""
    readers: dict[str, list[Layer]] = {}
    for layer in graph.layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer)

    def has(layer: Layer) -> bool:
        if isinstance(layer, Reshape):
            # a flat vector is only another way to read an image, which products alone know
            return len(layer.shape) == 2 and all(isinstance(reader, Dense) for reader in readers.get(layer.output, []))
        return kernel_exists(layer)

    return {layer.name: has(layer) for layer in graph.layers}


def _stretches(graph: Graph) -> Iterator[tuple[bool, list[Layer]]]:
    """Layers in a row that all have kernels, or all have none."""
    native = _native(graph)
    current: list[Layer] = []
    for layer in graph.layers:
        if current and native[current[0].name] != native[layer.name]:
            yield native[current[0].name], current
            current = []
        current.append(layer)
    if current:
        yield native[current[0].name], current


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
