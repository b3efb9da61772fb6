"""SEFL by homomorphic encryption: vectors encrypted for the provider, added by the aggregator, decrypted under a mask.

**Not audited**, and against servers that **follow the protocol** only: the provider decrypts one vector per round and
cannot see of how many clients it is, so that an aggregator that deviates could have a single client's vector opened.
The seeds of `sefl` have no such gap and send a third of the bytes; this form is closer to the paper's description, and
needs no seeds at the provider.

| party | does | sends |
|---|---|---|
| client | encrypts its vector for the provider (`lattice`) | 27 bits for each residue, signed |
| aggregator | adds ciphertexts, and an encryption of a fresh mask with flooding noise | to the provider: the sum |
| provider | decrypts what is the sum under the mask, once per round, adds noise of its own | to the aggregator |
| aggregator | takes its mask off, adds noise of its own | none: it has the sum |

Steps are pure, `(spec, state, inbox, randomness) -> (state, outbox)`. `SeflSpec.provider_key` serves to agree on whose
lattice key it is: `lattice_spec` puts its digest into the round's tag.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from modicum.federated import ciphers, lattice, wire
from modicum.federated.lattice import Ciphertext, PublicKey
from modicum.federated.secagg_messages import RefusedError
from modicum.federated.sefl_messages import SeflSpec, seed_mask, server_noise


@dataclass(frozen=True, eq=False)
class Encrypted:
    """A client's vector, encrypted."""

    round_id: int
    sender: int
    data: bytes
    signature: bytes

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, with 8 each for round and sender."""
        return len(self.data) + len(self.signature) + 16


@dataclass(frozen=True, eq=False)
class Blinded:
    """The sum under the aggregator's mask, encrypted."""

    round_id: int
    data: bytes


@dataclass(frozen=True, eq=False)
class Opened:
    """The sum under the aggregator's mask, with the provider's noise, packed."""

    round_id: int
    total: bytes


@dataclass(frozen=True)
class LatticeState:
    """Where the aggregator stands."""

    survivors: tuple[int, ...] = ()
    total: Ciphertext | None = None
    mask: UInt32[np.ndarray, " dimension"] | None = field(default=None, repr=False)
    """Once the collection has ended."""


@dataclass(frozen=True)
class OpenerState:
    """The provider; kept from round to round."""

    secret: UInt32[Array, " primes degree"] = field(repr=False)
    opened: int = -1


def lattice_spec(spec: SeflSpec, public: PublicKey) -> SeflSpec:
    """The round with the provider's lattice key in its tag."""
    if spec.clients >= lattice.capacity():
        raise ValueError(f"clients must be fewer than {lattice.capacity()} for exact sums, got {spec.clients}")
    parts = (np.asarray(half).astype("<u4").tobytes() for half in public)
    return replace(spec, model=ciphers.digest(b"lattice", spec.model, *parts))


def _packed(ciphertext: Ciphertext) -> bytes:
    return b"".join(wire.pack(np.asarray(half).reshape(-1), lattice.PRIME_BITS) for half in ciphertext)


def _unpacked(spec: SeflSpec, data: bytes, who: str) -> Ciphertext:
    """Residues off the wire.

    Raises:
        RefusedError: where they are not those of a vector of the round.
    """
    shape = (len(lattice.PRIMES), lattice.rows_of(spec.dimension), lattice.DEGREE)
    count = int(np.prod(shape))
    size = wire.packed_bytes(count, lattice.PRIME_BITS)
    if len(data) != 2 * size:
        raise RefusedError(f"{who} awaits {2 * size} bytes, got {len(data)}")
    halves = []
    for part in (data[:size], data[size:]):
        numbers = wire.unpack(part, count, lattice.PRIME_BITS).reshape(shape)
        if any((numbers[at] >= prime).any() for at, prime in enumerate(lattice.PRIMES)):
            raise RefusedError(f"{who} got numbers that are no residues")
        halves.append(jnp.asarray(numbers))
    return Ciphertext(*halves)


