"""A traced function as a web of operations on data: calls inlined, everything that rests on constants computed."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from modicum.core import compat

# What hands its operands on as they are, one result for each.
_PASSING = ("copy", "copy_p", "device_put", "name", "optimization_barrier", "sharding_constraint", "stop_gradient")

# What keeps the numbers in row-major order, where it keeps how many there are.
_RESHAPES = ("broadcast_in_dim", "reshape", "squeeze")


@dataclass(frozen=True, eq=False)
class Leaf:
    """The parameter that a constant is, up to how its numbers lie.

    `core.Site.leaf` also looks through casts; here they end the descent, since a kernel reads the numbers themselves.

    Attributes:
        path: of the parameter.
        shape: of the parameter.
        steps: the reshapes and transposes between the parameter and the constant.
    """

    path: str
    shape: tuple[int, ...]
    steps: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()

    def as_it_stands(self) -> str | None:
        """The path, if the steps lead back to the parameter's own shape and order."""
        if not self.steps:
            return self.path
        # Where the numbers lie is told by numbers that count them: two equal weights cannot pass for each other.
        start = np.arange(np.prod(self.shape, dtype=int)).reshape(self.shape)
        end = start
        for step in self.steps:
            end = step(end)
        return self.path if np.array_equal(start, end) else None


@dataclass(frozen=True, eq=False)
class Constant:
    """An operand that does not depend on the input.

    Attributes:
        array: its value.
        leaf: the parameter that it is, if it is one.
    """

    array: Any
    leaf: Leaf | None = None

    def rearranged(self, step: Callable[[Any], Any]) -> "Constant":
        """The same numbers by a reshape or transpose that works on any array."""
        leaf = self.leaf and Leaf(self.leaf.path, self.leaf.shape, (*self.leaf.steps, step))
        return Constant(step(self.array), leaf)


@dataclass(frozen=True, eq=False)
class Value:
    """An array that depends on the input.

    Attributes:
        number: counts the values of a program in its order.
        shape: batch included.
        dtype: of its elements.
        source: the operation that makes it; None for an input.
        index: its place among the results of `source`.
    """

    number: int
    shape: tuple[int, ...]
    dtype: Any
    source: "Operation | None" = field(default=None, repr=False)
    index: int = 0

    @property
    def name(self) -> str:
        """What a graph calls it."""
        return f"value_{self.number}"

    def made_by(self, *primitives: str) -> "Operation | None":
        """The operation that makes it, if that is one of some primitives."""
        return self.source if self.source is not None and self.source.primitive in primitives else None

    def reshaped(self) -> "Value | None":
        """The value that holds the same numbers in the same row-major order, if this one is a reshape of it."""
        return self.source.data[0] if self.source is not None and _reshapes(self.source.eqn) else None

    def with_constant(self, *primitives: str) -> "WithConstant | None":
        """How it comes from one value and one constant by one of some primitives of two operands; else None."""
        operation = self.made_by(*primitives)
        if operation is None:
            return None
        match operation.operands:
            case (Value() as read, Constant() as constant):
                return WithConstant(read, constant, False, operation)
            case (Constant() as constant, Value() as read):
                return WithConstant(read, constant, True, operation)
        return None


Operand = Value | Constant


