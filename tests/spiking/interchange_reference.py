"""Networks to write as NIR, and NIR's documented equations in NumPy, which know nothing of how we read or write it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from modicum.spiking.layers import Layer, init, init_states, network_step, prepared
from modicum.spiking.synapses import Convolution, Dense

SHAPE = (8, 8, 2)


def network(first, second, **settings):
    return (
        Layer(Convolution(features=5, kernel=3, **settings), first),
        Layer(Convolution(features=4, kernel=5, pool=2, bias=True, **settings), second),
        Layer(Dense(features=7, pool=2, bias=True, **settings), first),
        Layer(Dense(features=3, **settings)),
    )


def parameters(layers, shape=SHAPE, seed=0):
    """Drawn as `init` does, but by NumPy, all other than 0, and towards spikes in every layer."""
    rng = np.random.default_rng(seed)

    def drawn(name, leaf):
        if name == "gain":
            return jnp.full(leaf.shape, 3.0)
        weights = rng.normal(0.25, 1, leaf.shape) * 2 / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(0.25 * abs(weights) if name == "bias" else weights, jnp.float32)

    shapes = jax.eval_shape(lambda: init(jax.random.key(0), layers, shape))
    return tuple(
        {"synapse": {n: drawn(n, leaf) for n, leaf in entry["synapse"].items()}, "neuron": layer.neuron.init_params()}
        for layer, entry in zip(layers, shapes, strict=True)
    )


def spikes(steps=12, batch=3, shape=SHAPE, seed=1):
    return np.asarray(np.random.default_rng(seed).random((steps, batch, *shape)) < 0.4, np.float32)


@functools.partial(jax.jit, static_argnums=0)
def run(layers, weights, inputs):
    """What each layer puts out, `(steps, batch, ...)`: all spike trains, and the readout."""

    def body(states, spikes):
        after, trains = [], []
        for layer, weight, state in zip(layers, weights, states, strict=True):
            states, spikes = network_step((layer,), (weight,), (state,), spikes)
            after, trains = [*after, *states], [*trains, spikes]
        return tuple(after), trains

    return jax.lax.scan(body, init_states(layers, weights, inputs[0]), inputs)[1]


def outputs(layers, params, inputs):
    return [np.asarray(train) for train in run(tuple(layers), prepared(layers, params), inputs)]


def kind(node):
    return type(node).__name__


def correlate(images, node):
    """torch's Conv2d of one image `(channels, height, width)`: stride 1, by loops over taps."""
    weight = node.weight.astype(np.float64)
    up, left = node.padding if node.padding != "same" else (weight.shape[2] // 2, weight.shape[3] // 2)
    padded = np.pad(images, ((0, 0), (up, up), (left, left)))
    height, width = padded.shape[1] - weight.shape[2] + 1, padded.shape[2] - weight.shape[3] + 1
    total = np.zeros((len(weight), height, width)) + node.bias[:, None, None]
    for row in range(weight.shape[2]):
        for column in range(weight.shape[3]):
            window = padded[:, row : row + height, column : column + width]
            total += np.tensordot(weight[:, :, row, column], window, 1)
    return total


def averaged(images, node):
    (high, wide), (channels, height, width) = node.kernel_size, images.shape
    assert (node.stride == node.kernel_size).all()
    assert not node.padding.any()
    return images.reshape(channels, height // high, high, width // wide, wide).mean((2, 4))


def simulated(graph, inputs, dt, reset):
    """NIR's documented equations of a chain in float64, forward Euler, for one example `(steps, channels, ...)`."""
    following = dict(graph.edges)
    potential, trains = {}, {}
    for value in inputs.astype(np.float64):
        name = "input"
        while (name := following[name]) != "output":
            node = graph.nodes[name]
            match kind(node):
                case "Conv2d":
                    value = correlate(value, node)
                case "AvgPool2d":
                    value = averaged(value, node)
                case "Flatten":
                    value = value.reshape(-1)
                case "Linear":
                    value = node.weight @ value
                case "Affine":
                    value = node.weight @ value + node.bias
                case "LIF" | "IF":
                    v = potential.get(name, np.zeros(value.shape))
                    if kind(node) == "LIF":
                        v = v + dt / node.tau.astype(np.float64) * ((node.v_leak - v) + node.r * value)
                    else:
                        v = v + dt * (node.r * value)
                    value = (v > node.v_threshold) * 1.0
                    soft = v - node.v_threshold * value
                    potential[name] = np.where(value > 0, node.v_reset, v) if reset == "hard" else soft
            trains.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in trains.items()}