def client_encrypt(
    spec: SeflSpec,
    client: int,
    identity: bytes,
    public: PublicKey,
    vector: UInt32[np.ndarray, " dimension"],
    randomness: bytes,
) -> Encrypted:
    """The client's one message.

    Args:
        spec: from `lattice_spec`.
        client: its number.
        identity: its 32-byte Ed25519 signing key.
        public: the provider's.
        vector: ring elements.
        randomness: at least 32 secret bytes, fresh ones.
    """
    key = ciphers.derive(randomness, spec.label(b"lattice", client))
    data = _packed(lattice.encrypt(public, vector, key))
    return Encrypted(
        spec.round_id, client, data, ciphers.sign(identity, ciphers.digest(spec.label(b"sum", client), data))
    )


def aggregator_collect(spec: SeflSpec, state: LatticeState, inbox: Sequence[Encrypted]) -> LatticeState:
    """Adds some clients' ciphertexts.

    Raises:
        RefusedError: for one that is repeated, altered, of another round, or not by that client. The old state stays
            valid.
    """
    if state.mask is not None:
        raise RefusedError(f"the aggregator has ended the collection of round {spec.round_id}")
    for message in inbox:
        sender = message.sender
        if message.round_id != spec.round_id or not 0 <= sender < spec.clients or sender in state.survivors:
            raise RefusedError(f"the aggregator awaits no vector of client {sender} in round {spec.round_id}")
        content = ciphers.digest(spec.label(b"sum", sender), message.data)
        if not ciphers.is_signed(spec.identities[sender], message.signature, content):
            raise RefusedError(f"the aggregator got a vector that client {sender} did not sign for this round")
        ciphertext = _unpacked(spec, message.data, "the aggregator")
        total = ciphertext if state.total is None else lattice.add(state.total, ciphertext)
        state = replace(state, survivors=(*state.survivors, sender), total=total)
    return state


def aggregator_blind(
    spec: SeflSpec, state: LatticeState, public: PublicKey, randomness: bytes
) -> tuple[LatticeState, Blinded]:
    """Ends the collection: the sum goes to the provider under a mask.

    Raises:
        RefusedError: for fewer survivors than `spec.least`, or a second time.
    """
    if len(state.survivors) < spec.least or state.total is None:
        raise RefusedError(
            f"the aggregator has {len(state.survivors)} vectors, fewer than the least number {spec.least}"
        )
    if state.mask is not None:
        raise RefusedError(f"the aggregator has ended the collection of round {spec.round_id}")
    mask = seed_mask(spec, ciphers.derive(randomness, spec.label(b"lattice mask")))
    fresh = lattice.encrypt(public, mask, ciphers.derive(randomness, spec.label(b"lattice flooding")), flooding=True)
    return replace(state, mask=mask), Blinded(spec.round_id, _packed(lattice.add(state.total, fresh)))


def provider_open(
    spec: SeflSpec, state: OpenerState, message: Blinded, randomness: bytes = b""
) -> tuple[OpenerState, Opened]:
    """Decrypts the sum under the aggregator's mask.

    Raises:
        RefusedError: for a second vector of the round, an earlier round, or what is no vector.
    """
    if message.round_id != spec.round_id:
        raise RefusedError(f"the provider is in round {spec.round_id}, got a sum of round {message.round_id}")
    if spec.round_id <= state.opened:
        raise RefusedError(f"the provider has opened round {state.opened} and opens round {spec.round_id} no more")
    ciphertext = _unpacked(spec, message.data, "the provider")
    total = lattice.decrypt(state.secret, ciphertext, spec.dimension) + server_noise(
        spec, randomness, b"provider noise"
    )
    return replace(state, opened=spec.round_id), Opened(spec.round_id, wire.pack(total, spec.bits))


def aggregator_finish(
    spec: SeflSpec, state: LatticeState, message: Opened, randomness: bytes = b""
) -> UInt32[np.ndarray, " dimension"]:
    """The sum in the ring, with both servers' noise where the round has some.

    Raises:
        RefusedError: for an answer of another round or length, or before the collection has ended.
    """
    size = wire.packed_bytes(spec.dimension, spec.bits)
    if message.round_id != spec.round_id or len(message.total) != size or state.mask is None:
        raise RefusedError(f"the aggregator awaits no such sum in round {spec.round_id}")
    total = wire.unpack(message.total, spec.dimension, spec.bits) - state.mask
    return (total + server_noise(spec, randomness, b"aggregator noise")) & np.uint32(2**spec.bits - 1)
