"""Find the stationary operators of any JAX function.

A **site** is a matrix product or convolution one of whose operands derives from the parameters
alone: what hardware keeps in place while data flows by.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from jax import lax
from jaxtyping import Array

from modicum.core import analysis, compat
from modicum.core.trees import leaves_by_path
from modicum.core.types import Params


@dataclass(frozen=True, eq=False)
class Site:
    """One stationary operator.

    Attributes:
        name: the parameter path it reads, `params/Conv_0/kernel`; several leaves are joined by `+`,
            and a further site on the same leaf is told apart by `#1`, `#2`.
        primitive: `dot_general` or `conv_general_dilated`.
        leaf: the parameter path if the weight is that one leaf up to reshape, transpose or cast, else `None`.
        weight: shape and dtype of the weight operand, as the program has it.
        inputs: shape and dtype of the other operand.
        output: shape and dtype of the result.
        macs: multiply-accumulate operations per call; positions in the padding of a convolution do not count.
        calls: how often it runs in one evaluation (trip counts of the scans around it);
            `None` inside a `while` loop.
        weight_operand: 0 or 1, the weight's place among the operands.
        params: parameters of the primitive (dimension numbers, strides, ...).
    """

    name: str
    primitive: str
    leaf: str | None
    weight: jax.ShapeDtypeStruct
    inputs: jax.ShapeDtypeStruct
    output: jax.ShapeDtypeStruct
    macs: int
    calls: int | None
    weight_operand: int = 1
    params: dict[str, Any] = field(default_factory=dict, repr=False)

    def apply(self, weight: Array, inputs: Array) -> Array:
        """The operator as the program has it: the same primitive on the same side."""
        operands = (weight, inputs) if self.weight_operand == 0 else (inputs, weight)
        return _PRIMITIVES[self.primitive].bind(*operands, **self.params)


_PRIMITIVES = {"dot_general": lax.dot_general_p, "conv_general_dilated": lax.conv_general_dilated_p}


def sites(fun: Callable[..., Any], params: Params, *args: Any, **kwargs: Any) -> tuple[Site, ...]:
    """Every stationary operator of `fun(params, *args)`, in program order.

    Looks through `jit`, `scan`, `while`, `cond`, `remat`, `custom_jvp` and `custom_vjp`. Nothing is computed:
    shapes (`jax.ShapeDtypeStruct`) serve as well as arrays.

    Args:
        fun: any JAX function whose first argument is the parameter tree.
        params: a pytree of arrays.
        *args: its further arguments; what they reach is data.
        **kwargs: likewise.

    Returns:
        One `Site` per `dot_general` or `conv_general_dilated` with exactly one operand that derives
        from `params` alone.

    Example:
        >>> import jax.numpy as jnp
        >>> dense = lambda p, x: jnp.tanh(x @ p["kernel"])
        >>> (site,) = sites(dense, {"kernel": jnp.ones((3, 4))}, jnp.ones((2, 3)))
        >>> site.name, site.macs, site.weight.shape
        ('kernel', 24, (3, 4))
    """
    closed = jax.make_jaxpr(fun)(params, *args, **kwargs)
    return tuple(sites_by_place(closed, params).values())


def sites_by_place(closed: Any, params: Params) -> dict[tuple[int, ...], Site]:
    """The sites of a traced function, keyed by their equation's place (see `analysis.Found.where`)."""
    paths = list(leaves_by_path(params))
    origins = [analysis.Origin(analysis.PARAMETER, (path,), whole=True) for path in paths]
    data = len(compat.program(closed).invars) - len(paths)
    _, found = analysis.analyze(closed, origins + [analysis.Origin(analysis.DATA)] * data)
    seen: dict[str, int] = {}
    places = {}
    for item in found:
        path = "+".join(item.origin.paths)
        seen[path] = seen.get(path, -1) + 1
        places[item.where] = _site(item, f"{path}#{seen[path]}" if seen[path] else path)
    return places


def _site(found: analysis.Found, name: str) -> Site:
    def struct(atom: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)

    eqn, weight_operand = found.eqn, found.weight_operand
    return Site(
        name=name,
        primitive=eqn.primitive.name,
        leaf=found.origin.paths[0] if found.origin.whole else None,
        weight=struct(eqn.invars[weight_operand]),
        inputs=struct(eqn.invars[1 - weight_operand]),
        output=struct(eqn.outvars[0]),
        macs=_macs(eqn),
        calls=found.calls,
        weight_operand=weight_operand,
        params=dict(eqn.params),
    )


def _macs(eqn: Any) -> int:
    left, right = (atom.aval.shape for atom in eqn.invars[:2])
    output = eqn.outvars[0].aval.shape
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return math.prod(output) * math.prod(left[axis] for axis in contracted)
    lhs_spec, rhs_spec, out_spec = eqn.params["dimension_numbers"]
    taps = 1
    for axis, (low, _) in enumerate(eqn.params["padding"]):
        taps *= _valid_taps(
            left[lhs_spec[2 + axis]],
            right[rhs_spec[2 + axis]],
            output[out_spec[2 + axis]],
            eqn.params["window_strides"][axis],
            low,
            eqn.params["lhs_dilation"][axis],
            eqn.params["rhs_dilation"][axis],
        )
    batch = left[lhs_spec[0]] // eqn.params["batch_group_count"]
    return batch * right[rhs_spec[0]] * right[rhs_spec[1]] * taps


def _valid_taps(
    size: int, kernel: int, output: int, stride: int, low: int, lhs_dilation: int, rhs_dilation: int
) -> int:
    # XLA's cost analysis counts a tap only where it meets a real element: neither padding nor a dilation hole.
    last = (size - 1) * lhs_dilation
    positions = (place * stride + tap * rhs_dilation - low for place in range(output) for tap in range(kernel))
    return sum(0 <= position <= last and position % lhs_dilation == 0 for position in positions)
