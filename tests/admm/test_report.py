"""Byte accounting, JSON and text of a report; checkpoints on disk."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from modicum import admm
from tests.admm.members import Grid

LEAF = admm.LeafReport(
    path="conv/kernel",
    constraint="Grid(levels=7)",
    layout="grid",
    weights=1000,
    kept=250,
    dense_bytes=4000,
    payload_bytes=125,
    index_bytes=70,
    metadata_bytes=5,
    primal=(0.5, 0.25),
    dual=(0.1, 0.0),
    violation_projected=0.0,
    violation_retrained=0.0,
    round_trip=True,
)
REPORT = admm.Report(
    leaves=(LEAF,),
    free_weights=10,
    free_bytes=40,
    rho=(3.0, 3.9),
    admm_losses=(1.0, 0.5),
    retrain_losses=(0.4,),
    config={"outer": 5, "stop": 0.3},
    stopped=2,
)


def test_totals():
    assert LEAF.packed_bytes == 200
    assert (REPORT.dense_bytes, REPORT.packed_bytes, REPORT.steps, REPORT.violation) == (4040, 240, 3, 0.0)


def test_json():
    data = REPORT.as_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["leaves"][0]["primal"] == [0.5, 0.25]
    assert (data["packed_bytes"], data["violation"]) == (240, 0.0)


def test_text():
    header, leaf, free, total, end = str(REPORT).splitlines()
    assert header.split()[:3] == ["leaf", "format", "kept"]
    assert leaf.split()[:7] == ["conv/kernel", "grid", "250", "1,000", "4,000", "200", "20.0x"]
    assert leaf.split()[7:] == ["0.500", "->", "2.5e-01", "0.0e+00"]
    assert free.split()[:6] == ["(free)", "dense", "10", "10", "40", "40"]
    assert total.split() == ["all", "260", "1,010", "4,040", "240", "16.8x", "0.0e+00"]
    assert end == "ADMM ended after 2 of 5 outer iterations: every residual lay below 0.3"
    assert "outer" not in str(dataclasses.replace(REPORT, rho=(), stopped=None))


def test_bytes_and_round_trip_come_from_the_packed_form():
    class Lossy(Grid):
        def decode(self, packed):
            return packed.payload["values"] + 1

    def loss_fn(params, batch):
        return jnp.sum((params["w"] - batch) ** 2) + jnp.sum(params["b"])

    jax.tree_util.register_dataclass(Lossy, data_fields=["step"], meta_fields=["levels"])
    params = {"w": jnp.linspace(-1, 1, 12).reshape(3, 4), "b": jnp.zeros(5, jnp.bfloat16)}
    config = admm.CompressConfig(outer=1, inner=1, retrain=1)
    sound = admm.compress(loss_fn, params, jnp.zeros((1, 3, 4)), {"w": Grid(3, 0.5), "b": None}, config).report
    lossy = admm.compress(loss_fn, params, jnp.zeros((1, 3, 4)), {"w": Lossy(3, 0.5), "b": None}, config).report
    assert (sound.leaves[0].dense_bytes, sound.leaves[0].payload_bytes, sound.free_bytes) == (48, 48, 10)
    assert (sound.leaves[0].weights, sound.free_weights) == (12, 5)
    assert sound.leaves[0].round_trip
    assert not lossy.leaves[0].round_trip


def test_histories_belong_to_their_leaves():
    """Paths sort otherwise than the tree: "a-b/w" comes before "a/w", but key "a" before "a-b"."""

    def loss_fn(params, batch):
        return jnp.sum((params["a"]["w"] - batch) ** 2) + jnp.sum((params["a-b"]["w"] - batch) ** 2)

    params = {"a": {"w": jnp.full(4, 0.7)}, "a-b": {"w": jnp.full(4, 1.0)}}
    constraints = {"a": {"w": Grid(3, 0.5)}, "a-b": {"w": Grid(3, 0.5)}}
    config = admm.CompressConfig(outer=1, inner=1, retrain=0, learning_rate=1e-6)
    report = admm.compress(loss_fn, params, jnp.ones((1, 4)), constraints, config).report
    assert [leaf.path for leaf in report.leaves] == ["a/w", "a-b/w"]
    assert report.leaves[0].primal[0] == pytest.approx(0.2 / 0.7, rel=1e-3)
    assert report.leaves[1].primal[0] < 1e-3
