"""The saved module on two engines against what the network says."""

import importlib.util
import sys

import jax
import numpy as np
import pytest

from modicum import mobile
from modicum.mobile.verify import compare
from tests.mobile.members import kernels, projected
from tests.mobile.nets import NETS, conv_net, scanned_gru, two_in_two_out

needs_iree = pytest.mark.skipif(importlib.util.find_spec("iree") is None, reason="IREE is not installed")


def saved_net(net, key, folder, batch="fixed"):
    fun, params, inputs = net(key)
    params, constraints = projected(params, kernels)
    mobile.compile(fun, params, inputs, constraints=constraints, batch=batch).save(folder)
    return inputs, jax.jit(fun)(params, inputs)


@needs_iree
@pytest.mark.parametrize(
    ("net", "batch"), [(conv_net, "any"), (scanned_gru, "fixed"), (two_in_two_out, "fixed"), (two_in_two_out, "any")]
)
def test_both_engines_agree(net, batch, key, tmp_path, capfd):
    inputs, expected = saved_net(net, key, tmp_path / "bundle", batch)
    found = mobile.verify(tmp_path / "bundle", inputs, expected)
    assert [engine.name for engine in found.engines] == ["jax", "iree"]
    assert found.max_abs_error < 1e-5
    assert found.argmax_equal
    assert capfd.readouterr().out == ""


@needs_iree
def test_iree_keeps_to_the_examples_shapes(key, tmp_path):
    inputs, expected = saved_net(conv_net, key, tmp_path / "bundle", "any")
    one = mobile.verify(tmp_path / "bundle", inputs[:1], expected[:1], engines=("jax",))
    assert one.max_abs_error < 1e-6
    with pytest.raises(ValueError, match=r"for IREE, \[\[3, 8, 8, 1\]\], got \[\[1, 8, 8, 1\]\]"):
        mobile.verify(tmp_path / "bundle", inputs[:1], expected[:1])


@needs_iree
def test_iree_runs_the_module_of_the_bundle_itself(key, tmp_path):
    """Not some other route to the same numbers: an engine given another network's module must be found out."""
    inputs, expected = saved_net(conv_net, key, tmp_path / "bundle")
    loaded = mobile.load(tmp_path / "bundle")
    fun, params, _ = conv_net(jax.random.key(7))
    other = mobile.compile(fun, params, inputs)
    mixed = mobile.Compiled(**{**vars(loaded), "module": other.module})
    mixed.save(tmp_path / "mixed")
    found = {engine.name: engine for engine in mobile.verify(tmp_path / "mixed", inputs, expected).engines}
    assert found["jax"].max_abs_error < 1e-6
    assert found["iree"].max_abs_error > 1e-2


@pytest.mark.parametrize("name", NETS)
def test_jax_alone(name, key, tmp_path):
    if name == "equinox_mlp":
        pytest.importorskip("equinox")
    inputs, expected = saved_net(NETS[name], key, tmp_path / "bundle")
    found = mobile.verify(tmp_path / "bundle", inputs, expected, engines=("jax",))
    assert [engine.name for engine in found.engines] == ["jax"]
    assert found.max_abs_error < 1e-6
    assert found.argmax_equal


def test_a_wrong_expectation_is_data_not_an_error(key, tmp_path):
    inputs, expected = saved_net(conv_net, key, tmp_path / "bundle")
    found = mobile.verify(tmp_path / "bundle", inputs, expected.at[1, 3].add(0.25), engines=("jax",))
    np.testing.assert_allclose(found.max_abs_error, 0.25, rtol=1e-5)
    found = mobile.verify(tmp_path / "bundle", inputs, -expected, engines=("jax",))
    assert not found.argmax_equal


def test_a_damaged_bundle_is_refused_before_it_runs(key, tmp_path):
    inputs, expected = saved_net(conv_net, key, tmp_path / "bundle")
    (tmp_path / "bundle" / "model.mlir").write_bytes(b"")
    with pytest.raises(ValueError, match=r"damaged: model\.mlir has 0 bytes"):
        mobile.verify(tmp_path / "bundle", inputs, expected, engines=("jax",))


def test_without_iree_one_line_says_what_to_install(key, tmp_path, monkeypatch):
    inputs, expected = saved_net(two_in_two_out, key, tmp_path / "bundle")
    for name in ("iree", "iree.compiler", "iree.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"^IREE is not installed: pip install modicum\[iree\]$"):
        mobile.verify(tmp_path / "bundle", inputs, expected)


def test_bad_arguments_are_refused(key, tmp_path):
    inputs, expected = saved_net(conv_net, key, tmp_path / "bundle")
    folder = tmp_path / "bundle"
    with pytest.raises(ValueError, match="engine must be one of 'jax', 'iree', got 'tvm'"):
        mobile.verify(folder, inputs, expected, engines=("tvm",))
    with pytest.raises(ValueError, match="engines must name at least one"):
        mobile.verify(folder, inputs, expected, engines=())
    with pytest.raises(ValueError, match="x must have shape"):
        mobile.verify(folder, inputs[:1], expected[:1], engines=("jax",))
    with pytest.raises(ValueError, match=r"expected must have shapes \[\(3, 10\)\].*got \[\(1, 10\)\]"):
        mobile.verify(folder, inputs, expected[:1], engines=("jax",))


def test_compare_by_hand():
    y = np.array([[1.0, 3.0, 2.0], [0.0, -1.0, np.inf]], np.float32)
    same = compare("jax", [y], [y])
    assert (same.max_abs_error, same.argmax_equal) == (0.0, True)
    off = compare("jax", [y + np.float32(0.5)], [y])
    assert (off.max_abs_error, off.argmax_equal) == (0.5, True)
    swapped = compare("jax", [y[:1, [1, 0, 2]]], [y[:1]])
    assert (swapped.max_abs_error, swapped.argmax_equal) == (2.0, False)
    broken = compare("jax", [np.array([np.nan, 1.0])], [np.array([0.0, 1.0])])
    assert np.isnan(broken.max_abs_error)
    assert not broken.argmax_equal
    assert np.isnan(mobile.Verification(engines=(same, broken)).max_abs_error)
    whole = compare("jax", [np.array(2**31 - 1, np.int32), np.zeros((0, 3))], [np.array(-1), np.zeros((0, 3))])
    assert (whole.max_abs_error, whole.argmax_equal) == (2.0**31, True)
    assert compare("jax", [np.array([True])], [np.array([False])]).max_abs_error == 1.0
