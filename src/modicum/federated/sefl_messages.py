"""What the parties of SEFL agree on beforehand, send each other and derive alike; `sefl` tells the protocol."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt32

from modicum.core import check
from modicum.federated import ciphers, wire
from modicum.federated.fixed_point import FixedPointSpec
from modicum.federated.masks import BACKENDS, ZERO_NONCE, mask_words
from modicum.federated.noise import LARGEST_SIGMA, discrete_gaussian
from modicum.federated.secagg_messages import RefusedError

Address = Literal["aggregator", "provider"]
AGGREGATOR: Address = "aggregator"
PROVIDER: Address = "provider"

SEED_BYTES = 32
KEY_BYTES = 32
SIGNATURE_BYTES = 64
NOISE_TAIL = 8
"""Standard deviations of each server's noise that the ring has room for; beyond lie fewer than 1 in 10^14 samples."""


@dataclass(frozen=True, kw_only=True)
class SeflSpec:
    """A round of SEFL: what all parties must know and agree on beforehand, from a source they trust.

    Args:
        round_id: number of the round, from 0 to 2^63 - 1; rounds of one provider must go up.
        dimension: length of the vectors, at least 1.
        identities: the clients' Ed25519 public keys (`ciphers.verify_key`), distinct, at least two.
        provider_key: X25519 public key of the crypto service provider.
        fixed_point: the ring and its budget; `clients` must be that of the identities at least.
        least: survivors that there must be, at least two and at most all: of one, the sum is its vector.
        sigma: scale of the discrete Gaussian noise that each of the two servers adds to the sum, in steps; 0 for none.
        model: what the vectors belong to; bound into every key and signature.
        backend: which ChaCha20 makes the masks on this machine, `openssl` or `jax`; parties may differ.

    Raises:
        ValueError: naming the argument that does not fit; also where sum and noise might wrap around the ring.
    """

    round_id: int
    dimension: int
    identities: tuple[bytes, ...]
    provider_key: bytes
    fixed_point: FixedPointSpec
    least: int
    sigma: float = 0.0
    model: bytes = b""
    backend: str = "openssl"

    def __post_init__(self) -> None:
        check.integer(0, 2**63 - 1, round_id=self.round_id)
        check.integer(1, 2**36, dimension=self.dimension)
        check.one_of(BACKENDS, backend=self.backend)
        check.between(0.0, LARGEST_SIGMA, sigma=self.sigma)
        if any(len(key) != KEY_BYTES for key in self.identities) or len(set(self.identities)) < len(self.identities):
            raise ValueError("identities must be distinct Ed25519 public keys of 32 bytes each")
        if not ciphers.is_usable(self.provider_key):
            raise ValueError("provider_key must be an X25519 public key of 32 bytes that agrees with others")
        check.integer(2, clients=self.clients)
        check.integer(2, self.clients, least=self.least)
        if self.fixed_point.clients < self.clients:
            raise ValueError(
                f"fixed_point must have room for the round's {self.clients} clients, got {self.fixed_point.clients}"
            )
        largest = self.clients * self.fixed_point.limit + 2 * NOISE_TAIL * self.sigma
        if largest > self.fixed_point.largest:
            raise ValueError(
                f"sigma must leave room below half of the ring, {self.fixed_point.largest} steps: with "
                f"{self.clients} clients sum and noise may reach {largest:.0f}, got sigma {self.sigma}"
            )

    @property
    def clients(self) -> int:
        """How many clients may take part."""
        return len(self.identities)

    @property
    def bits(self) -> int:
        """Bits of a ring element on the wire."""
        return self.fixed_point.ring_bits

    @functools.cached_property
    def tag(self) -> bytes:
        """32 bytes that stand for this round and no other: bound into every key, signature and ciphertext."""
        fixed = self.fixed_point
        numbers = (self.round_id, self.dimension, self.least, self.bits, fixed.fraction_bits, fixed.limit)
        packed = (number.to_bytes(8, "little") for number in numbers)
        noise = np.float64(self.sigma).tobytes()
        return ciphers.digest(b"modicum sefl 1", self.model, *packed, noise, self.provider_key, *self.identities)

    def label(self, purpose: bytes, *clients: int) -> bytes:
        """`info` of a derived key, or what a ciphertext is bound to: purpose, round, and whom it concerns."""
        return ciphers.label(self.tag, purpose, *clients)


@dataclass(frozen=True)
class SealedSeed:
    """A client's seed, sealed for the provider; the aggregator carries it and cannot open it."""

    sender: int
    key: bytes
    """Ephemeral X25519 public key."""
    ciphertext: bytes
    signature: bytes
    """By the client's identity: so that the aggregator cannot make up clients and take their vectors off the sum."""

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, but for the sender's number."""
        return len(self.key) + len(self.ciphertext) + len(self.signature)


