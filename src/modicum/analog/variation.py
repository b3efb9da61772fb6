"""What programming, defects and time do to a conductance."""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.analog.spec import CrossbarSpec
from modicum.core import Key, check

# Faults have a stream of their own, so that the variation is the same with and without them.
_FAULTS = zlib.crc32(b"faults")


def lognormal(key: Key, conductance: Float[Array, " *s"], sigma: float) -> Float[Array, " *s"]:
    """Multiplicative variation, `g exp(sigma z)` with `z` standard normal: an empty cell stays empty.

    Args:
        key: randomness of this chip.
        conductance: nominal, any unit, not below 0.
        sigma: standard deviation of the logarithm.

    Reference: FORMS, section V-E (mean 0, sigma 0.1).
    """
    return conductance * jnp.exp(sigma * _normal(key, conductance))


def gaussian(key: Key, conductance: Float[Array, " *s"], sigma: float, span: float) -> Float[Array, " *s"]:
    """Additive variation, `max(g + sigma span z, 0)`: every cell is off by the same amount, empty ones too.

    Args:
        key: randomness of this chip.
        conductance: nominal, any unit, not below 0.
        sigma: standard deviation as a fraction of `span`.
        span: the range of conductance, in the same unit.
    """
    return jnp.maximum(conductance + (sigma * span) * _normal(key, conductance), 0.0)


def faults(
    key: Key, conductance: Float[Array, " *s"], stuck_off: float, stuck_on: float, low: float, high: float
) -> Float[Array, " *s"]:
    """Stuck-at faults: each cell on its own is stuck at `low` or at `high`, whatever was programmed.

    Args:
        key: which cells: the same key gives the same cells.
        conductance: as programmed, any unit.
        stuck_off: probability of `low`, 0 to 1.
        stuck_on: probability of `high`; both together at most 1.
        low: conductance of a cell stuck off, in the same unit.
        high: conductance of a cell stuck on.

    Example:
        >>> faults(jax.random.key(0), jnp.ones(5), 0.0, 1.0, 0.0, 3.0).tolist()
        [3.0, 3.0, 3.0, 3.0, 3.0]

    Reference: Chen et al., RRAM defect modeling and failure analysis based on March test and a novel squeeze-search
    scheme, IEEE Trans. Computers 2015 (about a tenth of the cells of an HfO2 test chip).
    """
    # drawn flat, like the variation
    drawn = jax.random.uniform(key, (conductance.size,), jnp.float32).reshape(conductance.shape)
    # drawn < 1 always: at probability 1 every cell is stuck
    return jnp.where(drawn < stuck_off, low, jnp.where(drawn < stuck_off + stuck_on, high, conductance))


def drift(
    key: Key,
    conductance: Float[Array, " *s"],
    seconds: float | Float[Array, ""],
    exponent: float | Float[Array, ""],
    *,
    spread: float = 0.0,
    reference_seconds: float = 20.0,
) -> Float[Array, " *s"]:
    """Retention drift, `g (t / t0)^-nu` from `t0` on, with `nu = max(exponent + spread z, 0)` of each cell's own.

    Differentiable in the conductance, the time and the exponent.

    Args:
        key: the cells' exponents: the same key gives the same ones at every time.
        conductance: at `reference_seconds` after programming, any unit.
        seconds: time since programming. Up to `reference_seconds` nothing has moved.
        exponent: mean of `nu`, not below 0. Phase-change memory has .05 to .1.
        spread: standard deviation of `nu` over cells, not below 0. Phase-change memory has .01 to .05.
        reference_seconds: `t0`, above 0.

    Example:
        >>> [round(g, 4) for g in drift(jax.random.key(0), jnp.array([1.0, 2.0]), 2000.0, 0.5).tolist()]
        [0.1, 0.2]

    Raises:
        ValueError: for a negative spread or a reference time not above 0.

    Reference: Le Gallo et al., Collective structural relaxation in phase-change memory devices, Adv. Electron. Mater.
    2018; Joshi et al., Accurate deep neural network inference using computational phase-change memory, Nature
    Communications 2020. Their mean and spread depend on the conductance; ours do not.
    """
    check.non_negative(spread=spread)
    check.positive(reference_seconds=reference_seconds)
    elapsed = jnp.maximum(jnp.asarray(seconds, jnp.float32) / reference_seconds, 1.0)
    own = jnp.maximum(exponent + spread * _normal(key, conductance), 0.0)
    return conductance * jnp.exp(-own * jnp.log(elapsed))


def _normal(key: Key, like: Array) -> Array:
    # drawn flat: XLA compiles that faster than a draw of five axes
    return jax.random.normal(key, (like.size,), like.dtype).reshape(like.shape)


def vary(key: Key, conductance: Float[Array, " *s"], spec: CrossbarSpec) -> Float[Array, " *s"]:
    """The conductances that programming and stuck cells leave behind, in cell levels."""
    if spec.sigma > 0 and spec.variation == "lognormal":
        conductance = lognormal(key, conductance, spec.sigma)
    elif spec.sigma > 0:
        conductance = gaussian(key, conductance, spec.sigma, float(spec.cell_levels))
    if not spec.faulty:
        return conductance
    low = spec.off_conductance
    high = low + spec.cell_levels
    return faults(jax.random.fold_in(key, _FAULTS), conductance, spec.stuck_off, spec.stuck_on, low, high)
