"""The dense peers of the latency benchmark: files that all engines read, the workers' protocol, the agreement check."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax import lax

from modicum.mobile.graph import Add, Affine, Conv, Dense, Graph, Gru, Mean, Pool, Reshape

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))


@pytest.fixture
def network(bench):
    from peers import network

    return network


@pytest.fixture
def interleave(bench):
    from peers import interleave

    return interleave


def graph():
    """Every kind of layer: lopsided and even padding, strides, groups, residuals, both activations."""
    rng = np.random.default_rng(0)

    def array(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def conv(number, inputs, shape, kernel, groups=1, **more):
        more |= {"weight": array(*kernel, shape[-1]), "bias": array(shape[-1]), "groups": groups}
        return Conv(name=f"c{number}", inputs=inputs, output=f"c{number}", shape=shape, **more)

    def pool(name, given, kind, side):
        shape = (1, side, side, 4)
        window = {"window": (3, 3), "stride": (2, 2), "padding": same}
        return Pool(name=name, inputs=(given,), output=name, shape=shape, kind=kind, **window)

    same, ends = ((1, 1), (1, 1)), ((0, 1), (0, 1))
    square = (1, 4, 4, 4)
    layers = (
        conv(1, ("x",), (1, 8, 8, 4), (3, 3, 3), scale=array(4), stride=(2, 2), padding=ends, activation="relu"),
        pool("p1", "c1", "max", 4),
        conv(2, ("p1",), (1, 4, 4, 8), (1, 1, 4), activation="relu6"),
        conv(3, ("c2",), (1, 4, 4, 8), (3, 3, 1), groups=8, padding=same),
        conv(4, ("c3", "p1"), square, (1, 1, 8), scale=array(4), activation="relu"),
        conv(5, ("c4",), square, (3, 3, 2), groups=2, padding=same),
        Add(name="a", inputs=("c4", "c5"), output="a", shape=square, activation="relu"),
        Affine(name="f", inputs=("a",), output="f", shape=square, scale=array(4), shift=array(4)),
        pool("p2", "f", "mean", 2),
        Reshape(name="r", inputs=("p2",), output="r", shape=(1, 16)),
        Dense(name="d", inputs=("r",), output="d", shape=(1, 5), weight=array(16, 5), scale=array(5), bias=array(5)),
    )
    return Graph("x", (1, 16, 16, 3), "d", layers)


def with_mean():
    """Transposed reshapes, and the mean over the image."""
    rng = np.random.default_rng(1)
    layers = (
        Reshape(name="r", inputs=("x",), output="r", shape=(1, 2, 8, 6)),
        Reshape(name="s", inputs=("r",), output="s", shape=(1, 96)),
        Affine(name="f", inputs=("s",), output="f", shape=(1, 96), scale=rng.random(96), shift=rng.random(96)),
        Reshape(name="t", inputs=("f",), output="t", shape=(1, 4, 4, 6)),
        Mean(name="m", inputs=("t",), output="m", shape=(1, 6)),
    )
    return Graph("x", (1, 4, 4, 6), "m", layers)


def test_a_network_is_read_back_with_its_scales_folded(network, tmp_path):
    made = graph()
    exported = network.export(made, tmp_path)
    read = network.read(tmp_path)
    assert (read.input, read.input_shape, read.output) == ("x", (1, 16, 16, 3), "d")
    assert [layer["kind"] for layer in read.layers] == [type(layer).__name__ for layer in made.layers]
    for layer, original, again in zip(read.layers, made.layers, exported.layers, strict=True):
        assert tuple(layer["shape"]) == original.shape
        for name in ("weight", "bias", "scale", "shift"):
            assert (name in layer) == (name in again)
            if name in layer:
                np.testing.assert_array_equal(layer[name], again[name])
    first = made.layers[0]
    np.testing.assert_array_equal(
        read.layers[0]["weight"], (first.weight.astype(np.float64) * first.scale).astype(np.float32)
    )
    np.testing.assert_array_equal(read.layers[2]["weight"], made.layers[2].weight)
    # 3x3 on 8x8, 1x1, depthwise, 1x1, two groups, dense
    work = 64 * 108 + 16 * (32 + 72 + 32 + 72) + 80
    assert network.multiply_accumulates(read) == work


def test_the_reference_is_what_lax_computes(network, tmp_path):
    """Convolution and pooling alone: the rest of the reference is one line each."""
    made = network.export(graph(), tmp_path)
    x = np.random.default_rng(2).standard_normal((1, 16, 16, 4), np.float32)
    for index, given in ((0, x[..., :3]), (3, np.repeat(x[:, :4, :4], 2, axis=-1)), (5, x[:, :4, :4])):
        layer = made.layers[index]
        alone = network.Network("in", given.shape, "out", ({**layer, "inputs": ("in",), "output": "out"},))
        expected = lax.conv_general_dilated(
            given,
            layer["weight"],
            layer["stride"],
            layer["padding"],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=layer["groups"],
        )
        expected = np.asarray(expected) + layer["bias"]
        expected = np.maximum(expected, 0) if layer["activation"] == "relu" else expected
        np.testing.assert_allclose(network.evaluate(alone, given), expected, rtol=1e-4, atol=1e-4)
    pooled = {**made.layers[8], "inputs": ("in",), "output": "out"}
    y = network.evaluate(network.Network("in", (1, 4, 4, 4), "out", (pooled,)), np.ones((1, 4, 4, 4)))
    np.testing.assert_allclose(y, 1.0)


def test_what_no_peer_gets_is_refused(network, tmp_path):
    zeros = np.zeros((2, 6), np.float32)
    layer = Gru(
        name="g",
        inputs=("x",),
        output="g",
        shape=(1, 3, 2),
        input_kernel=zeros,
        recurrent_kernel=zeros,
        input_bias=zeros[0],
        candidate_bias=zeros[0, :2],
    )
    with pytest.raises(ValueError, match="layer g must be one of Conv"):
        network.export(Graph("x", (1, 3, 2), "g", (layer,)), tmp_path)
    with pytest.raises(ValueError, match="batch of the graph must be 1"):
        network.export(Graph("x", (4, 3, 2), "g", ()), tmp_path)


@pytest.mark.parametrize("made", [graph, with_mean])
def test_the_jax_function_gives_the_reference(network, made, tmp_path):
    from peers.xla_model import function

    exported = network.export(made(), tmp_path)
    weights, apply = function(exported)
    output = apply(weights, np.load(tmp_path / "input.npy"))
    np.testing.assert_allclose(output, np.load(tmp_path / "reference.npy"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("made", [graph, with_mean])
def test_the_onnx_file_gives_the_reference(network, made, tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator
    from peers import onnx_model

    model = onnx_model.build(network.export(made(), tmp_path))
    onnx.checker.check_model(model, full_check=True)
    image = np.load(tmp_path / "input.npy").transpose(0, 3, 1, 2)
    (output,) = ReferenceEvaluator(model).run(None, {"x": image})
    np.testing.assert_allclose(output, np.load(tmp_path / "reference.npy"), rtol=1e-4, atol=1e-4)


def test_a_worker_speaks_the_protocol(network, tmp_path):
    network.export(graph(), tmp_path)
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "peers" / "worker.py"), "numpy", str(tmp_path)]
    given = "run 3\noutput\nrun many\nquit\nrun 1\n"
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=60)
    loaded, ran, output, refused = [json.loads(line) for line in done.stdout.splitlines()]
    assert loaded["engine"] == "numpy"
    assert loaded["version"].startswith(np.__version__)
    assert len(ran["wall_ms"]) == len(ran["cpu_ms"]) == 3
    assert min(ran["wall_ms"]) > 0
    np.testing.assert_array_equal(np.load(output["output"]), np.load(tmp_path / "reference.npy"))
    assert "'run many'" in refused["error"]


FAKE = """
import sys
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, {bench!r})
from peers.worker import serve