@dataclass(frozen=True, eq=False)
class Operation:
    """One equation with at least one operand that depends on the input.

    Attributes:
        eqn: the equation of the jaxpr.
        operands: what it reads.
    """

    eqn: Any = field(repr=False)
    operands: tuple[Operand, ...] = field(repr=False)

    @property
    def primitive(self) -> str:
        """Name of the primitive."""
        return self.eqn.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the primitive."""
        return self.eqn.params

    @property
    def data(self) -> tuple[Value, ...]:
        """The operands that depend on the input."""
        return tuple(operand for operand in self.operands if isinstance(operand, Value))

    def evaluate(self, *arrays: Any) -> list[Any]:
        """Its results, computed by JAX; `arrays` stand for `data`."""
        given = iter(arrays)
        read = [next(given) if isinstance(operand, Value) else operand.array for operand in self.operands]
        return compat.bind(self.eqn, read)


class WithConstant(NamedTuple):
    """An operation on a value and a constant."""

    read: Value
    constant: Constant
    constant_first: bool
    operation: Operation


def flatten(jaxpr: Any, operands: Sequence[Operand], numbers: Iterator[int] | None = None) -> list[Operand]:
    """The outputs of a jaxpr, each with all that it is made from.

    Calls, `remat` and functions with derivative rules of their own are inlined; loops and branches stay operations.
    What rests on constants alone is computed; what changes nothing is left out.

    Args:
        jaxpr: closed, or open without constants.
        operands: one per input.
        numbers: for the values, above those of `operands`.
    """
    parts = compat.program(jaxpr)
    if numbers is None:
        numbers = itertools.count(1 + max((value.number for value in operands if isinstance(value, Value)), default=0))
    known: dict[Any, Operand] = {var: Constant(const) for var, const in zip(parts.constvars, parts.consts, strict=True)}
    known.update(zip(parts.invars, operands, strict=True))

    def read(atom: Any) -> Operand:
        return Constant(np.asarray(atom.val, atom.aval.dtype)) if compat.is_literal(atom) else known[atom]

    for eqn in parts.eqns:
        results = _results(eqn, [read(atom) for atom in eqn.invars], numbers)
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in parts.outvars]


def _results(eqn: Any, operands: list[Operand], numbers: Iterator[int]) -> list[Operand]:
    if eqn.primitive.name in (*compat.CALLS, *compat.REMAT, *compat.CUSTOM) and compat.sub_jaxprs(eqn):
        (inner,) = compat.sub_jaxprs(eqn)
        return flatten(inner, operands, numbers)
    if _passes(eqn):
        return operands
    if all(isinstance(operand, Constant) for operand in operands):
        return _computed(eqn, operands)
    operation = Operation(eqn, tuple(operands))
    return [
        Value(next(numbers), tuple(var.aval.shape), var.aval.dtype, operation, index)
        for index, var in enumerate(eqn.outvars)
    ]


def _reshapes(eqn: Any) -> bool:
    """Whether an equation's result is its operand, the same numbers in row-major order, in some shape."""
    # all but the first operand of these are sizes, which fixed shapes leave out
    if eqn.primitive.name not in _RESHAPES or len(eqn.invars) != 1:
        return False
    # a reshape may be told to transpose first; a broadcast that repeats nothing only adds axes of size 1
    in_order = eqn.primitive.name != "reshape" or eqn.params["dimensions"] is None
    return in_order and eqn.invars[0].aval.size == eqn.outvars[0].aval.size


def _passes(eqn: Any) -> bool:
    """Whether an equation's results are its operands."""
    name = eqn.primitive.name
    if name in _PASSING:
        return len(eqn.invars) == len(eqn.outvars)
    if name == "transpose":
        permutation = tuple(eqn.params["permutation"])
        return permutation == tuple(range(len(permutation)))
    if name in ("convert_element_type", "slice") or _reshapes(eqn):
        read, made = eqn.invars[0].aval, eqn.outvars[0].aval
        return read.shape == made.shape and read.dtype == made.dtype
    return False


def _computed(eqn: Any, operands: list[Any]) -> list[Operand]:
    if eqn.primitive.name == "transpose":
        permutation = tuple(eqn.params["permutation"])
        return [operands[0].rearranged(lambda array: array.transpose(permutation))]
    if _reshapes(eqn):
        shape = eqn.outvars[0].aval.shape
        return [operands[0].rearranged(lambda array: array.reshape(shape))]
    return [Constant(array) for array in compat.bind(eqn, [operand.array for operand in operands])]
