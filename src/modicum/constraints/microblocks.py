"""Micro-blocks of a weight seen as `(taps, in, out)`, and what one shared magnitude does to them."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Shaped

from modicum.constraints import base


def checked_block(name: str, block: Any) -> tuple[int, int, int]:
    """A block as three whole numbers.

    Raises:
        ValueError: for anything but two or three numbers of at least 1.
    """
    parts = tuple(block) if isinstance(block, Sequence) and not isinstance(block, str) else ()
    whole = all(isinstance(part, Integral) and not isinstance(part, bool) and int(part) >= 1 for part in parts)
    if not whole or len(parts) not in (2, 3):
        raise ValueError(f"{name} must be (taps, in, out) or (in, out), whole numbers of at least 1, got {block!r}")
    taps, inputs, outputs = (1, *parts)[-3:]
    return int(taps), int(inputs), int(outputs)


class Blocking(NamedTuple):
    """How a weight is cut into super-blocks and these into blocks; static, and hashable.

    Attributes:
        shape: of the weight, HWIO or `(in, out)`.
        block: `(taps, in, out)` of a block, no larger than the weight.
        many: blocks of a super-block along each axis; None for the whole layer.
    """

    shape: tuple[int, ...]
    block: tuple[int, int, int]
    many: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, shape: tuple[int, ...], block: Any, superblock: Any) -> "Blocking":
        """The cut of a weight, with blocks clipped to it."""
        many = None if superblock is None else tuple(a // b for a, b in zip(superblock, block, strict=True))
        *window, inputs, outputs = shape
        view = (math.prod(window), inputs, outputs)
        taps, ins, outs = (min(a, b) for a, b in zip(block, view, strict=True))
        return cls(tuple(shape), (taps, ins, outs), many)

    @property
    def view(self) -> tuple[int, int, int]:
        """`(taps, in, out)` of the weight."""
        *window, inputs, outputs = self.shape
        return math.prod(window), inputs, outputs

    @property
    def pieces(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Super-blocks, and blocks of a super-block, along each axis."""
        fine = [-(-length // size) for length, size in zip(self.view, self.block, strict=True)]
        if self.many is None:
            return (1, 1, 1), tuple(fine)
        inner = [min(n, many) for n, many in zip(fine, self.many, strict=True)]
        return tuple(-(-n // many) for n, many in zip(fine, inner, strict=True)), tuple(inner)

    @property
    def size(self) -> int:
        """Elements of a full block."""
        return math.prod(self.block)

    def blocks(self, w: Shaped[Array, " ..."]) -> Shaped[Array, " g b n"]:
        """The weight by super-block, block and element; blocks cut short by an edge are filled with zeros."""
        outer, inner = self.pieces
        full = [a * b * c for a, b, c in zip(outer, inner, self.block, strict=True)]
        padded = jnp.pad(w.reshape(self.view), [(0, big - n) for big, n in zip(full, self.view, strict=True)])
        axes = [size for sizes in zip(outer, inner, self.block, strict=True) for size in sizes]
        order = (0, 3, 6, 1, 4, 7, 2, 5, 8)
        return padded.reshape(axes).transpose(order).reshape(math.prod(outer), math.prod(inner), self.size)

    def weight(self, x: Shaped[Array, " g b n"]) -> Shaped[Array, " ..."]:
        """Inverse of `blocks`."""
        outer, inner = self.pieces
        cut = x.reshape(*outer, *inner, *self.block).transpose(0, 3, 6, 1, 4, 7, 2, 5, 8)
        full = cut.reshape([a * b * c for a, b, c in zip(outer, inner, self.block, strict=True)])
        taps, inputs, outputs = self.view
        return full[:taps, :inputs, :outputs].reshape(self.shape)

    def real(self) -> Bool[np.ndarray, " g b n"]:
        """Which elements are no filling."""
        outer, inner = self.pieces
        full = [a * b * c for a, b, c in zip(outer, inner, self.block, strict=True)]
        inside = np.zeros(full, bool)
        inside[tuple(slice(n) for n in self.view)] = True
        axes = [size for sizes in zip(outer, inner, self.block, strict=True) for size in sizes]
        return inside.reshape(axes).transpose(0, 3, 6, 1, 4, 7, 2, 5, 8).reshape(math.prod(outer), -1, self.size)


def total(x: Float[Array, " ... n"]) -> Float[Array, " ..."]:
    """The sum along the last axis, by halves: the same bits however a compiler groups operations."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        rest = x[..., 2 * half :]
        x = jnp.concatenate([x[..., :half] + x[..., half : 2 * half], rest], axis=-1)
    return x[..., 0]


def mean(x: Float[Array, " g b n"], among: Bool[Array, " g b n"], count: Float[Any, " g b"]) -> Float[Array, " g b"]:
    """The mean of the marked elements, exactly their value where all are equal; 0 where there are none.

    Args:
        x: float32 numbers.
        among: which of them count.
        count: how many these are, or 1 if none.
    """
    factor = base.unit(lax.stop_gradient(x))
    average = total(jnp.where(among, x * factor, 0.0)) * (1 / jnp.asarray(count, jnp.float32)) * (1 / factor)
    low = jnp.min(jnp.where(among, x, jnp.inf), axis=-1)
    high = jnp.max(jnp.where(among, x, -jnp.inf), axis=-1)
    return jnp.where(low <= high, jnp.clip(average, low, high), 0.0)
