"""From any JAX function to the graph of its layers."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from modicum.core import Params, compat, leaves_by_path
from modicum.mobile.graph.gru import gru
from modicum.mobile.graph.layers import Graph, Gru, Layer, Other
from modicum.mobile.graph.operations import Constant, Leaf, Operand, Value, flatten
from modicum.mobile.graph.patterns import Layers
from modicum.mobile.graph.recognize import layers


def trace(fun: Callable[..., Any], params: Params, example: Any) -> Graph:
    """The layers of `fun(params, x)`, one for each operation or known group of operations.

    Calls and custom derivatives are looked through; what does not depend on `x` is computed. What no layer of
    `mobile.graph` stands for becomes an `Other`, which JAX evaluates. Layers whose weight is a parameter as it stands
    bear its path as their name (`#1`, `#2` where it comes again), others `<operator>_<number>`.

    Args:
        fun: any JAX function of the parameters and one array.
        params: a pytree of arrays.
        example: shape and dtype of `x`, float32 with the batch first (an array or `jax.ShapeDtypeStruct`).

    Returns:
        A graph that computes what `fun` does, to float32's rounding; for inputs of the example's shape alone.

    Raises:
        ValueError: if `example` or what `fun` returns is anything else than one float32 array, or if the latter does
            not depend on `x`.

    Example:
        >>> graph = trace(lambda p, x: jax.nn.relu(x @ p["w"]), {"w": jnp.ones((3, 2))}, jnp.ones((5, 3)))
        >>> [(type(layer).__name__, layer.name, layer.shape) for layer in graph.layers]
        [('Dense', 'w', (5, 2)), ('Affine', 'affine_1', (5, 2))]
    """
    if not _is_float32(example):
        raise ValueError(f"example must be one float32 array, got {_described(example)}")
    closed, returned = jax.make_jaxpr(fun, return_shape=True)(params, example)
    if not _is_float32(returned):
        raise ValueError(f"fun must return one float32 array, got {_described(returned)}")
    source = Value(0, tuple(example.shape), example.dtype)
    parts = compat.program(closed)
    with jax.ensure_compile_time_eval():
        (output,) = flatten(closed, [*_parameters(params, parts.invars), source])
        if not isinstance(output, Value):
            raise ValueError("fun must return an array that depends on its input, got a constant")
        made = _named(_made(output))
    return Graph(source.name, source.shape, output.name, made)


def _is_float32(array: Any) -> bool:
    return hasattr(array, "shape") and getattr(array, "dtype", None) == jnp.float32


def _described(tree: Any) -> str:
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return f"shape {tuple(tree.shape)} and dtype {tree.dtype}"
    return f"a {type(tree).__name__} with {len(jax.tree.leaves(tree))} leaves"


def _parameters(params: Params, invars: Sequence[Any]) -> list[Operand]:
    operands: list[Operand] = []
    # the last input is x
    for (path, leaf), var in zip(leaves_by_path(params).items(), invars[:-1], strict=True):
        # numbers and float64 arrays become what tracing made of them
        array = leaf if getattr(leaf, "dtype", None) == var.aval.dtype else jnp.asarray(leaf, var.aval.dtype)
        operands.append(Constant(array, Leaf(path, tuple(array.shape))))
    return operands


def _made(output: Value) -> list[Layer]:
    """All layers that a value rests on, in the program's order; what a pattern took in and none else reads is not."""
    values = _values(output)
    made: dict[int, Layers] = {}
    waiting = [output]
    while waiting:
        value = waiting.pop()
        if value.source is None or value.number in made:
            continue
        recurrent = gru(value)
        made[value.number] = layers(value) if recurrent is None else (recurrent,)
        # names that are no value's lie between the layers of one pattern
        waiting += [values[name] for layer in made[value.number] for name in layer.inputs if name in values]
    return [layer for number in sorted(made) for layer in made[number]]


def _values(output: Value) -> dict[str, Value]:
    """All values that one rests on, by name."""
    found: dict[str, Value] = {}
    waiting = [output]
    while waiting:
        value = waiting.pop()
        if value.name not in found:
            found[value.name] = value
            waiting += value.source.data if value.source is not None else ()
    return found


def _named(made: Sequence[Layer]) -> tuple[Layer, ...]:
    taken: set[str] = set()
    named = []
    for layer in made:
        name = next(name for name in _names(layer) if name not in taken)
        taken.add(name)
        named.append(replace(layer, name=name))
    return tuple(named)


def _names(layer: Layer) -> Iterator[str]:
    """The names that a layer may bear, best first."""
    path = layer.leaves[0] if isinstance(layer, Gru) else getattr(layer, "leaf", None)
    if path is not None:
        yield path
        yield from (f"{path}#{number}" for number in itertools.count(1))
    operator = layer.operator if isinstance(layer, Other) else type(layer).__name__.lower()
    yield from (f"{operator}_{number}" for number in itertools.count(1))
