"""The client of SecAgg: five steps, each of which may refuse."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt32

from modicum.federated import ciphers
from modicum.federated import field as prime_field
from modicum.federated.masks import add_masks
from modicum.federated.secagg_messages import (
    SERVER,
    Advertise,
    ClientStage,
    Consent,
    Delivery,
    Inbox,
    MaskedInput,
    Message,
    Opening,
    Outbox,
    RefusedError,
    Roster,
    SealedShares,
    SecAggSpec,
    Survivors,
    UnmaskRequest,
    advertised,
    checked_roster,
    committed,
    consented,
    own_vector,
    pair_key,
    roster_digest,
    self_key,
)

SHARE_BYTES = 4 * prime_field.LIMBS
"""Bytes of a share of one 256-bit secret."""


class Secrets(NamedTuple):
    """What a client keeps to itself until its masks are on."""

    cipher: bytes
    """X25519 secret for the shares."""
    mask: bytes
    """X25519 secret for the pairwise masks; shared."""
    seed: bytes
    """Seed of the self-mask; shared."""


@dataclass(frozen=True)
class ClientState:
    """Where a client stands; secrets are dropped as soon as no later step needs them.

    A state must never be gone back to once its step's message was sent: a client restored from an older state could
    be made to sign a second set of survivors.
    """

    client: int
    identity: bytes = field(repr=False)
    """Ed25519 signing key."""
    vector: UInt32[np.ndarray, " dimension"] | None = field(repr=False)
    stage: ClientStage = "advertise"
    secrets: Secrets | None = field(default=None, repr=False)
    roster: Mapping[int, Advertise] = field(default_factory=dict)
    shares: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    """Shares of others' secrets, and of its own, by owner: mask key, then seed."""
    survivors: tuple[int, ...] = ()
    """The set this client signed."""


def client_init(
    spec: SecAggSpec, client: int, identity: bytes, vector: UInt32[np.ndarray, " dimension"]
) -> ClientState:
    """A client before its first step.

    Args:
        spec: the round.
        client: its number, from 0.
        identity: its 32-byte Ed25519 signing key.
        vector: ring elements to sum, as `fixed_point.encode` makes them.

    Raises:
        ValueError: where number, key or vector do not fit the round.
    """
    return ClientState(client, identity, own_vector(spec, client, identity, vector))


def client_step(spec: SecAggSpec, state: ClientState, inbox: Inbox, randomness: bytes) -> tuple[ClientState, Outbox]:
    """The next step of a client.

    Args:
        spec: the round.
        state: where it stands.
        inbox: the one message from the server that the stage awaits; none in the first.
        randomness: at least 32 secret bytes in stages `advertise` and `share` (the same or others: keys are derived
            for one purpose in one round); unused later, where `b""` does.

    Returns:
        The new state, and the message for the server.

    Raises:
        RefusedError: for a message that is not what an honest server sends; nothing is revealed and the old state
            stays valid.
        ValueError: for short randomness.
    """
    if state.stage == "done":
        raise RefusedError(f"client {state.client} has finished round {spec.round_id} and opens nothing twice")
    if state.stage in ("advertise", "share") and len(randomness) < 32:
        raise ValueError(f"randomness must be at least 32 bytes, got {len(randomness)}")
    if state.stage == "advertise":
        if inbox:
            raise RefusedError(f"client {state.client} awaits no message before it has advertised its keys")
        return _advertise(spec, state, randomness)
    message = _only(spec, state, inbox)
    match state.stage, message:
        case "share", Roster():
            return _share(spec, state, message, randomness)
        case "mask", Delivery():
            return _mask(spec, state, message)
        case "consent", Survivors():
            return _consent(spec, state, message)
        case "open", UnmaskRequest():
            return _open(spec, state, message)
        case "open", Survivors():
            raise RefusedError(f"client {state.client} has signed its one set of survivors of round {spec.round_id}")
    raise RefusedError(f"client {state.client} awaits no {type(message).__name__} in stage {state.stage!r}")


