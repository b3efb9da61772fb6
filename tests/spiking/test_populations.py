"""The backward pass from a few bits: autodiff's, bit by bit; and who cannot have it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.spiking.neurons import LifState
from modicum.spiking.populations import IF, LIF
from modicum.spiking.smooth_surrogates import Arctan, FastSigmoid, Triangular
from modicum.spiking.surrogates import Boxcar, Staircase
from tests.spiking.reference import run

SURROGATES = [Boxcar(), Boxcar(0.7, 0.5), Staircase(), Staircase(8, 2.0)]
PACKABLE = [
    make(threshold=threshold, reset=reset, detach_reset=detach, surrogate=surrogate)
    for make, surrogate in [(functools.partial(LIF, 0.9), each) for each in SURROGATES] + [(IF, SURROGATES[0])]
    for threshold, reset, detach in ((2.0, "soft", False), (0.5, "soft", True), (1.0, "hard", True))
]


def same_bits(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one).view(np.uint32), np.asarray(other).view(np.uint32))


@pytest.mark.parametrize("neuron", PACKABLE, ids=str)
def test_backward_is_autodiff_bit_by_bit(neuron):
    def autodiff(v, current, after, ds):
        out, pull = jax.vjp(lambda state, current: neuron.step((), state, current), LifState(v), current)
        return out, pull((LifState(after), ds))

    # three programs, as forward and backward pass are; several shapes in each, for the sake of compile time
    autodiff, record, backward = (
        jax.jit(lambda *lists, one=one: [one(*each) for each in zip(*lists, strict=True)])
        for one in (
            autodiff,
            lambda v, current: neuron.record((), LifState(v), current),
            lambda residual, after, ds: neuron.backward((), residual, LifState(after), ds),
        )
    )
    rng = np.random.default_rng(4)
    v, current, after, ds = (
        [jnp.asarray(rng.normal(0, 1.5, shape), jnp.float32) for shape in ((), (259,), (4, 7, 9))] for _ in range(4)
    )
    want = autodiff(v, current, after, ds)
    recorded = record(v, current)
    by_hand = backward([residual for _, _, residual in recorded], after, ds)
    for (state, spikes, residual), got, (want_out, want_cotangents) in zip(recorded, by_hand, want, strict=True):
        params, before, by_current = got
        assert params == ()
        assert residual.dtype == jnp.uint8
        assert residual.shape == spikes.shape
        assert np.asarray(residual).max() < 2**neuron.residual_bits
        # a compiler may or may not round leak * V before the sum, program by program
        np.testing.assert_allclose(state.membrane_potential, want_out[0].membrane_potential, rtol=1e-6, atol=1e-6)
        same_bits(spikes, want_out[1])
        same_bits(neuron.spikes(residual), spikes)
        same_bits((before, by_current), want_cotangents)


@pytest.mark.parametrize("neuron", PACKABLE[::4], ids=str)
def test_backward_over_time_is_autodiff_bit_by_bit(neuron):
    currents, weights = jax.random.normal(jax.random.key(5), (2, 25, 33))
    state = neuron.init_state((33,))
    want = jax.jit(jax.grad(lambda currents: (run(neuron, (), state, currents)[1] * weights).sum()))(currents)

    @jax.jit
    def by_hand(currents):
        def forth(state, current):
            state, _, residual = neuron.record((), state, current)
            return state, residual

        def back(state_cotangent, slice_):
            _, state_cotangent, current_cotangent = neuron.backward((), slice_[0], state_cotangent, slice_[1])
            return state_cotangent, current_cotangent

        _, residuals = jax.lax.scan(forth, state, currents)
        return jax.lax.scan(back, neuron.init_state((33,)), (residuals, weights), reverse=True)[1]

    same_bits(by_hand(currents), want)
    assert np.asarray(want).any()


def test_residual_is_the_spike_and_the_code():
    neuron = LIF(0.5, 1.0, surrogate=Staircase(4))
    state, current = LifState(jnp.array([0.0, 0.0, 0.0, 0.0])), jnp.array([0.0, 0.5, 1.0, 1.5])
    _, spikes, residual = neuron.record((), state, current)
    assert spikes.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert residual.tolist() == [0b000, 0b100, 0b111, 0b101]
    assert [LIF(surrogate=surrogate).residual_bits for surrogate in SURROGATES] == [2, 2, 4, 4]


@pytest.mark.parametrize("make", [IF, LIF])
def test_what_cannot_be_packed_says_why(make):
    args = ((), LifState(jnp.zeros(2)), jnp.zeros(2))
    for surrogate in (Arctan(), Triangular(), FastSigmoid()):
        neuron = make(surrogate=surrogate)
        assert not neuron.packable
        with pytest.raises(ValueError, match=r"^surrogate must have few levels, as Boxcar .*got .*\(") as error:
            neuron.record(*args)
        assert repr(surrogate) in str(error.value)
    neuron = make(reset="hard")
    assert not neuron.packable
    with pytest.raises(ValueError, match=r"^detach_reset must be True for a hard reset .*'soft'\), got False"):
        neuron.backward((), jnp.zeros(2, jnp.uint8), LifState(jnp.zeros(2)), jnp.zeros(2))
    assert make(reset="hard", detach_reset=True).packable
    assert make().packable


def test_record_refuses_what_it_would_get_wrong():
    with pytest.raises(ValueError, match=r"^membrane_potential must have shape \(2,\), got \(\)"):
        LIF().record((), LifState(jnp.zeros(())), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"^current_dtype must be one of .*float32.*, got .*bfloat16"):
        LIF().record((), LifState(jnp.zeros(2)), jnp.zeros(2, jnp.bfloat16))
