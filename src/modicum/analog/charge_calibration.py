"""Calibrate charge-domain macros: a straight line per slice, and one curve for the chip."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from modicum.analog.charge import Block, ChargeChip, accumulate, convert, drive, legendre
from modicum.analog.charge_spec import LARGEST_NIBBLE, LINES, ChargeSpec
from modicum.core import Key, check


@partial(jax.jit, static_argnames=("spec", "repeats", "master_degree"))
def calibrate(key: Key, chip: ChargeChip, spec: ChargeSpec, *, repeats: int = 16, master_degree: int = 0) -> ChargeChip:
    """The chip with the digital correction that its answers to known inputs suggest.

    A cell of every cluster is written 1 and `0 ... 128` inputs are set to the highest code, for a pair first on its
    positive and then on its negative slice. Step 1 fits `code = slope sum + intercept` per slice by least squares.
    Step 2 fits what then is left, over all slices of the chip together, with Legendre polynomials: the master curve.
    Codes at the ends of the converter's range are left out of both, since they may have saturated.

    Args:
        key: of the noise of the calibrating reads.
        chip: from `program` with the same spec; an earlier calibration is replaced.
        spec: macro.
        repeats: reads of every input, at least 1; noise is averaged over them.
        master_degree: highest degree of the master curve, 2 to 7; 0 is step 1 alone, as in the paper's LeNet-5.

    Raises:
        ValueError: for numbers out of their range.

    Example:
        >>> from modicum.analog.charge import program
        >>> spec = ChargeSpec(gain_sigma=0.05, offset_lsb=1.0)
        >>> chip = program(jax.random.key(0), jnp.ones((4, 1)), spec)
        >>> fitted = calibrate(jax.random.key(1), chip, spec)
        >>> bool(abs(fitted.blocks.slope - chip.blocks.gain).max() < 0.01)
        True

    Reference: CAP-RAM, section IV-A.3. Codes 0000 and 1111 are those of its linearity measurements; the form
    of its master curve is not given.
    """
    check.integer(1, repeats=repeats)
    if master_degree != 0:
        check.integer(2, 7, master_degree=master_degree)
    keys = jax.random.split(key, chip.blocks.cells.shape[0])
    ideal = _ideal_steps(spec)

    def line(part: tuple[Block, Key]) -> tuple[Array, Array]:
        block, own = part
        return _fit_line(ideal, _answers(own, block, spec, repeats), spec)

    slope, intercept = lax.map(line, (chip.blocks, keys))
    blocks = chip.blocks._replace(slope=slope, intercept=intercept)
    if master_degree == 0:
        return chip._replace(blocks=blocks, master=jnp.zeros(1, jnp.float32))

    def moments(part: tuple[Block, Key]) -> tuple[Array, Array]:
        block, own = part
        codes = _answers(own, block, spec, repeats)
        straight = (codes - block.intercept[None, :, None, :]) / block.slope[None, :, None, :]
        left = jnp.where(_inside(codes, spec), straight - ideal.reshape(1, 1, -1, 1), 0.0)
        counted = jnp.sum(_inside(codes, spec).astype(jnp.float32), axis=(0, 1, 3))
        basis = legendre(ideal, master_degree, spec)
        exact = partial(jnp.einsum, precision=lax.Precision.HIGHEST)
        return exact("it,jt,t->ij", basis, basis, counted), exact("it,rstn->i", basis, left)

    # the same keys: the codes of step 1 are used again, not drawn anew
    matrix, right = jax.tree.map(partial(jnp.sum, axis=0), lax.map(moments, (blocks, keys)))
    return chip._replace(blocks=blocks, master=jnp.linalg.solve(matrix, right))


def _patterns() -> Int[Array, " t m"]:
    """Input codes: the first `t` lines at the highest code."""
    places = jnp.arange(LINES, dtype=jnp.int32)
    counts = jnp.arange(LINES + 1, dtype=jnp.int32)
    return jnp.where(places.reshape(1, -1) < counts.reshape(-1, 1), LARGEST_NIBBLE, 0)


def _ideal_steps(spec: ChargeSpec) -> Float[Array, " t"]:
    """What a perfect macro answers to the patterns, in converter steps and not rounded."""
    sums = jnp.arange(LINES + 1, dtype=jnp.float32) * LARGEST_NIBBLE
    both = jnp.concatenate([sums, -sums]) if spec.polarities == 2 else sums
    return both * jnp.float32(1.0 / spec.lsb)


def _answers(key: Key, block: Block, spec: ChargeSpec, repeats: int) -> Float[Array, " r s t n"]:
    """Codes of one block's slices for every pattern, read `repeats` times."""
    level = drive(_patterns(), block.dac, spec)
    lines = []
    for polarity in range(spec.polarities):
        written = (jnp.arange(spec.polarities) == polarity).astype(jnp.float32).reshape(-1, 1, 1, 1)
        lines.append(accumulate(level, written, block.share, spec))
    swept = jnp.concatenate(lines, axis=1)
    return lax.map(lambda one: convert(one, swept, block, spec), jax.random.split(key, repeats))


def _inside(codes: Array, spec: ChargeSpec) -> Array:
    lowest, highest = spec.codes
    return jnp.logical_and(codes > lowest, codes < highest)


def _fit_line(ideal: Array, codes: Array, spec: ChargeSpec) -> tuple[Float[Array, " s n"], Float[Array, " s n"]]:
    """Slope and intercept of `(r, s, t, n)` codes over `(t,)` ideal ones; 1 and the mean error if there is no line."""
    known = ideal.reshape(1, 1, -1, 1)
    weight = _inside(codes, spec).astype(jnp.float32)

    def mean(values: Array) -> Array:
        return jnp.sum(weight * values, axis=(0, 2)) / jnp.maximum(jnp.sum(weight, axis=(0, 2)), 1.0)

    center, height = mean(jnp.broadcast_to(known, codes.shape)), mean(codes)
    off = known - center[None, :, None, :]
    spread = mean(jnp.square(off))
    slope = mean(off * (codes - height[None, :, None, :])) / jnp.where(spread > 0, spread, 1.0)
    slope = jnp.where(slope > 0, slope, 1.0)
    return slope, height - slope * center
