"""What a spiking network does: spikes and potentials of every layer, rates, synaptic operations and their energy."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from modicum.core import Params
from modicum.spiking.layers import Layer, init_states, prepared

ACCUMULATE_JOULES = 0.9e-12
MULTIPLY_ACCUMULATE_JOULES = 4.6e-12
"""A 32-bit floating-point addition, and a multiplication with one, in 45 nm: Horowitz, "Computing's energy problem",
ISSCC 2014."""


class Activity(NamedTuple):
    """Everything that happened, layer by layer.

    Attributes:
        inputs: what came into each layer, `(steps, batch, ...)`.
        spikes: what each layer put out.
        states: the states after each step.
    """

    inputs: tuple[Array, ...]
    spikes: tuple[Array, ...]
    states: tuple[Any, ...]


class LayerActivity(NamedTuple):
    """One row of a report.

    Attributes:
        layer: its number.
        neurons: of one example.
        spike_rate: spikes for each neuron and step, their sizes counted where they are graded.
        silent: share of neurons that never fired.
        operations: synaptic operations of one example over all steps: additions where spikes come in, else
            multiplications with additions.
        dense_operations: multiplications with additions of the same layer in a network that is no spiking one.
        joules: of the operations.
        dense_joules: of the dense ones.
    """

    layer: int
    neurons: int
    spike_rate: float
    silent: float
    operations: float
    dense_operations: float
    joules: float
    dense_joules: float


def record_activity(
    layers: Sequence[Layer], params: Sequence[dict[str, Params]], inputs: Array, *, steps: int | None = None
) -> Activity:
    """Runs the chain and keeps everything; for looking, not for training.

    Args:
        layers: the chain, none of whose synapses looks over time.
        params: as `multi_step` takes them.
        inputs: as `multi_step` takes them.
        steps: likewise.

    Raises:
        ValueError: if a synapse looks over time.
    """
    for number, layer in enumerate(layers):
        if layer.over_time:
            raise ValueError(
                f"synapse of layer {number} must look at one step to be recorded step by step, got one that looks over "
                f"time, {type(layer.synapse).__name__}: what is Normalized can be folded first (`fold`)"
            )
    weights = prepared(layers, params)
    sequence = jnp.broadcast_to(inputs[None], (steps, *inputs.shape)) if steps else inputs
    sequence = sequence.astype(jnp.float32)

    def body(states: tuple, spikes: Array) -> tuple[tuple, tuple]:
        after, came, went = [], [], []
        for layer, (weight, neuron_params), state in zip(layers, weights, states, strict=True):
            came.append(spikes)
            state, spikes = layer.neuron.step(neuron_params, state, layer.synapse(weight, spikes))
            after.append(state)
            went.append(spikes)
        return tuple(after), (tuple(came), tuple(went), tuple(after))

    start = init_states(layers, weights, jax.ShapeDtypeStruct(sequence.shape[1:], jnp.float32))
    _, (came, went, states) = jax.lax.scan(body, start, sequence)
    return Activity(came, went, states)


def activity_report(
    layers: Sequence[Layer], params: Sequence[dict[str, Params]], inputs: Array, *, steps: int | None = None
) -> tuple[LayerActivity, ...]:
    """Rates, synaptic operations and energy of every layer, means over the batch.

    A synaptic operation is one addition of a weight because a spike came in: each spike counts once for each weight
    it meets, borders included exactly. A layer whose inputs are no whole numbers (an image as a current, pooled
    spikes) multiplies. Moving data is not counted, on either side.

    Args:
        layers: the chain; synapses need weights with a `kernel`, as `Convolution` and `Dense` have.
        params: as `multi_step` takes them.
        inputs: likewise.
        steps: likewise.

    Raises:
        ValueError: if a synapse has no `kernel`.
    """
    activity = record_activity(layers, params, inputs, steps=steps)
    rows = []
    for number, (layer, (weight, _)) in enumerate(zip(layers, prepared(layers, params), strict=True)):
        if not isinstance(weight, dict) or "kernel" not in weight:
            raise ValueError(
                f"synapse of layer {number} must have a kernel to count its operations, got {layer.synapse!r}"
            )
        rows.append(_row(number, layer, weight, activity))
    return tuple(rows)


def _row(number: int, layer: Layer, weight: dict[str, Array], activity: Activity) -> LayerActivity:
    came, went = activity.inputs[number], np.asarray(activity.spikes[number])
    steps, batch = came.shape[:2]
    counting = {"kernel": jnp.ones_like(weight["kernel"])}
    flat = came.reshape(steps * batch, *came.shape[2:])

    def met(values: Array) -> float:
        """How many weights the nonzero values meet; windows that are pooled count once where any of them is not 0."""
        return float(jnp.round(jnp.sum(layer.synapse(counting, values))))

    whole = bool(jnp.all(came == jnp.round(came))) and getattr(layer.synapse, "pool", 1) == 1
    dense = met(jnp.ones_like(flat[:1]))
    operations = met((flat != 0).astype(jnp.float32)) / batch if whole else dense * steps
    cost = ACCUMULATE_JOULES if whole else MULTIPLY_ACCUMULATE_JOULES
    return LayerActivity(
        layer=number,
        neurons=int(went[0, 0].size),
        spike_rate=float(np.abs(went).mean()),
        silent=float((np.abs(went).sum(0) == 0).mean()),
        operations=operations,
        dense_operations=dense,
        joules=operations * cost,
        dense_joules=dense * MULTIPLY_ACCUMULATE_JOULES,
    )
