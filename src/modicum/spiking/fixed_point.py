"""A leaky neuron in fixed point that runs backward exactly: two bits a step say what the leak and the reset drop."""

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int16, UInt8

from modicum.core import check
from modicum.spiking import grid
from modicum.spiking.surrogates import Boxcar, LeveledSurrogate, Surrogate

_STATE_BITS = 16


class FixedPointState(NamedTuple):
    """Potentials on a grid.

    Attributes:
        membrane_potential: float32, whole multiples of `2**-fraction_bits`.
    """

    membrane_potential: Array


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _leaked(potential: Array, shift: int, bits: int) -> Array:
    """`V - (V >> shift)`, the shift rounding down."""
    return potential - jnp.floor(potential * 2.0 ** (bits - shift)) * 2.0**-bits


@_leaked.defjvp
def _leaked_jvp(shift: int, bits: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _leaked(primals[0], shift, bits), (1 - 2.0**-shift) * tangents[0]


@dataclass(frozen=True, kw_only=True)
class FixedPointLIF:
    """Leaky integrate-and-fire of leak `1 - 2**-shift` in 16 bits, soft reset, threshold 1; exactly invertible.

    With `V` in units of `2**-fraction_bits` and `q = V >> shift`, `r = V mod 2**shift`:

        `W = V - q = (2**shift - 1) q + r`,  `u = W + I`,  `S = 1 where u >= 1`,  `V <- u - S`

    `(q, 2**shift - 1)` and `(q + 1, 0)` have one and the same `W`. So two bits a step, the spike and whether
    `r = 2**shift - 1`, make the step a bijection: `u = V + S`, `W = u - I`, and division of `W` by `2**shift - 1`
    gives `q` and `r`. The surrogate may be any: the sweep back knows the potential itself.

    Attributes:
        shift: the leak is `1 - 2**-shift`; 1 to 8.
        fraction_bits: of the potential, 0 to 14.
        limit: currents are clipped to `[-limit, limit]`, above 0.
        surrogate: derivative of the spikes.
        detach_reset: whether no gradient flows through the subtraction of the spikes.

    Raises:
        ValueError: if potentials could leave 16 bits: `limit * 2**shift + 1` must not exceed `2**(15 -
            fraction_bits)`.

    Reference:
        MacKay et al., "Reversible recurrent neural networks", NeurIPS 2018, section 3: what multiplication by less
        than one forgets goes to a buffer. Here one bit a step suffices, since the leak is a shift.
    """

    shift: int = 3
    fraction_bits: int = 10
    limit: float = 3.0
    surrogate: Surrogate = field(default_factory=Boxcar)
    detach_reset: bool = False

    ledger_bits = 2
    residual_bits = 4

    def __post_init__(self) -> None:
        check.integer(1, 8, shift=self.shift)
        check.integer(0, 14, fraction_bits=self.fraction_bits)
        check.positive(limit=self.limit)
        largest = (2.0 ** (_STATE_BITS - 1 - self.fraction_bits) - 1) / 2**self.shift
        if self.limit > largest:
            raise ValueError(
                f"limit must be at most {largest:g} for potentials of shift {self.shift} and {self.fraction_bits} "
                f"fraction bits to stay within 16 bits, got {self.limit!r}"
            )

    def _on_grid(self, current: Array) -> Array:
        return grid.clipped(current, -self.limit, self.limit, self.fraction_bits)

    @property
    def packable(self) -> bool:
        """Whether a step's residual is a code of few bits: the surrogate has two levels."""
        return isinstance(self.surrogate, LeveledSurrogate) and self.surrogate.levels == 2

    def init_params(self) -> tuple[()]:
        """Nothing is trained."""
        return ()

    def init_state(self, shape: tuple[int, ...]) -> FixedPointState:
        """Potentials of 0."""
        return FixedPointState(jnp.zeros(shape))

    def step(
        self, params: Any, state: FixedPointState, current: Float[Array, " *s"]
    ) -> tuple[FixedPointState, Float[Array, " *s"]]:
        """One step; spikes are 0 or 1."""
        del params
        leaked = _leaked(state.membrane_potential, self.shift, self.fraction_bits)
        potential = leaked + self._on_grid(current)
        spikes = self.surrogate(potential - 1)
        taken = jax.lax.stop_gradient(spikes) if self.detach_reset else spikes
        return FixedPointState(potential - taken), spikes

    def forward(
        self, params: Any, state: FixedPointState, current: Array
    ) -> tuple[FixedPointState, Array, UInt8[Array, " *s"]]:
        """A step, and the two bits that its inverse needs besides."""
        after, spikes = self.step(params, state, current)
        units = state.membrane_potential * 2.0**self.fraction_bits
        modulus = 2.0**self.shift
        last = units - jnp.floor(units / modulus) * modulus == modulus - 1
        return after, spikes, spikes.astype(jnp.uint8) | (last.astype(jnp.uint8) << 1)

    def store(self, state: FixedPointState) -> FixedPointState:
        """The state in 16 bits."""
        return FixedPointState((state.membrane_potential * 2.0**self.fraction_bits).astype(jnp.int16))

    def load(self, stored: FixedPointState) -> FixedPointState:
        """The state that was stored, exactly."""
        units: Int16[Array, " ..."] = stored.membrane_potential
        return FixedPointState(units.astype(jnp.float32) * 2.0**-self.fraction_bits)

    def invert(
        self, params: Any, state: FixedPointState, current: Array, ledger: UInt8[Array, " *s"]
    ) -> tuple[FixedPointState, Any]:
        """The state before the step, and what `backward` needs of it."""
        del params
        spikes, last = (ledger & 1).astype(jnp.float32), (ledger >> 1).astype(jnp.float32)
        potential = state.membrane_potential + spikes
        leaked = (potential - self._on_grid(current)) * 2.0**self.fraction_bits
        # r = 2**shift - 1 gives the same W as (q + 1, 0): a whole quotient, less one unit
        # half a unit keeps the floor away from its edge, should XLA multiply by a rounded reciprocal
        quotient = jnp.floor((leaked + 0.5) / (2.0**self.shift - 1))
        before = leaked + quotient - last
        return FixedPointState(before * 2.0**-self.fraction_bits), self._residual(potential, spikes, current)

    def record(self, params: Any, state: FixedPointState, current: Array) -> tuple[FixedPointState, Array, Any]:
        """A step, and what `backward` needs of it."""
        after, spikes = self.step(params, state, current)
        return after, spikes, self._residual(after.membrane_potential + spikes, spikes, current)

    def _residual(self, potential: Array, spikes: Array, current: Array) -> Any:
        inside = grid.inside(current, -self.limit, self.limit).astype(jnp.uint8)
        code = spikes.astype(jnp.uint8) | (inside << 1)
        if isinstance(self.surrogate, LeveledSurrogate) and self.packable:
            return code | (self.surrogate.code(potential - 1) << 2)
        return code, self.surrogate.derivative(potential - 1)

    def spikes(self, residual: Any) -> Array:
        """The spikes of a step, from its residual."""
        code = residual if self.packable else residual[0]
        return (code & 1).astype(jnp.float32)

    def backward(
        self, params: Any, residual: Any, state_cotangent: FixedPointState, spikes_cotangent: Array
    ) -> tuple[Any, FixedPointState, Array]:
        """The vector-Jacobian product of `step`: `du = dV + h (dS - dV)`, `dV_before = leak du`, `dI = du` in the clip.

        Returns:
            Cotangents of the parameters (none), of the state before and of the current.
        """
        if isinstance(self.surrogate, LeveledSurrogate) and self.packable:
            code = residual
            slope = self.surrogate.decode(code >> 2)
        else:
            code, slope = residual
        after = state_cotangent.membrane_potential
        through = spikes_cotangent if self.detach_reset else spikes_cotangent - after
        potential = after + slope * through
        inside = (code >> 1) & 1 != 0
        before = FixedPointState((1 - 2.0**-self.shift) * potential)
        return params, before, jnp.where(inside, potential, jnp.zeros_like(potential))
