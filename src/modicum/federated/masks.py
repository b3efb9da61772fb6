"""The key stream of masks: ChaCha20 as one bit stream out of two backends.

`chacha20_words` is JAX (uint32 only: `jit`, `vmap`, accelerators), `openssl_words` is OpenSSL through the package
`cryptography` (extra `federated`), the faster one on CPU hosts. Both give the key stream of RFC 8439 as little-endian
32-bit words, so parties may mix them.

JAX's own generators are no ciphers (threefry's key has 64 bits) and make no masks here.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from modicum.core import check
from modicum.federated import ciphers

BACKENDS = ("openssl", "jax")

_CONSTANTS = np.frombuffer(b"expand 32-byte k", "<u4").astype(np.uint32)
_WORDS = 16
"""Words of one block."""
_CHUNK = ciphers.CHUNK_BYTES // 4
ZERO_NONCE = bytes(12)
"""Enough where a key makes one stream only, as every mask key does."""


def _rotated(x: Array, bits: int) -> Array:
    return (x << jnp.uint32(bits)) | (x >> jnp.uint32(32 - bits))


def _quarter(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Array, Array]:
    """RFC 8439, section 2.1; four of them side by side."""
    a = a + b
    d = _rotated(d ^ a, 16)
    c = c + d
    b = _rotated(b ^ c, 12)
    a = a + b
    d = _rotated(d ^ a, 8)
    c = c + d
    b = _rotated(b ^ c, 7)
    return a, b, c, d


def _double_round(_: Array | int, rows: tuple[Array, ...]) -> tuple[Array, ...]:
    """A column round and a diagonal round: diagonals are columns once row `i` is turned by `i`."""
    a, b, c, d = _quarter(*rows)
    a, b, c, d = _quarter(a, jnp.roll(b, -1, 0), jnp.roll(c, -2, 0), jnp.roll(d, -3, 0))
    return a, jnp.roll(b, 1, 0), jnp.roll(c, 2, 0), jnp.roll(d, 3, 0)


def chacha20_words(
    key: UInt32[Array, " 8"], count: int, nonce: UInt32[Array, " 3"] | None = None, counter: int = 0
) -> UInt32[Array, " count"]:
    """The first `count` words of the ChaCha20 key stream, in JAX.

    Args:
        key: 256 bits as eight little-endian words; may be traced and mapped over. It must come from
            real randomness, which nothing here can check.
        count: words wanted, at least 0; static.
        nonce: 96 bits as three little-endian words; zeros where None.
        counter: number of the first block; static.

    Raises:
        ValueError: where the 32-bit block counter would wrap around.

    Reference:
        RFC 8439, sections 2.3 (block) and 2.4 (counter). JAX does not run in constant time on every device.
    """
    _check_length(count, counter)
    blocks = -(-count // _WORDS)
    nonce = jnp.zeros(3, jnp.uint32) if nonce is None else nonce
    counters = jnp.uint32(counter) + lax.iota(jnp.uint32, blocks)

    def row(words: Array) -> Array:
        return jnp.broadcast_to(words.reshape(4, 1), (4, blocks))

    last = jnp.concatenate([counters.reshape(1, blocks), jnp.broadcast_to(nonce.reshape(3, 1), (3, blocks))])
    start = (row(jnp.asarray(_CONSTANTS)), row(key[:4]), row(key[4:]), last)
    mixed = lax.fori_loop(0, 10, _double_round, start)
    block = jnp.concatenate([a + b for a, b in zip(mixed, start, strict=True)])
    return block.T.reshape(-1)[:count]


_jitted_words = jax.jit(chacha20_words, static_argnums=(1, 3))


def openssl_words(key: bytes, count: int, nonce: bytes = ZERO_NONCE, counter: int = 0) -> UInt32[np.ndarray, " count"]:
    """The first `count` words of the ChaCha20 key stream, from OpenSSL.

    Args:
        key: 32 secret bytes.
        count: words wanted, at least 0.
        nonce: 12 bytes.
        counter: number of the first block.

    Raises:
        ValueError: for keys or nonces of other lengths, or where the block counter would wrap around.
        ImportError: without the extra `federated`.
    """
    _check_length(count, counter)
    check_bytes(32, key=key)
    check_bytes(12, nonce=nonce)
    stream, words = ciphers.chacha20(key, counter.to_bytes(4, "little") + nonce), np.empty(count, "<u4")
    for start in range(0, count, _CHUNK):
        stream(words[start : start + _CHUNK].data.cast("B"))
    return words.astype(np.uint32, copy=False)


def mask_words(key: bytes, count: int, backend: str = "openssl") -> UInt32[np.ndarray, " count"]:
    """The mask of a key on the host, the same words from either backend.

    Args:
        key: 32 secret bytes that make this one mask and nothing else.
        count: words wanted, at least 0.
        backend: `openssl`, or `jax` for accelerators and where `cryptography` is not installed.

    Raises:
        ValueError: for a key of another length, another backend, or more than 2^36 words.
    """
    check.one_of(BACKENDS, backend=backend)
    if backend == "openssl":
        return openssl_words(key, count)
    return np.asarray(_jitted_words(key_words(key), count, None, 0))


def add_masks(
    vector: UInt32[np.ndarray, " count"], masks: Iterable[tuple[bytes, bool]], backend: str = "openssl"
) -> UInt32[np.ndarray, " count"]:
    """A vector plus the masks of some keys, mod 2^32: the sum of `mask_words`, but no mask is ever in memory whole.

    Args:
        vector: numbers to be hidden, or to be laid open.
        masks: 32 secret bytes each, and whether the mask is taken off in place of added.
        backend: as for `mask_words`.

    Returns:
        A new vector.

    Raises:
        ValueError: as `mask_words`.

    Example:
        >>> hidden = add_masks(np.arange(3, dtype=np.uint32), [(bytes(32), False)], "jax")
        >>> add_masks(hidden, [(bytes(32), True)], "jax").tolist()
        [0, 1, 2]
    """
    check.one_of(BACKENDS, backend=backend)
    _check_length(vector.size, 0)
    total, keyed = np.array(vector, np.uint32), [(key, np.subtract if off else np.add) for key, off in masks]
    for key, _ in keyed:
        check_bytes(32, key=key)
    if backend == "jax":
        for key, combine in keyed:
            combine(total, mask_words(key, total.size, backend), out=total)
        return total
    streams = [(ciphers.chacha20(key, bytes(16)), combine) for key, combine in keyed]
    words = np.empty(_CHUNK, "<u4")
    for start in range(0, total.size, _CHUNK):
        part = total[start : start + _CHUNK]
        mask = words[: part.size]
        for stream, combine in streams:
            stream(mask.data.cast("B"))
            combine(part, mask, out=part)
    return total


def key_words(key: bytes) -> UInt32[Array, " 8"]:
    """32 bytes as the eight little-endian words that `chacha20_words` takes."""
    check_bytes(32, key=key)
    return jnp.asarray(np.frombuffer(key, "<u4").astype(np.uint32))


def _check_length(count: int, counter: int) -> None:
    check.integer(0, 2**32 - 1, counter=counter)
    check.integer(0, (2**32 - counter) * _WORDS, count=count)


def check_bytes(length: int, **named: bytes) -> None:
    """Each value has that many bytes; the message does not show them, for they may be secret."""
    for name, value in named.items():
        if len(value) != length:
            raise ValueError(f"{name} must be {length} bytes, got {len(value)}")
