"""Trees of constraints: `None` at a leaf means that it is free."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from modicum.core import Constraint, Params, path_name

Constraints = Any
"""A pytree like params with a `Constraint` or `None` at each leaf, or a callable `params -> ` such a pytree."""


def is_constraint(node: Any) -> bool:
    """Whether a node of a tree of constraints is a leaf of it: a constraint, or `None`."""
    # The class is asked too: Flax variables hand attributes through, so one that holds a constraint looks like one.
    return node is None or (hasattr(type(node), "project") and isinstance(node, Constraint))


def resolve(constraints: Constraints, params: Params) -> Constraints:
    """The tree of constraints for `params`, checked against it.

    Args:
        constraints: a pytree like params with a constraint or `None` at each leaf (`None` may also
            stand for a whole branch), or a callable that makes one from params.
        params: the parameters.

    Returns:
        The pytree.

    Raises:
        ValueError: if the trees do not match, or a leaf is neither a constraint nor `None`.
    """
    # An equinox module full of constraints is callable too, but a node of a pytree and no leaf.
    if callable(constraints) and not is_constraint(constraints) and jax.tree_util.all_leaves([constraints]):
        constraints = constraints(params)
    flat, treedef = jax.tree_util.tree_flatten_with_path(constraints, is_leaf=is_constraint)
    for path, leaf in flat:
        if not is_constraint(leaf):
            raise ValueError(f"constraints must hold a Constraint or None at {path_name(path)!r}, got {leaf!r}")
    try:
        weights = treedef.flatten_up_to(params)
    except (ValueError, TypeError) as error:
        raise ValueError(f"constraints must be a pytree like params, got another structure: {error}") from error
    for (path, constraint), weight in zip(flat, weights, strict=True):
        if constraint is not None and not hasattr(weight, "shape"):
            raise ValueError(f"params must hold an array at constrained {path_name(path)!r}, got {weight!r}")
    return constraints


def parts(constraint: Constraint) -> tuple[Constraint, ...]:
    """The sets a constraint is split into: its attribute `parts` where that is a tuple, else itself alone.

    A split constraint holds in consensus: each part has a copy `Z` and a dual `U` of its own.
    """
    found = getattr(constraint, "parts", None)
    return found if isinstance(found, tuple) else (constraint,)


def per_part(fn: Callable[..., Array], constraint: Constraint, *copies: Any) -> Any:
    """`fn(part, *copies)` for each part of a split constraint, as a tuple; a plain array where it is not split.

    Args:
        fn: from a part, and its element of each of `copies`, to an array.
        constraint: the constraint.
        *copies: what an earlier call gave.
    """
    if not isinstance(getattr(constraint, "parts", None), tuple):
        return fn(constraint, *copies)
    return tuple(map(fn, parts(constraint), *copies))


def as_tuple(copies: Any) -> tuple[Array, ...]:
    """What `per_part` gave, as a tuple in either case."""
    return copies if isinstance(copies, tuple) else (copies,)


def on_constrained(fn: Callable[..., Any], constraints: Constraints, *trees: Params) -> Params:
    """`fn(constraint, *leaves)` at constrained leaves, `None` (no memory) elsewhere."""

    def visit(constraint: Constraint | None, *leaves: Any) -> Any:
        return None if constraint is None else fn(constraint, *leaves)

    return jax.tree.map(visit, constraints, *trees, is_leaf=is_constraint)


def on_constrained_or_keep(fn: Callable[..., Any], constraints: Constraints, first: Params, *rest: Params) -> Params:
    """`fn(constraint, *leaves)` at constrained leaves, the leaf (or branch) of `first` elsewhere."""

    def visit(constraint: Constraint | None, *leaves: Any) -> Any:
        return leaves[0] if constraint is None else fn(constraint, *leaves)

    return jax.tree.map(visit, constraints, first, *rest, is_leaf=is_constraint)


def constrained_by_path(constraints: Constraints, tree: Params) -> dict[str, Any]:
    """The leaves of `tree` at constrained places, keyed by path.

    Args:
        constraints: pytree of constraints or `None`.
        tree: a tree like params; `constraints` itself gives the constraints by path.

    Returns:
        A dictionary in tree order.
    """
    flat, treedef = jax.tree_util.tree_flatten_with_path(constraints, is_leaf=is_constraint)
    leaves = treedef.flatten_up_to(tree)
    pairs = zip(flat, leaves, strict=True)
    return {path_name(path): leaf for (path, constraint), leaf in pairs if constraint is not None}


def fit(constraints: Constraints, params: Params) -> Constraints:
    """Each constraint with what it reads off its weight (a level scale) frozen."""
    return on_constrained(lambda constraint, w: constraint.fit(w), constraints, params)


def relaxed(constraints: Constraints, params: Params, share: Any) -> Constraints:
    """Each constraint with its counts moved by `share` of the way to keeping everything.

    Args:
        constraints: pytree of constraints or `None`; those without a method `relaxed(shape, share)` stay.
        params: the parameters, for their shapes.
        share: 0 is the constraint itself, 1 keeps everything; may be traced.
    """

    def moved(constraint: Any, w: Any) -> Any:
        return constraint.relaxed(tuple(w.shape), share) if hasattr(constraint, "relaxed") else constraint

    return on_constrained(moved, constraints, params)


def project(constraints: Constraints, params: Params) -> Params:
    """Hard projection: each constrained leaf moves to the nearest point of its set, in its own dtype."""
    return on_constrained_or_keep(lambda constraint, w: constraint.project(w), constraints, params)


def violations(constraints: Constraints, params: Params) -> dict[str, Array]:
    """Relative distance of each constrained leaf to its set, by path; 0 certifies membership."""
    return constrained_by_path(constraints, on_constrained(lambda c, w: c.violation(w), constraints, params))


def chart(constraints: Constraints, params: Params) -> tuple[Params, Callable[[Params], Params]]:
    """Free coordinates of a projected tree: `build(theta)` lies in every set, for any theta.

    Args:
        constraints: pytree of constraints or `None`.
        params: the projected parameters.

    Returns:
        `theta`, a tree like params whose constrained leaves are the coordinates of their chart (free leaves stay
        as they are), and `build`, with `build(theta) == params`.
    """
    charts = on_constrained(lambda constraint, w: constraint.chart(w), constraints, params)
    theta = on_constrained_or_keep(lambda _, __, pair: pair[0], constraints, params, charts)
    builders = on_constrained(lambda _, pair: pair[1], constraints, charts)
    return theta, lambda theta: build(constraints, builders, theta)


def build(constraints: Constraints, builders: Params, theta: Params) -> Params:
    """The parameters that free coordinates stand for.

    Args:
        constraints: pytree of constraints or `None`.
        builders: the second part of each chart at constrained leaves, `None` elsewhere.
        theta: the free coordinates.
    """
    return on_constrained_or_keep(lambda _, leaf, builder: builder(leaf), constraints, theta, builders)
