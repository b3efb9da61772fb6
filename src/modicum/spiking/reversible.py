"""Backpropagation through any loop whose step has an inverse, in memory that does not grow with its length."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from modicum.core import Params
from modicum.spiking import cotangents
from modicum.spiking.apart import apart

Step = Callable[[Params, Any, Any], tuple[Any, Any]]
Inverse = Callable[[Params, Any, Any, Any], Any]
Backward = Callable[[Params, Any, Any, Any], tuple[Params, Any, Any]]


@dataclass(frozen=True)
class _Loop:
    step: Step
    inverse: Inverse
    backward: Backward | None


def reversible(
    step: Step, inverse: Inverse | None, backward: Backward | None = None
) -> Callable[[Params, Any, Any], tuple[Any, Any]]:
    """Runs a step over time; between the forward and the backward pass nothing is kept but the last state.

    The backward pass starts from the last state and runs `inverse` step by step. With `backward`, written by hand,
    that sweep is all there is (**streamlined**): `inverse` hands over what it met on its way, and no step runs forward
    again. Without, each step is run forward once more and differentiated by JAX (**standard**), as in RevNet.

    `step` may be any JAX function: a network on a noisy chip is `reversible(core.rewrite(step, rule),
    core.rewrite(inverse, rule))`, in this order, since a custom derivative cannot be rewritten afterwards.

    Args:
        step: `(params, state, input) -> (state, output)`, pure.
        inverse: `(params, state_after, input, output) -> state_before`, exact; with `backward`,
            `-> (state_before, saved)`. An inverse that does not look at the outputs costs no memory for them.
        backward: `(params, saved, state_cotangent, output_cotangent) -> (params_cotangent, state_cotangent,
            input_cotangent)`: the step's vector-Jacobian product.

    Returns:
        `run(params, state, inputs) -> (state, outputs)`, with a leading axis of steps in inputs and outputs.

    Raises:
        ValueError: if there is no inverse.

    Example:
        >>> step = lambda w, state, x: (state + w * x, state)
        >>> run = reversible(step, lambda w, state, x, y: state - w * x)
        >>> jax.grad(lambda w: run(w, jnp.array(0.0), jnp.array([1.0, 2.0, 4.0]))[0])(jnp.array(0.5))
        Array(7., dtype=float32, weak_type=True)

    Reference:
        Gomez et al., "The reversible residual network", NeurIPS 2017 (standard); Lei et al., arXiv 2308.08649
        (streamlined).
    """
    if inverse is None:
        raise ValueError(
            "inverse must be a function, got None: a step without an exact inverse is for jax.checkpoint, "
            "or for multi_step with residuals='packed' or 'sqrt'"
        )
    return functools.partial(_run, _Loop(step, inverse, backward))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(loop: _Loop, params: Params, state: Any, inputs: Any) -> tuple[Any, Any]:
    return jax.lax.scan(functools.partial(loop.step, params), state, inputs)


def _fwd(loop: _Loop, params: Params, state: Any, inputs: Any) -> tuple[Any, Any]:
    state, outputs = _run(loop, params, state, inputs)
    return (state, outputs), (params, inputs, state, outputs)


def _bwd(loop: _Loop, kept: Any, given: Any) -> tuple[Any, Any, Any]:
    params, inputs, state, outputs = kept
    state_cotangent, outputs_cotangent = given

    def body(carry: Any, slice_: Any) -> tuple[Any, Any]:
        state, state_cotangent, total = carry
        number, input_, output, output_cotangent = slice_
        part, state, state_cotangent, input_cotangent = _back(
            loop, number, params, state, input_, output, state_cotangent, output_cotangent
        )
        return (state, state_cotangent, cotangents.added(total, part)), input_cotangent

    start = (state, state_cotangent, cotangents.zeros(params))
    slices = (jnp.arange(len(jax.tree.leaves(inputs)[0])), inputs, outputs, outputs_cotangent)
    (_, state_cotangent, total), inputs_cotangent = jax.lax.scan(body, start, slices, reverse=True)
    return cotangents.complete(total, params), state_cotangent, inputs_cotangent


def _back(
    loop: _Loop,
    number: Any,
    params: Params,
    state: Any,
    input_: Any,
    output: Any,
    state_cotangent: Any,
    output_cotangent: Any,
) -> tuple[Any, Any, Any, Any]:
    if loop.backward is not None:
        state, saved = loop.inverse(params, state, input_, output)
        part, state_cotangent, input_cotangent = loop.backward(params, saved, state_cotangent, output_cotangent)
        return part, state, state_cotangent, input_cotangent
    state = apart(number, loop.inverse, params, state, input_, output)
    _, pull = jax.vjp(loop.step, params, state, input_)
    part, state_cotangent, input_cotangent = pull((state_cotangent, output_cotangent))
    return part, state, state_cotangent, input_cotangent


_run.defvjp(_fwd, _bwd)
