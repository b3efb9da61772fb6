"""Leaves of a parameter tree, by path."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from modicum.core.types import Params


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as one string, `params/Conv_0/kernel`.

    Args:
        path: what `jax.tree_util.tree_flatten_with_path` gives for a leaf.

    Example:
        >>> path_name(jax.tree_util.tree_flatten_with_path({"a": [1]})[0][0][0])
        'a/0'
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves_by_path(tree: Params, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """The leaves of a tree, keyed by their path, in tree order.

    Example:
        >>> leaves_by_path({"dense": {"kernel": 1, "bias": 2}})
        {'dense/bias': 2, 'dense/kernel': 1}
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return {path_name(path): leaf for path, leaf in flat}


def map_by_path(fn: Callable[..., Any], tree: Params, *rest: Params) -> Params:
    """`fn(path, leaf, *rest_leaves)` on every leaf; the tree keeps its structure."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: fn(path_name(path), *leaves), tree, *rest)


def select_by_path(rules: Mapping[str, Any], tree: Params, otherwise: Any = None) -> Params:
    """One value per leaf: that of the first rule whose pattern is found in the leaf's path.

    Args:
        rules: values by regular expression (`re.search` on `params/Conv_0/kernel`).
        tree: the tree whose leaves are matched.
        otherwise: value of a leaf that no pattern matches.

    Raises:
        ValueError: if a pattern matches no leaf.
    """
    paths = leaves_by_path(tree)
    for pattern in rules:
        if not any(re.search(pattern, path) for path in paths):
            raise ValueError(f"pattern {pattern!r} must match a parameter path, got paths {', '.join(paths) or 'none'}")

    def chosen(path: str, _: Any) -> Any:
        return next((value for pattern, value in rules.items() if re.search(pattern, path)), otherwise)

    return map_by_path(chosen, tree)


def masks_by_path(rules: Mapping[str, bool], tree: Params) -> Params:
    """Boolean tree for `optax.masked`: the value of the first matching rule, else `False`."""
    return select_by_path(rules, tree, otherwise=False)


def described(leaf: Any) -> str:
    """Dtype and shape of an array in one word, `float32[3, 4]`."""
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return f"{leaf.dtype}{list(leaf.shape)}"


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Everything in which two sets of named arrays differ, as part of a sentence; empty where they agree.

    Args:
        wanted: what each array must be, by name.
        found: what each is.

    Example:
        >>> differences({"a": "float32[2]", "b": "float32[3]"}, {"b": "float32[4]", "c": "float32[1]"})
        'missing: a; not asked for: c; b is float32[4] and must be float32[3]'
    """
    parts = []
    if missing := [name for name in wanted if name not in found]:
        parts.append(f"missing: {', '.join(missing)}")
    if unused := [name for name in found if name not in wanted]:
        parts.append(f"not asked for: {', '.join(unused)}")
    parts += [
        f"{name} is {found[name]} and must be {wanted[name]}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    return "; ".join(parts)
