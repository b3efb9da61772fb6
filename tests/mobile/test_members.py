"""The library's own constraints through the whole road: project, compile, save, load, two engines."""

import importlib.util

import jax
import numpy as np
import pytest

from modicum import constraints, mobile
from modicum.core import Constraint, leaves_by_path
from tests.mobile.nets import conv_net, scanned_gru

ENGINES = ("jax", "iree") if importlib.util.find_spec("iree") else ("jax",)


def in_their_sets(params, rules):
    """`(projected params, fitted constraints)` by `by_path`."""

    def is_leaf(node):
        return node is None or isinstance(node, Constraint)

    chosen = jax.tree.leaves(constraints.by_path(rules, params), is_leaf=is_leaf)
    leaves, structure = jax.tree.flatten(params)
    chosen = [None if c is None else c.fit(w) for c, w in zip(chosen, leaves, strict=True)]
    projected = [w if c is None else c.project(w) for c, w in zip(chosen, leaves, strict=True)]
    return jax.tree.unflatten(structure, projected), jax.tree.unflatten(structure, chosen)


def conv_rules(params):
    kernel = params["params"]["Conv_1"]["kernel"]
    return {
        "Conv_1/kernel": constraints.nest(
            constraints.Kernels(3),
            constraints.Patterns(constraints.natural_library(kernel, 8)),
            constraints.Polarized(9),
            constraints.Levels(4),
        ),
        "Conv_0/kernel": constraints.Levels(8),
        "Dense_0/kernel": constraints.nest(constraints.TopK(300), constraints.Levels(4)),
    }


@pytest.mark.optimized
def test_a_convolutional_net_with_everything_nested(key, tmp_path):
    fun, params, inputs = conv_net(key)
    params, chosen = in_their_sets(params, conv_rules(params))
    expected = jax.jit(fun)(params, inputs)
    compiled = mobile.compile(fun, params, inputs, constraints=chosen, batch="any")
    np.testing.assert_allclose(compiled(inputs), expected, rtol=0, atol=1e-6)

    rows = {row.name: row for row in compiled.report().rows}
    nested = rows["params/Conv_1/kernel"]
    packed = chosen["params"]["Conv_1"]["kernel"].encode(params["params"]["Conv_1"]["kernel"])
    assert (nested.layout, nested.packed) == (packed.layout, packed.nbytes)
    assert nested.layout != "dense"
    # 8 filters of 3 kernels of 4 entries of 4 bits
    assert nested.packed.payload <= 8 * 3 * 4 / 2 + 8 * 4
    assert compiled.report().total.ratio > 3

    loaded = mobile.load(compiled.save(tmp_path / "bundle"))
    np.testing.assert_allclose(loaded(inputs), expected, rtol=0, atol=1e-6)
    for path, constraint in leaves_by_path(chosen, is_leaf=lambda node: isinstance(node, Constraint)).items():
        np.testing.assert_array_equal(constraint.decode(loaded.packed[path]), leaves_by_path(params)[path])

    found = mobile.verify(tmp_path / "bundle", inputs, expected, engines=ENGINES)
    assert found.max_abs_error < 1e-5
    assert found.argmax_equal


@pytest.mark.parametrize(
    "rules",
    [
        {
            "Conv_0/kernel": constraints.Levels(4, kind="powers"),
            "Conv_1/kernel": constraints.Unified((9, 2, 2), 0.5, pruned=0.25),
            "Dense_0/kernel": constraints.nest(
                constraints.BlockColumnRow(4, 6, strips=2, blocks=4), constraints.Levels(4)
            ),
        },
        {
            "Conv_0/kernel": constraints.Channels(3),
            "Conv_1/kernel": constraints.split(constraints.NofM(2, 4), constraints.NaturalPatterns(8)),
            "Dense_0/kernel": constraints.nest(constraints.NofM(2, 4), constraints.Levels(5, kind="slices")),
        },
    ],
    ids=["unified-blocks-powers", "channels-split-groups"],
)
def test_every_format_decodes_inside_the_module(key, tmp_path, rules):
    fun, params, inputs = conv_net(key)
    params, chosen = in_their_sets(params, rules)
    expected = jax.jit(fun)(params, inputs)
    compiled = mobile.compile(fun, params, inputs, constraints=chosen, batch="any")
    compiled.save(tmp_path / "bundle")
    found = mobile.verify(tmp_path / "bundle", inputs, expected, engines=ENGINES)
    assert found.max_abs_error < 1e-5
    rows = {row.name: row for row in compiled.report().rows}
    for path, packed in mobile.load(tmp_path / "bundle").packed.items():
        assert rows[path].packed == packed.nbytes


def test_a_constraint_without_its_scale_serves_too(key):
    """`Levels(bits)` alone searches its scale: on weights that lie on a grid it must find it."""
    fun, params, inputs = scanned_gru(key)
    rules = {"kernel": constraints.Levels(4)}
    params, _ = in_their_sets(params, rules)
    compiled = mobile.compile(fun, params, inputs, constraints=constraints.by_path(rules))
    np.testing.assert_allclose(compiled(inputs), jax.jit(fun)(params, inputs), rtol=0, atol=1e-6)
    assert compiled.report().total.ratio > 3


def test_weights_moved_off_their_set_are_refused(key):
    fun, params, inputs = conv_net(key)
    params, chosen = in_their_sets(params, conv_rules(params))
    params["params"]["Conv_1"]["kernel"] = params["params"]["Conv_1"]["kernel"] * 1.001
    with pytest.raises(ValueError, match=r"got violation .* at 'params/Conv_1/kernel': project first"):
        mobile.compile(fun, params, inputs, constraints=chosen)
