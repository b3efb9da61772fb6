"""A spiking network as a chain of layers: a synapse, then a neuron; and one time step of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from modicum.core import Key, Params
from modicum.spiking.synapses import Synapse, differentiable


@runtime_checkable
class Neuron(Protocol):
    """A pure step with its settings; members are frozen, hashable dataclasses.

    Memory-free modes ask for more: `packed` for a `PackableNeuron`, `reversible` for an `InvertibleNeuron`.
    """

    def init_params(self) -> Params:
        """What is trained."""
        ...

    def init_state(self, shape: tuple[int, ...]) -> Any:
        """The state before the first step, of neurons of that shape."""
        ...

    def step(self, params: Params, state: Any, current: Array) -> tuple[Any, Array]:
        """One time step: the state after it, and the spikes."""
        ...


@runtime_checkable
class PackableNeuron(Neuron, Protocol):
    """A neuron whose backward pass reads a few bits a step."""

    @property
    def residual_bits(self) -> int:
        """Bits of a residual; 0 where it is no code."""
        ...

    def record(self, params: Params, state: Any, current: Array) -> tuple[Any, Array, Any]:
        """A step, and the residual that `backward` needs of it."""
        ...

    def spikes(self, residual: Any) -> Array:
        """The spikes of a step, from its residual."""
        ...

    def backward(
        self, params: Params, residual: Any, state_cotangent: Any, spikes_cotangent: Array
    ) -> tuple[Params, Any, Array]:
        """Cotangents of the parameters, of the state before the step and of the current."""
        ...


@runtime_checkable
class InvertibleNeuron(PackableNeuron, Protocol):
    """A neuron that runs backward exactly."""

    @property
    def ledger_bits(self) -> int:
        """Bits a step that the inverse needs besides state and current."""
        ...

    def forward(self, params: Params, state: Any, current: Array) -> tuple[Any, Array, Any]:
        """A step, and the ledger of it (None where there is none)."""
        ...

    def invert(self, params: Params, state: Any, current: Array, ledger: Any) -> tuple[Any, Any]:
        """The state before the step, and the residual that `backward` needs of it."""
        ...

    def store(self, state: Any) -> Any:
        """The state in as few bytes as it needs."""
        ...

    def load(self, stored: Any) -> Any:
        """The state that was stored."""
        ...


class ReadoutState(NamedTuple):
    """A readout remembers nothing."""


@dataclass(frozen=True)
class Readout:
    """No neuron: the current is the output, as a last layer whose logits are averaged over time has it."""

    residual_bits = 0
    ledger_bits = 0
    packable = True

    def init_params(self) -> tuple[()]:
        """Nothing is trained."""
        return ()

    def init_state(self, shape: tuple[int, ...]) -> ReadoutState:  # noqa: ARG002
        """Nothing is remembered."""
        return ReadoutState()

    def step(self, params: Any, state: ReadoutState, current: Array) -> tuple[ReadoutState, Array]:
        """The current."""
        del params
        return state, current

    def forward(self, params: Any, state: ReadoutState, current: Array) -> tuple[ReadoutState, Array, None]:
        """The current; no ledger."""
        del params
        return state, current, None

    record = forward

    def store(self, state: ReadoutState) -> ReadoutState:
        """Nothing."""
        return state

    load = store

    def invert(self, params: Any, state: ReadoutState, current: Array, ledger: None = None) -> tuple[Any, None]:
        """Nothing to undo."""
        del params, current, ledger
        return state, None

    def spikes(self, residual: Any) -> Array:
        """None can be had: a readout is the last layer."""
        raise ValueError(f"a Readout must be the last layer, got one with residual {residual!r} in between")

    def backward(self, params: Any, residual: None, state_cotangent: Any, spikes_cotangent: Array) -> tuple:
        """The output's cotangent is the current's."""
        del residual
        return params, state_cotangent, spikes_cotangent


@dataclass(frozen=True)
class Layer:
    """A synapse and the neurons it drives.

    Attributes:
        synapse: `Convolution`, `Dense`, or any function `(weights, spikes) -> current` (of one time step; hashable).
        neuron: the neurons; `Readout()` for none.
        over_time: whether the synapse looks at all time steps at once (batch normalization over time, say): it is
            then called with `(steps, batch, ...)`, and only layer by layer (`order="layer"`).
    """

    synapse: Synapse
    neuron: Neuron = field(default_factory=Readout)
    over_time: bool = False


def init(key: Key, layers: Sequence[Layer], shape: tuple[int, ...]) -> tuple[dict[str, Params], ...]:
    """Initial parameters: for each layer `{"synapse": ..., "neuron": ...}`.

    Args:
        key: one key for all.
        layers: the chain; each synapse needs a method `init(key, shape)`.
        shape: of what goes in at one time step, without the batch axis.

    Raises:
        ValueError: if a synapse does not fit the shape it meets, or has no `init`.
    """
    params = []
    for number, (layer, layer_key) in enumerate(zip(layers, jax.random.split(key, len(layers)), strict=True)):
        params.append(init_layer(layer_key, layer, number, shape))
        shape = shape_after(layer, params[-1]["synapse"], shape)
    return tuple(params)


def init_layer(key: Key, layer: Layer, number: int, shape: tuple[int, ...]) -> dict[str, Params]:
    """Initial parameters of one layer, `{"synapse": ..., "neuron": ...}`; arguments as of `init`, and its number.

    Raises:
        ValueError: if the synapse has no `init`, or does not fit the shape.
    """
    if not hasattr(layer.synapse, "init"):
        raise ValueError(f"synapse of layer {number} must have a method init, got {layer.synapse!r}")
    return {"synapse": layer.synapse.init(key, shape), "neuron": layer.neuron.init_params()}


def shape_after(layer: Layer, params: Params, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the layer's current at one time step, for spikes of `shape`, both without the batch axis."""
    return _current_shape(layer, _prepared_synapse(layer, params), (1, *shape))[1:]


