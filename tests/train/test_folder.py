"""Metrics files that a kill cut short, and run folders: opened, refused, started over."""

import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from modicum.core import checkpoint
from modicum.train import metrics, report

LINES = [{"step": step, "loss": 1 / 3 / step, "accuracy": 0.5} for step in range(1, 6)]


def test_append_read_truncate(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert metrics.read(path) == []
    metrics.append(path, LINES[:2])
    metrics.append(path, LINES[2:])
    assert metrics.read(path) == LINES
    whole = path.read_bytes()
    metrics.truncate(path, 5)
    assert path.read_bytes() == whole
    metrics.truncate(path, 3)
    assert metrics.read(path) == LINES[:3]
    metrics.append(path, LINES[3:])
    assert path.read_bytes() == whole
    metrics.truncate(path, 0)
    assert path.read_bytes() == b""
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_file_cut_at_any_byte_resumes_to_the_same_bytes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, LINES)
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = len(metrics.read(path))
        assert kept == whole[:cut].count(b"\n")
        metrics.truncate(path, min(kept, 2))
        metrics.append(path, LINES[min(kept, 2) :])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("strange", ['{"step": 1', "17\n", "[1]\n", '{"loss": 1}\n', "\x00\x00\n"])
def test_reading_ends_at_a_strange_line(tmp_path, strange):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, LINES[:2])
    with path.open("a") as file:
        file.write(strange)
    assert metrics.read(path) == LINES[:2]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_comes_back_bit_for_bit(value):
    written = json.dumps({"step": 1, "loss": float(np.float32(value))})
    again = json.dumps(json.loads(written))
    assert again == written
    assert np.float32(json.loads(again)["loss"]).tobytes() == np.float32(value).tobytes()


def test_first_not_finite():
    assert metrics.first_not_finite(LINES) is None
    bad = [*LINES, {"step": 6, "loss": 1.0, "norm": float("inf")}, {"step": 7, "loss": float("nan")}]
    assert metrics.first_not_finite(bad) == (6, "norm", float("inf"))
    with pytest.raises(ValueError, match="JSON compliant"):
        metrics.append("/dev/null", [{"step": 1, "loss": float("nan")}])


CONFIG = {"data": {"name": "digits"}, "widths": (1, 2), "seed": 0}


def test_a_folder_is_opened_and_opened_again(tmp_path):
    folder = tmp_path / "runs" / "a"
    report.check_folder(folder, CONFIG)
    assert not (tmp_path / "runs").exists()
    report.open_folder(folder, CONFIG)
    assert json.loads((folder / "config.json").read_text()) == {**CONFIG, "widths": [1, 2]}
    found = json.loads((folder / "versions.json").read_text())
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"modicum", "commit", "jax", "flax", "numpy", "machine"} <= found.keys()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report.open_folder(folder, CONFIG)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({**CONFIG, "seed": 1}, "holds a run with seed=0, got 1: start over with --fresh"),
        ({**CONFIG, "data": {"name": "mnist"}}, "holds a run with data.name=digits, got mnist"),
        ({"data": {"name": "digits"}, "seed": 0}, r"holds a run with widths=\[1, 2\], got None"),
        ({**CONFIG, "more": 1}, "holds a run with more=None, got 1"),
    ],
)
def test_another_config_is_refused_unless_fresh(tmp_path, changed, message):
    folder = tmp_path / "a"
    report.open_folder(folder, CONFIG)
    checkpoint.save(folder / "checkpoints", 3, {"x": np.ones(2)})
    metrics.append(folder / "metrics.jsonl", LINES)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=message):
        report.open_folder(folder, changed)
    assert checkpoint.steps(folder / "checkpoints") == (3,)
    report.open_folder(folder, changed, fresh=True)
    assert {path.name for path in folder.iterdir()} == {"config.json", "versions.json", "notes.txt"}
    report.check_folder(folder, changed)


def test_what_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    for name in ("file", "folder"):
        for fresh in (False, True):
            with pytest.raises(ValueError, match="must be absent, empty or hold a run"):
                report.open_folder(tmp_path / name, CONFIG, fresh=fresh)
    assert (tmp_path / "folder" / "thesis.tex").read_text() == "mine"
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"seed"')
    with pytest.raises(ValueError, match=r"must hold a readable config\.json"):
        report.open_folder(tmp_path / "damaged", CONFIG)


def test_leftovers_of_a_killed_start(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json.tmp").write_text("{")
    report.open_folder(tmp_path / "a", CONFIG)
    (tmp_path / "a" / "versions.json").unlink()
    (tmp_path / "a" / "versions.json.tmp").write_text("{")
    report.open_folder(tmp_path / "a", CONFIG)
    assert json.loads((tmp_path / "a" / "versions.json").read_text())["modicum"]
    (tmp_path / "a" / "checkpoints.discarded").mkdir()
    report.open_folder(tmp_path / "a", CONFIG)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"config.json", "versions.json"}


def test_the_table_shows_every_row():
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(report.result_table("Results", {"accuracy": "98%", "folder": "runs/[x]"}))
    text = console.export_text()
    assert "accuracy" in text
    assert "98%" in text
    assert "runs/[x]" in text
    assert "Results" in text
