"""Gated recurrent units, found in a scan.

The structure of the loop says which constants may be kernels and biases; which is which, and whether the loop computes
these equations at all, is decided by running it on random numbers.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modicum.core import compat
from modicum.mobile.graph.layers import Gru
from modicum.mobile.graph.operations import Constant, Operation, Value, flatten
from modicum.mobile.graph.patterns import common, moved, per_channel, product

# Smooth functions and bookkeeping: where two functions made of these agree on random inputs, they agree everywhere.
_SMOOTH = ("add", "dot_general", "logistic", "mul", "neg", "sub", "tanh")
_BOOKKEEPING = ("broadcast_in_dim", "concatenate", "reshape", "slice", "split", "squeeze")

_BATCH_AND_TIME = (1, 0, 2)

_STEPS = 4
"""How many steps of the loop are compared; each starts from the state that the loop itself arrived at."""

_TOLERANCE = 5e-5
"""Largest difference of two states, which lie from -1 to 1: some hundred roundings of float32."""


@dataclass(frozen=True, eq=False)
class _Product:
    """A product with a constant matrix, and the sum of the constants `(o,)` that are added to it."""

    matrix: Constant
    bias: np.ndarray


_Products = tuple[_Product, ...]


@dataclass(frozen=True, eq=False)
class _Loop:
    """A scan that may be a layer of gated recurrent units.

    Attributes:
        operation: the scan.
        sequence: what it runs over, with the batch first.
        width: of the state.
        recurrent: products of the state: one whose outputs are the gates side by side, or one for each gate.
        driving: likewise of the inputs of a step; none where the inputs are the gates themselves.
        added: all constants `(width,)` that the step adds to something.
    """

    operation: Operation
    sequence: Value
    width: int
    recurrent: _Products
    driving: _Products
    added: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class _Cell:
    """Candidate weights of one step, as `Gru` has them, in float64; no input kernel where the loop has none."""

    input_kernel: np.ndarray | None
    recurrent_kernel: np.ndarray
    input_bias: np.ndarray
    candidate_bias: np.ndarray

    def step(self, state: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The next state; see `models.GRULayer` for the equations."""
        width = state.shape[-1]
        driven = (inputs if self.input_kernel is None else inputs @ self.input_kernel) + self.input_bias
        returned = state @ self.recurrent_kernel
        # the logistic function by tanh, which does not overflow
        reset, update = np.split(0.5 + 0.5 * np.tanh(0.5 * (driven + returned)[..., : 2 * width]), 2, axis=-1)
        returned = returned[..., 2 * width :] + self.candidate_bias
        candidate = np.tanh(driven[..., 2 * width :] + reset * returned)
        return (1 - update) * candidate + update * state


def gru(value: Value) -> Gru | None:
    """The layer that makes all states, batch first, of a scan from zeros; None if it is no such scan.

    Finds `models.GRULayer`, whose product with the inputs lies before the loop, and loops around
    `flax.linen.GRUCell`, where all products lie inside.
    """
    loop = _loop(value)
    if loop is None:
        return None
    inputs, before, after = _trial(loop)
    for cell in _cells(loop):
        if np.abs(cell.step(before, inputs) - after).max() < _TOLERANCE:
            return _layer(value, loop, cell)
    return None


def _loop(value: Value) -> _Loop | None:
    """The structure of a scan and its body, if it may be that of gated recurrent units."""
    states = moved(value, _BATCH_AND_TIME)
    scan = states.made_by("scan") if states is not None and states.index == 1 else None
    # one carry, one sequence, and nothing else that depends on the input
    if scan is None or scan.params["reverse"] or compat.scan_counts(scan.eqn) != (len(scan.operands) - 2, 1):
        return None
    match scan.operands:
        case (*constants, Constant() as start, Value() as slices) if len(scan.data) == 1:
            sequence = moved(slices, _BATCH_AND_TIME)
            if sequence is None or np.any(np.asarray(start.array)) or np.ndim(start.array) != 2:
                return None
            return _body(scan, sequence, constants, start)
    return None


def _body(scan: Operation, sequence: Value, constants: Sequence[Any], start: Constant) -> _Loop | None:
    batch, _, features = sequence.shape
    width = start.array.shape[1]
    state = Value(0, tuple(start.array.shape), start.array.dtype)
    inputs = Value(1, (batch, features), sequence.dtype)
    (jaxpr,) = compat.sub_jaxprs(scan.eqn)
    after, out = flatten(jaxpr, [*constants, state, inputs])
    if after is not out or not isinstance(after, Value):
        return None
    values = _inside(after)
    if not all(value.made_by(*_SMOOTH, *_BOOKKEEPING) for value in values):
        return None
    recurrent, driving = (_products(read, values, width) for read in (state, inputs))
    if not recurrent or driving is None or not (driving or features == 3 * width):
        return None
    found = [_sum(value) for value in values]
    added = tuple(each[1] for each in found if each is not None and each[1].shape == (width,))
    return _Loop(scan, sequence, width, recurrent, driving, added)


