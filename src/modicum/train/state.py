"""What training moves: the state, a pure step, the loss of a classifier, its evaluation."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from modicum.core import Params, check

Metrics = dict[str, Any]
LossFn = Callable[[Params, Any], Any]
"""`(params, batch) -> loss`, or `(loss, metrics)` with a dict of scalars."""

StepFn = Callable[["TrainState", Any], tuple["TrainState", Metrics]]


class TrainState(NamedTuple):
    """All that the next step needs.

    Attributes:
        params: what is trained.
        opt_state: the optimizer's state.
        step: how many steps were made, an int32 scalar.
    """

    params: Params
    opt_state: Any
    step: Array


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step.

    Args:
        params: initial parameters, any pytree of arrays.
        optimizer: what will train them.
    """
    # a weak type would be gone after the first step, and every program be compiled anew for what is left
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype) if hasattr(leaf, "dtype") else leaf, params)
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def make_train_step(loss_fn: LossFn, optimizer: optax.GradientTransformation, *, has_aux: bool = False) -> StepFn:
    """A pure step: gradient, update, metrics.

    Args:
        loss_fn: `(params, batch) -> loss`; with `has_aux`, `(loss, metrics)`.
        optimizer: an optax transformation.
        has_aux: whether `loss_fn` returns metrics beside the loss.

    Returns:
        `step(state, batch) -> (state, metrics)`; metrics are `loss`, those of `loss_fn`, and `gradient_norm`.

    Example:
        >>> step = make_train_step(lambda params, batch: (params - batch) ** 2, optax.sgd(0.5))
        >>> state, metrics = step(init_state(jnp.array(3.0), optax.sgd(0.5)), 1.0)
        >>> float(state.params), int(state.step), float(metrics["loss"])
        (1.0, 1, 4.0)
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        (loss, aux), gradient = jax.value_and_grad(
            lambda params: loss_fn(params, batch) if has_aux else (loss_fn(params, batch), {}), has_aux=True
        )(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, **aux, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(params, opt_state, state.step + 1), metrics

    return step


def cross_entropy(logits: Float[Array, " classes"], label: Int[Array, ""]) -> Float[Array, ""]:
    """Cross-entropy of one example, `logsumexp(logits) - logits[label]`, in nats.

    Args:
        logits: one number per class.
        label: the right class, from 0.
    """
    return jax.nn.logsumexp(logits) - logits[label]


def classification_loss(apply_fn: Callable[[Params, Any], Any]) -> LossFn:
    """Mean cross-entropy and accuracy over a batch, for `make_train_step(..., has_aux=True)`.

    Args:
        apply_fn: `(params, inputs) -> logits` of shape (batch, classes).

    Returns:
        `(params, (inputs, labels)) -> (loss, {"accuracy": ...})`.
    """

    def loss_fn(params: Params, batch: Any) -> tuple[Array, Metrics]:
        inputs, labels = batch
        logits = apply_fn(params, inputs)
        return jax.vmap(cross_entropy)(logits, labels).mean(), {"accuracy": (logits.argmax(-1) == labels).mean()}

    return loss_fn


@functools.partial(jax.jit, static_argnames="apply_fn")
def _score(apply_fn: Callable[..., Any], params: Params, inputs: Array, labels: Array) -> tuple[Array, Array]:
    logits = apply_fn(params, inputs)
    return jax.vmap(cross_entropy)(logits, labels), logits.argmax(-1) == labels


def evaluate(
    apply_fn: Callable[[Params, Any], Any], params: Params, inputs: Any, labels: Any, *, batch: int = 500
) -> dict[str, float]:
    """Loss and accuracy over a whole split, in batches of one size, so that one program does.

    Args:
        apply_fn: `(params, inputs) -> logits`; pass the same object again and nothing is compiled twice.
        params: its parameters.
        inputs: host or device array, examples first.
        labels: int array of classes.
        batch: examples in one dispatch, at least 1.

    Returns:
        `loss` (mean, in nats), `accuracy` (share from 0 to 1), `correct` and `examples` (counts).

    Raises:
        ValueError: if there is no example, or not one label for each.
    """
    check.integer(1, batch=batch)
    size = len(inputs)
    if not size or len(labels) != size:
        raise ValueError(f"labels must be one for each of at least 1 inputs, got {len(labels)} for {size}")
    batch = min(batch, size)
    loss, correct = 0.0, 0
    for start in range(0, size, batch):
        # the last batch is filled up with the first examples, which are then not counted
        chosen = np.arange(start, start + batch) % size
        count = min(batch, size - start)
        losses, hits = _score(apply_fn, params, inputs[chosen], labels[chosen])
        loss += float(np.asarray(losses)[:count].sum(dtype=np.float64))
        correct += int(np.asarray(hits)[:count].sum())
    return {"loss": loss / size, "accuracy": correct / size, "correct": correct, "examples": size}
