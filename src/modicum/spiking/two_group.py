"""The reversible spiking node of two groups, with the backward pass that reversible layers use and a shorter one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.core import check
from modicum.spiking.apart import apart
from modicum.spiking.neurons import RESETS
from modicum.spiking.surrogates import Boxcar, Surrogate


class Pair(NamedTuple):
    """Inputs, potentials or outputs of the two groups."""

    first: Array
    second: Array


class _Met(NamedTuple):
    """What the inverse meets on its way: potentials before the reset, and spikes, of both groups."""

    charged: Pair
    spikes: Pair


@dataclass(frozen=True, kw_only=True)
class TwoGroup:
    """Two groups of leaky neurons that feed each other, so that inputs and potentials can be had from the outputs.

    With `M = V + (X - V) / tau`, `S = H(M - threshold)`, `R = (1 - S) M` (hard reset) or `M - threshold S` (soft):

        (1) `M1 = V1 + (X1 - V1) / tau`      (2) `Y1 = S1 + beta X2`      (3) `U1 = R1 + alpha V2`
        (4) `M2 = U1 + (Y1 - U1) / tau`      (5) `Y2 = S2 + beta X1`      (6) `U2 = R2 + alpha V1`

    where `U` are the potentials after the step. Backward, `M2` follows from `(Y1, U1)`, then `X1 = (Y2 - S2) / beta`,
    `V1 = (U2 - R2) / alpha`; `M1` from `(X1, V1)`, then `X2` and `V2`. The outputs are not binary.

    The inverse multiplies by `1 / alpha` what the step rounded, and potentials of a pair may grow: in float32 the node
    is for few steps (`drift` says how many). `Carry` and `FixedPointLIF` are exact for any number.

    Attributes:
        alpha: how much of the other group's potential is passed on, not 0.
        beta: how much of the other group's input is passed on, not 0.
        tau: time constant in steps, at least 1.
        threshold: above 0.
        reset: "hard" or "soft".
        surrogate: derivative of the spikes.

    Raises:
        ValueError: for a number out of its range.

    Reference:
        Lei et al., "Towards zero memory footprint spiking neural network training", arXiv 2308.08649, equations 1-6,
        reconstructed from its abstract and its published reviews: the full text was not at hand, so the exact form
        may differ.
    """

    alpha: float = 1.0
    beta: float = 1.0
    tau: float = 2.0
    threshold: float = 1.0
    reset: str = "hard"
    surrogate: Surrogate = Boxcar()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            check.between(-1e3, 1e3, **{name: getattr(self, name)})
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must not be 0, got {getattr(self, name)!r}: the inverse divides by it")
        check.positive(tau=self.tau, threshold=self.threshold)
        if self.tau < 1:
            raise ValueError(f"tau must be at least 1, got {self.tau!r}")
        check.one_of(RESETS, reset=self.reset)

    def init_state(self, shape: tuple[int, ...]) -> Pair:
        """Potentials of 0; `shape` is that of one group."""
        return Pair(jnp.zeros(shape), jnp.zeros(shape))

    def _charge(self, inputs: Array, potential: Array) -> Array:
        return potential + (inputs - potential) / self.tau

    def _reset(self, charged: Array, spikes: Array) -> Array:
        return (1 - spikes) * charged if self.reset == "hard" else charged - self.threshold * spikes

    def step(self, params: Any, state: Pair, inputs: Pair) -> tuple[Pair, Pair]:
        """Equations 1-6: the potentials after the step, and the outputs."""
        del params
        first_charged = self._charge(inputs.first, state.first)
        first_spikes = self.surrogate(first_charged - self.threshold)
        first_output = first_spikes + self.beta * inputs.second
        first_after = self._reset(first_charged, first_spikes) + self.alpha * state.second
        second_charged = self._charge(first_output, first_after)
        second_spikes = self.surrogate(second_charged - self.threshold)
        second_output = second_spikes + self.beta * inputs.first
        second_after = self._reset(second_charged, second_spikes) + self.alpha * state.first
        return Pair(first_after, second_after), Pair(first_output, second_output)

    def invert(self, state: Pair, outputs: Pair) -> tuple[Pair, Pair, _Met]:
        """Inputs and potentials before the step from outputs and potentials after it, and what was met on the way."""
        second_charged = self._charge(outputs.first, state.first)
        second_spikes = self.surrogate(second_charged - self.threshold)
        first_input = (outputs.second - second_spikes) / self.beta
        first_before = (state.second - self._reset(second_charged, second_spikes)) / self.alpha
        first_charged = self._charge(first_input, first_before)
        first_spikes = self.surrogate(first_charged - self.threshold)
        second_input = (outputs.first - first_spikes) / self.beta
        second_before = (state.first - self._reset(first_charged, first_spikes)) / self.alpha
        met = _Met(Pair(first_charged, second_charged), Pair(first_spikes, second_spikes))
        return Pair(first_before, second_before), Pair(first_input, second_input), met

    def backward(self, params: Any, met: _Met, state: Pair, outputs: Pair) -> tuple[Any, Pair, Pair]:
        """The step's vector-Jacobian product from what the inverse met: nothing runs forward again.

        Args:
            params: none.
            met: of `invert`.
            state: cotangents of the potentials after the step.
            outputs: cotangents of the outputs.

        Returns:
            Cotangents of the parameters (none), the potentials before the step, the inputs.
        """
        second = self._charged_cotangent(met.charged.second, met.spikes.second, outputs.second, state.second)
        first_after = state.first + second * (1 - 1 / self.tau)
        first_output = outputs.first + second / self.tau
        first = self._charged_cotangent(met.charged.first, met.spikes.first, first_output, first_after)
        before = Pair(self.alpha * state.second + first * (1 - 1 / self.tau), self.alpha * first_after)
        inputs = Pair(self.beta * outputs.second + first / self.tau, self.beta * first_output)
        return params, before, inputs

    def _charged_cotangent(self, charged: Array, spikes: Array, output: Array, after: Array) -> Array:
        slope = self.surrogate.derivative(charged - self.threshold)
        if self.reset == "hard":
            return output * slope + after * ((1 - spikes) - charged * slope)
        return output * slope + after * (1 - self.threshold * slope)


@dataclass(frozen=True)
class _Run:
    node: TwoGroup
    streamlined: bool


def two_group(node: TwoGroup, *, streamlined: bool = True) -> Callable[[Pair, Pair], tuple[Pair, Pair]]:
    """The node over time: its backward pass starts from the outputs and the last potentials, and keeps nothing else.

    Inputs are not kept either: they are recovered from the outputs, as the potentials are.

    Args:
        node: its numbers.
        streamlined: whether the derivatives are taken from the inverse's own intermediate values, or, as reversible
            layers usually do, from a second forward pass on what the inverse recovered.

    Returns:
        `run(state, inputs) -> (state, outputs)`; inputs and outputs have a leading axis of steps.

    Example:
        >>> node = TwoGroup()
        >>> inputs = Pair(jnp.ones((4, 2)), jnp.zeros((4, 2)))
        >>> state, outputs = two_group(node)(node.init_state((2,)), inputs)
        >>> outputs.first.shape
        (4, 2)
    """
    return functools.partial(_run, _Run(node, streamlined))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(run: _Run, state: Pair, inputs: Pair) -> tuple[Pair, Pair]:
    return jax.lax.scan(functools.partial(run.node.step, ()), state, inputs)


def _fwd(run: _Run, state: Pair, inputs: Pair) -> tuple[Any, Any]:
    state, outputs = _run(run, state, inputs)
    return (state, outputs), (state, outputs)


def _bwd(run: _Run, kept: Any, given: Any) -> tuple[Pair, Pair]:
    state, outputs = kept
    state_cotangent, outputs_cotangent = given
    node = run.node

    def body(carry: Any, slice_: Any) -> tuple[Any, Pair]:
        state, state_cotangent = carry
        number, output, output_cotangent = slice_
        if run.streamlined:
            before, _, met = node.invert(state, output)
            _, state_cotangent, inputs_cotangent = node.backward((), met, state_cotangent, output_cotangent)
        else:
            before, inputs = apart(number, lambda *given: node.invert(*given)[:2], state, output)
            _, pull = jax.vjp(functools.partial(node.step, ()), before, inputs)
            state_cotangent, inputs_cotangent = pull((state_cotangent, output_cotangent))
        return (before, state_cotangent), inputs_cotangent

    carry = (state, state_cotangent)
    slices = (jnp.arange(len(outputs.first)), outputs, outputs_cotangent)
    (_, state_cotangent), inputs_cotangent = jax.lax.scan(body, carry, slices, reverse=True)
    return state_cotangent, inputs_cotangent


_run.defvjp(_fwd, _bwd)


def drift(node: TwoGroup, inputs: Pair) -> Float[Array, " t"]:
    """How far the node's inverse is off, step by step backward: the price of float32.

    Args:
        node: its numbers.
        inputs: `(steps, ...)` of both groups.

    Returns:
        The largest absolute error among recovered inputs and potentials, after inverting 1, 2, ... steps.
    """

    def forward(state: Pair, input_: Pair) -> tuple[Pair, tuple[Pair, Pair]]:
        after, outputs = node.step((), state, input_)
        return after, (state, outputs)

    def back(state: Pair, slice_: tuple[Pair, Pair, Pair]) -> tuple[Pair, Array]:
        outputs, true_state, true_input = slice_
        before, input_, _ = node.invert(state, outputs)
        pairs = zip((*before, *input_), (*true_state, *true_input), strict=True)
        return before, jnp.max(jnp.stack([jnp.max(jnp.abs(found - true)) for found, true in pairs]))

    start = node.init_state(inputs.first.shape[1:])
    last, (states, outputs) = jax.lax.scan(forward, start, inputs)
    return jax.lax.scan(back, last, (outputs, states, inputs), reverse=True)[1][::-1]
