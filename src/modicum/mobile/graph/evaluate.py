"""The layers of a graph in JAX: what they mean, and what runs where nothing faster does."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from modicum.core import check
from modicum.mobile.graph.layers import (
    ACTIVATIONS,
    Add,
    Affine,
    Conv,
    Dense,
    Graph,
    Gru,
    Layer,
    Mean,
    Other,
    Pool,
    Reshape,
)


def run(graph: Graph, x: Float[Array | np.ndarray, " b *axes"]) -> Float[Array, " *out"]:
    """The output of a graph; may be jitted with the graph closed over.

    Args:
        graph: what `trace` or `fuse` made.
        x: the input, of the graph's `input_shape`.

    Raises:
        ValueError: if `x` has another shape, or a layer is of a kind that is not known here.
    """
    check.shape(graph.input_shape, x=x)
    values = {graph.input: jnp.asarray(x)}
    for step in graph.layers:
        values[step.output] = layer(step, *(values[name] for name in step.inputs))
    return values[graph.output]


def layer(step: Layer, *values: Array) -> Array:
    """The output of one layer.

    Args:
        step: the layer.
        *values: what it reads.

    Raises:
        ValueError: if the layer is of a kind that is not known here.
    """
    evaluate = _EVALUATORS.get(type(step))
    if evaluate is None:
        raise ValueError(f"graph must hold layers of known kinds, got {type(step).__name__} {step.name}")
    return evaluate(step, *values)


def _activate(activation: str, x: Array) -> Array:
    check.one_of(ACTIVATIONS, activation=activation)
    return _ACTIVATIONS[activation](x)


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: jnp.maximum(x, 0),
    "relu6": lambda x: jnp.clip(x, 0, 6),
}


def _per_channel(vector: Any, like: Array) -> Array:
    """A vector with as many axes as what it is combined with: nothing here broadcasts silently."""
    return jnp.asarray(vector).reshape((1,) * (like.ndim - 1) + (-1,))


def _scaled(layer: Conv | Dense, x: Array) -> Array:
    scaled = x if layer.scale is None else x * _per_channel(layer.scale, x)
    return scaled + _per_channel(layer.bias, x)


def _conv(layer: Conv, x: Array, residual: Array | None = None) -> Array:
    out = lax.conv_general_dilated(
        x,
        jnp.asarray(layer.weight),
        layer.stride,
        layer.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=layer.groups,
    )
    out = _scaled(layer, out)
    return _activate(layer.activation, out if residual is None else out + residual)


def _dense(layer: Dense, x: Array) -> Array:
    return _activate(layer.activation, _scaled(layer, jnp.dot(x, jnp.asarray(layer.weight))))


def _pool(layer: Pool, x: Array) -> Array:
    check.one_of(("max", "mean"), kind=layer.kind)
    window, stride = (1, *layer.window, 1), (1, *layer.stride, 1)
    padding = ((0, 0), *layer.padding, (0, 0))
    if layer.kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, stride, padding)
    total = lax.reduce_window(x, 0.0, lax.add, window, stride, padding)
    count = lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1), x.dtype), 0.0, lax.add, window, stride, padding)
    return total / count


def _mean(_: Mean, x: Array) -> Array:
    return x.mean(range(1, x.ndim - 1))


def _add(layer: Add, x: Array, y: Array) -> Array:
    return _activate(layer.activation, x + y)


def _affine(layer: Affine, x: Array) -> Array:
    return _activate(layer.activation, x * _per_channel(layer.scale, x) + _per_channel(layer.shift, x))


def _reshape(layer: Reshape, x: Array) -> Array:
    return x.reshape(layer.shape)


def _gru(layer: Gru, x: Array) -> Array:
    width = layer.recurrent_kernel.shape[0]
    driven = jnp.dot(x, jnp.asarray(layer.input_kernel))
    driven = driven + _per_channel(layer.input_bias, driven)

    def step(state: Array, driven: Array) -> tuple[Array, Array]:
        returned = jnp.dot(state, jnp.asarray(layer.recurrent_kernel))
        gates = jax.nn.sigmoid((driven + returned)[:, : 2 * width])
        reset, update = gates[:, :width], gates[:, width:]
        returned = returned[:, 2 * width :] + _per_channel(layer.candidate_bias, state)
        candidate = jnp.tanh(driven[:, 2 * width :] + reset * returned)
        state = (1 - update) * candidate + update * state
        return state, state

    _, states = lax.scan(step, jnp.zeros((x.shape[0], width), x.dtype), jnp.moveaxis(driven, 1, 0))
    return jnp.moveaxis(states, 0, 1)


def _other(layer: Other, *read: Array) -> Array:
    return layer.function(*read)


_EVALUATORS: dict[type[Layer], Callable[..., Array]] = {
    Conv: _conv,
    Dense: _dense,
    Pool: _pool,
    Mean: _mean,
    Add: _add,
    Affine: _affine,
    Reshape: _reshape,
    Gru: _gru,
    Other: _other,
}
