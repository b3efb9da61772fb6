"""Blocks that are reversible in depth: networks as deep as one likes in the memory of one block."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from modicum.core import Params, check
from modicum.spiking.apart import apart

Branch = Callable[[Params, Array], Array]
BACKWARDS = ("streamlined", "standard", "autodiff")


class Streams(NamedTuple):
    """The two halves that flow through coupled blocks, of one shape.

    Attributes:
        first: what `f` changes.
        second: what `g` changes.
    """

    first: Array
    second: Array


@dataclass(frozen=True)
class _Stack:
    f: Branch
    g: Branch


def coupled(f: Branch, g: Branch, params: tuple[Params, Params], streams: Streams) -> Streams:
    """One block: `a <- a + f(b)`, `b <- b + g(a)`.

    Its inverse is `b <- b - g(a)`, `a <- a - f(b)`, exact where sums are: on a grid of multiples of `2**-k`, while all
    stays below `2**(24 - k)`. Whole spikes through weights of `dyadic` make such sums; free float32 weights do not,
    and after some tens of blocks a rounded potential fires where it did not.

    Args:
        f: `(params, b) -> change of a`, any pure function that keeps the shape.
        g: likewise, with its own parameters.
        params: of `f` and of `g`.
        streams: `a` and `b`.

    Reference:
        Gomez et al., "The reversible residual network", NeurIPS 2017, equations 6-7; with spikes: Zhang et al.,
        "Memory-efficient reversible spiking neural networks", AAAI 2024.
    """
    first = streams.first + f(params[0], streams.second)
    return Streams(first, streams.second + g(params[1], first))


def uncoupled(f: Branch, g: Branch, params: tuple[Params, Params], streams: Streams) -> Streams:
    """The inverse of `coupled`; arguments as there."""
    second = streams.second - g(params[1], streams.first)
    return Streams(streams.first - f(params[0], second), second)


def reversible_sequence(
    f: Branch, g: Branch, params: tuple[Params, Params], streams: Streams, *, backward: str = "streamlined"
) -> Streams:
    """Coupled blocks one after the other; the backward pass keeps the last streams and nothing else.

    Args:
        f: first branch of every block.
        g: second branch.
        params: of `f` and of `g`, each leaf with a leading axis of blocks.
        streams: what goes into the first block.
        backward: "streamlined": what the inverse computes is also what is differentiated, each branch runs once;
            "standard": invert, then run forward again with a tape; "autodiff": JAX keeps everything.

    Returns:
        What comes out of the last block.

    Raises:
        ValueError: if there is no block, the leaves disagree about their number, a branch changes the shape, or
            `backward` is no such mode.
    """
    check.one_of(BACKWARDS, backward=backward)
    lengths = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves(params)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"params must have leaves with a leading axis of at least 1 block, got lengths {lengths}")
    _check_branches(f, g, params, streams)
    stack = _Stack(f, g)
    if backward == "autodiff":
        return _through(stack, params, streams)
    run = _streamlined if backward == "streamlined" else _standard
    return run(stack, params, streams)


def _check_branches(f: Branch, g: Branch, params: tuple[Params, Params], streams: Streams) -> None:
    if streams.first.shape != streams.second.shape:
        raise ValueError(f"streams must have one shape, got {streams.first.shape} and {streams.second.shape}")
    for name, branch, own in (("f", f, params[0]), ("g", g, params[1])):
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), own)
        out = jax.eval_shape(branch, one, streams.first)
        if (out.shape, out.dtype) != (streams.first.shape, streams.first.dtype):
            raise ValueError(
                f"{name} must keep shape {streams.first.shape} and dtype {streams.first.dtype}, "
                f"got {out.shape} and {out.dtype}"
            )


def _through(stack: _Stack, params: Any, streams: Streams) -> Streams:
    def body(streams: Streams, own: Any) -> tuple[Streams, None]:
        return coupled(stack.f, stack.g, own, streams), None

    return jax.lax.scan(body, streams, params)[0]


_streamlined = jax.custom_vjp(_through, nondiff_argnums=(0,))
_standard = jax.custom_vjp(_through, nondiff_argnums=(0,))


def _fwd(stack: _Stack, params: Any, streams: Streams) -> tuple[Streams, Any]:
    streams = _through(stack, params, streams)
    return streams, (params, streams)


def _streamlined_back(number: Any, stack: _Stack, params: Any, streams: Streams, cotangent: Streams) -> Any:
    del number
    change, pull = jax.vjp(stack.g, params[1], streams.first)
    second = streams.second - change
    g_part, to_first = pull(cotangent.second)
    first_cotangent = cotangent.first + to_first
    change, pull = jax.vjp(stack.f, params[0], second)
    f_part, to_second = pull(first_cotangent)
    before = Streams(streams.first - change, second)
    return before, Streams(first_cotangent, cotangent.second + to_second), (f_part, g_part)


def _standard_back(number: Any, stack: _Stack, params: Any, streams: Streams, cotangent: Streams) -> Any:
    before = apart(number, functools.partial(uncoupled, stack.f, stack.g), params, streams)
    _, pull = jax.vjp(functools.partial(coupled, stack.f, stack.g), params, before)
    part, cotangent = pull(cotangent)
    return before, cotangent, part


def _backward_pass(step: Callable[..., Any], stack: _Stack, kept: Any, cotangent: Streams) -> tuple[Any, Streams]:
    params, streams = kept

    def body(carry: Any, slice_: Any) -> tuple[Any, Any]:
        number, own = slice_
        streams, cotangent, part = step(number, stack, own, *carry)
        return (streams, cotangent), part

    slices = (jnp.arange(len(jax.tree.leaves(params)[0])), params)
    (_, cotangent), parts = jax.lax.scan(body, (streams, cotangent), slices, reverse=True)
    return parts, cotangent


_streamlined.defvjp(_fwd, functools.partial(_backward_pass, _streamlined_back))
_standard.defvjp(_fwd, functools.partial(_backward_pass, _standard_back))
