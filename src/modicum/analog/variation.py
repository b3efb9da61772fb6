"""What programming does to a conductance."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.analog.spec import CrossbarSpec
from modicum.core import Key


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


def _normal(key: Key, like: Array) -> Array:
    # drawn flat: XLA compiles that eight times faster than a draw of five axes
    return jax.random.normal(key, (like.size,), like.dtype).reshape(like.shape)


def vary(key: Key, conductance: Float[Array, " *s"], spec: CrossbarSpec) -> Float[Array, " *s"]:
    """The conductances that programming leaves behind, in cell levels."""
    if spec.sigma == 0:
        return conductance
    if spec.variation == "lognormal":
        return lognormal(key, conductance, spec.sigma)
    return gaussian(key, conductance, spec.sigma, float(spec.cell_levels))
