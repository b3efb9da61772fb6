"""Checkpoints: bit-exact for any tree, atomic at every file operation, refused when they are another's."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from modicum.core import checkpoint
from modicum.train import init_state


class Pair(NamedTuple):
    left: object
    right: object


def everything(key):
    return {
        "f32": jax.random.normal(key, (3, 4)),
        "bf16": jnp.array([1.5, -0.0], jnp.bfloat16),
        "nan": jnp.array([jnp.nan, jnp.inf, -0.0]),
        "int4": jnp.arange(-8, 8, dtype=jnp.int4),
        "bool": np.array([True, False]),
        "f64": np.array([1 / 3, 2 / 3]),
        "scalar": jnp.int32(7),
        "empty": jnp.zeros((0, 3), jnp.float16),
        "key": key,
        "keys": jax.random.split(jax.random.key(3, impl="rbg"), 2),
        "pair": Pair([jnp.ones(2), None], (jnp.zeros((), jnp.uint8), {})),
        "a/b": {"c.d": jnp.arange(2)},
        "a": {"b/c.d": jnp.arange(3)},
        "number": 2.5,
        "nothing": optax.EmptyState(),
    }


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y)
        if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            assert x.dtype == y.dtype
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def test_round_trip_of_every_kind_of_leaf(tmp_path, key):
    tree = everything(key)
    checkpoint.save(tmp_path / "deep" / "down", 3, tree)
    step, found = checkpoint.restore(tmp_path / "deep" / "down", tree)
    assert step == 3
    assert_same(found, tree)
    draws = [jax.random.normal(t["key"], (4,)) for t in (tree, found)]
    np.testing.assert_array_equal(*draws)


def test_restores_onto_an_abstract_tree(tmp_path, key):
    state = init_state({"kernel": jax.random.normal(key, (5, 2))}, optax.chain(optax.clip(1.0), optax.adam(1e-3)))
    checkpoint.save(tmp_path, 0, state)
    _, found = checkpoint.restore(tmp_path, jax.eval_shape(lambda: state))
    assert_same(found, state)


@pytest.mark.parametrize("tree", [{}, {"empty": np.zeros((0, 2))}, np.float32(3), (jnp.ones(1),)], ids=repr)
def test_small_trees(tmp_path, tree):
    checkpoint.save(tmp_path, 1, tree)
    assert_same(jax.tree.map(np.asarray, checkpoint.restore(tmp_path, tree)[1]), jax.tree.map(np.asarray, tree))


def test_nothing_there(tmp_path):
    assert checkpoint.restore(tmp_path / "none", {}) is None
    assert checkpoint.restore(tmp_path, {}) is None
    assert checkpoint.steps(tmp_path / "none") == ()
    assert not (tmp_path / "none").exists()


def test_keeps_the_newest_and_replaces(tmp_path):
    for step in (5, 10, 9, 100):
        checkpoint.save(tmp_path, step, {"x": jnp.float32(step)}, keep=3)
    assert checkpoint.steps(tmp_path) == (9, 10, 100)
    checkpoint.save(tmp_path, 100, {"x": jnp.float32(-1)})
    assert checkpoint.steps(tmp_path) == (10, 100)
    step, tree = checkpoint.restore(tmp_path, {"x": jnp.float32(0)})
    assert (step, float(tree["x"])) == (100, -1.0)


@pytest.mark.parametrize("replace", [False, True])
def test_a_kill_at_any_file_operation_leaves_a_whole_checkpoint(tmp_path, monkeypatch, replace):
    """Every rename and removal in turn is where the process dies; then the next run saves as if nothing had been."""

    class Killed(BaseException):
        pass

    like = {"x": jnp.float32(0)}
    deaths = 0
    while True:
        folder = tmp_path / str(deaths)
        for step in (1, 2):
            checkpoint.save(folder, step, {"x": jnp.float32(step)})
        left = deaths

        def dying(original):
            def operation(*args, **kwargs):
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return original(*args, **kwargs)

            return operation

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", dying(Path.rename))
            patch.setattr(checkpoint.shutil, "rmtree", dying(checkpoint.shutil.rmtree))
            patch.setattr(ocp.Checkpointer, "save", dying(ocp.Checkpointer.save))
            try:
                checkpoint.save(folder, 2 if replace else 3, {"x": jnp.float32(3)})
                survived = True
            except Killed:
                survived = False
        step, tree = checkpoint.restore(folder, like)
        assert float(tree["x"]) in ((step, 3.0) if replace else (step,))
        assert step >= (1 if replace else 2)
        checkpoint.save(folder, 4, {"x": jnp.float32(4)})
        assert float(checkpoint.restore(folder, like)[1]["x"]) == 4
        assert all(entry.name.isdecimal() for entry in folder.iterdir())
        if survived:
            break
        deaths += 1
    assert deaths >= 3


def test_leftovers_are_ignored_then_removed_and_strangers_stay(tmp_path):
    checkpoint.save(tmp_path, 4, {"x": jnp.ones(2)})
    for name in ("9.new.orbax-checkpoint-tmp", "9.new.orbax-checkpoint-tmp-17", "9.new", "4.old", "notes"):
        (tmp_path / name).mkdir()
    assert checkpoint.restore(tmp_path, {"x": jnp.zeros(2)})[0] == 4
    checkpoint.save(tmp_path, 5, {"x": jnp.ones(2)})
    assert {entry.name for entry in tmp_path.iterdir()} == {"4", "5", "notes"}


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"x": jnp.zeros(3)}, r"must hold float32\[3\] at tree\['x'\], got float32\[2\]"),
        ({"x": jnp.zeros(2, jnp.int32)}, r"must hold int32\[2\] at tree\['x'\], got float32\[2\]"),
        ({"y": jnp.zeros(2)}, r"must hold nothing at tree\['x'\], got float32\[2\]"),
        ({"x": jnp.zeros(2), "y": jnp.zeros(1)}, r"must hold float32\[1\] at tree\['y'\], got nothing"),
        ({}, "must hold nothing"),
    ],
)
def test_the_checkpoint_of_another_tree_is_refused(tmp_path, like, message):
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(2)})
    with pytest.raises(ValueError, match=message):
        checkpoint.restore(tmp_path, like)


def test_a_damaged_checkpoint_is_one_sentence(tmp_path, capfd, caplog):
    tree = {"x": jnp.arange(1000.0)}
    checkpoint.save(tmp_path, 1, tree)
    checkpoint.save(tmp_path, 2, tree)
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file() and path.stat().st_size]
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        refusal = None
        try:
            found = checkpoint.restore(tmp_path, tree)
        except ValueError as error:
            refusal = str(error)
        else:  # a file that restoring does not need
            np.testing.assert_array_equal(found[1]["x"], tree["x"])
        assert refusal is None or ("must be whole" in refusal and "\n" not in refusal)
        path.write_bytes(whole)
    for path in files:
        path.unlink()
    with pytest.raises(ValueError, match="must be whole"):
        checkpoint.restore(tmp_path, tree)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="step must be"):
        checkpoint.save(tmp_path, -1, {})
    with pytest.raises(ValueError, match="keep must be"):
        checkpoint.save(tmp_path, 1, {}, keep=0)
    assert not any(tmp_path.iterdir())


def test_silent(tmp_path, capfd, caplog):
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(2)})
    checkpoint.restore(tmp_path, {"x": jnp.ones(2)})
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
