"""ChaCha20: the RFC's known answers, two backends with one stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.federated import add_masks, chacha20_words, key_words, mask_words, openssl_words

KEY = bytes(range(32))
# RFC 8439: section 2.3.2, appendix A.1 vectors 1 and 2 (key, nonce, counter, block)
VECTORS = {
    "2.3.2": (
        KEY,
        bytes.fromhex("000000090000004a00000000"),
        1,
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
    ),
    "A.1-1": (
        bytes(32),
        bytes(12),
        0,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    "A.1-2": (
        bytes(32),
        bytes(12),
        1,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
}


def words(data):
    return np.frombuffer(data, "<u4").astype(np.uint32)


@pytest.mark.parametrize("name", VECTORS)
def test_known_answers(name):
    key, nonce, counter, block = VECTORS[name]
    expected = words(bytes.fromhex(block))
    np.testing.assert_array_equal(openssl_words(key, 16, nonce, counter), expected)
    ours = chacha20_words(key_words(key), 16, jnp.asarray(words(nonce)), counter)
    assert ours.dtype == jnp.uint32
    np.testing.assert_array_equal(ours, expected)


def test_encryption_of_the_rfc():
    """Section 2.4.2: the stream from block 1 on, against its first ciphertext bytes."""
    stream = openssl_words(KEY, 4, bytes.fromhex("000000000000004a00000000"), 1)
    plain = words(b"Ladies and Gentl")
    assert (stream ^ plain).astype("<u4").tobytes().hex() == "6e2e359a2568f98041ba0728dd0d6981"


@pytest.mark.parametrize("count", [0, 1, 16, 17, 1000])
def test_backends_agree(count):
    np.testing.assert_array_equal(mask_words(KEY, count, "openssl"), mask_words(KEY, count, "jax"))


def test_near_the_end_of_the_counter():
    np.testing.assert_array_equal(
        openssl_words(KEY, 32, counter=2**32 - 2), chacha20_words(key_words(KEY), 32, counter=2**32 - 2)
    )
    for stream in (
        lambda: openssl_words(KEY, 33, counter=2**32 - 2),
        lambda: chacha20_words(key_words(KEY), 17, None, 2**32 - 1),
    ):
        with pytest.raises(ValueError, match="count must be a whole number of at least 0 and at most"):
            stream()


def test_jit_vmap_and_x64():
    keys = jnp.stack([key_words(KEY), key_words(bytes(32))])
    expected = np.stack([mask_words(KEY, 40), mask_words(bytes(32), 40)])
    mapped = jax.jit(jax.vmap(lambda key: chacha20_words(key, 40)))
    np.testing.assert_array_equal(mapped(keys), expected)
    with jax.enable_x64(True):
        wide = mapped(keys)
    assert wide.dtype == jnp.uint32
    np.testing.assert_array_equal(wide, expected)


def test_bad_input_shows_no_secret():
    with pytest.raises(ValueError, match=r"^key must be 32 bytes, got 3$"):
        mask_words(b"abc", 4)
    with pytest.raises(ValueError, match="nonce must be 12 bytes, got 16"):
        openssl_words(KEY, 4, bytes(16))
    with pytest.raises(ValueError, match="backend must be one of 'openssl', 'jax', got 'threefry'"):
        mask_words(KEY, 4, "threefry")


@pytest.mark.parametrize("backend", ["openssl", "jax"])
def test_masks_are_added_and_taken_off_as_their_words_say(backend):
    """Over the end of a chunk; the vector that was given stays as it is."""
    count = 2**15 + 5
    vector = np.arange(count, dtype=np.uint32) * np.uint32(2654435761)
    kept = vector.copy()
    expected = vector + mask_words(KEY, count) - mask_words(bytes(32), count)
    np.testing.assert_array_equal(add_masks(vector, [(KEY, False), (bytes(32), True)], backend), expected)
    np.testing.assert_array_equal(vector, kept)
    with pytest.raises(ValueError, match="key must be 32 bytes, got 3"):
        add_masks(vector, [(b"abc", False)], backend)
