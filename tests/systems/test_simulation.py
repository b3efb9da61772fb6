"""A network from its run folder onto chips: scripts/simulate.py and what is behind it, on the bundled digits."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from modicum import train
from modicum.analog import ChargeSpec, charge_cost
from modicum.core import matmul_form, sites
from modicum.systems import simulation, simulation_view
from modicum.systems.simulation_config import load_simulation

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "configs" / "train" / "digits.py"
SMALL = ["network.steps=80", "images=60", "batch=30", "chips=2"]
FORMS = [*SMALL, "spec.sigma=0.1", "spec.input_bits=4", "spec.weight_bits=4", "variations=0.1,1.5"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulate")
    settings = load_simulation(DIGITS, FORMS)
    return settings, simulation.run(settings, folder / "net", folder / "chips"), folder


def test_accuracy_and_cost_are_of_the_same_run(simulated):
    settings, outcome, folder = simulated
    summary = json.loads((folder / "chips" / "result.json").read_text())
    assert summary == json.loads(json.dumps(outcome.summary))
    # the metered run is the first chip's
    assert summary["measured_accuracy"] == summary["chips"][0] > 0.5
    assert summary["variations"]["0.1"] == summary["chips"]
    assert np.mean(summary["variations"]["1.5"]) < np.mean(summary["chips"])
    assert summary["counted_examples"] == 60
    macs = {site.name: site.macs for site in sites(settings.experiment.model.apply, *_problem(settings, folder))}
    assert {layer["name"]: layer["macs"] for layer in summary["layers"]} == macs
    for layer in summary["layers"]:
        assert 0 < layer["activity"]["effective_bits"] <= 4
        assert sum(layer["parts"].values()) == pytest.approx(layer["energy_joules"])


def _problem(settings, folder):
    state = train.train(settings.experiment, folder / "net").state
    return state.params, train.load_split(settings.experiment.data, "test").inputs[:1]


def test_pictures_and_table(simulated):
    settings, outcome, folder = simulated
    drawn = simulation_view.figures(settings, outcome.summary, folder / "chips")
    assert [path.name for path in drawn] == ["accuracy.png", "energy.png", "cycles.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    console = Console(record=True, width=200)
    console.print(simulation_view.table(outcome.summary, folder))
    assert "effective bits" in console.export_text()


def test_the_transfer_curve_of_an_ideal_macro_is_a_staircase():
    # steps of 29 products: no sum lies half-way between codes
    ideal = ChargeSpec(noise_lsb=0.0, dac_volts=0.0, residue_volts=0.0, lsb=29.0)
    curve = simulation_view.transfer(ideal, chips=1, reads=1)
    np.testing.assert_array_equal(curve["codes"][0], np.clip(np.round(np.arange(129) * 15 / 29), -64, 63))
    bent = simulation_view.transfer(ChargeSpec(noise_lsb=0.0, dac_volts=0.0, residue_volts=0.0, inl_lsb=2.0), 1, 1)
    assert 1.0 < np.nanmax(np.abs(bent["inl"])) < 3.0
    assert np.nanmax(np.abs(curve["inl"])) < 0.6


def test_the_command_goes_on_and_refuses_in_one_sentence(simulated):
    _, outcome, folder = simulated

    def command(*words):
        script = [sys.executable, ROOT / "scripts" / "simulate.py", DIGITS, *words]
        return subprocess.run(script, cwd=folder, capture_output=True, text=True, timeout=300)

    done = command(*FORMS, "--run", "net", "--to", "chips")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "chips" / "result.json").read_text()) == json.loads(json.dumps(outcome.summary))
    wrong = command(*FORMS, "chips=3", "--run", "net", "--to", "chips")
    assert wrong.returncode == 2
    assert "holds a run with chips=2, got 3" in wrong.stderr.splitlines()[-1]


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="device must be one of"):
        load_simulation(DIGITS, device="toaster")
    with pytest.raises(ValueError, match="override must name a setting"):
        load_simulation(DIGITS, ["spec.fragmant=3"])
    with pytest.raises(ValueError, match="quantile must lie from 0 to 1"):
        load_simulation(DIGITS, ["quantile=2"])


def test_lenet_fits_one_macro():
    """Slices of 128 rows that hold all of its digits, against the 8 rows of 64 slices that there are."""
    settings = load_simulation(ROOT / "configs" / "capram" / "mnist.py")
    model = settings.experiment.model
    image = jnp.zeros((1, 28, 28, 1))
    slices = 0
    for site in sites(model.apply, jax.eval_shape(model.init, jax.random.key(0), image), image):
        spec, form = settings.spec_of(site.leaf), matmul_form(site)
        slices += -(-form.rows * spec.copies // 128) * form.columns * spec.digits * spec.polarities
    assert slices <= charge_cost.CAPRAM.rows * charge_cost.CAPRAM.slices
