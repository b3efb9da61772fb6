"""SEFL's check of sizes: both servers project each vector's shares at random, and large vectors are left out.

A masked vector and its mask are shares of the client's vector, `x = masked - mask` in the ring. Each server multiplies
its share with the same numbers, `p_k = sum_j s_kj share_j` for `k` from 1 to 128; the difference is the projection of
`x`. The numbers are -1, 0 and 1 with probabilities 1/4, 1/2 and 1/4, so that `2 sum_k (s_k x)^2 / 128` estimates
`||x||^2` whatever `x` is. A client at the bound is refused with a probability below 1e-9, one at twice the bound gets
through with one of 2e-5 (chi-square of 128 degrees). Boosted vectors, spikes, wrapped and uniform ones are refused
alike. Signs alone, without the zeros, would not do: half of the ring, 2^31, is its own negative, and an even number of
such entries would cancel in every projection.

**What it shows**: the provider sees the 128 projections of each vector, and nothing else of it; the aggregator sees who
was refused. The key of the signs comes from both servers, after all vectors are in: `sign_key`.

Reference:
    Johnson and Lindenstrauss (1984), with sparse signs after Achlioptas (2003); the use on shares is ours.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from modicum.core import check
from modicum.federated import ciphers
from modicum.federated.fixed_point import decode_exact
from modicum.federated.masks import check_bytes, openssl_words
from modicum.federated.secagg_messages import RefusedError
from modicum.federated.sefl import AggregatorState, ProviderState, provider_step
from modicum.federated.sefl_messages import (
    OpenRequest,
    Outbox,
    SeflSpec,
    Submission,
    check_seed,
    open_seed,
    seed_mask,
    unpacked,
)

PROJECTIONS = 128
_WORDS = PROJECTIONS // 32
"""Words per entry of each of the two halves whose difference the signs are."""
_CHUNK = 4096
SLACK = 1.5
"""A vector is refused where its estimated norm exceeds the bound by this factor."""


@dataclass(frozen=True, eq=False)
class CheckedRequest:
    """An `OpenRequest` with the aggregator's projections of what it holds, by client."""

    request: OpenRequest
    projections: Mapping[int, UInt32[np.ndarray, " 128"]]


def aggregator_project(
    spec: SeflSpec, request: OpenRequest, submissions: Sequence[Submission], key: bytes
) -> CheckedRequest:
    """What the aggregator sends in place of its request where sizes are checked.

    Args:
        spec: the round.
        request: of the step that ended the collection.
        submissions: those that are in the sum; they must be kept until the answer is there.
        key: from `sign_key`.
    """
    rows = {each.sender: unpacked(spec, each.masked, "the aggregator", f"client {each.sender}") for each in submissions}
    return CheckedRequest(request, {sender: projections(row, key) for sender, row in rows.items()})


def provider_check(
    spec: SeflSpec, state: ProviderState, message: CheckedRequest, bound: float, key: bytes, randomness: bytes = b""
) -> tuple[ProviderState, Outbox]:
    """The provider's step in place of `sefl.provider_step`: the round is opened for those who are not too large.

    Args:
        spec: the round.
        state: as the last round left it.
        message: the aggregator's.
        bound: see `accepted`.
        key: from `sign_key`.
        randomness: as in `sefl.provider_step`.

    Raises:
        RefusedError: as `sefl.provider_step`, and where fewer than `spec.least` are left.
    """
    seeds = message.request.seeds
    if set(message.projections) != set(seeds):
        raise RefusedError("the provider got projections of other clients than those whose seeds it got")
    masks = {}
    for sender, sealed in seeds.items():
        check_seed(spec, sealed, "the provider")
        masks[sender] = projections(seed_mask(spec, open_seed(spec, sealed, state.secret)), key)
    kept = accepted(spec, bound, message.projections, masks)
    request = OpenRequest(message.request.round_id, {sender: seeds[sender] for sender in kept})
    return provider_step(spec, state, [request], randomness)


