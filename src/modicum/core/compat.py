"""Where the supported JAX releases (0.10.1, 0.11.2, 0.12) differ: the shape of their jaxprs.

From 0.11 on an open and a closed jaxpr are one type, and `scan` keeps its split into
constants, carry and slices as trees instead of counts. Nothing else in Modicum looks at this.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import Literal

CALLS = ("jit", "pjit", "closed_call", "core_call")
REMAT = ("checkpoint", "remat", "remat2")
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
LOOPS = ("scan", "while", "cond")


class Program(NamedTuple):
    """A jaxpr taken apart, the same for every release."""

    constvars: Sequence[Any]
    consts: Sequence[Any]
    invars: Sequence[Any]
    eqns: Sequence[Any]
    outvars: Sequence[Any]


def program(jaxpr: Any) -> Program:
    """The parts of an open or closed jaxpr; an open one has no constants' values."""
    consts = getattr(jaxpr, "consts", ())
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return Program(inner.constvars, consts, inner.invars, inner.eqns, inner.outvars)


def sub_jaxprs(eqn: Any) -> tuple[Any, ...]:
    """The jaxprs inside an equation that Modicum can enter, in a fixed order; else none."""
    name = eqn.primitive.name
    if name == "cond":
        return tuple(eqn.params["branches"])
    if name == "while":
        return eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
    if name in (*CALLS, *REMAT, *CUSTOM, "scan"):
        for parameter in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
            if parameter in eqn.params:
                return (eqn.params[parameter],)
    return ()


def scan_counts(eqn: Any) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many are carry."""
    params = eqn.params
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].update(list(range(len(eqn.invars)))).unpack()
    return len(list(consts)), len(list(carry))


def bind(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """Run one equation as it stands, custom derivative rules included."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    subfuns, params = bound if isinstance(bound, tuple) else ((), bound)
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*subfuns, *operands, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def is_literal(atom: Any) -> bool:
    """Whether an equation's operand is a constant written into the program."""
    return isinstance(atom, Literal)
