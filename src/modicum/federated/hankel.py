"""Block-Hankel layers: an `l x l` block of a weight in `2 l - 1` numbers, SEFL's compressed form.

A block is constant along its anti-diagonals, `H[i, j] = v[i + j]`. The structure is fixed beforehand, so all clients
share one support and secure sums may run on the numbers themselves; patterns that each client chooses must never be
combined with masks.

The full text of SEFL was not available to us: the form is that of its description, the rest is ours.
"""

import functools
import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from modicum.core import Packed, check

Numbers = Float[Array, " rows columns diagonals"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HankelBuild:
    """From free coordinates to a member of the set: the mean along each anti-diagonal."""

    block: int = field(metadata={"static": True})
    dtype: str = field(metadata={"static": True})

    def __call__(self, theta: Float[Array, " i o"]) -> Float[Array, " i o"]:
        """The weight of free coordinates."""
        return hankel_weight(hankel_numbers(theta, self.block), _dense(theta.shape)).astype(self.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hankel:
    """Every block of a dense weight is a Hankel matrix; a `Constraint`.

    The set is a subspace, so the nearest point is linear in the weight and exact: each anti-diagonal of a block
    takes the mean of its entries. Blocks at the end of an axis that `block` does not divide are cut short.

    Args:
        block: side `l` of a block, at least 2; a whole block is stored in `2 l - 1` numbers.

    Example:
        >>> Hankel(2).project(jnp.array([[1.0, 2.0], [4.0, 7.0]])).tolist()
        [[1.0, 3.0], [3.0, 7.0]]

    Reference:
        SEFL (arXiv 2201.11934), block-Hankel matrices, from second-hand descriptions.
    """

    block: int = field(metadata={"static": True})

    def __post_init__(self) -> None:
        check.integer(2, block=self.block)

    @property
    def exact(self) -> bool:
        """True: means along anti-diagonals are the least-squares solution."""
        return True

    @property
    def layout(self) -> str:
        """Name of the packed format."""
        return "hankel"

    def fit(self, w: Float[Array, " i o"]) -> "Hankel":
        """This set: it reads nothing off the weights."""
        self._ready(w)
        return self

    def project(self, w: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
        """The nearest block-Hankel weight, in the dtype of `w`; float32 inside.

        Raises:
            ValueError: if `w` is not dense `(in, out)`, or is concrete and holds NaN or infinity.
        """
        self._ready(w)
        return hankel_weight(_numbers(w, self.block), _dense(w.shape)).astype(w.dtype)

    def violation(self, w: Float[Array, " i o"]) -> Float[Array, ""]:
        """Relative distance `||w - project(w)|| / ||w||`; exactly 0 for a member of the set."""
        return _distance(w, self.project(w))

    def gain(self, w: Float[Array, " i o"]) -> Float[Array, ""]:
        """`||w||^2 - ||w - project(w)||^2`, the energy the projection keeps."""
        return _kept_energy(w, self.project(w))

    def chart(self, w: Float[Array, " i o"]) -> tuple[Float[Array, " i o"], HankelBuild]:
        """Free coordinates of the projected point, one for each entry, and the map from them into the set.

        The coordinates are as many as entries, so that an optimizer's state for the weight stays valid; those of an
        anti-diagonal count through their mean. To train in the short form, take `hankel_numbers` and
        `hankel_weight`.
        """
        return self.project(w).astype(jnp.float32), HankelBuild(self.block, str(w.dtype))

    def encode(self, w: Float[Array, " i o"]) -> Packed:
        """The projected point as `2 l - 1` numbers for each block."""
        self._ready(w)
        return Packed(
            payload={"numbers": _numbers(w, self.block).astype(w.dtype)},
            layout=self.layout,
            shape=w.shape,
            dtype=str(w.dtype),
        )

    def decode(self, packed: Packed) -> Array:
        """The weight that was encoded, bit for bit.

        Raises:
            ValueError: if `packed` has another layout.
        """
        if packed.layout != self.layout:
            raise ValueError(f"packed must have layout {self.layout!r}, got {packed.layout!r}")
        return hankel_weight(packed.payload["numbers"], _dense(packed.shape))

    def _ready(self, w: Array) -> None:
        """Checks shape and, where it is concrete, content of a weight."""
        if not w.ndim or not w.size:
            raise ValueError(f"w must have at least one axis and one element, got shape {w.shape}")
        _dense(w.shape)
        if not isinstance(w, jax.core.Tracer):
            check.finite(w=w.astype(jnp.float32))


def hankel_numbers(w: Float[Array, " i o"], block: int) -> Numbers:
    """The numbers of the nearest block-Hankel weight, float32: means along anti-diagonals.

    Args:
        w: dense weight `(in, out)`.
        block: side `l` of a block, at least 2.

    Returns:
        `(ceil(in / l), ceil(out / l), 2 l - 1)`; anti-diagonals outside of the weight hold 0.
    """
    check.integer(2, block=block)
    _dense(w.shape)
    return _numbers(w, block)


def hankel_weight(numbers: Numbers, shape: tuple[int, int]) -> Float[Array, " i o"]:
    """The dense weight `(in, out)` of block-Hankel numbers: entry `(i, j)` of a block is `v[i + j]`.

    Args:
        numbers: `(ceil(in / l), ceil(out / l), 2 l - 1)`.
        shape: `(in, out)`.

    Raises:
        ValueError: if the numbers are not those of such a weight.
    """
    block = (numbers.shape[2] + 1) // 2
    rows, columns = (-(-size // block) for size in shape)
    check.shape((rows, columns, 2 * block - 1), numbers=numbers)
    tiles = numbers[:, :, _diagonals(block)]
    whole = jnp.transpose(tiles, (0, 2, 1, 3)).reshape(rows * block, columns * block)
    return whole[: shape[0], : shape[1]]


def hankel_product(numbers: Numbers, x: Float[Array, " i"], outputs: int) -> Float[Array, " o"]:
    """`x @ w` of the block-Hankel weight with these numbers; differentiable in both.

    The weight is gathered, then multiplied: at the sizes of layers this beats the transform of each block.

    Args:
        numbers: as from `hankel_numbers`.
        x: inputs.
        outputs: width of the weight.
    """
    return x @ hankel_weight(numbers, (x.shape[0], outputs))


def _dense(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape, which must be that of a dense weight."""
    if len(shape) != 2:
        raise ValueError(f"w must be dense (in, out) to be cut into Hankel blocks, got shape {tuple(shape)}")
    return shape[0], shape[1]


def _diagonals(block: int) -> Int[Array, " block block"]:
    places = lax.iota(jnp.int32, block)
    return places.reshape(block, 1) + places.reshape(1, block)


@functools.partial(jax.jit, inline=True, static_argnums=1)
def _numbers(w: Array, block: int) -> Array:
    """Means along anti-diagonals, as `first + mean(entry - first)`.

    So equal entries give their value exactly, and a member of the set projects onto itself. The derivative does not
    depend on `first`.
    """
    rows, columns = (-(-size // block) for size in w.shape)
    pad = ((0, rows * block - w.shape[0]), (0, columns * block - w.shape[1]))

    def skewed(x: Array) -> Array:
        """Blocks with row `i` moved right by `i`: anti-diagonals become columns, `(rows, columns, l, 2 l - 1)`."""
        tiles = jnp.transpose(jnp.pad(x, pad).reshape(rows, block, columns, block), (0, 2, 1, 3))
        wide = jnp.pad(tiles, ((0, 0), (0, 0), (0, 0), (0, block))).reshape(rows, columns, 2 * block * block)
        return wide[:, :, :-block].reshape(rows, columns, block, 2 * block - 1)

    entries = skewed(w.astype(jnp.float32))
    inside = skewed(jnp.ones(w.shape, jnp.bool_))
    first = lax.stop_gradient(jnp.take_along_axis(entries, jnp.argmax(inside, axis=2, keepdims=True), axis=2))
    # row by row: the order of a reduction, and with it the last bit, may change under vmap
    differences = jnp.moveaxis(jnp.where(inside, entries - first, 0.0), 2, 0)
    total, _ = lax.scan(lambda sum_, row: (sum_ + row, None), jnp.zeros_like(differences[0]), differences)
    # Counted on the data (all finite, all equal to themselves): by a count that is known, or shared under vmap, the
    # compiler would divide through a rounded reciprocal, sometimes fused with the sum.
    counted = inside & (entries == entries)
    count = jnp.maximum(jnp.sum(counted, axis=2, dtype=jnp.int32), 1).astype(jnp.float32)
    mean = first.reshape(total.shape) + total / count
    return jnp.where(mean == 0, 0.0, mean)


def _scaled(w: Array, p: Array) -> tuple[Array, Array, Array]:
    """Both as float32 times the power of two that brings `w` near 1, so that squares keep in range; the factor."""
    w = w.astype(jnp.float32)
    _, exponent = jnp.frexp(jnp.max(jnp.abs(w)))
    factor = jnp.ldexp(jnp.float32(1), jnp.clip(-exponent, -125, 125))
    return w * factor, p.astype(jnp.float32) * factor, factor


@functools.partial(jax.jit, inline=True)
def _distance(w: Array, p: Array) -> Array:
    a, b, _ = _scaled(w, p)
    norm = jnp.sqrt(jnp.sum(jnp.square(a)))
    return jnp.sqrt(jnp.sum(jnp.square(a - b))) / jnp.where(norm > 0, norm, 1.0)


@functools.partial(jax.jit, inline=True)
def _kept_energy(w: Array, p: Array) -> Array:
    a, b, factor = _scaled(w, p)
    return jnp.sum(b * (2 * a - b)) / factor / factor


def hankel_ratio(shape: tuple[int, int], block: int) -> float:
    """How many times fewer numbers a block-Hankel weight of that shape has; `l^2 / (2 l - 1)` for whole blocks.

    Example:
        >>> hankel_ratio((512, 512), 32)
        16.253968253968253
    """
    rows, columns = (-(-size // block) for size in shape)
    return math.prod(shape) / (rows * columns * (2 * block - 1))
