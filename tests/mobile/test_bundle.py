"""A bundle comes back as it was, or is refused; a save happens as a whole or not at all."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modicum
from modicum import mobile
from modicum.core import leaves_by_path
from modicum.mobile import bundle
from tests.mobile.members import kernels, projected
from tests.mobile.nets import NETS, conv_net

FILES = {"model.stablehlo", "model.mlir", "weights.npz", "manifest.json", "manifest.sha256"}


def compiled_net(net, key, batch="fixed"):
    """The portable half of a bundle; that with native kernels is tested in `test_network`."""
    fun, params, inputs = net(key)
    params, constraints = projected(params, kernels)
    return mobile.compile(fun, params, inputs, constraints=constraints, batch=batch, kernels="xla"), inputs


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    compiled, inputs = compiled_net(conv_net, jax.random.key(0))
    return compiled.save(tmp_path_factory.mktemp("saved") / "bundle"), compiled, inputs


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved[0], tmp_path / "bundle"))


def refusal(folder):
    """The sentence `load` refuses with."""
    with pytest.raises(ValueError, match=r"^bundle ") as caught:
        mobile.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", NETS)
def test_comes_back_as_it_was(name, key, tmp_path):
    if name == "equinox_mlp":
        pytest.importorskip("equinox")
    compiled, inputs = compiled_net(NETS[name], key, batch="any")
    assert compiled.save(tmp_path / "bundle") == tmp_path / "bundle"
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == FILES
    loaded = mobile.load(tmp_path / "bundle")
    for x in (inputs, jax.tree.map(lambda leaf: leaf[:1], inputs)):
        same, close = (leaves_by_path(fun(x)) for fun in (jax.jit(compiled.exported.call), compiled))
        for path, output in leaves_by_path(loaded(x)).items():
            np.testing.assert_array_equal(output, same[path])
            # XLA may fuse the program of another shape in another way
            np.testing.assert_allclose(output, close[path], rtol=0, atol=1e-6)
    assert loaded.stablehlo() == compiled.stablehlo()
    assert loaded.report() == compiled.report()
    assert loaded.settings == compiled.settings
    assert list(loaded.packed) == list(compiled.packed)
    for path, leaf in compiled.packed.items():
        again = loaded.packed[path]
        assert jax.tree.structure(again) == jax.tree.structure(leaf)  # names, layout, shape, static
        for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(leaf), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_a_loaded_bundle_saves_the_same_bytes(saved, tmp_path):
    loaded = mobile.load(saved[0])
    loaded.save(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (saved[0] / name).read_bytes(), name


def test_unusual_dtypes_come_back(tmp_path):
    params = {
        "bf16": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3) / 7,
        "flags": jnp.array([True, False]),
        "half": jnp.float16(0.1),
        "empty": jnp.zeros((0, 3)),
        "small": jnp.array([-8, 7], jnp.int4),
    }

    def fun(p, x):
        flags = jnp.where(p["flags"], 1.0, p["half"].astype(jnp.float32)) + p["small"].astype(jnp.float32)
        return flags[None] * (x @ p["bf16"].T.astype(jnp.float32)) + p["empty"].sum()

    compiled = mobile.compile(fun, params, jnp.ones((1, 3)))
    loaded = mobile.load(compiled.save(tmp_path / "bundle"))
    for path, leaf in params.items():
        again = loaded.packed[path].payload["values"]
        assert (again.dtype, again.shape) == (leaf.dtype, leaf.shape)
        assert np.asarray(again).tobytes() == np.asarray(leaf).tobytes()
    np.testing.assert_array_equal(loaded(jnp.ones((1, 3))), fun(params, jnp.ones((1, 3))))


def test_manifest_states_what_lies_there(saved):
    folder, compiled, _ = saved
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("modicum.bundle", 2)
    assert (manifest["modicum"], manifest["jax"]) == (modicum.__version__, jax.__version__)
    assert manifest["inputs"] == [{"name": "x", "shape": [3, 8, 8, 1], "dtype": "float32"}]
    assert manifest["outputs"] == [{"name": "y", "shape": [3, 10], "dtype": "float32"}]
    assert manifest["weights"]["params/Conv_1/kernel"]["layout"] == "grid8"
    assert manifest["total"]["packed_bytes"] == compiled.report().total.packed.total
    for name, stated in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert stated == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    with np.load(folder / "weights.npz", allow_pickle=False) as weights:
        codes = weights["params/Conv_1/kernel:payload:codes"]
    np.testing.assert_array_equal(codes, compiled.packed["params/Conv_1/kernel"].payload["codes"])
    assert str(folder) not in (folder / "manifest.json").read_text()


def test_runs_in_a_fresh_process_without_the_networks_code(saved, tmp_path):
    folder, compiled, inputs = saved
    np.save(tmp_path / "x.npy", inputs)
    script = (
        "import sys, numpy as np\n"
        "from modicum import mobile\n"
        "bundle = mobile.load(sys.argv[1])\n"
        "np.save(sys.argv[3], bundle(np.load(sys.argv[2])))\n"
        "print(len(bundle.report().rows), len(bundle.stablehlo()), 'tests' in sys.modules)\n"
    )
    source = str(Path(modicum.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["6", str(len(compiled.stablehlo())), "False"]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), mobile.load(folder)(inputs))


def offsets(size, rng):
    """Every byte of a small file; else header, tail, a regular grid and a random sample."""
    if size <= 128:
        return range(size)
    regular = range(0, size, max(1, size // 97))
    return sorted({*range(16), *regular, *rng.integers(0, size, 60).tolist(), *range(size - 16, size)})


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_flipped_byte_is_refused_everywhere(name, folder):
    path = folder / name
    data = path.read_bytes()
    rng = np.random.default_rng(len(data))
    for offset in offsets(len(data), rng):
        for flip in (1 << int(rng.integers(8)), 0xFF):
            damaged = bytearray(data)
            damaged[offset] ^= flip
            path.write_bytes(damaged)
            assert name.split(".")[0] in refusal(folder), f"{name} at {offset}"
    path.write_bytes(data)
    mobile.load(folder)


@pytest.mark.parametrize("name", sorted(FILES))
def test_truncated_or_longer_files_are_refused(name, folder):
    path = folder / name
    data = path.read_bytes()
    for size in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        assert name.split(".")[0] in refusal(folder)
    path.write_bytes(data + b"\0")
    assert name.split(".")[0] in refusal(folder)


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_renamed_or_replaced_files_are_refused(name, folder):
    data = (folder / name).read_bytes()
    (folder / name).rename(folder / f"{name}.bak")
    assert f"must hold {name}, which is missing" in refusal(folder)
    (folder / f"{name}.bak").unlink()
    assert f"must hold {name}, which is missing" in refusal(folder)
    (folder / name).mkdir()
    assert f"must hold {name}, which is missing" in refusal(folder)
    (folder / name).rmdir()
    (folder / name).write_bytes(data)
    mobile.load(folder)


@pytest.mark.parametrize("extra", ["notes.txt", ".hidden", "model.mlir.orig"])
def test_extra_files_are_refused(extra, folder):
    (folder / extra).write_text("")
    assert f"got {extra}" in refusal(folder)


def test_swapped_files_are_refused(folder):
    (folder / "model.mlir").rename(folder / "swap")
    (folder / "model.stablehlo").rename(folder / "model.mlir")
    (folder / "swap").rename(folder / "model.stablehlo")
    assert "is damaged: model." in refusal(folder)


def test_files_of_another_bundle_are_refused(folder, tmp_path):
    fun, params, inputs = conv_net(jax.random.key(1))
    other = mobile.compile(fun, params, inputs, kernels="xla").save(tmp_path / "other")
    for name in sorted(FILES):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes((other / name).read_bytes())
        refusal(folder)
        (folder / name).write_bytes(kept)


def reseal(folder, change):
    """Rewrites the manifest and its checksum: what an edit by hand that looks undamaged would do."""
    manifest = json.loads((folder / "manifest.json").read_text())
    text = json.dumps(change(manifest)).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: {**m, "version": 1}, "must have format modicum.bundle 2, got modicum.bundle 1"),
        (lambda m: {**m, "version": 3}, "must have version 2 or less, got 3"),
        (lambda m: {**m, "format": "other"}, "must have format modicum.bundle 2, got other 2"),
        (lambda m: {**m, "files": {}}, "that is no manifest"),
        (lambda m: [1, 2], "that is no manifest"),
        (lambda m: {**m, "order": ["nowhere"]}, "must be readable by jax"),
        (lambda m: {**m, "report": 3}, "must be readable by jax"),
    ],
)
def test_a_manifest_that_is_whole_but_wrong_is_refused(change, sentence, folder):
    reseal(folder, change)
    assert sentence in refusal(folder)


def test_nothing_is_unpickled(folder):
    """An object array in place of the weights, checksums and all, must not run code."""
    marker = folder.parent / "ran"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    np.savez(folder / "weights.npz", **{"params/Conv_0/bias:payload:values": np.array([Payload()], object)})
    data = (folder / "weights.npz").read_bytes()
    stated = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reseal(folder, lambda m: {**m, "files": {**m["files"], "weights.npz": stated}})
    refusal(folder)
    assert not marker.exists()


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("text")])
def test_what_is_no_folder_is_refused(make, tmp_path):
    make(tmp_path / "bundle")
    with pytest.raises(ValueError, match=r"folder must be a bundle, got .*, which is no folder"):
        mobile.load(tmp_path / "bundle")


def test_an_empty_folder_is_no_bundle_but_takes_one(saved, tmp_path):
    with pytest.raises(ValueError, match=r"must hold manifest\.json, which is missing"):
        mobile.load(tmp_path)
    target = tmp_path / "empty"
    target.mkdir()
    mobile.load(saved[1].save(target))
    assert os.listdir(tmp_path) == ["empty"]


@pytest.mark.parametrize("name", ["thesis.tex", "manifest.json", "model.mlir"])
def test_a_users_folder_is_left_alone(name, saved, tmp_path):
    target = tmp_path / "work"
    target.mkdir()
    (target / name).write_text("{}")
    with pytest.raises(ValueError, match="folder must be absent, empty or an older bundle"):
        saved[1].save(target)
    assert [path.name for path in tmp_path.rglob("*")] == ["work", name]
    assert (target / name).read_text() == "{}"


def test_a_bundle_with_a_users_file_beside_it_is_left_alone(saved, folder):
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="with other files in it"):
        saved[1].save(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_file_or_link_in_the_way_is_left_alone(saved, folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(folder)
    for name in ("file", "link"):
        with pytest.raises(ValueError, match="which is a file or a link"):
            saved[1].save(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    mobile.load(folder)


def test_an_older_bundle_is_replaced_even_if_damaged(saved, folder, tmp_path):
    fun, params, inputs = conv_net(jax.random.key(1))
    newer = mobile.compile(fun, params, inputs)
    (folder / "model.mlir").write_bytes(b"damaged")
    newer.save(folder)
    np.testing.assert_allclose(mobile.load(folder)(inputs), newer(inputs), rtol=0, atol=1e-6)
    assert os.listdir(tmp_path) == ["bundle"]


class Interruption(BaseException):
    """What Ctrl-C is: no `Exception`."""


@pytest.mark.parametrize("error", [OSError("no space left"), Interruption()], ids=["disk", "interrupt"])
@pytest.mark.parametrize("turn", range(5))
@pytest.mark.parametrize("older", [False, True])
def test_an_interrupted_save_leaves_nothing(error, turn, older, saved, folder, tmp_path, monkeypatch):
    target = folder if older else tmp_path / "new"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    turns = iter(range(6))

    def failing(descriptor):
        if next(turns) == turn:
            raise error

    monkeypatch.setattr(bundle.os, "fsync", failing)  # after the bytes of a file went out, before it is closed
    with pytest.raises(type(error)):
        saved[1].save(target)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert os.listdir(tmp_path) == ["bundle"]


@pytest.mark.parametrize("turn", [0, 1])
def test_a_failing_rename_brings_the_older_bundle_back(turn, saved, folder, tmp_path, monkeypatch):
    rename, turns = Path.rename, iter(range(9))

    def failing(self, target):
        if next(turns) == turn:
            raise Interruption
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(Interruption):
        saved[1].save(folder)
    assert os.listdir(tmp_path) == ["bundle"]
    mobile.load(folder)


def test_what_a_killed_save_left_behind_goes_with_the_next(saved, tmp_path):
    for leftover in (".bundle.partial", ".bundle.older"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "model.mlir").write_bytes(b"half")
    saved[1].save(tmp_path / "bundle")
    assert os.listdir(tmp_path) == ["bundle"]
    mobile.load(tmp_path / "bundle")


def test_parents_are_made_and_paths_may_be_text(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved[1].save("runs/today/bundle")
    mobile.load("runs/today/bundle")


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (jnp.ones((2, 8, 8, 1)), r"x must have shape \(3, 8, 8, 1\) and dtype float32, got \(2, 8, 8, 1\)"),
        (jnp.ones((3, 8, 8, 1), int), r"x must have shape \(3, 8, 8, 1\) and dtype float32, .* int32"),
        ([jnp.ones((3, 8, 8, 1))] * 2, "x must have the arrays x and no others"),
    ],
)
def test_a_loaded_bundle_refuses_inputs_that_do_not_fit(x, sentence, saved):
    with pytest.raises(ValueError, match=sentence):
        mobile.load(saved[0])(x)
