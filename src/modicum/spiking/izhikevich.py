"""Izhikevich's neuron: two equations that reproduce the firing patterns of cortical cells."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.core import check
from modicum.spiking.surrogates import Boxcar, Surrogate

PEAK = 30.0
"""Where a spike is cut off, in mV."""

REST = -65.0
"""Where neurons start, in mV, as in the program published with the paper."""

# The last step of a spike jumps by tens of mV, so that a window of 1 mV would hardly ever see one.
WINDOW = Boxcar(64.0)


class IzhikevichParams(NamedTuple):
    """The paper's `a, b, c, d` and the time step: numbers, or arrays that broadcast against the current.

    Attributes:
        a: rate of the recovery variable, in 1/ms.
        b: its sensitivity to the potential, in 1/ms.
        c: potential after a spike, in mV.
        d: rise of the recovery variable with a spike, in mV/ms.
        dt: time step, in ms; 0.5 or less for firing patterns as in the paper.
    """

    a: Any
    b: Any
    c: Any
    d: Any
    dt: Any


class IzhikevichState(NamedTuple):
    """Potential `v` in mV and recovery variable `u` in mV/ms."""

    membrane_potential: Array
    recovery: Array


def izhikevich(
    params: IzhikevichParams,
    state: IzhikevichState,
    current: Float[Array, " *n"],
    *,
    surrogate: Surrogate = WINDOW,
    detach_reset: bool = False,
) -> tuple[IzhikevichState, Float[Array, " *n"]]:
    """One forward Euler step, then spikes where `v >= 30` mV.

        v <- v + dt * (0.04 v^2 + 5 v + 140 - u + current)
        u <- u + dt * a * (b v - u)          (with the `v` before the step)
        S = surrogate(v - 30);  v <- c where S = 1;  u <- u + d * S

    Args:
        params: see `IzhikevichParams`.
        state: before the step.
        current: input during this step, in mV/ms (10 makes a regular spiking cell fire tonically).
        surrogate: what stands in for the derivative of the step, of an excess in mV; static.
        detach_reset: whether gradients ignore that spikes reset `v` and raise `u`; static.

    Returns:
        The state after the step, and spikes of 0 or 1.

    Reference:
        Izhikevich, "Simple model of spiking neurons", IEEE Transactions on Neural Networks 2003, equations 1 to 3.
        The program printed there takes `v` in two half steps of 0.5 ms per 1 ms of `u`; here both take one step.
    """
    v, u = state
    moved = v + params.dt * (0.04 * v * v + 5 * v + 140 - u + current)
    recovery = u + params.dt * (params.a * (params.b * v - u))
    spikes = surrogate(moved - PEAK)
    resetting = jax.lax.stop_gradient(spikes) if detach_reset else spikes
    after = moved * (1 - resetting) + params.c * resetting
    return IzhikevichState(after, recovery + params.d * resetting), spikes


@dataclass(frozen=True)
class Izhikevich:
    """Izhikevich neurons of fixed numbers; the defaults are the regular spiking cell.

    Args:
        a: rate of the recovery variable, in 1/ms, finite, above 0.
        b: its sensitivity to the potential, in 1/ms, finite.
        c: potential after a spike, in mV, finite, below 30.
        d: rise of the recovery variable with a spike, in mV/ms, finite.
        dt: time step, in ms, above 0 and at most 1.
        detach_reset: whether gradients ignore that spikes reset.
        surrogate: what stands in for the derivative of the step, of an excess in mV.

    Raises:
        ValueError: for a number out of its range.

    Reference:
        See `izhikevich`. Figure 2 of the paper names cells: fast spiking `a = 0.1, d = 2`, chattering `c = -50,
        d = 2`, intrinsically bursting `c = -55, d = 4`, low-threshold spiking `b = 0.25, d = 2`.
    """

    a: float = 0.02
    b: float = 0.2
    c: float = -65.0
    d: float = 8.0
    dt: float = 0.5
    detach_reset: bool = False
    surrogate: Surrogate = WINDOW

    def __post_init__(self) -> None:
        check.finite_positive(a=self.a, dt=self.dt)
        check.between(-math.inf, math.inf, b=self.b, c=self.c, d=self.d)
        check.not_infinite(b=self.b, c=self.c, d=self.d)
        if self.c >= PEAK:
            raise ValueError(f"c must be below {PEAK:g} mV, where spikes are cut off, got {self.c!r}")
        check.between(0, 1, dt=self.dt)

    def init_params(self) -> tuple[()]:
        """Nothing to train."""
        return ()

    def init_state(self, shape: tuple[int, ...]) -> IzhikevichState:
        """Potentials of -65 mV and recovery `b` times as much, float32."""
        return IzhikevichState(jnp.full(shape, REST, jnp.float32), jnp.full(shape, float(self.b) * REST, jnp.float32))

    def step(
        self, params: tuple[()], state: IzhikevichState, current: Float[Array, " *n"]
    ) -> tuple[IzhikevichState, Float[Array, " *n"]]:
        """One time step, `izhikevich`."""
        del params
        fixed = IzhikevichParams(float(self.a), float(self.b), float(self.c), float(self.d), float(self.dt))
        return izhikevich(fixed, state, current, surrogate=self.surrogate, detach_reset=self.detach_reset)
