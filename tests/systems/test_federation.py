"""Federated runs: private training equals plain training to the fixed-point step, and resumes bit-equal."""

import ast
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from modicum.constraints import TopK
from modicum.federated import RefusedError
from modicum.models import SmallConvNet
from modicum.systems import federation
from modicum.systems.federation_config import FederatedConfig
from modicum.train import DataConfig, OptimizerConfig, metrics

ROOT = Path(__file__).parents[2]
CONFIG = FederatedConfig(
    data=DataConfig(name="digits"),
    model=SmallConvNet(widths=(4, 8)),
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.05),
    clients=4,
    rounds=4,
    local_steps=2,
    batch=16,
    path="plain",
    evaluate_every=2,
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "plain"
    return folder, federation.federate(CONFIG, folder)


def flat(result):
    return np.asarray(jax.flatten_util.ravel_pytree(result.state.params)[0])


@pytest.mark.parametrize("path", ["sefl", "enclave"])
def test_private_equals_plain_to_the_step(plain, path):
    """Each round's mean is off by at most half a step of 2^-20 per client; gradients may spread that a little."""
    result = federation.federate(replace(CONFIG, path=path, rounds=2))
    reference = federation.federate(replace(CONFIG, rounds=2))
    bound = 2.0**-20 if path == "sefl" else 1e-7
    assert np.abs(flat(result) - flat(reference)).max() < 3 * bound
    dense = 4 * 2 * 4 * result.summary["parameters"]
    # SEFL: 160 bytes per client and round; the enclave: 129, and less where entries are 0
    more = result.summary["upload_bytes"] - dense
    assert more == 8 * 160 if path == "sefl" else 0 < more <= 8 * 129


