"""An enclave adds up clients' updates that are sealed for it: what it runs, as pure steps.

**Not audited.** What an enclave protects from depends on where these steps run: `enclave_process` puts them into a
process of their own, which is a **simulation** and hides nothing from whoever runs the machine; `gramine` says how to
run that process under SGX. A client seals nothing before `attestation.verify` has accepted the enclave's evidence.

The enclave sees each update by itself. So clients may each choose which entries they send (`upload.topk_upload`), and
one that is not finite or too large is refused; neither can be had under masks.

An update travels under X25519 with a key made for it alone, HKDF-SHA256 and AES-256-GCM, bound to session, round,
client and enclave, and signed by the client's identity. What comes out of the enclave is the sum over a round, of
`spec.least` clients or more, once.

Reference:
    Lin et al., ESMFL: Efficient and Secure Models for Federated Learning (arXiv 2009.01867), whose full text was not
    available to us: updates that are sparsified, sealed and added up inside SGX are its abstract's, the rest is ours.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from modicum.core import check
from modicum.federated import ciphers, wire
from modicum.federated.masks import ZERO_NONCE
from modicum.federated.secagg_messages import RefusedError

_DENSE, _SPARSE = b"\x00", b"\x01"


@dataclass(frozen=True, kw_only=True)
class EnclaveSpec:
    """A session of rounds: what the parties agree on beforehand, from a source they trust.

    Args:
        dimension: length of the updates, at least 1.
        identities: the clients' Ed25519 public keys, distinct, at least two.
        least: updates that a sum must be of, at least two and at most all.
        clip_norm: largest Euclidean norm of an update, above 0; larger ones are refused, not shortened.
        model: what the updates belong to.

    Raises:
        ValueError: naming the argument that does not fit.
    """

    dimension: int
    identities: tuple[bytes, ...]
    least: int
    clip_norm: float
    model: bytes = b""

    def __post_init__(self) -> None:
        check.integer(1, 2**36, dimension=self.dimension)
        check.finite_positive(clip_norm=self.clip_norm)
        if any(len(key) != 32 for key in self.identities) or len(set(self.identities)) < len(self.identities):
            raise ValueError("identities must be distinct Ed25519 public keys of 32 bytes each")
        check.integer(2, clients=self.clients)
        check.integer(2, self.clients, least=self.least)

    @property
    def clients(self) -> int:
        """How many clients may take part."""
        return len(self.identities)

    @functools.cached_property
    def tag(self) -> bytes:
        """32 bytes that stand for this session and no other."""
        numbers = (number.to_bytes(8, "little") for number in (self.dimension, self.least))
        norm = np.float64(self.clip_norm).tobytes()
        return ciphers.digest(b"modicum enclave 1", self.model, *numbers, norm, *self.identities)

    def label(self, purpose: bytes, *numbers: int) -> bytes:
        """`info` of a derived key, or what a ciphertext is bound to."""
        return ciphers.label(self.tag, purpose, *numbers)


@dataclass(frozen=True)
class SealedUpdate:
    """One client's update of one round."""

    round_id: int
    sender: int
    key: bytes
    """X25519 public key that serves for this alone."""
    ciphertext: bytes
    signature: bytes

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, with 8 each for round and sender."""
        return len(self.key) + len(self.ciphertext) + len(self.signature) + 16


@dataclass(frozen=True, eq=False)
class Released:
    """What comes out of a round."""

    round_id: int
    survivors: tuple[int, ...]
    total: Float[np.ndarray, " dimension"]
    """Sum of the survivors' updates, float64."""


@dataclass(frozen=True)
class EnclaveState:
    """What the enclave holds, and nobody else."""

    secret: bytes = field(repr=False)
    """X25519 secret."""
    round_id: int = 0
    """The round it takes updates of."""
    senders: tuple[int, ...] = ()
    keys: tuple[bytes, ...] = ()
    """Keys that updates of this round came under."""
    total: Float[np.ndarray, " dimension"] | None = field(default=None, repr=False)

    @property
    def public_key(self) -> bytes:
        """What clients seal for, once evidence says whose it is."""
        return ciphers.public_key(self.secret)


def enclave_init(spec: EnclaveSpec, randomness: bytes) -> EnclaveState:
    """An enclave before its first round.

    Args:
        spec: the session.
        randomness: at least 32 bytes that were drawn inside the enclave and are known nowhere else.
    """
    if len(randomness) < 32:
        raise ValueError(f"randomness must be at least 32 bytes, got {len(randomness)}")
    return EnclaveState(ciphers.derive(randomness, spec.label(b"enclave key")))


def report_data(spec: EnclaveSpec, public_key: bytes, nonce: bytes) -> bytes:
    """The 64 bytes that a quote binds: SHA-256 over key, nonce and session, filled up with zeros."""
    return ciphers.digest(b"report data", public_key, nonce, spec.tag) + bytes(32)