def leave_out(spec: SeflSpec, state: AggregatorState, refused: Sequence[Submission]) -> AggregatorState:
    """The aggregator's state without the vectors that the provider refused; then `sefl.aggregator_step` goes on.

    Raises:
        RefusedError: for a vector that is not in the sum.
    """
    assert state.total is not None
    total, seeds = state.total.copy(), dict(state.seeds)
    for each in refused:
        if seeds.pop(each.sender, None) != each.seed:
            raise RefusedError(f"the aggregator has no such vector of client {each.sender} in its sum")
        total -= unpacked(spec, each.masked, "the aggregator", f"client {each.sender}")
    return replace(state, total=total, seeds=seeds)


def sign_key(spec: SeflSpec, aggregator: bytes, provider: bytes) -> bytes:
    """The key of the signs, from 32 random bytes of each server that it showed once all vectors were in.

    Neither can choose it if each has committed to its half before it saw the other's (`ciphers.digest`).
    """
    check_bytes(32, aggregator=aggregator, provider=provider)
    return ciphers.digest(spec.label(b"signs"), aggregator, provider)


def projections(share: UInt32[np.ndarray, " dimension"], key: bytes) -> UInt32[np.ndarray, " 128"]:
    """`sum_j s_kj share_j mod 2^32` with the signs of a key.

    Args:
        share: ring elements.
        key: from `sign_key`.
    """
    chunks = -(-share.size // _CHUNK)
    padded = np.zeros(chunks * _CHUNK, np.uint32)
    padded[: share.size] = share
    words = _signs(key, chunks)
    return np.asarray(_projected(jnp.asarray(padded.reshape(chunks, _CHUNK)), words))


@functools.lru_cache(maxsize=2)
def _signs(key: bytes, chunks: int) -> UInt32[Array, " chunks 2 words entries"]:
    """The same for all clients of a round, hence kept."""
    return jnp.asarray(openssl_words(key, 2 * chunks * _WORDS * _CHUNK).reshape(chunks, 2, _WORDS, _CHUNK))


@jax.jit
def _projected(share: Array, signs: Array) -> Array:
    """The sum where the first bit is 1, less that where the second is; by chunks, to stay in the cache."""

    def chunk(total: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        entries, words = row
        bits = (words[:, :, None, :] >> lax.iota(jnp.uint32, 32)[None, None, :, None]) & jnp.uint32(1)
        # a mask of all ones where the bit is 1
        chosen = (jnp.uint32(0) - bits) & entries[None, None, None, :]
        plus, minus = jnp.sum(chosen, axis=3, dtype=jnp.uint32)
        return total + plus - minus, None

    total, _ = lax.scan(chunk, jnp.zeros((_WORDS, 32), jnp.uint32), (share, signs))
    return total.reshape(PROJECTIONS)


def norm_estimate(spec: SeflSpec, masked: UInt32[np.ndarray, " 128"], mask: UInt32[np.ndarray, " 128"]) -> float:
    """The Euclidean norm of a client's vector, in its own unit, from both servers' projections.

    Args:
        spec: the round.
        masked: of what the aggregator holds.
        mask: of what the provider holds.
    """
    projected = decode_exact(spec.fixed_point, masked - mask)
    return float(np.sqrt(2 * np.mean(projected**2)))


def accepted(
    spec: SeflSpec,
    bound: float,
    masked: Mapping[int, UInt32[np.ndarray, " 128"]],
    masks: Mapping[int, UInt32[np.ndarray, " 128"]],
) -> tuple[int, ...]:
    """The clients whose vectors are not too large: the survivors that the round should be opened for.

    Args:
        spec: the round; a projection of a vector at the bound must fit its ring, six standard deviations of it.
        bound: largest norm that an honest vector has.
        masked: the aggregator's projections, by client.
        masks: the provider's.

    Raises:
        ValueError: where the ring is too small for such a bound.
    """
    check.finite_positive(bound=bound)
    room = spec.fixed_point.largest * spec.fixed_point.step
    if 6 * SLACK * bound > room:
        raise ValueError(f"bound must be at most {room / (6 * SLACK):.6g} for projections to fit the ring, got {bound}")
    return tuple(
        client for client in sorted(masked) if norm_estimate(spec, masked[client], masks[client]) <= SLACK * bound
    )