def test_run_folder_and_resume(plain, tmp_path):
    folder, whole = plain
    lines = metrics.read(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [("test_accuracy" in line) for line in lines] == [False, True, False, True]
    summary = json.loads((folder / "result.json").read_text())
    assert summary["upload_bytes"] == 4 * 4 * 4 * summary["parameters"]
    assert (folder / "figure.png").read_bytes()[:4] == b"\x89PNG"
    run = federation._Run(CONFIG, None)
    state, _ = run.round(run.start())
    state, _ = run.round(state)
    # as if cut after the second round's checkpoint
    from modicum.core import checkpoint
    from modicum.train import describe, report

    report.open_folder(tmp_path / "cut", describe(CONFIG))
    metrics.append(tmp_path / "cut" / "metrics.jsonl", [*lines[:2], {"step": 3, "loss": 9.0}])
    checkpoint.save(tmp_path / "cut" / "checkpoints", 2, state)
    resumed = federation.federate(CONFIG, tmp_path / "cut")
    np.testing.assert_array_equal(flat(resumed), flat(whole))
    kept = metrics.read(tmp_path / "cut" / "metrics.jsonl")
    assert [each["loss"] for each in kept] == [each["loss"] for each in lines]
    with pytest.raises(ValueError, match="holds a run with seed=0, got 1"):
        federation.federate(replace(CONFIG, seed=1), folder)


def test_one_client_elsewhere_moves_alike(plain):
    """What a client computes alone, with its number and the global model, is its row of the stacked round."""
    run = federation._Run(CONFIG, None)
    start = run.start()
    moved, _ = run.moves(start.params, 1)
    flat_params = np.asarray(jax.flatten_util.ravel_pytree(start.params)[0])
    alone = federation.client_move(CONFIG, 2, flat_params, 1)
    np.testing.assert_allclose(alone, moved[2], atol=1e-6)
    server = federation.Server(CONFIG)
    np.testing.assert_array_equal(server.flat(), flat_params)
    assert set(server.take(alone, 1)) == {"test_accuracy", "test_loss"}
    np.testing.assert_allclose(server.flat(), flat_params + alone, atol=1e-6)


def test_sparse_uploads_feed_back_and_drop_outs_wait():
    config = replace(CONFIG, path="enclave", fraction=0.1, dropout=0.02, rounds=1)
    run = federation._Run(config, None)
    start = run.start()
    state, line = run.round(start)
    moved, _ = run.moves(start.params, 0)
    present = np.random.default_rng((0, 0)).random(4) >= 0.02
    assert line["clients"] == present.sum() < 4
    size = run.paths.dimension
    assert line["upload_bytes"] == present.sum() * (-(-size // 8) + 4 * round(0.1 * size) + 129)
    # nothing is lost: what did not arrive waits
    arrived = (flat_of(state.params) - flat_of(start.params)) * present.sum()
    np.testing.assert_allclose(arrived + state.residual.sum(axis=0), moved.sum(axis=0), atol=1e-5)
    np.testing.assert_allclose(state.residual[~present], moved[~present], atol=1e-6)


def test_constraints_pull_the_model_into_their_sets():
    """With ADMM the hard projection costs less, as the model was pulled there; what comes out lies in the sets."""
    rules = (("Dense_0/kernel", TopK(8)),)
    moved = {}
    for name, rho in (("pulled", 1.0), ("free", 1e-9)):
        config = replace(CONFIG, path="sefl", rounds=6, constraints=rules, rho=rho)
        run = federation._Run(config, None)
        state = run.start()
        for _ in range(6):
            state, _ = run.round(state)
        kernel = state.params["params"]["Dense_0"]["kernel"]
        moved[name] = float(TopK(8).violation(kernel))
    assert moved["pulled"] < 0.9 * moved["free"]
    result = federation.federate(replace(config, rounds=1))
    assert result.summary["violation"] == 0
    assert 0 <= result.summary["projected_test_accuracy"] <= 1
    assert int((np.asarray(result.state.params["params"]["Dense_0"]["kernel"]) != 0).sum()) == 8
    with pytest.raises(ValueError, match="pattern 'Dense_9' must match a parameter path"):
        federation.federate(replace(CONFIG, constraints=(("Dense_9", TopK(1)),)))


def flat_of(params):
    return np.asarray(jax.flatten_util.ravel_pytree(params)[0])


def test_common_support_under_masks():
    config = replace(CONFIG, path="sefl", fraction=0.25, rounds=1)
    run = federation._Run(config, None)
    start = run.start()
    state, line = run.round(start)
    changed = flat_of(state.params) != flat_of(start.params)
    magnitudes = np.abs(flat_of(start.params))
    assert changed.sum() <= round(0.25 * changed.size)
    assert magnitudes[changed].min() >= np.sort(magnitudes)[-round(0.25 * changed.size)]
    assert line["upload_bytes"] == 4 * (4 * round(0.25 * changed.size) + 160)


def test_too_few_clients_and_bad_configs():
    with pytest.raises(RefusedError, match="fewer than the least number 4"):
        federation.federate(replace(CONFIG, path="sefl", dropout=0.9, least=4))
    for more, sentence in (
        ({"split": "random"}, "split must be one of 'iid', 'shards', 'dirichlet'"),
        ({"path": "open"}, "path must be one of 'plain', 'sefl', 'enclave'"),
        ({"sigma": 1.0}, "sigma must be 0 where path is 'plain', got 1.0: only SEFL adds noise"),
        ({"least": 5}, "least must be a whole number of at least 2 and at most 4"),
        ({"fraction": 0.0}, "fraction must be above 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            replace(CONFIG, **more)


def test_batches_of_uneven_clients():
    split = (np.arange(5), np.arange(5, 17))
    batch_fn = federation.client_batches((np.arange(17),), split, jax.random.key(0), 4)
    seen = [np.concatenate(parts) for parts in zip(*(np.asarray(batch_fn(at)[0]) for at in range(3)), strict=True)]
    assert sorted(seen[1]) == list(range(5, 17))
    assert set(seen[0]) == set(range(5))


FILES = sorted(path for folder in ("enclave", "sefl") for path in (ROOT / "configs" / folder).glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_config_says_what_it_is(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert f"Command: python scripts/federate.py configs/{path.parent.name}/{path.name}" in text
    for word in ("Time:", "Score:"):
        assert word in text
    assert federation.load_config(path, ["rounds=3"]).rounds == 3


def test_script(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("federate", ROOT / "scripts" / "federate.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr("modicum.command.stop_at_once_on_interrupt", lambda: None)
    config = str(ROOT / "configs" / "sefl" / "digits.py")
    small = ["rounds=1", "local_steps=1", "clients=2", "--run", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["federate.py", config, *small])
    assert script.main() == 0
    assert "test accuracy" in capsys.readouterr().out
    for bad, sentence in (
        (["round=1"], "did you mean 'rounds'"),
        (["path=enclave", "--engine", "flower"], "path must be 'sefl' with fraction 1 on flower"),
    ):
        monkeypatch.setattr(sys, "argv", ["federate.py", config, *bad, "--run", str(tmp_path / "other")])
        assert script.main() == 2
        assert sentence in capsys.readouterr().err