def _only(spec: SecAggSpec, state: ClientState, inbox: Inbox) -> Message:
    """The one message, of this round."""
    if len(inbox) != 1:
        raise RefusedError(f"client {state.client} awaits one message in stage {state.stage!r}, got {len(inbox)}")
    if inbox[0].round_id != spec.round_id:
        raise RefusedError(
            f"client {state.client} is in round {spec.round_id}, got a message of round {inbox[0].round_id}"
        )
    return inbox[0]


def _advertise(spec: SecAggSpec, state: ClientState, randomness: bytes) -> tuple[ClientState, Outbox]:
    me = state.client
    purposes = (b"cipher key", b"mask key", b"self seed")
    secrets = Secrets(*(ciphers.derive(randomness, spec.label(purpose, me)) for purpose in purposes))
    content = (ciphers.public_key(secrets.cipher), ciphers.public_key(secrets.mask), committed(spec, me, secrets.seed))
    signature = ciphers.sign(state.identity, advertised(spec, me, *content))
    message = Advertise(spec.round_id, me, *content, signature)
    return replace(state, stage="share", secrets=secrets, roster={me: message}), {SERVER: message}


def _share(spec: SecAggSpec, state: ClientState, message: Roster, randomness: bytes) -> tuple[ClientState, Outbox]:
    me, secrets = state.client, state.secrets
    assert secrets is not None
    roster = checked_roster(spec, message.members, f"client {me}", spec.graph[me])
    if roster.get(me) != state.roster[me]:
        raise RefusedError(f"client {me} got a roster without the keys it advertised")
    # bound to the roster: a second run with the same randomness and other peers must not meet the same numbers
    context = roster_digest(roster)
    made = _split(spec, secrets, ciphers.derive(randomness, spec.label(b"polynomial", me) + context))
    shares = dict(zip(spec.graph[me], made, strict=False))
    ciphertexts, agree = {}, ciphers.agreeing(secrets.cipher)
    for peer, member in roster.items():
        if peer == me:
            continue
        nonce = ciphers.derive(randomness, spec.label(b"nonce", me, peer) + context)[: ciphers.NONCE_BYTES]
        key = _share_key(spec, agree, me, peer, member.cipher_key)
        ciphertexts[peer] = ciphers.seal(key, nonce, shares[peer], spec.label(b"share", me, peer))
    state = replace(state, stage="mask", roster=roster, shares={me: shares[me]})
    return state, {SERVER: SealedShares(spec.round_id, me, ciphertexts)}


def _split(spec: SecAggSpec, secrets: Secrets, key: bytes) -> list[bytes]:
    """Shares of mask key and seed, one for each client that is to hold one, and more."""
    # shapes in powers of two, so that rounds of other sizes compile nothing; rows of zeros change no polynomial
    secret = np.concatenate([prime_field.secret_to_limbs(each) for each in (secrets.mask, secrets.seed)])
    rows = prime_field.uniform_elements(key, (spec.threshold - 1) * secret.size, spec.backend)
    coefficients = np.zeros((padded(spec.threshold) - 1, secret.size), np.uint32)
    coefficients[: spec.threshold - 1] = rows.reshape(-1, secret.size)
    points = jnp.arange(1, padded(spec.sharing) + 1, dtype=jnp.uint32)
    shares = np.asarray(prime_field.split(jnp.asarray(secret), jnp.asarray(coefficients), points))
    return [share.astype("<u4").tobytes() for share in shares]


def padded(clients: int) -> int:
    """Room for so many clients: a power of two, at least 16."""
    return max(16, 1 << (clients - 1).bit_length())


def _share_key(
    spec: SecAggSpec, agree: Callable[[bytes], bytes], sender: int, recipient: int, peer_key: bytes
) -> bytes:
    """The key under which `sender` seals shares for `recipient`."""
    return ciphers.derive(agree(peer_key), spec.label(b"share key", sender, recipient))


