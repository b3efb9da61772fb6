"""A set as numbers: what each level of its tree demands of a weight, and of which shapes."""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from modicum.constraints.base import Traceable, View, concrete_number, is_concrete, view_shape
from modicum.constraints.grid import Grid
from modicum.constraints.natural import MOST_TAPS

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Plan:
    """A set as numbers: what each level of its tree demands, None where it demands nothing.

    Attributes:
        filters: filters (output channels) kept.
        k: kernels, elements, input channels (`group` 0), or elements of each group (`along`) kept.
        scale: distance between levels.
        table: which positions each natural pattern keeps, `(p, taps)`.
        most_filters: `filters` where it is known while tracing.
        most: `k` where it is known while tracing.
        elements: whether `k` counts elements of the whole weight.
        balanced: whether `k` counts per filter.
        group: consecutive filters that keep the same kernels; 0 for all of them.
        along: `(axis, m)` where `k` counts among `m` consecutive entries along an axis.
        library: kept positions of each pattern.
        natural: patterns, and positions of each, of a library that is read off the weights as `table`.
        pattern_group: consecutive filters that share the pattern of an input channel.
        fragment: rows that share one sign.
        grid: which multiples of the scale are levels.
    """

    filters: Traceable | None = None
    k: Traceable | None = None
    scale: Traceable | None = None
    table: Traceable | None = None
    most_filters: int | None = field(default=None, metadata=_STATIC)
    most: int | None = field(default=None, metadata=_STATIC)
    elements: bool = field(default=False, metadata=_STATIC)
    balanced: bool = field(default=True, metadata=_STATIC)
    group: int = field(default=1, metadata=_STATIC)
    along: tuple[int, int] | None = field(default=None, metadata=_STATIC)
    library: tuple[tuple[int, ...], ...] | None = field(default=None, metadata=_STATIC)
    natural: tuple[int, int] | None = field(default=None, metadata=_STATIC)
    pattern_group: int = field(default=1, metadata=_STATIC)
    fragment: int | None = field(default=None, metadata=_STATIC)
    grid: Grid | None = field(default=None, metadata=_STATIC)

    @property
    def patterns(self) -> int:
        """Patterns in the library, 0 without one."""
        if self.natural is not None:
            return self.natural[0]
        return 0 if self.library is None else len(self.library)

    def width(self, taps: int) -> int:
        """Positions of the largest pattern; all `taps` of a kernel without a library."""
        if self.natural is not None:
            return self.natural[1]
        return taps if self.library is None else max(map(len, self.library))

    @property
    def view(self) -> View:
        """The coarsest view that shows every group."""
        if self.along is not None:
            return self.along
        if not self.elements and (self.k is not None or self.patterns):
            return "kernels"
        return "elements" if self.filters is None and self.fragment is None else "rows"

    @property
    def layout(self) -> str:
        """Name of the packed format: the members from the outside in."""
        names = {
            "topk": self.elements,
            "filters": self.filters is not None,
            "channels": self.group == 0,
            "nofm": self.along is not None,
            "kernels": self.k is not None and not self.elements and self.group > 0 and self.along is None,
            "patterns": self.patterns > 0,
            "polarized": self.fragment is not None,
            "levels": self.grid is not None,
        }
        return "+".join(name for name, present in names.items() if present)

    @property
    def unread(self) -> bool:
        """Whether something is still to be read off the weights: a scale, or a library."""
        return (self.grid is not None and self.scale is None) or (self.natural is not None and self.table is None)


def fragment_rows(plan: Plan, kernels: int, taps: int) -> tuple[int, int]:
    """Rows of a fragment, and how many kernels it spans: 0 where it lies inside one.

    Raises:
        ValueError: where fragments would cut kernels.
    """
    if plan.fragment is None:
        return 0, 0
    rows = min(plan.fragment, kernels * taps)
    if taps % rows == 0:
        return rows, 0
    if rows % taps == 0:
        return rows, rows // taps
    raise ValueError(
        f"fragment must divide the {taps} elements of a kernel or be a multiple of them to nest with "
        f"kernels or patterns, got {plan.fragment}"
    )


def check(plan: Plan, shape: tuple[int, ...]) -> None:
    """Whether the set exists for weights of that shape.

    Raises:
        ValueError: naming what does not fit.
    """
    if math.prod(shape) == 0 or not shape:
        raise ValueError(f"w must have at least one axis and one element, got shape {shape}")
    if plan.patterns and len(shape) != 4:
        raise ValueError(f"w must be a convolution kernel (kh, kw, in, out) to hold patterns, got shape {shape}")
    if plan.view in ("rows", "kernels") and len(shape) not in (2, 4):
        raise ValueError(f"w must have 2 axes (in, out) or 4 (kh, kw, in, out), got shape {shape}")
    if plan.along is not None:
        _check_axis(plan, plan.along[0], shape)
    _check_patterns(plan, shape)
    _check_counts(plan, shape)
    scale = None if plan.scale is None else concrete_number("scale", plan.scale)
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"scale must be a finite number above 0, got {scale}")
    _check_fragments(plan, shape)


