"""Parameters in packed form, leaf by leaf."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from modicum.core import Constraint, Packed, Params, check, leaves_by_path

DENSE = "dense"
"""Layout of a leaf without a constraint: its values as they are."""


def choose(constraints: Any, params: Params) -> dict[str, Constraint]:
    """The constraint of each constrained leaf, by path.

    Args:
        constraints: a pytree like `params` with a constraint or `None` for each leaf, a callable
            `params -> such a pytree`, or `None` for no constraint at all.
        params: the parameter tree.

    Raises:
        ValueError: if the trees differ, or something that is neither a constraint nor `None` stands for a leaf.
    """
    # An equinox module is callable and a tree of parameters at once: then it is the tree.
    if callable(constraints) and type(constraints) is not type(params):
        constraints = constraints(params)
    if constraints is None:
        return {}
    try:
        nodes = jax.tree.structure(params).flatten_up_to(constraints)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"constraints must be a tree like params, None for dense leaves, got: {reason}") from error
    chosen = dict(zip(leaves_by_path(params), nodes, strict=False))
    for path, node in chosen.items():
        if node is not None and not isinstance(node, Constraint):
            raise ValueError(f"constraints must hold constraints or None, got {node!r} at {path!r}")
    return {path: node for path, node in chosen.items() if node is not None}


def pack(params: Params, chosen: Mapping[str, Constraint]) -> dict[str, Packed]:
    """Every leaf in packed form, in tree order; a leaf without a constraint in layout `dense`.

    Args:
        params: a pytree of finite numbers, each constrained leaf a member of its set.
        chosen: the constraint of each constrained leaf.

    Raises:
        ValueError: if a leaf is not numeric, not finite, or not a member of its set; or if its constraint does
            not give it back bit for bit.
    """
    leaves = leaves_by_path(params)
    if len(leaves) != len(jax.tree.leaves(params)):
        raise ValueError(f"params must have one path per leaf, got two leaves of one path among {', '.join(leaves)}")
    arrays = {path: _array(path, leaf) for path, leaf in leaves.items()}
    return {
        path: _member(path, array, chosen[path]) if path in chosen else _dense(array) for path, array in arrays.items()
    }


def unpack(packed: Mapping[str, Packed], chosen: Mapping[str, Constraint], structure: Any) -> Params:
    """The parameter tree again, by each constraint's `decode`; traceable.

    Args:
        packed: the packed leaves, in tree order.
        chosen: the constraint of each constrained leaf.
        structure: the tree they make.
    """
    leaves = [chosen[path].decode(leaf) if path in chosen else leaf.payload["values"] for path, leaf in packed.items()]
    return jax.tree.unflatten(structure, leaves)


def _array(path: str, leaf: Any) -> Array:
    if isinstance(leaf, jax.core.Tracer):
        raise ValueError(f"params must be concrete numbers, got a traced value at {path!r}: compile outside of jit")
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
        raise ValueError(f"params must hold arrays, got {type(leaf).__name__} at {path!r}")
    array = jnp.asarray(leaf)
    if jnp.issubdtype(array.dtype, jax.dtypes.extended):
        raise ValueError(f"params must hold arrays of numbers, got dtype {array.dtype} at {path!r}")
    if jnp.issubdtype(array.dtype, jnp.inexact):
        check.finite(**{f"params leaf {path!r}": array})
    return array


def _dense(array: Array) -> Packed:
    return Packed(payload={"values": array}, layout=DENSE, shape=array.shape, dtype=array.dtype.name)


def _member(path: str, array: Array, constraint: Constraint) -> Packed:
    violation = float(constraint.violation(array))
    if violation != 0:
        raise ValueError(
            f"params must be members of their constraint sets, got violation {violation:.3g} at {path!r}: project first"
        )
    packed = constraint.encode(array)
    decoded = constraint.decode(packed)
    if decoded.shape != array.shape or decoded.dtype != array.dtype or not bool(jnp.array_equal(decoded, array)):
        raise ValueError(f"constraints must decode what they encode, got other weights from {constraint!r} at {path!r}")
    return packed
