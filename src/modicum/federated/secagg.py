"""SecAgg: a server learns the sum of the clients' vectors and nothing else about them.

**Not audited.** This is research code: no outsider has reviewed it, and neither Python nor JAX run in constant time.

The protocol is that of Bonawitz et al. with the consistency round, against a server that deviates from it. Clients
speak to the server alone:

| stage | client sends | server answers |
|---|---|---|
| `advertise` | two X25519 keys and a commitment, signed by its identity | the roster of those who did |
| `share` | Shamir shares of mask key and seed, sealed for each other client | the shares made for each |
| `mask` | its vector + PRG(seed) + the pairwise masks, which cancel | who has sent one: the survivors |
| `consent` | its signature on that one set | the signatures, and what to open |
| `open` | shares: of a survivor's seed, of a dropped client's mask key | none: it has the sum |

A client may drop at any stage; what is left must number the threshold each time, or the round ends with nothing
revealed. A client that drops after `mask` is still in the sum. Never are both secrets of one client opened: who signs
one set of survivors opens for no other, and more than half of the clients must have signed it.

With `SecAggSpec.neighbours` this is SecAgg+: a client shares keys, shares and masks with its neighbours in a random
regular graph alone, and the threshold counts among a client and its neighbours. Its work and its messages are then in
proportion to them, but for the set of survivors, which everybody gets and signs whole, and the round's identities. A
client checks in that set what it can: its neighbours, whether enough of them are in it, and whether enough have signed
it. The server refuses where any client that has shared, dropped or not, is left with fewer. A server that deviates and
has `m` of a client's neighbours on its side may invent drop-outs and split the sum, but each vector stays summed with
`2 threshold - neighbours - 1 - m` honest ones of its neighbours at least.

Each step is a pure function `(spec, state, inbox, randomness) -> (state, outbox)`, without sockets, clocks or
generators of its own; `run_round` drives them in one process. Secrets come from the randomness that is passed in:
32 bytes of `secrets.token_bytes` for each client and round.

What it does not do: it does not hide who took part, bound what a client contributes, or add noise to the sum. Channels
between clients and server must be authenticated (TLS): masked vectors and openings carry no signature. The identities
must come from elsewhere than the server. Nor is a sum guaranteed: who sends wrong ciphertexts stops the clients that
get them, and a wrong opening stops the server until it is left out.

Ours, beside the paper: the commitment to the seed, which finds out altered shares; shares are unsealed before the
masked vector is sent, not at the end; a consent covers the roster too; the server's request names whom it takes for
dropped, and is compared; the threshold is always more than half; a client
holds a share of its own secrets; with a graph, one signature on the whole set in place of one for each neighbour.

Reference:
    Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning (CCS 2017), figure 4 with the
    parts for active adversaries. Bell, Bonawitz, Gascon, Lepoint and Raykova, Secure Single-Server Aggregation with
    (Poly)Logarithmic Overhead (CCS 2020), for the graph.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt32

from modicum.core import check
from modicum.federated.secagg_client import ClientState, client_init, client_step
from modicum.federated.secagg_messages import CLIENT_STAGES, SERVER, Message, SecAggSpec
from modicum.federated.secagg_server import ServerState, server_step


class RoundResult(NamedTuple):
    """What a round gave."""

    total: UInt32[np.ndarray, " dimension"]
    """Sum of the survivors' vectors mod 2^32."""
    survivors: tuple[int, ...]
    """Whose vectors are in it."""


def run_round(
    spec: SecAggSpec,
    vectors: UInt32[np.ndarray, " clients dimension"],
    identities: Sequence[bytes],
    randomness: Sequence[bytes],
    dropped: Bool[np.ndarray, " 5 clients"] | None = None,
) -> RoundResult:
    """All parties of a round in one process: for simulation and tests, where nobody is to be protected.

    Args:
        spec: the round.
        vectors: one row of ring elements per client.
        identities: the clients' 32-byte Ed25519 signing keys.
        randomness: at least 32 secret bytes per client, never used before.
        dropped: True where a client falls silent before the message of a stage (rows as `CLIENT_STAGES`); it does
            not come back in later ones. None: nobody does.

    Raises:
        RefusedError: where fewer clients than the threshold are left at some stage.
        ValueError: for arguments of other sizes.
    """
    check.shape((spec.clients, spec.dimension), vectors=vectors)
    for name, value in (("identities", identities), ("randomness", randomness)):
        if len(value) != spec.clients:
            raise ValueError(f"{name} must have one entry for each of the {spec.clients} clients, got {len(value)}")
    silent = np.zeros((len(CLIENT_STAGES), spec.clients), np.bool_) if dropped is None else np.asarray(dropped)
    check.shape((len(CLIENT_STAGES), spec.clients), dropped=silent)
    clients = [client_init(spec, at, identities[at], vectors[at]) for at in range(spec.clients)]
    server = ServerState()
    mail: dict[int, tuple[Message, ...]] = dict.fromkeys(range(spec.clients), ())
    for gone in np.logical_or.accumulate(silent, axis=0):
        inbox = []
        for at in [at for at in mail if not gone[at]]:
            clients[at], outbox = client_step(spec, clients[at], mail[at], randomness[at])
            inbox.append(outbox[SERVER])
        server, answers = server_step(spec, server, inbox)
        mail = {at: (message,) for at, message in answers.items()}
    assert server.total is not None
    return RoundResult(server.total, server.survivors)


__all__ = ["ClientState", "RoundResult", "ServerState", "client_init", "client_step", "run_round", "server_step"]
