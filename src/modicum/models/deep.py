"""Deep convolutional classifiers with batch normalization: VGG-16, ResNets, MobileNetV2.

Each has two modes: `model.apply(variables, x)` normalizes by stored statistics, `apply_training(model)` by those of the
batch; `calibrate` fills the former in.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.core import check
from modicum.models.convolutional import max_pool
from modicum.models.normalized import conv_norm


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions, each with batch normalization and ReLU, in five stages that end in 2x2 max pooling.

    As it stands it is the network for CIFAR's 32x32 images; with `hidden=(4096, 4096)`, 224x224 images and 1,000
    classes it is that of ImageNet. The dropout of the original is left out.

    Attributes:
        classes: number of outputs.
        widths: output channels of the convolutions of each stage.
        hidden: widths of dense layers before the last.

    Reference:
        Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
        table 1, column D, with batch normalization in place of the convolutions' biases.
    """

    classes: int = 10
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, images: Float[Array, " *b h w i"], training: bool = False) -> Float[Array, " *b classes"]:
        """Logits of images (batch optional); sides must be multiples of 32, or the rest is cut."""
        x = images
        for width, depth in zip(self.widths, (2, 2, 3, 3, 3), strict=True):
            for _ in range(depth):
                x = nn.relu(conv_norm(training, x, width, 3))
            x = max_pool(x)
        x = x.reshape(*x.shape[:-3], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


_STEMS = {"3x3": (3, 1), "3x3/2": (3, 2), "7x7/2": (7, 2)}


class ResNet(nn.Module):
    """A residual network: a stem, stages of blocks, the mean over the image, a dense head.

    A block is two 3x3 convolutions, or with `bottleneck` 1x1, 3x3 and 1x1 to four times the width; the first of each
    stage but the first halves the image, in its (first) 3x3 convolution. Where a block changes the shape, the
    shortcut is a 1x1 convolution (the paper's option B), or without `projection` every second pixel with channels of
    zeros added (its option A).

    Attributes:
        classes: number of outputs.
        blocks: blocks in each stage.
        widths: channels of the 3x3 convolutions in each stage.
        bottleneck: kind of block.
        projection: kind of shortcut where the shape changes.
        stem: "3x3"; "3x3/2", which halves the image; or "7x7/2", which does and has 3x3 max pooling with stride 2.

    Reference:
        He et al., "Deep residual learning for image recognition", CVPR 2016; section 4.2 for CIFAR. Bottlenecks
        stride in the 3x3 convolution, as later implementations do, and not in the 1x1 before it.
    """

    classes: int = 10
    blocks: tuple[int, ...] = (3, 3, 3)
    widths: tuple[int, ...] = (16, 32, 64)
    bottleneck: bool = False
    projection: bool = False
    stem: str = "3x3"

    @nn.compact
    def __call__(self, images: Float[Array, " *b h w i"], training: bool = False) -> Float[Array, " *b classes"]:
        """Logits of images (batch optional).

        Raises:
            ValueError: if there is no such stem, or not one width for each stage.
        """
        check.one_of(tuple(_STEMS), stem=self.stem)
        if len(self.blocks) != len(self.widths):
            raise ValueError(f"widths must be one for each of {len(self.blocks)} stages, got {self.widths}")
        x = nn.relu(conv_norm(training, images, self.widths[0], *_STEMS[self.stem]))
        if self.stem == "7x7/2":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for block in range(count):
                x = self._block(x, width, 2 if stage and not block else 1, training)
        return nn.Dense(self.classes)(x.mean((-3, -2)))

    def _block(self, x: Array, width: int, stride: int, training: bool) -> Array:
        if self.bottleneck:
            y = nn.relu(conv_norm(training, x, width, 1))
            y = nn.relu(conv_norm(training, y, width, 3, stride))
            y = conv_norm(training, y, 4 * width, 1)
        else:
            y = nn.relu(conv_norm(training, x, width, 3, stride))
            y = conv_norm(training, y, width, 3)
        if x.shape != y.shape and self.projection:
            x = conv_norm(training, x, y.shape[-1], 1, stride)
        elif x.shape != y.shape:
            x = x[..., ::stride, ::stride, :]
            x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, y.shape[-1] - x.shape[-1])])
        return nn.relu(x + y)


def resnet20(classes: int = 10) -> ResNet:
    """The 20-layer network for CIFAR, 269,722 parameters at ten classes.

    Args:
        classes: number of outputs.
    """
    return ResNet(classes=classes)


def resnet50(classes: int = 1000) -> ResNet:
    """The 50-layer network for ImageNet, 25,557,032 parameters at 1,000 classes.

    Args:
        classes: number of outputs.
    """
    return ResNet(
        classes=classes,
        blocks=(3, 4, 6, 3),
        widths=(64, 128, 256, 512),
        bottleneck=True,
        projection=True,
        stem="7x7/2",
    )


def small_resnet(classes: int = 10) -> ResNet:
    """Eight layers for CIFAR on a CPU.

    75,290 parameters; 2.6 million multiply-accumulates an image, or 3.06 million where those on padding count.

    Args:
        classes: number of outputs.
    """
    return ResNet(classes=classes, blocks=(1, 1, 1), stem="3x3/2")


# expansion, output channels, blocks, stride: table 2 of the paper
_INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _channels(width: float) -> int:
    """The multiple of 8 nearest to a width, at least 8 and not under nine tenths of it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


class MobileNetV2(nn.Module):
    """Inverted residuals: 1x1 expansion, 3x3 depthwise, linear 1x1, with a shortcut where the shape stays.

    Attributes:
        classes: number of outputs.
        width: factor of all channels, above 0.
        small_images: whether the stem and the second stage keep the size, as suits CIFAR's 32x32 images.

    Reference:
        Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, table 2; the dropout
        before the head is left out.
    """

    classes: int = 10
    width: float = 1.0
    small_images: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, " *b h w i"], training: bool = False) -> Float[Array, " *b classes"]:
        """Logits of images (batch optional).

        Raises:
            ValueError: if `width` is not above 0.
        """
        check.positive(width=self.width)
        x = conv_norm(training, images, _channels(32 * self.width), 3, 1 if self.small_images else 2)
        x = nn.relu6(x)
        for stage, (expansion, channels, count, stride) in enumerate(_INVERTED):
            for block in range(count):
                keeps = block or (self.small_images and stage == 1)
                x = self._block(x, expansion, _channels(channels * self.width), 1 if keeps else stride, training)
        x = nn.relu6(conv_norm(training, x, _channels(1280 * max(1.0, self.width)), 1))
        return nn.Dense(self.classes)(x.mean((-3, -2)))

    def _block(self, x: Array, expansion: int, channels: int, stride: int, training: bool) -> Array:
        y, hidden = x, x.shape[-1] * expansion
        if expansion > 1:
            y = nn.relu6(conv_norm(training, y, hidden, 1))
        y = nn.relu6(conv_norm(training, y, hidden, 3, stride, groups=hidden))
        y = conv_norm(training, y, channels, 1)
        return x + y if x.shape == y.shape else y
