"""Neurons with more to them: a leak that is trained, a threshold that adapts, Izhikevich's two variables."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.core import check
from modicum.spiking.neurons import RESETS, LifParams, LifState, fire, lif
from modicum.spiking.surrogates import DEFAULT, Surrogate


class PlifParams(NamedTuple):
    """Numbers, or arrays that broadcast against the current, of `plif`."""

    raw_leak: Any
    threshold: Any


class AlifParams(NamedTuple):
    """Numbers, or arrays that broadcast against the current, of `alif`."""

    leak: Any
    threshold: Any
    beta: Any
    rho: Any


class AlifState(NamedTuple):
    """Potential, and how many spikes the neuron still remembers (without unit)."""

    membrane_potential: Array
    adaptation: Array


def plif(
    params: PlifParams,
    state: LifState,
    current: Float[Array, " *n"],
    *,
    surrogate: Surrogate = DEFAULT,
    reset: str = "soft",
    detach_reset: bool = False,
) -> tuple[LifState, Float[Array, " *n"]]:
    """One time step of `lif` with leak `sigmoid(raw_leak)`: it stays between 0 and 1 however it is trained.

    Args:
        params: raw leak, any real number; threshold above 0.
        state: potential before the step.
        current: input of this step.
        surrogate: see `lif`.
        reset: see `lif`.
        detach_reset: see `lif`.

    Returns:
        The state after the step, and spikes of 0 or 1.

    Raises:
        ValueError: for an unknown reset.

    Reference:
        Fang et al., "Incorporating learnable membrane time constant to enhance learning of spiking neural networks",
        ICCV 2021. There `1 / tau = 1 - leak` multiplies the current as well; here it does not.
    """
    lif_params = LifParams(jax.nn.sigmoid(params.raw_leak), params.threshold)
    return lif(lif_params, state, current, surrogate=surrogate, reset=reset, detach_reset=detach_reset)


def alif(
    params: AlifParams,
    state: AlifState,
    current: Float[Array, " *n"],
    *,
    surrogate: Surrogate = DEFAULT,
    reset: str = "soft",
    detach_reset: bool = False,
) -> tuple[AlifState, Float[Array, " *n"]]:
    """One time step of leaky neurons whose spikes raise their threshold.

    `u = leak * V + current`, spikes `S` where `u >= threshold + beta * a`, then `a' = rho * a + S`. A soft reset
    subtracts the raised threshold.

    Args:
        params: leak per step and decay `rho` of the adaptation, both from 0 to 1; threshold above 0; `beta`, by how
            much one spike raises the threshold, in units of potential, not below 0.
        state: potential `V` and adaptation `a` before the step.
        current: input of this step.
        surrogate: see `lif`.
        reset: see `lif`.
        detach_reset: whether gradients ignore that spikes reset; they always see that spikes raise the threshold.

    Returns:
        The state after the step, and spikes of 0 or 1.

    Raises:
        ValueError: for an unknown reset.

    Reference:
        Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS 2018,
        section 2. There a spike adds `1 - rho` to the adaptation: our `beta` is `1 - rho` times theirs.
    """
    potential = params.leak * state.membrane_potential + current
    threshold = params.threshold + params.beta * state.adaptation
    after, spikes = fire(potential, threshold, surrogate=surrogate, reset=reset, detach_reset=detach_reset)
    return AlifState(after, params.rho * state.adaptation + spikes), spikes


@dataclass(frozen=True)
class ParametricLIF:
    """Leaky integrate-and-fire neurons that share one trained leak.

    Args:
        leak: at the start of training, between 0 and 1, ends excluded.
        threshold: in units of potential, finite, above 0.
        reset: `'soft'` or `'hard'`.
        detach_reset: whether gradients ignore that spikes reset.
        surrogate: what stands in for the derivative of the step.

    Raises:
        ValueError: for a number out of its range.

    Reference:
        See `plif`.
    """

    leak: float = 0.9
    threshold: float = 1.0
    reset: str = "soft"
    detach_reset: bool = False
    surrogate: Surrogate = DEFAULT

    def __post_init__(self) -> None:
        check.between(0, 1, leak=self.leak)
        if self.leak in (0, 1):
            raise ValueError(f"leak must lie between 0 and 1, ends excluded, got {self.leak!r}")
        check.finite_positive(threshold=self.threshold)
        check.one_of(RESETS, reset=self.reset)

    def init_params(self) -> dict[str, Array]:
        """`raw_leak`, a float32 scalar: the logit of `leak`."""
        return {"raw_leak": jnp.float32(math.log(self.leak / (1 - self.leak)))}

    def init_state(self, shape: tuple[int, ...]) -> LifState:
        """Potentials of 0, float32."""
        return LifState(jnp.zeros(shape, jnp.float32))

    def step(
        self, params: dict[str, Array], state: LifState, current: Float[Array, " *n"]
    ) -> tuple[LifState, Float[Array, " *n"]]:
        """One time step, `plif`."""
        statics = {"surrogate": self.surrogate, "reset": self.reset, "detach_reset": self.detach_reset}
        return plif(PlifParams(params["raw_leak"], float(self.threshold)), state, current, **statics)


@dataclass(frozen=True)
class AdaptiveLIF:
    """Leaky integrate-and-fire neurons of fixed numbers whose spikes raise their threshold.

    Args:
        leak: share of the potential kept per step, from 0 to 1.
        threshold: of a rested neuron, in units of potential, finite, above 0.
        beta: rise of the threshold per spike, in units of potential, finite, not below 0.
        rho: share of the rise kept per step, from 0 to 1.
        reset: `'soft'` or `'hard'`.
        detach_reset: whether gradients ignore that spikes reset.
        surrogate: what stands in for the derivative of the step.

    Raises:
        ValueError: for a number out of its range.

    Reference:
        See `alif`.
    """

    leak: float = 0.9
    threshold: float = 1.0
    beta: float = 0.2
    rho: float = 0.98
    reset: str = "soft"
    detach_reset: bool = False
    surrogate: Surrogate = DEFAULT

    def __post_init__(self) -> None:
        check.between(0, 1, leak=self.leak, rho=self.rho)
        check.finite_positive(threshold=self.threshold)
        check.non_negative(beta=self.beta)
        check.not_infinite(beta=self.beta)
        check.one_of(RESETS, reset=self.reset)

    def init_params(self) -> tuple[()]:
        """Nothing to train."""
        return ()

    def init_state(self, shape: tuple[int, ...]) -> AlifState:
        """Potentials and adaptations of 0, float32."""
        return AlifState(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))

    def step(
        self, params: tuple[()], state: AlifState, current: Float[Array, " *n"]
    ) -> tuple[AlifState, Float[Array, " *n"]]:
        """One time step, `alif`."""
        del params
        fixed = AlifParams(float(self.leak), float(self.threshold), float(self.beta), float(self.rho))
        statics = {"surrogate": self.surrogate, "reset": self.reset, "detach_reset": self.detach_reset}
        return alif(fixed, state, current, **statics)
