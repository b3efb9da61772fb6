"""A set as numbers: what each level of its tree demands of a weight, and of which shapes."""

import math
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Bool

from modicum.constraints.base import Traceable, View, concrete_number, view_shape

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Plan:
    """A set as numbers: what each level of its tree demands, None where it demands nothing.

    Attributes:
        k: kernels (or elements) kept.
        scale: distance between levels.
        most: `k` where it is known while tracing.
        elements: whether `k` counts elements of the whole weight.
        balanced: whether `k` counts per filter.
        group: consecutive filters that keep the same kernels.
        library: kept positions of each pattern.
        pattern_group: consecutive filters that share the pattern of an input channel.
        fragment: rows that share one sign.
        bits: width of a level.
    """

    k: Traceable | None = None
    scale: Traceable | None = None
    most: int | None = field(default=None, metadata=_STATIC)
    elements: bool = field(default=False, metadata=_STATIC)
    balanced: bool = field(default=True, metadata=_STATIC)
    group: int = field(default=1, metadata=_STATIC)
    library: tuple[tuple[int, ...], ...] | None = field(default=None, metadata=_STATIC)
    pattern_group: int = field(default=1, metadata=_STATIC)
    fragment: int | None = field(default=None, metadata=_STATIC)
    bits: int | None = field(default=None, metadata=_STATIC)

    @property
    def view(self) -> View:
        """The coarsest view that shows every group."""
        if self.elements or (self.k is None and self.library is None and self.fragment is None):
            return "elements"
        return "rows" if self.k is None and self.library is None else "kernels"

    @property
    def layout(self) -> str:
        """Name of the packed format: the members from the outside in."""
        names = {
            "topk": self.elements,
            "kernels": self.k is not None and not self.elements,
            "patterns": self.library is not None,
            "polarized": self.fragment is not None,
            "levels": self.bits is not None,
        }
        return "+".join(name for name, present in names.items() if present)


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
    if plan.library is not None and len(shape) != 4:
        raise ValueError(f"w must be a convolution kernel (kh, kw, in, out) to hold patterns, got shape {shape}")
    if plan.view != "elements" and len(shape) not in (2, 4):
        raise ValueError(f"w must have 2 axes (in, out) or 4 (kh, kw, in, out), got shape {shape}")
    outputs, kernels, taps = view_shape(shape, plan.view)
    if plan.library is not None and max(map(max, plan.library)) >= taps:
        raise ValueError(
            f"library must hold positions below the {taps} of a {shape[0]}x{shape[1]} kernel, got {plan.library}"
        )
    if plan.k is not None:
        k, most = concrete_number("k", plan.k), kernels if plan.balanced else outputs * kernels
        if k is not None and not 1 <= k <= most:
            where = "elements of w" if plan.elements else "kernels of a filter" if plan.balanced else "kernels of w"
            raise ValueError(f"k must be from 1 to the {most} {where} of shape {shape}, got {k}")
    scale = None if plan.scale is None else concrete_number("scale", plan.scale)
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"scale must be a finite number above 0, got {scale}")
    _, span = fragment_rows(plan, kernels, taps)
    if span and not plan.balanced:
        raise ValueError(
            f"Kernels must be balanced per filter where a fragment shares one sign across {span} kernels, "
            f"got balanced=False"
        )
    if span > 1 and max(plan.group, plan.pattern_group) > 1:
        raise ValueError(
            f"group must be 1 where a fragment shares one sign across {span} kernels, because filters that share "
            f"kernels or patterns would cross it, got {max(plan.group, plan.pattern_group)}"
        )


def pattern_table(plan: Plan, taps: int) -> Bool[np.ndarray, " p e"]:
    """Which positions each pattern keeps; one full pattern without a library."""
    if plan.library is None:
        return np.ones((1, taps), bool)
    return np.array([[tap in pattern for tap in range(taps)] for pattern in plan.library])
