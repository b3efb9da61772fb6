"""The product of a chip with input codes: one exact meaning, three ways to compute it.

`fold` is one matrix product with the folded weights, where every read is linear; `table` and `direct` go through the
converter and are in `reads`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from modicum.analog.chip import Chip
from modicum.analog.converters import limb_bits, split_fragments
from modicum.analog.reads import TABLE_ROWS, direct_product, table_product
from modicum.analog.spec import CrossbarSpec

_FLOAT32_INTEGERS = 2**24


def read_path(spec: CrossbarSpec, vectors: int) -> str:
    """`'fold'`, `'table'` or `'direct'`: the cheapest way that gives the same numbers.

    A table costs as much as reading each of its patterns once.
    """
    if spec.linear:
        return "fold"
    joined = TABLE_ROWS // spec.fragment
    worth_it = joined > 0 and 4 * vectors * spec.input_bits * spec.passes >= 2 ** (joined * spec.fragment)
    return "table" if worth_it else "direct"


@partial(jax.jit, static_argnames="spec")
def product(chip: Chip, codes: Array, spec: CrossbarSpec) -> Array:
    """`(vectors, columns)` float32, in units of weight level times input code."""
    if spec.linear and spec.sigma > 0:
        # nothing rounds: the folded weights are real numbers
        def multiply(chip: Chip, codes: Array) -> Array:
            return jnp.matmul(codes.astype(jnp.float32), fold(chip, spec), precision=lax.Precision.HIGHEST)

        return _batched(multiply)(chip, codes)
    limbs = integer_product(chip, codes, spec)
    shift = limb_bits(spec, codes.shape[-1])
    return jnp.sum(limbs.astype(jnp.float32) * _powers(limbs.shape[0], shift)[:, None, None], axis=0)


@partial(jax.jit, static_argnames=("spec", "path"))
def integer_product(chip: Chip, codes: Array, spec: CrossbarSpec, path: str | None = None) -> Array:
    """The product as whole numbers: `sum_l limbs[l] << (l * limb_bits(spec, rows))`.

    Args:
        chip: a chip whose reads are whole numbers: with a converter, or without variation.
        codes: `(vectors, rows)` int32 input codes.
        spec: crossbar.
        path: `'fold'`, `'table'` or `'direct'`; `None` takes `read_path`.

    Returns:
        `(limbs, vectors, columns)` int32.
    """

    def compute(chip: Chip, codes: Array) -> Array:
        chosen = path or read_path(spec, codes.shape[0])
        return {"fold": _fold_product, "table": table_product, "direct": direct_product}[chosen](chip, codes, spec)

    return _batched(compute)(chip, codes)


def _batched(compute: Callable[[Any, Array], Array]) -> Callable[[Any, Array], Array]:
    """`compute(chip, codes)` with vmap rules of its own.

    Vectors for one chip become one longer call, so that the chip's tables are built once; several chips run one
    after the other (batched gathers and batched small products are slower than that on CPU, and larger).
    """
    call = jax.custom_batching.custom_vmap(compute)

    @call.def_vmap
    def rule(axis_size: int, in_batched: Any, chip: Any, codes: Array) -> tuple[Array, bool]:
        chip_batched, codes_batched = in_batched
        if not any(jax.tree.leaves(chip_batched)):
            merged = call(chip, codes.reshape(-1, codes.shape[-1]))
            split = merged.reshape(*merged.shape[:-2], axis_size, -1, merged.shape[-1])
            return jnp.moveaxis(split, -3, 0), True

        leaves, structure = jax.tree.flatten((chip, codes))
        batched = jax.tree.leaves((chip_batched, codes_batched))

        def one(slices: list[Array]) -> Array:
            remaining = iter(slices)
            each = [next(remaining) if own else leaf for leaf, own in zip(leaves, batched, strict=True)]
            return call(*jax.tree.unflatten(structure, each))

        return lax.map(one, [leaf for leaf, own in zip(leaves, batched, strict=True) if own]), True

    return call


def _powers(places: int, bits: int) -> Array:
    """`2 ** (bits * i)`, exactly."""
    return jnp.ldexp(jnp.ones(places, jnp.float32), bits * jnp.arange(places))


def fold(chip: Chip, spec: CrossbarSpec) -> Array:
    """The `(rows, columns)` weights, in levels, that a chip with linear reads multiplies by."""
    current = chip.conductance - spec.off_conductance
    if spec.sigma == 0:
        current = jnp.round(current)
    current = jnp.where(chip.flipped[:, :, :, None, :], spec.cell_levels - current, current)
    magnitude = jnp.sum(current * _powers(spec.cells, spec.cell_bits)[None, :, None, None, None], axis=1)
    folded = jnp.sum(magnitude * chip.sign[:, :, None, :].astype(jnp.float32), axis=0)
    return folded.reshape(-1, folded.shape[-1])[: chip.weights.shape[0]]


def _fold_product(chip: Chip, codes: Array, spec: CrossbarSpec) -> Array:
    """Integer matrix products through float32 blocks in which every partial sum is below 2^24."""
    weights = fold(chip, spec)
    rows, width = weights.shape[0], limb_bits(spec, weights.shape[0])
    limbs = []
    for low in range(0, spec.input_bits, width):
        part = jnp.sign(codes) * ((jnp.abs(codes) >> low) & (2**width - 1))
        block = (_FLOAT32_INTEGERS - 1) // ((2 ** min(width, spec.input_bits - low) - 1) * spec.levels)
        if block >= rows:
            product_ = jnp.matmul(part.astype(jnp.float32), weights, precision=lax.Precision.HIGHEST)
            limbs.append(product_.astype(jnp.int32))
        elif block >= 32:
            left = split_fragments(part.T.astype(jnp.float32), block)
            right = split_fragments(weights, block)
            blocks = jnp.einsum("gkb,gkn->gbn", left, right, precision=lax.Precision.HIGHEST)
            limbs.append(jnp.sum(blocks.astype(jnp.int32), axis=0))
        else:
            limbs.append(jnp.matmul(part, weights.astype(jnp.int32)))
    return jnp.stack(limbs)
