"""Networks as graphs of NIR, the neuromorphic intermediate representation, to and from other libraries and chips.

NIR's neurons live in continuous time; here they take steps of `dt`. With `v_leak = 0` and a current `I` that is held
for a step, the two usual discretizations are

    nir.LIF, tau v' = -v + r I:    euler  v + dt/tau (r I - v),    exponential  exp(-dt/tau) v + (1 - exp(-dt/tau)) r I
    nir.IF,  v' = r I:             v + dt r I in both

which is our `u = leak V + I` exactly for

    leak = 1 - dt/tau (euler) or exp(-dt/tau) (exponential), and r = 1 / (1 - leak); for nir.IF, r = 1 / dt.

NIR spikes where `v > v_threshold`, neurons here where `u >= threshold`: `v_threshold` is the next float32 below it. NIR
then sets `v` to `v_reset = 0`, which is our hard reset. It has no other: in continuous time a neuron spikes at its
threshold, where subtracting that and setting to 0 are one (neuromorphs/NIR, pull request 63). A soft reset is a note in
the node's `metadata`, which no reader need heed (Spyx 1.0 always subtracts; snnTorch 1.0 and SpikingJelly 2.0 always
set to 0). The notes hold nothing else that a reader needs, save the last bit of a leak whose `tau` float32 rounds.

Images are channels first in NIR, `(channels, height, width)`, and channels last here: kernels are transposed, and the
rows of a `Dense` that follows an image put in the other order.
"""

import importlib
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from modicum.core import Params, check
from modicum.spiking.adaptive import ParametricLIF
from modicum.spiking.interchange_reading import Choices, Clock, read_chain
from modicum.spiking.layers import Layer, Readout, prepared
from modicum.spiking.neurons import RESETS
from modicum.spiking.populations import IF, LIF
from modicum.spiking.surrogates import DEFAULT, Surrogate
from modicum.spiking.synapses import Convolution, Dense

DISCRETIZATIONS = ("euler", "exponential")
SECONDS = 1e-4  # what snnTorch has built in and SpikingJelly assumes unless told otherwise

_INSTEAD = {"Carry": "IF with a soft reset", "FixedPointLIF": "LIF of the same leak"}


def to_nir(
    layers: Sequence[Layer],
    params: Sequence[dict[str, Params]],
    shape: tuple[int, ...],
    *,
    dt: float = SECONDS,
    discretization: str = "euler",
) -> Any:
    """The network as a graph of NIR, which `nir.write(path, graph)` stores.

    A `Convolution` becomes `Conv2d`, a `Dense` `Linear` or `Affine` after a `Flatten`, pooling `AvgPool2d`, `LIF` and
    `ParametricLIF` `LIF`, `IF` (and a `LIF` of leak 1) `IF`, a `Readout` nothing. Weights are those that the steps use:
    standardized and rounded where the synapse does so. All arrays are float32. A hard reset is NIR's own; a soft one is
    a note that other readers may pass over.

    Args:
        layers: the chain.
        params: as `init` returns them, one entry for each layer.
        shape: of what goes in at one time step, without the batch axis: `(height, width, channels)` for images.
        dt: length of a step, in the unit of `tau`; seconds, for the libraries that have 1e-4 built in.
        discretization: `'euler'` for readers that take forward Euler steps (snnTorch, SpikingJelly, Spyx),
            `'exponential'` for those that solve the equation over a step, with the input held.

    Returns:
        A `nir.NIRGraph`, a chain from node `input` to node `output`, with `dt` and `discretization` in its metadata.

    Raises:
        ValueError: if NIR has no word for a synapse or a neuron, or `params` or `shape` do not fit the layers.
        ModuleNotFoundError: if `nir` is not installed.

    Reference:
        Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for interoperable
        brain-inspired computing", Nature Communications 2024; the nodes' equations: docstrings of `nir` 1.0.8.
    """
    nir = _installed()
    check.positive(dt=dt)
    check.one_of(DISCRETIZATIONS, discretization=discretization)
    clock = Clock(float(dt), discretization)
    named = {"input": nir.Input({"input": np.array(_channels_first(shape))})}
    for number, (layer, weights) in enumerate(zip(layers, prepared(layers, params), strict=True)):
        nodes, shape = _synapse_nodes(nir, number, layer, weights[0], shape)
        nodes += _neuron_nodes(nir, number, layer.neuron, weights[1], _channels_first(shape), clock)
        named |= {f"{type(node).__name__.lower()}_{number}": node for node in nodes}
    named["output"] = nir.Output({"output": np.array(_channels_first(shape))})
    metadata = {"written_by": "modicum", "dt": clock.dt, "discretization": discretization}
    return nir.NIRGraph(nodes=named, edges=list(itertools.pairwise(named)), metadata=metadata)


