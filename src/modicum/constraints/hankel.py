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

from modicum.constraints.base import Traceable
from modicum.constraints.direct import Direct
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
class Hankel(Direct):
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

    def check(self, shape: tuple[int, ...]) -> None:
        """Whether weights of that shape can lie in the set; raises a `ValueError` unless they are dense."""
        _dense(shape)

    def fit(self, w: Float[Array, " i o"]) -> "Hankel":
        """This set: it reads nothing off the weights."""
        self.ready(w)
        return self

    def relaxed(self, shape: tuple[int, ...], share: Traceable) -> "Hankel":
        """This set, whose structure has no count to be let go of."""
        del share
        self.check(shape)
        return self

    def nearest(self, w: Array) -> Array:
        """The projection of a weight that was checked."""
        return hankel_weight(_numbers(w, self.block), _dense(w.shape)).astype(w.dtype)

    def chart(self, w: Float[Array, " i o"]) -> tuple[Float[Array, " i o"], HankelBuild]:
        """Free coordinates of the projected point, one for each entry, and the map from them into the set.

        The coordinates are as many as entries, so that an optimizer's state for the weight stays valid; those of an
        anti-diagonal count through their mean. To train in the short form, take `hankel_numbers` and
        `hankel_weight`.
        """
        return self.project(w).astype(jnp.float32), HankelBuild(self.block, str(w.dtype))

    def encode(self, w: Float[Array, " i o"]) -> Packed:
        """The projected point as `2 l - 1` numbers for each block."""
        self.ready(w)
        return Packed(
            payload={"numbers": _numbers(w, self.block).astype(w.dtype)},
            layout=self.layout,
            shape=w.shape,
            dtype=str(w.dtype),
        )

    def unpack(self, packed: Packed) -> Array:
        """The weight of packed arrays in this set's layout."""
        return hankel_weight(packed.payload["numbers"], _dense(packed.shape))


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


def hankel_ratio(shape: tuple[int, int], block: int) -> float:
    """How many times fewer numbers a block-Hankel weight of that shape has; `l^2 / (2 l - 1)` for whole blocks.

    Example:
        >>> hankel_ratio((512, 512), 32)
        16.253968253968253
    """
    rows, columns = (-(-size // block) for size in shape)
    return math.prod(shape) / (rows * columns * (2 * block - 1))
