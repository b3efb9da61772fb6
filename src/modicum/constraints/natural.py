"""The pattern library that kernels show by themselves, read off a weight inside a compiled program."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from modicum.constraints.base import rank_mask

MOST_TAPS = 30
"""Largest window: a pattern is one int32 of as many bits, and one number beyond them means none."""


def center(kh: int, kw: int) -> int:
    """Position of the middle of a window, numbered row by row."""
    return kh // 2 * kw + kw // 2


def natural_table(x: Float[Array, " o i e"], k: int, size: int, middle: int) -> Bool[Array, " k e"]:
    """The `k` most frequent natural patterns of kernels, most frequent first.

    A pattern is coded by its empty positions, the first one in the highest bit, so that the order of codes is the
    lexicographic order of patterns. Sorted codes put equal ones next to each other; each run is counted by where
    it starts and ends. No shape depends on the weights: one program serves all seeds, under `vmap` as well.

    Args:
        x: kernels; one that is all zero has no vote.
        k: patterns wanted.
        size: positions of a pattern, the center among them.
        middle: position of the center.

    Returns:
        One row per pattern, `size` True in each. Where fewer than `k` patterns occur, the first one again; where
        none does, the lexicographically lowest.
    """
    taps = x.shape[-1]
    weights = 2 ** jnp.arange(taps - 1, -1, -1, dtype=jnp.int32)
    score = jnp.where(jnp.arange(taps)[None] == middle, jnp.inf, jnp.abs(x.reshape(-1, taps)))
    kept = rank_mask(score, size)
    votes = jnp.any(x.reshape(-1, taps) != 0, axis=-1)
    nothing = jnp.int32(2**taps)
    codes = jnp.where(votes, jnp.sum(jnp.where(kept, 0, weights[None]), axis=-1), nothing)
    codes = jnp.sort(jnp.pad(codes, (0, k), constant_values=nothing))
    starts = jnp.pad(codes[1:] != codes[:-1], (1, 0), constant_values=True)
    run = jnp.cumsum(starts) - 1
    length = jnp.zeros(codes.shape, jnp.int32).at[run].add(1)[run]
    count = jnp.where(starts & (codes != nothing), length, 0)
    order = jnp.argsort(-count, stable=True)[:k]
    lowest = jnp.sum(jnp.where(rank_mask((jnp.arange(taps) == middle).astype(jnp.float32), size), 0, weights))
    first = jnp.where(count[order[0]] > 0, codes[order[0]], lowest)
    chosen = jnp.where(count[order] > 0, codes[order], first)
    return (chosen[:, None] & weights[None]) == 0
