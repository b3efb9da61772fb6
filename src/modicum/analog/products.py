"""The product of a chip with input codes: one exact meaning, three ways to compute it.

`fold` is one matrix product with the folded weights, where every read is linear; `table` and `direct` go through the
converter and are in `reads`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from modicum.analog.chip import Chip, excess, reading_spec
from modicum.analog.converters import limb_bits, split_fragments
from modicum.analog.reads import TABLE_ROWS, direct_product, needed, table_product
from modicum.analog.spec import CrossbarSpec
from modicum.core import Key

_FLOAT32_INTEGERS = 2**24


def read_path(spec: CrossbarSpec, vectors: int) -> str:
    """`'fold'`, `'table'` or `'direct'`: the cheapest way that gives the same numbers.

    A table costs as much as reading each of its patterns once, and cannot hold noise that each read draws anew.
    """
    if spec.linear:
        return "fold"
    if spec.read_noise > 0:
        return "direct"
    joined = TABLE_ROWS // spec.fragment
    worth_it = joined > 0 and 4 * vectors * spec.input_bits * spec.passes >= 2 ** (joined * spec.fragment)
    return "table" if worth_it else "direct"


@partial(jax.jit, static_argnames="spec")
def product(chip: Chip, codes: Array, spec: CrossbarSpec, key: Key | None = None) -> Array:
    """`(vectors, columns)` float32, in units of weight level times input code; `key` is for read noise."""
    spec = reading_spec(chip, spec)
    if spec.linear and not spec.whole:
        # nothing rounds: the folded weights are real numbers
        def multiply(chip: Chip, codes: Array) -> Array:
            return jnp.matmul(codes.astype(jnp.float32), fold(chip, spec), precision=lax.Precision.HIGHEST)

        total = batched(multiply)(chip, codes)
    else:
        limbs = integer_product(chip, codes, spec, key=key)
        shift = limb_bits(spec, codes.shape[-1])
        total = joined(limbs, shift)
    if spec.adc_bits is None and spec.read_noise > 0:
        total = total + _linear_noise(key, total, chip.sign.shape[1], spec)
    return total


def joined(limbs: Array, bits: int) -> Array:
    """`sum_l limbs[l] 2^(l bits)` as float32."""
    return jnp.sum(limbs.astype(jnp.float32) * _powers(limbs.shape[0], bits)[:, None, None], axis=0)


def _linear_noise(key: Key | None, like: Array, fragments: int, spec: CrossbarSpec) -> Array:
    """The sum of the noise of all reads through an ideal converter: one normal draw of the same law."""
    power = sum(4**bit for bit in range(spec.input_bits))
    power *= sum(4 ** (cell * spec.cell_bits) for cell in range(spec.cells))
    deviation = spec.read_noise * math.sqrt(spec.passes * spec.polarities * fragments * power)
    return deviation * jax.random.normal(needed(key), like.shape, jnp.float32)


@partial(jax.jit, static_argnames=("spec", "path"))
def integer_product(
    chip: Chip, codes: Array, spec: CrossbarSpec, path: str | None = None, key: Key | None = None
) -> Array:
    """The product as whole numbers: `sum_l limbs[l] << (l * limb_bits(reading_spec(chip, spec), rows))`.

    Args:
        chip: a chip whose reads are whole numbers: with a converter, or without variation and noise.
        codes: `(vectors, rows)` int32 input codes.
        spec: crossbar.
        path: `'fold'`, `'table'` or `'direct'`; `None` takes `read_path`.
        key: for read noise; each vector, pass, bit, fragment and column draws its own.

    Returns:
        `(limbs, vectors, columns)` int32.

    Raises:
        ValueError: if there is read noise and either no key or a path that cannot draw it.
    """
    spec = reading_spec(chip, spec)
    noisy = spec.adc_bits is not None and spec.read_noise > 0
    if noisy and path not in (None, "direct"):
        raise ValueError(f"path must be None or 'direct' where reads are noisy, got {path!r}")

    def compute(state: tuple[Chip, Key | None], codes: Array) -> Array:
        chip, key = state
        chosen = path or read_path(spec, codes.shape[0])
        if chosen == "direct":
            return direct_product(chip, codes, spec, key)
        return {"fold": _fold_product, "table": table_product}[chosen](chip, codes, spec)

    return batched(compute, merge=not noisy)((chip, needed(key) if noisy else None), codes)


def batched(compute: Callable[[Any, Array], Array], merge: bool = True) -> Callable[[Any, Array], Array]:
    """`compute(chip, codes)` with vmap rules of its own.

    Vectors for one chip become one longer call, so that the chip's tables are built once, unless `merge` is false
    (where a draw depends on a vector's place in its call); several chips run one after the other (batched gathers
    and batched small products are slower than that on CPU, and larger).
    """
    call = jax.custom_batching.custom_vmap(compute)

    @call.def_vmap
    def rule(axis_size: int, in_batched: Any, chip: Any, codes: Array) -> tuple[Array, bool]:
        chip_batched, codes_batched = in_batched
        if merge and not any(jax.tree.leaves(chip_batched)):
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
    current = excess(chip, spec)
    if reading_spec(chip, spec).whole:
        current = jnp.round(current)
    current = jnp.where(chip.flipped[:, :, :, None, :], spec.cell_levels - current, current)
    magnitude = jnp.sum(current * _powers(spec.cells, spec.cell_bits)[None, :, None, None, None], axis=1)
    folded = jnp.sum(magnitude * chip.sign[:, :, None, :].astype(jnp.float32), axis=0)
    return folded.reshape(-1, folded.shape[-1])[: chip.weights.shape[0]] - spec.bias


def _fold_product(chip: Chip, codes: Array, spec: CrossbarSpec) -> Array:
    return folded_product(fold(chip, spec), codes, spec)


def folded_product(weights: Array, codes: Array, spec: CrossbarSpec) -> Array:
    """`codes @ weights` of whole numbers in int32 limbs, through float32 blocks with partial sums below 2^24."""
    rows, width = weights.shape[0], limb_bits(spec, weights.shape[0])
    limbs = []
    for low in range(0, spec.input_bits, width):
        part = jnp.sign(codes) * ((jnp.abs(codes) >> low) & (2**width - 1))
        block = (_FLOAT32_INTEGERS - 1) // ((2 ** min(width, spec.input_bits - low) - 1) * spec.largest_weight)
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
