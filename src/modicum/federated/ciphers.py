"""The primitives of the protocols, all by the package `cryptography`: one thin function each.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), AES-256-GCM (NIST SP 800-38D), Ed25519 (RFC 8032), ChaCha20 (RFC 8439).
The package is imported when the first of them is called.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

from modicum.core import optional

NONCE_BYTES = 12
TAG_BYTES = 16
CHUNK_BYTES = 2**17
"""What a core's own cache holds: a whole mask of millions of words is slower through memory than through the cipher."""
_ZEROS = memoryview(bytes(CHUNK_BYTES))


def _primitives(name: str) -> Any:
    """A module below `cryptography.hazmat.primitives`."""
    return _cryptography(f"hazmat.primitives.{name}")


def _cryptography(name: str) -> Any:
    """A module of `cryptography`, which the extra `federated` brings."""
    return optional.package(f"cryptography.{name}", "federated", "cryptography")


def chacha20(key: bytes, nonce: bytes) -> Callable[[memoryview], None]:
    """A key stream: each call writes its next bytes over a buffer of at most `CHUNK_BYTES`.

    The 16-byte nonce starts with the little-endian block counter.
    """
    ciphers = _primitives("ciphers")
    algorithm = _primitives("ciphers.algorithms").ChaCha20(key, nonce)
    encryptor = ciphers.Cipher(algorithm, mode=None).encryptor()
    return lambda buffer: encryptor.update_into(_ZEROS[: len(buffer)], buffer)


def derive(secret: bytes, info: bytes) -> bytes:
    """32 bytes by HKDF-SHA256 without salt; different `info`, independent keys."""
    hashes, hkdf = _primitives("hashes"), _primitives("kdf.hkdf")
    return hkdf.HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


def digest(*parts: bytes) -> bytes:
    """SHA-256 of the parts, each led by its length so that no two lists collide."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little") + part)
    return state.digest()


def label(tag: bytes, purpose: bytes, *numbers: int) -> bytes:
    """`info` of a derived key, or what a ciphertext is bound to: purpose, session, and whom or what it concerns."""
    return digest(purpose, tag, *(number.to_bytes(8, "little") for number in numbers))


def public_key(secret: bytes) -> bytes:
    """The X25519 public key of 32 secret bytes."""
    return _primitives("asymmetric.x25519").X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agreeing(secret: bytes) -> Callable[[bytes], bytes]:
    """`agree` of one secret with many peers; what it knows of the secret alone (its public key) is computed once."""
    x25519 = _primitives("asymmetric.x25519")
    private, public = x25519.X25519PrivateKey.from_private_bytes(secret), x25519.X25519PublicKey
    return lambda peer: private.exchange(public.from_public_bytes(peer))


def agree(secret: bytes, peer: bytes) -> bytes:
    """The X25519 shared secret; never use it without `derive`.

    Raises:
        ValueError: for a peer's key of low order, whose shared secret would be all zero.
    """
    return agreeing(secret)(peer)


@functools.lru_cache(maxsize=1)
def _nobody() -> Callable[[bytes], bytes]:
    """Agreement with a secret that everybody knows."""
    return agreeing(bytes(range(32)))


def is_usable(public: bytes) -> bool:
    """Whether an X25519 public key has the right length and no low order, so that others can agree with it."""
    try:
        _nobody()(public)
    except ValueError:
        return False
    return True


def seal(key: bytes, nonce: bytes, plaintext: bytes, bound: bytes) -> bytes:
    """AES-256-GCM: `nonce || ciphertext || tag`; `bound` is authenticated with it and not sent."""
    return nonce + _primitives("ciphers.aead").AESGCM(key).encrypt(nonce, plaintext, bound)


def unseal(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    """What was sealed.

    Raises:
        ValueError: where the ciphertext, or what it is bound to, is not what was sealed.
    """
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise ValueError("the ciphertext is shorter than its nonce and tag")
    try:
        return _primitives("ciphers.aead").AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except _cryptography("exceptions").InvalidTag:
        raise ValueError("the ciphertext was altered or is meant for another place") from None


def verify_key(secret: bytes) -> bytes:
    """The Ed25519 public key of a 32-byte signing key."""
    ed25519 = _primitives("asymmetric.ed25519")
    return ed25519.Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def sign(secret: bytes, message: bytes) -> bytes:
    """The Ed25519 signature, 64 bytes; deterministic."""
    return _primitives("asymmetric.ed25519").Ed25519PrivateKey.from_private_bytes(secret).sign(message)


def is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the owner of the Ed25519 key signed the message."""
    try:
        _primitives("asymmetric.ed25519").Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except _cryptography("exceptions").InvalidSignature:
        return False
    return True
