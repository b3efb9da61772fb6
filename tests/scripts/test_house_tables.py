"""The small tables hold what their JSON says, by hand."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = {"versions": {"machine": {"cores": 2}, "jax": "0", "commit": "abcdefghij"}}


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    import house_tables

    return house_tables


def write(folder, name, entry):
    (folder / f"{name}.json").write_text(json.dumps(entry | MADE))


def test_imports_without_the_interpreter(tables, tmp_path):
    rows = {
        "bare interpreter": {"cpu_seconds": 0.5},
        "modicum.core": {"cpu_seconds": 2.5, "own_cpu_seconds": 2.0, "cpu_ratio_to_jax": 1.25},
    }
    write(tmp_path, "import-time", {"rows": rows, "rounds": 9})
    shown = tables.import_table(tmp_path).splitlines()
    assert shown[2:] == [
        "| `modicum.core` | 2.00 | 1.25x |",
        "",
        "Medians of 9 fresh processes that took turns, 2 cores, jax 0, commit abcdefg.",
    ]


def test_networks_from_torch_and_to_litert(tables, tmp_path):
    good = {"relative_difference": 2.5e-7, "same_classes": True, "numbers": 1234}
    bad = {"relative_difference": 0.5, "same_classes": False, "numbers": 1234}
    rows = {"gru": {"safetensors": good, "ONNX": {"refused by modicum": "source must ..."}, "ONNX, folded": bad}}
    write(tmp_path, "torch-peers", {"rows": rows, "peers": {"torch": "2"}})
    made = {"LeNet": {"weights": 61706, "bytes": 250000, "seconds": 0.26, **good}}
    write(tmp_path, "litert-files", {"rows": made, "packages": {"litert-converter": "0.5.0"}})
    shown = tables.interchange_tables(tmp_path)
    assert "| gru | 1,234 | 2.5e-07 | refused, in a sentence | 5.0e-01, other classes |" in shown
    assert "; torch 2, 2 cores, jax 0, commit abcdefg." in shown
    assert "| LeNet | 61,706 | 250,000 | 2.5e-07 |" in shown


def test_tables_without_results_are_empty(tables, tmp_path):
    assert tables.import_table(tmp_path) == tables.interchange_tables(tmp_path) == ""
