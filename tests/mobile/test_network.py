"""Networks from JAX functions to native kernels and back from bundles: the same numbers everywhere."""

import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import constraints, mobile, models
from modicum.mobile import native
from modicum.mobile.native import emit, tune

pytest.importorskip("ziglang")


def network(batch=3):
    model = models.SmallConvNet(widths=(8, 16))
    x = jax.random.normal(jax.random.key(1), (batch, 8, 8, 1))
    return model, jax.jit(model.init)(jax.random.key(0), x), x


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(np.asarray(expected)).max())


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (models.caffe_lenet(), (2, 28, 28, 1)),
        (models.resnet20(), (1, 32, 32, 3)),
        (models.MobileNetV2(small_images=True, width=0.25), (1, 32, 32, 3)),
        (models.GRUClassifier(features=(24, 17)), (2, 9, 39)),
    ],
    ids=["lenet", "resnet20", "mobilenet", "gru"],
)
def test_models_have_kernels_throughout(model, shape):
    x = jax.random.normal(jax.random.key(1), shape)
    params = jax.jit(model.init)(jax.random.key(0), x)
    compiled = mobile.compile(model.apply, params, x, kernels="native")
    assert compiled.network is not None
    assert compiled.network.left == {}
    expected = jax.jit(model.apply)(params, x)
    close(compiled(x), expected)
    close(jax.jit(compiled)(x), expected)


def test_operators_without_kernels_are_left_to_xla_and_named():
    model, params, x = network()

    def fun(params, x):
        logits = model.apply(params, jnp.sort(x, axis=1))
        return jax.nn.softmax(logits)

    compiled = mobile.compile(fun, params, x)
    close(compiled(x), fun(params, x))
    report = compiled.report(x)
    left = {kernel.kernel for kernel in report.kernels if kernel.kernel.startswith("xla")}
    assert {"xla: sort", "xla: exp"} <= left
    assert "xla: sort" in str(report)
    timed = [kernel for kernel in report.kernels if kernel.macs]
    assert [kernel.name for kernel in timed] == [f"params/{name}/kernel" for name in ("Conv_0", "Conv_1", "Dense_0")]
    assert all(kernel.seconds > 0 and kernel.gflops > 0 for kernel in timed)
    with pytest.raises(ValueError, match=r"kernels='native' must serve fun with batch='any', got operators .*sort"):
        mobile.compile(fun, params, x, kernels="native", batch="any")(x)


def test_without_kernels_xla_runs_everything():
    model, params, x = network()
    compiled = mobile.compile(model.apply, params, x, kernels="xla")
    assert compiled.network is None
    assert compiled.report().kernels == ()
    np.testing.assert_array_equal(compiled(x), jax.jit(model.apply)(params, x))
    # no product: nothing to gain
    assert mobile.compile(lambda p, x: 2 * x, {}, x).network is None
    with pytest.raises(ValueError, match="kernels='native' must serve fun"):
        mobile.compile(lambda p, x: 2 * x, {}, x, kernels="native")(x)


