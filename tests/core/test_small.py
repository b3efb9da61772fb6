"""Validators, trees and packed weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.core import Bytes, Packed, check, leaves_by_path, map_by_path, masks_by_path, select_by_path


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: check.positive(rho=0), "rho must be above 0, got 0"),
        (lambda: check.positive(rho="3"), "rho must be a number above 0, got '3'"),
        (lambda: check.positive(rho=True), "rho must be a number above 0, got True"),
        (lambda: check.positive(rho=float("nan")), "rho must be a number above 0, got nan"),
        (lambda: check.non_negative(sigma=-0.1), "sigma must not be below 0, got -0.1"),
        (lambda: check.between(0, 1, rate=2), "rate must lie from 0 to 1, got 2"),
        (lambda: check.integer(2, 8, bits=9), "bits must be a whole number of at least 2 and at most 8, got 9"),
        (lambda: check.integer(2, bits=1), "bits must be a whole number of at least 2, got 1"),
        (lambda: check.integer(high=4, bits=5), "bits must be a whole number up to 4, got 5"),
        (lambda: check.integer(bits=2.5), "bits must be a whole number, got 2.5"),
        (lambda: check.integer(1, bits=True), "bits must be a whole number of at least 1, got True"),
        (lambda: check.one_of(("prox", "penalty"), form="x"), "form must be one of 'prox', 'penalty', got 'x'"),
        (lambda: check.divides(9, fragment=10), "fragment must be a multiple of 9, got 10"),
        (lambda: check.rank((2, 4), w=np.ones(3)), r"w must have 2 or 4 axes, got shape (3,)"),
        (lambda: check.shape((2, 3), x=np.ones((3, 2))), "x must have shape (2, 3), got (3, 2)"),
        (
            lambda: check.finite(w=np.array([[1.0, np.inf], [np.nan, 1.0]])),
            "w must be finite, got 2 NaN or infinite values, the first at index (0, 1)",
        ),
    ],
)
def test_one_sentence(call, sentence):
    with pytest.raises(ValueError, match="must") as caught:
        call()
    assert str(caught.value) == sentence


def test_good_values_pass():
    check.positive(rho=np.float32(1), limit=float("inf"))
    check.non_negative(sigma=0)
    check.between(0, 1, rate=0.5)
    check.integer(1, 4, bits=np.int64(4))
    check.one_of({"a", "b"}, form="a")
    check.divides(9, fragment=18)
    check.rank((2,), w=np.ones((2, 2)))
    check.shape((2,), w=np.ones(2))
    check.finite(w=np.ones(2), b=1.0)


TREE = {"params": {"Conv_0": {"kernel": 1, "bias": 2}, "Dense_0": {"kernel": 3}}}


def test_leaves_keep_tree_order():
    assert leaves_by_path(TREE) == {
        "params/Conv_0/bias": 2,
        "params/Conv_0/kernel": 1,
        "params/Dense_0/kernel": 3,
    }
    assert list(leaves_by_path(TREE).values()) == jax.tree.leaves(TREE)


def test_map_by_path():
    doubled = map_by_path(lambda path, leaf, other: (path, leaf + other), {"a": 1}, {"a": 10})
    assert doubled == {"a": ("a", 11)}


def test_first_matching_rule_wins():
    chosen = select_by_path({"Conv": "conv", "kernel": "any"}, TREE, otherwise="none")
    assert chosen == {"params": {"Conv_0": {"kernel": "conv", "bias": "conv"}, "Dense_0": {"kernel": "any"}}}
    assert masks_by_path({"kernel$": True}, TREE)["params"]["Conv_0"] == {"kernel": True, "bias": False}


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"pattern 'Conv_7' must match a parameter path, got paths params/Conv_0/bias"):
        select_by_path({"kernel": 1, "Conv_7": 2}, TREE)


def _packed():
    return Packed(
        payload={"values": jnp.zeros(3, jnp.uint8)},
        index={"kept": jnp.zeros((2, 2), jnp.uint16)},
        metadata={"scale": jnp.ones((), jnp.float32)},
        layout="example",
        shape=(4, 4),
        dtype="float32",
    )


def test_packed_counts_every_byte():
    assert _packed().nbytes == Bytes(payload=3, index=8, metadata=4)
    assert _packed().nbytes.total == 15


def test_packed_is_a_pytree_with_static_layout():
    packed = _packed()
    doubled = jax.jit(lambda p: jax.tree.map(lambda leaf: leaf + 1, p))(packed)
    assert isinstance(doubled, Packed)
    assert (doubled.layout, doubled.shape, int(doubled.payload["values"][0])) == ("example", (4, 4), 1)
    assert len(jax.tree.leaves(packed)) == 3
