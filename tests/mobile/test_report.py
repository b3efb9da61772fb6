"""Bytes and MACs, layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import mobile
from modicum.core import Bytes, sites
from tests.mobile.members import Grid, kernels, projected
from tests.mobile.nets import conv_net, scanned_gru


def test_rows_of_a_convolutional_net(key):
    fun, params, inputs = conv_net(key)
    params, constraints = projected(params, kernels)
    report = mobile.compile(fun, params, inputs, constraints=constraints).report()
    rows = {row.name: row for row in report.rows}
    assert list(rows) == [
        "params/Conv_0/kernel",
        "params/Conv_1/kernel",
        "params/Dense_0/kernel",
        "params/Conv_0/bias",
        "params/Conv_1/bias",
        "params/Dense_0/bias",
    ]
    conv = rows["params/Conv_1/kernel"]
    assert (conv.layout, conv.shape, conv.calls) == ("grid8", (3, 3, 4, 8), 1)
    # a 4 x 4 image padded by one pixel: 100 of 144 taps meet a pixel
    assert conv.macs == 3 * 4 * 8 * 100
    assert (conv.dense_bytes, conv.packed) == (4 * 288, Bytes(288, 0, 4))
    assert conv.ratio == 4 * 288 / 292
    dense = rows["params/Dense_0/kernel"]
    assert (dense.layout, dense.macs) == ("bitmask", 3 * 128 * 10)
    assert dense.packed == Bytes(payload=640 * 4, index=1280 // 8, metadata=0)
    bias = rows["params/Dense_0/bias"]
    assert (bias.layout, bias.macs, bias.packed, bias.ratio) == ("dense", 0, Bytes(40, 0, 0), 1.0)


@pytest.mark.parametrize("net", [conv_net, scanned_gru])
def test_totals_are_the_arrays_real_sizes(net, key):
    fun, params, inputs = net(key)
    params, constraints = projected(params, kernels)
    compiled = mobile.compile(fun, params, inputs, constraints=constraints)
    total = compiled.report().total
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(dict(compiled.packed))]
    assert total.packed.total == sum(len(array.tobytes()) for array in arrays)
    assert total.dense_bytes == sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(params))
    assert total.macs == sum(site.macs * site.calls for site in sites(fun, params, inputs))
    assert total.ratio == total.dense_bytes / total.packed.total
    assert compiled.report().module_bytes == len(compiled.module)


def test_scans_count_their_turns(key):
    fun, params, inputs = scanned_gru(key)
    report = mobile.compile(fun, params, inputs).report()
    turning = [row for row in report.rows if row.calls == 6]
    assert len(turning) == 6
    assert report.total.macs == 6 * sum(row.macs for row in turning) == 6 * 2 * 3 * 8 * (5 + 8)


def test_a_shared_leaf_counts_once():
    params = {"w": jnp.eye(4)}
    report = mobile.compile(lambda p, x: x @ p["w"] @ p["w"], params, jnp.ones((1, 4))).report()
    first, second = report.rows
    assert (first.name, first.layout, first.packed.total) == ("w", "dense", 64)
    assert (second.name, second.layout, second.packed.total) == ("w#1", "shared", 0)
    assert np.isnan(second.ratio)
    assert (report.total.macs, report.total.packed.total) == (32, 64)


def test_a_derived_weight_has_macs_and_its_leaves_the_bytes():
    params = {"g": jnp.ones(4), "v": jnp.eye(4)}

    def normalized(p, x):
        return x @ (p["v"] * p["g"][None])

    constraints = {"g": None, "v": Grid(scale=0.5)}
    report = mobile.compile(normalized, params, jnp.ones((1, 4)), constraints=constraints).report()
    site, *leaves = report.rows
    assert (site.layout, site.macs, site.dense_bytes, site.packed.total) == ("derived", 16, 0, 0)
    assert {(row.name, row.packed.total) for row in leaves} == {("g", 16), ("v", 20)}


def test_a_while_loop_counts_one_turn():
    def fun(p, x):
        return jax.lax.while_loop(lambda c: c.sum() < 100, lambda c: c @ p["w"] + 1, x)

    report = mobile.compile(fun, {"w": jnp.eye(4)}, jnp.ones((1, 4))).report()
    assert report.rows[0].calls is None
    assert report.total.macs == 16
    assert " ? " in str(report).splitlines()[1]


def test_text_is_an_aligned_table(key):
    fun, params, inputs = conv_net(key)
    params, constraints = projected(params, kernels)
    compiled = mobile.compile(fun, params, inputs, constraints=constraints)
    text, _, kernels_text = str(compiled.report()).partition("\n\n")
    lines = text.splitlines()
    assert kernels_text.splitlines()[0].split()[:3] == ["step", "kernel", "MACs"]
    assert lines[0].split()[:4] == ["layer", "layout", "shape", "MACs"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[2].split() == [
        "params/Conv_1/kernel",
        "grid8",
        "3x3x4x8",
        "9600",
        "1",
        "1152",
        "288",
        "0",
        "4",
        "292",
        "3.95",
    ]
    assert lines[-2].split()[0] == "total"
    assert lines[-1] == f"StableHLO module: {len(compiled.module)} bytes"
