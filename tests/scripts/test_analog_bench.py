"""The benches of simulated chips: what they would run, what their tables say."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    import chips
    import effective_cycles
    from analog_bench import tables

    return chips, effective_cycles, tables


def test_every_cell_is_a_simulation_with_its_own_name(bench):
    from modicum.systems.simulation_config import device_name, load_simulation

    chips, _, _ = bench
    assert len({cell.name for cell in chips.CELLS}) == len(chips.CELLS)
    for cell in chips.CELLS:
        settings = load_simulation(ROOT / "configs" / cell.config, cell.settings, cell.device)
        assert device_name(settings) == cell.device
    varied = load_simulation(
        ROOT / "configs" / chips.CELLS[-1].config, chips.CELLS[-1].settings, chips.CELLS[-1].device
    )
    assert (varied.chips, varied.spec.sigma) == (50, 0.1)


def test_a_full_crossbar_without_skipping(bench):
    # 128 / 1.2 GHz against 16 fragments of 128 / (4 x 2.1 GHz)
    assert bench[1].full_crossbar(8) == pytest.approx(106.67 / 243.81, rel=1e-4)
    assert bench[1].full_crossbar(16) == pytest.approx(2 * bench[1].full_crossbar(8))


def test_the_speed_up_is_the_product_of_what_it_is_made_of(bench):
    layer = {"effective_cycles": 4.0, "seconds": 1.0, "unskipped_seconds": 2.0, "isaac_seconds": 3.0}
    layer |= {"joules": 2.0, "isaac_joules": 5.0}
    layers = [
        {**layer, "crossbars": 2, "isaac_crossbars": 2},
        {**layer, "seconds": 2.0, "crossbars": 1, "isaac_crossbars": 4},
    ]
    found = bench[1].summary(layers)
    # work: 2 x 1 + 1 x 2 with skipping, 2 x 2 + 1 x 2 without, 2 x 3 + 4 x 3 for ISAAC
    assert found["speedup"] == pytest.approx(18 / 4)
    assert found["skip_gain"] == pytest.approx(6 / 4)
    assert found["unskipped_speedup"] * found["skip_gain"] == pytest.approx(found["speedup"])
    assert found["work_per_joule"] == pytest.approx(2.5)
    assert found["speedup_slowest_layer"] == pytest.approx(3 / 2)


def test_tables_show_what_was_measured(bench, tmp_path):
    cell = {"software": 0.9939, "chips": [0.99, 0.98], "data": "mnist", "model": "LeNet5", "test_examples": 10000}
    cell |= {"total": {"energy_joules": 5e-8, "latency_seconds": 2e-6, "crossbars": 12, "area_mm2": 0.5}}
    cell |= {"anchor": "98.8%", "commit": "0123456789"}
    (tmp_path / "chips.json").write_text(json.dumps({"cells": {"one macro": cell}}))
    text = bench[2].tables(tmp_path, lambda values: f"{values}")
    assert "| LeNet5 on mnist: one macro | 0.9939 | [0.99, 0.98] | 98.00% | -0.89 | 2 x 10,000 | 50 / 2.0 |" in text
    assert "0123456" in text
    varied = {
        name: {**cell, "chips": [value]}
        for name, value in (("FORMS, fragments of 8, sigma 0.1", 0.99), ("not polarized, sigma 0.1", 0.9905))
    }
    (tmp_path / "chips.json").write_text(json.dumps({"cells": varied}))
    assert "0.390 points polarized, 0.340 not; polarization adds +0.050" in bench[2].tables(tmp_path, str)
