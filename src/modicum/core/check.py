"""Validators that raise one clear sentence: the argument, its value, what is allowed.

Each takes its arguments by name, so that the message can name them::

    check.positive(rho=rho, every=every)
"""

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import numpy as np


def _real(name: str, value: Any, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(float(value)):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return float(value)


def positive(**named: Any) -> None:
    """Each value is a number above zero (infinity passes: it means 'no limit')."""
    for name, value in named.items():
        if not _real(name, value, "a number above 0") > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}")


def not_infinite(**named: Any) -> None:
    """Each number is not infinite."""
    for name, value in named.items():
        if math.isinf(value):
            raise ValueError(f"{name} must be finite, got {value!r}")


def finite_positive(**named: Any) -> None:
    """Each value is a finite number above zero."""
    positive(**named)
    not_infinite(**named)


def non_negative(**named: Any) -> None:
    """Each value is a number not below zero."""
    for name, value in named.items():
        if not _real(name, value, "a number not below 0") >= 0:
            raise ValueError(f"{name} must not be below 0, got {value!r}")


def between(low: float, high: float, **named: Any) -> None:
    """Each value is a number in the closed range `[low, high]`."""
    for name, value in named.items():
        if not low <= _real(name, value, f"a number from {low} to {high}") <= high:
            raise ValueError(f"{name} must lie from {low} to {high}, got {value!r}")


def integer(low: int | None = None, high: int | None = None, **named: Any) -> None:
    """Each value is a whole number, in `[low, high]` where these are given."""
    if low is None:
        allowed = "a whole number" if high is None else f"a whole number up to {high}"
    else:
        allowed = f"a whole number of at least {low}" + ("" if high is None else f" and at most {high}")
    for name, value in named.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or (low is not None and int(value) < low) or (high is not None and int(value) > high):
            raise ValueError(f"{name} must be {allowed}, got {value!r}")


def one_of(allowed: Collection[Any], **named: Any) -> None:
    """Each value is a member of `allowed`."""
    for name, value in named.items():
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def divides(divisor: int, **named: int) -> None:
    """Each value is a multiple of `divisor`."""
    for name, value in named.items():
        if value % divisor:
            raise ValueError(f"{name} must be a multiple of {divisor}, got {value}")


def rank(allowed: Collection[int], **named: Any) -> None:
    """Each array has one of the allowed numbers of axes."""
    for name, value in named.items():
        if np.ndim(value) not in allowed:
            ranks = " or ".join(map(str, allowed))
            raise ValueError(f"{name} must have {ranks} axes, got shape {np.shape(value)}")


def shape(expected: tuple[int, ...], **named: Any) -> None:
    """Each array has exactly the expected shape."""
    for name, value in named.items():
        if np.shape(value) != expected:
            raise ValueError(f"{name} must have shape {expected}, got {np.shape(value)}")


def finite(**named: Any) -> None:
    """Each array (concrete, not traced) holds neither NaN nor infinity."""
    for name, value in named.items():
        bad = ~np.isfinite(np.asarray(value))
        if bad.any():
            where = tuple(int(axis[0]) for axis in np.nonzero(bad)) if bad.ndim else ()
            raise ValueError(
                f"{name} must be finite, got {int(bad.sum())} NaN or infinite values, the first at index {where}"
            )
