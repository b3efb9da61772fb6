"""The network that all measurements share: a stem and D convolutions of C channels on event frames, and a readout."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from modicum import spiking

SIDE, BATCH, CHANNELS, CLASSES, POOL = 32, 4, 16, 10, 8
RATE = 0.15
"""Share of the event frames' entries that are 1."""
GRID_BITS = 12
LEAK = 0.5
GAIN = 2.0
"""Standard deviation of a weight times the square root of its fan-in; at 1 the spikes die out in depth."""
LEARNING_RATE = 0.5

CARRY, LIF = spiking.Carry(), spiking.LIF(leak=LEAK)


class Scheme(NamedTuple):
    """A neuron, and how its backward pass gets at the past."""

    neuron: Any
    residuals: str
    order: str = "time"


SCHEMES = {
    "carry autodiff": Scheme(CARRY, "autodiff"),
    "carry remat": Scheme(CARRY, "remat"),
    "carry sqrt": Scheme(CARRY, "sqrt"),
    "reversible_standard": Scheme(CARRY, "reversible_standard"),
    "reversible": Scheme(CARRY, "reversible"),
    "lif autodiff": Scheme(LIF, "autodiff"),
    "lif autodiff layer": Scheme(LIF, "autodiff", "layer"),
    "lif sqrt": Scheme(LIF, "sqrt"),
    "packed": Scheme(LIF, "packed"),
    "packed layer": Scheme(LIF, "packed", "layer"),
}
"""By name; the two neurons' plain runs are the ones to compare with."""
PLAIN = {"packed": "lif autodiff", "packed layer": "lif autodiff"}


def plain_of(scheme: str) -> str:
    """The scheme of the same neuron that JAX differentiates."""
    return PLAIN.get(scheme, "lif autodiff" if scheme.startswith("lif") else "carry autodiff")


def network(neuron: Any, depth: int, channels: int = CHANNELS) -> tuple[spiking.Layer, ...]:
    """A stem, `depth` more convolutions, and a readout of pooled spikes."""
    synapse = spiking.Convolution(features=channels, grid_bits=GRID_BITS, gain=GAIN)
    hidden = spiking.Layer(synapse, neuron)
    readout = spiking.Dense(features=CLASSES, pool=POOL, grid_bits=GRID_BITS)
    return (*[hidden] * (depth + 1), spiking.Layer(readout))


def init(depth: int, channels: int = CHANNELS, side: int = SIDE) -> Any:
    """The parameters, the same for every neuron."""
    return spiking.init(jax.random.key(0), network(CARRY, depth, channels), (side, side, 2))


def data(steps: int, batch: int = BATCH, side: int = SIDE) -> tuple[jax.Array, jax.Array]:
    """Event frames `(steps, batch, side, side, 2)` of zeros and ones, and labels."""
    events_key, labels_key = jax.random.split(jax.random.key(1))
    events = jax.random.bernoulli(events_key, RATE, (steps, batch, side, side, 2)).astype(jnp.float32)
    return events, jax.random.randint(labels_key, (batch,), 0, CLASSES)


def loss_of(scheme: Scheme, depth: int, channels: int = CHANNELS) -> Callable[..., jax.Array]:
    """`(params, events, labels) -> cross-entropy` of the outputs' mean over time."""
    layers = network(scheme.neuron, depth, channels)

    def loss(params: Any, events: jax.Array, labels: jax.Array) -> jax.Array:
        outputs, _ = spiking.multi_step(layers, params, events, residuals=scheme.residuals, order=scheme.order)
        return optax.softmax_cross_entropy_with_integer_labels(outputs.mean(0), labels).mean()

    return loss


def train_step(scheme: Scheme, depth: int, channels: int = CHANNELS) -> Callable[..., tuple[Any, jax.Array]]:
    """`(params, events, labels) -> (params, loss)`: a gradient and a step against it."""
    gradient = jax.value_and_grad(loss_of(scheme, depth, channels))

    def step(params: Any, events: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        loss, gradients = gradient(params, events, labels)
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradients), loss

    return step
