"""Backpropagation through time without a tape: the sweep back computes again what it needs, or reads a few bits."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from modicum.spiking import cotangents, grid
from modicum.spiking.apart import apart
from modicum.spiking.layers import Layer, network_step

Weights = tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Sweep:
    """The static half of a run.

    Attributes:
        layers: the chain.
        mode: "packed", "reversible" or "reversible_standard".
        steps: how many time steps where one input serves all; None where inputs have a leading axis of steps.
    """

    layers: tuple[Layer, ...]
    mode: str
    steps: int | None


def _able(layer: Layer) -> Any:
    """The neuron, of which `multi_step` made sure that it can do what the mode asks."""
    return layer.neuron


def _bits(layer: Layer, mode: str) -> int:
    return _able(layer).residual_bits if mode == "packed" else _able(layer).ledger_bits


def _store(layer: Layer, mode: str, state: Any) -> Any:
    return state if mode == "packed" else _able(layer).store(state)


def _load(layer: Layer, mode: str, stored: Any) -> Any:
    return stored if mode == "packed" else _able(layer).load(stored)


def _forward_step(sweep: Sweep, weights: Weights, stored: tuple, spikes: Array) -> tuple[tuple, Array, tuple]:
    after, notes = [], []
    for layer, (weight, params), kept in zip(sweep.layers, weights, stored, strict=True):
        current = layer.synapse(weight, spikes)
        state = _load(layer, sweep.mode, kept)
        move = _able(layer).record if sweep.mode == "packed" else _able(layer).forward
        state, spikes, note = move(params, state, current)
        after.append(_store(layer, sweep.mode, state))
        notes.append(grid.noted(note, _bits(layer, sweep.mode)))
    return tuple(after), spikes, tuple(notes)


def _run(sweep: Sweep, weights: Weights, inputs: Array, states: tuple) -> tuple[Array, tuple, tuple]:
    stored = tuple(_store(layer, sweep.mode, state) for layer, state in zip(sweep.layers, states, strict=True))

    def body(stored: tuple, slice_: Any) -> tuple[tuple, tuple]:
        stored, outputs, notes = _forward_step(
            sweep, weights, stored, grid.floating(inputs if slice_ is None else slice_)
        )
        return stored, (outputs, notes)

    sliced = inputs if sweep.steps is None else None
    stored, (outputs, notes) = jax.lax.scan(body, stored, sliced, length=sweep.steps)
    return outputs, stored, notes


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sweep_over_time(sweep: Sweep, weights: Weights, inputs: Array, states: tuple) -> tuple[Array, tuple]:
    """Runs the chain over time; its backward pass keeps no tape.

    Args:
        sweep: the chain, and how its backward pass gets at what it needs.
        weights: as `layers.prepared` returns them.
        inputs: `(steps, batch, ...)`, or one step's where `sweep.steps` says how often it is used.
        states: of the layers, before the first step.

    Returns:
        Outputs of the last layer, `(steps, ...)`, and the states after the last step.
    """
    outputs, stored, _ = _run(sweep, weights, inputs, states)
    return outputs, _loaded(sweep, stored)


def _loaded(sweep: Sweep, stored: tuple) -> tuple:
    return tuple(_load(layer, sweep.mode, kept) for layer, kept in zip(sweep.layers, stored, strict=True))


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Needed:
    """Whether somebody asks for the gradient with respect to the inputs."""

    inputs: bool


def _fwd(sweep: Sweep, weights: Any, inputs: Any, states: Any) -> tuple[Any, Any]:
    values = jax.tree.map(
        lambda primal: primal.value,
        (weights, inputs, states),
        is_leaf=lambda leaf: isinstance(leaf, jax.custom_derivatives.CustomVJPPrimal),
    )
    outputs, stored, notes = _run(sweep, *values)
    needed = _Needed(bool(inputs.perturbed) and jnp.issubdtype(values[1].dtype, jnp.floating))
    # states before are never read again; their shapes are those of the loaded ones
    return (outputs, _loaded(sweep, stored)), (values[0], values[1], stored, notes, needed)


def _materialized(cotangents: Any) -> Any:
    zero = jax.custom_derivatives.SymbolicZero

    def full(cotangent: Any) -> Any:
        if isinstance(cotangent, zero):
            dtype: Any = cotangent.dtype
            return jnp.zeros(cotangent.shape, dtype)
        return cotangent

    return jax.tree.map(full, cotangents, is_leaf=lambda leaf: isinstance(leaf, zero))


def _bwd(sweep: Sweep, kept: Any, given: Any) -> tuple[Any, Any, Any]:
    weights, inputs, stored, notes, needed = kept
    outputs_cotangent, states_cotangent = _materialized(given)
    step = _standard_step if sweep.mode == "reversible_standard" else _streamlined_step
    constant = sweep.steps is not None

    def body(carry: Any, slice_: Any) -> tuple[Any, Any]:
        stored, states_cotangent, totals = carry
        number, spikes, note, cotangent = slice_
        spikes = grid.floating(inputs if constant else spikes)
        stored, states_cotangent, parts, inputs_cotangent = step(
            sweep, number, weights, stored, spikes, note, states_cotangent, cotangent, needed.inputs
        )
        if constant and needed.inputs:
            return (stored, states_cotangent, cotangents.added(totals, (parts, inputs_cotangent))), None
        return (stored, states_cotangent, (cotangents.added(totals[0], parts), totals[1])), inputs_cotangent

    zeros = cotangents.zeros(weights), jnp.zeros_like(inputs) if constant and needed.inputs else None
    numbers = jnp.arange(outputs_cotangent.shape[0])
    slices = (numbers, None if constant else inputs, notes, outputs_cotangent)
    (_, states_cotangent, totals), by_step = jax.lax.scan(body, (stored, states_cotangent, zeros), slices, reverse=True)
    weights_cotangent = cotangents.complete(totals[0], weights)
    if not needed.inputs:
        return weights_cotangent, None, states_cotangent
    return weights_cotangent, totals[1] if constant else by_step, states_cotangent


sweep_over_time.defvjp(_fwd, _bwd, symbolic_zeros=True)


def _replay(sweep: Sweep, weights: Weights, stored: tuple, spikes: Array, notes: tuple) -> tuple[tuple, list, list]:
    """Bottom-up: the states before the step, what `backward` needs, and the pull-backs of synapses without `pull`."""
    before, residuals, pulls = [], [], []
    for layer, (weight, params), kept, note in zip(sweep.layers, weights, stored, notes, strict=True):
        if hasattr(layer.synapse, "pull"):
            current, pull = layer.synapse(weight, spikes), None
        else:
            current, pull = jax.vjp(layer.synapse, weight, spikes)
        ledger = grid.recalled(note, _bits(layer, sweep.mode), current.shape[-1])
        state, residual = _able(layer).invert(params, _load(layer, sweep.mode, kept), current, ledger)
        before.append(_store(layer, sweep.mode, state))
        residuals.append(residual)
        pulls.append(pull)
        if layer is not sweep.layers[-1]:
            spikes = _able(layer).spikes(residual)
    return tuple(before), residuals, pulls


def _recalled(sweep: Sweep, weights: Weights, spikes: Array, notes: tuple, lengths: list[int]) -> tuple[list, list]:
    """What `backward` needs, read from the bits; and the pull-backs of synapses without `pull`."""
    residuals, pulls = [], []
    for layer, (weight, _), note, length in zip(sweep.layers, weights, notes, lengths, strict=True):
        pulls.append(None if hasattr(layer.synapse, "pull") else jax.vjp(layer.synapse, weight, spikes)[1])
        residuals.append(grid.recalled(note, _bits(layer, sweep.mode), length))
        if layer is not sweep.layers[-1]:
            spikes = _able(layer).spikes(residuals[-1])
    return residuals, pulls


def _streamlined_step(
    sweep: Sweep,
    number: Array,
    weights: Weights,
    stored: tuple,
    spikes: Array,
    notes: tuple,
    states_cotangent: tuple,
    cotangent: Array,
    inputs_needed: bool,
) -> tuple[tuple, tuple, tuple, Array | None]:
    """One step back: the recomputation is the inverse's own, and the derivatives are written by hand."""
    del number
    if sweep.mode == "packed":
        lengths = _row_lengths(states_cotangent, cotangent)
        residuals, pulls = _recalled(sweep, weights, spikes, notes, lengths)
    else:
        stored, residuals, pulls = _replay(sweep, weights, stored, spikes, notes)
    parts, before = [], []
    for place in reversed(range(len(sweep.layers))):
        layer, (weight, params) = sweep.layers[place], weights[place]
        synapse: Any = layer.synapse
        params_part, state_cotangent, current_cotangent = _able(layer).backward(
            params, residuals[place], states_cotangent[place], cotangent
        )
        needed = place > 0 or inputs_needed
        if pulls[place] is None:
            incoming = _able(sweep.layers[place - 1]).spikes(residuals[place - 1]) if place else spikes
            weight_part, cotangent = synapse.pull(weight, incoming, current_cotangent, needed)
        else:
            weight_part, cotangent = pulls[place](current_cotangent)
        parts.append((weight_part, params_part))
        before.append(state_cotangent)
    return stored, tuple(before[::-1]), tuple(parts[::-1]), cotangent if inputs_needed else None


