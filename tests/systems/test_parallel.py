"""Data parallelism: every trainer on eight virtual devices, and two processes that train together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from modicum.core import parallel

ROOT = Path(__file__).parents[2]
VIRTUAL = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


@pytest.fixture(scope="module")
def found():
    done = subprocess.run(
        [sys.executable, "-m", "tests.systems.eight_devices"],
        env=VIRTUAL,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_sums_without_rounding_are_equal_bit_for_bit(found):
    assert found["whole numbers"] == 0


@pytest.mark.parametrize("trainer", ["network", "compress", "gradual", "federated", "through chips"])
def test_eight_devices_train_as_one_does(found, trainer):
    """Batch statistics, augmentation, noise of chips and clients: all the same up to the order of sums."""
    assert found[trainer] < 1e-5


def test_a_run_goes_on_with_another_number_of_devices(found):
    assert found["resumed"] < 1e-5


def test_batches_of_faces_split(found):
    assert found["face"] == [1]


def test_a_batch_that_does_not_split_is_refused(found):
    assert found["refused"] == "batch must be a multiple of 8, the number of devices, got 12"


def test_two_processes_train_together(tmp_path):
    """Two processes of two devices each give what one device gives, in one run folder that the first one writes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "modicum", "train", "train/digits", "steps=12", "checkpoint_every=6"]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    started = [
        subprocess.Popen(
            [*command, "--run", tmp_path / "together", "--join", f"127.0.0.1:{port},2,{process}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    alone = subprocess.run([*command, "--run", tmp_path / "alone"], capture_output=True, text=True, check=False)
    outputs = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], [error[-2000:] for _, error in outputs]
    assert alone.returncode == 0, alone.stderr[-2000:]
    assert ["test accuracy" in output for output, _ in outputs] == [True, False]
    losses = {}
    for name in ("together", "alone"):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses[name] = [json.loads(line)["loss"] for line in lines]
        assert (tmp_path / name / "checkpoints" / "12").is_dir()
    assert len(losses["alone"]) == 12
    np.testing.assert_allclose(losses["together"], losses["alone"], rtol=1e-5)


def test_one_device_is_a_mesh_too():
    mesh = parallel.data_mesh(1)
    tree = {"weights": np.arange(3.0), "key": jax.random.key(1)}
    placed = parallel.local(parallel.replicate(tree, mesh))
    assert np.array_equal(placed["weights"], tree["weights"])
    assert np.array_equal(jax.random.key_data(placed["key"]), jax.random.key_data(tree["key"]))
    assert parallel.first()
    assert [parallel.anywhere(flag) for flag in (True, False)] == [True, False]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: parallel.data_mesh(0), "devices must be a whole number of at least 1 and at most"),
        (lambda: parallel.data_mesh(9999), "devices must be a whole number of at least 1 and at most .*, got 9999"),
        (lambda: parallel.join("here:1", 2), "coordinator, processes and process must be given together"),
        (lambda: parallel.join("here:1", 2, 2), "process must be a whole number of at least 0 and at most 1, got 2"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--devices", "some"], "devices must be a number or 'all', got 'some'"),
        (["--join", "here"], "join must be 'auto' or HOST:PORT,COUNT,INDEX, got 'here'"),
    ],
)
def test_bad_flags(flags, sentence, capsys, monkeypatch, tmp_path):
    from modicum.cli import train

    monkeypatch.setattr("modicum.command.stop_at_once_on_interrupt", lambda before="": None)
    assert train.main(["train/digits", "--run", str(tmp_path / "run"), *flags]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
