"""What batch normalization asks of a model beside `init` and `apply`: training mode, and exact statistics."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from modicum.core import Params


def conv_norm(training: bool, x: Array, width: int, kernel: int, stride: int = 1, *, groups: int = 1) -> Array:
    """A convolution without bias that keeps the size (over `stride`), and batch normalization.

    Call it from within a `nn.compact` method. `momentum=0` makes an update of the statistics the batch's own moments,
    which is what `calibrate` reads.

    Args:
        training: whether to normalize by the batch's own statistics.
        x: images, channels last.
        width: output channels.
        kernel: odd side of the kernel.
        stride: of both axes.
        groups: groups of channels that do not mix.
    """
    margin = kernel // 2
    x = nn.Conv(
        width,
        (kernel, kernel),
        strides=stride,
        # the same on both sides, as the published networks have it; "SAME" is lopsided where it strides
        padding=((margin, margin), (margin, margin)),
        use_bias=False,
        feature_group_count=groups,
    )(x)
    return nn.BatchNorm(use_running_average=not training, momentum=0.0)(x)


@functools.lru_cache(maxsize=64)
def apply_training(model: nn.Module) -> Callable[[Params, Any], Any]:
    """`(variables, inputs) -> logits` as in training: batch normalization uses the batch's own statistics.

    The stored statistics are neither read nor written, so that their gradient is 0: `variables` as a whole can be
    what an optimizer trains. A model whose `__call__` takes no `training` has one mode only, and that is returned.

    Args:
        model: any flax.linen module; equal modules give the same function.
    """
    if "training" not in inspect.signature(type(model).__call__).parameters:
        return model.apply

    def apply_fn(variables: Params, inputs: Any) -> Any:
        return model.apply(variables, inputs, training=True, mutable=["batch_stats"])[0]

    return apply_fn


@functools.lru_cache(maxsize=64)
def _statistics(model: nn.Module) -> Callable[[Params, Any], Params]:
    """`(variables, inputs) -> batch_stats`: the moments of one batch."""
    return lambda variables, inputs: model.apply(variables, inputs, training=True, mutable=["batch_stats"])[1][
        "batch_stats"
    ]


@functools.partial(jax.jit, static_argnames="statistics")
def _merged(statistics: Callable[..., Any], variables: Params, inputs: Array, stats: Params, seen: Array) -> Params:
    """Mean and variance over `seen` batches and this one."""
    update = statistics(variables, inputs)
    share = 1 / (seen + 1)

    def merge(old: Any, new: Any) -> Any:
        if "mean" not in old:
            return {name: merge(old[name], new[name]) for name in old}
        # mean of (var + mean^2) - mean^2, without the cancellation of large means
        shift = new["mean"] - old["mean"]
        spread = share * (1 - share) * shift**2
        return {
            "mean": old["mean"] + share * shift,
            "var": old["var"] + share * (new["var"] - old["var"]) + spread,
        }

    return merge(stats, update)


def calibrate(
    model: nn.Module,
    variables: Params,
    batches: Iterable[Any],
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> Params:
    """Variables whose batch statistics are the exact mean and variance over some batches ("precise batch norm").

    Each batch passes in training mode; of each layer's inputs, the mean is that of the batches' means and the variance
    the mean of `var + mean^2` less that mean squared, each batch counting alike.

    Args:
        model: the model; one without batch normalization gets its variables back.
        variables: `{"params": ..., "batch_stats": ...}`.
        batches: inputs of one size, at least one batch.
        wrap: what makes another function of `(variables, inputs) -> batch_stats`: that of a network on a chip, whose
            layers have moments of their own.

    Returns:
        The variables with new `batch_stats`, to be evaluated with `model.apply`.

    Raises:
        ValueError: if there is no batch.

    Reference:
        Wu and Johnson, "Rethinking 'batch' in batch normalization", 2021, section 3: "precise BN".
    """
    if "batch_stats" not in variables:
        return variables
    stats, seen = variables["batch_stats"], 0
    statistics = _statistics(model) if wrap is None else wrap(_statistics(model))
    stats = jax.tree.map(jnp.zeros_like, stats)
    for inputs in batches:
        stats = _merged(statistics, variables, inputs, stats, jnp.float32(seen))
        seen += 1
    if not seen:
        raise ValueError("batches must hold at least one batch of inputs, got none")
    return {**variables, "batch_stats": stats}
