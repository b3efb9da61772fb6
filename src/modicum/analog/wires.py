"""What the resistance of a crossbar's wires takes from its cells."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modicum.analog.spec import CrossbarSpec

ARRAY = 128
"""Rows, and columns, of a physical crossbar: FORMS' and ISAAC's."""


def ir_drop(
    conductance: Float[Array, " m n"], ratio: float | Float[Array, ""], rows_before: int | Array = 0
) -> Float[Array, " m n"]:
    r"""Effective conductances of cells behind resistive wires, `G / (1 + r D)`.

    `D_ij = sum_k min(j, k) G_ik + sum_k min(i, k) G_kj`, counted from 1, is what all currents of a row and of a
    column drop on the wires that they share with cell `ij`. Word lines are driven before the first column, bit lines
    are sensed before the first row. Linear cells make currents linear in the inputs, so the drop folds into the
    conductances; by reciprocity the part of the bit line is that of the other rows' currents. Exact to first order in
    `r G`; the quotient (Pade) keeps the error to .4 % of the largest current of an array of 64 x 64 full cells at
    `r G = 1e-4`, where the series itself is off by 9 %. Long rows are harder: 4 % for 8 x 128 full cells there, .7 %
    at `3e-5`. Differentiable.

    Args:
        conductance: one array of cells with all word lines driven, any unit.
        ratio: resistance of the wire from one cell to the next in the inverse of that unit, so that
            `ratio * conductance` is the wire-to-cell product; not below 0.
        rows_before: rows that lie between the sense amplifiers and the first of these, with their cells switched off.

    Example:
        >>> [round(g, 4) for g in ir_drop(jnp.ones((1, 2)), 0.01)[0].tolist()]  # D = 2 + 1 and 3 + 1
        [0.9709, 0.9615]

    Reference: linear circuit analysis; the Pade form is our own, checked against exact nodal solutions (badcrossbar
    1.1.0, Joksas and Mehonic, SoftwareX 2020, by hand, and a solver of the tests').
    """
    word = jnp.cumsum(_behind(conductance, 1), axis=1)
    column = _behind(conductance, 0)
    bit = jnp.cumsum(column, axis=0) + rows_before * column[:1]
    return conductance / (1.0 + ratio * (word + bit))


def _behind(conductance: Array, axis: int) -> Array:
    """The conductance that draws on each piece of wire: of its own cell and all cells farther away."""
    return jnp.flip(jnp.cumsum(jnp.flip(conductance, axis), axis=axis), axis)


def drop_in_arrays(
    conductance: Float[Array, " p c f m n"], spec: CrossbarSpec, ratio: float | Float[Array, ""]
) -> Float[Array, " p c f m n"]:
    """`ir_drop` of every fragment where it lies: in arrays of `ARRAY` rows and columns.

    A weight's cells are neighbors in a row, both polarities among them, as many weights to an array as it has room
    for whole. Fragments are stacked in an array, the first next to the sense amplifiers; only the cells of the
    fragment that is read are switched on (one transistor per cell).
    """
    polarities, cells, fragments, height, columns = conductance.shape
    together = polarities * cells
    held = ARRAY // together
    arrays = -(-columns // held)
    laid = jnp.moveaxis(conductance, (0, 1), (3, 4)).reshape(fragments, height, columns, together)
    laid = jnp.pad(laid, ((0, 0), (0, 0), (0, arrays * held - columns), (0, 0)))
    laid = jnp.moveaxis(laid.reshape(fragments, height, arrays, held * together), 2, 1)
    before = (jnp.arange(fragments) % (ARRAY // spec.fragment)) * spec.fragment
    in_arrays = jax.vmap(ir_drop, in_axes=(0, None, None))
    dropped = jax.vmap(in_arrays, in_axes=(0, None, 0))(laid, ratio, before.astype(jnp.float32))
    back = jnp.moveaxis(dropped, 1, 2).reshape(fragments, height, arrays * held, polarities, cells)
    return jnp.moveaxis(back[:, :, :columns], (3, 4), (0, 1))
