"""The accuracy tables: cells name recipes that exist, and lines hold what the cells say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from modicum.systems.compression_config import ARMS, load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def accuracy(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    import accuracy

    return accuracy


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    import accuracy_tables

    return accuracy_tables


def cell(arm, seed, dense, hard, final, **more):
    counts = {"constrained_weights": 800, "constrained_kept": 100, "dense_bytes": 4000, "packed_bytes": 500}
    facts = {"data": "digits", "model": "Net", "test_examples": 500, "steps": 60, "violation": 0.0}
    scores = {"dense_accuracy": dense, "hard_accuracy": hard, "accuracy": final}
    return {"arm": arm, "seed": seed, **scores, **counts, **facts, **more}


def test_every_row_is_a_recipe(accuracy):
    for name, rows in accuracy.TABLES.items():
        assert len({row.name for row in rows}) == len(rows), name
        for row in rows:
            load_recipe(ROOT / "configs" / row.recipe, row.settings(3))
            assert set(row.arms) <= set(ARMS)
            assert " | " not in row.name


def test_cells_go_seed_by_seed(accuracy):
    cells = accuracy.cells("digits", 2)
    assert [seed for _, _, seed in cells] == sorted(seed for _, _, seed in cells)
    assert len(set(cells)) == len(cells)


def test_a_cell_that_is_measured_stays(accuracy, monkeypatch, tmp_path):
    path = tmp_path / "results" / "accuracy-digits.json"
    assert accuracy.read(path) == {}
    accuracy.add(path, "b | admm | 0", {"accuracy": 0.5})
    accuracy.add(path, "a | admm | 0", {"accuracy": 0.25})
    assert accuracy.read(path) == {"a | admm | 0": {"accuracy": 0.25}, "b | admm | 0": {"accuracy": 0.5}}
    monkeypatch.setattr(accuracy, "TABLES", {"digits": (accuracy.Row("a", "none.py", arms=("admm",)),)})
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "digits", "--seeds", "1", "--results", str(path.parent)])
    monkeypatch.setattr(accuracy, "measure", lambda *_: pytest.fail("measured twice"))
    assert accuracy.main() == 0


def test_a_line_holds_means_spreads_and_paired_differences(tables, tmp_path):
    """Each number from its definition, by NumPy and SciPy."""
    admm, once = [0.97, 0.98, 0.96], [0.95, 0.97, 0.965]
    dense = [0.98, 0.985, 0.975]
    cells = {
        f"set | admm | {seed}": cell("admm", seed, dense[seed], 0.9, admm[seed], cpu_seconds=5.0 + seed)
        for seed in range(3)
    }
    cells |= {f"set | one_shot | {seed}": cell("one_shot", seed, dense[seed], 0.1, once[seed]) for seed in range(3)}
    path = tmp_path / "accuracy-digits.json"
    path.write_text(json.dumps({"table": "digits", "cells": cells}))
    line = tables.accuracy_table(path).splitlines()[-1]
    columns = [column.strip() for column in line.strip("|").split("|")]
    assert columns[:3] == ["set", "8.0x", "8.0x"]
    assert columns[3] == f"98.00 ± {100 * np.std(dense, ddof=1):.2f}%"
    assert columns[4] == f"90.0 → 97.00 ± {100 * np.std(admm, ddof=1):.2f}%"
    for column, reference in ((7, dense), (8, once)):
        low, high = stats.t.interval(
            0.95, 2, np.mean(np.subtract(admm, reference)), stats.sem(np.subtract(admm, reference))
        )
        assert columns[column] == f"{50 * (low + high):+.2f} ± {50 * (high - low):.2f}"
    assert columns[9:] == ["0", "3 x 60", "7", ""]


def test_rows_are_compared_seed_by_seed(tables, accuracy, monkeypatch, tmp_path):
    first, second = {0: 0.97, 1: 0.98, 2: 0.99}, {1: 0.97, 2: 0.99, 3: 0.5}
    cells = {f"a | admm | {seed}": cell("admm", seed, 0.9, 0.9, value) for seed, value in first.items()}
    cells |= {f"b | one_shot | {seed}": cell("one_shot", seed, 0.9, 0.9, value) for seed, value in second.items()}
    monkeypatch.setattr(accuracy, "COMPARISONS", {"digits": (accuracy.Comparison(("a", "admm"), ("b", "one_shot")),)})
    path = tmp_path / "accuracy-digits.json"
    path.write_text(json.dumps({"cells": cells}))
    low, high = stats.t.interval(0.95, 1, 0.5, stats.sem([1.0, 0.0]))
    assert tables.accuracy_table(path).splitlines()[-1] == f"- a - b: +0.50 ± {(high - low) / 2:.2f} (2 seeds)"


def test_comparisons_name_rows(accuracy):
    for table, pairs in accuracy.COMPARISONS.items():
        arms = {(row.name, arm) for row in accuracy.TABLES[table] for arm in row.arms}
        assert {side for pair in pairs for side in pair} <= arms


def test_a_violation_is_shown(tables, tmp_path):
    path = tmp_path / "accuracy-digits.json"
    path.write_text(json.dumps({"cells": {"set | admm | 0": cell("admm", 0, 0.9, 0.9, 0.9, violation=0.25)}}))
    assert "| 0.25 |" in tables.accuracy_table(path)