def client_seal(
    spec: EnclaveSpec,
    round_id: int,
    client: int,
    identity: bytes,
    enclave_key: bytes,
    update: Float[np.ndarray, " dimension"],
    randomness: bytes,
) -> SealedUpdate:
    """A client's update, sealed for the enclave: sparse, or dense where that is no longer.

    Args:
        spec: the session.
        round_id: the round, at least 0.
        client: its number.
        identity: its 32-byte Ed25519 signing key.
        enclave_key: of evidence that was verified.
        update: float32.
        randomness: at least 32 secret bytes, fresh ones.

    Raises:
        ValueError: for updates that the enclave would refuse, and arguments of other sizes.
    """
    check.shape((spec.dimension,), update=update)
    check.finite(update=update)
    if len(randomness) < 32:
        raise ValueError(f"randomness must be at least 32 bytes, got {len(randomness)}")
    norm = float(np.linalg.norm(update.astype(np.float64)))
    if norm > spec.clip_norm:
        raise ValueError(f"update must have a norm of at most clip_norm {spec.clip_norm}, got {norm:.6g}: shorten it")
    kept = int(np.count_nonzero(update))
    if wire.sparse_bytes(spec.dimension, kept) < 4 * spec.dimension:
        plaintext = _SPARSE + wire.pack_sparse(update).data
    else:
        plaintext = _DENSE + update.astype("<f4").tobytes()
    ephemeral = ciphers.derive(randomness, spec.label(b"ephemeral", round_id, client))
    key, place = ciphers.public_key(ephemeral), spec.label(b"update", round_id, client)
    secret = ciphers.derive(ciphers.agree(ephemeral, enclave_key), place + key + enclave_key)
    ciphertext = ciphers.seal(secret, ZERO_NONCE, plaintext, place)[len(ZERO_NONCE) :]
    signature = ciphers.sign(identity, ciphers.digest(place, key, ciphertext))
    return SealedUpdate(round_id, client, key, ciphertext, signature)


def enclave_step(
    spec: EnclaveSpec, state: EnclaveState, inbox: Sequence[SealedUpdate], randomness: bytes = b""
) -> tuple[EnclaveState, Mapping[str, Released]]:
    """The next step of the enclave.

    Args:
        spec: the session.
        state: where it stands.
        inbox: some updates of the round, to be added; none ends the round.
        randomness: not used.

    Returns:
        The new state, and the sum for the `server` where the round ended.

    Raises:
        RefusedError: for an update that is repeated, altered, of another round, or not by that client; one that is
            not finite or larger than `spec.clip_norm`; and for the end of a round with fewer updates than
            `spec.least`. The old state stays valid.
    """
    del randomness
    if not inbox:
        if len(state.senders) < spec.least:
            raise RefusedError(
                f"the enclave has {len(state.senders)} updates, fewer than the least number {spec.least}"
            )
        assert state.total is not None
        released = Released(state.round_id, tuple(sorted(state.senders)), state.total)
        return EnclaveState(state.secret, state.round_id + 1), {"server": released}
    for sealed in inbox:
        update = _opened(spec, state, sealed)
        total = update if state.total is None else state.total + update
        state = replace(state, senders=(*state.senders, sealed.sender), keys=(*state.keys, sealed.key), total=total)
    return state, {}


def _opened(spec: EnclaveSpec, state: EnclaveState, sealed: SealedUpdate) -> Float[np.ndarray, " dimension"]:
    """One update, checked."""
    sender = sealed.sender
    if sealed.round_id != state.round_id:
        raise RefusedError(f"the enclave is in round {state.round_id}, got an update of round {sealed.round_id}")
    if not 0 <= sender < spec.clients:
        raise RefusedError(f"the enclave got an update of client {sender}, who is not of this session")
    if sender in state.senders:
        raise RefusedError(f"the enclave got two updates from client {sender} in round {state.round_id}")
    if sealed.key in state.keys:
        raise RefusedError(f"the enclave got a key from client {sender} that another client uses")
    place = spec.label(b"update", sealed.round_id, sender)
    content = ciphers.digest(place, sealed.key, sealed.ciphertext)
    if not ciphers.is_signed(spec.identities[sender], sealed.signature, content):
        raise RefusedError(f"the enclave got an update that client {sender} did not sign for round {state.round_id}")
    try:
        secret = ciphers.derive(ciphers.agree(state.secret, sealed.key), place + sealed.key + state.public_key)
        update = _read(spec, ciphers.unseal(secret, ZERO_NONCE + sealed.ciphertext, place))
    except ValueError as error:
        raise RefusedError(f"the enclave got a bad update of client {sender}: {error}") from None
    if not np.isfinite(update).all():
        raise RefusedError(f"the enclave got an update of client {sender} that is not finite")
    if np.linalg.norm(update) > spec.clip_norm:
        raise RefusedError(f"the enclave got an update of client {sender} that is larger than {spec.clip_norm}")
    return update


def _read(spec: EnclaveSpec, plaintext: bytes) -> Float[np.ndarray, " dimension"]:
    """The update, as float64."""
    kind, data = plaintext[:1], plaintext[1:]
    if kind == _SPARSE:
        return wire.unpack_sparse(wire.Sparse(data, spec.dimension)).astype(np.float64)
    if kind != _DENSE or len(data) != 4 * spec.dimension:
        raise ValueError(f"it must hold {spec.dimension} numbers, sparse or dense")
    return np.frombuffer(data, "<f4").astype(np.float64)
