"""The server of SecAgg: it relays, sums, and unmasks nothing but the sum."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt32

from modicum.federated import ciphers
from modicum.federated import field as prime_field
from modicum.federated.masks import add_masks
from modicum.federated.secagg_client import SHARE_BYTES, padded
from modicum.federated.secagg_messages import (
    Advertise,
    Consent,
    Delivery,
    Inbox,
    MaskedInput,
    Opening,
    Outbox,
    RefusedError,
    Roster,
    SealedShares,
    SecAggSpec,
    Survivors,
    UnmaskRequest,
    checked_roster,
    committed,
    consented,
    pair_key,
    self_key,
)

ServerStage = Literal["advertise", "share", "mask", "consent", "open", "done"]


@dataclass(frozen=True)
class ServerState:
    """Where the server stands; the stage names the messages it awaits."""

    stage: ServerStage = "advertise"
    roster: Mapping[int, Advertise] = field(default_factory=dict)
    sharers: tuple[int, ...] = ()
    """Clients whose shares were delivered: their pairwise masks are on."""
    survivors: tuple[int, ...] = ()
    """Clients whose masked vectors are in the total."""
    consenters: tuple[int, ...] = ()
    """Survivors that signed the set."""
    total: UInt32[np.ndarray, " dimension"] | None = None
    """Sum of the masked vectors; without masks, and the result, once the stage is `done`."""


def server_step(
    spec: SecAggSpec, state: ServerState, inbox: Inbox, randomness: bytes = b""
) -> tuple[ServerState, Outbox]:
    """The next step of the server: takes all messages of a stage, whoever sent none has dropped.

    Args:
        spec: the round.
        state: where it stands; `ServerState()` at the start.
        inbox: messages of the clients that are still there, in any order.
        randomness: not used; the server is deterministic.

    Returns:
        The new state, and a message for each client that is still there; in the end, none, and `state.total`.

    Raises:
        RefusedError: for fewer messages than the threshold, or one that is out of place or wrong. The old state
            stays valid: the caller may leave that message out, as if its sender had dropped, and call again.
    """
    del randomness
    steps: dict[str, Any] = {
        "advertise": _gather_keys,
        "share": _deliver,
        "mask": _add_up,
        "consent": _request,
        "open": _unmask,
    }
    if state.stage == "done":
        raise RefusedError(f"the server has finished round {spec.round_id}")
    return steps[state.stage](spec, state, inbox)


def _by_sender(
    spec: SecAggSpec, inbox: Inbox, kind: type, allowed: Any, owners: Sequence[int] | None = None
) -> dict[int, Any]:
    """The messages of a stage by sender, in the order of senders.

    Raises:
        RefusedError: unless they are of this kind and round, one each from allowed senders, and enough; with a graph,
            enough among those that hold shares of each owner's secrets. None: the senders are the owners.
    """
    received: dict[int, Any] = {}
    for message in inbox:
        if not isinstance(message, kind):
            raise RefusedError(f"the server awaits messages of kind {kind.__name__}, got {type(message).__name__}")
        sender = message.sender
        if message.round_id != spec.round_id:
            raise RefusedError(
                f"the server is in round {spec.round_id}, got a message of round {message.round_id} from "
                f"client {sender}"
            )
        if sender not in allowed:
            raise RefusedError(f"the server awaits no {kind.__name__} from client {sender}")
        if sender in received:
            raise RefusedError(f"the server got two messages of kind {kind.__name__} from client {sender}")
        received[sender] = message
    if len(received) < spec.threshold:
        raise RefusedError(
            f"the server got {len(received)} messages of kind {kind.__name__}, fewer than the threshold "
            f"{spec.threshold}"
        )
    for owner in () if spec.neighbours is None else received if owners is None else owners:
        near = len(received.keys() & spec.graph[owner])
        if near < spec.threshold:
            raise RefusedError(
                f"the server got {near} messages of kind {kind.__name__} from client {owner} and its neighbours, fewer "
                f"than the threshold {spec.threshold}"
            )
    return dict(sorted(received.items()))


def _gather_keys(spec: SecAggSpec, state: ServerState, inbox: Inbox) -> tuple[ServerState, Outbox]:
    members = _by_sender(spec, inbox, Advertise, range(spec.clients))
    roster = checked_roster(spec, list(members.values()), "the server", range(spec.clients))
    everyone = Roster(spec.round_id, tuple(roster.values()))
    outbox = dict.fromkeys(roster, everyone)
    if spec.neighbours is not None:
        for at in roster:
            outbox[at] = Roster(spec.round_id, tuple(roster[near] for near in spec.graph[at] if near in roster))
    return replace(state, stage="share", roster=roster), outbox


def _deliver(spec: SecAggSpec, state: ServerState, inbox: Inbox) -> tuple[ServerState, Outbox]:
    sealed = _by_sender(spec, inbox, SealedShares, state.roster)
    for sender, message in sealed.items():
        if set(message.ciphertexts) != (state.roster.keys() & spec.graph[sender]) - {sender}:
            raise RefusedError(f"the server got shares of client {sender} that are not one for each other client")
    outbox = {
        recipient: Delivery(
            spec.round_id,
            recipient,
            {
                sender: sealed[sender].ciphertexts[recipient]
                for sender in spec.graph[recipient]
                if sender in sealed and sender != recipient
            },
        )
        for recipient in sealed
    }
    return replace(state, stage="mask", sharers=tuple(sealed)), outbox


def _add_up(spec: SecAggSpec, state: ServerState, inbox: Inbox) -> tuple[ServerState, Outbox]:
    masked = _by_sender(spec, inbox, MaskedInput, state.sharers, state.sharers)
    total = np.zeros(spec.dimension, np.uint32)
    for sender, message in masked.items():
        if message.vector.shape != total.shape or message.vector.dtype != np.uint32:
            raise RefusedError(
                f"the server awaits {spec.dimension} uint32 numbers from client {sender}, got "
                f"{message.vector.dtype} of shape {message.vector.shape}"
            )
        total += message.vector
    survivors = tuple(masked)
    message = Survivors(spec.round_id, survivors)
    return replace(state, stage="consent", survivors=survivors, total=total), dict.fromkeys(survivors, message)


def _request(spec: SecAggSpec, state: ServerState, inbox: Inbox) -> tuple[ServerState, Outbox]:
    consents = _by_sender(spec, inbox, Consent, state.survivors, state.sharers)
    content = consented(spec, state.roster, state.survivors)
    for sender, message in consents.items():
        if not ciphers.is_signed(spec.identities[sender], message.signature, content):
            raise RefusedError(f"the server got a signature that client {sender} did not give for these survivors")
    dropped = set(state.sharers) - set(state.survivors)
    outbox = {
        recipient: UnmaskRequest(
            spec.round_id,
            state.survivors,
            tuple(sorted(dropped.intersection(spec.graph[recipient]))),
            {sender: consents[sender].signature for sender in spec.graph[recipient] if sender in consents},
        )
        for recipient in consents
    }
    return replace(state, stage="open", consenters=tuple(consents)), outbox


def _unmask(spec: SecAggSpec, state: ServerState, inbox: Inbox) -> tuple[ServerState, Outbox]:
    openings = _by_sender(spec, inbox, Opening, state.consenters, state.sharers)
    dropped = sorted(set(state.sharers) - set(state.survivors))
    for sender, opening in openings.items():
        around = set(spec.graph[sender])
        asked = around.intersection(state.survivors), around.intersection(dropped)
        if (set(opening.seed_shares), set(opening.key_shares)) != asked:
            raise RefusedError(f"the server got shares of client {sender} for other clients than it asked for")
    secrets, survivors = _recovered(spec, openings), set(state.survivors)
    assert state.total is not None
    masks = []
    for owner in state.survivors:
        if committed(spec, owner, secrets[owner]) != state.roster[owner].commitment:
            raise RefusedError(f"the shares of client {owner}'s seed are not those that it made: one was altered")
        masks.append((self_key(spec, owner, secrets[owner]), True))
    for owner in dropped:
        if ciphers.public_key(secrets[owner]) != state.roster[owner].mask_key:
            raise RefusedError(f"the shares of client {owner}'s mask key are not those that it made: one was altered")
        agree = ciphers.agreeing(secrets[owner])
        # what the peer added for the owner is the negative of this
        peers = [peer for peer in spec.graph[owner] if peer in survivors]
        masks += [pair_key(spec, agree, owner, peer, state.roster[peer].mask_key) for peer in peers]
    return replace(state, stage="done", total=add_masks(state.total, masks, spec.backend)), {}


def _recovered(spec: SecAggSpec, openings: Mapping[int, Opening]) -> dict[int, bytes]:
    """The opened secret of each client: seed of a survivor, mask key of a dropped one.

    One interpolation for all whose shares come from the same points: without a graph, for all; padded as the client's
    split is.
    """
    opened: dict[int, dict[int, bytes]] = {}
    for sender, opening in openings.items():
        for owner, share in (*opening.seed_shares.items(), *opening.key_shares.items()):
            opened.setdefault(owner, {})[spec.graph[owner].index(sender) + 1] = share
            limbs = np.frombuffer(share, "<u4") if len(share) == SHARE_BYTES else None
            if limbs is None or limbs.max() >= prime_field.PRIME:
                raise RefusedError(f"the server got a share of client {owner} from client {sender} that is none")
    alike: dict[tuple[int, ...], list[int]] = {}
    for owner, shares in opened.items():
        alike.setdefault(tuple(shares), []).append(owner)
    secrets = {}
    for points, owners in alike.items():
        limbs = _combined(spec, points, [[opened[owner][point] for owner in owners] for point in points])
        for owner, row in zip(owners, limbs, strict=False):
            try:
                secrets[owner] = prime_field.limbs_to_secret(row)
            except ValueError:
                raise RefusedError(f"the shares of client {owner} combine to no secret: one was altered") from None
    return secrets


def _combined(
    spec: SecAggSpec, points: Sequence[int], shares: Sequence[Sequence[bytes]]
) -> UInt32[np.ndarray, " owners limbs"]:
    """The limbs of secrets that were shared at the same points, and rows of zeros; shares by point and owner."""
    room, owners = padded(spec.sharing), len(shares[0])
    held = np.zeros(room, np.uint32)
    held[: len(points)] = points
    table = np.zeros((room, padded(owners), prime_field.LIMBS), np.uint32)
    table[: len(points), :owners] = np.frombuffer(b"".join(map(b"".join, shares)), "<u4").reshape(
        -1, owners, table.shape[-1]
    )
    limbs = prime_field.combine(jnp.asarray(table.reshape(room, -1)), jnp.asarray(held), spec.threshold)
    return np.asarray(limbs).reshape(-1, prime_field.LIMBS)
