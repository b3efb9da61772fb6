"""Overrides: typed, checked, and refused with a suggestion; optimizers built as they say; config files."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum.models import GRUClassifier, SmallConvNet
from modicum.train import DataConfig, Experiment, OptimizerConfig, describe, flatten, load_config, parse_overrides


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    flag: bool = False
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    steps: int = 3
    name: str = "a"
    widths: tuple[int, ...] = (1, 2)
    shares: tuple[float, ...] = ()


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("steps=7", "steps", 7),
        ("steps=-7", "steps", -7),
        ("name=b=c", "name", "b=c"),
        ("name=", "name", ""),
        ("name=12", "name", "12"),
        ("widths=8,16", "widths", (8, 16)),
        ("widths=(8, 16)", "widths", (8, 16)),
        ("widths=[8]", "widths", (8,)),
        ("widths=8", "widths", (8,)),
        ("widths=()", "widths", ()),
        ("shares=1,0.5", "shares", (1.0, 0.5)),
        ("inner.rate=1e-3", "inner.rate", 1e-3),
        ("inner.rate=2", "inner.rate", 2.0),
        ("inner.rate=inf", "inner.rate", float("inf")),
        ("inner.flag=true", "inner.flag", True),
        ("inner.flag=False", "inner.flag", False),
        ("inner.limit=4", "inner.limit", 4),
        ("inner.limit=none", "inner.limit", None),
    ],
)
def test_values(override, name, value):
    config = Outer()
    flat = flatten(parse_overrides(config, [override]))
    assert flat[name] == value
    assert type(flat[name]) is type(value)
    assert {k: v for k, v in flat.items() if k != name} == {k: v for k, v in flatten(config).items() if k != name}
    assert config == Outer()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("step=7", "override must name a setting, got 'step': did you mean 'steps'?"),
        ("inner.rat=7", "override must name a setting, got 'inner.rat': did you mean 'inner.rate'?"),
        ("rate=7", "override must name a setting, got 'rate': did you mean 'inner.rate'?"),
        (
            "zzzz=7",
            "override must name a setting, got 'zzzz': there are inner.rate, inner.flag, inner.limit, steps, name, "
            "widths, shares",
        ),
        ("inner=7", "override must name a setting, got 'inner': there are inner.rate, inner.flag, inner.limit"),
        ("steps", "override must be written name=value, got 'steps'"),
        ("steps=1.5", "steps must be a whole number, got '1.5'"),
        ("steps=true", "steps must be a whole number, got 'true'"),
        ("steps=", "steps must be a whole number, got ''"),
        ("steps=__import__('os')", "steps must be a whole number, got \"__import__('os')\""),
        ("inner.rate=fast", "inner.rate must be a number, got 'fast'"),
        ("inner.rate=none", "inner.rate must be a number, got 'none'"),
        ("inner.flag=1", "inner.flag must be true or false, got '1'"),
        ("inner.limit=x", "inner.limit must be a whole number, got 'x'"),
        ("widths=8,a", "widths must be a tuple of whole numbers, such as 16,32, got '8,a'"),
        ("widths=8,1.5", "widths must be a tuple of whole numbers, such as 16,32, got '8,1.5'"),
    ],
)
def test_refusals(override, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared below
        parse_overrides(Outer(), [override])
    assert str(error.value) == message


@given(st.floats(allow_nan=False), st.integers())
def test_any_number_survives(rate, steps):
    config = parse_overrides(Outer(), [f"inner.rate={rate}", f"steps={steps}"])
    assert (config.inner.rate, config.steps) == (rate, steps)


def test_the_last_override_wins_and_models_are_settings():
    config = parse_overrides(Experiment(), ["epochs=3", "model.widths=4,8", "epochs=5", "steps=9", "data.speaker=theo"])
    assert (config.epochs, config.steps, config.data.speaker) == (5, 9, "theo")
    assert config.model == SmallConvNet(widths=(4, 8))
    assert parse_overrides(Experiment(model=GRUClassifier()), ["model.features=9"]).model.features == (9,)
    assert parse_overrides(Experiment(), ["data.bin_milliseconds=5"]).data == DataConfig(bin_milliseconds=5)
    with pytest.raises(ValueError, match=r"got 'model.name': did you mean"):
        parse_overrides(Experiment(), ["model.name=x"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rate=0", "learning_rate must be above 0, got 0.0"),
        ("optimizer.name=adamw", "name must be one of 'adam', 'sgd', got 'adamw'"),
        ("optimizer.schedule=step", "schedule must be one of 'cosine', 'constant', got 'step'"),
        ("optimizer.weight_decay=-1", "weight_decay must not be below 0, got -1.0"),
        ("optimizer.warmup=-1", "warmup must be a whole number of at least 0, got -1"),
        ("epochs=0", "epochs must be a whole number of at least 1, got 0"),
        ("steps=0", "steps must be a whole number of at least 1, got 0"),
        ("seed=-1", "seed must be a whole number of at least 0 and at most 4294967295, got -1"),
    ],
)
def test_ranges(override, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared below
        parse_overrides(Experiment(), [override])
    assert str(error.value) == message


def test_description_is_json_and_tells_configs_apart():
    config = Experiment(data=DataConfig(name="mnist"), optimizer=OptimizerConfig(clip=float("inf")))
    text = json.dumps(describe(config), allow_nan=False)
    assert json.loads(text) == describe(config)
    assert describe(config)["model"] == {"class": "SmallConvNet", "classes": 10, "widths": [16, 32, 64], "hidden": []}
    changes = (("seed", 1), ("model.hidden", 3), ("data.bin_milliseconds", 5))
    changed = [parse_overrides(config, [f"{name}={value}"]) for name, value in changes]
    assert len({json.dumps(describe(c)) for c in (config, *changed)}) == 4


@dataclass(frozen=True)
class Part:
    share: float = 0.5


@dataclass(frozen=True)
class OtherPart(Part):
    pass


@dataclass(frozen=True)
class Whole:
    several: Any = Part()
    one: Part = Part()
    many: tuple[Part, ...] = (Part(),)


def test_description_names_a_class_where_the_annotation_does_not():
    part, named = {"share": 0.5}, {"class": "Part", "share": 0.5}
    assert describe(Whole()) == {"several": named, "one": part, "many": [part]}
    other = {"class": "OtherPart", "share": 0.5}
    whole = Whole(OtherPart(), OtherPart(), (Part(), OtherPart()))
    assert describe(whole) == {"several": other, "one": other, "many": [part, other]}


def test_total_steps():
    assert Experiment(epochs=3, batch=64).total_steps(1297) == 3 * 20
    assert Experiment(epochs=3, batch=64, steps=7).total_steps(1297) == 7
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1 and at most 10, got 64"):
        Experiment(batch=64).total_steps(10)


def run(optimizer, gradients, start=1.0):
    params, path = jnp.array(start), []
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(jnp.array(gradient), state, params)
        params = optax.apply_updates(params, updates)
        path.append(float(params))
    return path


def test_sgd_with_nesterov_decay_clip_and_cosine_by_hand():
    config = OptimizerConfig(name="sgd", learning_rate=0.1, weight_decay=0.5, clip=2.0)
    gradients = [1.0, -5.0, 0.5]
    weight, trace, expected = 1.0, 0.0, []
    for i, gradient in enumerate(gradients):
        gradient = np.clip(gradient, -2, 2) + 0.5 * weight
        trace = 0.9 * trace + gradient
        weight -= 0.1 * 0.5 * (1 + np.cos(np.pi * i / 3)) * (gradient + 0.9 * trace)
        expected.append(weight)
    np.testing.assert_allclose(run(config.build(3), gradients), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_decay_leaves_batch_statistics_alone(name):
    config = OptimizerConfig(name=name, learning_rate=0.1, schedule="constant", weight_decay=0.5)
    variables = {"params": {"kernel": jnp.full(3, 2.0)}, "batch_stats": {"norm": {"mean": jnp.full(3, 2.0)}}}
    optimizer = config.build(9)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, variables), optimizer.init(variables), variables)
    assert updates["batch_stats"]["norm"]["mean"].tolist() == [0.0] * 3
    # rate 0.1, decay 0.5, weight 2; Nesterov's first step goes 1.9 as far
    expected = -0.1 * (0.5 if name == "adam" else 0.5 * 1.9) * 2.0
    np.testing.assert_allclose(updates["params"]["kernel"], expected, rtol=1e-6)


def test_adam_is_optax_adamw_and_warms_up():
    gradients = [0.3, -0.2, 0.9, 0.1]
    constant = OptimizerConfig(learning_rate=0.01, schedule="constant", weight_decay=0.1)
    np.testing.assert_allclose(
        run(constant.build(9), gradients), run(optax.adamw(0.01, weight_decay=0.1), gradients), rtol=1e-6
    )
    warm = run(OptimizerConfig(learning_rate=0.01, schedule="constant", warmup=4).build(9), [1.0] * 6)
    # Adam's step on a constant gradient is the learning rate itself
    np.testing.assert_allclose(-np.diff([1.0, *warm]), [0, 0.0025, 0.005, 0.0075, 0.01, 0.01], atol=2e-6)
    last = run(OptimizerConfig(learning_rate=0.01, warmup=2).build(6), [1.0] * 7)
    assert last[-1] == pytest.approx(last[-2], abs=1e-7)


def test_config_files(tmp_path):
    good = tmp_path / "good.py"
    good.write_text("from modicum.train import Experiment\ndef config():\n    return Experiment(seed=4)\n")
    assert load_config(good).seed == 4
    cases = {
        "none.py": (None, "must be a Python file such as configs/train/digits.py"),
        "broken.py": ("def config(:", "must define config.., got SyntaxError"),
        "empty.py": ("", "must define config.., got AttributeError"),
        "range.py": (
            "from modicum.train import Experiment\ndef config(): return Experiment(epochs=0)",
            "epochs must be",
        ),
        "other.py": ("def config(): return 3", "must return an Experiment, got int"),
        "text.txt": ("", "must be a Python file"),
    }
    for name, (source, message) in cases.items():
        if source is not None:
            (tmp_path / name).write_text(source)
        with pytest.raises(ValueError, match=message) as error:
            load_config(tmp_path / name)
        assert "\n" not in str(error.value)
