"""`scripts/train.py` as a user runs it: killed at random moments, and given nonsense."""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from modicum.train import Interrupted, checkpoint, metrics, train

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train.py"
DIGITS = str(ROOT / "configs" / "train" / "digits.py")
STEPS = 90
# a checkpoint at every third step: most kills fall into the writing of one
SMALL = ["model.widths=4,8", "batch=16", f"steps={STEPS}", "checkpoint_every=3"]


def launch(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPT), DIGITS, *SMALL, "--run", str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines_of(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def stop_after(folder, lines, signal_number, pause):
    """Starts the run, sends the signal some time after a line of metrics was written; returns code and stderr."""
    process = launch(folder)
    deadline = time.monotonic() + 120
    while lines_of(folder) < lines and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(pause)
    process.send_signal(signal_number)
    return process.communicate(timeout=120)[1], process.returncode


def contents(folder):
    """The newest checkpoint's arrays by name, as bytes, whatever Orbax's files look like."""
    newest = folder / "checkpoints" / str(checkpoint.steps(folder / "checkpoints")[-1])
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        tree = checkpointer.restore(newest)
    return {name: (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for name, leaf in tree.items()}


@pytest.mark.slow
def test_killed_and_interrupted_runs_end_bit_equal(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = launch(whole)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "test accuracy" in output
    chance = random.Random(7)
    for round_, number in enumerate((signal.SIGKILL, signal.SIGINT, signal.SIGKILL)):
        target = STEPS * (round_ + 1) // 5 + chance.randrange(6)
        errors, code = stop_after(cut, target, number, chance.uniform(0, 0.03))
        assert "Traceback" not in errors
        assert code == (130 if number == signal.SIGINT else -number), errors
        if number == signal.SIGINT:
            saved = checkpoint.steps(cut / "checkpoints")[-1]
            assert f"interrupted: step {saved} is saved in {cut}; run the same command again" in errors
            assert lines_of(cut) == saved
        assert lines_of(cut) < STEPS
    process = launch(cut)
    assert process.wait(timeout=120) == 0
    process.communicate()
    assert contents(cut) == contents(whole)
    for name in ("metrics.jsonl", "result.json", "config.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert sorted(entry.name for entry in (cut / "checkpoints").iterdir()) == [str(STEPS - 3), str(STEPS)]


def test_sigint_before_the_first_step(tmp_path):
    """While Python still loads JAX and the data: one line, and nothing on the disk."""
    process = launch(tmp_path / "run")
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors == "interrupted: run the same command again to go on\n"
    assert not (tmp_path / "run").exists()


def run_main(monkeypatch, capsys, *arguments):
    """`main()` in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    handler = signal.getsignal(signal.SIGINT)
    try:
        code = runpy.run_path(str(SCRIPT))["main"]()
    except SystemExit as stopped:
        code = stopped.code
    finally:
        signal.signal(signal.SIGINT, handler)
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DIGITS, "epoch=3"], "override must name a setting, got 'epoch': did you mean 'epochs'?"),
        ([DIGITS, "epochs=three"], "epochs must be a whole number, got 'three'"),
        ([DIGITS, "optimizer.learning_rate=fast"], "optimizer.learning_rate must be a number, got 'fast'"),
        ([DIGITS, "epochs=0"], "epochs must be a whole number of at least 1, got 0"),
        ([DIGITS, "batch=2000"], "batch must be a whole number of at least 1 and at most 1297, got 2000"),
        ([DIGITS, "model.classes=7"], "model.classes must be 10 for data 'digits', got 7"),
        ([DIGITS, "model.widths=4,4,4,4"], "model must take inputs of shape (2, 8, 8, 1), got SmallConvNet: images"),
        ([DIGITS, "data.test=valid"], "split of digits must be one of 'train', 'test', got 'valid'"),
        ([DIGITS, "data.name=mnist"], "got no folder"),
        (["nowhere.py"], "config must be a Python file such as configs/train/digits.py, got 'nowhere.py'"),
        ([], "the following arguments are required: config"),
        ([DIGITS, "--frsh"], "unrecognized arguments: --frsh"),
    ],
)
def test_bad_input_is_one_sentence_exit_code_2_and_nothing_on_disk(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path / "no data"))
    if message == "got no folder":
        message = (
            f"data 'mnist' must lie in {tmp_path}/no data/tfds, but there is no folder {tmp_path}/no data: set MODICUM"
        )
    code, output, errors = run_main(monkeypatch, capsys, *arguments)
    assert code == 2
    assert output == ""
    assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors
    if errors.startswith("train.py"):
        assert errors.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_run_its_folder_and_a_changed_config(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    tiny = [DIGITS, "model.widths=2", "batch=8", "steps=3"]
    code, output, _ = run_main(monkeypatch, capsys, *tiny)
    assert code == 0
    folder = tmp_path / "runs" / "digits"
    assert {entry.name for entry in folder.iterdir()} == {
        "config.json",
        "versions.json",
        "metrics.jsonl",
        "checkpoints",
        "result.json",
    }
    result = json.loads((folder / "result.json").read_text())
    assert result["steps"] == 3
    assert result["test_examples"] == 500
    assert f"{100 * result['test_accuracy']:.2f}%" in output
    code, _, errors = run_main(monkeypatch, capsys, *tiny, "optimizer.learning_rate=0.5")
    assert code == 2
    assert "holds a run with optimizer.learning_rate=0.003, got 0.5: start over with --fresh" in errors
    code, _, _ = run_main(monkeypatch, capsys, *tiny, "optimizer.learning_rate=0.5", "--fresh")
    assert code == 0
    assert len(metrics.read(folder / "metrics.jsonl")) == 3
    code, _, _ = run_main(monkeypatch, capsys, *tiny, "seed=1", "--run", "elsewhere")
    assert code == 0
    assert (tmp_path / "elsewhere" / "result.json").is_file()


def test_a_loss_that_is_not_finite(monkeypatch, capsys, tmp_path):
    diverging = ["optimizer.name=sgd", "optimizer.learning_rate=1e30", "model.widths=2", "--run", tmp_path / "run"]
    code, _, errors = run_main(monkeypatch, capsys, DIGITS, *diverging)
    assert code == 2
    assert "must be finite, got" in errors
    assert "nothing was saved; lower the learning rate" in errors.splitlines()[-1]
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == ()


def test_interrupted_in_process(monkeypatch, capsys, tmp_path):
    def interrupt(*_, **__):
        raise Interrupted(17)

    monkeypatch.setattr("modicum.train.loop.fit", interrupt)
    code, _, errors = run_main(monkeypatch, capsys, DIGITS, "--run", tmp_path / "run")
    assert code == 130
    assert errors == f"interrupted: step 17 is saved in {tmp_path / 'run'}; run the same command again to go on\n"


def test_train_without_a_folder_is_the_same_run(tmp_path):
    module = runpy.run_path(DIGITS)
    from modicum.train import parse_overrides

    config = parse_overrides(module["config"](), ["model.widths=2", "batch=8", "steps=5"])
    with_folder, without = train(config, tmp_path / "run"), train(config)
    for a, b in zip(jax.tree.leaves(with_folder.state), jax.tree.leaves(without.state), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert with_folder.summary["test_loss"] == without.summary["test_loss"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["batch"] == 8
