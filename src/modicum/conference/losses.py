"""What the model is trained by: no downloaded network, no labels, the frames of a call alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.conference import network, quality
from modicum.conference.spec import FaceSpec
from modicum.core import Params


class Batch(NamedTuple):
    """Frames of one training step, from 0 to 1.

    Attributes:
        noise: (batch, latents), uniform from -0.5 to 0.5, in place of rounding.
        share: (batch,), from 0 to 1: how much of the first source is mixed in.
        sources: (batch, 2, size, size, 3): coded pictures of the same person.
        frames: (batch, size, size, 3): to be reconstructed.
        before: (batch, size, size, 3): the frame before each, for the rate of motion.
    """

    noise: Array
    share: Array
    sources: Array
    frames: Array
    before: Array


class LossWeights(NamedTuple):
    """Shares of the terms, and of the rate in bits a frame."""

    pyramid: float = 1.0
    structure: float = 0.5
    gradient: float = 0.5
    statistics: float = 0.2
    swap: float = 0.25
    rate: float = 1e-4


def pyramid_l1(first: Float[Array, " h w c"], second: Float[Array, " h w c"], levels: int = 4) -> Float[Array, ""]:
    """Mean absolute difference, averaged over resolutions that halve from one to the next.

    Args:
        first: a picture.
        second: another.
        levels: resolutions, at least 1.
    """
    total = jnp.zeros(())
    for _ in range(levels):
        total = total + jnp.abs(first - second).mean()
        first, second = quality.halved(first), quality.halved(second)
    return total / levels


def gradient_l1(first: Float[Array, " h w c"], second: Float[Array, " h w c"]) -> Float[Array, ""]:
    """Mean absolute difference of the differences between neighbors: edges where they belong.

    Args:
        first: a picture.
        second: another.
    """
    difference = first - second
    return jnp.abs(jnp.diff(difference, axis=0)).mean() + jnp.abs(jnp.diff(difference, axis=1)).mean()


def statistics_l1(first: Float[Array, " h w c"], second: Float[Array, " h w c"], cell: int = 8) -> Float[Array, ""]:
    """Mean absolute difference of the local contrast: texture of the right strength, wherever exactly it lies.

    The standard deviation of each cell of `cell` x `cell` pixels, which a blurred picture loses first.

    Args:
        first: a picture whose sides `cell` divides.
        second: another.
        cell: side of a cell.
    """

    def contrast(image: Array) -> Array:
        cells = image.reshape(image.shape[0] // cell, cell, image.shape[1] // cell, cell, -1)
        return jnp.sqrt(cells.var((1, 3)) + 1e-5)

    return jnp.abs(contrast(first) - contrast(second)).mean()


def motion_bits(motion: Float[Array, " b n"], before: Float[Array, " b n"]) -> Float[Array, ""]:
    """About how many bits a frame's motion costs: `sum log2(1 + 2 |difference|)`, mean over the batch.

    Args:
        motion: motion vectors in units of the quantizer's step.
        before: those of the frames before.
    """
    return jnp.log2(1 + 2 * jnp.abs(motion - before)).sum(-1).mean()


def distance(first: Float[Array, " h w c"], second: Float[Array, " h w c"], weights: LossWeights) -> Float[Array, ""]:
    """The weighted sum of the terms that compare two pictures.

    Args:
        first: a picture.
        second: another.
        weights: shares.
    """
    return (
        weights.pyramid * pyramid_l1(first, second)
        + weights.structure * (1 - quality.ms_ssim(first, second))
        + weights.gradient * gradient_l1(first, second)
        + weights.statistics * statistics_l1(first, second)
    )


def loss(params: Params, batch: Batch, spec: FaceSpec, weights: LossWeights) -> tuple[Array, dict[str, Array]]:
    """Loss of one batch, and what it consists of.

    Two sources are mixed by the batch's share. Rounding is replaced by uniform noise of the same width
    (Balle et al., 2017).

    Args:
        params: of `FaceModel`.
        batch: frames.
        spec: the model.
        weights: shares.
    """
    size = batch.frames.shape[0]
    motion, before = jnp.split(network.encode(params, spec, jnp.concatenate([batch.frames, batch.before])), 2)
    read = network.read(params, spec, batch.sources.reshape(-1, *batch.frames.shape[1:]))
    sources = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(size, 2, *leaf.shape[1:]), 1, 0), read)
    drawn = network.draw(params, spec, sources, jnp.stack([batch.share, 1 - batch.share]), motion + batch.noise)
    still = sources.picture[0]
    swapped = drawn.mask * drawn.picture + (1 - drawn.mask) * still
    compare = jax.vmap(lambda first, second: distance(first, second, weights))
    whole, parts = compare(drawn.picture, batch.frames).mean(), jax.vmap(pyramid_l1)(swapped, batch.frames).mean()
    bits, moving = motion_bits(motion, before), drawn.mask.mean()
    total = whole + weights.swap * (parts + 0.02 * moving) + weights.rate * bits
    error = jnp.mean((drawn.picture - batch.frames) ** 2, (1, 2, 3))
    return total, {"psnr": jnp.mean(-10 * jnp.log10(error)), "bits": bits, "moving": moving}
