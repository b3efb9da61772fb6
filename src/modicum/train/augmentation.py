"""Random crops and mirror images, as CIFAR networks are trained with."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.core import Key, check


def augment(key: Key, images: Float[Array, " b h w i"], pad: int = 4) -> Float[Array, " b h w i"]:
    """Each image shifted by up to `pad` pixels along both axes, zeros moving in, and mirrored half of the time.

    Args:
        key: which shifts and mirrors; each image has its own.
        images: standardized, so that 0 is the mean.
        pad: largest shift, at least 0; all `(2 pad + 1)^2` are as likely.

    Returns:
        Images of the same shape.

    Reference:
        He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2: a random crop of the image
        or its mirror image, padded by 4 pixels.
    """
    check.integer(0, pad=pad)
    shift_key, mirror_key = jax.random.split(key)
    starts = jax.random.randint(shift_key, (len(images), 2), 0, 2 * pad + 1)
    mirrored = jax.random.bernoulli(mirror_key, shape=(len(images), 1, 1, 1))
    chosen = jnp.where(mirrored, images[:, :, ::-1], images)
    padded = jnp.pad(chosen, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def crop(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, starts)
