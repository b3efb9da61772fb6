"""One step of a gated recurrent unit in one engine, as a worker of `gru_latency.py`: its dense peers, and ours.

A run is `frames.npy` from zeros, `repeats` times over for ours, one call for each frame in the peers; the output is the
last state. Every engine has one thread.
"""

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers.worker import serve

REPEATS = 8
"""Times that ours goes over the frames in a run: its steps are short beside a call from Python."""


class Engine(NamedTuple):
    """See `peers.engines.Engine`."""

    version: str
    run: Callable[[], np.ndarray]


def weights_of(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Input kernel `(i, 3 f)`, recurrent kernel `(f, 3 f)`, biases `(3 f,)` and `(f,)`, as `graph.Gru` has them."""
    with np.load(folder / "weights.npz") as arrays:
        return arrays["input_kernel"], arrays["recurrent_kernel"], arrays["input_bias"], arrays["candidate_bias"]


def modicum(folder: Path, frames: np.ndarray) -> Engine:
    """Ours, whose zeros are not computed."""
    from modicum import __version__
    from modicum.mobile import native

    cell = native.gru_cell(*weights_of(folder))

    def run() -> np.ndarray:
        cell.state[:] = 0
        for _ in range(REPEATS):
            cell.run(frames)
        return cell.state.copy()

    return Engine(__version__, run)


def numpy(folder: Path, frames: np.ndarray) -> Engine:
    """NumPy and its BLAS."""
    w, u, bias, own = weights_of(folder)
    f = len(own)

    def run() -> np.ndarray:
        h = np.zeros(f, np.float32)
        for x in frames:
            driven, returned = x @ w + bias, h @ u
            gates = 1 / (1 + np.exp(-driven[: 2 * f] - returned[: 2 * f]))
            n = np.tanh(driven[2 * f :] + gates[:f] * (returned[2 * f :] + own))
            h = (1 - gates[f:]) * n + gates[f:] * h
        return h

    return Engine(np.__version__, run)


def _xla(folder: Path, frames: np.ndarray, transposed: bool) -> Engine:
    import jax
    import jax.numpy as jnp

    w, u, bias, own = (jnp.asarray(array) for array in weights_of(folder))
    f = len(own)
    if transposed:
        w, u = jnp.asarray(np.asarray(w).T.copy()), jnp.asarray(np.asarray(u).T.copy())

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return kernel @ x if transposed else x @ kernel

    @jax.jit
    def step(w: jax.Array, u: jax.Array, x: jax.Array, h: jax.Array) -> jax.Array:
        driven, returned = product(x, w) + bias, product(h, u)
        gates = jax.nn.sigmoid(driven[: 2 * f] + returned[: 2 * f])
        n = jnp.tanh(driven[2 * f :] + gates[:f] * (returned[2 * f :] + own))
        return (1 - gates[f:]) * n + gates[f:] * h

    inputs = [jnp.asarray(x) for x in frames]

    def run() -> np.ndarray:
        h = jnp.zeros(f, jnp.float32)
        for x in inputs:
            h = step(w, u, x, h)
        return np.asarray(h)

    return Engine(jax.__version__, run)


def xla(folder: Path, frames: np.ndarray) -> Engine:
    """`jax.jit` of the step, `x @ W`."""
    return _xla(folder, frames, False)


def xla_transposed(folder: Path, frames: np.ndarray) -> Engine:
    """`jax.jit` of the step, `W' @ x` with `W'` stored transposed."""
    return _xla(folder, frames, True)


def torch(folder: Path, frames: np.ndarray) -> Engine:
    """`torch.nn.GRUCell`."""
    import torch as library

    library.set_num_threads(1)
    w, u, bias, own = weights_of(folder)
    f = len(own)
    cell = library.nn.GRUCell(len(w), f)
    own_bias = np.concatenate([np.zeros(2 * f, np.float32), own])
    values = (w.T.copy(), u.T.copy(), bias, own_bias)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict({name: library.from_numpy(value) for name, value in zip(names, values, strict=True)})
    inputs = [library.from_numpy(x[None].copy()) for x in frames]

    def run() -> np.ndarray:
        with library.inference_mode():
            h = library.zeros(1, f)
            for x in inputs:
                h = cell(x, h)
            return h.numpy()[0]

    return Engine(library.__version__, run)


def _onnx(folder: Path) -> bytes:
    """A model of one GRU node over one frame: inputs "x" `(1, 1, i)` and "h" `(1, 1, f)`, output "y" like "h"."""
    from onnx import TensorProto, helper, numpy_helper

    w, u, bias, own = weights_of(folder)
    i, f = len(w), len(own)

    def gates(array: np.ndarray) -> np.ndarray:
        # ONNX has them in the order z, r, n
        r, z, n = np.split(array, 3, axis=-1)
        return np.concatenate([z, r, n], axis=-1)

    own_bias = np.concatenate([np.zeros(2 * f, np.float32), own])
    arrays = {"W": gates(w).T[None], "R": gates(u).T[None], "B": np.concatenate([gates(bias), own_bias])[None]}
    node = helper.make_node(
        "GRU", ["x", "W", "R", "B", "", "h"], ["", "y"], hidden_size=f, linear_before_reset=1, direction="forward"
    )
    shapes = {"x": [1, 1, i], "h": [1, 1, f], "y": [1, 1, f]}
    x, h, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    stored = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "gru", [x, h], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8).SerializeToString()


def onnxruntime(folder: Path, frames: np.ndarray) -> Engine:
    """ONNX Runtime's GRU, one frame a call."""
    import onnxruntime as library

    options = library.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = library.InferenceSession(_onnx(folder), options, providers=["CPUExecutionProvider"])
    inputs = [np.ascontiguousarray(x[None, None]) for x in frames]
    features = session.get_inputs()[1].shape[2]

    def run() -> np.ndarray:
        h = np.zeros((1, 1, features), np.float32)
        for x in inputs:
            h = session.run(None, {"x": x, "h": h})[0]
        return h[0, 0]

    return Engine(library.__version__, run)


def openvino(folder: Path, frames: np.ndarray) -> Engine:
    """OpenVINO's GRU in float32, one frame a call."""
    import openvino as library

    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    core = library.Core()
    request = core.compile_model(core.read_model(_onnx(folder)), "CPU", settings).create_infer_request()
    x, h, y = request.get_input_tensor(0).data, request.get_input_tensor(1).data, request.get_output_tensor(0).data

    def run() -> np.ndarray:
        h[:] = 0
        for frame in frames:
            x[0, 0] = frame
            request.infer()
            h[:] = y
        return h[0, 0].copy()

    return Engine(importlib.metadata.version("openvino"), run)


LOADERS = {
    "modicum": modicum,
    "numpy": numpy,
    "xla": xla,
    "xla_transposed": xla_transposed,
    "torch": torch,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}


def load(engine: str, folder: Path, threads: int) -> Engine:
    """One of the engines.

    Raises:
        ValueError: if threads are not one.
    """
    if threads != 1:
        raise ValueError(f"threads must be 1, got {threads}")
    return LOADERS[engine](folder, np.load(folder / "frames.npy"))


if __name__ == "__main__":
    sys.exit(serve(load))
