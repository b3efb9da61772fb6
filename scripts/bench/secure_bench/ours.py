"""SecAgg, SEFL and RLWE of modicum, stage by stage."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from modicum.constraints import hankel_ratio
from modicum.federated import FixedPointSpec, SecAggSpec, SeflSpec, ciphers, lattice, secagg, sefl, wire
from modicum.federated.secagg_messages import SERVER
from secure_bench import timing


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns, and the seconds of CPU it took."""
    return timing.timed(lambda: jax.block_until_ready(function(*arguments)))


def identities(clients: int) -> tuple[list[bytes], tuple[bytes, ...]]:
    """Signing keys and their public keys."""
    keys = [ciphers.digest(b"bench", at.to_bytes(4, "little")) for at in range(clients)]
    return keys, tuple(ciphers.verify_key(key) for key in keys)


def secagg_round(clients: int, dimension: int, threshold: int, dropped: int) -> dict[str, Any]:
    """Seconds of CPU of all clients by stage, and of the server's unmasking; dropped ones leave after their shares."""
    keys, public = identities(clients)
    spec = SecAggSpec(round_id=1, dimension=dimension, threshold=threshold, identities=public)
    vectors = np.random.default_rng(0).integers(0, 2**32, (clients, dimension), dtype=np.uint32)
    states = [secagg.client_init(spec, at, keys[at], vectors[at]) for at in range(clients)]
    server, mail, spent, upload = secagg.ServerState(), dict.fromkeys(range(clients), ()), {}, 0
    for stage in ("setup", "shares", "masking", "consent", "opening"):
        inbox, spent[stage] = [], 0.0
        for at in sorted(mail):
            if stage == "masking" and at >= clients - dropped:
                continue
            randomness = ciphers.digest(b"bench randomness", at.to_bytes(4, "little"))
            (states[at], outbox), seconds = timed(secagg.client_step, spec, states[at], mail[at], randomness)
            spent[stage] += seconds
            inbox.append(outbox[SERVER])
        if stage == "masking":
            upload = inbox[0].vector.nbytes
        (server, answers), seconds = timed(secagg.server_step, spec, server, inbox)
        spent[f"server {stage}"] = seconds
        mail = {at: (message,) for at, message in answers.items()}
    expected = vectors[: clients - dropped].sum(axis=0, dtype=np.uint32)
    return {"cpu_seconds": spent, "upload_bytes": upload, "exact": bool((server.total == expected).all())}


def sefl_round(clients: int, dimension: int, bits: int = 32) -> dict[str, Any]:
    """Seconds of CPU per client of client, aggregator and provider; bytes of an upload."""
    keys, public = identities(clients)
    secret = ciphers.digest(b"bench provider")
    fixed = FixedPointSpec(clients=clients, clip=1.0, fraction_bits=10, ring_bits=bits)
    spec = SeflSpec(
        round_id=1,
        dimension=dimension,
        identities=public,
        provider_key=ciphers.public_key(secret),
        fixed_point=fixed,
        least=2,
    )
    vectors = np.random.default_rng(0).integers(0, 2**bits, (clients, dimension), dtype=np.uint32)
    aggregator, client_seconds, server_seconds, upload = sefl.AggregatorState(), 0.0, 0.0, 0
    for at in range(clients):
        state = sefl.client_init(spec, at, keys[at], vectors[at])
        (_, outbox), seconds = timed(sefl.client_step, spec, state, (), ciphers.digest(b"bench", bytes([at])))
        client_seconds += seconds
        upload = outbox["aggregator"].nbytes
        (aggregator, _), seconds = timed(sefl.aggregator_step, spec, aggregator, [outbox["aggregator"]])
        server_seconds += seconds
    (aggregator, outbox), seconds = timed(sefl.aggregator_step, spec, aggregator, ())
    server_seconds += seconds
    provider = sefl.ProviderState(secret)
    (_, outbox), seconds = timed(sefl.provider_step, spec, provider, [outbox["provider"]])
    server_seconds += seconds
    (aggregator, _), seconds = timed(sefl.aggregator_step, spec, aggregator, [outbox["aggregator"]])
    server_seconds += seconds
    expected = vectors.sum(axis=0, dtype=np.uint32) & np.uint32(2**bits - 1)
    return {
        "client_cpu_ms": 1e3 * client_seconds / clients,
        "servers_cpu_ms_per_client": 1e3 * server_seconds / clients,
        "upload_bytes": upload,
        "bytes_per_parameter": upload / dimension,
        "exact": bool((aggregator.total == expected).all()),
    }


def hankel(dimension: int, side: int, clients: int, bits: int) -> dict[str, Any]:
    """The same with a weight of `dimension` entries in block-Hankel form; bytes are per entry of the dense weight."""
    ratio = hankel_ratio((side * 8, side * 8), side)
    found = sefl_round(clients, round(dimension / ratio), bits)
    return {**found, "numbers_fewer": ratio, "bytes_per_parameter": found["upload_bytes"] / dimension}


def rlwe(dimension: int) -> dict[str, Any]:
    """Encrypts two vectors, adds them and decrypts the sum."""
    secret, public = lattice.generate(ciphers.digest(b"bench lattice"))
    vectors = np.random.default_rng(0).integers(0, 2**32, (2, dimension), dtype=np.uint32)
    spent: dict[str, float] = {}
    for _ in range(2):  # the first one compiles
        first, spent["encrypt"] = timed(lattice.encrypt, public, vectors[0], bytes(32))
        second = jax.block_until_ready(lattice.encrypt(public, vectors[1], b"\x01" * 32))
        total, spent["add"] = timed(lattice.add, first, second)
        found, spent["decrypt"] = timed(lattice.decrypt, secret, total, dimension)
    size = 2 * wire.packed_bytes(first.first.size, lattice.PRIME_BITS)
    exact = bool((found == vectors.sum(axis=0, dtype=np.uint32)).all())
    return {"cpu_seconds": spent, "bytes": size, "exact": exact}
