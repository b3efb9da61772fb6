"""Settings: ranges, budgets, schedules, description."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import optax
import pytest

from modicum.admm import CompressConfig


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"outer": -1}, "outer must be a whole number of at least 0, got -1"),
        ({"inner": 0}, "inner must be a whole number of at least 1, got 0"),
        ({"retrain": True}, "retrain must be a whole number of at least 0, got True"),
        ({"chunk": 0}, "chunk must be a whole number of at least 1, got 0"),
        ({"rho": -3}, "rho must be above 0, got -3"),
        ({"rho": float("nan")}, "rho must be a number above 0, got nan"),
        ({"growth": 0}, "growth must be above 0, got 0"),
        ({"tolerance": -1.0}, "tolerance must not be below 0, got -1.0"),
        ({"refit": -1}, "refit must be a whole number of at least 0, got -1"),
        ({"stop": -0.5}, "stop must not be below 0, got -0.5"),
        ({"form": "split"}, "form must be one of 'prox', 'penalty', got 'split'"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"retrain_learning_rate": "fast"}, "retrain_learning_rate must be a number above 0, got 'fast'"),
        ({"retrain_decay": "linear"}, "retrain_decay must be one of 'cosine', 'constant', got 'linear'"),
        ({"save_seconds": -1}, "save_seconds must not be below 0, got -1"),
        ({"optimizer": "adam"}, "optimizer must be a function from a learning rate to an optimizer, got 'adam'"),
    ],
)
def test_out_of_range(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        CompressConfig(**arguments)


def test_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CompressConfig().rho = 1.0
    with pytest.raises(TypeError):
        CompressConfig(24)


def test_budgets_are_equal():
    config = CompressConfig(outer=7, inner=11, retrain=13)
    control = config.one_shot()
    assert (config.admm_steps, config.total_steps) == (77, 90)
    assert (control.outer, control.retrain, control.total_steps) == (0, 90, 90)
    stopped = config.stopped(3)
    assert (stopped.admm_steps, stopped.retrain, stopped.total_steps) == (33, 57, 90)
    assert config.stopped(7) == config
    pieces = config.pieces()
    assert (pieces.outer, pieces.retrain, pieces.retrain_schedule) == (0, 77, config.learning_rate)


def test_retraining_schedule():
    decayed = CompressConfig(retrain=10, retrain_learning_rate=0.5).retrain_schedule
    assert [float(decayed(step)) for step in (0, 5, 10)] == pytest.approx([0.5, 0.25, 0.0], abs=1e-7)
    assert CompressConfig(retrain_decay="constant", retrain_learning_rate=0.5).retrain_schedule == 0.5
    assert CompressConfig(retrain=0, retrain_learning_rate=0.5).retrain_schedule == 0.5
    schedule = optax.linear_schedule(0.1, 0.0, 3)
    assert CompressConfig(retrain_learning_rate=schedule).retrain_schedule is schedule
    # the control arm decays over its own, longer stage
    longer = CompressConfig(outer=2, inner=5, retrain=10, retrain_learning_rate=0.5).one_shot().retrain_schedule
    assert float(longer(10)) == pytest.approx(0.25)


def test_traced_numbers_pass():
    def budget(rho, growth):
        return CompressConfig(rho=rho, growth=growth).rho * growth

    assert jax.jit(budget)(2.0, 1.5) == 3.0
    concrete = CompressConfig(rho=jnp.float32(2), learning_rate=jnp.float32(0.5)).concrete()
    assert (concrete.rho, concrete.learning_rate) == (2.0, 0.5)
    assert isinstance(concrete.rho, float)
    hash(concrete)


def test_description_is_json_and_tells_functions_apart():
    plain, other = CompressConfig(), CompressConfig(optimizer=functools.partial(optax.adamw, weight_decay=1e-3))
    assert json.loads(json.dumps(plain.describe())) == plain.describe()
    assert plain.describe()["optimizer"].endswith("adam")
    assert "weight_decay=0.001" in other.describe()["optimizer"]
    assert set(plain.describe()) == {field.name for field in dataclasses.fields(plain)}
    assert CompressConfig(rho=jnp.float32(2)).describe()["rho"] == 2.0
