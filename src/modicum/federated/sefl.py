"""SEFL: two servers that do not collude learn the sum of the clients' vectors and nothing else about them.

**Not audited.** This is research code: no outsider has reviewed it, and neither Python nor JAX run in constant time.

A client speaks once and may then leave. There is no trusted aggregator: it holds vectors under masks, the crypto
service provider holds the masks' seeds, and only both together could see a vector.

| party | does | sends |
|---|---|---|
| client | draws a seed, adds the seed's mask to its vector | masked vector and, sealed for the provider, the seed |
| aggregator | adds up masked vectors; who sent none has dropped | to the provider: the survivors' sealed seeds |
| provider | opens the seeds, once per round, adds up their masks | to the aggregator: that sum, less its noise |
| aggregator | takes the sum of masks off, adds noise of its own | none: it has the sum |

Each step is a pure function `(spec, state, inbox, randomness) -> (state, outbox)`, without sockets, clocks or
generators of its own; `run_round` drives them in one process. Secrets come from the randomness that is passed in: 32
bytes of `secrets.token_bytes` for each party and round.

The provider opens at most one set of survivors in a round, of `spec.least` clients or more, each of which signed its
seed for this very round: neither two sums that differ by one client can be had, nor clients be made up. With
`spec.sigma`, the sum that comes out carries discrete Gaussian noise of both servers; against either, that of the other
protects (`noise.privacy_loss`).

What it does not do: if the servers collude, nothing is hidden. Sums of several rounds can be subtracted: a client whose
vector is alike in two rounds that differ in their sets is hidden by noise alone. It does not hide who took part, bounds
what a client contributes only with the steps of `sefl_norm` in place of the provider's, and a server that errs on
purpose makes the sum wrong. Channels to the aggregator must be authenticated (TLS): the masked vector carries no
signature. The identities must come from elsewhere than the aggregator. Clients must send vectors on one common support:
with sparse patterns of their own, a value that one client alone sends is laid bare by the sum (`refuse_own_supports`).

Reference:
    Wang et al., A Secure and Efficient Federated Learning Framework for NLP (EMNLP 2021), whose full text was not
    available to us: the parties and what each learns are the paper's, from its abstract and a review; seeds in place of
    its two-party computation, and the messages, are ours. `sefl_lattice` has the form with homomorphic encryption.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt32

from modicum.core import check
from modicum.federated import ciphers, wire
from modicum.federated.masks import add_masks
from modicum.federated.secagg_messages import RefusedError, own_vector
from modicum.federated.sefl_messages import (
    AGGREGATOR,
    PROVIDER,
    Inbox,
    MaskSum,
    OpenRequest,
    Outbox,
    SealedSeed,
    SeflSpec,
    Submission,
    check_seed,
    open_seed,
    seal_seed,
    server_noise,
    unpacked,
)


@dataclass(frozen=True)
class ClientState:
    """A client; its vector is dropped once it is sent."""

    client: int
    identity: bytes = field(repr=False)
    """Ed25519 signing key."""
    vector: UInt32[np.ndarray, " dimension"] | None = field(repr=False)
    """Ring elements, as `fixed_point.encode` makes them; None: sent."""


@dataclass(frozen=True)
class AggregatorState:
    """Where the aggregator stands."""

    stage: Literal["collect", "open", "done"] = "collect"
    seeds: Mapping[int, SealedSeed] = field(default_factory=dict)
    """Sealed seeds of those whose masked vectors are in the total."""
    total: UInt32[np.ndarray, " dimension"] | None = field(default=None, repr=False)
    """Sum of the masked vectors; without masks and with noise, and the result, once the stage is `done`."""

    @property
    def survivors(self) -> tuple[int, ...]:
        """Whose vectors are in the total."""
        return tuple(sorted(self.seeds))


@dataclass(frozen=True)
class ProviderState:
    """The provider; kept from round to round, and never gone back to an older one."""

    secret: bytes = field(repr=False)
    """X25519 secret that belongs to `spec.provider_key`."""
    opened: int = -1
    """The last round that was opened: neither it nor an earlier one is opened any more."""


def client_init(spec: SeflSpec, client: int, identity: bytes, vector: UInt32[np.ndarray, " dimension"]) -> ClientState:
    """A client before its one step.

    Args:
        spec: the round.
        client: its number, from 0.
        identity: its 32-byte Ed25519 signing key.
        vector: ring elements to sum.

    Raises:
        ValueError: where number, key or vector do not fit the round.
    """
    return ClientState(client, identity, own_vector(spec, client, identity, vector))


def client_step(spec: SeflSpec, state: ClientState, inbox: Inbox, randomness: bytes) -> tuple[ClientState, Outbox]:
    """The client's one step.

    Args:
        spec: the round.
        state: the client.
        inbox: empty; nobody has anything to tell a client.
        randomness: at least 32 secret bytes, fresh ones: keys are derived for one round and its terms, and two vectors
            under one mask would show their difference.

    Returns:
        The state without the vector, and the submission for the aggregator.

    Raises:
        RefusedError: where the client has sent its vector, or messages came.
        ValueError: for short randomness.
    """
    if inbox:
        raise RefusedError(f"client {state.client} awaits no message")
    if state.vector is None:
        raise RefusedError(f"client {state.client} has sent its vector of round {spec.round_id} and sends none twice")
    if len(randomness) < 32:
        raise ValueError(f"randomness must be at least 32 bytes, got {len(randomness)}")
    seed = ciphers.derive(randomness, spec.label(b"mask seed", state.client))
    ephemeral = ciphers.derive(randomness, spec.label(b"ephemeral", state.client))
    masked = wire.pack(add_masks(state.vector, [(seed, False)], spec.backend), spec.bits)
    sealed = seal_seed(spec, state.client, state.identity, ephemeral, seed)
    return replace(state, vector=None), {AGGREGATOR: Submission(spec.round_id, state.client, masked, sealed)}


def aggregator_step(
    spec: SeflSpec, state: AggregatorState, inbox: Inbox, randomness: bytes = b""
) -> tuple[AggregatorState, Outbox]:
    """The next step of the aggregator.

    Args:
        spec: the round.
        state: where it stands; `AggregatorState()` at the start.
        inbox: while collecting, some submissions, to be added; none ends the collection, and whoever sent none has
            dropped. Then the provider's answer.
        randomness: at least 32 secret bytes for the last step where `spec.sigma` is above 0.

    Returns:
        The new state, and the request for the provider when the collection ends; in the end, `state.total`.

    Raises:
        RefusedError: for fewer survivors than `spec.least`, or a message that is out of place or wrong. The old state
            stays valid: the caller may leave that message out, and call again.
    """
    if state.stage == "done":
        raise RefusedError(f"the aggregator has finished round {spec.round_id}")
    for message in inbox:
        if message.round_id != spec.round_id:
            raise RefusedError(f"the aggregator is in round {spec.round_id}, got a message of round {message.round_id}")
    if state.stage == "open":
        return _finish(spec, state, inbox, randomness)
    if inbox:
        return _collect(spec, state, inbox), {}
    if len(state.seeds) < spec.least:
        raise RefusedError(f"the aggregator has {len(state.seeds)} vectors, fewer than the least number {spec.least}")
    return replace(state, stage="open"), {PROVIDER: OpenRequest(spec.round_id, dict(sorted(state.seeds.items())))}


def _collect(spec: SeflSpec, state: AggregatorState, inbox: Inbox) -> AggregatorState:
    seeds = dict(state.seeds)
    keys = {sealed.key for sealed in seeds.values()}
    total = state.total
    for message in inbox:
        if not isinstance(message, Submission):
            raise RefusedError(f"the aggregator awaits submissions, got {type(message).__name__}")
        sender, sealed = message.sender, message.seed
        if sealed.sender != sender:
            raise RefusedError(f"the aggregator got a seed of client {sealed.sender} from client {sender}")
        if sender in seeds:
            raise RefusedError(f"the aggregator got two submissions from client {sender}")
        # what the provider would refuse, the aggregator finds out before it has added anything
        check_seed(spec, sealed, "the aggregator")
        if sealed.key in keys:
            raise RefusedError(f"the aggregator got a key from client {sender} that another client uses")
        vector = unpacked(spec, message.masked, "the aggregator", f"client {sender}")
        if total is None:
            total = np.array(vector)
        elif total is state.total:
            # a new array: the old state stays as it is
            total = total + vector
        else:
            total += vector
        seeds[sender] = sealed
        keys.add(sealed.key)
    return replace(state, seeds=seeds, total=total)


def _finish(spec: SeflSpec, state: AggregatorState, inbox: Inbox, randomness: bytes) -> tuple[AggregatorState, Outbox]:
    if len(inbox) != 1 or not isinstance(inbox[0], MaskSum):
        kinds = ", ".join(type(message).__name__ for message in inbox) or "nothing"
        raise RefusedError(f"the aggregator awaits the provider's one sum of masks, got {kinds}")
    answer = inbox[0]
    if answer.survivors != state.survivors:
        raise RefusedError("the aggregator got a sum of masks over other survivors than it asked for")
    assert state.total is not None
    masks = unpacked(spec, answer.total, "the aggregator", "the provider")
    total = state.total - masks + server_noise(spec, randomness, b"aggregator noise")
    # the words above the ring's bits are what carries left there
    return replace(state, stage="done", total=total & np.uint32(2**spec.bits - 1)), {}


def provider_step(
    spec: SeflSpec, state: ProviderState, inbox: Inbox, randomness: bytes = b""
) -> tuple[ProviderState, Outbox]:
    """The provider's one step in a round.

    Args:
        spec: the round.
        state: as the last round left it.
        inbox: the aggregator's request.
        randomness: at least 32 secret bytes where `spec.sigma` is above 0.

    Returns:
        The state in which this round is closed, and the sum of masks for the aggregator.

    Raises:
        RefusedError: for a second set of survivors of the round, an earlier round, fewer survivors than `spec.least`,
            or a seed that is repeated, altered, or not by that client for this round. Nothing is revealed, and the
            round stays open.
        ValueError: where the secret does not belong to the round's key, or for short randomness.
    """
    if ciphers.public_key(state.secret) != spec.provider_key:
        raise ValueError("secret must be the one that the round's provider_key belongs to")
    if len(inbox) != 1 or not isinstance(inbox[0], OpenRequest):
        raise RefusedError("the provider awaits one request for the sum of masks")
    request = inbox[0]
    if request.round_id != spec.round_id:
        raise RefusedError(f"the provider is in round {spec.round_id}, got a request of round {request.round_id}")
    if spec.round_id <= state.opened:
        raise RefusedError(
            f"the provider has opened its one set of survivors of round {state.opened} and opens round "
            f"{spec.round_id} no more"
        )
    if len(request.seeds) < spec.least:
        raise RefusedError(
            f"the provider got seeds of {len(request.seeds)} clients, fewer than the least number {spec.least}"
        )
    seeds = _opened(spec, state.secret, request.seeds)
    total = -server_noise(spec, randomness, b"provider noise")
    total = add_masks(total, [(seed, False) for seed in seeds.values()], spec.backend)
    answer = MaskSum(spec.round_id, tuple(sorted(seeds)), wire.pack(total, spec.bits))
    return replace(state, opened=spec.round_id), {AGGREGATOR: answer}


def _opened(spec: SeflSpec, secret: bytes, sealed: Mapping[int, SealedSeed]) -> dict[int, bytes]:
    """The seed of each survivor: all are checked before one is used."""
    seeds: dict[int, bytes] = {}
    keys: dict[bytes, int] = {}
    for sender, each in sealed.items():
        if each.sender != sender:
            raise RefusedError(f"the provider got a seed of client {each.sender} as that of client {sender}")
        check_seed(spec, each, "the provider")
        if each.key in keys:
            raise RefusedError(f"the provider got one key twice, from client {keys[each.key]} and client {sender}")
        keys[each.key] = sender
        seeds[sender] = open_seed(spec, each, secret)
    if len(set(seeds.values())) < len(seeds):
        raise RefusedError("the provider got one seed from two clients")
    return seeds


def refuse_own_supports(supports: Any) -> None:
    """Refuses to add up vectors under masks whose zeros each client chose.

    Args:
        supports: True where a client sends a value, `(clients, dimension)`.

    Raises:
        RefusedError: unless all rows are equal: masks need one common support, and where supports differ the sum lays
            bare what one client alone sends (arXiv 2508.04285). Choose the support once for all (`common_support`),
            train in block-Hankel form (`constraints.Hankel`), or use the enclave.
    """
    rows = np.asarray(supports, np.bool_)
    check.rank((2,), supports=rows)
    if (rows != rows[:1]).any():
        alone = int((rows.sum(axis=0) == 1).sum())
        raise RefusedError(
            f"supports must be the same for all clients under masks, got {len(rows)} that differ: {alone} values are "
            "sent by one client alone, and the sum would lay them bare"
        )


class RoundResult(NamedTuple):
    """What a round gave."""

    total: UInt32[np.ndarray, " dimension"]
    """Sum of the survivors' vectors in the ring, with noise where the round has some."""
    survivors: tuple[int, ...]
    """Whose vectors are in it."""
    upload_bytes: int
    """What the survivors sent, together."""
    server_bytes: int
    """What the two servers sent each other."""