def _row_lengths(states_cotangent: tuple, cotangent: Array) -> list[int]:
    """Neurons along the last axis of each layer: those of its state, or of the output where it has none."""
    leaves = [jax.tree.leaves(state) for state in states_cotangent]
    return [parts[0].shape[-1] if parts else cotangent.shape[-1] for parts in leaves]


def _standard_step(
    sweep: Sweep,
    number: Array,
    weights: Weights,
    stored: tuple,
    spikes: Array,
    notes: tuple,
    states_cotangent: tuple,
    cotangent: Array,
    inputs_needed: bool,
) -> tuple[tuple, tuple, tuple, Array | None]:
    """One step back as reversible layers usually make it: invert, run forward again with a tape, pull back."""
    stored = apart(number, lambda *given: _replay(sweep, *given)[0], weights, stored, spikes, notes)
    states = _loaded(sweep, stored)
    if inputs_needed:
        _, pull = jax.vjp(functools.partial(network_step, sweep.layers), weights, states, spikes)
        weights_part, before, inputs_cotangent = pull((states_cotangent, cotangent))
    else:
        _, pull = jax.vjp(lambda weights, states: network_step(sweep.layers, weights, states, spikes), weights, states)
        weights_part, before = pull((states_cotangent, cotangent))
        inputs_cotangent = None
    return stored, before, weights_part, inputs_cotangent
