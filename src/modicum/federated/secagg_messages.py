"""What the parties of SecAgg agree on beforehand, send each other and derive alike; `secagg` tells the protocol."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt32

from modicum.core import check
from modicum.federated import ciphers
from modicum.federated.masks import BACKENDS
from modicum.federated.secagg_graph import check_neighbours, neighbours_of

SERVER = -1
"""The server's address in an outbox; clients are numbered from 0."""

ClientStage = Literal["advertise", "share", "mask", "consent", "open", "done"]
CLIENT_STAGES: tuple[ClientStage, ...] = ("advertise", "share", "mask", "consent", "open")
"""The five messages of a client, in order."""


@runtime_checkable
class RoundTerms(Protocol):
    """What rounds of all protocols have."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        ...

    @property
    def identities(self) -> tuple[bytes, ...]:
        """The clients' Ed25519 public keys."""
        ...


class RefusedError(ValueError):
    """A party refuses a message: it sends nothing, and the state it had stays valid."""


@dataclass(frozen=True, kw_only=True)
class SecAggSpec:
    """A round of SecAgg: what all parties must know and agree on beforehand, from a source they trust.

    Args:
        round_id: number of the round, from 0 to 2^64 - 1; never used twice with the same identities and model.
        dimension: length of the vectors, at least 1.
        threshold: clients that must stay to the end; more than half of them, so that no two sets of survivors can
            both find enough signatures, and at most all. Where up to `m` clients may side with the server, more than
            `(clients + m) / 2`. With `neighbours`, of a client and its neighbours: more than half, and more than
            `(neighbours + 1 + m) / 2` where `m` of an honest client's neighbours may side with the server.
        identities: the clients' Ed25519 public keys (`ciphers.verify_key`), distinct, at least three: of two
            vectors, the sum tells each client the other's.
        model: what the vectors belong to; bound into every key and signature.
        backend: which ChaCha20 makes the masks on this machine, `openssl` or `jax`; parties may differ.
        neighbours: None, where each client shares with all others; for SecAgg+, with how many it does, from 2 to
            `clients - 1`, even where the number of clients is odd (`secagg_graph.graph_size`). Who is whose
            neighbour follows from all that the round agrees on: who may choose a part of it must not know the rest,
            or it could surround a client with its own.

    Raises:
        ValueError: naming the argument that does not fit.
    """

    round_id: int
    dimension: int
    threshold: int
    identities: tuple[bytes, ...]
    model: bytes = b""
    backend: str = "openssl"
    neighbours: int | None = None

    def __post_init__(self) -> None:
        check.integer(0, 2**64 - 1, round_id=self.round_id)
        check.integer(1, 2**36, dimension=self.dimension)
        check.one_of(BACKENDS, backend=self.backend)
        if any(len(key) != 32 for key in self.identities) or len(set(self.identities)) < len(self.identities):
            raise ValueError("identities must be distinct Ed25519 public keys of 32 bytes each")
        check.integer(3, clients=self.clients)
        if self.neighbours is not None:
            check_neighbours(self.clients, self.neighbours)
        check.integer(self.sharing // 2 + 1, self.sharing, threshold=self.threshold)

    @property
    def clients(self) -> int:
        """How many clients may take part."""
        return len(self.identities)

    @property
    def sharing(self) -> int:
        """How many hold shares of one client's secrets, itself among them."""
        return self.clients if self.neighbours is None else self.neighbours + 1

    @functools.cached_property
    def graph(self) -> tuple[Sequence[int], ...]:
        """Each client and its neighbours, ascending: who hold shares of its secrets, at points 1, 2, ..."""
        if self.neighbours is None:
            return (range(self.clients),) * self.clients
        around = neighbours_of(self.label(b"graph"), self.clients, self.neighbours)
        return tuple(tuple(sorted([client, *others])) for client, others in enumerate(around.tolist()))

    @functools.cached_property
    def tag(self) -> bytes:
        """32 bytes that stand for this round and no other: bound into every key, signature and ciphertext."""
        graph = () if self.neighbours is None else (self.neighbours,)
        numbers = (self.round_id, self.dimension, self.threshold, *graph)
        packed = (number.to_bytes(8, "little") for number in numbers)
        return ciphers.digest(b"modicum secagg 1", self.model, *packed, *self.identities)

    def label(self, purpose: bytes, *clients: int) -> bytes:
        """`info` of a derived key, or what a ciphertext is bound to: purpose, round, and whom it concerns."""
        return ciphers.label(self.tag, purpose, *clients)


@dataclass(frozen=True)
class Advertise:
    """A client's public keys for this round, signed by its identity."""

    round_id: int
    sender: int
    cipher_key: bytes
    """X25519, for the shares."""
    mask_key: bytes
    """X25519, for the pairwise masks."""
    commitment: bytes
    """SHA-256 over the seed of the self-mask, so that wrong shares of it are found out."""
    signature: bytes


@dataclass(frozen=True)
class Roster:
    """Everyone's public keys, from the server; with a graph, a client's own and its neighbours'."""

    round_id: int
    members: tuple[Advertise, ...]


@dataclass(frozen=True)
class SealedShares:
    """A client's shares of its two secrets, sealed for each of the others."""

    round_id: int
    sender: int
    ciphertexts: Mapping[int, bytes]


@dataclass(frozen=True)
class Delivery:
    """The sealed shares that others made for one client, by sender."""

    round_id: int
    recipient: int
    ciphertexts: Mapping[int, bytes]


@dataclass(frozen=True, eq=False)
class MaskedInput:
    """A client's vector under its masks."""

    round_id: int
    sender: int
    vector: UInt32[np.ndarray, " dimension"]


@dataclass(frozen=True)
class Survivors:
    """Whose masked vectors the server has, everywhere in the graph: the sum will be over these."""

    round_id: int
    survivors: tuple[int, ...]


@dataclass(frozen=True)
class Consent:
    """A client's signature on the one set of survivors it will help to unmask."""

    round_id: int
    sender: int
    signature: bytes


@dataclass(frozen=True)
class UnmaskRequest:
    """What the server asks for: seeds of the survivors, mask keys of the dropped; with the signatures it has."""

    round_id: int
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    consents: Mapping[int, bytes]


@dataclass(frozen=True)
class Opening:
    """A client's shares: of each survivor's seed, of each dropped client's mask key."""

    round_id: int
    sender: int
    seed_shares: Mapping[int, bytes] = field(repr=False)
    key_shares: Mapping[int, bytes] = field(repr=False)


Message = Advertise | Roster | SealedShares | Delivery | MaskedInput | Survivors | Consent | UnmaskRequest | Opening
Inbox = Sequence[Message]
Outbox = Mapping[int, Message]
"""Messages by recipient: a client's number, or `SERVER`."""


def advertised(spec: SecAggSpec, sender: int, cipher_key: bytes, mask_key: bytes, commitment: bytes) -> bytes:
    """What the signature of an `Advertise` covers."""
    return ciphers.digest(b"advertise", spec.label(b"advertise", sender), cipher_key, mask_key, commitment)


def checked_roster(
    spec: SecAggSpec, members: Sequence[Advertise], who: str, allowed: Sequence[int]
) -> dict[int, Advertise]:
    """The members by client, if they are who they say, differ, and are enough.

    Server and clients check alike, so that the server finds out whom the clients would refuse.

    Args:
        spec: the round.
        members: at most one per client.
        who: who checks, for the message.
        allowed: clients that may be in it.

    Raises:
        RefusedError: naming the member that does not fit.
    """
    roster = {member.sender: member for member in members}
    if len(roster) < len(members):
        raise RefusedError(f"{who} got a roster that names a client twice")
    if not set(roster) <= set(allowed):
        raise RefusedError(f"{who} got a roster with clients that are not of this round, or not its neighbours")
    if len(roster) < spec.threshold:
        raise RefusedError(f"{who} got a roster of {len(roster)}, fewer than the threshold {spec.threshold}")
    for sender, member in roster.items():
        content = advertised(spec, sender, member.cipher_key, member.mask_key, member.commitment)
        signed = ciphers.is_signed(spec.identities[sender], member.signature, content)
        if member.round_id != spec.round_id or not signed:
            raise RefusedError(f"{who} got keys that client {sender} did not sign for this round")
        if not ciphers.is_usable(member.cipher_key) or not ciphers.is_usable(member.mask_key):
            raise RefusedError(f"{who} got a key of client {sender} that agrees with nobody")
    owners: dict[bytes, int] = {}
    for sender, member in roster.items():
        for key in (member.cipher_key, member.mask_key):
            if key in owners:
                raise RefusedError(f"{who} got one key twice, from client {owners[key]} and from client {sender}")
            owners[key] = sender
    return roster


def consented(spec: SecAggSpec, roster: Mapping[int, Advertise], survivors: tuple[int, ...]) -> bytes:
    """What the signature of a `Consent` covers: the set, and the keys that all signers saw.

    With a graph no two see the same keys; neighbours know each other's by the shares that they could unseal.
    """
    if spec.neighbours is not None:
        return ciphers.digest(spec.label(b"consent"), np.array(survivors, "<u8").tobytes())
    return ciphers.digest(spec.label(b"consent", *survivors), roster_digest(roster))


def own_vector(
    spec: RoundTerms, client: int, identity: bytes, vector: UInt32[np.ndarray, " dimension"]
) -> UInt32[np.ndarray, " dimension"]:
    """A copy of the vector that a client brings to a round of SecAgg or SEFL.

    Args:
        spec: the round.
        client: its number, from 0.
        identity: its 32-byte Ed25519 signing key.
        vector: ring elements.

    Raises:
        ValueError: where number, key or vector do not fit the round.
    """
    check.integer(0, len(spec.identities) - 1, client=client)
    check.shape((spec.dimension,), vector=vector)
    if ciphers.verify_key(identity) != spec.identities[client]:
        raise ValueError(f"identity must be the signing key of client {client} in the round's identities")
    return np.array(vector, np.uint32)


def roster_digest(roster: Mapping[int, Advertise]) -> bytes:
    """32 bytes that stand for everyone's keys."""
    return ciphers.digest(*(roster[sender].signature for sender in sorted(roster)))


def committed(spec: SecAggSpec, client: int, seed: bytes) -> bytes:
    """The commitment to a seed: it hides 256 uniform bits, and binds."""
    return ciphers.digest(b"seed", spec.label(b"seed", client), seed)


def self_key(spec: SecAggSpec, client: int, seed: bytes) -> bytes:
    """The key of the mask that a client takes off only by the others' shares of its seed."""
    return ciphers.derive(seed, spec.label(b"self mask", client))


def pair_key(
    spec: SecAggSpec, agree: Callable[[bytes], bytes], owner: int, peer: int, peer_key: bytes
) -> tuple[bytes, bool]:
    """The key of the mask between two, and whether `owner` takes it off where `peer` adds it; for `masks.add_masks`.

    Args:
        spec: the round.
        agree: `ciphers.agreeing` of the secret of the owner's mask key.
        owner: who adds it.
        peer: with whom it is shared.
        peer_key: the peer's public mask key.

    Raises:
        ValueError: for a key of low order, which agrees with nobody.
    """
    first, second = sorted((owner, peer))
    key = ciphers.derive(agree(peer_key), spec.label(b"pair mask", first, second))
    return key, owner > peer
