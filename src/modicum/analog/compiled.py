"""A programmed chip prepared for many reads: what can be computed once, is."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modicum.analog import converters, products, reads
from modicum.analog.chip import Chip, certify, reading_spec
from modicum.analog.spec import CrossbarSpec
from modicum.core import Key

PATHS = ("fold", "table", "packed", "direct")


@partial(jax.tree_util.register_dataclass, data_fields=("chip", "prepared"), meta_fields=("spec", "path", "why"))
@dataclass(frozen=True)
class CompiledChip:
    """A chip with what its cheapest exact path needs; a pytree, with `spec`, `path` and `why` static.

    Attributes:
        chip: as programmed.
        prepared: folded weights, tables or packed cells; None where every read is computed from the cells.
        spec: to read it with.
        path: one of `PATHS`.
        why: in one sentence.
    """

    chip: Chip
    prepared: Any
    spec: CrossbarSpec
    path: str
    why: str


def compile_chip(chip: Chip, spec: CrossbarSpec, path: str | None = None) -> CompiledChip:
    """The chip prepared for reads by the cheapest path that gives the same numbers as reading every fragment and bit.

    - `fold`: one matrix product, where no read rounds or saturates: by the numbers of the spec, or, at whole levels,
      by the certificate of this chip's columns (`certify`), which an abstract chip, inside `jit`, cannot show.
    - `table`: fragments of up to 9 rows see few patterns of input bits: what each adds is looked up.
    - `packed`: cells at whole levels, several to a float32, a matrix product for each input bit.
    - `direct`: every read from its cells: large fragments of varied cells, noisy reads.

    Args:
        chip: from `program` with the same spec; a batch of chips is compiled by `vmap` or `lax.map`.
        spec: crossbar.
        path: one of `PATHS` to force; the numbers stay the same wherever the path is exact.

    Raises:
        ValueError: for a path that would give other numbers.

    Example:
        >>> from modicum.analog.chip import program
        >>> chip = program(jax.random.key(0), jnp.ones((16, 2)), CrossbarSpec(adc_bits=3))
        >>> compiled = compile_chip(chip, CrossbarSpec(adc_bits=3))
        >>> compiled.path, compiled.why
        ('table', 'fragments of 8 rows see 256 patterns of input bits')

    Reference: our own; the certificate is the static bound of ISAAC's equation 2, per column.
    """
    reading = reading_spec(chip, spec)
    allowed = _exact_paths(chip, reading)
    if path is not None and path not in allowed:
        ways = ", ".join(map(repr, allowed))
        raise ValueError(f"path must be one of {ways} on this chip, which give the same numbers, got {path!r}")
    chosen = path or next(iter(allowed))
    return CompiledChip(chip, _prepared(chip, reading, chosen), spec, chosen, allowed[chosen])


def _exact_paths(chip: Chip, spec: CrossbarSpec) -> dict[str, str]:
    """Every path that gives the same numbers, cheapest first, and why it does."""
    found = {}
    perfect = spec.read_noise == 0 and not spec.transfers
    noisy = spec.read_noise > 0 and spec.adc_bits is not None
    if spec.adc_bits is None:
        found["fold"] = "an ideal converter neither rounds nor saturates"
    elif spec.linear:
        found["fold"] = (
            f"cells at whole levels never exceed the {spec.largest_code} steps of the converter in a fragment of "
            f"{spec.fragment} rows"
        )
    elif perfect and spec.whole and _certified(chip, spec):
        found["fold"] = f"no column of this chip can exceed the {spec.largest_code} steps of the converter"
    if spec.fragment <= reads.TABLE_ROWS and not noisy and spec.adc_bits is not None:
        found["table"] = f"fragments of {spec.fragment} rows see {2**spec.fragment} patterns of input bits"
    if spec.whole and perfect:
        found["packed"] = f"cells at whole levels: sums of {reads.pack_bits(spec)} bits share a float32"
    if spec.adc_bits is not None:
        found["direct"] = "reads are noisy" if noisy else f"varied cells in fragments of {spec.fragment} rows"
    return found


def _certified(chip: Chip, spec: CrossbarSpec) -> bool:
    """Whether all columns are known not to saturate."""
    return not isinstance(chip.conductance, jax.core.Tracer) and bool(jnp.all(certify(chip, spec)))


def _prepared(chip: Chip, spec: CrossbarSpec, path: str) -> Array | None:
    if path == "direct":
        return None
    prepare = {"fold": products.fold, "table": reads.tables, "packed": reads.pack}[path]
    return jax.jit(prepare, static_argnums=1)(chip, spec)


@jax.jit
def compiled_product(compiled: CompiledChip, codes: Array, key: Key | None = None) -> Array:
    """The product of a compiled chip with input codes: `(vectors, columns)` float32, in weight levels times codes.

    Args:
        compiled: from `compile_chip`.
        codes: `(vectors, rows)` int32 input codes.
        key: of the noise of these reads, where there is any.
    """
    spec = reading_spec(compiled.chip, compiled.spec)
    if compiled.path == "direct" or (spec.adc_bits is None and spec.read_noise > 0):
        return products.product(compiled.chip, codes, compiled.spec, key)
    if compiled.path == "fold" and not spec.whole:
        return jnp.matmul(codes.astype(jnp.float32), compiled.prepared, precision=lax.Precision.HIGHEST)
    limbs = products.batched(compiled_integers)(compiled, codes)
    return products.joined(limbs, converters.limb_bits(spec, codes.shape[-1]))


def compiled_integers(compiled: CompiledChip, codes: Array) -> Array:
    """`integer_product` of a compiled chip, `(limbs, vectors, columns)` int32.

    Args:
        compiled: from `compile_chip`, by `fold` at whole levels, `table` or `packed`.
        codes: `(vectors, rows)` int32 input codes.
    """
    spec, prepared = reading_spec(compiled.chip, compiled.spec), compiled.prepared
    if compiled.path == "fold":
        return products.folded_product(prepared, codes, spec)
    if compiled.path == "table":
        return reads.gather_product(prepared, codes, spec)
    if compiled.path == "packed":
        return reads.packed_product(prepared, compiled.chip, codes, spec)
    return products.integer_product(compiled.chip, codes, spec, "direct")


def read_compiled(key: Key, compiled: CompiledChip, inputs: Float[Array, " *b k"]) -> Float[Array, " *b n"]:
    """What the chip computes in place of `inputs @ weights`: `read`, bit for bit, without its preparations.

    The gradient is the straight-through one of `read`: that of `clip(inputs) @ weights`.

    Args:
        key: of the noise of these reads.
        compiled: from `compile_chip`.
        inputs: vectors of rows; leading axes are batch. All of one call share one input step.
    """
    flat = inputs.reshape(-1, inputs.shape[-1]).astype(jnp.float32)
    own = key if compiled.spec.read_noise > 0 else None
    return _straight_through(compiled.chip.weights, flat, compiled, own).reshape(*inputs.shape[:-1], -1)


@jax.custom_vjp
def _straight_through(weights: Array, inputs: Array, compiled: CompiledChip, key: Key | None) -> Array:
    del weights
    codes, step = converters.quantize_inputs(inputs, compiled.spec)
    return compiled_product(compiled, codes, key) * (compiled.chip.step * step)


def _forward(
    weights: Array, inputs: Array, compiled: CompiledChip, key: Key | None
) -> tuple[Array, tuple[Array, Array, CompiledChip]]:
    return _straight_through(weights, inputs, compiled, key), (weights, inputs, compiled)


def _backward(residuals: tuple[Array, Array, CompiledChip], cotangent: Array) -> tuple[Array, Array, None, None]:
    weights, inputs, compiled = residuals
    return *converters.straight_through(weights, inputs, cotangent, compiled.spec), None, None


_straight_through.defvjp(_forward, _backward)
