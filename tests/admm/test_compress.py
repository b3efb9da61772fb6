"""The driver: result and report, equal budgets, resume after any interruption, bad data."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import admm
from modicum.core import Packed, checkpoint
from tests.admm.members import BATCHES, CONSTRAINTS, PARAMS, Keep, loss_fn

CONFIG = admm.CompressConfig(outer=3, inner=5, retrain=12, chunk=5, rho=20.0, learning_rate=0.01)
CHUNKS = [("admm", 1, 3), ("admm", 2, 3), ("admm", 3, 3), ("retrain", 5, 12), ("retrain", 10, 12), ("retrain", 12, 12)]


@pytest.fixture(scope="module")
def uninterrupted():
    return admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG)


def same(a, b):
    chex.assert_trees_all_equal(a.params, b.params)
    chex.assert_trees_all_equal(a.packed, b.packed)
    assert json.dumps(a.report.as_dict()) == json.dumps(b.report.as_dict())


def test_result(uninterrupted):
    params, packed, report = uninterrupted.params, uninterrupted.packed, uninterrupted.report
    assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
    assert list(packed) == ["first/kernel", "second/kernel"]
    assert all(isinstance(each, Packed) for each in packed.values())
    fitted = uninterrupted.constraints
    np.testing.assert_array_equal(
        fitted["second"]["kernel"].decode(packed["second/kernel"]), params["second"]["kernel"]
    )
    assert float(fitted["second"]["kernel"].violation(params["second"]["kernel"])) == 0
    assert report.violation == 0
    assert np.count_nonzero(params["first"]["kernel"]) == report.leaves[0].kept <= 10


def test_equals_the_pure_stages(uninterrupted):
    params, info = jax.jit(admm.stages(loss_fn, CONSTRAINTS, CONFIG))(PARAMS, BATCHES)
    chex.assert_trees_all_close(uninterrupted.params, params, atol=1e-5)
    report = uninterrupted.report
    np.testing.assert_allclose(report.rho, info.admm.rho, rtol=1e-6)
    np.testing.assert_allclose(report.admm_losses, info.admm.losses.ravel(), rtol=1e-4)
    np.testing.assert_allclose(report.retrain_losses, info.retrain_losses, rtol=1e-4)
    for leaf in report.leaves:
        np.testing.assert_allclose(leaf.primal, info.admm.primal[leaf.path], rtol=1e-4)
        np.testing.assert_allclose(leaf.dual, info.admm.dual[leaf.path], rtol=1e-4)


def test_progress_and_metrics():
    seen, values = [], []

    def progress(stage, done, total, metrics):
        seen.append((stage, done, total))
        values.append(metrics)

    admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, progress=progress)
    assert seen == CHUNKS
    assert set(values[0]) == {"loss", "rho", "primal", "dual"}
    assert set(values[-1]) == {"loss"}
    assert values[1]["rho"] == pytest.approx(26.0)


@pytest.mark.parametrize("stop", range(len(CHUNKS)))
def test_resume_is_bit_equal_from_every_chunk(stop, uninterrupted, tmp_path):
    def interrupt(stage, done, total, metrics):
        if (stage, done, total) == CHUNKS[stop]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path, progress=interrupt)
    # what a kill in the middle of writing leaves behind
    (tmp_path / "admm" / "9.orbax-checkpoint-tmp").mkdir()
    later = []
    resumed = admm.compress(
        loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path, progress=lambda *chunk: later.append(chunk[:3])
    )
    assert later == CHUNKS[stop + 1 :]
    same(resumed, uninterrupted)


_KILLED = """
import os, signal, sys
from modicum import admm
from tests.admm.members import BATCHES, CONSTRAINTS, PARAMS, loss_fn
config = admm.CompressConfig(outer=3, inner=5, retrain=12, chunk=5, rho=20.0, learning_rate=0.01)
def kill(stage, done, total, metrics):
    if stage == "retrain":
        os.kill(os.getpid(), signal.SIGKILL)
admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, config, folder=sys.argv[1], progress=kill)
"""


def test_resume_in_a_new_process_after_a_kill(uninterrupted, tmp_path):
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}:{root}", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    later = []
    resumed = admm.compress(
        loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path, progress=lambda *chunk: later.append(chunk[:3])
    )
    assert later == CHUNKS[4:]
    same(resumed, uninterrupted)


def test_a_finished_run_is_only_read(uninterrupted, tmp_path):
    admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path)
    later = []
    again = admm.compress(
        loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path, progress=lambda *chunk: later.append(chunk)
    )
    assert later == []
    same(again, uninterrupted)


def test_fewer_checkpoints_change_nothing(uninterrupted, tmp_path):
    """A pause longer than the run: only the end of each stage is written, and a cut run starts its stage anew."""
    rare = dataclasses.replace(CONFIG, save_seconds=1e9)

    def interrupt(stage, done, total, metrics):
        if (stage, done) == ("retrain", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, rare, folder=tmp_path, progress=interrupt)
    assert checkpoint.steps(tmp_path / "admm") == (3,)
    assert checkpoint.steps(tmp_path / "retrain") == ()
    later = []
    resumed = admm.compress(
        loss_fn, PARAMS, BATCHES, CONSTRAINTS, rare, folder=tmp_path, progress=lambda *chunk: later.append(chunk[:3])
    )
    assert later == CHUNKS[3:]
    chex.assert_trees_all_equal(resumed.params, uninterrupted.params)
    assert checkpoint.steps(tmp_path / "retrain") == (12,)
    # the pause is no part of what the run is
    same(admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path), uninterrupted)


def test_a_folder_of_another_run_is_refused(tmp_path):
    short = dataclasses.replace(CONFIG, outer=1, retrain=0)
    admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, short, folder=tmp_path)
    with pytest.raises(ValueError, match="must hold a run of the same config, got another"):
        admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path)
    moved = jax.tree.map(lambda p: p + 1, PARAMS)
    with pytest.raises(ValueError, match="must hold a run of the same params, got another"):
        admm.compress(loss_fn, moved, BATCHES, CONSTRAINTS, short, folder=tmp_path)
    other = {"first": {"kernel": Keep(11), "bias": None}, "second": None}
    with pytest.raises(ValueError, match="must hold a run of the same constraints, got another"):
        admm.compress(loss_fn, PARAMS, BATCHES, other, short, folder=tmp_path)


def test_damaged_files_are_refused_in_one_sentence(tmp_path):
    short = dataclasses.replace(CONFIG, outer=1, retrain=0)
    admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, short, folder=tmp_path)
    newest = tmp_path / "admm" / "1"
    for file in newest.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(ValueError, match="must be whole") as caught:
        admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, short, folder=tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"must hold a readable run\.json"):
        admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, short, folder=tmp_path)


def test_one_shot_makes_the_same_number_of_steps(uninterrupted):
    config = dataclasses.replace(CONFIG, chunk=30)
    result = admm.one_shot(loss_fn, PARAMS, BATCHES, CONSTRAINTS, config)
    assert len(result.report.retrain_losses) == result.report.steps == uninterrupted.report.steps == 27
    assert result.report.rho == result.report.admm_losses == result.report.leaves[0].primal == ()
    assert result.report.violation == 0
    # its first step starts from the projection of the given weights, on the first batch
    fitted = admm.fit(CONSTRAINTS, PARAMS)
    first = loss_fn(admm.project(fitted, PARAMS), jax.tree.map(lambda leaf: leaf[0], BATCHES))
    np.testing.assert_allclose(result.report.retrain_losses[0], first, rtol=1e-5)


def test_no_retraining_gives_the_projection():
    config = dataclasses.replace(CONFIG, outer=0, retrain=0)
    result = admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, config)
    expected = admm.project(admm.fit(CONSTRAINTS, PARAMS), PARAMS)
    chex.assert_trees_all_close(result.params, expected, rtol=1e-6)
    assert result.report.steps == 0


def test_runs_that_differ_in_numbers_share_what_was_compiled():
    traces = []

    def counted(params, batch):
        traces.append(None)
        return loss_fn(params, batch)

    admm.compress(counted, PARAMS, BATCHES, CONSTRAINTS, CONFIG)
    first = len(traces)
    other = jax.tree.map(lambda p: 1.1 * p, PARAMS)
    batches = jax.tree.map(lambda leaf: leaf + 0.1, BATCHES)
    admm.compress(counted, other, batches, CONSTRAINTS, CONFIG)  # another scale is fitted, too
    assert len(traces) == first > 0


@pytest.mark.parametrize(("batch", "sentence"), [(1, "step 1 of the ADMM stage"), (16, "step 1 of retraining")])
def test_nan_data_stops_with_one_sentence(batch, sentence, tmp_path):
    inputs, targets = (np.tile(leaf, (5, 1, 1)) for leaf in BATCHES)
    inputs[batch, 3, 0] = np.nan
    with pytest.raises(ValueError, match=f"loss must be finite, got nan at {sentence}") as caught:
        admm.compress(loss_fn, PARAMS, (inputs, targets), CONSTRAINTS, CONFIG, folder=tmp_path)
    assert "\n" not in str(caught.value)
    # no checkpoint holds a NaN: with sound data the run goes on
    admm.compress(loss_fn, PARAMS, BATCHES, CONSTRAINTS, CONFIG, folder=tmp_path)


def test_infinite_loss_and_params_stop():
    def exploding(params, batch):
        return loss_fn(params, batch) + jnp.where(params["first"]["bias"][0] > -1, jnp.inf, 0.0)

    with pytest.raises(ValueError, match="loss must be finite, got inf at step 0 of the ADMM stage"):
        admm.compress(exploding, PARAMS, BATCHES, CONSTRAINTS, CONFIG)
    bad = {**PARAMS, "second": {"kernel": PARAMS["second"]["kernel"].at[0, 0].set(jnp.inf)}}
    with pytest.raises(ValueError, match="params must be finite at the start, got NaN or infinite values in 'second/k"):
        admm.compress(loss_fn, bad, BATCHES, CONSTRAINTS, CONFIG)


def test_something_must_be_constrained():
    with pytest.raises(ValueError, match="constraints must hold a constraint for at least one leaf, got none"):
        admm.compress(loss_fn, PARAMS, BATCHES, {"first": None, "second": None}, CONFIG)
