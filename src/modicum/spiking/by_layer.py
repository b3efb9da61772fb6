"""A spiking network layer by layer: each synapse sees all time steps at once, each neuron runs over them alone."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from modicum.spiking import cotangents, grid
from modicum.spiking.convolutions import computed_after
from modicum.spiking.layers import Layer, PackableNeuron
from modicum.spiking.synapses import differentiable


@dataclass(frozen=True)
class _Chain:
    layers: tuple[Layer, ...]
    steps: int | None


def run(
    layers: tuple[Layer, ...], weights: Any, inputs: Array, states: tuple, residuals: str, steps: int | None
) -> tuple[Array, tuple]:
    """All time steps of a layer, then the next layer; arguments as `multi_step` has them, checked.

    `packed` is one custom derivative for the whole chain, since the spikes between two layers are to be kept as bits.
    """
    inputs = grid.floating(inputs)
    if residuals == "packed":
        return _packed(_Chain(layers, steps), weights, inputs, states)
    after, spikes = [], inputs
    for number, (layer, weight, state) in enumerate(zip(layers, weights, states, strict=True)):
        repeats = steps if number == 0 else None
        layer_fun = functools.partial(one_layer, layer, repeats)
        spikes, state = (jax.checkpoint(layer_fun) if residuals == "remat" else layer_fun)(weight, spikes, state)
        after.append(state)
    return spikes, tuple(after)


def one_layer(layer: Layer, repeats: int | None, weight: Any, spikes: Array, state: Any) -> tuple[Array, Any]:
    """A layer over all time steps, with JAX's own derivative: its spikes, and the state after the last step."""
    currents = _currents(layer, weight[0], spikes, repeats)

    def body(state: Any, current: Array) -> tuple[Any, Array]:
        return layer.neuron.step(weight[1], state, current)

    state, spikes = jax.lax.scan(body, state, currents)
    return spikes, state


