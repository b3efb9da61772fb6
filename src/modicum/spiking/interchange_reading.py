"""How a graph of NIR is read: its time, its chain of nodes, and the layers that these are (see `interchange`)."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from modicum.core import Params
from modicum.spiking.layers import Layer, Readout
from modicum.spiking.populations import IF, LIF
from modicum.spiking.surrogates import Surrogate
from modicum.spiking.synapses import Convolution, Dense

_NODES = "Conv2d, AvgPool2d, Flatten, Linear, Affine, LIF and IF"

Edge = tuple[str, str]


class Clock(NamedTuple):
    """How continuous time becomes steps.

    Attributes:
        dt: length of a step, in the unit of `tau`.
        discretization: `'euler'` or `'exponential'`.
    """

    dt: float
    discretization: str

    def leak(self, tau: float) -> float:
        """What is kept per step; 1 for ever."""
        return 1 - self.dt / tau if self.discretization == "euler" else math.exp(-self.dt / tau)

    def numbers(self, leak: float, threshold: float) -> dict[str, np.float32]:
        """The fields of the node that is such a neuron."""
        below = np.nextafter(np.float32(threshold), np.float32(0))
        common = {"v_threshold": below, "v_reset": np.float32(0)}
        if leak == 1:
            return {"r": np.float32(1 / self.dt), **common}
        exponential = -self.dt / math.log(leak) if leak else 0.0
        tau = self.dt / (1 - leak) if self.discretization == "euler" else exponential
        return {"tau": np.float32(tau), "r": np.float32(1 / (1 - leak)), "v_leak": np.float32(0), **common}


class Choices(NamedTuple):
    """What the caller says of all neurons: the reset, or None for what the nodes say, and what NIR knows nothing of."""

    reset: str | None
    detach_reset: bool
    surrogate: Surrogate


class _Read(NamedTuple):
    """What is read so far.

    Attributes:
        shape: of what the next node gets, channels first.
        pool: side of the windows averaged since the last synapse.
        image: the shape before a flatten that no product has followed yet, or None.
        synapse: with its kernel and bias, whose neuron is still to come, or None.
        layers: complete ones, with their parameters.
    """

    shape: tuple[int, ...]
    pool: int = 1
    image: tuple[int, ...] | None = None
    synapse: tuple[Convolution | Dense, np.ndarray, np.ndarray | None] | None = None
    layers: tuple[tuple[Layer, dict[str, Params]], ...] = ()


def read_chain(graph: Any, clock: Clock, choices: Choices) -> tuple[tuple[Layer, ...], tuple[dict[str, Params], ...]]:
    """Layers and parameters of a `nir.NIRGraph`.

    Raises:
        ValueError: see `from_nir`.
    """
    start, *steps = _chain(graph)
    (shape,) = graph.nodes[start].input_type.values()
    if shape is None:
        raise ValueError(f"shape of node {start!r} (Input) must be given, got none")
    read = _Read(tuple(int(size) for size in shape))
    for edge in zip((start, *steps), steps, strict=False):
        node = graph.nodes[edge[1]]
        kind = type(node).__name__
        if kind in ("LIF", "IF"):
            read = _neuron(read, node, edge, clock, choices)
        elif kind in _READERS:
            read = _READERS[kind](read, node, edge)
        else:
            raise _refused(node, edge, "no such node is known here")
    if not read.layers:
        raise ValueError("graph must hold at least 1 Conv2d, Linear or Affine node, got none")
    layers, params = zip(*read.layers, strict=True)
    return layers, params


def _refused(node: Any, edge: Edge, why: str) -> ValueError:
    return ValueError(f"graph must be a chain of {_NODES} nodes, got {type(node).__name__} at edge {edge}: {why}")


def _chain(graph: Any) -> list[str]:
    """The names of the nodes, from the input to the output."""
    edges = sorted({(str(first), str(second)) for first, second in graph.edges})
    for edge in edges:
        if not set(edge) <= graph.nodes.keys():
            raise ValueError(f"graph must have both nodes of edge {edge}, got {', '.join(graph.nodes)}")
    for end, which in ((0, "leave"), (1, "enter")):
        for name in graph.nodes:
            several = [edge for edge in edges if edge[end] == name]
            if len(several) > 1:
                raise _refused(graph.nodes[name], several[1], f"so does {several[0]} {which} it")
    starts = [name for name, node in graph.nodes.items() if type(node).__name__ == "Input"]
    if len(starts) != 1:
        raise ValueError(f"graph must have 1 Input node, got {len(starts)}: {', '.join(starts) or 'none'}")
    following, names = dict(edges), starts
    while (name := following.get(names[-1], starts[0])) not in names:
        names = [*names, name]
    if type(graph.nodes[names[-1]]).__name__ != "Output":
        raise ValueError(f"graph must end in an Output node, got {names[-1]!r} at its end")
    left = [name for name in graph.nodes if name not in names]
    if left:
        raise ValueError(f"graph must be one chain from Input to Output, got {left[0]!r} beside it")
    return names


def _closed(read: _Read, neuron: Any = None) -> _Read:
    """The open synapse as a layer, with its neuron or none."""
    if read.synapse is None:
        return read
    synapse, kernel, bias = read.synapse
    weights = {"kernel": jnp.asarray(kernel)} | ({} if bias is None else {"bias": jnp.asarray(bias)})
    neuron = Readout() if neuron is None else neuron
    layer = (Layer(synapse, neuron), {"synapse": weights, "neuron": neuron.init_params()})
    return read._replace(synapse=None, layers=(*read.layers, layer))


def _one(node: Any, field: str, edge: Edge) -> float:
    values = np.unique(np.asarray(getattr(node, field), np.float64))
    if values.size != 1 or not np.isfinite(values[0]):
        raise _refused(node, edge, f"its {field} must be one finite number here, got {values.tolist()[:3]}")
    return float(values[0])


def _pool(read: _Read, node: Any, edge: Edge) -> _Read:
    read = _closed(read)
    side, stride, padding = (_one(node, field, edge) for field in ("kernel_size", "stride", "padding"))
    if stride != side or padding or read.image is not None or len(read.shape) != 3:
        raise _refused(node, edge, "windows must tile an image (stride = kernel_size, padding 0)")
    channels, height, width = read.shape
    pool = int(side)
    if height % pool or width % pool:
        raise _refused(node, edge, f"height and width must be multiples of {pool}, got {height} and {width}")
    return read._replace(shape=(channels, height // pool, width // pool), pool=read.pool * pool)


def _flatten(read: _Read, node: Any, edge: Edge) -> _Read:
    read, last = _closed(read), len(read.shape) - 1
    if last == 0:
        return read
    if int(node.start_dim) != 0 or int(node.end_dim) not in (-1, last):
        raise _refused(node, edge, f"all {last + 1} axes (no batch) must go, got {node.start_dim} to {node.end_dim}")
    return read._replace(shape=(math.prod(read.shape),), image=read.shape)


def _product(read: _Read, node: Any, edge: Edge) -> _Read:
    read, weight = _closed(read), np.asarray(node.weight, np.float32)
    if weight.ndim != 2 or read.shape != weight.shape[1:]:
        raise _refused(node, edge, f"weight of shape {weight.shape} does not fit what arrives, {read.shape}")
    kernel, image = weight.T, read.image
    if image is not None and len(image) == 3:
        channels, height, width = image
        kernel = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
    bias = np.asarray(node.bias, np.float32) if type(node).__name__ == "Affine" else None
    synapse = Dense(features=len(weight), pool=read.pool, bias=bias is not None)
    return _Read(weight.shape[:1], 1, None, (synapse, kernel, bias), read.layers)


def _convolution(read: _Read, node: Any, edge: Edge) -> _Read:
    read, weight = _closed(read), np.asarray(node.weight, np.float32)
    side = weight.shape[-1]
    strides, dilations = (_one(node, field, edge) for field in ("stride", "dilation"))
    padding = node.padding if isinstance(node.padding, str) else _one(node, "padding", edge)
    kept = padding in ("same", side // 2) or (padding == "valid" and side == 1)
    plain = strides == 1 and dilations == 1 and int(node.groups) == 1
    if not (plain and kept) or weight.shape[2:] != (side, side) or side % 2 == 0:
        raise _refused(node, edge, "stride, dilation and groups must be 1, the kernel odd and square, the size kept")
    if len(read.shape) != 3 or read.shape[0] != weight.shape[1]:
        raise _refused(node, edge, f"weight of shape {weight.shape} does not fit what arrives, {read.shape}")
    bias = None if node.bias is None else np.asarray(node.bias, np.float32)
    if bias is not None and not bias.any() and not node.metadata.get("bias", False):
        bias = None  # NIR has no convolution without
    synapse = Convolution(features=len(weight), kernel=side, pool=read.pool, bias=bias is not None)
    shape = (len(weight), *read.shape[1:])
    return _Read(shape, 1, None, (synapse, weight.transpose(2, 3, 1, 0), bias), read.layers)


def _output(read: _Read, node: Any, edge: Edge) -> _Read:
    read = _closed(read)
    if read.pool > 1 or read.image is not None:
        raise _refused(node, edge, "pooling and flattening must come before a Conv2d, Linear or Affine")
    return read


def _neuron(read: _Read, node: Any, edge: Edge, clock: Clock, choices: Choices) -> _Read:
    if read.synapse is None or read.pool > 1 or read.image is not None:
        raise _refused(node, edge, "neurons must follow a Conv2d, Linear or Affine at once")
    if any(_one(node, field, edge) for field in ("v_leak", "v_reset") if hasattr(node, field)):
        raise _refused(node, edge, "v_leak and v_reset must be 0")
    leak, threshold, gain = _settings(node, edge, clock)
    settings = (threshold, choices.reset or str(node.metadata.get("reset", "hard")), *choices[1:])
    neuron = IF(*settings) if leak == 1 else LIF(leak, *settings)
    if gain != 1:
        synapse, kernel, bias = read.synapse
        scaled = None if bias is None else np.float32(gain) * bias
        read = read._replace(synapse=(synapse, np.float32(gain) * kernel, scaled))
    return _closed(read, neuron)


def _settings(node: Any, edge: Edge, clock: Clock) -> tuple[float, float, float]:
    """Leak, threshold and the factor of the current: by a note that gives the node's numbers, or by the equations."""
    fields = ("tau", "r", "v_threshold") if hasattr(node, "tau") else ("r", "v_threshold")
    numbers = {field: _one(node, field, edge) for field in fields}
    if {"leak", "threshold"} <= node.metadata.keys():
        leak, threshold = float(node.metadata["leak"]), float(node.metadata["threshold"])
        noted = clock.numbers(leak, threshold) if 0 <= leak <= 1 else {}
        if all(noted.get(field) == value for field, value in numbers.items()):
            return leak, threshold, 1.0
    threshold = float(np.nextafter(np.float32(numbers["v_threshold"]), np.float32(np.inf)))
    if "tau" not in numbers:
        leak, gain = 1.0, numbers["r"] * clock.dt
    else:
        least = clock.dt * (1 - 1e-6) if clock.discretization == "euler" else 0.0
        if numbers["tau"] <= least:
            raise _refused(node, edge, f"its tau must be at least dt, {clock.dt:.6g}, got {numbers['tau']:.6g}")
        leak = max(clock.leak(numbers["tau"]), 0.0)
        gain = numbers["r"] * (1 - leak)
    return leak, threshold, 1.0 if math.isclose(gain, 1, rel_tol=1e-5) else gain


_READERS = {
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    "Linear": _product,
    "Affine": _product,
    "Conv2d": _convolution,
    "Output": _output,
}
