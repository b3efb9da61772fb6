"""The loop in one process: exact resume wherever it is cut, one compilation, signals, and what is not finite."""

import functools
import json
import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from modicum.models import SmallConvNet
from modicum.train import (
    Interrupted,
    batches,
    checkpoint,
    classification_loss,
    default_steps_per_dispatch,
    fit,
    init_state,
    loop,
    make_train_step,
    metrics,
    resume,
)

MODEL = SmallConvNet(widths=(4, 8))
OPTIMIZER = optax.adam(optax.cosine_decay_schedule(1e-2, 10))
STEP = make_train_step(classification_loss(MODEL.apply), OPTIMIZER, has_aux=True)


@functools.cache
def start():
    inputs = jax.random.normal(jax.random.key(0), (40, 8, 8, 1))
    labels = jax.random.randint(jax.random.key(1), (40,), 0, 10)
    state = init_state(jax.jit(MODEL.init)(jax.random.key(2), inputs[:1]), OPTIMIZER)
    return state, batches((inputs, labels), jax.random.key(3), 7)


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.optimized
@pytest.mark.parametrize("length", [1, 4])
def test_ten_steps_are_five_and_five(tmp_path, length):
    state, at = start()
    whole = fit(state, STEP, at, 10, folder=tmp_path / "a", checkpoint_every=100, steps_per_dispatch=length)
    half = fit(state, STEP, at, 5, folder=tmp_path / "b", checkpoint_every=100, steps_per_dispatch=length)
    assert int(half.step) == 5
    assert checkpoint.steps(tmp_path / "b" / "checkpoints") == (5,)
    rest = fit(state, STEP, at, 10, folder=tmp_path / "b", checkpoint_every=100, steps_per_dispatch=length)
    assert_equal(whole, rest)
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert lines[0] == lines[1]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == list(range(1, 11))


@pytest.mark.optimized
@pytest.mark.parametrize("length", [1, 4])
def test_resume_from_every_step_and_every_grid(tmp_path, length):
    """Cut after any step, with checkpoints at any distance: the same bits."""
    state, at = start()
    whole = fit(state, STEP, at, 10, steps_per_dispatch=length)
    for cut in range(1, 10):
        folder = tmp_path / str(cut)
        fit(state, STEP, at, cut, folder=folder, checkpoint_every=1 + cut % 3, steps_per_dispatch=length)
        assert_equal(
            whole, fit(state, STEP, at, 10, folder=folder, checkpoint_every=1 + cut % 4, steps_per_dispatch=length)
        )


def test_steps_are_those_of_a_plain_loop(tmp_path):
    state, at = start()
    plain = state
    losses = []
    step = jax.jit(STEP)
    for i in range(8):
        plain, values = step(plain, at(i))
        losses.append(float(values["loss"]))
    for length in (1, 3):
        folder = tmp_path / str(length)
        trained = fit(state, STEP, at, 8, folder=folder, steps_per_dispatch=length)
        for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(trained), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        lines = metrics.read(folder / "metrics.jsonl")
        np.testing.assert_allclose([line["loss"] for line in lines], losses, rtol=1e-4)
        assert set(lines[0]) == {"step", "loss", "accuracy", "gradient_norm"}


