"""Convolutional classifiers: LeNet-5 and a small net of 3x3 convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_jvp
def max_pool(x: Float[Array, " *b h w i"]) -> Float[Array, " *b p q i"]:
    """Maximum over 2x2 windows, stride 2; an odd last row or column is left out.

    By a reshape: XLA's gradient of a pooling window (select-and-scatter) is slow on CPUs
    (`scripts/bench/cpu_operators.py`). Where values are equal the gradient is shared among them, first by columns, then
    by rows, instead of going to the first.
    """
    return _windows(x).max((-4, -2))


def _windows(x: Array) -> Array:
    *batch, height, width, channels = x.shape
    even = x[..., : height // 2 * 2, : width // 2 * 2, :]
    return even.reshape(*batch, height // 2, 2, width // 2, 2, channels)


def _by_pairs(x: Array) -> Array:
    windows = _windows(x)
    rows = jnp.maximum(windows[..., 0, :, :, :], windows[..., 1, :, :, :])
    return jnp.maximum(rows[..., 0, :], rows[..., 1, :])


@max_pool.defjvp
def _max_pool_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # the derivative of `max` divides by how many values equal it: by zero where XLA computes the values twice and
    # rounds them differently
    return jax.jvp(_by_pairs, primals, tangents)


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max pooling: two 5x5 convolutions and a head of dense layers.

    As it stands it has 61,706 parameters on 28x28x1 images: the first convolution pads (the images of the paper
    were 32x32), the second does not. On smaller images (the digits' 8x8) a convolution that would leave
    nothing to pool pads, too. `caffe_lenet` gives the other network that goes by the name.

    Attributes:
        classes: number of outputs.
        widths: output channels of the two convolutions.
        hidden: widths of the dense layers before the last.
        first_padding: "SAME" or "VALID", padding of the first convolution.

    Reference:
        LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998, section
        II.B. Ours has full connections between the convolutions and a linear last layer, as all do since.
    """

    classes: int = 10
    widths: tuple[int, ...] = (6, 16)
    hidden: tuple[int, ...] = (120, 84)
    first_padding: str = "SAME"

    @nn.compact
    def __call__(self, images: Float[Array, " *b h w i"]) -> Float[Array, " *b classes"]:
        """Logits of images (batch optional)."""
        x = images
        for width, padding in zip(self.widths, (self.first_padding, "VALID"), strict=True):
            # 5x5 takes 4 pixels of each side, and pooling needs 2
            padding = padding if min(x.shape[-3:-1]) >= 6 else "SAME"
            x = nn.relu(nn.Conv(width, (5, 5), padding=padding)(x))
            x = max_pool(x)
        x = x.reshape(*x.shape[:-3], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


def caffe_lenet(classes: int = 10) -> LeNet5:
    """The LeNet of Caffe and of the pruning literature: 20 and 50 channels, 500 hidden units, 431,080 parameters.

    Args:
        classes: number of outputs.
    """
    return LeNet5(classes=classes, widths=(20, 50), hidden=(500,), first_padding="VALID")


class SmallConvNet(nn.Module):
    """3x3 convolutions, each with ReLU and 2x2 max pooling, and a dense head.

    Attributes:
        classes: number of outputs.
        widths: output channels of the convolutions; images must have at least `2**len(widths)` pixels a side.
        hidden: widths of dense layers before the last.
    """

    classes: int = 10
    widths: tuple[int, ...] = (16, 32, 64)
    hidden: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, images: Float[Array, " *b h w i"]) -> Float[Array, " *b classes"]:
        """Logits of images (batch optional)."""
        least = 2 ** len(self.widths)
        if min(images.shape[-3:-1]) < least:
            raise ValueError(f"images must have at least {least} pixels a side, got shape {images.shape}")
        x = images
        for width in self.widths:
            x = nn.relu(nn.Conv(width, (3, 3))(x))
            x = max_pool(x)
        x = x.reshape(*x.shape[:-3], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)
