"""The main job at a small size: what it reports is what it made, and it resumes bit-equal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import admm, core, mobile, train
from modicum.systems import quickstart, quickstart_config, quickstart_view

ROOT = Path(__file__).parents[2]
SMALL = [
    "seeds=1",
    "widths=8,16",
    "dense_steps=60",
    "outer=3",
    "inner=10",
    "retrain=30",
    "chips=5",
    "chip_batch=2",
    "chip_images=60",
]


def config():
    return train.parse_overrides(quickstart_config.default_config("digits"), SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "quickstart"
    outcome = quickstart.run(config(), folder)
    quickstart_view.figure(outcome, folder / "figure.png")
    return outcome, folder


def test_every_compressed_weight_lies_in_its_set(finished):
    outcome, _ = finished
    for seed in outcome.seeds:
        for arm in seed.arms.values():
            sets = admm.constrained_by_path(arm.result.constraints, arm.result.constraints)
            weights = core.leaves_by_path(arm.result.params)
            assert len(sets) == 3
            assert all(float(each.violation(weights[path])) == 0 for path, each in sets.items())
    assert outcome.summary["violation"] == 0
    assert outcome.summary["round_trip"] is True


def test_inner_convolution_has_the_structure_it_was_told(finished):
    """By hand, in NumPy: kernels per filter, library patterns, one sign per two kernels, seven magnitudes."""
    outcome, _ = finished
    weight = np.asarray(outcome.seeds[0].arms["admm"].result.params["params"]["Conv_1"]["kernel"])
    sets = quickstart_config.sets_for(config(), outcome.seeds[0].dense)
    library = sets["params"]["Conv_1"]["kernel"].members[1].library
    kernels = weight.reshape(9, weight.shape[2], weight.shape[3])
    kept = (kernels != 0).any(0)
    assert (kept.sum(0) <= round(0.5 * weight.shape[2])).all()
    for channel, unit in np.argwhere(kept):
        kernel = kernels[:, channel, unit]
        assert any(set(np.flatnonzero(kernel)) <= set(pattern) for pattern in library)
    signs = np.sign(kernels.transpose(1, 0, 2).reshape(-1, 18, kernels.shape[2]))
    assert not ((signs > 0).any(1) & (signs < 0).any(1)).any()
    assert len(set(np.abs(weight[weight != 0]).tolist())) <= 7


def test_both_arms_make_the_same_number_of_steps(finished):
    outcome, _ = finished
    steps = {arm: outcome.seeds[0].arms[arm].result.report.steps for arm in quickstart.ARMS}
    assert steps == {"admm": 60, "one_shot": 60}


def test_bundle_on_disk_gives_the_reported_accuracy(finished):
    outcome, folder = finished
    test = train.load("digits", "test")
    logits = mobile.load(folder / "bundle")(jnp.asarray(test.inputs))
    correct = int((np.asarray(logits).argmax(-1) == test.labels).sum())
    np.testing.assert_allclose(correct / 500, outcome.summary["admm"][0], atol=0.002)


def test_reported_bytes_are_those_of_the_arrays(finished):
    outcome, _ = finished
    result = outcome.seeds[0].arms["admm"].result
    leaves = core.leaves_by_path(result.params)
    packed = sum(np.asarray(array).nbytes for each in result.packed.values() for array in jax.tree.leaves(each))
    free = sum(leaf.nbytes for path, leaf in leaves.items() if path not in result.packed)
    assert outcome.summary["packed_bytes"] == packed + free
    assert outcome.summary["dense_bytes"] == sum(leaf.nbytes for leaf in leaves.values())


def test_chips_differ_and_each_depends_on_its_number_alone(finished, tmp_path):
    outcome, _ = finished
    assert len(outcome.chips) == 5
    assert len(set(outcome.chips)) > 1 or outcome.config.sigma == 0
    test = train.load("digits", "test")
    programs = quickstart.Programs.of(config(), 10)
    images, labels = jnp.asarray(test.inputs[:60]), test.labels[:60]
    key = jax.random.fold_in(jax.random.key(0), 5)
    one = quickstart.simulated(outcome.config, programs.apply_fn)
    params = outcome.seeds[0].arms["admm"].result.params
    for chip in (0, 4):
        logits = one(jax.random.fold_in(key, chip), params, images)
        assert float((logits.argmax(-1) == labels).mean()) == pytest.approx(outcome.chips[chip], abs=1e-6)


def test_ideal_chip_agrees_with_the_digital_network(finished):
    """Weights are on the grid and the converter is ideal: only the 8-bit activations differ."""
    outcome, _ = finished
    test = train.load("digits", "test")
    programs = quickstart.Programs.of(config(), 10)
    logits = programs.apply_fn(outcome.seeds[0].arms["admm"].result.params, jnp.asarray(test.inputs[:60]))
    digital = float((logits.argmax(-1) == test.labels[:60]).mean())
    assert abs(outcome.summary["ideal_chip"] - digital) <= 2 / 60


def test_figure_and_table(finished):
    outcome, folder = finished
    import cv2

    picture = cv2.imread(str(folder / "figure.png"))
    assert picture.shape[0] > 300
    assert picture.shape[1] > 900
    assert picture.std() > 10
    shown = quickstart_view.table(outcome, folder)
    cells = [cell for column in shown.columns for cell in column.cells]
    assert any("violation" in cell for cell in cells)
    assert f"{outcome.summary['packed_bytes']:,} of {outcome.summary['dense_bytes']:,}" in cells


def test_results_are_json_and_independent_of_the_machine(finished):
    outcome, folder = finished
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(outcome.summary))
    assert not any("second" in name for name in outcome.summary)


def _command(folder, *more):
    return [sys.executable, str(ROOT / "scripts" / "quickstart.py"), "--run", str(folder), *SMALL, *more]


@pytest.mark.slow
def test_interrupted_run_ends_bit_equal(finished, tmp_path):
    """Killed or interrupted where each stage has just begun; the last call finishes the run."""
    outcome, reference = finished
    folder = tmp_path / "cut"
    # what the finished run compiled is read, see conftest.py: the test cuts the work, not XLA
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT / "src")}
    cuts = {
        "seed-0/dense/checkpoints": signal.SIGKILL,
        "seed-0/admm/admm": signal.SIGINT,
        "seed-0/one_shot/retrain": signal.SIGKILL,
        "chips.json": signal.SIGKILL,
    }
    for cut, sign in cuts.items():
        process = subprocess.Popen(_command(folder), env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not (folder / cut).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(sign)
        _, message = process.communicate()
        if sign == signal.SIGINT and process.returncode:
            assert process.returncode == 130
            assert b"run the same command again to go on" in message
    subprocess.run(_command(folder), env=environment, check=True, capture_output=True)
    assert json.loads((folder / "results.json").read_text()) == outcome.summary
    for name in ("model.mlir", "weights.npz"):
        assert (folder / "bundle" / name).read_bytes() == (reference / "bundle" / name).read_bytes()


def _main(monkeypatch, *arguments):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import quickstart as script

    monkeypatch.setattr(sys, "argv", ["quickstart.py", *map(str, arguments)])
    previous = signal.getsignal(signal.SIGINT)
    try:
        return script.main()
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["chipz=3"], "override must name a setting, got 'chipz': did you mean 'chips'?"),
        (["chips=many"], "chips must be a whole number, got 'many'"),
        (["bits=1"], "bits must be a whole number of at least 2 and at most 8, got 1"),
        (["connectivity=1.5"], "connectivity must lie from 0 to 1, got 1.5"),
        (["widths=16"], "widths must have at least two convolutions, got (16,)"),
        (["--data", "mnist"], "tfds"),
        (["--data", "no_such_set"], "no_such_set"),
        (["--data", "spoken_digit"], "spoken_digit"),
    ],
)
def test_bad_input_is_one_sentence(monkeypatch, capsys, tmp_path, arguments, sentence):
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path / "absent"))
    folder = tmp_path / "run"
    assert _main(monkeypatch, "--run", folder, *arguments) == 2
    message = capsys.readouterr().err.strip()
    assert sentence in message
    assert len(message.splitlines()) == 1
    assert not folder.exists()


def test_a_folder_of_another_run_is_refused(monkeypatch, capsys, finished):
    _, folder = finished
    assert _main(monkeypatch, "--run", folder, *SMALL, "chips=7") == 2
    assert "chips" in capsys.readouterr().err


def test_connectivity_of_one_keeps_every_kernel():
    params = quickstart_config.network(config(), 10).init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    sets = quickstart_config.sets_for(train.parse_overrides(config(), ["connectivity=1"]), params)
    projected = admm.project(admm.fit(sets, params), params)
    weight = projected["params"]["Conv_1"]["kernel"]
    assert float((jnp.abs(weight).sum((0, 1)) > 0).mean()) > 0.95
