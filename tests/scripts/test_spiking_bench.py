"""The benchmark of spiking networks: figures as defined, tiny settings, peers where their environments are."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "scripts" / "bench"
TINY = {"channels": 2, "side": 8}


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def test_exponent_is_the_slope_in_double_logarithms():
    from spiking_bench import memory

    power = {steps: 3.0 * steps**0.5 for steps in (4, 16, 64, 256)}
    assert memory.exponent(power) == pytest.approx(0.5)
    assert memory.exponent({4: 9.0, 16: 9.0, **{steps: 7.0 * steps for steps in (64, 256)}}, 64) == pytest.approx(1)
    assert memory.exponent({64: 5.0, 256: 5.0, 1024: 50.0}, most=256) == pytest.approx(0, abs=1e-12)
    assert memory.exponent({64: 5.0}) is None


def test_summary_compares_with_the_plain_run_of_the_same_neuron():
    from spiking_bench import memory

    sizes = {"lif autodiff": 8.0, "carry autodiff": 9.0, "packed": 0.5, "reversible": 0.0, "carry sqrt": 1.0}
    cells = {
        f"{scheme} | 16 | {steps}": {"scheme": scheme, "depth": 16, "steps": steps, "temp_bytes": 2 + slope * steps}
        for scheme, slope in sizes.items()
        for steps in (64, 128, 256)
    }
    rows = {row["scheme"]: row for row in memory.summary(cells)}
    assert rows["reversible"]["exponent"] == pytest.approx(0, abs=1e-9)
    assert rows["reversible"]["carry autodiff / this"]["128"] == pytest.approx((2 + 9 * 128) / 2)
    assert rows["reversible"]["carry sqrt / this"]["256"] == pytest.approx((2 + 256) / 2)
    assert rows["packed"]["lif autodiff / this"]["64"] == pytest.approx((2 + 8 * 64) / (2 + 32))


def test_nodes_keep_what_was_derived():
    from spiking_bench import memory

    rows = {(row["node"], row["steps"]): row for row in memory.nodes((15, 64), neurons=64)}
    last = rows["reversible", 64]
    assert last["bytes"] == rows["reversible", 15]["bytes"] == 2 * 64
    assert rows["packed", 64]["bytes_per_neuron_step_with_synapse"] == 0.25
    for steps, least in ((15, 58.65), (64, 256)):
        assert rows["lif autodiff", steps]["bytes_with_synapse"] >= least * rows["reversible", steps]["bytes"]


def test_memory_is_written_and_drawn(tmp_path, monkeypatch):
    from spiking_bench import memory, tables

    import spiking

    monkeypatch.setattr(memory, "COUPLED", {"plain": memory.COUPLED["plain"]})
    words = ["memory", "--steps", "2,3", "--depths", "1", "--blocks", "2,3", "--node-steps", "4", "--no-long"]
    words += ["--channels", "2", "--side", "8", "--schemes", "reversible"]
    monkeypatch.setattr(sys, "argv", ["spiking.py", *words, "--results", str(tmp_path)])
    monkeypatch.setenv("XLA_FLAGS", "")
    assert spiking.main() == 0
    entry = json.loads((tmp_path / "spiking-memory.json").read_text())
    assert set(entry["versions"]) >= {"commit", "jax", "machine"}
    assert len(entry["cells"]) == 2
    assert all(cell["temp_bytes"] > 0 for cell in entry["cells"].values())
    assert set(entry["coupled"]["exponents"]) == {"plain"}
    assert (tmp_path / "spiking-memory.png").stat().st_size > 1000
    shown = tables.tables(tmp_path, str, str)
    assert "| reversible | " in shown
    assert "exponent in depth" in shown


def test_times_are_taken_in_turns():
    from spiking_bench import timing

    order = []
    times = timing.in_turns({name: lambda name=name: order.append(name) for name in "abc"}, 2)
    assert order == ["a", "b", "c", "b", "c", "a"]
    assert times["a"]["samples"] == 2
    assert times["a"]["cpu_seconds_min"] <= times["a"]["cpu_seconds_median"]
    fixed = {name: {"cpu_seconds_min": value, "cpu_seconds_median": 3.0} for name, value in (("x", 1.0), ("y", 4.0))}
    assert timing.ratios(fixed, [("x", "y"), ("x", "absent")]) == {"x / y": {"min": 0.25, "median": 1.0}}


def test_schemes_of_one_neuron_make_the_same_update(monkeypatch):
    from spiking_bench import network, timing

    chosen = ("carry autodiff", "reversible")
    monkeypatch.setattr(network, "SCHEMES", {name: network.SCHEMES[name] for name in chosen})
    found = timing.networks(0, 3, rounds=1, **TINY)
    assert set(found["times"]) == set(chosen)
    for row in found["times"].values():
        assert np.isfinite(row["loss"])
        assert row["update_difference"] == 0
    assert "reversible / carry autodiff" in found["ratios"]


def test_nodes_and_operators_are_timed():
    from spiking_bench import timing

    found = timing.nodes(rounds=1, neurons=32, steps=3)
    assert set(found["ratios"]) == {"streamlined / standard", "streamlined / plain"}
    (row,) = timing.operators((2,), rounds=1, **TINY)
    assert row["times"]["ours, in a loop"]["gradient_difference"] < 1e-5
    assert set(row["ratios"]) == {"xla, in a loop / ours, in a loop", "xla, unrolled / ours, in a loop"}


def test_ratios_of_peers():
    from spiking_bench import peers

    rows = [
        {"engine": "modicum_packed", "cpu_ms_median": 2.0, "step_bytes": 10},
        {"engine": "spyx", "cpu_ms_median": 6.0, "step_bytes": 220},
        {"engine": "snntorch", "error": "snntorch: absent"},
    ]
    assert peers.ratios(rows) == {"modicum_packed": {"spyx": {"time": 3.0, "memory": 22.0}}}


def test_an_absent_environment_is_one_sentence(tmp_path, monkeypatch):
    from spiking_bench import peers

    monkeypatch.setattr(peers, "programs_of", lambda name: tmp_path / name)
    found = peers.facts("snntorch", tmp_path)
    assert found["error"].startswith("snntorch: ")


def test_accuracies_are_paired_by_seed():
    from spiking_bench import tables

    def cell(accuracy):
        made = {"config": {"epochs": 3, "steps": None}, "commit": "abcdefghij"}
        return {"test_accuracy": accuracy, "residuals": "packed", "time_steps": 8, **made}

    cells = {"digits | packed LIF | 0": cell(0.97), "digits | packed LIF | 1": cell(0.98)}
    cells |= {"digits | arctan LIF | 1": cell(0.975), "digits | memory": {"bytes": {}, "commit": "abcdefghij"}}
    shown = tables.accuracy_table(cells, lambda values: f"{len(values)} values", lambda found: f"{100 * found[0]:+.2f}")
    assert "| digits | packed LIF | packed | 8 | 3 | 2 | 2 values | +0.50 |" in shown.splitlines()
    assert shown.endswith("Commits abcdefg.")


def test_readme_without_marks_is_left_as_it_is(monkeypatch, tmp_path):
    import tables

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.written("no marks") == "no marks"
    start, end = tables.marks("spiking")
    marked = f"{start}\nold\n{end}"
    assert tables.written(marked) == f"{start}\n\n{end}"


@pytest.mark.parametrize("engine", ["spikingjelly_memopt", "spyx"])
def test_peers_train_the_same_network(engine, tmp_path):
    from spiking_bench import peers

    if not peers.command(engine).python.exists():
        pytest.skip(f"no environment of {engine}: scripts/bench/spiking_bench/setup.sh makes it")
    peers.write(tmp_path, 0, 4, **TINY)
    found = peers.facts(engine, tmp_path)
    assert "error" not in found
    trained = sum(np.size(kernel) for kernel in np.load(tmp_path / "weights.npz").values())
    assert found["parameters"] == trained
    assert np.isfinite(found["loss"])
    assert found["step_bytes"] > 0


def test_an_unknown_engine_is_told():
    script = BENCH / "spiking_bench" / "peer_engines.py"
    result = subprocess.run(
        [sys.executable, str(script), "nobody", "nowhere"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "engine must be one of" in result.stdout


def test_the_accelerators_bench_runs_on_whatever_there_is(monkeypatch, tmp_path):
    from spiking_bench import network, tables

    import spiking

    chosen = ("carry autodiff", "reversible", "lif autodiff", "packed", "packed layer")
    monkeypatch.setattr(network, "SCHEMES", {name: network.SCHEMES[name] for name in chosen})
    words = ["accelerator", "--steps", "3", "--depth", "0", "--batch", "2", "--rounds", "1", "--channels", "2"]
    monkeypatch.setattr(sys, "argv", ["spiking.py", *words, "--side", "8", "--results", str(tmp_path)])
    monkeypatch.setenv("MODICUM_COMMIT", "abcdefghij")
    assert spiking.main() == 0
    entry = json.loads((tmp_path / "spiking-accelerator.json").read_text())
    assert entry["long_inverse_differs"] == {"Carry": 0, "FixedPointLIF": 0}
    rows = entry["networks"][0]["rows"]
    assert set(rows) == set(chosen)
    assert rows["reversible"]["update_difference"] == 0
    assert rows["packed"]["update_difference"] == 0
    assert "does not fit" not in tables.tables(tmp_path, str, str)
    assert "commit abcdefg." in tables.tables(tmp_path, str, str)


def test_a_cell_that_was_cut_off_goes_on(tmp_path):
    import spiking_accuracy

    words = ["data.name=digits", "steps=3", "batch=8", "model.steps=2"]
    task = spiking_accuracy.Task("mnist", overrides=("data.augment=false",))
    found = spiking_accuracy.measure(task, "packed LIF", words, tmp_path / "run")
    assert found["test_examples"] == 500
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "checkpoints" in path.parts)
    again = spiking_accuracy.measure(task, "packed LIF", words, tmp_path / "run")
    assert again["test_accuracy"] == found["test_accuracy"]
    assert before == sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "checkpoints" in path.parts)