def _check_axis(plan: Plan, axis: int, shape: tuple[int, ...]) -> None:
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis must lie from {-len(shape)} to {len(shape) - 1} for w of shape {shape}, got {axis}")
    if plan.fragment is not None:
        column = len(shape) >= 2 and axis % len(shape) == len(shape) - 2 and math.prod(shape[:-2]) == 1
        if not column:
            raise ValueError(
                f"w must have (in, out) features and no window, and NofM count along in, so that its groups are "
                f"fragments of a column (Polarized), got shape {shape} and axis {axis}"
            )


def _check_patterns(plan: Plan, shape: tuple[int, ...]) -> None:
    if not plan.patterns:
        return
    taps = math.prod(shape[:-2])
    window = f"{shape[0]}x{shape[1]} kernel"
    if plan.library is not None and max(map(max, plan.library)) >= taps:
        raise ValueError(f"library must hold positions below the {taps} of a {window}, got {plan.library}")
    if plan.natural is None:
        return
    k, size = plan.natural
    if taps > MOST_TAPS:
        raise ValueError(f"w must have a window of at most {MOST_TAPS} positions for natural patterns, got a {window}")
    if size > taps:
        raise ValueError(f"size must be at most the {taps} positions of a {window}, got {size}")
    possible = math.comb(taps - 1, size - 1)
    if k > possible:
        raise ValueError(f"k must be at most the {possible} patterns of {size} positions in a {window}, got {k}")
    table = plan.table
    if table is not None:
        if np.shape(table) != (k, taps):
            raise ValueError(f"table must have shape {(k, taps)} for a {window}, got {np.shape(table)}")
        if is_concrete(table) and (np.sum(np.asarray(table) != 0, axis=1) != size).any():
            raise ValueError(f"table must mark {size} positions in each row, got {np.asarray(table).tolist()}")


def _check_counts(plan: Plan, shape: tuple[int, ...]) -> None:
    outputs, kernels, _ = view_shape(shape, plan.view)
    if plan.filters is not None:
        filters = concrete_number("k", plan.filters)
        if filters is not None and not 1 <= filters <= shape[-1]:
            raise ValueError(f"k must be from 1 to the {shape[-1]} filters of w of shape {shape}, got {filters}")
    if plan.k is None:
        return
    k = concrete_number("k" if plan.along is None else "n", plan.k)
    if plan.along is not None:
        if k is not None and not 1 <= k <= plan.along[1]:
            raise ValueError(f"n must be from 1 to m = {plan.along[1]}, got {k}")
        return
    most = kernels if plan.balanced else outputs * kernels
    if k is not None and not 1 <= k <= most:
        where = "kernels of a filter" if plan.balanced else "kernels of w"
        where = "elements of w" if plan.elements else "input channels of w" if plan.group == 0 else where
        raise ValueError(f"k must be from 1 to the {most} {where} of shape {shape}, got {k}")


def _check_fragments(plan: Plan, shape: tuple[int, ...]) -> None:
    _, kernels, taps = view_shape(shape, plan.view)
    _, span = fragment_rows(plan, kernels, taps)
    if span and not plan.balanced:
        raise ValueError(
            f"Kernels must be balanced per filter where a fragment shares one sign across {span} kernels, "
            f"got balanced=False"
        )
    if span > 1 and plan.group == 0:
        raise ValueError(
            f"fragment must divide the {taps} elements of a kernel to nest with Channels of inputs, because a sign "
            f"shared across {span} kernels would cross them, got {plan.fragment}"
        )
    if span > 1 and max(plan.group, plan.pattern_group) > 1:
        raise ValueError(
            f"group must be 1 where a fragment shares one sign across {span} kernels, because filters that share "
            f"kernels or patterns would cross it, got {max(plan.group, plan.pattern_group)}"
        )


def pattern_table(plan: Plan, taps: int) -> Bool[Array, " p e"]:
    """Which positions each pattern keeps; one full pattern without a library. Traced where it is read off weights."""
    if plan.table is not None:
        return jnp.asarray(plan.table) != 0
    if plan.library is None:
        return jnp.ones((1, taps), bool)
    return jnp.array([[tap in pattern for tap in range(taps)] for pattern in plan.library])


def pattern_positions(plan: Plan, taps: int) -> Array:
    """Kept positions of each pattern, ascending, `(p, width)`; short patterns repeat their last one."""
    width = plan.width(taps)
    if plan.library is None:
        # A stable sort of marks puts the kept positions first, in order; all patterns have the same number.
        return jnp.argsort(~pattern_table(plan, taps), axis=1, stable=True)[:, :width].astype(jnp.int32)
    return jnp.array([np.pad(pattern, (0, width - len(pattern)), mode="edge") for pattern in plan.library], jnp.int32)
