"""Exact choice of the cheapest items: `k` of them, or two classes of given sizes; sizes may be traced."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from modicum.constraints.base import rank_mask

_FLOAT_BITS = 32


class Classes(NamedTuple):
    """Members of the two classes; all other items are free."""

    unified: Bool[Array, " g b"]
    pruned: Bool[Array, " g b"]


def smallest(cost: Float[Array, " g b"], k: Int[Array, " g"]) -> Bool[Array, " g b"]:
    """Marks the `k` smallest of each row; ties go to the lower index."""
    return rank_mask(-cost, k[:, None])


def two_classes(
    unify: Float[Array, " g b"], prune: Float[Array, " g b"], k: Int[Array, " g"], p: Int[Array, " g"]
) -> Classes:
    """Exactly `k` items for one class and `p` for another, of least total cost; the rest is free of charge.

    The least cost is convex in `p`, so a reward `r` per pruned item has a solution for `p` or skips over it. With
    a reward, `k` items of least `unify + max(r - prune, 0)` are unified and all others with `prune < r` are pruned.
    Bisection over the bits of `r` finds two neighboring floats, with too few items pruned and enough. An item that
    differs between the two solutions is tied in cost at that reward, so moves that lead from one to the other and
    keep `k` are free: as many are taken as are missing. Exact up to the rounding of the sums above.

    Args:
        unify: cost of the first class, infinite where it is ruled out.
        prune: cost of the second class, at least 0, infinite where it is ruled out.
        k: size of the first class; may be traced.
        p: size of the second class, with `k + p` at most the number of finite costs; may be traced.
    """
    largest = 2 * jnp.max(jnp.where(jnp.isfinite(prune), prune, 0.0), axis=1) + 1

    def solution(reward: Array) -> Classes:
        r = lax.bitcast_convert_type(reward, jnp.float32)[:, None]
        unified = smallest(unify + jnp.maximum(r - prune, 0.0), k)
        return Classes(unified, ~unified & (prune < r))

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        # The least sufficient reward: a large one would drown small costs.
        enough = solution(middle).pruned.sum(axis=1, dtype=jnp.int32) >= p
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    bounds = jnp.zeros_like(p), lax.bitcast_convert_type(largest, jnp.int32)
    low, high = (solution(bound) for bound in lax.fori_loop(0, _FLOAT_BITS - 1, halve, bounds))

    free_to_pruned = ~low.unified & ~low.pruned & high.pruned
    unified_to_pruned = low.unified & high.pruned
    free_to_unified = ~low.unified & ~low.pruned & high.unified
    missing = p - low.pruned.sum(axis=1, dtype=jnp.int32)
    direct = jnp.minimum(missing, free_to_pruned.sum(axis=1, dtype=jnp.int32))

    def cheapest(mask: Array, cost: Array, count: Array) -> Array:
        return smallest(jnp.where(mask, cost, jnp.inf), count)

    moved = cheapest(free_to_pruned, prune, direct)
    left = cheapest(unified_to_pruned, prune - unify, missing - direct)
    entered = cheapest(free_to_unified, unify, missing - direct)
    return Classes((low.unified & ~left) | entered, low.pruned | moved | left)
