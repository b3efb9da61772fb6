"""The jitted chunks of a compression run, shared between runs that differ in numbers only."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from modicum.admm import leaves
from modicum.admm.config import CompressConfig
from modicum.admm.leaves import Constraints
from modicum.admm.stages import AdmmCarry, AdmmInfo, LossFn, RetrainCarry, outer_iteration, retrain_steps
from modicum.core import Params


class Programs(NamedTuple):
    """Jitted functions of a run; the argument `arrays` of each is the first part of `split`.

    Attributes:
        outer: `(carry, arrays, data) -> (carry, info)`, one outer iteration.
        project: `(params, arrays) -> (params, theta)`, the hard projection and its free coordinates.
        retrain: `(carry, projected, arrays, data, first, steps) -> (carry, losses)`, some retraining steps.
        finish: `(carry, projected, arrays) -> params`, the point that the free coordinates stand for.
    """

    outer: Callable[..., tuple[AdmmCarry, AdmmInfo]]
    project: Callable[..., tuple[Params, Params]]
    retrain: Callable[..., tuple[RetrainCarry, jax.Array]]
    finish: Callable[..., Params]


def split(constraints: Constraints) -> tuple[list[Any], tuple[Any, tuple[Any, ...]]]:
    """Arrays of the constraints, and the rest of them as a hashable key: structure and plain numbers.

    Plain numbers stay what they are, so that a constraint may still use them as shapes.
    """
    flat, treedef = jax.tree.flatten(constraints)
    arrays = [leaf if isinstance(leaf, jax.Array | np.ndarray) else None for leaf in flat]
    numbers = tuple(leaf if array is None else None for leaf, array in zip(flat, arrays, strict=True))
    return arrays, (treedef, numbers)


@functools.lru_cache(maxsize=8)
def compiled(loss_fn: LossFn, batch_fn: Callable[..., Any] | None, config: CompressConfig, rest: Any) -> Programs:
    """The programs of a run, the same ones for the same arguments; nothing is compiled before the first call.

    Args:
        loss_fn: `(params, batch) -> scalar`.
        batch_fn: `step -> batch`, or `None` where the batches come as the argument `data`.
        config: the schedule, hashable (`CompressConfig.concrete`).
        rest: the second part of `split`.

    Returns:
        The programs.
    """
    treedef, numbers = rest

    def merged(arrays: list[Any]) -> Constraints:
        pairs = zip(arrays, numbers, strict=True)
        return treedef.unflatten([number if array is None else array for array, number in pairs])

    def outer(carry: AdmmCarry, arrays: list[Any], data: Any) -> tuple[AdmmCarry, AdmmInfo]:
        return outer_iteration(loss_fn, merged(arrays), config, carry, batch_fn or data)

    def project(params: Params, arrays: list[Any]) -> tuple[Params, Params]:
        projected = leaves.project(merged(arrays), params)
        return projected, leaves.chart(merged(arrays), projected)[0]

    def retrain(
        carry: RetrainCarry, projected: Params, arrays: list[Any], data: Any, first: Any, steps: int
    ) -> tuple[RetrainCarry, jax.Array]:
        _, build = leaves.chart(merged(arrays), projected)
        return retrain_steps(loss_fn, build, config, carry, batch_fn or data, first, steps)

    def finish(carry: RetrainCarry, projected: Params, arrays: list[Any]) -> Params:
        _, build = leaves.chart(merged(arrays), projected)
        return build(carry.theta)

    return Programs(jax.jit(outer), jax.jit(project), jax.jit(retrain, static_argnames="steps"), jax.jit(finish))