def load(engine, folder, threads):
    if engine == "absent":
        raise ImportError("no such library")
    print("engines may print what they like")
    answer = np.load(folder / "reference.npy") * float({factors!r}[engine])
    return SimpleNamespace(version="1", run=lambda: answer)


sys.exit(serve(load))
"""


def test_engines_take_turns_and_a_wrong_output_is_refused(network, interleave, tmp_path):
    network.export(graph(), tmp_path)
    script = tmp_path / "fake.py"
    factors = {"good": 1.0, "near": 1.0 + 1e-4, "wrong": 1.01, "reduced": 1.02, "broken": float("nan")}
    script.write_text(FAKE.format(bench=str(ROOT / "scripts" / "bench"), factors=factors).replace("nan", "'nan'"))
    command = interleave.Command(Path(sys.executable), script)
    commands = dict.fromkeys([*factors, "absent"], command)
    commands["nowhere"] = interleave.Command(tmp_path / "python", script)
    cells = interleave.interleave(tmp_path, commands, rounds=2, runs=3, reduced={"reduced"})
    assert list(cells) == list(commands)
    for engine, error in (("good", 0.0), ("near", 1e-4), ("reduced", 0.02)):
        assert cells[engine]["samples"] == 6
        assert cells[engine]["wall_ms_min"] <= cells[engine]["wall_ms_median"]
        assert cells[engine]["relative_error"] == pytest.approx(error, rel=1e-3)
    assert cells["wrong"]["error"] == "wrong: output must agree with the reference within 0.001, got 0.01"
    assert cells["broken"]["error"].endswith("got inf")
    assert "ImportError: no such library" in cells["absent"]["error"]
    assert "run setup.sh" in cells["nowhere"]["error"]


def test_a_worker_that_dies_is_one_sentence(network, interleave, tmp_path):
    network.export(graph(), tmp_path)
    script = tmp_path / "dies.py"
    script.write_text("import sys\nsys.exit('the engine gave up')\n")
    cells = interleave.interleave(tmp_path, {"dies": interleave.Command(Path(sys.executable), script)})
    assert cells["dies"]["error"] == "dies: ended with 1: the engine gave up"


def test_a_worker_that_speaks_otherwise_is_one_sentence(network, interleave, tmp_path):
    network.export(graph(), tmp_path)
    script = tmp_path / "babbles.py"
    script.write_text("print('hello', flush=True)\nimport time\ntime.sleep(60)\n")
    cells = interleave.interleave(tmp_path, {"babbles": interleave.Command(Path(sys.executable), script)})
    assert cells["babbles"]["error"] == "babbles: an answer must be a line of JSON, got 'hello'"


def test_files_are_converted_again_only_for_another_network(bench, tmp_path, monkeypatch):
    from peers import prepare

    made = []

    def convert(programs, folder):
        made.append(str(folder))
        return [sys.executable, "-c", f"open({str(folder / 'model.onnx')!r}, 'w').close()"]

    names = ("network.json", "weights.npz")
    monkeypatch.setitem(prepare.CONVERSIONS, "model.onnx", prepare.Conversion("onnx", convert, names, ("model.onnx",)))
    monkeypatch.setenv("MODICUM_PEERS", str(tmp_path / "none"))
    for name in names:
        (tmp_path / name).touch()
    assert prepare.prepare(tmp_path, ["onnxruntime", "openvino", "xla"]) == {}
    assert len(made) == 1
    (tmp_path / "weights.npz").touch()
    failures = prepare.prepare(tmp_path, ["onnxruntime", "mnn"])
    assert len(made) == 2
    assert list(failures) == ["mnn"]
    assert "mnnconvert" in failures["mnn"]


def test_results_of_other_keys_stay(bench, tmp_path):
    import latency

    path = tmp_path / "latency.json"
    latency.store(path, {"a | x | 1": {"samples": 20}}, {"fma_gflops": 1.0})
    latency.store(path, {"b | x | 1": {"samples": 30}}, None)
    latency.store(path, {"a | x | 1": {"samples": 40}}, None)
    assert json.loads(path.read_text()) == {
        "cells": {"a | x | 1": {"samples": 40}, "b | x | 1": {"samples": 30}},
        "peaks": {"fma_gflops": 1.0},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engines", "tflite"], "engines must be of onnxruntime"),
        (["--networks", ""], "networks must be of vgg16_cifar.*got nothing"),
        (["--rounds", "3"], "rounds x runs must be at least 20, got 3 x 3"),
        (["--threads", "64"], "threads must be between 1 and"),
    ],
)
def test_bad_flags_are_one_sentence(bench, words, message):
    import latency

    with pytest.raises(ValueError, match=message):
        latency.run(latency.flags(words))


def test_a_table_compares_with_the_fastest_in_float32(bench):
    import latency

    def cell(engine, wall, reduced=False):
        numbers = {"wall_ms_min": wall / 2, "wall_ms_median": wall, "cpu_ms_median": wall, "relative_error": 1e-6}
        return {"engine": engine, "version": "1", "reduced_precision": reduced, **numbers}

    cells = {"b": cell("b", 4.0), "a": cell("a", 2.0), "r": cell("r", 1.0, reduced=True), "e": {"error": "e: failed"}}
    lines = latency.table(cells).splitlines()[2:]
    assert [line.split(" | ")[5] for line in lines[:3]] == ["0.50", "1.00", "2.00"]
    assert lines[0].startswith("| r (reduced precision)")
    assert lines[3] == "e: failed"


@pytest.mark.slow
def test_peaks_are_measured(bench):
    import peak

    try:
        measured = peak.measure()
    except RuntimeError as error:
        pytest.skip(str(error))
    assert measured["fma_gflops"] > 1
    assert [load["bytes"] for load in measured["loads"]] == [24 << 10, 512 << 10, 8 << 20, 256 << 20]
    assert all(load["gb_per_second"] > 0.1 for load in measured["loads"])
