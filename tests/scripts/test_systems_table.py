"""The table of systems: every row has a figure or a cause, verdicts follow from the numbers, and no cause is stale."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "scripts" / "bench" / "results"
TEN = {"spiking", "patdnn", "pattern", "rtmobile", "unification", "forms", "capram", "sefl", "enclave", "conference"}
FIGURE, OUTCOME = 3, 4


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    from systems_bench import rows, tables

    return rows, tables


def judged(bench, folder=RESULTS):
    rows, tables = bench
    results = rows.reader(folder)
    return [(name, row, row.find(results)) for name, (_, found) in tables.SYSTEMS.items() for row in found]


def test_every_system_has_rows_and_every_row_a_figure_or_a_cause(bench):
    found = judged(bench)
    assert {name for name, _, _ in found} == TEN | {"pipelines"}
    assert all(3 <= sum(name == system for name, _, _ in found) <= 8 for system in TEN)
    for name, row, figure in found:
        cells = bench[0].cells_of(row, figure)
        assert all("|" not in cell and "\n" not in cell for cell in cells), (name, row.claim)
        because = re.match("not reached, because (.{20,})", cells[OUTCOME])
        # an aim that is set is judged, and a figure that misses it has a cause
        assert figure is None or (figure.met is None) == (not row.aim), (name, row.claim)
        missed = figure is not None and figure.met is False
        assert not missed or row.missed, f"{name}: {row.claim!r} is missed by its figure: give it a cause (`missed=`)"
        assert bool(because) == (figure is None or missed), (name, row.claim)
        assert cells[FIGURE] or because, (name, row.claim)
        assert row.paper
        assert figure is None or figure.made, (name, row.claim)


def test_a_cause_goes_when_its_aim_is_reached(bench):
    for name, row, figure in judged(bench):
        if figure is not None and figure.met is not False:
            assert not row.missed, f"{name}: {row.claim!r} is reached now: take its `missed` away"


def test_scripts_that_are_said_to_measure_exist(bench):
    for name, row, _ in judged(bench):
        script = row.script.split(" ")[0]
        assert not script or (ROOT / "scripts" / "bench" / script).is_file(), (name, script)


def test_without_results_every_row_says_why(bench, tmp_path):
    for name, row, figure in judged(bench, tmp_path):
        assert figure is None, (name, row.claim)
        assert len(bench[0].outcome(row, figure)) > len("not reached, because ") + 10


def test_figures_are_those_of_the_json(bench):
    """By hand, a few of each kind."""
    shown = {name: bench[1].table(name, RESULTS) for name in TEN}

    def read(name):
        return json.loads((RESULTS / f"{name}.json").read_text())

    ratios = read("secure-sum")["ratios"]
    assert (
        f"| {ratios['hankel_32_faster']:.1f}x ({ratios['hankel_32_faster_million']:.1f}x) | reached |" in shown["sefl"]
    )
    cells = [
        cell for name, cell in read("accuracy-mnist")["cells"].items() if name.startswith("unstructured, 71x | admm")
    ]
    assert f"{sum(cell['accuracy'] for cell in cells) / len(cells):.2%}"[:-1] in shown["patdnn"]
    kept = {(row["node"], row["steps"]): row["bytes_with_synapse"] for row in read("spiking-memory")["nodes"]}
    assert f"{kept['lif autodiff', 64] / kept['reversible', 64]:.0f}x at T = 64" in shown["spiking"]
    chip = read("chip-cost")["chips"]["FORMS"]["chip_milliwatts"]
    assert f"FORMS {chip:,.2f} mW" in shown["forms"]
    made = read("federated")["enclave-mnist"]
    assert f"{100 * made['result']['test_accuracy']:.2f}% with" in shown["enclave"]
    assert made["versions"]["commit"][:7] in shown["enclave"]


def test_verdicts_follow_from_the_numbers(bench, tmp_path):
    rows, tables = bench
    entry = json.loads((RESULTS / "secure-sum.json").read_text())
    (row,) = (row for row in tables.SYSTEMS["sefl"][1] if row.aim == ">= 13.7x")
    for value, met in ((13.7, True), (13.69, False)):
        folder = tmp_path / str(value)
        folder.mkdir()
        ratios = {**entry["ratios"], "hankel_32_faster": value}
        (folder / "secure-sum.json").write_text(json.dumps({**entry, "ratios": ratios}))
        assert row.find(rows.reader(folder)).met is met


def test_a_pipeline_that_is_collected_shows_its_last_stage(bench, tmp_path):
    stages = [{"stage": "compressed", "figures": {"weights": 9}}, {"stage": "on forms", "figures": {"chips": 4}}]
    made = {"commit": "abcdefghij", "machine": {"cores": 2, "backend": "cpu", "devices": ["cpu"]}}
    (tmp_path / "pipelines.json").write_text(json.dumps({"spiking_chips": {"lines": stages, "versions": made}}))
    lines = bench[1].table("pipelines", tmp_path).splitlines()
    assert (
        sum("| on forms: chips 4 | measured, no aim | `pipelines.py`, 2 cores | abcdefg |" in line for line in lines)
        == 1
    )
    assert sum("not reached, because `modicum pipeline" in line for line in lines) == 4


def test_chip_cost_is_the_cost_model_of_today(bench):
    """The JSON holds sums of tables: they may not lag behind the code."""
    import chip_cost

    stored = json.loads((RESULTS / "chip-cost.json").read_text())
    made = json.loads(json.dumps(chip_cost.entry()))
    assert {name: stored[name] for name in made} == made


def test_one_system_by_the_command():
    def run(name):
        command = [sys.executable, str(ROOT / "scripts" / "tables.py"), name]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    good, bad = run("capram"), run("capra")
    assert good.returncode == 0
    assert good.stdout.startswith("**CAP-RAM")
    assert bad.returncode == 2
    assert len(bad.stderr.strip().splitlines()) == 1
    assert all(name in bad.stderr for name in TEN)
    assert bad.stdout == ""
