"""Keep-k above common signs: which kernels of a column to keep when several share one sign.

A fragment of several kernels takes one sign, and its best sign depends on how many of its kernels are kept: its
loss as a function of that number is the lesser of two curves, and the greedy choice is not exact. A column's
budget is split over its fragments by dynamic programming (min-plus), which is.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from modicum.constraints.base import Traceable, rank_mask


class Split(NamedTuple):
    """Which kernels are kept, and the sign of each fragment."""

    kept: Bool[Array, " o f c"]
    negative: Bool[Array, " o f"]


def _curves(
    kept_loss: Array, dropped_loss: Array, gain: Array, real: Array
) -> tuple[Float[Array, " o f n"], Bool[Array, " o f n"]]:
    """Loss of a fragment that keeps its best `n` kernels, and whether the negative sign achieves it."""
    order = jnp.argsort(jnp.where(real, -gain, jnp.inf), axis=-1, stable=True)
    kept = jnp.take_along_axis(kept_loss, order, axis=-1)
    dropped = jnp.take_along_axis(jnp.broadcast_to(dropped_loss, gain.shape), order, axis=-1)
    # Sums of what is lost, never differences: a fragment that lies in the set must lose exactly 0.
    edge = [(0, 0), (0, 0), (0, 0)]
    below = jnp.pad(jnp.cumsum(kept, axis=-1), [*edge, (1, 0)])
    above = jnp.pad(lax.cumsum(dropped, axis=3, reverse=True), [*edge, (0, 1)])
    loss = below + above
    count = jnp.sum(real, axis=-1)
    possible = jnp.arange(loss.shape[-1])[None, None, None] <= count[..., None]
    return jnp.where(possible, jnp.min(loss, axis=0)[None], jnp.inf)[0], loss[1] < loss[0]


def split(
    kept_loss: Float[Array, " 2 o f c"],
    dropped_loss: Float[Array, " o f c"],
    gain: Float[Array, " 2 o f c"],
    real: Bool[Array, " f c"],
    k: Traceable,
    most: int,
) -> Split:
    """The `k` kernels of each column, and the signs of its fragments, of least total loss.

    `best[t] = min_n best[t - n] + loss_f(n)` over the fragments `f`, with the choices traced back from `t = k`.
    `O(f c)` steps, each over `o * most` numbers.

    Args:
        kept_loss: loss of a kernel when kept under a positive and under a negative sign.
        dropped_loss: loss of a kernel when dropped.
        gain: energy a kernel keeps under either sign, at least 0.
        real: False where a kernel only pads the last fragment; such a kernel is never kept.
        k: kernels to keep per column, at most `most`; may be traced.
        most: static upper bound of `k`.

    Returns:
        A mask with exactly `k` kernels per column, and the fragments' signs.
    """
    _, outputs, _, size = gain.shape
    loss, negative = _curves(kept_loss, dropped_loss[None], gain, real[None, None])

    def add_fragment(best: Array, curve: Array) -> tuple[Array, Array]:
        shifted = jnp.pad(best, [(0, 0), (size, 0)], constant_values=jnp.inf)

        def try_count(count: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            least, choice = carry
            rest = lax.dynamic_slice_in_dim(shifted, size - count, most + 1, axis=1)
            candidate = rest + lax.dynamic_slice_in_dim(curve, count, 1, axis=1)
            return jnp.minimum(candidate, least), jnp.where(candidate < least, count, choice)

        start = jnp.full(best.shape, jnp.inf), jnp.zeros(best.shape, jnp.int32)
        least, choice = lax.fori_loop(0, size + 1, try_count, start)
        return least, choice.astype(jnp.int16 if size < 2**15 else jnp.int32)

    empty = jnp.where(jnp.arange(most + 1) == 0, 0.0, jnp.inf)
    _, choices = lax.scan(add_fragment, jnp.tile(empty[None], (outputs, 1)), jnp.moveaxis(loss, 1, 0))

    def trace_back(left: Array, choice: Array) -> tuple[Array, Array]:
        count = jnp.take_along_axis(choice, left[:, None], axis=1)[:, 0].astype(jnp.int32)
        return left - count, count

    everything = jnp.full((outputs,), k, jnp.int32)
    _, counts = lax.scan(trace_back, everything, choices, reverse=True)
    counts = jnp.moveaxis(counts, 0, 1)[..., None]
    sign = jnp.take_along_axis(negative, counts, axis=-1)
    score = jnp.where(real[None], jnp.where(sign, gain[1], gain[0]), -jnp.inf)
    return Split(rank_mask(score, counts), sign[..., 0])
