"""What is kept, in bytes: by JAX's own account of a backward pass and by XLA's of a program."""

import functools

import jax
import jax.numpy as jnp
import pytest

from modicum import spiking
from modicum.spiking import Carry, Convolution, Dense, Layer, ReadoutState

NEURONS = 4096


def direct(weights, spikes):
    del weights
    return spikes


def node(mode, neuron):
    """A bare node: the currents are its inputs."""
    layers = (Layer(direct, neuron),)

    def run(currents):
        return spiking.multi_step(layers, ({"synapse": (), "neuron": ()},), currents, residuals=mode)

    return run


@pytest.mark.parametrize("steps", [4, 15, 64])
def test_residuals_of_a_node(steps):
    currents = jax.ShapeDtypeStruct((steps, 1, NEURONS), jnp.float32)
    kept = functools.partial(spiking.residual_bytes)
    reversible = kept(node("reversible", Carry()), currents)
    # the last potential, 16 bits; a few scalars
    assert 2 * NEURONS <= reversible <= 2 * NEURONS + 64
    assert kept(node("packed", spiking.LIF()), currents) == steps * NEURONS // 4
    plain = kept(node("autodiff", Carry()), currents)
    assert plain >= 4 * steps * NEURONS


def test_the_cosine_of_a_sine():
    assert spiking.residual_bytes(lambda x: jnp.sin(x).sum(), jnp.ones(8)) == 32
    assert spiking.residual_bytes(lambda x: (x * x).sum(), jnp.ones(8)) == 0


def small_network():
    layers = (
        Layer(Convolution(features=8, grid_bits=12), Carry()),
        *(Layer(Convolution(features=8, grid_bits=12), Carry()) for _ in range(3)),
        Layer(Dense(features=10, pool=4)),
    )
    return layers, spiking.init(jax.random.key(0), layers, (16, 16, 2))


def peak(mode, steps):
    layers, params = small_network()

    def loss(params, events):
        return spiking.multi_step(layers, params, events, residuals=mode)[0].sum()

    events = jax.ShapeDtypeStruct((steps, 2, 16, 16, 2), jnp.uint8)
    return spiking.peak_bytes(jax.grad(loss), params, events)


def test_reversible_memory_does_not_grow_with_time():
    short, long = peak("reversible", 8), peak("reversible", 128)
    # what grows is the output, 10 numbers a step and image
    assert long - short <= 3 * 120 * 2 * 10 * 4
    assert peak("autodiff", 128) > 10 * long


def test_a_plan_takes_the_fastest_mode_that_fits():
    layers, params = small_network()
    events = jax.ShapeDtypeStruct((64, 2, 16, 16, 2), jnp.uint8)
    rich = spiking.memory_plan(layers, params, events, 1e9)
    assert (rich.residuals, rich.order) == ("packed", "time")
    poor = spiking.memory_plan(layers, params, events, rich.peak_bytes - 1)
    assert poor.residuals == "reversible"
    assert poor.peak_bytes < rich.peak_bytes
    assert [entry[0] for entry in poor.considered] == ["packed", "autodiff", "reversible"]
    with pytest.raises(ValueError, match="budget_bytes must leave room for one of the modes, got 1,000"):
        spiking.memory_plan(layers, params, events, 1000)
    with pytest.raises(ValueError, match="budget_bytes must be above 0"):
        spiking.memory_plan(layers, params, events, 0)


def test_a_readout_remembers_nothing():
    assert spiking.Readout().init_state((3,)) == ReadoutState()
