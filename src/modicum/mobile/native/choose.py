"""How a product is computed: what may be chosen, what it would cost by a model of the machine, and the best of it."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modicum.mobile.native.emit import Place, Product, Taps, Tile
from modicum.mobile.native.layout import Planes
from modicum.mobile.native.machine import Machine
from modicum.mobile.native.pixels import Grid
from modicum.mobile.native.stored import BYTES, Stored, encode, stored_as
from modicum.mobile.native.structure import Structure, structure, vectors_of


@dataclass(frozen=True)
class Choice:
    """How a product is computed.

    Attributes:
        tile: register tile.
        taps: most taps of a piece.
        shapes: most shapes of pieces.
        chunk: input channels that are read before the next ones.
    """

    tile: Tile
    taps: int = 4
    shapes: int = 12
    chunk: int = 64


def choice_from(described: Mapping[str, Any]) -> Choice | Grid:
    """The choice that `dataclasses.asdict` wrote down, of either family of kernels.

    Raises:
        TypeError: if it is no choice.
    """
    fields = dict(described)
    tile = fields.pop("tile", None)
    return Grid(**fields) if tile is None else Choice(Tile(**tile), **fields)


@dataclass(frozen=True, eq=False)
class Plan:
    """A choice worked out.

    Attributes:
        structure: the weights in order.
        product: the kernel.
        offsets: where each piece reads.
        weights: the weights as they are stored.
        starts: first piece and first stored element of each block.
        unit: what a stored 1 stands for.
    """

    structure: Structure
    product: Product
    offsets: np.ndarray
    weights: np.ndarray
    starts: np.ndarray
    unit: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """A product in a network.

    Attributes:
        weight: `(kh, kw, i, o)`, depthwise `(kh, kw, 1, o)`.
        depthwise: whether channels do not mix.
        planes: layout of the input.
        corner: row and column that the window of the first output begins at.
        flat: for a flattened input: where its numbers lie.
        height: rows of outputs.
        width: outputs in a row.
        stride: of both.
        target: layout of the output.
        residual: layout of what is added, or None.
        activation: what is applied at the end.
        pool: whether the maximum over 2x2 outputs is stored.
        lanes: floats in a vector.
    """

    weight: np.ndarray
    depthwise: bool
    planes: Planes
    corner: tuple[int, int]
    flat: Callable[[np.ndarray], np.ndarray] | None
    height: int
    width: int
    stride: tuple[int, int]
    target: Planes
    residual: Planes | None
    activation: str
    pool: bool
    lanes: int

    def place(self, planes: Planes) -> Place:
        """Steps through a layout."""
        # lanes of a sequence are all its channels
        vector = planes.plane if planes.lanes == self.lanes else self.lanes
        return Place(planes.row, planes.lanes, vector)

    @functools.cached_property
    def stored(self) -> Stored:
        """How the weights lie in memory."""
        return stored_as(self.weight)

    @functools.cached_property
    def structure(self) -> Callable[[int, int, int, int], Structure]:
        """`(vectors, taps, shapes, chunk)` to the weights in order, remembered as long as the problem lives."""

        @functools.lru_cache(maxsize=8)
        def ordered(vectors: int, taps: int, shapes: int, chunk: int) -> Structure:
            return structure(self.weight, self.lanes, vectors, taps=taps, shapes=shapes, chunk=chunk)

        return ordered

    def product(self, tile: Tile, library: tuple[Taps, ...]) -> Product:
        """The kernel with a tile."""
        return Product(
            lanes=self.lanes,
            tile=tile,
            height=self.height,
            width=self.width,
            stride=self.stride,
            source=self.place(self.planes),
            target=self.place(self.target),
            residual=None if self.residual is None else self.place(self.residual),
            library=library,
            depthwise=self.depthwise,
            stored=self.stored.kind,
            activation=self.activation,
            pool=self.pool,
        )

    def plan(self, choice: Choice) -> Plan:
        """A choice worked out.

        Raises:
            ValueError: if blocks of so many vectors do not make up the filters.
        """
        wide = vectors_of(self.weight.shape[3], self.lanes)
        if wide % choice.tile.vectors:
            raise ValueError(f"vectors must divide the {wide} vectors of filters, got {choice.tile.vectors}")
        chosen = self.structure(choice.tile.vectors, choice.taps, choice.shapes, choice.chunk)
        top, left = chosen.corners[:, 0] + self.corner[0], chosen.corners[:, 1] + self.corner[1]
        planes = self.planes
        if self.flat is not None:
            offsets = self.flat(chosen.channels)
        else:
            inside = (top + planes.halo) * planes.row + (left + planes.halo) * planes.lanes
            channel = np.zeros_like(chosen.channels) if self.depthwise else chosen.channels
            offsets = channel // planes.lanes * planes.plane + inside + channel % planes.lanes
        weights, starts = encode(chosen, self.stored)
        product = self.product(choice.tile, chosen.library)
        return Plan(chosen, product, offsets.astype(np.int32), weights, starts.astype(np.uint32), self.stored.unit)


def sides(size: int, most: int, even: bool) -> Iterator[int]:
    """Sides of a tile: the smallest for each number of tiles, so that the last one overlaps least."""
    seen = set()
    for tiles in range(1, size + 1):
        side = -(-size // tiles)
        if even:
            side += side % 2
        if side <= most and side not in seen:
            seen.add(side)
            yield side


def tiles(problem: Problem, machine: Machine, vectors: int, taps: int) -> Iterator[Tile]:
    """Tiles whose sums and weights fit the registers."""
    free = machine.registers - 1 - taps * vectors
    for rows in sides(problem.height, free, problem.pool):
        for columns in sides(problem.width, free // rows, problem.pool):
            pixels = rows * columns * vectors
            if pixels > free or (problem.pool and (rows > problem.height or columns > problem.width)):
                continue
            copies = 2 if pixels <= 4 and 2 * pixels <= free and not problem.depthwise else 1
            yield Tile(rows, columns, vectors, copies)


LATENCY = 4
"""Cycles until a sum can be added to again."""

ALL = 1 << 20
"""More blocks than any layer has: all of them together."""

STAY = 1 << 17
"""Bytes of weights that stay in the second level of cache beside the activations."""

NEAR, FAR, SECOND_LEVEL = 24.0, 6.0, 1 << 20
"""Bytes a cycle out of the second level of cache and out of what lies behind it, and bytes of that level."""


def cost(problem: Problem, tile: Tile, chosen: Structure) -> float:
    """Cycles by a model: multiply-adds and loads in pairs, chains of sums, loops, and memory behind the weights."""
    product = problem.product(tile, chosen.library)
    down, across = product.tiles
    per_tile = 0.0
    counts = chosen.counts.sum(axis=(0, 1))
    for taps, count in zip(chosen.library, counts.tolist(), strict=True):
        reads = {
            (row * problem.stride[0] + dy, column * problem.stride[1] + dx)
            for row in range(tile.rows)
            for column in range(tile.columns)
            for dy, dx in taps
        }
        multiplies = tile.rows * tile.columns * tile.vectors * len(taps) / 2
        loads = (len(reads) + tile.vectors * len(taps) + 1) / 2
        chain = LATENCY * len(taps) / tile.copies
        per_tile += count * (max(multiplies, loads, chain) + 1)
    loops = chosen.counts.size * 3 + int((chosen.counts > 0).sum()) * 8
    ends = chosen.blocks * tile.rows * tile.columns * tile.vectors * 2
    compute = (per_tile + loops + ends) * down * across
    read = BYTES[problem.stored.kind] * len(chosen.values) + 4 * len(chosen.channels)
    memory = read / (FAR if read > SECOND_LEVEL else NEAR)
    return max(compute, memory) + (0 if compute > memory else compute / 8)


def candidates(problem: Problem, machine: Machine) -> list[tuple[float, Choice]]:
    """Choices from the best on, by the model."""
    wide = vectors_of(problem.weight.shape[3], machine.lanes)
    pixels = problem.height * problem.width
    most = 1 if problem.depthwise else (8 if pixels == 1 else 4)
    # a block that reached over the last vector would write beyond the output
    options = [vectors for vectors in range(1, most + 1) if wide % vectors == 0]
    window = math.prod(problem.weight.shape[:2])
    # with nine taps compilers for NEON put sums on the stack
    most = (3 if machine.lanes == 4 else 9) if problem.depthwise else 4
    taps = min(window, most)
    chunk = 64 if window > 1 else (8192 if pixels == 1 else 256)
    found = []
    for vectors in options:
        chosen = problem.structure(vectors, taps, 12, chunk)
        # weights that stay near are read again for each tile and the input once, others the other way round
        together = ALL if BYTES[problem.stored.kind] * len(chosen.values) <= STAY else 1
        found += [
            (cost(problem, tile, chosen), Choice(replace(tile, together=together), taps, 12, chunk))
            for tile in tiles(problem, machine, vectors, taps)
        ]
    if not found:
        raise ValueError(f"tiles must fit {machine.registers} registers, got none for weight {problem.weight.shape}")
    return sorted(found, key=lambda pair: pair[0])