def run_round(
    spec: SeflSpec,
    provider: ProviderState,
    vectors: UInt32[np.ndarray, " clients dimension"],
    identities: Sequence[bytes],
    randomness: Sequence[bytes],
    dropped: Bool[np.ndarray, " clients"] | None = None,
) -> tuple[ProviderState, RoundResult]:
    """All parties of a round in one process: for simulation and tests, where nobody is to be protected.

    Args:
        spec: the round.
        provider: the provider, as the last round left it.
        vectors: one row of ring elements per client.
        identities: the clients' 32-byte Ed25519 signing keys.
        randomness: at least 32 secret bytes per client and two more for aggregator and provider, never used before.
        dropped: True where a client falls silent before it has sent anything. None: nobody does.

    Raises:
        RefusedError: where fewer clients than `spec.least` are left.
        ValueError: for arguments of other sizes.
    """
    check.shape((spec.clients, spec.dimension), vectors=vectors)
    if len(identities) != spec.clients or len(randomness) != spec.clients + 2:
        raise ValueError(
            f"identities and randomness must have {spec.clients} and {spec.clients + 2} entries, got "
            f"{len(identities)} and {len(randomness)}"
        )
    gone = np.zeros(spec.clients, np.bool_) if dropped is None else np.asarray(dropped)
    check.shape((spec.clients,), dropped=gone)
    aggregator, upload = AggregatorState(), 0
    for at in np.flatnonzero(~gone).tolist():
        client = client_init(spec, at, identities[at], vectors[at])
        _, outbox = client_step(spec, client, (), randomness[at])
        submission = outbox[AGGREGATOR]
        assert isinstance(submission, Submission)
        upload += submission.nbytes
        aggregator, _ = aggregator_step(spec, aggregator, [submission])
    aggregator, outbox = aggregator_step(spec, aggregator, ())
    request = outbox[PROVIDER]
    provider, outbox = provider_step(spec, provider, [request], randomness[-1])
    answer = outbox[AGGREGATOR]
    aggregator, _ = aggregator_step(spec, aggregator, [answer], randomness[-2])
    assert isinstance(request, OpenRequest)
    assert isinstance(answer, MaskSum)
    assert aggregator.total is not None
    between = sum(8 + sealed.nbytes for sealed in request.seeds.values()) + len(answer.total)
    return provider, RoundResult(aggregator.total, aggregator.survivors, upload, between)
