"""Which family of kernels a layer gets; the second one worked out: registers, weights, text of its step."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from modicum.mobile.native.choose import FAR, LATENCY, SECOND_LEVEL, Choice, Problem, candidates, sides
from modicum.mobile.native.emit import Taps
from modicum.mobile.native.fkw import FKW, encode
from modicum.mobile.native.machine import Machine
from modicum.mobile.native.pixels import Grid, Pixels, patch, pixels_kernel, reads
from modicum.mobile.native.structure import Structure, structure

SHARES = 8
"""Most threads that a layer of this family is cut for; each has scratch memory of its own."""

FIRST_LEVEL = 1 << 15
"""Bytes of the first level of cache that a chunk may fill."""

LOAD, NEAR_LOAD, PIECE = 0.75, 1.25, 5.0
"""Cycles of a vector from the first and from the second level of cache, and of a piece besides its sums."""


@dataclass(frozen=True, eq=False)
class PixelPlan:
    """A layer of the second family worked out."""

    fkw: FKW
    pixels: Pixels


@dataclass(frozen=True, eq=False)
class PixelStep:
    """C text of a layer.

    Attributes:
        name: of its kernel.
        kernel: text of the kernel.
        body: text of its call; C declares `in`, `out`, `add` and `scratch` before, the first three at a value's first
            pixel.
        scratch: bytes of scratch memory.
    """

    name: str
    kernel: str
    body: str
    scratch: int


def eligible(problem: Problem) -> bool:
    """Whether the second family can compute a layer: a convolution of blocks of channels, of more than one pixel."""
    layouts = [problem.planes, problem.target, *([problem.residual] if problem.residual is not None else [])]
    return (
        not problem.depthwise
        and problem.flat is None
        and problem.height * problem.width > 1
        and all(planes.lanes == problem.lanes for planes in layouts)
        and not (problem.pool and problem.residual is not None)
    )


def grids(problem: Problem, machine: Machine) -> Iterator[Grid]:
    """Grids whose sums and weights fit the registers."""
    window = problem.weight.shape[:2]
    taps = 1 if window == (1, 1) else 4
    free, lanes = machine.registers - taps, machine.lanes
    for down in (1 << bit for bit in range(lanes.bit_length())):
        across = lanes // down
        for rows in sides(-(-problem.height // down), free, problem.pool):
            for columns in sides(-(-problem.width // across), free // rows, problem.pool):
                sums = rows * columns
                copies = max(1, min(4, 8 // sums, free // sums))
                chunks = {_chunk(problem, rows, columns, room) for room in (FIRST_LEVEL, SECOND_LEVEL // 2)}
                yield from (Grid(down, across, rows, columns, chunk, copies, taps) for chunk in sorted(chunks))


def _chunk(problem: Problem, rows: int, columns: int, room: int) -> int:
    """Input channels whose part of a tile fits so many bytes, and 16-bit places; chunks are of equal size."""
    lanes = problem.lanes
    size = math.prod(patch(Grid(1, 1, rows, columns), problem.stride, problem.weight.shape[:2]))
    most = max(1, min(room // (4 * lanes * size), (1 << 16) // size) // lanes)
    blocks = -(-problem.weight.shape[2] // lanes)
    return lanes * -(-blocks // -(-blocks // most))


def plan(problem: Problem, grid: Grid) -> PixelPlan:
    """A grid worked out."""
    weight, lanes = problem.weight, problem.lanes
    window = weight.shape[:2]
    fkw = encode(
        weight,
        lanes,
        patch(grid, problem.stride, window),
        chunk=grid.chunk,
        taps=grid.taps,
        shapes=grid.shapes,
    )
    sizes = (problem.height, problem.width)
    last = [
        (size - 1) * step + side - 1 + corner
        for size, step, side, corner in zip(sizes, problem.stride, window, problem.corner, strict=True)
    ]
    pixels = Pixels(
        lanes=lanes,
        grid=grid,
        height=problem.height,
        width=problem.width,
        stride=problem.stride,
        window=window,
        corner=problem.corner,
        last=(last[0], last[1]),
        source=problem.place(problem.planes),
        target=problem.place(problem.target),
        residual=None if problem.residual is None else problem.place(problem.residual),
        library=fkw.library,
        blocks=fkw.stride.shape[1] // lanes,
        channels=-(-weight.shape[2] // lanes),
        counter=8 * fkw.stride.itemsize,
        activation=problem.activation,
        pool=problem.pool,
    )
    return PixelPlan(fkw, pixels)


def step(made: PixelPlan, scale: np.ndarray, bias: np.ndarray, add: Callable[[np.ndarray], int]) -> PixelStep:
    """The text of a layer.

    Args:
        made: the plan.
        scale: `(o,)`.
        bias: `(o,)`.
        add: stores an array among the weights and says at which byte.
    """
    fkw, pixels = made.fkw, made.pixels
    shares = min(SHARES, pixels.items)
    text = pixels_kernel("@", pixels)
    name = f"pixels_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    factors = np.zeros((pixels.blocks * pixels.lanes, 2), np.float32)
    factors[: len(bias)] = np.stack([scale, bias], axis=1)
    weights, index, counts, starts, factor = map(add, (fkw.weight, fkw.index, fkw.stride, fkw.offset, factors))
    body = f"""const int shares = least(parts, {shares});
