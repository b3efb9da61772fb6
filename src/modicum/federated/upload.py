"""Fewer numbers to send: the largest entries with error feedback, and supports that all clients share.

Patterns that each client chooses are for the enclave alone, which sees each update by itself. Under masks they are
refused (`refuse_own_supports`); there, all send the entries of one `common_support`, chosen off the public model.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int
from optax import GradientTransformation

from modicum.core import check


class UploadState(NamedTuple):
    """What was not sent so far, to be added to the next update."""

    residual: Any
    """Tree of the updates."""


def topk_upload(fraction: float) -> GradientTransformation:
    """Sends the entries of largest magnitude, over all leaves together, and keeps the rest for later.

    `sent = top_k(update + residual)`, `residual <- update + residual - sent`; entries that are 0 are not counted as
    sent. Chain it behind what makes a client's update; `init` and `update` are pure and may be mapped over clients.

    Args:
        fraction: share of the entries that are sent, above 0 and at most 1: `max(1, round(fraction size))`.

    Reference:
        Stich, Cordonnier and Jaggi, Sparsified SGD with Memory (NeurIPS 2018).

    Example:
        >>> upload = topk_upload(0.5)
        >>> sent, state = upload.update(jnp.array([1.0, -3.0]), upload.init(jnp.zeros(2)))
        >>> sent.tolist(), state.residual.tolist()
        ([0.0, -3.0], [1.0, 0.0])
    """
    check.between(0.0, 1.0, fraction=fraction)
    check.positive(fraction=fraction)

    def init(params: Any) -> UploadState:
        return UploadState(jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, UploadState]:
        del params, extra
        wanted = optax.tree.add(updates, state.residual)
        flat, build = ravel_pytree(wanted)
        kept = largest(flat, kept_of(flat.size, fraction))
        return build(jnp.where(kept, flat, 0.0)), UploadState(build(jnp.where(kept, 0.0, flat)))

    return GradientTransformation(init, update)


def kept_of(size: int, fraction: float) -> int:
    """How many of so many entries are sent."""
    return max(1, round(fraction * size))


def largest(flat: Float[Array, " size"], kept: int) -> Bool[Array, " size"]:
    """True at exactly `kept` entries of largest magnitude; of equal ones, the first.

    Found bit by bit, as a sort of so many numbers takes longer than what is saved: magnitudes of floats order as
    their bits do.
    """
    return _largest(flat, jnp.int32(kept))


@jax.jit
def _largest(flat: Array, kept: Array) -> Array:
    """The same, compiled once for each size."""
    bits = lax.bitcast_convert_type(jnp.abs(flat.astype(jnp.float32)), jnp.int32)

    def narrowed(at: Array, threshold: Int[Array, ""]) -> Array:
        higher = threshold | (jnp.int32(1) << (30 - at))
        return jnp.where(jnp.sum(bits >= higher, dtype=jnp.int32) >= kept, higher, threshold)

    # the largest number that at least `kept` entries reach
    threshold = lax.fori_loop(0, 31, narrowed, jnp.int32(0))
    above, equal = bits > threshold, bits == threshold
    room = kept - jnp.sum(above, dtype=jnp.int32)
    return above | (equal & (jnp.cumsum(equal, dtype=jnp.int32) <= room))


def common_support(params: Any, fraction: float) -> Bool[Array, " size"]:
    """The support that all clients send under masks: where the public model's weights are largest.

    Args:
        params: the model that everyone has.
        fraction: share of the entries.
    """
    check.between(0.0, 1.0, fraction=fraction)
    flat, _ = ravel_pytree(params)
    return largest(flat, kept_of(flat.size, fraction))