@dataclass(frozen=True)
class Submission:
    """All that a client sends: its vector under the mask of its seed, packed, and the sealed seed."""

    round_id: int
    sender: int
    masked: bytes
    seed: SealedSeed

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, with 8 each for round and sender."""
        return len(self.masked) + self.seed.nbytes + 16


@dataclass(frozen=True)
class OpenRequest:
    """Whose masks the aggregator wants the sum of, with their sealed seeds."""

    round_id: int
    seeds: Mapping[int, SealedSeed]


@dataclass(frozen=True)
class MaskSum:
    """Sum of the survivors' masks less the provider's noise, packed."""

    round_id: int
    survivors: tuple[int, ...]
    total: bytes


Message = Submission | OpenRequest | MaskSum
Inbox = Sequence[Message]
Outbox = Mapping[Address, Message]


def signed_seed(spec: SeflSpec, sender: int, key: bytes, ciphertext: bytes) -> bytes:
    """What the signature of a `SealedSeed` covers."""
    return ciphers.digest(spec.label(b"seed", sender), key, ciphertext)


def seed_key(spec: SeflSpec, sender: int, agreed: bytes, key: bytes) -> bytes:
    """The key under which a seed is sealed, from the X25519 secret; bound to both public keys."""
    return ciphers.derive(agreed, spec.label(b"seed key", sender) + key)


def seal_seed(spec: SeflSpec, sender: int, identity: bytes, ephemeral: bytes, seed: bytes) -> SealedSeed:
    """The seed for the provider.

    Args:
        spec: the round.
        sender: the client.
        identity: its Ed25519 signing key.
        ephemeral: an X25519 secret that serves for this alone: hence the nonce of zeros.
        seed: 32 secret bytes.
    """
    key = ciphers.public_key(ephemeral)
    secret = seed_key(spec, sender, ciphers.agree(ephemeral, spec.provider_key), key)
    ciphertext = ciphers.seal(secret, ZERO_NONCE, seed, spec.label(b"sealed seed", sender))[len(ZERO_NONCE) :]
    signature = ciphers.sign(identity, signed_seed(spec, sender, key, ciphertext))
    return SealedSeed(sender, key, ciphertext, signature)


def check_seed(spec: SeflSpec, sealed: SealedSeed, who: str) -> None:
    """Whether a client of the round made this for this round.

    Raises:
        RefusedError: unless it did; `who` checks.
    """
    if not 0 <= sealed.sender < spec.clients:
        raise RefusedError(f"{who} got a seed of client {sealed.sender}, who is not of round {spec.round_id}")
    content = signed_seed(spec, sealed.sender, sealed.key, sealed.ciphertext)
    if not ciphers.is_signed(spec.identities[sealed.sender], sealed.signature, content):
        raise RefusedError(f"{who} got a seed that client {sealed.sender} did not sign for round {spec.round_id}")


def open_seed(spec: SeflSpec, sealed: SealedSeed, secret: bytes) -> bytes:
    """The seed, by the provider's X25519 secret.

    Raises:
        RefusedError: where it was sealed for another round, client or provider, or altered.
    """
    try:
        key = seed_key(spec, sealed.sender, ciphers.agree(secret, sealed.key), sealed.key)
        seed = ciphers.unseal(key, ZERO_NONCE + sealed.ciphertext, spec.label(b"sealed seed", sealed.sender))
    except ValueError as error:
        raise RefusedError(f"the provider got a bad seed of client {sealed.sender}: {error}") from None
    if len(seed) != SEED_BYTES:
        raise RefusedError(f"the provider got a seed of client {sealed.sender} of another length than {SEED_BYTES}")
    return seed


def seed_mask(spec: SeflSpec, seed: bytes) -> UInt32[np.ndarray, " dimension"]:
    """The mask of a seed, as 32-bit words; what lies above the ring's bits is left out when packed."""
    return mask_words(seed, spec.dimension, spec.backend)


def server_noise(spec: SeflSpec, randomness: bytes, purpose: bytes) -> UInt32[np.ndarray, " dimension"]:
    """One server's discrete Gaussian noise as ring elements; zeros where the round has none.

    Args:
        spec: the round.
        randomness: at least 32 secret bytes where `spec.sigma` is above 0.
        purpose: whose noise it is.

    Raises:
        ValueError: for short randomness.
    """
    if not spec.sigma:
        return np.zeros(spec.dimension, np.uint32)
    if len(randomness) < 32:
        raise ValueError(f"randomness must be at least 32 bytes, got {len(randomness)}")
    key = ciphers.derive(randomness, spec.label(purpose))
    return discrete_gaussian(key, spec.dimension, spec.sigma).view(np.uint32)


def unpacked(spec: SeflSpec, data: bytes, who: str, sender: str) -> UInt32[np.ndarray, " dimension"]:
    """Ring elements off the wire.

    Raises:
        RefusedError: where the bytes are not those of a vector of the round.
    """
    expected = wire.packed_bytes(spec.dimension, spec.bits)
    if len(data) != expected:
        raise RefusedError(f"{who} awaits {expected} bytes from {sender}, got {len(data)}")
    return wire.unpack(data, spec.dimension, spec.bits)