def _inside(value: Value) -> list[Value]:
    """All values that one rests on, itself first, without the inputs."""
    found: dict[Value, None] = {}
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if value.source is not None and value not in found:
            found[value] = None
            waiting += reversed(value.source.data)
    return list(found)


def _products(read: Value, values: Sequence[Value], width: int) -> _Products | None:
    """The products of one value with constant matrices; None if they cannot be those of three gates."""
    sums = [found for value in values if (found := _sum(value)) is not None]
    parts = []
    for value in values:
        found = product(value)
        if found is not None and found[0] is read:
            biases = [vector for summed, vector in sums if summed is value]
            parts.append(_Product(found[1], sum(biases, np.zeros(value.shape[-1]))))
    widths = [len(part.bias) for part in parts]
    return tuple(parts) if widths in ([], [3 * width], [width] * 3) else None


def _sum(value: Value) -> tuple[Value, np.ndarray] | None:
    """The rows that a constant is added to, and that constant, if a value is their sum."""
    found = value.with_constant("add")
    if found is None or found.read.shape != value.shape:
        return None
    vector = per_channel(found.constant, value.shape)
    return None if vector is None else (found.read, vector)


def _trial(loop: _Loop) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random inputs of some steps, the states before them and after them; the loop starts from random states."""
    batch, steps, features = loop.sequence.shape
    generator = np.random.default_rng(0)
    # small and large inputs, so that the gates are seen both where they are linear and where they saturate
    sizes = np.resize([1.0, 3.0], (steps, 1, 1))
    inputs = (sizes * generator.standard_normal((steps, batch, features))).astype(np.float32)
    start = generator.uniform(-1, 1, (batch, loop.width)).astype(np.float32)
    constants = [operand.array for operand in loop.operation.operands if isinstance(operand, Constant)]
    _, states = compat.bind(loop.operation.eqn, [*constants[:-1], start, inputs])
    states = np.concatenate([start[None], np.asarray(states)]).astype(np.float64)
    return inputs[:_STEPS].astype(np.float64), states[:-1][:_STEPS], states[1:][:_STEPS]


def _cells(loop: _Loop) -> Iterator[_Cell]:
    """All ways to read the loop's constants as weights: the order of the gates, and where the candidate's bias is."""
    gates = 2 * loop.width
    for recurrent in itertools.permutations(loop.recurrent):
        kernel, returned = _side_by_side(recurrent)
        for driving in itertools.permutations(loop.driving):
            input_kernel, bias = _side_by_side(driving) if driving else (None, np.zeros(3 * loop.width))
            bias = bias + np.concatenate([returned[:gates], np.zeros(loop.width)])
            for candidate_bias in (returned[gates:], *loop.added):
                yield _Cell(input_kernel, kernel, bias, candidate_bias)


def _side_by_side(products: Sequence[_Product]) -> tuple[np.ndarray, np.ndarray]:
    """Their matrices and their biases, in float64."""
    matrices = [np.asarray(part.matrix.array, np.float64) for part in products]
    return np.concatenate(matrices, axis=1), np.concatenate([part.bias for part in products])


def _layer(value: Value, loop: _Loop, cell: _Cell) -> Gru | None:
    source, bias, input_kernel = loop.sequence, cell.input_bias, cell.input_kernel
    kernels = [part.matrix for part in loop.driving]
    if input_kernel is None:
        outside = _driven(source)
        if outside is None:
            return None
        source, matrix, outer_bias = outside
        kernels, bias, input_kernel = [matrix], bias + outer_bias, np.asarray(matrix.array)
    return Gru(
        **common(value, source),
        input_kernel=input_kernel.astype(np.float32),
        recurrent_kernel=cell.recurrent_kernel.astype(np.float32),
        input_bias=bias.astype(np.float32),
        candidate_bias=cell.candidate_bias.astype(np.float32),
        leaves=(_leaf(kernels), _leaf([part.matrix for part in loop.recurrent])),
    )


def _driven(value: Value) -> tuple[Value, Constant, np.ndarray] | None:
    """The inputs, the kernel and the bias of the product that a loop runs over."""
    bias = np.zeros(value.shape[-1])
    while (found := _sum(value)) is not None:
        value, bias = found[0], bias + found[1]
    outside = product(value)
    return None if outside is None else (*outside, bias)


def _leaf(matrices: Sequence[Constant]) -> str | None:
    """The parameter that a kernel is; one put together from several is none."""
    leaf = matrices[0].leaf if len(matrices) == 1 else None
    return None if leaf is None else leaf.as_it_stands()