def test_zeros_are_skipped_and_counted():
    """By hand: 4 of 9 positions of 4 of 16 input channels in each group of 16 filters."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(32, (3, 3), use_bias=False)(x)

    x = jax.random.normal(jax.random.key(1), (1, 8, 8, 16))
    params = Net().init(jax.random.key(0), x)
    rule = constraints.nest(constraints.Kernels(4, group=16), constraints.Patterns(constraints.MEST_8, group=16))
    sets = constraints.by_path({"kernel": rule}, params)
    params = jax.tree.map(lambda w: rule.project(w), params)
    compiled = mobile.compile(Net().apply, params, x, constraints=sets)
    (kernel,) = [kernel for kernel in compiled.report().kernels if kernel.macs]
    assert kernel.dense_macs == 64 * 9 * 16 * 32
    if native.host().lanes == 16:
        assert kernel.macs == 64 * 4 * 4 * 32
        assert kernel.payload == 4 * 4 * 4 * 32
    close(compiled(x), Net().apply(params, x))


def test_exported_with_its_kernels():
    model, params, x = network()
    compiled = mobile.compile(model.apply, params, x, kernels="native")
    exported = compiled.with_kernels()
    (target,) = [library.target for library in compiled.network.libraries]
    assert f"custom_call @{target}" in compiled.stablehlo(custom_calls=True)
    assert "custom_call" not in compiled.stablehlo()
    again = jax.export.deserialize(exported.serialize())
    np.testing.assert_array_equal(again.call(x), compiled(x))
    with pytest.raises(ValueError, match="kernels must be native to be called"):
        mobile.compile(model.apply, params, x, kernels="xla").with_kernels()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model, params, x = network()
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    compiled = mobile.compile(model.apply, params, x, batch="any")
    return compiled.save(folder), compiled, x


def test_a_bundle_runs_its_library_without_a_compiler(saved, monkeypatch):
    folder, compiled, x = saved
    expected = compiled(x)
    monkeypatch.setattr(emit, "product_kernel", lambda *_: pytest.fail("generated anew"))
    monkeypatch.setenv("MODICUM_CC", "/nowhere/cc")
    loaded = mobile.load(folder)
    assert loaded.network is not None
    close(loaded(x), expected)
    np.testing.assert_array_equal(loaded(x[:1]), loaded(x)[:1])
    steps = [(kernel.name, kernel.kernel, kernel.macs) for kernel in loaded.report().kernels]
    assert steps == [(kernel.name, kernel.kernel, kernel.macs) for kernel in compiled.report().kernels]
    portable = mobile.load(folder, kernels="xla")
    assert portable.network is None
    close(portable(x), loaded(x))


def test_saving_a_loaded_bundle_changes_nothing(saved, tmp_path):
    folder, _, _ = saved
    again = mobile.load(folder).save(tmp_path / "again")
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


def test_accelerators_run_the_portable_module(saved, monkeypatch):
    folder, _, x = saved
    model, params, _ = network()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert mobile.compile(model.apply, params, x).network is None
    assert mobile.load(folder).network is None
    for make in (
        lambda: mobile.compile(model.apply, params, x, kernels="native").network,
        lambda: mobile.load(folder, kernels="native"),
    ):
        with pytest.raises(ValueError, match="kernels='native' must run on JAX's backend 'cpu', got 'gpu'"):
            make()


def rewritten(folder, target, **changes):
    """The bundle with an honest manifest of another content."""
    from modicum.mobile import bundle

    content, described = bundle.read(folder)
    for name in ("files", "format", "version"):
        described.pop(name)
    bundle.write(target, content, {**described, **changes})
    return target


def test_bundles_for_other_machines_are_refused(saved, tmp_path):
    folder, _, x = saved
    described = json.loads((folder / "manifest.json").read_text())["native"]
    other = rewritten(folder, tmp_path / "other", native={**described, "target": "sparc"})
    with pytest.raises(ValueError, match=r"native package must be for target .* here, got 'sparc'"):
        mobile.load(other)
    assert mobile.load(other, kernels="xla")(x).shape == (3, 10)
    newer = rewritten(folder, tmp_path / "newer", native={**described, "version": 99})
    with pytest.raises(ValueError, match="native package must have version 1 or less, got 99"):
        mobile.load(newer)
    newest = rewritten(folder, tmp_path / "newest", version=3)
    with pytest.raises(ValueError, match="must have version 2 or less, got 3"):
        mobile.load(newest)


@pytest.mark.parametrize("name", ["model.c", "weights.bin", "libmodel.so", "libmodel.a", "example.c"])
def test_any_flipped_byte_is_found(saved, tmp_path, name):
    folder = mobile.load(saved[0]).save(tmp_path / "bundle")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(ValueError, match=re.escape(f"is damaged: {name} does not have its SHA-256")):
        mobile.load(folder)


def test_phones_get_a_library(tmp_path):
    model, params, x = network()
    folder = mobile.compile(model.apply, params, x, target="aarch64-android").save(tmp_path / "bundle")
    assert (folder / "libmodel.a").stat().st_size > 1000
    assert not (folder / "libmodel.so").exists()
    with pytest.raises(ValueError, match="got 'aarch64-android'"):
        mobile.load(folder)
    with pytest.raises(ValueError, match="fun must have kernels for all layers to be a C program, got operators exp"):
        mobile.compile(lambda p, x: jnp.exp(model.apply(p, x)), params, x, target="aarch64-linux").save(tmp_path / "b")


def test_tuning_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path))
    model, params, x = network(1)
    tuned = mobile.compile(model.apply, params, x, tuning_seconds=60)
    close(tuned(x), model.apply(params, x))
    found = sorted((tmp_path / "tuning").iterdir())
    assert len(found) == 3
    stored = json.loads(found[0].read_text())
    assert len(stored["seconds"]) > 1
    assert min(stored["seconds"].values()) > 0
    monkeypatch.setattr(tune, "measure", lambda *_: pytest.fail("measured twice"))
    again = mobile.compile(model.apply, params, x, tuning_seconds=60)
    np.testing.assert_array_equal(again(x), tuned(x))
    # no time left: the model chooses what is not known
    other = models.SmallConvNet(widths=(24,))
    known = mobile.compile(other.apply, other.init(jax.random.key(0), x), x, tuning_seconds=1e-9)
    assert known(x).shape == (1, 10)
