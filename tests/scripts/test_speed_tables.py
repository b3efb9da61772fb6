"""The latency tables of the README: ratios as defined, reduced precision never the peer that counts."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import tables

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return tables


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    import speed_tables

    return speed_tables


def cell(engine, median, reduced=False):
    facts = {"machine": {"model": "a processor", "cores": 2}, "jax": "0", "commit": "abcdefghij"}
    return {"engine": engine, "wall_ms_median": median, "reduced_precision": reduced, **facts}


def test_latency_is_compared_with_the_fastest_float32_peer(speed, tmp_path):
    times = {"modicum": 2.0, "onnxruntime": 12.0, "ncnn": 9.0, "openvino_bf16": 4.0, "modicum_untuned": 3.0}
    cells = {f"vgg16_8x | {name} | 1": cell(name, time, "bf16" in name) for name, time in times.items()}
    (tmp_path / "latency.json").write_text(json.dumps({"cells": cells, "peaks": {"fma_gflops": 100.0}}))
    lines = speed.latency_table(tmp_path).splitlines()
    head, row = ([word.strip() for word in line.strip("|").split("|")] for line in (lines[0], lines[2]))
    shown = dict(zip(head, row, strict=True))
    assert shown["ours, ms"] == "2"
    assert shown["fastest float32 peer"] == "ncnn, 4.5x"
    assert shown["times ONNX Runtime"] == "6.0x"
    assert shown["OpenVINO, bf16"] == "4"
    assert shown["LiteRT"] == shown["times LiteRT"] == ""
    facts = "a processor, 2 cores, jax 0, commits abcdefg; one core multiplies and adds at 100.0 GFLOP/s."
    assert facts in lines


def test_parts_of_the_generator_stand_side_by_side(speed, tmp_path):
    cells = {f"vgg16_8x | {name} | 2": cell(name, 1.0 + at) for at, name in enumerate(speed.PARTS)}
    cells["vgg16_8x | ncnn | 2"] = cell("ncnn", 9.0)
    (tmp_path / "latency.json").write_text(json.dumps({"cells": cells}))
    assert speed.latency_table(tmp_path).splitlines()[-1] == "| vgg16_8x | 2 | 1 | 2 | 3 | 4 |"


def test_steps_of_a_gru(speed, tmp_path):
    rows = [
        {"engine": "modicum", "size": 64, "kept": 10.7, "us_median": 2.0},
        {"engine": "xla", "size": 64, "kept": 1.0, "us_median": 30.0},
        {"engine": "torch", "size": 64, "kept": 1.0, "us_median": 50.0},
    ]
    (tmp_path / "gru-latency.json").write_text(json.dumps({"rows": rows}))
    assert speed.gru_table(tmp_path).splitlines()[2:] == ["| 64 | 1 of 10.7 | 2.00 | XLA, 30 | 15.0x |"]
    assert speed.latency_table(tmp_path) == ""


def test_training_is_summed_over_seeds(tables, tmp_path):
    def run(accuracy, seconds):
        facts = {"machine": {"cores": 2}, "jax": "0", "commit": "abcdefghij", "model": "Net"}
        return {"test_accuracy": accuracy, "seconds": seconds, "parameters": 1234, "steps": 60, **facts}

    cells = {"digits | 0": run(0.9, 3.0), "digits | 1": run(0.92, 5.0)}
    (tmp_path / "training.json").write_text(json.dumps(cells))
    lines = tables.training_table().splitlines()
    assert lines[2:] == [
        "| digits | Net | 1,234 | 60 | 2 | 91.00 ± 1.41% | 4 |",
        "",
        "2 cores, jax 0, commits abcdefg.",
    ]
