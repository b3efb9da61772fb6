"""Safetensors: bit for bit, whole or not there, and refused by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import interchange
from modicum.interchange import files

pytest.importorskip("safetensors")


def tree():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**16, 12, np.uint16)
    return {
        "params": {
            "Dense_0": {"kernel": rng.standard_normal((3, 4)).astype(np.float32), "bias": np.float32(2.5)},
            # every pattern of bits, NaN among them
            "half": [words.view(jnp.bfloat16).reshape(3, 4), (words.view(np.float16),)],
        },
        "counts": np.arange(6, dtype=np.int32).reshape(3, 2).T,
        "mask": np.array([True, False]),
        "eighth": rng.integers(0, 256, 5, np.uint8).view(jnp.float8_e4m3fn),
        "nothing": np.zeros((0, 3), np.float32),
    }


def same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


def test_round_trip_is_bit_exact(tmp_path):
    path, given = tmp_path / "a.safetensors", tree()
    interchange.save(path, given, {"model": "LeNet5", "note": "ä"})
    same(interchange.load(path, given), given)
    same(interchange.load(path, jax.eval_shape(lambda: jax.tree.map(jnp.asarray, given))), given)
    assert interchange.metadata(path) == {"model": "LeNet5", "note": "ä"}
    nested = interchange.load(path)
    # entries of lists are named by their numbers
    assert set(nested["params"]["half"]) == {"0", "1"}
    same(nested["counts"], given["counts"])
    interchange.save(path, {"x": np.ones(1, np.float32)})
    assert interchange.metadata(path) == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_library_itself_reads_what_we_wrote(tmp_path):
    """And its header is what the format's text says."""
    from safetensors.numpy import load_file

    path = tmp_path / "a.safetensors"
    interchange.save(path, {"a": {"b": np.arange(3.0, dtype=np.float32)}, "h": jnp.ones(2, jnp.bfloat16)})
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert (header["a/b"]["dtype"], header["a/b"]["shape"]) == ("F32", [3])
    assert (header["h"]["dtype"], header["h"]["shape"]) == ("BF16", [2])
    interchange.save(path, {"a": {"b": np.arange(3.0, dtype=np.float32)}})
    np.testing.assert_array_equal(load_file(path)["a/b"], [0, 1, 2])


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    interchange.save(path, {"x": np.ones(1, np.float32)})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        interchange.save(path, {"x": np.zeros(1, np.float32)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_differs_from_the_wanted_tree_is_all_named(tmp_path):
    path = tmp_path / "a.safetensors"
    interchange.save(path, {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32), "c": np.ones(1, np.float32)})
    like = {"a": np.ones(2, np.float32), "b": np.ones((3, 1), np.float16), "d": np.ones(1), "e": np.ones(1)}
    with pytest.raises(
        ValueError, match=r"missing: d, e; not asked for: c; b is float32\[3\] and must be float16\[3, 1\]$"
    ):
        interchange.load(path, like)


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_a_damaged_file_is_refused(tmp_path, cut):
    path = tmp_path / "a.safetensors"
    interchange.save(path, {"weights": np.ones(8, np.float32)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"path must be a whole safetensors file, got .*a\.safetensors"):
        interchange.load(path)


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for tree, sentence in (
        ({"key": jax.random.key(0)}, "got a PRNG key at key"),
        ({"x": {"y": np.array(["text"])}}, "got <U4 at x/y"),
        ({"a/b": np.ones(1), "a": {"b": np.ones(1)}}, "two that are equal where '/' is part of a key"),
    ):
        with pytest.raises(ValueError, match=sentence):
            interchange.save(path, tree)
    with pytest.raises(ValueError, match="metadata must be words by name, got 3 at epochs"):
        interchange.save(path, {"x": np.ones(1)}, {"epochs": 3})
    assert not any(tmp_path.iterdir())
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match="path must be a safetensors file"):
        interchange.metadata(tmp_path / "text")
