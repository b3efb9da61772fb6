"""Dense flow: pictures sampled where a field of displacements points."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def warp(image: Float[Array, " h w c"], flow: Float[Array, " h w 2"]) -> Float[Array, " h w c"]:
    """Bilinear samples of an image at displaced positions.

    `out[y, x] = image[y + h * flow[y, x, 0], x + w * flow[y, x, 1]]`; positions beyond the border take its
    nearest pixel.

    Args:
        image: picture or features.
        flow: displacements as shares of height and width, so that one field serves every resolution.
    """
    height, width, channels = image.shape
    rows = jnp.clip(jnp.arange(height)[:, None] + height * flow[..., 0], 0, height - 1)
    columns = jnp.clip(jnp.arange(width)[None, :] + width * flow[..., 1], 0, width - 1)
    # the last pixel's right neighbor is never looked at with a weight: its fraction is 1 of the one before
    top = jnp.minimum(jnp.floor(rows), height - 2).astype(jnp.int32)
    left = jnp.minimum(jnp.floor(columns), width - 2).astype(jnp.int32)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    flat = image.reshape(height * width, channels)
    corner = top * width + left
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + width] * (1 - right) + flat[corner + width + 1] * right
    return upper * (1 - down) + lower * down


def enlarge(maps: Float[Array, " h w c"], factor: int) -> Float[Array, " h2 w2 c"]:
    """Maps at `factor` times the resolution, bilinear between pixel centers.

    Written as two small matrix products, which differentiate faster on CPUs than a gather does.

    Args:
        maps: flow, occlusion or features.
        factor: a whole number of at least 1.
    """
    if factor == 1:
        return maps
    return jnp.einsum("ij,jkc,lk->ilc", _stretch(maps.shape[0], factor), maps, _stretch(maps.shape[1], factor))


def _stretch(size: int, factor: int) -> Float[Array, " fine coarse"]:
    """The matrix of linear interpolation from `size` to `size * factor` samples."""
    centers = jnp.clip((jnp.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    return jnp.maximum(0, 1 - jnp.abs(centers[:, None] - jnp.arange(size)[None, :]))