def _current_shape(layer: Layer, weight: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the current of one time step, for spikes of `shape`, both with the batch axis."""
    if layer.over_time:
        return jax.eval_shape(layer.synapse, weight, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]
    return jax.eval_shape(layer.synapse, weight, jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def _prepared_synapse(layer: Layer, params: Params) -> Any:
    return layer.synapse.prepare(params) if hasattr(layer.synapse, "prepare") else params


def prepared(layers: Sequence[Layer], params: Sequence[dict[str, Params]]) -> tuple[tuple[Any, Any], ...]:
    """What all time steps use: for each layer the synapse's weights and the neuron's parameters.

    Raises:
        ValueError: if there is no layer, or not one entry of `params` for each.
    """
    if not layers or len(params) != len(layers):
        raise ValueError(f"params must hold one entry for each of at least 1 layers, got {len(params)}, {len(layers)}")
    return tuple(
        (_prepared_synapse(layer, entry["synapse"]), entry["neuron"])
        for layer, entry in zip(layers, params, strict=True)
    )


def init_states(layers: Sequence[Layer], weights: Sequence[tuple[Any, Any]], batch: Any) -> tuple[Any, ...]:
    """The states before the first step, for inputs of one step like `batch` (an array or its shape and dtype)."""
    states, shape = [], batch.shape
    for layer, (weight, _) in zip(layers, weights, strict=True):
        shape = _current_shape(layer, weight, shape)
        states.append(layer.neuron.init_state(shape))
    return tuple(states)


def network_step(
    layers: Sequence[Layer], weights: Sequence[tuple[Any, Any]], states: Sequence[Any], spikes: Array
) -> tuple[tuple[Any, ...], Array]:
    """One time step of the whole chain: the states after it, and what the last layer puts out."""
    after = []
    for layer, (weight, neuron_params), state in zip(layers, weights, states, strict=True):
        current = differentiable(layer.synapse)(weight, spikes)
        state, spikes = layer.neuron.step(neuron_params, state, current)
        after.append(state)
    return tuple(after), spikes