def test_a_finished_run_does_nothing_more(tmp_path):
    state, at = start()
    done = fit(state, STEP, at, 4, folder=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert_equal(done, fit(state, STEP, at, 4, folder=tmp_path))
    assert_equal(done, fit(state, STEP, at, 3, folder=tmp_path))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("length", [1, 4])
def test_compiled_once(length):
    """The second chunk, the rest of a chunk, and a second call compile nothing."""
    state, at = start()
    traces = []

    def step(state, batch):
        traces.append(1)
        return STEP(state, batch)

    fit(state, step, at, 4, steps_per_dispatch=length)
    first = len(traces)
    assert 1 <= first <= 3
    fit(state, step, at, 14, steps_per_dispatch=length)
    assert len(traces) == first


def test_a_plain_function_gives_batches_too():
    state, at = start()
    assert_equal(fit(state, STEP, at, 3), fit(state, STEP, lambda step: at(step), 3))


def test_default_dispatch_is_by_backend(monkeypatch):
    assert default_steps_per_dispatch() == 1
    monkeypatch.setattr(loop.jax, "default_backend", lambda: "gpu")
    assert default_steps_per_dispatch() > 1


def test_metrics_past_the_checkpoint_are_cut_and_written_again(tmp_path):
    """What a SIGKILL leaves: lines ahead of the newest checkpoint, the last of them half written."""
    state, at = start()
    fit(state, STEP, at, 9, folder=tmp_path / "a", checkpoint_every=3)
    fit(state, STEP, at, 9, folder=tmp_path / "b", checkpoint_every=3)
    path = tmp_path / "b" / "metrics.jsonl"
    whole = path.read_bytes()
    assert checkpoint.steps(tmp_path / "b" / "checkpoints") == (6, 9)
    (tmp_path / "b" / "checkpoints" / "9").rename(tmp_path / "b" / "checkpoints" / "9.new.orbax-checkpoint-tmp")
    path.write_bytes(whole[:-17])
    assert int(resume(state, tmp_path / "b").step) == 6
    assert len(metrics.read(path)) == 6
    assert_equal(
        fit(state, STEP, at, 9, folder=tmp_path / "a"),
        fit(state, STEP, at, 9, folder=tmp_path / "b", checkpoint_every=3),
    )
    assert path.read_bytes() == whole
    assert {entry.name for entry in (tmp_path / "b" / "checkpoints").iterdir()} == {"6", "9"}


def exploding(at_step, value):
    """A step whose loss is `value` at one step and 1 otherwise."""

    def step(state, batch):
        loss = jnp.where(state.step == at_step, value, 1.0)
        return state._replace(step=state.step + 1), {"loss": loss}

    return step


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("length", [1, 4])
def test_stops_on_a_loss_that_is_not_finite(tmp_path, value, length):
    state, at = start()
    with pytest.raises(ValueError, match=f"loss must be finite, got {value} at step 8: the checkpoint of step 6 in"):
        fit(state, exploding(7, value), at, 20, folder=tmp_path, checkpoint_every=3, steps_per_dispatch=length)
    assert checkpoint.steps(tmp_path / "checkpoints") == (3, 6)
    assert [line["step"] for line in metrics.read(tmp_path / "metrics.jsonl")] == list(range(1, 8))


def test_stops_on_parameters_that_are_not_finite(tmp_path):
    """A finite loss whose update is not: the state must not be saved."""
    state, at = start()

    def step(state, batch):
        params = jax.tree.map(lambda leaf: jnp.where(state.step == 2, jnp.nan, leaf), state.params)
        return state._replace(params=params, step=state.step + 1), {"loss": jnp.float32(1)}

    with pytest.raises(ValueError, match="parameters must be finite, got NaN or infinity after step 3") as error:
        fit(state, step, at, 3, folder=tmp_path, checkpoint_every=2)
    assert "the checkpoint of step 2" in str(error.value)
    assert checkpoint.steps(tmp_path / "checkpoints") == (2,)
    with pytest.raises(ValueError, match="nothing was saved"):
        fit(state, step, at, 3)


def test_nan_data_stop_the_run_at_once(tmp_path):
    state, _ = start()
    data = np.ones((9, 8, 8, 1), np.float32), np.zeros(9, np.int32)
    data[0][:, 3, 3] = np.nan
    with pytest.raises(ValueError, match="must be finite, got nan at step 1: nothing was saved"):
        fit(state, STEP, batches(data, jax.random.key(0), 3), 5, folder=tmp_path)


def interrupting(at_step):
    """A plain step function and batches that send SIGINT to this process when the given step is dispatched."""
    state, at = start()

    def batch(step):
        jax.debug.callback(lambda s: os.kill(os.getpid(), signal.SIGINT) if int(s) == at_step else None, step)
        return at(step)

    return state, batch


@pytest.mark.parametrize("length", [1, 4])
def test_sigint_finishes_saves_and_resumes_to_the_same_bits(tmp_path, length):
    state, at = start()
    before = signal.getsignal(signal.SIGINT)
    whole = fit(state, STEP, at, 60, folder=tmp_path / "a", steps_per_dispatch=length)
    state, noisy = interrupting(5)
    with pytest.raises(Interrupted) as interrupted:
        fit(state, STEP, noisy, 60, folder=tmp_path / "b", steps_per_dispatch=length)
    step = interrupted.value.step
    assert 5 < step < 60
    assert checkpoint.steps(tmp_path / "b" / "checkpoints")[-1] == step
    assert len(metrics.read(tmp_path / "b" / "metrics.jsonl")) == step
    assert signal.getsignal(signal.SIGINT) is before
    assert isinstance(interrupted.value, KeyboardInterrupt)
    assert_equal(whole, fit(state, STEP, at, 60, folder=tmp_path / "b", steps_per_dispatch=length))
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_a_second_sigint_does_not_wait():
    with loop._sigint() as seen:
        assert not seen()
        os.kill(os.getpid(), signal.SIGINT)
        assert seen()
        with pytest.raises(KeyboardInterrupt) as interrupted:
            os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(interrupted.value, Interrupted)


def test_runs_outside_the_main_thread():
    state, at = start()
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(state, STEP, at, 2)))
    thread.start()
    thread.join()
    assert_equal(found[0], fit(state, STEP, at, 2))


def test_progress_bar_shows_steps_and_loss():
    state, at = start()
    with open(os.devnull, "w") as sink:
        console = Console(file=sink, record=True, width=120, force_terminal=True)
        fit(state, STEP, at, 45, console=console)
    text = console.export_text()
    assert "45/45" in text
    assert "loss" in text


def test_bad_arguments(tmp_path):
    state, at = start()
    for name in ("steps", "checkpoint_every", "steps_per_dispatch"):
        arguments = {"steps": 3, name: 0}
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got 0"):
            fit(state, STEP, at, folder=tmp_path / "a", **arguments)
    assert not (tmp_path / "a").exists()
    fit(state, STEP, at, 2, folder=tmp_path)
    other = init_state({"kernel": jnp.ones(3)}, OPTIMIZER)
    with pytest.raises(ValueError, match="it was saved by another run"):
        fit(other, STEP, at, 4, folder=tmp_path)
