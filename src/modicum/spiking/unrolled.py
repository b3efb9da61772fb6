"""A spiking network over time: one switch for how its backward pass gets at the past."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from modicum.core import Params, check
from modicum.spiking import by_layer, grid
from modicum.spiking.layers import Layer, init_states, network_step, prepared
from modicum.spiking.sweep import Sweep, sweep_over_time

RESIDUALS = ("autodiff", "remat", "sqrt", "packed", "reversible", "reversible_standard")
ORDERS = ("time", "layer")


def multi_step(
    layers: Sequence[Layer],
    params: Sequence[dict[str, Params]],
    inputs: Array,
    states: Sequence[Any] | None = None,
    *,
    residuals: str = "autodiff",
    order: str = "time",
    steps: int | None = None,
) -> tuple[Array, tuple[Any, ...]]:
    """Runs a chain of layers over time. The switch changes memory and time; values and gradients stay the same.

    `packed` and `reversible` give the gradient of `autodiff` bit for bit, on CPUs and by time, where the surrogate's
    values, threshold and leak are powers of two (the defaults) or products with them are otherwise exact; elsewhere
    up to the rounding of sums, whose grouping is the compiler's.

    | residuals | kept for each neuron and step | computed again | needs |
    |---|---|---|---|
    | `autodiff` | what JAX keeps, about 8 bytes | nothing | nothing |
    | `remat` | its state | each step | nothing |
    | `sqrt` | its state at every `sqrt(steps)`-th step | each step | `order="time"` |
    | `packed` | a few bits: spike and derivative of the surrogate | nothing | a surrogate of few levels |
    | `reversible` | nothing (or a ledger of two bits) | each step, from its end | a neuron with an inverse |
    | `reversible_standard` | the same | each step, twice | the same; a baseline to compare with |

    `order="time"` runs all layers for a step, then the next step; synapses are replayed bottom-up, so that strides,
    pooling and any synapse will do. `order="layer"` runs a layer over all steps, then the next layer: its synapses
    see `(steps * batch, ...)` at once, and a synapse may look over time.

    Args:
        layers: the chain.
        params: as `init` returns them, one entry for each layer.
        inputs: spikes, event counts or currents, `(steps, batch, ...)`, floating or whole; one step's `(batch, ...)`
            where `steps` is given.
        states: before the first step; by default each neuron's own.
        residuals: how the backward pass gets at the past.
        order: which loop is outside.
        steps: how often one and the same input is used (direct coding); None where `inputs` has its own axis.

    Returns:
        What the last layer puts out, `(steps, batch, ...)`, and the states after the last step.

    Raises:
        ValueError: if there is no step or no layer, a mode does not exist or does not fit a layer, or `inputs` or
            `params` (where they are no tracers) hold NaN.

    Reference:
        Lei et al., "Towards zero memory footprint spiking neural network training", arXiv 2308.08649 (the reversible
        node and its streamlined backward pass; ours replays layers bottom-up at each step, so that only neurons need
        an inverse); Chen et al., "Training deep nets with sublinear memory cost", 2016 (`sqrt`).
    """
    check.one_of(RESIDUALS, residuals=residuals)
    check.one_of(ORDERS, order=order)
    layers = tuple(layers)
    _check_inputs(inputs, steps)
    weights = prepared(layers, params)
    _check_finite(inputs=inputs, params=params)
    for number, layer in enumerate(layers):
        _check_layer(number, layer, residuals, order)
    if states is None:
        one = jax.ShapeDtypeStruct(inputs.shape if steps else inputs.shape[1:], jnp.float32)
        states = init_states(layers, weights, one)
    elif len(states) != len(layers):
        raise ValueError(f"states must hold one entry for each of {len(layers)} layers, got {len(states)}")
    if order == "layer":
        return by_layer.run(layers, weights, inputs, tuple(states), residuals, steps)
    if residuals in ("packed", "reversible", "reversible_standard"):
        return sweep_over_time(Sweep(layers, residuals, steps), weights, inputs, tuple(states))
    return _with_tape(layers, weights, inputs, tuple(states), residuals, steps)


def _check_inputs(inputs: Array, steps: int | None) -> None:
    if steps is not None:
        check.integer(1, steps=steps)
    elif inputs.ndim < 2 or not inputs.shape[0]:
        raise ValueError(f"inputs must have shape (steps, batch, ...) with at least 1 step, got {inputs.shape}")


def _check_finite(**named: Any) -> None:
    for name, tree in named.items():
        for leaf in jax.tree.leaves(tree):
            if jnp.issubdtype(leaf.dtype, jnp.floating) and not isinstance(leaf, jax.core.Tracer):
                # on the host, for inside jit JAX would trace the test of what is known
                check.finite(**{name: np.asarray(leaf)})


def _check_layer(number: int, layer: Layer, residuals: str, order: str) -> None:
    kind = type(layer.neuron).__name__
    if layer.over_time and order == "time":
        raise ValueError(
            f"order must be 'layer' where a synapse looks over time, as that of layer {number} does, got 'time': "
            f"a step cannot be replayed without the others"
        )
    if order == "layer" and residuals not in ("autodiff", "remat", "packed"):
        raise ValueError(f"residuals must be 'autodiff', 'remat' or 'packed' with order='layer', got {residuals!r}")
    if residuals == "packed" and not getattr(layer.neuron, "packable", False):
        raise ValueError(
            f"residuals='packed' needs neurons whose derivatives fit a few bits, got {kind} in layer {number}: take "
            f"LIF or IF with a Boxcar or Staircase surrogate and a soft or detached reset, or residuals='remat'"
        )
    if residuals.startswith("reversible") and not hasattr(layer.neuron, "invert"):
        raise ValueError(
            f"residuals={residuals!r} needs neurons with an exact inverse, got {kind} in layer {number}: take Carry "
            f"or FixedPointLIF, or residuals='packed' or 'sqrt'"
        )


def _with_tape(
    layers: tuple[Layer, ...], weights: Any, inputs: Array, states: tuple, residuals: str, steps: int | None
) -> tuple[Array, tuple]:
    def body(states: tuple, slice_: Array | None) -> tuple[tuple, Array]:
        spikes = inputs if slice_ is None else slice_
        return network_step(layers, weights, states, grid.floating(spikes))

    length = inputs.shape[0] if steps is None else steps
    slices = inputs if steps is None else None
    if residuals == "autodiff":
        states, outputs = jax.lax.scan(body, states, slices, length=length)
        return outputs, states
    if residuals == "remat":
        states, outputs = jax.lax.scan(jax.checkpoint(body), states, slices, length=length)
        return outputs, states
    return _in_segments(body, states, slices, length)


def _in_segments(body: Any, states: tuple, slices: Array | None, length: int) -> tuple[Array, tuple]:
    """Segments of about `sqrt(length)` steps, of which the states at their starts are kept."""
    segment = math.isqrt(length)
    whole = length // segment * segment

    @functools.partial(jax.checkpoint)
    def run(states: tuple, part: Array | None) -> tuple[tuple, Array]:
        return jax.lax.scan(jax.checkpoint(body), states, part, length=segment)

    parts = None if slices is None else slices[:whole].reshape(whole // segment, segment, *slices.shape[1:])
    states, outputs = jax.lax.scan(run, states, parts, length=whole // segment)
    outputs = outputs.reshape(whole, *outputs.shape[2:])
    if whole < length:
        rest = None if slices is None else slices[whole:]
        states, last = jax.lax.scan(jax.checkpoint(body), states, rest, length=length - whole)
        outputs = jnp.concatenate([outputs, last])
    return outputs, states
