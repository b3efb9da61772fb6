"""From a graph to one C program and one block of weights: layouts, memory, kernels, steps."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from modicum.mobile.graph import Add, Affine, Conv, Dense, Graph, Gru, Layer, Mean, Other, Pool, Reshape
from modicum.mobile.native import emit, families, recurrent, runtime, steps
from modicum.mobile.native.choose import Choice, Problem
from modicum.mobile.native.layout import Planes, whole
from modicum.mobile.native.machine import Machine
from modicum.mobile.native.memory import ALIGNMENT
from modicum.mobile.native.parts import (
    Blob,
    Built,
    Program,
    Value,
    flat_offsets,
    is_depthwise,
    pairs,
    placed,
    sizes_of,
    whole_weight,
)
from modicum.mobile.native.pixels import STRUCT, Grid

Chooser = Callable[[Layer, Problem], Choice | Grid]
"""How the product of a layer is computed."""


class Builder:
    """Builds a program; one is used once."""

    def __init__(self, graph: Graph, machine: Machine, name: str, chooser: Chooser) -> None:
        self.graph, self.machine, self.name, self.chooser = graph, machine, name, chooser
        self.blob = Blob()
        self.kernels: dict[str, str] = {}
        self.texts: list[str] = []
        self.built: list[Built] = []
        self.spans: dict[str, list[int]] = {}
        self.bytes: dict[str, int] = {}
        self.values: dict[str, Value] = {}
        self.readers: dict[str, list[Layer]] = {}
        for layer in graph.layers:
            for read in layer.inputs:
                self.readers.setdefault(read, []).append(layer)

    def build(self) -> Program:
        """The program."""
        graph = self.graph
        self._input()
        skipped: set[str] = set()
        for layer in graph.layers:
            if layer.name not in skipped:
                fused = self._pooled(layer)
                self._layer(layer, fused)
                if fused is not None:
                    skipped.add(fused.name)
        self._output()
        offsets, arena = self._memory()
        text = [emit.header(self.machine.lanes), *self.kernels.values()]
        for number, body in enumerate(self.texts):
            for buffer, at in offsets.items():
                body = body.replace(f"@{buffer}@", f"(arena + {at})")
            text.append(
                f"static void step_{number}(const char *w, const float *x, float *y, char *arena,\n"
                f"                          int part, int parts) {{\n"
                f"(void)w; (void)x; (void)y; (void)arena; (void)part; (void)parts;\n{body}\n}}\n"
            )
        names = ", ".join(f"step_{number}" for number in range(len(self.texts)))
        shape = next(
            (layer.shape for layer in reversed(graph.layers) if layer.output == graph.output), graph.input_shape
        )
        sizes = {"input": int(np.prod(graph.input_shape[1:])), "output": int(np.prod(shape[1:]))}
        values = {"name": self.name, "arena": arena, "weights": len(self.blob.array()), **sizes}
        # the type is declared in the entry, which also holds the array's first use
        entry = runtime.ENTRY.format(**values)
        declared, rest = entry.split("\n\n", 1)
        text.append(f"{declared}\nstatic step_fn *const steps[] = {{{names}}};\n{rest}")
        text.append(runtime.THREADS.format(**values))
        text.append(runtime.HANDLER.replace("{threads}", "MODICUM_XLA_THREADS").format(**values))
        header = runtime.HEADER.format(**values, guard=f"{self.name.upper()}_H")
        return Program(
            self.name, "\n".join(text), header, self.blob.array(), arena, graph.input_shape, shape, tuple(self.built)
        )

    def _memory(self) -> tuple[dict[str, int], int]:
        """Where each buffer lies, and the bytes of all."""
        return placed(self.bytes, self.spans)

    def _halo(self, value: str) -> int:
        """Zeros that the readers of a value want around it."""
        most = 0
        for layer in self.readers.get(value, []):
            if isinstance(layer, Conv) and layer.inputs[0] == value:
                most = max(most, *(pad for pair in layer.padding for pad in pair))
        return most

    def _planes(self, value: str, shape: tuple[int, ...]) -> Planes:
        channels, height, width = sizes_of(shape)
        lanes = self.machine.lanes
        if len(shape) == 3:
            lanes = whole(channels, lanes)
        return Planes.of(channels, height, width, lanes, self._halo(value))

    def _use(self, buffer: str) -> str:
        """A buffer in the text of the step that is being written, which must keep it alive."""
        span = self.spans.setdefault(buffer, [len(self.texts), len(self.texts)])
        span[1] = len(self.texts)
        return f"@{buffer}@"

    def _make(self, value: str, planes: Planes) -> Value:
        self.values[value] = Value(planes, value)
        self.bytes[value] = whole(4 * planes.floats, ALIGNMENT)
        return self.values[value]

    def _step(self, body: str, built: Built) -> None:
        self.texts.append(body)
        self.built.append(built)

    def _input(self) -> None:
        graph = self.graph
        planes = self._planes(graph.input, graph.input_shape)
        channels = planes.channels
        readers = self.readers.get(graph.input, [])
        scalar = all(isinstance(layer, (Conv, Dense)) and not is_depthwise(layer) for layer in readers)
        if scalar and channels < self.machine.lanes:
            planes = Planes(channels, planes.height, planes.width, channels, planes.halo)
        value = self._make(graph.input, planes)
        out = self._use(value.buffer)
        body = f"const float *restrict in = x; float *restrict out = (float *){out};\n"
        body += steps.halo(planes, "out") + "\n" + steps.gather(planes, channels)
        self._step(body, Built("input", "copy", target=4 * planes.floats))

    def _output(self) -> None:
        value = self.values[self.graph.output]
        body = f"const float *restrict in = (const float *){self._use(value.buffer)}; float *restrict out = y;\n"
        self._step(body + steps.scatter(value.planes), Built("output", "copy", source=4 * value.planes.floats))

    def _pooled(self, layer: Layer) -> Pool | None:
        """The 2x2 maximum right after a convolution, where it can be taken in registers."""
        if not isinstance(layer, Conv) or is_depthwise(layer) or layer.output == self.graph.output:
            return None
        readers = self.readers.get(layer.output, [])
        if len(readers) != 1 or not isinstance(readers[0], Pool):
            return None
        pool, (height, width) = readers[0], layer.shape[1:3]
        plain = (pool.kind, pool.window, pool.stride) == ("max", (2, 2), (2, 2)) and not any(map(any, pool.padding))
        return pool if plain and height % 2 == 0 and width % 2 == 0 else None

    def _layer(self, layer: Layer, fused: Pool | None) -> None:
        if isinstance(layer, Reshape):
            self._reshape(layer)
        elif isinstance(layer, (Conv, Dense)):
            self._product(layer, fused)
        elif isinstance(layer, (Pool, Mean, Add, Affine)):
            self._simple(layer)
        elif isinstance(layer, Gru):
            self._gru(layer)
        else:
            operator = layer.operator if isinstance(layer, Other) else type(layer).__name__
            raise ValueError(f"layers must have kernels, got operator {operator!r} at {layer.name!r}")

    def _gru(self, layer: Gru) -> None:
        """The input's part of all frames as one product, then frame after frame."""
        lanes, driven, scratch = self.machine.lanes, f"{layer.output}.driven", f"{layer.output}.returned"
        self._product(recurrent.projection(layer, driven, lanes), None)
        target = self._make(layer.output, self._planes(layer.output, layer.shape))
        source, units = self.values[driven].planes, target.planes.lanes
        self.bytes[scratch] = whole(4 * source.lanes, ALIGNMENT)
        self.kernels.setdefault("recurrent", recurrent.kernels(lanes))
        matrix = recurrent.reading_order(layer.recurrent_kernel, lanes)
        kernel, bias = recurrent.stored(self.blob.add, matrix), self.blob.add(recurrent.biases(layer, lanes))
        body = (
            f"const float *driven = (const float *){self._use(driven)};\n"
            f"float *returned = (float *){self._use(scratch)}, *states = (float *){self._use(target.buffer)};\n"
        )
        body += recurrent.loop(kernel, bias, target.planes.width, units, lanes, source.lanes)
        frames = target.planes.width
        sizes = {"macs": matrix.values.size * frames, "dense_macs": layer.recurrent_kernel.size * frames}
        bytes_ = {"payload": matrix.values.nbytes, "index": matrix.index_bytes}
        moved = {"source": 4 * source.floats, "target": 4 * target.planes.floats}
        self._step(body, Built(layer.name, f"gru {frames} steps", **sizes, **bytes_, **moved))

    def _reshape(self, layer: Reshape) -> None:
        """No copy: who reads the flat vector knows where each of its numbers lies."""
        value = self.values[layer.inputs[0]]
        if len(layer.shape) != 2:
            raise ValueError(f"reshapes must flatten, got shape {layer.shape} at {layer.name!r}")
        self.values[layer.output] = replace(value, flat=True)

    def _simple(self, layer: Layer) -> None:
        sources = [self.values[read] for read in layer.inputs]
        target = self._make(layer.output, self._planes(layer.output, layer.shape))
        names = ["in", "other"]
        body = "".join(
            f"const float *restrict {name} = (const float *){self._use(source.buffer)};\n"
            for name, source in zip(names, sources, strict=False)
        )
        body += (
            f"float *restrict out = (float *){self._use(target.buffer)};\n" + steps.halo(target.planes, "out") + "\n"
        )
        first = sources[0].planes
        if isinstance(layer, Pool):
            padding = (layer.padding[0][0], layer.padding[1][0])
            body += steps.pool(layer.kind, first, target.planes, layer.window, layer.stride, padding)
        elif isinstance(layer, Mean):
            body += steps.mean(first, target.planes)
        elif isinstance(layer, Add):
            body += steps.add(first, sources[1].planes, target.planes, layer.activation)
        elif isinstance(layer, Affine):
            at = self.blob.add(pairs(layer.scale, layer.shift, self.machine.lanes, 1))
            body += f"const float *scale = (const float *)(w + {at});\n"
            body += steps.affine(first, target.planes, layer.activation)
        read = 4 * sum(source.planes.floats for source in sources)
        self._step(body, Built(layer.name, type(layer).__name__.lower(), source=read, target=4 * target.planes.floats))

    def _product(self, layer: Conv | Dense, fused: Pool | None) -> None:
        lanes = self.machine.lanes
        source = self.values[layer.inputs[0]]
        depthwise = is_depthwise(layer)
        output = layer.output if fused is None else fused.output
        target = self._make(output, self._planes(output, (layer if fused is None else fused).shape))
        residual = self.values[layer.inputs[1]] if len(layer.inputs) > 1 else None
        problem = self._problem(layer, source, target, residual, fused is not None)
        choice = self.chooser(layer, problem)
        if isinstance(choice, Grid):
            self._pixels(layer, problem, choice, (source, target, residual))
            return
        plan = problem.plan(choice)
        chosen, product = plan.structure, plan.product
        text = emit.product_kernel("@", product)
        kernel = f"product_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self.kernels.setdefault(kernel, text.replace("@", kernel, 1))
        counts = chosen.counts.astype(np.uint16)
        scale = np.ones(len(layer.bias), np.float32) if layer.scale is None else layer.scale
        parts = {
            "weights": self.blob.add(plan.weights),
            "offsets": self.blob.add(plan.offsets),
            "counts": self.blob.add(counts),
            "starts": self.blob.add(plan.starts),
            "scale": self.blob.add(pairs(scale * np.float32(plan.unit), layer.bias, lanes, chosen.vectors)),
        }
        items = -(-chosen.blocks // choice.tile.together) * math.prod(product.tiles)
        begin = target.planes.at(0)
        body = f"const float *in = (const float *){self._use(source.buffer)};\n"
        body += f"float *out = (float *){self._use(target.buffer)};\n" + steps.halo(target.planes, "out") + "\n"
        add = "0"
        if residual is not None:
            add = f"(const float *){self._use(residual.buffer)} + {residual.planes.at(0)}"
        body += (
            f"const struct product d = {{w + {parts['weights']}, (const int32_t *)(w + {parts['offsets']}), "
            f"(const uint16_t *)(w + {parts['counts']}), (const uint32_t *)(w + {parts['starts']}), "
            f"(const float *)(w + {parts['scale']}), {chosen.blocks}, {chosen.chunks}}};\n"
            f"{kernel}(in, out + {begin}, {add}, &d, (int)((int64_t){items} * part / parts), "
            f"(int)((int64_t){items} * (part + 1) / parts));"
        )
        pixels = int(np.prod(layer.shape[1:-1]))
        used = len(chosen.values) * pixels
        tile = choice.tile
        kind = "depthwise" if depthwise else type(layer).__name__.lower()
        ends = ("" if product.stored == "float32" else f" {product.stored}") + (" + pool" if fused else "")
        self._step(
            body,
            Built(
                layer.name,
                f"{kind} {tile.rows}x{tile.columns}x{tile.vectors * lanes}{ends}",
                choice,
                used,
                int(np.prod(layer.weight.shape)) * pixels,
                plan.weights.nbytes,
                plan.offsets.nbytes + counts.nbytes + 8 * chosen.blocks,
                4 * source.planes.floats,
                4 * target.planes.floats,
            ),
        )

    def _pixels(
        self, layer: Conv | Dense, problem: Problem, grid: Grid, values: tuple[Value, Value, Value | None]
    ) -> None:
        """A product by the family of kernels whose vectors hold pixels."""
        plan = families.plan(problem, grid)
        scale = np.ones(len(layer.bias), np.float32) if layer.scale is None else layer.scale
        made = families.step(plan, scale, layer.bias, self.blob.add)
        self.kernels.setdefault("pixels", STRUCT)
        self.kernels.setdefault(made.name, made.kernel)
        scratch, (source, target, residual) = f"{layer.output}.scratch", values
        self.bytes[scratch] = whole(made.scratch, ALIGNMENT)
        body = f"const float *in = (const float *){self._use(source.buffer)} + {source.planes.at(0)};\n"
        body += f"float *out = (float *){self._use(target.buffer)};\n" + steps.halo(target.planes, "out") + "\n"
        body += f"out += {target.planes.at(0)}; char *scratch = {self._use(scratch)};\n"
        add = "NULL"
        if residual is not None:
            add = f"(const float *){self._use(residual.buffer)} + {residual.planes.at(0)}"
        body += f"const float *add = {add};\n" + made.body
        fkw, area = plan.fkw, int(np.prod(layer.shape[1:-1]))
        kernel = f"pixels {grid.down}x{grid.across} of {grid.rows}x{grid.columns}" + (" + pool" if problem.pool else "")
        sizes = {"macs": fkw.weight.size * area, "dense_macs": int(np.prod(layer.weight.shape)) * area}
        bytes_ = {"payload": fkw.weight.nbytes, "index": fkw.index_bytes}
        moved = {"source": 4 * source.planes.floats, "target": 4 * target.planes.floats}
        self._step(body, Built(layer.name, kernel, grid, **sizes, **bytes_, **moved))

    def _problem(
        self, layer: Conv | Dense, source: Value, target: Value, residual: Value | None, pooled: bool
    ) -> Problem:
        from_, to = source.planes, target.planes
        if isinstance(layer, Dense):
            weight, stride, corner = layer.weight[None, None], (1, 1), (0, 0)
            height, width = (1, 1) if source.flat else (to.height, to.width)
        else:
            weight, stride = whole_weight(layer), layer.stride
            corner = (-layer.padding[0][0], -layer.padding[1][0])
            height, width = layer.shape[1:3]
        flat: Callable[[np.ndarray], np.ndarray] | None = None
        if source.flat:
            flat = flat_offsets(from_)
        joined = [from_, to] + ([residual.planes] if residual is not None else [])
        if weight.shape[:2] == (1, 1) and stride == (1, 1) and not pooled and not any(p.halo for p in joined):
            # rows follow each other without a gap: one long row has no ends to fit tiles to
            height, width = 1, height * width
        return Problem(
            weight=weight,
            depthwise=is_depthwise(layer),
            planes=from_,
            corner=corner,
            flat=flat,
            height=height,
            width=width,
            stride=stride,
            target=to,
            residual=None if residual is None else residual.planes,
            activation=layer.activation,
            pool=pooled,
            lanes=self.machine.lanes,
        )


def build(graph: Graph, machine: Machine, name: str = "model", chooser: Chooser | None = None) -> Program:
    """The C program of a graph whose layers all have kernels.

    Args:
        graph: fused layers.
        machine: what it will run on.
        name: prefix of its functions, a C identifier.
        chooser: says how a product is computed; by default the best by a model of the machine, see also `tune.Tuner`.

    Raises:
        ValueError: naming the operator that has no kernel.
    """
    return Builder(graph, machine, name, chooser or (lambda _, problem: families.every(problem, machine)[0][1])).build()
