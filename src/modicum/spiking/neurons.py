"""Integrate-and-fire neurons, with and without leak, as pure steps `(params, state, current) -> (state, spikes)`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.core import check
from modicum.spiking.surrogates import DEFAULT, Surrogate

RESETS = ("soft", "hard")


class IfParams(NamedTuple):
    """Numbers, or arrays that broadcast against the current, of `integrate_and_fire`."""

    threshold: Any


class LifParams(NamedTuple):
    """Numbers, or arrays that broadcast against the current, of `lif`."""

    leak: Any
    threshold: Any


class LifState(NamedTuple):
    """What neurons without further variables remember, in units of potential."""

    membrane_potential: Array


def fire(
    potential: Float[Array, " *n"], threshold: Any, *, surrogate: Surrogate, reset: str, detach_reset: bool
) -> tuple[Float[Array, " *n"], Float[Array, " *n"]]:
    """Spikes where the potential has reached the threshold, and the potential after these.

    `S = surrogate(u - threshold)`; soft reset `u - threshold * S`, hard reset `u * (1 - S)`.

    Args:
        potential: `u`, with the current already added.
        threshold: above 0, a number or an array that broadcasts against the potential.
        surrogate: what stands in for the derivative of the step.
        reset: `'soft'` keeps what is above the threshold; `'hard'` sets to 0.
        detach_reset: whether the spikes that reset are taken as constants when differentiating.

    Returns:
        The potential after the reset, and the spikes.

    Raises:
        ValueError: for an unknown reset.
    """
    check.one_of(RESETS, reset=reset)
    spikes = surrogate(potential - threshold)
    resetting = jax.lax.stop_gradient(spikes) if detach_reset else spikes
    if reset == "soft":
        return potential - threshold * resetting, spikes
    if detach_reset:
        # selects, so that the pull-back has one product only: which of two a compiler fuses with their sum is open
        return jnp.where(resetting > 0, 0, potential), spikes
    return potential * (1 - resetting), spikes


def lif(
    params: LifParams,
    state: LifState,
    current: Float[Array, " *n"],
    *,
    surrogate: Surrogate = DEFAULT,
    reset: str = "soft",
    detach_reset: bool = False,
) -> tuple[LifState, Float[Array, " *n"]]:
    """One time step of leaky integrate-and-fire neurons: `u = leak * V + current`, then `fire`.

    Args:
        params: leak per step from 0 to 1 (`exp(-dt / tau)`), threshold above 0 in units of potential.
        state: potential `V` before the step, of the current's shape.
        current: input of this step, in units of potential: nothing scales it, weights before it do.
        surrogate: what stands in for the derivative of the step; static.
        reset: `'soft'` subtracts the threshold, `'hard'` sets to 0; static.
        detach_reset: whether gradients ignore that spikes reset; static.

    Returns:
        The state after the step, and spikes of 0 or 1.

    Raises:
        ValueError: for an unknown reset.

    Example:
        >>> state, spikes = lif(LifParams(0.5, 1.0), LifState(jnp.array([1.0, 0.5])), jnp.array([0.75, 0.5]))
        >>> spikes.tolist(), state.membrane_potential.tolist()
        ([1.0, 0.0], [0.25, 0.75])

    Reference:
        Neftci, Mostafa and Zenke, "Surrogate gradient learning in spiking neural networks", IEEE Signal Processing
        Magazine 2019, without the synaptic current; the spike is that of the same step, not of the one before, as in
        SpikingJelly.
    """
    potential = params.leak * state.membrane_potential + current
    after, spikes = fire(potential, params.threshold, surrogate=surrogate, reset=reset, detach_reset=detach_reset)
    return LifState(after), spikes


def integrate_and_fire(
    params: IfParams,
    state: LifState,
    current: Float[Array, " *n"],
    *,
    surrogate: Surrogate = DEFAULT,
    reset: str = "soft",
    detach_reset: bool = False,
) -> tuple[LifState, Float[Array, " *n"]]:
    """One time step of neurons that forget nothing: `lif` with leak 1.

    Args:
        params: threshold above 0.
        state: potential before the step.
        current: input of this step.
        surrogate: see `lif`.
        reset: see `lif`.
        detach_reset: see `lif`.

    Returns:
        The state after the step, and spikes of 0 or 1.

    Raises:
        ValueError: for an unknown reset.
    """
    lif_params = LifParams(1.0, params.threshold)
    return lif(lif_params, state, current, surrogate=surrogate, reset=reset, detach_reset=detach_reset)
