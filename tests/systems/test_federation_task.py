"""Models in block-Hankel form, and text as windows of frequent words."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.core import leaves_by_path
from modicum.federated import partition
from modicum.models import LSTMLanguageModel
from modicum.systems import federation_task
from modicum.systems.federation_config import FederatedConfig
from modicum.train import DataConfig


def test_short_form(key):
    params = {
        "kernel": jax.random.normal(key, (64, 96)),
        "bias": jax.random.normal(key, (96,)),
        "thin": jnp.ones((3, 9)),
    }
    shapes = {name: leaf.shape for name, leaf in leaves_by_path(params).items()}
    short = federation_task.short(16, params)
    assert short["kernel"].shape == (4, 6, 31)
    np.testing.assert_array_equal(short["bias"], params["bias"])
    np.testing.assert_array_equal(short["thin"], params["thin"])
    # as spread as the dense weights were, so that a network starts alike
    assert np.std(short["kernel"]) == pytest.approx(1, abs=0.1)
    dense = federation_task.built(16, shapes, short)
    assert dense["kernel"].shape == (64, 96)
    block = np.asarray(dense["kernel"])[16:32, 32:48]
    for row in range(16):
        for column in range(16):
            assert block[row, column] == short["kernel"][1, 2, row + column]
    same = federation_task.built(0, shapes, federation_task.short(0, params))
    np.testing.assert_array_equal(same["kernel"], params["kernel"])


def test_frequent_words_and_windows():
    words = np.array([7, 7, 7, 3, 3, 9, 1, 1, 1, 1])
    known = federation_task.frequent(words, 3)
    assert known[words].tolist() == [2, 2, 2, 0, 0, 0, 1, 1, 1, 1]
    inputs, labels = federation_task.windows(np.arange(10), 4)
    assert inputs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert labels.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_text(data_root, key):
    config = FederatedConfig(
        data=DataConfig(name="wikitext-2", test="valid"),
        model=LSTMLanguageModel(words=30, features=8),
        hankel=4,
        split="shards",
        clients=3,
        path="sefl",
    )
    task = federation_task.task_of(config, key, data_root)
    assert task.training[0].shape[1] == 32
    assert 0.3 < task.unknown < 0.7
    batch = tuple(jnp.asarray(part[:4]) for part in task.training)
    loss, _ = task.loss_fn(task.params, batch)
    assert float(loss) == pytest.approx(math.log(30), abs=0.3)
    split = federation_task.split_of(config, task.training[1])
    # two stretches each, of words that follow each other
    assert all((np.diff(share) > 1).sum() <= 1 for share in split)
    assert len(np.unique(np.concatenate(split))) == sum(share.size for share in split)
    assert isinstance(split, tuple)
    assert partition.iid(0, 10, 2)[0].size == 5


def test_what_does_not_fit(data_root, key):
    with pytest.raises(ValueError, match="model must be a language model for data 'wikitext-2', got LeNet5"):
        federation_task.task_of(FederatedConfig(data=DataConfig(name="wikitext-2", test="valid")), key, data_root)
    with pytest.raises(ValueError, match="hankel must be 0 or at least 2, got 1"):
        FederatedConfig(hankel=1)
