"""Convolutions of stride 1 and their cotangents, fast in loops on CPUs.

XLA's own gradients of a convolution run over ten times slower inside a loop on CPUs (`scripts/bench/spiking.py
operators`); here they are matrix products of shifted copies, in parts of the batch that stay in the cache.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modicum.core import loops_on_device

# numbers of a part of a batch whose shifted copies stay in a CPU's cache, one image at least
_IN_CACHE, _CROSSED_IN_CACHE = 2**16, 2**13


def convolved(
    images: Float[Array, " b h w i"], kernel: Float[Array, " k k i o"], precision: lax.Precision | None = None
) -> Float[Array, " b h w o"]:
    """The convolution that keeps the size of the images."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout, precision=precision)


def computed_after(first: Array, values: Array) -> Array:
    """The values, to be had only once `first` is computed.

    XLA's CPU scheduler runs whatever is independent side by side: it would shift the spikes of all layers in advance
    and put the kernels' cotangents off to the end, and keep all that alive meanwhile. `optimization_barrier` is gone
    by the time it decides.
    """
    return values + (0 * first[(0,) * first.ndim]).astype(values.dtype)


def kernel_cotangent(
    images: Float[Array, " b h w i"], cotangent: Float[Array, " b h w o"], side: int
) -> Float[Array, " k k i o"]:
    """`x^T dy` for each of the kernel's taps, `x` shifted, in parts that stay in a CPU's cache.

    On accelerators it is the library's own gradient, which runs as fast in a loop as outside.
    """
    if loops_on_device():
        shape = jax.ShapeDtypeStruct((side, side, images.shape[-1], cotangent.shape[-1]), images.dtype)
        return jax.linear_transpose(lambda kernel: convolved(images, kernel), shape)(cotangent)[0]
    start = jnp.zeros((side, side, images.shape[-1], cotangent.shape[-1]), cotangent.dtype)
    return _by_parts(lambda image, part: (_taps(image, part, side), None), start, images, cotangent, _IN_CACHE)[0]


def crossed(images: Float[Array, " b h w i"], cotangent: Float[Array, " b h w o"], side: int) -> bool:
    """Whether `crossed_cotangents` is the faster way: on CPUs, with few channels, but not too few."""
    channels = images.shape[-1], cotangent.shape[-1]
    return not loops_on_device() and side > 1 and min(channels) >= 8 and side * max(channels) <= 192


def crossed_cotangents(
    images: Float[Array, " b h w i"],
    cotangent: Float[Array, " b h w o"],
    kernel: Float[Array, " k k i o"],
    images_needed: bool,
) -> tuple[Float[Array, " k k i o"], Float[Array, " b h w i"] | None]:
    """The cotangents of kernel and images, each by one product for all taps.

    With few channels the product of a tap is too small for the units of a CPU, and copies take most of the time. Here
    images shifted sideways, their copies side by side, meet cotangents shifted downwards, likewise: a product `side`
    times as large both ways, of `2 side` copies in place of `side**2`. The latter copies times the kernel, shifted
    sideways and added, are the images' cotangent.

    Args:
        images: what was convolved.
        cotangent: of what came out.
        kernel: what it was convolved with.
        images_needed: whether the second is asked for.
    """
    side, _, channels, features = kernel.shape
    margin, (height, width) = side // 2, images.shape[1:3]
    by_rows = kernel.transpose(0, 3, 1, 2).reshape(side * features, side * channels)

    def product(images: Array, cotangent: Array) -> tuple[Array, Array | None]:
        padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        sideways = jnp.concatenate([padded[:, :, j : j + width] for j in range(side)], -1)
        padded = jnp.pad(cotangent, ((0, 0), (2 * margin, 2 * margin), (0, 0), (0, 0)))
        rows = [padded[:, 2 * margin - i : 4 * margin - i + height] for i in range(side)]
        downwards = jnp.concatenate(rows, -1).reshape(-1, side * features)
        taps = sideways.reshape(-1, side * channels).T @ downwards
        if not images_needed:
            return taps, None
        columns = (downwards @ by_rows).reshape(-1, height + 2 * margin, width, side, channels)
        columns = columns[:, margin : margin + height]
        columns = jnp.pad(columns, ((0, 0), (0, 0), (margin, margin), (0, 0), (0, 0)))
        shifted = (columns[:, :, 2 * margin - j : 2 * margin - j + width, j] for j in range(side))
        return taps, functools.reduce(jnp.add, shifted)

    start = jnp.zeros((side * channels, side * features), cotangent.dtype)
    taps, back = _by_parts(product, start, images, cotangent, _CROSSED_IN_CACHE)
    return taps.reshape(side, channels, side, features).transpose(2, 0, 1, 3), back


def _by_parts(
    product: Callable[..., tuple[Array, Any]], start: Array, images: Array, cotangent: Array, most: int
) -> tuple[Array, Any]:
    """Sums of the first results over parts of the batch, of at most so many numbers or one image; the second joined."""
    batch, size = images.shape[0], max(images.size, cotangent.size)
    divisors = (parts for parts in range(1, batch + 1) if batch % parts == 0)
    parts = next(parts for parts in divisors if size <= parts * most or parts == batch)
    if parts == 1:
        return product(images, cotangent)

    def body(total: Array, part: tuple[Array, Array]) -> tuple[Array, Any]:
        first, second = product(*part)
        return total + first, second

    split: Any = tuple(array.reshape(parts, -1, *array.shape[1:]) for array in (images, cotangent))
    total, joined = lax.scan(body, start, split)
    return total, None if joined is None else joined.reshape(batch, *joined.shape[2:])


def _taps(images: Array, cotangent: Array, side: int) -> Array:
    _, height, width, channels = images.shape
    margin = side // 2
    padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    outer = cotangent.reshape(-1, cotangent.shape[-1])
    rows = [
        jnp.stack([padded[:, i : i + height, j : j + width].reshape(-1, channels).T @ outer for j in range(side)])
        for i in range(side)
    ]
    return jnp.stack(rows)
