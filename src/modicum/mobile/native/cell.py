"""One step of a gated recurrent unit as a program of its own: for frames that come one at a time."""

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modicum.mobile.graph import Gru
from modicum.mobile.native import emit, recurrent, runtime
from modicum.mobile.native.build import library
from modicum.mobile.native.layout import whole
from modicum.mobile.native.machine import Machine, host
from modicum.mobile.native.memory import ALIGNMENT, aligned, copied
from modicum.mobile.native.parts import Blob

_NAME = "cell"

_FRAMES = """
/* Some frames in turn, each `inputs` floats; the state is read and written. Returns 0, or -1 where threads cannot be
   started. */
int {name}_frames(const void *weights, const float *x, int frames, float *state, void *arena, int threads) {{
  for (int frame = 0; frame < frames; ++frame)
    if ({name}_run_threads(weights, x + (size_t)frame * {input}, state, arena, threads)) return -1;
  return 0;
}}
"""


def _step(layer: Gru, lanes: int, blob: Blob) -> str:
    """C text of a step: both products, then the gates, with the sums of both in the arena."""
    matrices = [recurrent.reading_order(kernel, lanes) for kernel in (layer.input_kernel, layer.recurrent_kernel)]
    # one after the other, so that the second is read on from where the first ends
    places = [recurrent.stored(blob.add, matrix) for matrix in matrices]
    bias, payload = blob.add(recurrent.biases(layer, lanes)), sum(matrix.values.nbytes for matrix in matrices)
    units = whole(layer.shape[-1], lanes)
    body = (
        recurrent.shares(payload)
        + places[0].text("input")
        + places[1].text("recurrent")
        + recurrent.units_of(units // lanes)
        + f"float *driven = (float *)arena, *returned = driven + {recurrent.GATES * units};\n"
        # whatever it was before: only the order of reading depends on it
        + f"int32_t *turn = (int32_t *)(returned + {recurrent.GATES * units});\nconst int back = *turn & 1;\n"
    )
    for matrix, name in zip(matrices, ("driven", "returned"), strict=True):
        if not matrix.covered:
            ends = f"int i = {recurrent.GATES} * begin; i < {recurrent.GATES} * end; ++i"
            body += f"for ({ends}) *(vf *)({name} + i * LANES) = zero();\n"
    if not all(matrix.covered for matrix in matrices):
        body += "TOGETHER(shares);\n"
    runs = [
        f"strips_run({source}, {target}, &{name}, strips_from(&{name}, part, shares), "
        f"strips_from(&{name}, part + 1, shares), back);"
        for source, target, name in (("x", "driven", "input"), ("y", "returned", "recurrent"))
    ]
    return (
        body
        + f"if (!back) {runs[0]}\n{runs[1]}\nif (back) {runs[0]}\nTOGETHER(shares);\n"
        + f"gru_gates(driven, returned, (const float *)(w + {bias}), y, y, {units}, begin, end);\n"
        + "if (!part) *turn = !back;"
    )


@dataclass(frozen=True, eq=False)
class Cell:
    """A compiled step.

    Attributes:
        inputs: width of a frame.
        features: width of the state.
        threads: threads of a step.
        source: its C text.
        payload: bytes of the weights that a step reads, indices included.
        state: float32 `(features,)`: what the last call left, and `run` goes on from.
    """

    inputs: int
    features: int
    threads: int
    source: str = field(repr=False)
    payload: int
    state: np.ndarray = field(repr=False)
    _weights: np.ndarray = field(repr=False)
    _arena: np.ndarray = field(repr=False)
    _addresses: tuple[int, int, int] = field(repr=False)
    _library: Any = field(repr=False)

    def step(self, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        """The next state.

        Args:
            x: a frame, float32 `(inputs,)`.
            h: the state before, float32 `(features,)`.
        """
        return self.frames(x[None], h)

    def frames(self, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        """The state after some frames, in one call.

        Args:
            x: float32 `(frames, inputs)`.
            h: the state before, float32 `(features,)`.

        Raises:
            ValueError: if the shapes do not fit.
        """
        if x.shape[1:] != (self.inputs,):
            raise ValueError(f"x must have shape {('frames', self.inputs)}, got {x.shape}")
        if h.shape != (self.features,):
            raise ValueError(f"h must have shape {(self.features,)}, got {h.shape}")
        x = np.ascontiguousarray(x, np.float32)
        self.state[:] = h
        self.run(x)
        return self.state.copy()

    def run(self, x: np.ndarray) -> None:
        """Some frames from `state` on, in memory that is there: what is timed.

        Args:
            x: contiguous float32 `(frames, inputs)`.
        """
        weights, state, arena = self._addresses
        if self._library.cell_frames(weights, x.ctypes.data, len(x), state, arena, self.threads):
            raise OSError("threads cannot be started")


def gru_cell(
    input_kernel: np.ndarray,
    recurrent_kernel: np.ndarray,
    input_bias: np.ndarray,
    candidate_bias: np.ndarray,
    machine: Machine | None = None,
    threads: int = 1,
) -> Cell:
    """A step of `graph.Gru` with given weights, compiled for this machine; zeros are not computed.

    Args:
        input_kernel: float32 `(i, 3 f)`, gates r, z, n side by side.
        recurrent_kernel: float32 `(f, 3 f)`.
        input_bias: float32 `(3 f,)`.
        candidate_bias: float32 `(f,)`.
        machine: this one; `host()` where None.
        threads: threads of a step.
    """
    machine = host() if machine is None else machine
    inputs, features, lanes = len(input_kernel), len(candidate_bias), machine.lanes
    layer = Gru(
        name=_NAME,
        inputs=("x",),
        output="h",
        shape=(1, 1, features),
        input_kernel=input_kernel,
        recurrent_kernel=recurrent_kernel,
        input_bias=input_bias,
        candidate_bias=candidate_bias,
    )
    blob, units = Blob(), whole(features, lanes)
    step = _step(layer, lanes, blob)
    sizes = {"arena": 4 * (2 * recurrent.GATES * units + 1), "weights": blob.size, "input": inputs, "output": units}
    values = {"name": _NAME, **sizes}
    declared, rest = runtime.ENTRY.format(**values).split("\n\n", 1)
    text = [
        emit.header(lanes),
        recurrent.kernels(lanes),
        "static void step_0(const char *w, const float *x, float *y, char *arena, int part, int parts) {\n"
        f"(void)parts;\n{step}\n}}\n",
        f"{declared}\nstatic step_fn *const steps[] = {{step_0}};\n{rest}",
        runtime.THREADS.format(**values),
        _FRAMES.format(**values),
    ]
    source = "\n".join(text)
    loaded = ctypes.CDLL(str(library(source, machine)))
    pointer, number = ctypes.c_void_p, ctypes.c_int
    loaded.cell_frames.argtypes = [pointer, pointer, number, pointer, pointer, number]
    loaded.cell_frames.restype = number
    weights = copied(blob.array())
    # the kernels also write what fills its last vector
    state = aligned(4 * units).view(np.float32)[:features]
    arena = aligned(whole(sizes["arena"], ALIGNMENT))
    # asking for an address takes a microsecond, which is long beside a step
    addresses = (weights.ctypes.data, state.ctypes.data, arena.ctypes.data)
    return Cell(inputs, features, threads, source, blob.size, state, weights, arena, addresses, loaded)
