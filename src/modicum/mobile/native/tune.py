"""Search by measurement: the model's best kernels of a layer are compiled and timed here, the fastest is kept."""

import ctypes
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from modicum.core import check
from modicum.mobile.graph import Layer
from modicum.mobile.native import emit, families
from modicum.mobile.native.build import cache, library
from modicum.mobile.native.choose import ALL, Choice, Problem, choice_from
from modicum.mobile.native.layout import whole
from modicum.mobile.native.machine import Machine, processor
from modicum.mobile.native.memory import aligned, copied
from modicum.mobile.native.parts import Blob
from modicum.mobile.native.pixels import STRUCT, Grid, patch

Progress = Callable[[str, int, float], Any]
"""`(layer, kernels tried, seconds of the fastest)`, called after each layer."""

_RUNNER = """
void run(const float *in, float *out, const float *add, const struct product *d, int items, int repeats) {
  for (int i = 0; i < repeats; ++i) kernel(in, out, add, d, 0, items);
}
"""

_PIXEL_RUNNER = """
void run(const float *in, float *out, const float *add, const char *w, char *scratch, int repeats) {
  const int part = 0, parts = 1;
  for (int i = 0; i < repeats; ++i) {
    @body@
  }
}
"""


class _Data(ctypes.Structure):
    """`struct product` of the kernels."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("weights", "offsets", "counts", "starts", "scale")],
        ("blocks", ctypes.c_int),
        ("chunks", ctypes.c_int),
    ]


def key(problem: Problem, machine: Machine) -> str:
    """What two layers must have in common to be computed alike: shapes, layouts and counts of pieces, not weights."""
    chosen = problem.structure(1, 4, 12, 64)
    # how much two vectors of filters share decides whether they are computed together
    double = problem.structure(2, 4, 12, 64)
    facts = {
        "version": 7,
        "machine": asdict(machine),
        "processor": processor(),
        "weight": problem.weight.shape,
        "layouts": [asdict(planes) for planes in (problem.planes, problem.target)],
        "flags": [problem.depthwise, problem.flat is not None, problem.residual is not None, problem.pool],
        "outputs": [problem.height, problem.width, *problem.stride],
        "activation": problem.activation,
        "stored": problem.stored.kind,
        "library": chosen.library,
        # a power of 1.1: layers of nearly equal density share a search
        "weights": round(math.log(1 + np.count_nonzero(problem.weight), 1.1)),
        "shared": round(math.log(1 + len(double.channels), 1.1)),
        "pieces": [round(math.log(1 + count, 1.1)) for count in chosen.counts.sum(axis=(0, 1)).tolist()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


class Kernel:
    """One kernel of a layer, compiled and ready to be timed."""

    def __init__(self, problem: Problem, choice: Choice, machine: Machine, buffers: list[np.ndarray]) -> None:
        plan = problem.plan(choice)
        chosen, tile = plan.structure, choice.tile
        text = emit.header(machine.lanes) + emit.product_kernel("kernel", plan.product) + _RUNNER
        self._library = ctypes.CDLL(str(library(text, machine)))
        scale = np.zeros(2 * chosen.blocks * tile.vectors * machine.lanes, np.float32)
        arrays = (
            plan.weights,
            plan.offsets,
            chosen.counts.astype(np.uint16),
            plan.starts,
            scale,
        )
        self._arrays = [copied(array) for array in arrays]
        self._data = _Data(*[array.ctypes.data for array in self._arrays], chosen.blocks, chosen.chunks)
        self._items = -(-chosen.blocks // tile.together) * math.prod(plan.product.tiles)
        self._buffers = buffers
        self._begins = [0, problem.target.at(0), 0 if problem.residual is None else problem.residual.at(0)]

    def seconds(self, repeats: int) -> float:
        """Wall time of one of so many runs."""
        places = [
            ctypes.c_void_p(buffer.ctypes.data + 4 * begin)
            for buffer, begin in zip(self._buffers, self._begins, strict=True)
        ]
        started = time.perf_counter()
        self._library.run(*places, ctypes.byref(self._data), self._items, repeats)
        return (time.perf_counter() - started) / repeats


class PixelKernel:
    """The same for the family whose vectors hold pixels."""

    def __init__(self, problem: Problem, grid: Grid, machine: Machine, buffers: list[np.ndarray]) -> None:
        stored, zeros = Blob(), np.zeros(problem.weight.shape[3], np.float32)
        made = families.step(families.plan(problem, grid), zeros, zeros, stored.add)
        text = emit.header(machine.lanes) + STRUCT + made.kernel + _PIXEL_RUNNER.replace("@body@", made.body)
        self._library = ctypes.CDLL(str(library(text, machine)))
        self._memory = [*buffers, copied(stored.array()), aligned(made.scratch)]
        layouts = (problem.planes, problem.target, problem.residual)
        self._begins = [*(0 if planes is None else planes.at(0) for planes in layouts), 0, 0]

    def seconds(self, repeats: int) -> float:
        """Wall time of one of so many runs."""
        places = [
            ctypes.c_void_p(memory.ctypes.data + 4 * begin)
            for memory, begin in zip(self._memory, self._begins, strict=True)
        ]
        started = time.perf_counter()
        self._library.run(*places, repeats)
        return (time.perf_counter() - started) / repeats


def _buffers(problem: Problem) -> list[np.ndarray]:
    residual = 0 if problem.residual is None else problem.residual.floats
    buffers = [aligned(4 * size) for size in (problem.planes.floats, problem.target.floats, residual)]
    for buffer in buffers:
        # pages that were never written are all one page, which every cache holds
        buffer.view(np.float32)[:] = 0.5
    return buffers


def _prepared(
    problem: Problem, choice: Choice | Grid, machine: Machine, buffers: list[np.ndarray]
) -> Kernel | PixelKernel:
    if isinstance(choice, Grid):
        return PixelKernel(problem, choice, machine, buffers)
    return Kernel(problem, choice, machine, buffers)


def measure(problem: Problem, choices: Sequence[Choice | Grid], machine: Machine, rounds: int = 7) -> list[float]:
    """Seconds of each choice on one thread, the least of some rounds in turns.

    Args:
        problem: the product.
        choices: what to try.
        machine: this one.
        rounds: how often each is timed.
    """
    # in memory that all share, as the layers of a network do: else one kernel's turn empties the caches of the next
    buffers = _buffers(problem)
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        kernels = list(pool.map(lambda choice: _prepared(problem, choice, machine, buffers), choices))
    repeats = [max(1, round(1e-3 / max(kernel.seconds(1), 1e-7))) for kernel in kernels]
    least = [math.inf] * len(kernels)
    for _ in range(rounds):
        for at, kernel in enumerate(kernels):
            kernel.seconds(1)
            least[at] = min(least[at], kernel.seconds(repeats[at]))
    return least


def _around(choice: Choice | Grid, problem: Problem) -> list[Choice] | list[Grid]:
    """The same tile with other orders of the loops."""
    if isinstance(choice, Grid):
        half, twice = (whole(size, problem.lanes) for size in (choice.chunk // 2, 2 * choice.chunk))
        places = math.prod(patch(choice, problem.stride, problem.weight.shape[:2]))
        fits = twice * places <= 1 << 16 and choice.chunk < problem.weight.shape[2]
        sizes = {half, twice if fits else half} - {choice.chunk}
        return [replace(choice, chunk=size) for size in sorted(sizes)]
    chunks = [replace(choice, chunk=max(16, choice.chunk // 2)), replace(choice, chunk=2 * choice.chunk)]
    together = [replace(choice, tile=replace(choice.tile, together=blocks)) for blocks in (1, 4, ALL)]
    return [other for other in (*chunks, *together) if other != choice]


@dataclass
class Tuner:
    """A chooser for `build` that measures; what it finds is kept in a folder, by layer and machine.

    Attributes:
        machine: this one.
        seconds: once so many have passed, layers that are not in the folder are left to the model.
        first: kernels of each layer that are tried, from the model's best on.
        folder: where results are kept; an interrupted search goes on with what is there.
        progress: called after each layer.
        started: when the search began, by `time.monotonic`.
    """

    machine: Machine
    seconds: float = 300.0
    first: int = 8
    folder: Path = field(default_factory=lambda: cache() / "tuning")
    progress: Progress | None = None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        check.positive(seconds=self.seconds)
        check.integer(1, first=self.first)

    def __call__(self, layer: Layer, problem: Problem) -> Choice | Grid:
        """The fastest choice that is known for a layer."""
        path = self.folder / f"{key(problem, self.machine)}.json"
        if (known := _read(path)) is not None:
            return known
        ranked = [choice for _, choice in families.every(problem, self.machine)]
        if time.monotonic() - self.started > self.seconds:
            return ranked[0]
        choices = ranked[: self.first]
        times = measure(problem, choices, self.machine)
        more = _around(choices[int(np.argmin(times))], problem)
        choices, times = [*choices, *more], times + measure(problem, more, self.machine)
        best = int(np.argmin(times))
        _write(path, choices[best], dict(zip(map(str, choices), times, strict=True)))
        if self.progress is not None:
            self.progress(layer.name, len(choices), times[best])
        return choices[best]


def _read(path: Path) -> Choice | Grid | None:
    try:
        return choice_from(json.loads(path.read_text())["choice"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, choice: Choice | Grid, tried: dict[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # a reader never sees half a file
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump({"choice": asdict(choice), "seconds": tried}, file, indent=1)
    os.replace(file.name, path)
