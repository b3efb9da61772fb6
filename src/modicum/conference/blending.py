"""Face swap and facial blur: what keeps a background still and a source cheap."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from modicum.core import check

_FLOOR = 0.1


def swapped(
    picture: Float[Array, " n n 3"], mask: Float[Array, " n n 1"], portrait: Float[Array, " n n 3"]
) -> Float[Array, " n n 3"]:
    """The moving part of a picture in a still portrait: `m * picture + (1 - m) * portrait`.

    The mask is stretched so that what it gives less than a tenth is none of the face: there the portrait's pixels stay
    exactly as they are, whatever the face does.

    Args:
        picture: the animated face.
        mask: from 0, background, to 1, face.
        portrait: the still picture.
    """
    share = jnp.clip((mask - _FLOOR) / (1 - 2 * _FLOOR), 0, 1)
    return jnp.where(share == 0, portrait, share * picture + (1 - share) * portrait)


def blurred(picture: UInt8[np.ndarray, " n n 3"], strength: float) -> UInt8[np.ndarray, " n n 3"]:
    """A picture whose middle, where the face is, is blurred by a Gaussian.

    Args:
        picture: RGB, the head in its middle.
        strength: sigma as a share of the side, from 0 to 0.2.
    """
    import cv2

    check.between(0, 0.2, strength=strength)
    if not strength:
        return picture
    side = picture.shape[0]
    smooth = cv2.GaussianBlur(picture, (0, 0), strength * side)
    rows, columns = np.mgrid[:side, :side] / (side - 1) - 0.5
    # an ellipse about the head, 2/3 as wide as high, with an edge a tenth of the side wide
    radius = np.hypot(rows / 0.42, columns / 0.3)
    share = np.clip((1.15 - radius) / 0.3, 0, 1)[..., None]
    return np.round(share * smooth + (1 - share) * picture).astype(np.uint8)
