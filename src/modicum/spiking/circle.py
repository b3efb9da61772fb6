"""The carry node: integrate-and-fire as addition on a circle, which forgets nothing and so runs backward exactly."""

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt16

from modicum.core import check
from modicum.spiking import grid
from modicum.spiking.surrogates import Boxcar, LeveledSurrogate, Surrogate

_BITS = 16
_LARGEST_SPAN = 63  # 6 bits of spikes, one of the surrogate and one of the clip share a byte


class CarryState(NamedTuple):
    """Where on the circle each neuron stands.

    Attributes:
        membrane_potential: float32 in `[0, 1)`, whole multiples of `2**-16`.
    """

    membrane_potential: Array


def _excess(potential: Array, lowest: int, highest: int) -> Array:
    """Distance to the nearest of the thresholds `lowest + 1 ... highest`."""
    if highest - lowest == 1:
        return potential - highest
    return potential - jnp.clip(jnp.round(potential), lowest + 1, highest)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _carried(potential: Array, lowest: int, highest: int, surrogate: Surrogate) -> Array:  # noqa: ARG001
    return jnp.floor(potential)


@_carried.defjvp
def _carried_jvp(
    lowest: int, highest: int, surrogate: Surrogate, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (potential,), (tangent,) = primals, tangents
    slope = surrogate.derivative(_excess(potential, lowest, highest))
    return _carried(potential, lowest, highest, surrogate), slope * tangent


@dataclass(frozen=True, kw_only=True)
class Carry:
    """Integrate-and-fire on a circle of circumference 1, the threshold: spikes are the carries of an addition.

    `I = round(clip(current, lowest, highest) 2^16) / 2^16`, `u = V + I`, `S = floor(u)`, `V <- u - S`. Given `I` this
    is a bijection of `V`, whatever the number of steps: `V_before = (V - I) mod 1`, `S = -floor(V - I)`. What is kept
    is the last potential, two bytes a neuron. Charge below zero wraps around (as a spike of -1) instead of being
    held: the node suits rate and direct coding, and loses accuracy where each neuron spikes once.

    Attributes:
        lowest: smallest spike, 0 or below; binary spikes are `lowest=0, highest=1`, ternary `lowest=-1`.
        highest: largest spike, at least 1.
        surrogate: derivative of the spikes around each threshold.
        detach_reset: whether no gradient flows through the subtraction of the spikes.

    Raises:
        ValueError: if the spikes do not fit the byte that the sweep back keeps for a neuron.

    Reference:
        Ours; an undamped neuron loses no information, hence needs no ledger (MacKay et al., "Reversible recurrent
        neural networks", NeurIPS 2018, keep one for what forgetting drops).
    """

    lowest: int = 0
    highest: int = 1
    surrogate: Surrogate = field(default_factory=Boxcar)
    detach_reset: bool = False

    def __post_init__(self) -> None:
        check.integer(None, 0, lowest=self.lowest)
        check.integer(1, highest=self.highest)
        if self.highest - self.lowest > _LARGEST_SPAN:
            raise ValueError(
                f"highest - lowest must be at most {_LARGEST_SPAN}, for spikes are stored in 6 bits, "
                f"got {self.highest - self.lowest}"
            )

    @property
    def _spike_bits(self) -> int:
        return int(self.highest - self.lowest).bit_length()

    @property
    def packable(self) -> bool:
        """Whether a step's residual is a code of few bits: the surrogate has two levels."""
        return isinstance(self.surrogate, LeveledSurrogate) and self.surrogate.levels == 2

    @property
    def residual_bits(self) -> int:
        """Bits of a step's code: spike, surrogate, clip; 4 or 8, as they are packed."""
        return 4 if self._spike_bits <= 2 else 8

    ledger_bits = 0

    def init_params(self) -> tuple[()]:
        """Nothing is trained."""
        return ()

    def init_state(self, shape: tuple[int, ...]) -> CarryState:
        """Half a turn: the mean of what is yet to come is rounded, not cut."""
        return CarryState(jnp.full(shape, 0.5))

    def step(
        self, params: Any, state: CarryState, current: Float[Array, " *s"]
    ) -> tuple[CarryState, Float[Array, " *s"]]:
        """One step; spikes are whole numbers from `lowest` to `highest`."""
        del params
        potential = state.membrane_potential + grid.clipped(current, self.lowest, self.highest, _BITS)
        spikes = _carried(potential, self.lowest, self.highest, self.surrogate)
        taken = jax.lax.stop_gradient(spikes) if self.detach_reset else spikes
        return CarryState(potential - taken), spikes

    def forward(self, params: Any, state: CarryState, current: Array) -> tuple[CarryState, Array, None]:
        """A step, and what its inverse needs besides: nothing."""
        return *self.step(params, state, current), None

    def store(self, state: CarryState) -> CarryState:
        """The state in 16 bits."""
        return CarryState((state.membrane_potential * 2.0**_BITS).astype(jnp.uint16))

    def load(self, stored: CarryState) -> CarryState:
        """The state that was stored, exactly."""
        turns: UInt16[Array, " ..."] = stored.membrane_potential
        return CarryState(turns.astype(jnp.float32) * 2.0**-_BITS)

    def invert(self, params: Any, state: CarryState, current: Array, ledger: None = None) -> tuple[CarryState, Any]:
        """The state before the step, and what `backward` needs of it."""
        del params, ledger
        difference = state.membrane_potential - grid.clipped(current, self.lowest, self.highest, _BITS)
        spikes = -jnp.floor(difference)
        residual = self._residual(state.membrane_potential + spikes, spikes, current)
        return CarryState(difference + spikes), residual

    def record(self, params: Any, state: CarryState, current: Array) -> tuple[CarryState, Array, Any]:
        """A step, and what `backward` needs of it."""
        after, spikes = self.step(params, state, current)
        return after, spikes, self._residual(after.membrane_potential + spikes, spikes, current)

    def _residual(self, potential: Array, spikes: Array, current: Array) -> Any:
        bits = self._spike_bits
        code = (spikes - self.lowest).astype(jnp.uint8)
        code = code | (grid.inside(current, self.lowest, self.highest).astype(jnp.uint8) << (bits + 1))
        excess = _excess(potential, self.lowest, self.highest)
        if isinstance(self.surrogate, LeveledSurrogate) and self.packable:
            return code | (self.surrogate.code(excess) << bits)
        return code, self.surrogate.derivative(excess)

    def spikes(self, residual: Any) -> Array:
        """The spikes of a step, from its residual."""
        code = residual if self.packable else residual[0]
        return (code & (2**self._spike_bits - 1)).astype(jnp.float32) + self.lowest

    def backward(
        self, params: Any, residual: Any, state_cotangent: CarryState, spikes_cotangent: Array
    ) -> tuple[Any, CarryState, Array]:
        """The vector-Jacobian product of `step`: `du = dV + h (dS - dV)`, `dV_before = du`, `dI = du` inside the clip.

        Returns:
            Cotangents of the parameters (none), of the state before and of the current.
        """
        bits = self._spike_bits
        if isinstance(self.surrogate, LeveledSurrogate) and self.packable:
            code = residual
            slope = self.surrogate.decode((code >> bits) & 1)
        else:
            code, slope = residual
        after = state_cotangent.membrane_potential
        through = spikes_cotangent if self.detach_reset else spikes_cotangent - after
        before = after + slope * through
        inside = (code >> (bits + 1)) & 1 != 0
        return params, CarryState(before), jnp.where(inside, before, jnp.zeros_like(before))
