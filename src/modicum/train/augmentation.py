"""Training examples altered at random: images shifted and mirrored, events shifted and thinned."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from modicum.core import Key, check

# trials that one uniform number decides: P(0) is then at least (1/2)^8, far above the 2^-23 in which it comes
_TRIALS = 8


def augment(
    key: Key, images: Float[Array, " b h w i"], shift: int = 4, *, mirror: bool = True, cutout: int = 0
) -> Float[Array, " b h w i"]:
    """Each image shifted by up to `shift` pixels along both axes, zeros moving in, and mirrored half of the time.

    Then, if asked, a square of zeros around a pixel, each as likely, is put into it: at the edge less than all of it.

    Args:
        key: which shifts and mirrors; each image has its own.
        images: standardized, so that 0 is the mean.
        shift: largest shift, at least 0; all `(2 shift + 1)^2` are as likely.
        mirror: whether half of the images are mirrored, left for right. Not for digits or letters.
        cutout: side of the square, at least 0; 0 for none.

    Returns:
        Images of the same shape.

    Reference:
        He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2: a random crop of the image
        or its mirror image, padded by 4 pixels. DeVries and Taylor, "Improved regularization of convolutional neural
        networks with cutout", arXiv 1708.04552: a side of 16 pixels for CIFAR-10.
    """
    check.integer(0, shift=shift, cutout=cutout)
    shift_key, mirror_key = jax.random.split(key)
    starts = jax.random.randint(shift_key, (len(images), 2), 0, 2 * shift + 1)
    if mirror:
        mirrored = jax.random.bernoulli(mirror_key, shape=(len(images), 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))

    def crop(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), images.shape[1:])

    cropped = jax.vmap(crop)(padded, starts)
    return _cut_out(jax.random.fold_in(key, 1), cropped, cutout) if cutout else cropped


def _cut_out(key: Key, images: Float[Array, " b h w i"], side: int) -> Float[Array, " b h w i"]:
    """A square of zeros in each image, around a pixel drawn evenly."""
    batch, height, width, _ = images.shape
    centers = jax.random.randint(key, (batch, 2), 0, jnp.array([[height, width]]))
    first = centers - side // 2

    def inside(size: int, starts: Array) -> Array:
        place = jnp.arange(size)[None]
        return (place >= starts[:, None]) & (place < starts[:, None] + side)

    hidden = inside(height, first[:, 0])[:, :, None] & inside(width, first[:, 1])[:, None]
    return jnp.where(hidden[..., None], 0, images)


def augment_events(
    key: Key,
    events: Num[Array, " b t h w i"],
    shift: int = 2,
    *,
    drop: float = 0.1,
    time_shift: int = 0,
    mirror: bool = False,
    flip_polarity: bool = False,
) -> Num[Array, " b t h w i"]:
    """Each recording shifted along rows, columns and time, zeros moving in, and every event dropped by chance.

    What is random is so for each recording apart. Under `jit`, everything but the key and the events is static.

    Args:
        key: which shifts, mirrors and events.
        events: counts by time, row, column and polarity, as `load` returns them, of any dtype; of fractions the whole
            events count.
        shift: largest shift of rows and columns, at least 0; all `(2 shift + 1)^2` are as likely.
        drop: probability that an event vanishes, from 0 to 1.
        time_shift: largest shift to earlier or later, in bins of time, at least 0; none by default, since a bin may
            last as long as the recording.
        mirror: whether half of the recordings are mirrored, left for right. Not for digits or letters.
        flip_polarity: whether half of the recordings have their polarities swapped, as if dark were light.

    Returns:
        Counts of the same shape and dtype.

    Raises:
        ValueError: if a shift is no whole number of at least 0, or `drop` does not lie from 0 to 1.

    Reference:
        Li et al., "Neuromorphic data augmentation for training spiking neural networks", ECCV 2022: mirrors, and shifts
        (in the authors' code by up to 3 or 5 pixels of 48, what leaves at one side coming in at the other). We leave
        out its rotations, shears and cut-outs. Gu et al., "EventDrop: Data augmentation for event-based learning",
        IJCAI 2021: random drop (in the authors' code of 0.1 to 0.9 of the events in one recording of four). We leave
        out its drops of an area or a stretch of time. The default numbers here are milder, and not tuned.
    """
    check.integer(0, shift=shift, time_shift=time_shift)
    check.between(0, 1, drop=drop)
    shift_key, mirror_key, flip_key, drop_key = jax.random.split(key, 4)
    size = len(events)
    if mirror:
        mirrored = jax.random.bernoulli(mirror_key, shape=(size, 1, 1, 1, 1))
        events = jnp.where(mirrored, events[:, :, :, ::-1], events)
    if flip_polarity:
        flipped = jax.random.bernoulli(flip_key, shape=(size, 1, 1, 1, 1))
        events = jnp.where(flipped, events[..., ::-1], events)
    if shift or time_shift:
        events = _shifted(shift_key, events, (time_shift, shift, shift))
    return _thinned(drop_key, events, drop) if drop else events


def _shifted(key: Key, events: Num[Array, " b t h w i"], largest: tuple[int, int, int]) -> Num[Array, " b t h w i"]:
    """Each recording shifted by up to so many bins, rows and columns."""
    ends = jnp.array([2 * most + 1 for most in largest])
    starts = jax.random.randint(key, (len(events), 3), 0, ends[None, :])
    padded = jnp.pad(events, ((0, 0), *((most, most) for most in largest), (0, 0)))

    def crop(recording: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(recording, (start[0], start[1], start[2], 0), events.shape[1:])

    return jax.vmap(crop)(padded, starts)


@functools.partial(jax.jit, static_argnames="drop")
def _thinned(key: Key, events: Num[Array, " *n"], drop: float) -> Num[Array, " *n"]:
    """What remains of counts when every event vanishes with probability `drop`."""
    counts = jnp.maximum(jnp.floor(events.astype(jnp.float32)), 0)
    lost = _binomial(key, counts, drop) if drop <= 0.5 else counts - _binomial(key, counts, 1 - drop)
    return events - lost.astype(events.dtype)


def _binomial(key: Key, counts: Float[Array, " *n"], chance: float) -> Float[Array, " *n"]:
    """How many of `counts` trials succeed, of which each does with probability `chance`, from 0 to 1/2.

    By inversion, 8 trials at a time: with one uniform number `u`, the successes are as many as the partial sums of
    `P(k) = (n choose k) chance^k (1 - chance)^(n - k)` that do not exceed `u`. Where no count is above 8, as in N-MNIST
    in bins of 10 ms, that is one number for each; `jax.random.binomial` draws one for each success. Trials beyond
    65,536 fail.
    """
    odds = chance / (1 - chance)

    def draw(i: Array, total: Array) -> Array:
        trials = jnp.clip(counts - _TRIALS * i, 0, _TRIALS)
        uniform = jax.random.uniform(jax.random.fold_in(key, i), counts.shape)
        probability = (1 - chance) ** trials
        below = probability
        for k in range(_TRIALS):
            total += (uniform >= below) & (k < trials)
            probability *= (trials - k) / (k + 1) * odds
            below += probability
        return total

    draws = jnp.ceil(jnp.minimum(counts.max(initial=0), 65_536) / _TRIALS).astype(jnp.int32)
    return jax.lax.fori_loop(0, draws, draw, jnp.zeros_like(counts))
