"""Batches as a pure function of (key, step): a keyed permutation that costs as much as the batch, not the epoch."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from modicum.core import Key, check
from modicum.train import augmentation

_ROUNDS = 8
# folded into the key of the order for that of augmentation: the number of an epoch that no run reaches
_AUGMENTATION = np.uint32(2**32 - 1)
_IMAGE_AXES, _EVENT_AXES = 4, 5


def _mix(word: UInt32[Array, " *n"]) -> UInt32[Array, " *n"]:
    """Murmur3's finalizer: each bit of the word moves each bit of the result."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        word = (word ^ (word >> shift)) * np.uint32(factor)
    return word ^ (word >> 16)


def permuted(key: Key, positions: Int[Array, " n"], size: int) -> Int[Array, " n"]:
    """Where a random permutation of `0 .. size-1` sends some positions, without making the whole of it.

    A Feistel network on pairs `(l, r)` of `Z_a x Z_b`, `a = ceil(sqrt(size))`, `b = ceil(size / a)`: rounds
    `l <- l + F(r) mod a` and `r <- r + G(l) mod b` in turn, each invertible whatever `F` and `G` are. The product
    `a b` exceeds `size` by less than `a`; a result beyond `size` is sent through again (cycle walking), so that what
    remains is a permutation of exactly `0 .. size-1`. `jax.random.permutation` sorts the whole epoch in each step
    instead.

    Args:
        key: which permutation.
        positions: from 0 to `size - 1`.
        size: how many numbers are permuted, from 1 to 2**30; static.

    Returns:
        The images of `positions`, distinct where these are.

    Reference:
        Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002: the generalized Feistel cipher with
        cycle walking. Ours is for shuffling: its rounds mix well, and hide nothing from an adversary.
    """
    check.integer(1, 2**30, size=size)
    a = int(np.ceil(np.sqrt(size)))
    b = -(-size // a)
    keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def once(position: Array) -> Array:
        left, right = position // b, position % b
        for i in range(0, _ROUNDS, 2):
            left = (left + _mix(right ^ keys[i]) % a) % a
            right = (right + _mix(left ^ keys[i + 1]) % b) % b
        return left * b + right

    images = jax.lax.while_loop(
        lambda image: jnp.any(image >= size),
        lambda image: jnp.where(image >= size, once(image), image),
        once(positions.astype(jnp.uint32)),
    )
    return images.astype(jnp.int32)


def batch_indices(key: Key, step: Any, size: int, batch: int) -> Int[Array, " batch"]:
    """The examples of a step: each epoch a fresh permutation, the rest that fills no batch left out.

    Step `s` belongs to epoch `e = s // (size // batch)`, whose permutation is `permuted(fold_in(key, e), ...)`.

    Args:
        key: the order of all epochs.
        step: number of the step, from 0; may be traced.
        size: examples in the split.
        batch: examples in a batch, from 1 to `size`.

    Returns:
        `batch` distinct indices into the split.

    Raises:
        ValueError: if `batch` does not lie from 1 to `size`.

    Example:
        >>> key = jax.random.key(0)
        >>> epoch = jnp.concatenate([batch_indices(key, step, 12, 4) for step in range(3)])
        >>> sorted(epoch.tolist()) == list(range(12))
        True
    """
    check.integer(1, size, batch=batch)
    per_epoch = size // batch
    step = jnp.asarray(step, jnp.int32)
    epoch, within = step // per_epoch, step % per_epoch
    return permuted(jax.random.fold_in(key, epoch), within * batch + jnp.arange(batch), size)


def _take(data: Any, key: Key, batch: Any, step: Any) -> Any:
    chosen = batch_indices(key, step, jax.tree.leaves(data)[0].shape[0], batch.size)
    return jax.tree.map(lambda array: array[chosen], data)


def _take_augmented(data: Any, key: Key, batch: Any, step: Any) -> Any:
    inputs, *rest = _take(data, key, batch, step)
    step_key = jax.random.fold_in(jax.random.fold_in(key, _AUGMENTATION), step)
    shift = {} if batch.shift is None else {"shift": batch.shift}
    if inputs.ndim == _EVENT_AXES:
        return augmentation.augment_events(step_key, inputs, **shift), *rest
    return augmentation.augment(step_key, inputs, mirror=batch.mirror, cutout=batch.cutout, **shift), *rest


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Batch:
    """Static settings inside a pytree: numbers that jitted code may use as shapes."""

    size: int
    shift: int | None
    mirror: bool
    cutout: int


def batches(
    data: Any,
    key: Key,
    batch: int,
    *,
    augment: bool = False,
    shift: int | None = None,
    mirror: bool = True,
    cutout: int = 0,
) -> jax.tree_util.Partial:
    """`step -> batch` over arrays in memory: traceable, and a pytree, so that `jit` takes the data as an argument.

    Args:
        data: pytree of arrays with examples first, `(inputs, labels)` for instance; moved to the device once.
        key: the order, see `batch_indices`.
        batch: examples in a batch.
        augment: whether the first of `data`'s arrays is altered at random, each step in its own way, which the key and
            the step decide: one of 4 axes by `augmentation.augment`, as images, one of 5 by
            `augmentation.augment_events`, as counts of events.
        shift: largest shift of augmented examples, at least 0; None for the default of those functions.
        mirror: whether augmented images are mirrored half of the time; events never are.
        cutout: side of the square that is cut out of augmented images, 0 for none; events keep theirs.

    Returns:
        A function of the step.

    Raises:
        ValueError: if the arrays differ in length, `batch` does not lie from 1 to that length, or what is to be
            augmented are neither images nor events.
    """
    if augment:
        check.rank((_IMAGE_AXES, _EVENT_AXES), inputs=jax.tree.leaves(data)[0])
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1:
        raise ValueError(f"data must hold arrays of one length, got lengths {sorted(sizes)}")
    check.integer(1, sizes.pop(), batch=batch)
    take = _take_augmented if augment else _take
    return jax.tree_util.Partial(take, jax.tree.map(jnp.asarray, data), key, _Batch(batch, shift, mirror, cutout))
