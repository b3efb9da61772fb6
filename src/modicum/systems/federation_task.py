"""What a federated run learns: data as examples, a model in the form it is trained and sent in, its loss and score."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from modicum import train
from modicum.constraints.hankel import hankel_numbers, hankel_weight
from modicum.core import Key, Params, leaves_by_path, map_by_path
from modicum.federated import partition
from modicum.federated.partition import Split
from modicum.systems.federation_config import FederatedConfig

TEXT = "wikitext-2"


@dataclass(frozen=True)
class Task:
    """Data, model and loss of a run.

    Attributes:
        training: inputs and labels, examples first.
        held_out: likewise.
        params: initial parameters, in the form that is sent.
        loss_fn: `(params, batch) -> (loss, metrics)`.
        score: `params -> numbers` on the held-out split.
        unknown: share of the held-out words that the vocabulary has not, for text.
    """

    training: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]
    params: Params
    loss_fn: Callable[[Params, Any], tuple[Array, dict[str, Array]]]
    score: Callable[[Params], dict[str, float]]
    unknown: float = 0.0


def task_of(config: FederatedConfig, key: Key, root: str | Path | None = None) -> Task:
    """The task of a run.

    Args:
        config: the run.
        key: of the initial parameters.
        root: folder of data.

    Raises:
        ValueError: where data, model and config do not fit.
    """
    splits = [train.load_split(config.data, split, root) for split in (config.data.train, config.data.test)]
    unknown = 0.0
    if config.data.name == TEXT:
        vocabulary = int(getattr(config.model, "words", 0))
        if vocabulary < 2:
            raise ValueError(f"model must be a language model for data {TEXT!r}, got {type(config.model).__name__}")
        known = frequent(splits[0].inputs, vocabulary)
        training, held_out = (windows(known[split.inputs], config.window) for split in splits)
        unknown = float((known[splits[1].inputs] == 0).mean())
    else:
        training, held_out = splits[0].arrays, splits[1].arrays
    dense = jax.jit(config.model.init)(key, jnp.asarray(training[0][:2]))
    shapes = {name: leaf.shape for name, leaf in leaves_by_path(dense).items()}
    build = functools.partial(built, config.hankel, shapes)

    model_fn: Callable[..., Any] = config.model.apply

    def apply(params: Params, inputs: Array) -> Array:
        return model_fn(build(params), inputs)

    if config.data.name == TEXT:
        return Task(
            training, held_out, short(config.hankel, dense), _word_loss(apply), _perplexity(apply, held_out), unknown
        )
    return Task(
        training, held_out, short(config.hankel, dense), train.classification_loss(apply), _accuracy(apply, held_out)
    )


def frequent(words: np.ndarray, size: int) -> np.ndarray:
    """The new number of each word: the most frequent ones of the training text from 1 on, all others 0.

    Args:
        words: the training text.
        size: of the new vocabulary.
    """
    counts = np.bincount(words)
    order = np.argsort(-counts, kind="stable")[: size - 1]
    known = np.zeros(max(len(counts), 40_000), np.int32)
    known[order] = np.arange(1, len(order) + 1)
    return known


def windows(words: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Stretches of so many words that follow each other, and the word after each word."""
    count = (len(words) - 1) // length
    inputs, labels = (part[: count * length].reshape(count, length) for part in (words[:-1], words[1:]))
    return inputs, labels


def takes(side: int, shape: tuple[int, ...]) -> bool:
    """Whether a weight of that shape is put into Hankel blocks."""
    return side > 0 and len(shape) == 2 and min(shape) >= side


def short(side: int, params: Params) -> Params:
    """Parameters in the form that is trained and sent: Hankel numbers with the spread of the dense weights.

    The mean of `c` independent entries has a `sqrt(c)` times smaller spread, which would start the network too flat.
    """

    def one(path: str, leaf: Array) -> Array:
        del path
        if not takes(side, leaf.shape):
            return leaf
        places = np.arange(2 * side - 1)
        count = np.minimum(places + 1, 2 * side - 1 - places)
        return hankel_numbers(leaf, side) * jnp.sqrt(jnp.asarray(count, jnp.float32))[None, None]

    return map_by_path(one, params)


def built(side: int, shapes: dict[str, tuple[int, ...]], params: Params) -> Params:
    """The dense parameters of the form that is sent."""

    def one(path: str, leaf: Array) -> Array:
        shape = shapes[path]
        return hankel_weight(leaf, (shape[0], shape[1])) if takes(side, shape) else leaf

    return map_by_path(one, params)


def _word_loss(apply: Callable[[Params, Array], Array]) -> Callable[..., Any]:
    def loss_fn(params: Params, batch: Any) -> tuple[Array, dict[str, Array]]:
        inputs, labels = batch
        return jax.vmap(jax.vmap(train.cross_entropy))(apply(params, inputs), labels).mean(), {}

    return loss_fn


def _perplexity(
    apply: Callable[[Params, Array], Array], held_out: tuple[np.ndarray, np.ndarray], batch: int = 50
) -> Callable[[Params], dict[str, float]]:
    loss_fn = jax.jit(_word_loss(apply))

    def score(params: Params) -> dict[str, float]:
        whole = len(held_out[0]) // batch
        losses = [
            float(loss_fn(params, tuple(jnp.asarray(part[at * batch : (at + 1) * batch]) for part in held_out))[0])
            for at in range(whole)
        ]
        loss = sum(losses) / whole
        return {"test_loss": loss, "test_perplexity": math.exp(min(loss, 50.0))}

    return score


def _accuracy(
    apply: Callable[[Params, Array], Float[Array, " b classes"]], held_out: tuple[np.ndarray, np.ndarray]
) -> Callable[[Params], dict[str, float]]:
    def score(params: Params) -> dict[str, float]:
        found = train.evaluate(apply, params, *held_out)
        return {"test_accuracy": found["accuracy"], "test_loss": found["loss"]}

    return score


def split_of(config: FederatedConfig, labels: np.ndarray) -> Split:
    """Who holds which examples; of text, the place in it stands for the class."""
    if config.split == "iid":
        return partition.iid(config.seed, len(labels), config.clients)
    if labels.ndim > 1:
        if config.split != "shards":
            raise ValueError(f"split of text must be 'iid' or 'shards', got {config.split!r}")
        labels = np.arange(len(labels))
    if config.split == "shards":
        return partition.shards(config.seed, labels, config.clients, config.shards)
    return partition.dirichlet(config.seed, labels, config.clients, config.concentration, config.batch)
