"""A network as a JAX function, channels last: what `jax.jit` and IREE compile."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from peers.network import Network

Weights = dict[str, dict[str, np.ndarray]]
"""Arrays of each layer, by the value it makes."""


def _pool(x: jax.Array, layer: dict[str, Any]) -> jax.Array:
    window, stride = (1, *layer["window"], 1), (1, *layer["stride"], 1)
    padding = ((0, 0), *(tuple(pads) for pads in layer["padding"]), (0, 0))
    if layer["pool"] == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, stride, padding)
    total = lax.reduce_window(x, 0.0, lax.add, window, stride, padding)
    return total / lax.reduce_window(np.ones(x.shape, np.float32), 0.0, lax.add, window, stride, padding)


def _convolve(x: jax.Array, layer: dict[str, Any], weight: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        weight,
        layer["stride"],
        [tuple(pads) for pads in layer["padding"]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=layer["groups"],
    )


def function(network: Network) -> tuple[Weights, Callable[[Weights, jax.Array], jax.Array]]:
    """The network's arrays, and its function of them and an image `(1, h, w, c)`."""
    names = ("weight", "bias", "scale", "shift")
    weights = {layer["output"]: {name: layer[name] for name in names if name in layer} for layer in network.layers}

    def apply(weights: Weights, image: jax.Array) -> jax.Array:
        values = {network.input: image}
        for layer in network.layers:
            x, *more = (values[name] for name in layer["inputs"])
            own = weights[layer["output"]]
            leading = tuple(range(len(layer["shape"]) - 1))
            match layer["kind"]:
                case "Conv":
                    y = _convolve(x, layer, own["weight"]) + jnp.expand_dims(own["bias"], leading)
                    y = y + more[0] if more else y
                case "Dense":
                    y = x @ own["weight"] + jnp.expand_dims(own["bias"], leading)
                case "Pool":
                    y = _pool(x, layer)
                case "Mean":
                    y = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
                case "Add":
                    y = x + more[0]
                case "Affine":
                    y = x * jnp.expand_dims(own["scale"], leading) + jnp.expand_dims(own["shift"], leading)
                case _:
                    y = jnp.reshape(x, layer["shape"])
            activation = layer.get("activation", "none")
            if activation != "none":
                y = jnp.clip(y, 0.0, 6.0 if activation == "relu6" else None)
            values[layer["output"]] = y
        return values[network.output]

    return weights, apply