const struct pixels d = {{(const float *)(w + {weights}), (const uint16_t *)(w + {index}), w + {counts},
                          (const uint32_t *)(w + {starts}), (const float *)(w + {factor})}};
if (part < shares)
  {name}(in, out, add, &d, (vf *)(scratch + (size_t)part * {4 * pixels.scratch}),
         (int)((int64_t){pixels.items} * part / shares), (int)((int64_t){pixels.items} * (part + 1) / shares));"""
    return PixelStep(name, text.replace("@", name, 1), body, shares * 4 * pixels.scratch)


@functools.cache
def _loads(rows: int, columns: int, stride: tuple[int, int], taps: Taps) -> int:
    return len(reads(Grid(1, 1, rows, columns), stride, taps))


def cost(problem: Problem, grid: Grid, chosen: Structure) -> float:
    """Cycles by a model: as for the first family, with sums to and from memory and the turning of inputs and outputs.

    Args:
        problem: the product.
        grid: how it is computed.
        chosen: the weights of each filter by itself; their order does not matter.
    """
    lanes, sums = problem.lanes, grid.sums
    tiles = -(-problem.height // (grid.down * grid.rows)) * -(-problem.width // (grid.across * grid.columns))
    filters, channels = chosen.blocks, problem.weight.shape[2]
    chunks = -(-channels // grid.chunk)
    rows, columns = patch(grid, problem.stride, problem.weight.shape[:2])
    load = LOAD if 4 * lanes * grid.chunk * rows * columns <= FIRST_LEVEL else NEAR_LOAD
    work = 0.0
    for taps, count in zip(chosen.library, chosen.counts.sum(axis=(0, 1)).tolist(), strict=True):
        loads = load * (_loads(grid.rows, grid.columns, problem.stride, taps) + len(taps) + 1)
        work += count * (max(sums * len(taps) / 2, loads, LATENCY * len(taps) / grid.copies) + PIECE)
    loops = 3 * chunks * filters * len(chosen.library)
    waits = filters * (chunks - 1) * 4 * sums
    # a square of vectors is turned in so many exchanges of two
    turns = (channels / lanes * rows * columns + filters / lanes * sums) * lanes * (lanes.bit_length() - 1)
    compute = tiles * (work + loops + waits + turns)
    read = 4 * len(chosen.values) + 2 * len(chosen.channels)
    memory = tiles * read / FAR if read > SECOND_LEVEL else 0.0
    return max(compute, memory)


def every(problem: Problem, machine: Machine) -> list[tuple[float, Choice | Grid]]:
    """Choices of both families from the best on, by the model."""
    found: list[tuple[float, Choice | Grid]] = list(candidates(problem, machine))
    if eligible(problem):
        options = list(grids(problem, machine))
        first = options[0]
        chosen = structure(problem.weight, 1, 1, taps=first.taps, shapes=first.shapes, chunk=problem.weight.shape[2])
        found += [(cost(problem, grid, chosen), grid) for grid in options]
    return sorted(found, key=lambda pair: pair[0])