def _currents(layer: Layer, weight: Any, spikes: Array, repeats: int | None) -> Array:
    """`(steps, batch, ...)`; where one input is repeated, one product serves all steps."""
    synapse = differentiable(layer.synapse)
    if repeats is not None and not layer.over_time:
        current = synapse(weight, spikes)
        return jnp.broadcast_to(current[None], (repeats, *current.shape))
    if repeats is not None:
        spikes = jnp.broadcast_to(spikes[None], (repeats, *spikes.shape))
    if layer.over_time:
        return synapse(weight, spikes)
    steps, batch = spikes.shape[:2]
    current = synapse(weight, spikes.reshape(steps * batch, *spikes.shape[2:]))
    return current.reshape(steps, batch, *current.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _packed(chain: _Chain, weights: Any, inputs: Array, states: tuple) -> tuple[Array, tuple]:
    outputs, after, _ = _recorded(chain, weights, inputs, states)
    return outputs, after


def _recorded(chain: _Chain, weights: Any, inputs: Array, states: tuple) -> tuple[Array, tuple, tuple]:
    after, notes, spikes = [], [], inputs
    for number, (layer, weight, state) in enumerate(zip(chain.layers, weights, states, strict=True)):
        currents = _currents(layer, weight[0], spikes, chain.steps if number == 0 else None)
        own: Any = layer.neuron
        spikes, state, note = _record(own, weight[1], currents, state)
        after.append(state)
        notes.append(note)
    return spikes, tuple(after), tuple(notes)


def _record(neuron: PackableNeuron, params: Any, currents: Array, state: Any) -> tuple[Array, Any, Any]:
    """A neuron over time: its spikes, its last state, and the bits its backward pass reads."""

    def step(state: Any, current: Array) -> tuple[Any, Array, Any]:
        state, spikes, residual = neuron.record(params, state, current)
        return state, spikes, grid.noted(residual, neuron.residual_bits)

    steps = currents.shape[0]
    note_shapes = jax.eval_shape(step, state, currents[0])[2]
    notes = jax.tree.map(lambda note: _room((steps, *note.shape), note.dtype, currents), note_shapes)

    def body(number: Array, carry: tuple) -> tuple:
        state, spikes, notes = carry
        state, spikes_now, note = step(state, currents[number])
        notes = jax.tree.map(lambda whole, part: whole.at[number].set(part), notes, note)
        return state, spikes.at[number].set(spikes_now), notes

    start = (state, _room(currents.shape, currents.dtype, currents), notes)
    state, spikes, notes = jax.lax.fori_loop(0, steps, body, start)
    return spikes, state, notes


def _room(shape: tuple[int, ...], dtype: Any, after: Array) -> Array:
    """Memory to be written, to be had only once `after` is computed.

    `jax.lax.scan` starts from zeros that depend on nothing, which XLA's CPU scheduler lays out for all layers in
    advance, and keeps them all.
    """
    return jnp.broadcast_to(computed_after(after, jnp.zeros((), dtype)), shape)


def _packed_fwd(chain: _Chain, weights: Any, inputs: Array, states: tuple) -> tuple[Any, Any]:
    outputs, after, notes = _recorded(chain, weights, inputs, states)
    return (outputs, after), (weights, inputs, notes)


def _packed_bwd(chain: _Chain, kept: Any, given: Any) -> tuple[Any, Array, tuple]:
    weights, inputs, notes = kept
    cotangent, after_cotangents = given
    parts, before = [], []
    for number in reversed(range(len(chain.layers))):
        layer, (weight, params) = chain.layers[number], weights[number]
        own: Any = layer.neuron
        currents, params_part, state_cotangent = _neuron_back(
            own, params, notes[number], after_cotangents[number], cotangent
        )
        if number:
            neuron: Any = chain.layers[number - 1].neuron
            spikes = neuron.spikes(
                grid.recalled(notes[number - 1], neuron.residual_bits, _width(after_cotangents[number - 1]))
            )
        else:
            spikes = inputs
        repeats = chain.steps if number == 0 else None
        _, pull = jax.vjp(
            lambda weight, spikes, layer=layer, repeats=repeats: _currents(layer, weight, spikes, repeats),
            weight,
            spikes,
        )
        weight_part, cotangent = pull(currents)
        parts.append((weight_part, params_part))
        before.append(state_cotangent)
    return tuple(parts[::-1]), cotangent, tuple(before[::-1])


def _width(state: Any) -> int:
    return jax.tree.leaves(state)[0].shape[-1]


def _neuron_back(
    neuron: PackableNeuron, params: Any, notes: Any, state_cotangent: Any, cotangent: Array
) -> tuple[Array, Any, Any]:
    steps, length = cotangent.shape[0], cotangent.shape[-1]

    def body(done: Array, carry: tuple) -> tuple:
        state_cotangent, total, currents = carry
        number = steps - 1 - done
        now = jax.tree.map(lambda whole: whole[number], notes)
        residual = grid.recalled(now, neuron.residual_bits, length)
        part, state_cotangent, current = neuron.backward(params, residual, state_cotangent, cotangent[number])
        return state_cotangent, cotangents.added(total, part), currents.at[number].set(current)

    start = (state_cotangent, cotangents.zeros(params), _room(cotangent.shape, cotangent.dtype, cotangent))
    state_cotangent, total, currents = jax.lax.fori_loop(0, steps, body, start)
    return currents, cotangents.complete(total, params), state_cotangent


_packed.defvjp(_packed_fwd, _packed_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def packed_neuron(neuron: PackableNeuron, params: Any, currents: Array, state: Any) -> tuple[Array, Any]:
    """Neurons over time whose backward pass reads a few bits a step: a part for networks that are no chain.

    Args:
        neuron: `packable`.
        params: its parameters.
        currents: `(steps, batch, ...)`.
        state: before the first step.

    Returns:
        Spikes, `(steps, batch, ...)`, and the state after the last step.
    """
    spikes, state, _ = _record(neuron, params, currents, state)
    return spikes, state


def _neuron_fwd(neuron: PackableNeuron, params: Any, currents: Array, state: Any) -> tuple[Any, Any]:
    spikes, state, notes = _record(neuron, params, currents, state)
    return (spikes, state), (params, notes)


def _neuron_bwd(neuron: PackableNeuron, kept: Any, given: Any) -> tuple[Any, Array, Any]:
    spikes_cotangent, state_cotangent = given
    params, notes = kept
    currents, params_part, state_cotangent = _neuron_back(neuron, params, notes, state_cotangent, spikes_cotangent)
    return params_part, currents, state_cotangent


packed_neuron.defvjp(_neuron_fwd, _neuron_bwd)
