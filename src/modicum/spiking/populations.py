"""Integrate-and-fire neurons as parts of a network, with a backward pass that remembers only a few bits."""

from dataclasses import dataclass, field

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from modicum.core import check
from modicum.spiking.neurons import RESETS, LifParams, LifState, lif
from modicum.spiking.surrogates import DEFAULT, LeveledSurrogate, Surrogate

_LARGEST_LEVELS = 128  # 7 bits: the spike takes the eighth of a byte


def _leveled(neuron: "LIF") -> LeveledSurrogate:
    """The neuron's surrogate, which has a code; a sentence on what to change if bits do not suffice."""
    if not isinstance(neuron.surrogate, LeveledSurrogate) or neuron.surrogate.levels > _LARGEST_LEVELS:
        raise ValueError(
            f"surrogate must have few levels, as Boxcar and Staircase do, to be recorded in bits, "
            f"got {neuron.surrogate!r}"
        )
    if not neuron.packable:
        raise ValueError(
            "detach_reset must be True for a hard reset to be recorded in bits (or reset be 'soft'), "
            f"got {neuron.detach_reset!r}"
        )
    return neuron.surrogate


@dataclass(frozen=True)
class LIF:
    """Leaky integrate-and-fire neurons of fixed numbers: nothing in them is trained.

    `record` and `backward` are `step` and its pull-back with a memory of bits: per neuron and step one byte with the
    spike in bit 0 and the surrogate's code above it is all that differentiation needs,

        soft:           du = dV' + h * (dS - threshold * dV'),   with the last product absent if detached
        hard, detached: du = (1 - S) * dV' + h * dS

    with `h` the derivative of the surrogate, `dV = leak * du` and `dcurrent = du`: neither potential is in it.

    Where `threshold` and the values of `h` are powers of two, as they are by default, these products are exact and the
    result is that of autodiff, bit for bit. Other values may differ from it by a rounding, as autodiff may from
    itself under another compilation: whether a product is rounded before it is added is up to the compiler.

    Args:
        leak: share of the potential kept per step, from 0 to 1.
        threshold: in units of potential, finite, above 0. A power of two makes products with it exact.
        reset: `'soft'` or `'hard'`.
        detach_reset: whether gradients ignore that spikes reset.
        surrogate: what stands in for the derivative of the step.

    Raises:
        ValueError: for a number out of its range.

    Reference:
        See `lif`. Residuals of bits: this project; SpikingJelly compresses spikes alone and recomputes.
    """

    leak: float = 0.9
    threshold: float = 1.0
    reset: str = "soft"
    detach_reset: bool = False
    surrogate: Surrogate = DEFAULT

    def __post_init__(self) -> None:
        check.between(0, 1, leak=self.leak)
        check.finite_positive(threshold=self.threshold)
        check.one_of(RESETS, reset=self.reset)

    def init_params(self) -> tuple[()]:
        """Nothing to train."""
        return ()

    def init_state(self, shape: tuple[int, ...]) -> LifState:
        """Potentials of 0, float32."""
        return LifState(jnp.zeros(shape, jnp.float32))

    def step(
        self, params: tuple[()], state: LifState, current: Float[Array, " *n"]
    ) -> tuple[LifState, Float[Array, " *n"]]:
        """One time step, `lif`."""
        del params
        fixed = LifParams(float(self.leak), float(self.threshold))
        return lif(fixed, state, current, surrogate=self.surrogate, reset=self.reset, detach_reset=self.detach_reset)

    @property
    def packable(self) -> bool:
        """Whether `record` and `backward` exist: a surrogate of few levels, and no hard reset unless detached."""
        few = isinstance(self.surrogate, LeveledSurrogate) and self.surrogate.levels <= _LARGEST_LEVELS
        return few and (self.reset == "soft" or self.detach_reset)

    @property
    def residual_bits(self) -> int:
        """Bits in which a residual can be packed: 1 + those of the surrogate's code, rounded up to 2, 4 or 8."""
        code_bits = (_leveled(self).levels - 1).bit_length()
        return next(bits for bits in (2, 4, 8) if bits > code_bits)

    def record(
        self, params: tuple[()], state: LifState, current: Float[Array, " *n"]
    ) -> tuple[LifState, Float[Array, " *n"], UInt8[Array, " *n"]]:
        """`step`, and the byte per neuron that `backward` needs.

        Args:
            params: `()`.
            state: before the step, of the current's shape and dtype.
            current: input of this step.

        Returns:
            The state after the step, spikes, and the residual: the spike in bit 0, the surrogate's code above it.

        Raises:
            ValueError: if the neuron is not `packable`, or the state differs from the current in shape or dtype.
        """
        surrogate = _leveled(self)
        check.shape(current.shape, membrane_potential=state.membrane_potential)
        check.one_of((state.membrane_potential.dtype,), current_dtype=current.dtype)
        after, spikes = self.step(params, state, current)
        excess = float(self.leak) * state.membrane_potential + current - float(self.threshold)
        return after, spikes, spikes.astype(jnp.uint8) | (surrogate.code(excess) << 1)

    def spikes(self, residual: UInt8[Array, " *n"]) -> Float[Array, " *n"]:
        """The spikes of a step, float32, from its residual."""
        return (residual & 1).astype(jnp.float32)

    def backward(
        self,
        params: tuple[()],
        residual: UInt8[Array, " *n"],
        state_cotangent: LifState,
        spikes_cotangent: Float[Array, " *n"],
    ) -> tuple[tuple[()], LifState, Float[Array, " *n"]]:
        """The pull-back of `step`, in the order of operations in which autodiff computes it.

        Args:
            params: `()`.
            residual: what `record` returned for that step.
            state_cotangent: of the state after the step.
            spikes_cotangent: of the spikes, in the same dtype.

        Returns:
            Cotangents of the parameters, `()`; of the state before the step; of the current.

        Raises:
            ValueError: if the neuron is not `packable`.
        """
        surrogate = _leveled(self)
        after, before_reset = state_cotangent.membrane_potential, spikes_cotangent
        if self.reset == "soft" and not self.detach_reset:
            before_reset = spikes_cotangent - float(self.threshold) * after
        if self.reset == "hard":
            after = jnp.where((residual & 1) > 0, 0, after)
        potential = after + surrogate.decode(residual >> 1, spikes_cotangent.dtype) * before_reset
        return params, LifState(float(self.leak) * potential), potential


@dataclass(frozen=True)
class IF(LIF):
    """Integrate-and-fire neurons that forget nothing: `LIF` with leak 1.

    Args:
        threshold: in units of potential, finite, above 0. A power of two makes products with it exact.
        reset: `'soft'` or `'hard'`.
        detach_reset: whether gradients ignore that spikes reset.
        surrogate: what stands in for the derivative of the step.

    Raises:
        ValueError: for a number out of its range.
    """

    leak: float = field(default=1.0, init=False, repr=False)