def _mask(spec: SecAggSpec, state: ClientState, message: Delivery) -> tuple[ClientState, Outbox]:
    me, secrets, vector = state.client, state.secrets, state.vector
    assert secrets is not None
    assert vector is not None
    if message.recipient != me:
        raise RefusedError(f"client {me} got the shares that are meant for client {message.recipient}")
    senders = set(message.ciphertexts)
    if not senders <= set(state.roster) - {me}:
        raise RefusedError(f"client {me} got shares of clients that are not among the others of its roster")
    if len(senders) + 1 < spec.threshold:
        raise RefusedError(
            f"client {me} got shares that make {len(senders) + 1} clients, fewer than the threshold {spec.threshold}"
        )
    shares = dict(state.shares)
    masks = [(self_key(spec, me, secrets.seed), False)]
    agree, agree_on_masks = ciphers.agreeing(secrets.cipher), ciphers.agreeing(secrets.mask)
    for sender in sorted(senders):
        member = state.roster[sender]
        key = _share_key(spec, agree, sender, me, member.cipher_key)
        try:
            shares[sender] = ciphers.unseal(key, message.ciphertexts[sender], spec.label(b"share", sender, me))
        except ValueError as error:
            raise RefusedError(f"client {me} got bad shares of client {sender}: {error}") from None
        if len(shares[sender]) != 2 * SHARE_BYTES:
            raise RefusedError(f"client {me} got shares of client {sender} of another length")
        masks.append(pair_key(spec, agree_on_masks, me, sender, member.mask_key))
    total = add_masks(vector, masks, spec.backend)
    state = replace(state, stage="consent", vector=None, secrets=None, shares=shares)
    return state, {SERVER: MaskedInput(spec.round_id, me, total)}


def _consent(spec: SecAggSpec, state: ClientState, message: Survivors) -> tuple[ClientState, Outbox]:
    me, survivors = state.client, message.survivors
    known = set(survivors).intersection(spec.graph[me])
    # of clients that are no neighbours of its own it can check no more than that there are such
    held = known <= set(state.shares) and set(survivors) <= set(range(spec.clients))
    if list(survivors) != sorted(set(survivors)) or not held:
        raise RefusedError(f"client {me} got survivors that are not distinct clients whose shares it holds, in order")
    if me not in survivors:
        raise RefusedError(f"client {me} is not among the survivors it is to sign")
    if len(known) < spec.threshold:
        raise RefusedError(f"client {me} got {len(known)} survivors, fewer than the threshold {spec.threshold}")
    signature = ciphers.sign(state.identity, consented(spec, state.roster, survivors))
    return replace(state, stage="open", survivors=survivors), {SERVER: Consent(spec.round_id, me, signature)}


def _open(spec: SecAggSpec, state: ClientState, message: UnmaskRequest) -> tuple[ClientState, Outbox]:
    me = state.client
    both = set(message.survivors) & set(message.dropped)
    if both:
        raise RefusedError(f"client {me} is asked for both secrets of client {min(both)}, which would unmask it")
    if message.survivors != state.survivors:
        raise RefusedError(f"client {me} is asked to unmask another set of survivors than the one it signed")
    if set(message.dropped) != set(state.shares) - set(state.survivors):
        raise RefusedError(f"client {me} is asked for mask keys of other clients than those that dropped")
    known = set(state.survivors).intersection(state.shares)
    if not set(message.consents) <= known:
        raise RefusedError(f"client {me} got signatures of clients that are not survivors, or not its neighbours")
    if len(message.consents) < spec.threshold:
        raise RefusedError(
            f"client {me} got {len(message.consents)} signatures on the survivors, "
            f"fewer than the threshold {spec.threshold}"
        )
    content = consented(spec, state.roster, state.survivors)
    for signer, signature in message.consents.items():
        if not ciphers.is_signed(spec.identities[signer], signature, content):
            raise RefusedError(f"client {me} got a signature that client {signer} did not give for these survivors")
    opening = Opening(
        spec.round_id,
        me,
        seed_shares={owner: state.shares[owner][SHARE_BYTES:] for owner in sorted(known)},
        key_shares={owner: state.shares[owner][:SHARE_BYTES] for owner in message.dropped},
    )
    return replace(state, stage="done", shares={}), {SERVER: opening}