def from_nir(
    graph: Any,
    *,
    dt: float | None = None,
    discretization: str | None = None,
    reset: str | None = None,
    surrogate: Surrogate = DEFAULT,
    detach_reset: bool = False,
) -> tuple[tuple[Layer, ...], tuple[dict[str, Params], ...]]:
    """The network of a graph of NIR, as `nir.read(path)` returns it.

    Numbers come from the nodes by the equations above; a note of `to_nir` in a node's metadata counts only where it
    gives just these numbers, so that a graph whose numbers were changed is what they say. Currents that a neuron scales
    (`r (1 - leak)` other than 1) are scaled in the weights before it.

    Args:
        graph: a chain of `Conv2d` (stride 1, size kept, odd square kernel), `AvgPool2d`, `Flatten`, `Linear`, `Affine`,
            `LIF` and `IF` nodes, the numbers of a neuron node all alike.
        dt: length of a step, in the unit of `tau`; by default what the graph says, or 1e-4.
        discretization: see `to_nir`; by default what the graph says, or `'euler'`.
        reset: `'soft'` or `'hard'`; by default what a node says, or `'hard'`, which is NIR's.
        surrogate: of all neurons; NIR knows none.
        detach_reset: of all neurons.

    Returns:
        Layers and their parameters, for `multi_step`. What `to_nir` wrote runs as it did, bit for bit; it comes back
        without standardization and grids, with `LIF` for `ParametricLIF`.

    Raises:
        ValueError: for a graph that is no such chain, naming node and edge, or a number out of its range.
    """
    said = getattr(graph, "metadata", None) or {}
    clock = Clock(
        float(said.get("dt", SECONDS)) if dt is None else dt,
        str(said.get("discretization", "euler")) if discretization is None else discretization,
    )
    check.positive(dt=clock.dt)
    check.one_of(DISCRETIZATIONS, discretization=clock.discretization)
    check.one_of((None, *RESETS), reset=reset)
    return read_chain(graph, clock, Choices(reset, detach_reset, surrogate))


def _installed() -> Any:
    try:
        return importlib.import_module("nir")
    except ImportError as error:
        raise ModuleNotFoundError("NIR is not installed: pip install modicum[nir]") from error


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else tuple(shape)


def _synapse_nodes(
    nir: Any, number: int, layer: Layer, weights: Any, shape: tuple[int, ...]
) -> tuple[list[Any], tuple[int, ...]]:
    """Nodes of a synapse, and the shape of its currents."""
    synapse = layer.synapse
    if layer.over_time or not isinstance(synapse, Convolution | Dense):
        raise ValueError(
            f"synapse of layer {number} must be a Convolution or a Dense of one time step to be written as NIR, "
            f"got {synapse!r}: what is Normalized can be folded first (`fold`)"
        )
    arrays = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    check.finite(**{f"{name} of layer {number}": value for name, value in arrays.items()})
    nodes = []
    if synapse.pool > 1:
        if len(shape) != 3:
            raise ValueError(f"shape must be (height, width, channels) before pooling in layer {number}, got {shape}")
        check.divides(synapse.pool, height=shape[0], width=shape[1])
        side = np.array([synapse.pool, synapse.pool])
        nodes.append(nir.AvgPool2d(kernel_size=side, stride=side, padding=np.array([0, 0])))
        shape = (shape[0] // synapse.pool, shape[1] // synapse.pool, shape[2])
    if isinstance(synapse, Convolution):
        return [*nodes, _convolution(nir, number, arrays, shape)], (*shape[:2], synapse.features)
    return nodes + _product(nir, number, arrays, shape), (synapse.features,)


def _convolution(nir: Any, number: int, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> Any:
    kernel = arrays["kernel"]
    if len(shape) != 3 or shape[2] != kernel.shape[2]:
        raise ValueError(f"shape must be (height, width, {kernel.shape[2]}) before layer {number}, got {shape}")
    margin = kernel.shape[0] // 2
    return nir.Conv2d(
        input_shape=shape[:2],
        weight=np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)),
        stride=1,
        padding=(margin, margin),
        dilation=1,
        groups=1,
        bias=arrays.get("bias", np.zeros(kernel.shape[3], np.float32)),  # readers want one
        metadata={"bias": "bias" in arrays},
    )


def _product(nir: Any, number: int, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> list[Any]:
    kernel = arrays["kernel"]
    if np.prod(shape) != len(kernel):
        raise ValueError(f"shape must have {len(kernel)} entries before layer {number}, got {shape}")
    nodes = []
    if len(shape) > 1:
        first = _channels_first(shape)
        nodes.append(nir.Flatten({"input": np.array(first)}, start_dim=0, end_dim=-1))
    if len(shape) == 3:
        kernel = kernel.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    weight = np.ascontiguousarray(kernel.T)
    return [*nodes, nir.Affine(weight, arrays["bias"]) if "bias" in arrays else nir.Linear(weight)]


def _neuron_nodes(nir: Any, number: int, neuron: Any, params: Any, shape: tuple[int, ...], clock: Clock) -> list[Any]:
    if isinstance(neuron, Readout):
        return []
    if type(neuron) not in (LIF, IF, ParametricLIF):
        kind = type(neuron).__name__
        raise ValueError(
            f"neuron of layer {number} must be LIF, IF, ParametricLIF or Readout to be written as NIR, got {kind}: "
            f"take {_INSTEAD.get(kind, 'LIF')} instead"
        )
    leak = float(jax.nn.sigmoid(params["raw_leak"]) if isinstance(neuron, ParametricLIF) else neuron.leak)
    if leak == 0 and clock.discretization == "exponential":
        raise ValueError(f"leak of layer {number} must be above 0 with discretization='exponential', got {leak}")
    numbers = clock.numbers(leak, float(neuron.threshold))
    arrays = {name: np.full(shape, value, np.float32) for name, value in numbers.items()}
    notes = {"leak": leak, "threshold": float(neuron.threshold), "reset": neuron.reset, "spikes": "v >= threshold"}
    return [(nir.LIF if "tau" in arrays else nir.IF)(**arrays, metadata=notes)]
