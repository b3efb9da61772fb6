"""Batch normalization of currents over examples, places and time, for synapses that run layer by layer."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modicum.core import Key, Params, check
from modicum.spiking import by_layer, grid
from modicum.spiking.layers import Layer, init_states, prepared
from modicum.spiking.synapses import Convolution, Dense, differentiable

Statistics = dict[str, Array]
"""`mean` and `var` of each channel."""


def moments(currents: Float[Array, " *n o"]) -> Statistics:
    """Mean and (biased) variance of each channel over all other axes."""
    axes = tuple(range(currents.ndim - 1))
    mean = currents.mean(axes)
    return {"mean": mean, "var": jnp.mean((currents - _each(mean, currents)) ** 2, axes)}


def _each(channels: Array, currents: Array) -> Array:
    """One number for each channel, to be combined with the currents."""
    return channels.reshape((1,) * (currents.ndim - 1) + (-1,))


@dataclass(frozen=True, kw_only=True)
class Normalized:
    """A synapse whose currents have zero mean and variance 1 in each channel, then a trained scale and shift.

    The moments are those of the batch over all time steps; where the parameters hold `mean` and `var`, those are used
    instead, as a network at work does. It looks over time: `Layer(Normalized(...), neuron, over_time=True)`, which
    `order="layer"` runs. A backward pass computes the currents again and keeps none of them.

    Attributes:
        synapse: `Convolution` or `Dense` without bias, which the shift replaces.
        epsilon: added to the variance, above 0.
        gain: initial scale: the standard deviation of a current, in units of the threshold where that is 1.

    Raises:
        ValueError: if the synapse has a bias, or `epsilon` or `gain` is not above 0.

    Reference:
        Zheng et al., "Going deeper with directly-trained larger spiking neural networks", AAAI 2021, equations 5-7
        (threshold-dependent batch normalization over time; their alpha times the threshold is `gain`).
    """

    synapse: Convolution | Dense
    epsilon: float = 1e-5
    gain: float = 1.0

    def __post_init__(self) -> None:
        check.positive(epsilon=self.epsilon, gain=self.gain)
        if self.synapse.bias:
            raise ValueError("synapse must have bias=False in a Normalized, got True: its shift takes the place of one")

    @property
    def features(self) -> int:
        """Output channels."""
        return self.synapse.features

    def init(self, key: Key, shape: tuple[int, ...]) -> Params:
        """Parameters for incoming spikes of `shape`, without axes of time and batch."""
        return {
            "synapse": self.synapse.init(key, shape),
            "scale": jnp.full((self.features,), self.gain, jnp.float32),
            "shift": jnp.zeros((self.features,)),
        }

    def prepare(self, params: Params) -> Params:
        """The weights that all time steps use."""
        return {**params, "synapse": self.synapse.prepare(params["synapse"])}

    def currents(self, weights: Params, spikes: Float[Array, " t b *shape"]) -> Float[Array, " t b *out"]:
        """What is normalized."""
        steps, batch = spikes.shape[:2]
        current = differentiable(self.synapse)(weights["synapse"], spikes.reshape(steps * batch, *spikes.shape[2:]))
        return current.reshape(steps, batch, *current.shape[1:])

    def __call__(self, weights: Params, spikes: Float[Array, " t b *shape"]) -> Float[Array, " t b *out"]:
        """The normalized currents of all time steps."""
        currents = self.currents(weights, spikes)
        seen = weights if "mean" in weights else moments(currents)
        scale = weights["scale"] * lax.rsqrt(seen["var"] + self.epsilon)
        return currents * _each(scale, currents) + _each(weights["shift"] - seen["mean"] * scale, currents)

    def folded(self, params: Params, statistics: Statistics) -> tuple[Convolution | Dense, Params]:
        """The synapse with a bias that does the same at work, and its parameters: for chips, NIR and any order.

        Args:
            params: what `init` made and training changed.
            statistics: `mean` and `var`, see `models.calibrate`.
        """
        scale = params["scale"] * lax.rsqrt(statistics["var"] + self.epsilon)
        plain = dataclasses.replace(self.synapse, bias=True, standardize=False, grid_bits=None)
        kernel = self.synapse.prepare(params["synapse"])["kernel"]
        return plain, {"kernel": kernel * _each(scale, kernel), "bias": params["shift"] - statistics["mean"] * scale}


def batch_moments(
    layers: Sequence[Layer], params: Sequence[dict[str, Params]], inputs: Array, steps: int | None = None
) -> dict[int, Statistics]:
    """The moments of each `Normalized` layer's currents in one batch, by number of the layer.

    Args:
        layers: the chain.
        params: as for `multi_step`, without statistics.
        inputs: likewise.
        steps: likewise.
    """
    weights, found = prepared(layers, params), {}
    spikes = grid.floating(jnp.broadcast_to(inputs[None], (steps, *inputs.shape)) if steps else inputs)
    states = init_states(layers, weights, jax.ShapeDtypeStruct(spikes.shape[1:], jnp.float32))
    for number, (layer, weight, state) in enumerate(zip(layers, weights, states, strict=True)):
        if isinstance(layer.synapse, Normalized):
            found[number] = moments(layer.synapse.currents(weight[0], spikes))
        spikes, _ = by_layer.one_layer(layer, None, weight, spikes, state)
    return found


def fold(
    layers: Sequence[Layer], params: Sequence[dict[str, Any]], statistics: dict[int, Statistics]
) -> tuple[tuple[Layer, ...], tuple[dict[str, Any], ...]]:
    """A chain without batch normalization that does the same at work.

    Args:
        layers: the chain.
        params: one entry for each layer.
        statistics: of each `Normalized` layer, by its number.

    Returns:
        Layers and parameters; what is not normalized stays as it is.

    Raises:
        ValueError: if a layer's statistics are missing.
    """
    plain: list[Layer] = []
    entries: list[dict[str, Any]] = []
    for number, (layer, entry) in enumerate(zip(layers, params, strict=True)):
        if isinstance(layer.synapse, Normalized):
            if number not in statistics:
                raise ValueError(f"statistics must hold those of layer {number}, got those of {sorted(statistics)}")
            synapse, weights = layer.synapse.folded(entry["synapse"], statistics[number])
            layer, entry = Layer(synapse, layer.neuron), {**entry, "synapse": weights}
        plain.append(layer)
        entries.append(entry)
    return tuple(plain), tuple(entries)
