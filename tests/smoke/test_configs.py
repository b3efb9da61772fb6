"""Every training config runs: a few tiny steps of the real data through the real script's library."""

import ast
import inspect
import math
from pathlib import Path

import pytest

from modicum.train import Experiment, load_config, metrics, parse_overrides, read_config, train

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for folder in ("train", "spiking") for path in (CONFIGS / folder).glob("*.py"))


def name(path):
    return f"{path.parent.name}/{path.stem}"


def test_there_are_configs():
    expected = {"train/digits", "train/mnist", "train/cifar10", "train/spoken_digit"}
    expected |= {
        f"spiking/{task}" for task in ("mnist", "mnist_carry", "nmnist", "cifar10", "cifar10_vgg11", "sequential_mnist")
    }
    assert {name(path) for path in FILES} >= expected


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_config_says_what_it_is(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text is not None
    assert f"Command: python scripts/train.py configs/{path.parent.name}/{path.name}" in text
    for word in ("Time:", "Score:"):
        assert word in text
    assert isinstance(load_config(path), Experiment)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_config_runs(path, tmp_path, request):
    make = read_config(path)
    # networks for GPUs are made narrow
    config = make(width=4) if "width" in inspect.signature(make).parameters else make()
    root = None if config.data.name == "digits" else request.getfixturevalue("data_root")
    # a part of the splits where the format can say so; those of speech and events are rules
    small = (
        []
        if config.data.name in ("digits", "spoken_digit", "nmnist-small")
        else ["data.train=train[:64]", "data.test=test[:32]"]
    )
    short = ["model.steps=2"] if getattr(config.model, "steps", None) else []
    config = parse_overrides(config, ["steps=2", "batch=4", *short, *small])
    result = train(config, tmp_path / "run", root=root)
    assert int(result.state.step) == 2
    lines = metrics.read(tmp_path / "run" / "metrics.jsonl")
    # an untrained classifier of ten classes: about log(10) nats
    assert lines[0]["loss"] == pytest.approx(math.log(10), abs=1.5)
    assert 0 <= result.summary["test_accuracy"] <= 1
