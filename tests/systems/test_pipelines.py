"""Pipelines across systems, whole, on small data: each stage takes what the one before made."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from modicum.cli import pipeline as cli
from modicum.constraints import Levels
from modicum.spiking.networks import spiking_lenet
from modicum.systems import frontier, pipelines
from modicum.train import prepared

for package in ("av", "constriction", "skimage", "ziglang"):
    pytest.importorskip(package)
CONFIGS = Path(__file__).parents[2] / "configs" / "pipelines"


def ran(name, folder, *overrides):
    """The lines of a pipeline as figures by stage, and those that `result.json` holds."""
    lines = pipelines.run(pipelines.load_pipeline(CONFIGS / f"{name}.py", overrides), folder)
    written = json.loads((folder / "result.json").read_text())
    assert [line["stage"] for line in written] == [line.stage for line in lines]
    return {line.stage: line.figures for line in lines}


def test_a_spiking_network_without_a_tape_runs_on_two_kinds_of_chips(tmp_path):
    small = ("data=digits", "epochs=1", "admm=1", "fit=2", "chips=1", "images=10")
    found = ran("spiking_chips", tmp_path, *small)
    assert found["compressed"]["violation"] == 0
    # 4 bits a weight, its sign among them, of 32
    assert found["compressed"]["packed bytes"] < found["compressed"]["dense bytes"] / 7
    for device in ("on forms", "on capram"):
        assert found[device]["energy, nJ"] > 0
        assert found[device]["test examples"] == 10


def test_weights_that_are_made_of_constrained_ones_are_refused(key):
    sets = {"params": {"layer_0": {"synapse": {"kernel": Levels(4), "gain": None, "bias": None}}}}
    inputs = jnp.zeros((1, 8, 8, 1))
    for normalize in ("none", "weights"):
        model = spiking_lenet(widths=(2, 2), steps=2, normalize=normalize)
        params = model.init(key, inputs)
        if normalize == "none":
            pipelines.check_read_as_constrained(model.apply, params, sets, inputs)
            continue
        with pytest.raises(ValueError, match=r"made of params/layer_0/synapse/kernel: .* normalize='none'"):
            pipelines.check_read_as_constrained(model.apply, params, sets, inputs)


def test_a_privately_pruned_network_becomes_a_bundle(tmp_path):
    found = ran("private_phone", tmp_path, "data=digits", "rounds=2", "local_steps=4")
    host, phone = found["exported for host"], found["exported for aarch64-linux"]
    assert found["federated"]["violation"] == 0
    assert found["federated"]["projected test accuracy"] == host["accuracy"] == host["accuracy before"]
    assert host["largest difference"] < 1e-5
    assert phone["bundle, bytes"] > 0
    assert "accuracy" not in phone


def test_speech_as_native_code_and_on_crossbars(tmp_path):
    try:
        prepared.find("spoken_digit")
    except ValueError as absent:
        pytest.skip(str(absent))
    found = ran("speech", tmp_path, "features=16", "outer=1", "epochs=1", "chips=1", "images=2")
    assert found["exported"]["largest difference"] < 1e-4
    assert found["exported"]["accuracy"] == pytest.approx(found["compressed"]["accuracy"], abs=1e-9)
    assert found["on crossbars"]["time, us"] > 0


def test_a_pruned_and_compiled_face_on_a_call(tmp_path):
    found = ran("face_call", tmp_path, "clip=", "steps=4", "outer=1", "width=16", "seconds=2", "frames=10")
    assert found["call, pruned"]["violation"] == 0
    assert found["call, pruned"]["frames"] == 10
    assert found["generator by native kernels"]["largest difference"] < 1e-3


def test_a_frontier_of_two_sets(tmp_path):
    whole = pipelines.load_pipeline(CONFIGS / "frontier.py", ("seeds=2", "epochs=1", "outer=1", "images=4"))
    chosen = dataclasses.replace(whole, entries=(whole.entries[0], whole.entries[-1]))
    dense, joint = (line.figures for line in pipelines.run(chosen, tmp_path / "run"))
    assert dense["violation"] == joint["violation"] == 0
    assert joint["bytes"] < dense["bytes"] / 10
    assert joint["energy, nJ"] < dense["energy, nJ"]
    assert (tmp_path / "run" / "frontier.png").stat().st_size > 0
    # finished: every stage is read, and the seeds' order does not change
    again = pipelines.run(chosen, tmp_path / "run")
    assert again[0].figures["accuracy"] == dense["accuracy"]


def test_what_nothing_beats_is_found_by_comparing_all_pairs():
    generator = np.random.default_rng(0)
    names = ("accuracy", *frontier.COSTS)
    points = [dict(zip(names, row, strict=True)) for row in generator.integers(0, 4, (40, 4)).astype(float)]

    def beats(a, b):
        good = a["accuracy"] >= b["accuracy"] and all(a[cost] <= b[cost] for cost in frontier.COSTS)
        return good and a != b

    expected = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    assert frontier.pareto(points) == expected


def test_bad_input_is_one_sentence(tmp_path, capsys):
    for overrides, message in (
        (("chip=3",), "override must be one of"),
        (("frames=0",), "frames must"),
    ):
        assert cli.main(["pipelines/face_call", *overrides, "--run", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="federated must have constraints"):
        pipelines.PrivateToPhone(federated=pipelines.FederatedConfig())
