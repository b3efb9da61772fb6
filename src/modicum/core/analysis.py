"""Which values of a traced function derive from its parameters alone, and where they meet data.

An abstract interpretation of the jaxpr over three kinds of value, `CONSTANT < PARAMETER < DATA`:
the kind of a result is the highest kind among the operands. Loops run to the fixed point of their
carry; a value chosen by data (a branch, a data-dependent number of turns) is data.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from modicum.core import compat

CONSTANT, PARAMETER, DATA = 0, 1, 2

PRIMITIVES = ("dot_general", "conv_general_dilated")

# What leaves a parameter leaf itself, "up to reshape, transpose or cast".
RELABELING = (
    "reshape",
    "transpose",
    "squeeze",
    "convert_element_type",
    "reduce_precision",
    "copy",
    "copy_p",
    "optimization_barrier",
    "device_put",
    "sharding_constraint",
)


class Origin(NamedTuple):
    """Where a value comes from."""

    kind: int
    paths: tuple[str, ...] = ()
    """Parameter leaves it derives from."""
    whole: bool = False
    """Whether it is exactly one leaf, up to reshape, transpose or cast."""


class Found(NamedTuple):
    """A stationary operator in a program."""

    where: tuple[int, ...]
    """Equation number, then (branch, equation number) per level of nesting."""
    eqn: Any
    weight_operand: int
    origin: Origin
    calls: int | None
    """How often it runs; `None` inside a loop whose trip count depends on values."""


Analysis = tuple[list[Origin], list[Found]]


def join(origins: Sequence[Origin]) -> Origin:
    """The origin of something that may be any one of several values."""
    kind = max((origin.kind for origin in origins), default=CONSTANT)
    paths = tuple(dict.fromkeys(path for origin in origins for path in origin.paths))
    same = all(left == right for left, right in pairwise(origins))
    return Origin(kind, paths, bool(origins) and same and origins[0].whole)


def combine(origins: Sequence[Origin]) -> Origin:
    """The origin of something computed from several values."""
    return join(origins)._replace(whole=False)


def _relabels(eqn: Any) -> bool:
    if eqn.primitive.name == "broadcast_in_dim":
        return eqn.invars[0].aval.size == eqn.outvars[0].aval.size
    return eqn.primitive.name in RELABELING


def _weight_operand(eqn: Any, origins: Sequence[Origin]) -> int | None:
    if eqn.primitive.name not in PRIMITIVES:
        return None
    kinds = [origin.kind for origin in origins[:2]]
    if sorted(kinds) != [PARAMETER, DATA]:
        return None
    return kinds.index(PARAMETER)


def analyze(jaxpr: Any, origins: Sequence[Origin], calls: int | None = 1, where: tuple[int, ...] = ()) -> Analysis:
    """Origins of the outputs and the stationary operators inside.

    Args:
        jaxpr: an open or closed jaxpr.
        origins: one per input.
        calls: how often the jaxpr runs.
        where: its place in the whole program.
    """
    parts = compat.program(jaxpr)
    known = dict.fromkeys(parts.constvars, Origin(CONSTANT))
    known.update(zip(parts.invars, origins, strict=True))
    found: list[Found] = []

    def read(atom: Any) -> Origin:
        return Origin(CONSTANT) if compat.is_literal(atom) else known[atom]

    for number, eqn in enumerate(parts.eqns):
        operands = [read(atom) for atom in eqn.invars]
        here = (*where, number)
        weight_operand = _weight_operand(eqn, operands)
        if weight_operand is not None:
            found.append(Found(here, eqn, weight_operand, operands[weight_operand], calls))
        if compat.sub_jaxprs(eqn):
            results, inside = _enter(eqn, operands, calls, here)
            found += inside
        elif _relabels(eqn):
            results = operands
        else:
            results = [combine(operands)] * len(eqn.outvars)
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in parts.outvars], found


def _enter(eqn: Any, operands: list[Origin], calls: int | None, here: tuple[int, ...]) -> Analysis:
    name = eqn.primitive.name
    if name == "scan":
        return _scan(eqn, operands, calls, here)
    if name == "while":
        return _while(eqn, operands, here)
    if name == "cond":
        return _cond(eqn, operands, calls, here)
    (jaxpr,) = compat.sub_jaxprs(eqn)
    return analyze(jaxpr, operands, calls, (*here, 0))


def _scan(eqn: Any, operands: list[Origin], calls: int | None, here: tuple[int, ...]) -> Analysis:
    num_consts, num_carry = compat.scan_counts(eqn)
    consts = operands[:num_consts]
    carry = operands[num_consts : num_consts + num_carry]
    # A slice of a stacked leaf derives from that leaf, but is not the leaf.
    slices = [origin._replace(whole=False) for origin in operands[num_consts + num_carry :]]
    inner_calls = None if calls is None else calls * eqn.params["length"]
    (jaxpr,) = compat.sub_jaxprs(eqn)
    while True:
        results, found = analyze(jaxpr, [*consts, *carry, *slices], inner_calls, (*here, 0))
        after = [join(pair) for pair in zip(carry, results[:num_carry], strict=True)]
        if after == carry:
            stacked = [origin._replace(whole=False) for origin in results[num_carry:]]
            return carry + stacked, found
        carry = after


def _while(eqn: Any, operands: list[Origin], here: tuple[int, ...]) -> Analysis:
    condition, body = compat.sub_jaxprs(eqn)
    condition_consts, body_consts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    outer = operands[:condition_consts]
    inner = operands[condition_consts : condition_consts + body_consts]
    carry = operands[condition_consts + body_consts :]
    while True:
        verdict, found_condition = analyze(condition, [*outer, *carry], None, (*here, 0))
        results, found_body = analyze(body, [*inner, *carry], None, (*here, 1))
        after = [join(pair) for pair in zip(carry, results, strict=True)]
        if after == carry:
            break
        carry = after
    if verdict[0].kind == DATA:
        carry = [combine([*verdict, origin]) for origin in carry]
    return carry, found_condition + found_body


def _cond(eqn: Any, operands: list[Origin], calls: int | None, here: tuple[int, ...]) -> Analysis:
    choice, arguments = operands[0], operands[1:]
    branches = [
        analyze(jaxpr, arguments, calls, (*here, branch)) for branch, jaxpr in enumerate(compat.sub_jaxprs(eqn))
    ]
    results = [join(origins) for origins in zip(*(outputs for outputs, _ in branches), strict=True)]
    if choice.kind == DATA:
        results = [combine([choice, origin]) for origin in results]
    return results, [site for _, found in branches for site in found]
