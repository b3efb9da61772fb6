"""SEFL: sums bit-equal to plain ones whoever drops, noise of the right scale, and what its parties refuse."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.federated import (
    FixedPointSpec,
    RefusedError,
    SeflSpec,
    ciphers,
    decode,
    decode_exact,
    encode,
    refuse_own_supports,
    sefl,
)
from modicum.federated.sefl_messages import AGGREGATOR, PROVIDER, MaskSum, OpenRequest, seal_seed

KEYS = [ciphers.digest(b"identity", bytes([at])) for at in range(20)]
PUBLIC = tuple(ciphers.verify_key(key) for key in KEYS)
SECRET = ciphers.digest(b"provider")
PROVIDER_KEY = ciphers.public_key(SECRET)


def round_of(clients, least=2, bits=32, **more):
    fixed = FixedPointSpec(clients=clients, clip=4.0, fraction_bits=bits - 12, ring_bits=bits)
    numbers = {"round_id": 7, "dimension": 5, "least": least, "identities": PUBLIC[:clients]}
    return SeflSpec(**{**numbers, "fixed_point": fixed, "provider_key": PROVIDER_KEY, **more})


def randomness(clients, seed=0):
    return [ciphers.digest(b"randomness", bytes([at]), seed.to_bytes(8, "little")) for at in range(clients + 2)]


def vectors_of(spec, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**spec.bits, (spec.clients, spec.dimension), dtype=np.uint32)


def run(spec, vectors, dropped=None, seed=0, provider=None):
    provider = sefl.ProviderState(SECRET) if provider is None else provider
    return sefl.run_round(spec, provider, vectors, KEYS[: spec.clients], randomness(spec.clients, seed), dropped)


@st.composite
def rounds(draw):
    clients = draw(st.integers(2, 20))
    dropped = draw(st.lists(st.sampled_from([False, False, True]), min_size=clients, max_size=clients))
    return clients, draw(st.integers(2, clients)), dropped, draw(st.sampled_from([8, 20, 21, 32])), draw(st.integers(0))


@settings(max_examples=80)
@given(rounds())
def test_sum_is_bit_equal_or_refused(case):
    clients, least, dropped, bits, seed = case
    fixed = FixedPointSpec(clients=clients, clip=1.0, fraction_bits=1, ring_bits=bits)
    spec = round_of(clients, least, fixed_point=fixed, dimension=seed % 7 + 1)
    vectors, dropped = vectors_of(spec, seed), np.array(dropped)
    if (~dropped).sum() < least:
        with pytest.raises(RefusedError, match=f"fewer than the least number {least}$"):
            run(spec, vectors, dropped, seed % 2**32)
        return
    provider, result = run(spec, vectors, dropped, seed % 2**32)
    assert provider.opened == 7
    assert result.survivors == tuple(np.flatnonzero(~dropped).tolist())
    np.testing.assert_array_equal(result.total, vectors[~dropped].sum(axis=0, dtype=np.uint64) % 2**bits)


def test_a_thousand_clients_of_whom_forty_percent_drop():
    keys = [ciphers.digest(b"one of many", at.to_bytes(2, "little")) for at in range(1000)]
    fixed = FixedPointSpec(clients=1000, clip=2.0, fraction_bits=20)
    spec = SeflSpec(
        round_id=0,
        dimension=3,
        identities=tuple(ciphers.verify_key(key) for key in keys),
        provider_key=PROVIDER_KEY,
        fixed_point=fixed,
        least=500,
    )
    vectors, randomness = vectors_of(spec), [ciphers.digest(key) for key in (*keys, b"a", b"b")]
    dropped = np.random.default_rng(0).permutation(1000) < 400
    _, result = sefl.run_round(spec, sefl.ProviderState(SECRET), vectors, keys, randomness, dropped)
    assert len(result.survivors) == 600
    np.testing.assert_array_equal(result.total, vectors[~dropped].sum(axis=0, dtype=np.uint32))


@pytest.mark.parametrize("bits", [20, 32])
def test_floats_come_back_exactly_and_bytes_are_few(bits):
    spec = round_of(4, bits=bits, dimension=1000)
    values = np.asarray(jax.random.normal(jax.random.key(0), (4, 1000)))
    ring = np.asarray(encode(spec.fixed_point, jnp.asarray(values)).ring)
    totals = [run(replace(spec, backend=backend), ring)[1].total for backend in ("openssl", "jax")]
    np.testing.assert_array_equal(*totals)
    step = spec.fixed_point.step
    expected = np.rint(np.clip(values.astype(np.float64), -4, 4) / step).sum(axis=0) * step
    np.testing.assert_array_equal(decode_exact(spec.fixed_point, totals[0]), expected)
    np.testing.assert_allclose(decode(spec.fixed_point, jnp.asarray(totals[0])), expected, rtol=1e-7)
    assert run(spec, ring)[1].upload_bytes == 4 * (bits * 1000 // 8 + 160)


class Wire:
    """A round up to the provider's answer, with all messages that went over the wire."""

    def __init__(self, clients=4, **more):
        self.spec = round_of(clients, **more)
        self.vectors = vectors_of(self.spec)
        self.submissions = []
        for at in range(clients):
            self.client = sefl.client_init(self.spec, at, KEYS[at], self.vectors[at])
            self.client, out = sefl.client_step(self.spec, self.client, (), randomness(clients)[at])
            self.submissions.append(out[AGGREGATOR])
        collected, _ = sefl.aggregator_step(self.spec, sefl.AggregatorState(), self.submissions)
        self.aggregator, out = sefl.aggregator_step(self.spec, collected, ())
        self.request = out[PROVIDER]
        self.fresh = sefl.ProviderState(SECRET)
        self.provider, out = sefl.provider_step(self.spec, self.fresh, [self.request], bytes(32))
        self.answer = out[AGGREGATOR]

    def provider_refuses(self, request, sentence, state=None):
        with pytest.raises(RefusedError, match=sentence):
            sefl.provider_step(self.spec, state or self.fresh, [request], bytes(32))
        # nothing is used up: the honest request is still answered
        sefl.provider_step(self.spec, self.fresh, [self.request], bytes(32))

    def aggregator_refuses(self, inbox, sentence, state=None):
        with pytest.raises(RefusedError, match=sentence):
            sefl.aggregator_step(self.spec, sefl.AggregatorState() if state is None else state, inbox, bytes(32))


@pytest.fixture(scope="module")
def wire():
    return Wire()


def without(request, *clients):
    return replace(request, seeds={at: seed for at, seed in request.seeds.items() if at not in clients})


def test_one_set_of_survivors_in_a_round(wire):
    for request in (wire.request, without(wire.request, 2)):
        sentence = "has opened its one set of survivors of round 7 and opens round 7 no more"
        wire.provider_refuses(request, sentence, wire.provider)
    later = replace(wire.provider, opened=8)
    wire.provider_refuses(wire.request, "of round 8 and opens round 7 no more", later)
    assert sefl.provider_step(wire.spec, replace(wire.provider, opened=6), [wire.request])[0].opened == 7


def test_a_set_of_one(wire):
    wire.provider_refuses(without(wire.request, 0, 1, 2), "seeds of 1 clients, fewer than the least number 2")
    alone, _ = sefl.aggregator_step(wire.spec, sefl.AggregatorState(), wire.submissions[:1])
    wire.aggregator_refuses((), "has 1 vectors, fewer than the least number 2", alone)
    with pytest.raises(ValueError, match="least must be a whole number of at least 2"):
        round_of(4, least=1)


def test_made_up_clients_and_altered_seeds(wire):
    seeds = wire.request.seeds
    spec, thief = wire.spec, ciphers.digest(b"thief")
    forged = seal_seed(spec, 3, thief, bytes(32), bytes(32))
    wire.provider_refuses(replace(wire.request, seeds={**seeds, 3: forged}), "client 3 did not sign for round 7")
    stranger = replace(forged, sender=9)
    wire.provider_refuses(replace(wire.request, seeds={**seeds, 9: stranger}), "client 9, who is not of round 7")
    wire.provider_refuses(replace(wire.request, seeds={**seeds, 3: seeds[2]}), "seed of client 2 as that of client 3")
    for name in ("ciphertext", "key", "signature"):
        value = getattr(seeds[1], name)
        altered = replace(seeds[1], **{name: bytes([value[0] ^ 1]) + value[1:]})
        wire.provider_refuses(replace(wire.request, seeds={**seeds, 1: altered}), "client 1 did not sign for round 7")
    # signed by its owner, and yet no seed of this round
    other = replace(spec, model=b"another")
    for bad, sentence in (
        (seal_seed(spec, 1, KEYS[1], bytes(32), b"short"), "seed of client 1 of another length than 32"),
        (seal_seed(other, 1, KEYS[1], bytes(32), bytes(32)), "client 1 did not sign for round 7"),
    ):
        wire.provider_refuses(replace(wire.request, seeds={**seeds, 1: bad}), sentence)


def test_replay_into_another_round(wire):
    later = replace(wire.spec, round_id=8)
    request = OpenRequest(8, wire.request.seeds)
    with pytest.raises(RefusedError, match="a seed that client 0 did not sign for round 8"):
        sefl.provider_step(later, wire.provider, [request], b"")
    with pytest.raises(RefusedError, match="the provider is in round 8, got a request of round 7"):
        sefl.provider_step(later, wire.provider, [wire.request], b"")
    replayed = replace(wire.submissions[0], round_id=8)
    with pytest.raises(RefusedError, match="the aggregator got a seed that client 0 did not sign for round 8"):
        sefl.aggregator_step(later, sefl.AggregatorState(), [replayed])
    wire.aggregator_refuses([replayed], "the aggregator is in round 7, got a message of round 8")


def test_keys_and_seeds_serve_once(wire):
    spec, seeds = wire.spec, wire.request.seeds
    ephemeral = ciphers.digest(b"one key")
    twins = {at: seal_seed(spec, at, KEYS[at], ephemeral, bytes([at]) * 32) for at in (0, 1)}
    wire.provider_refuses(replace(wire.request, seeds={**seeds, **twins}), "one key twice, from client 0 and client 1")
    mine = [replace(wire.submissions[at], seed=twins[at]) for at in (0, 1)]
    wire.aggregator_refuses(mine, "a key from client 1 that another client uses")
    same = {at: seal_seed(spec, at, KEYS[at], bytes([at + 1]) * 32, bytes(32)) for at in (0, 1)}
    wire.provider_refuses(replace(wire.request, seeds={**seeds, **same}), "one seed from two clients")
    # one randomness in two rounds, or two models: other keys, other masks
    with pytest.raises(RefusedError, match="client 3 has sent its vector of round 7 and sends none twice"):
        sefl.client_step(spec, wire.client, (), bytes(32))
    assert wire.client.vector is None
    used = set()
    for terms in (spec, replace(spec, round_id=8), replace(spec, model=b"another")):
        start = sefl.client_init(terms, 0, KEYS[0], np.zeros(5, np.uint32))
        sent = sefl.client_step(terms, start, (), bytes(32))[1][AGGREGATOR]
        used |= {sent.seed.key, sent.masked}
    assert len(used) == 6


def test_aggregator_refuses_what_is_out_of_place(wire):
    first, second = wire.submissions[:2]
    wire.aggregator_refuses([first, first], "two submissions from client 0")
    wire.aggregator_refuses([replace(first, seed=second.seed)], "a seed of client 1 from client 0")
    wire.aggregator_refuses([replace(first, masked=first.masked[1:])], "awaits 20 bytes from client 0, got 19")
    wire.aggregator_refuses([wire.answer], "awaits submissions, got MaskSum")
    wire.aggregator_refuses([first], "awaits the provider's one sum of masks, got Submission", wire.aggregator)
    others = MaskSum(7, (0, 1), wire.answer.total)
    wire.aggregator_refuses([others], "over other survivors than it asked for", wire.aggregator)
    done, outbox = sefl.aggregator_step(wire.spec, wire.aggregator, [wire.answer])
    assert outbox == {}
    np.testing.assert_array_equal(done.total, wire.vectors.sum(axis=0, dtype=np.uint32))
    wire.aggregator_refuses([wire.answer], "has finished round 7", done)


def test_what_each_server_sees_is_uniform():
    """Zeros under masks, and the sum of masks of two clients: half of the bits are ones."""
    spec = round_of(2, dimension=4096)
    vectors = np.zeros((2, 4096), np.uint32)
    seen = []
    for at in range(2):
        start = sefl.client_init(spec, at, KEYS[at], vectors[at])
        seen.append(sefl.client_step(spec, start, (), randomness(2)[at])[1][AGGREGATOR].masked)
    for data in seen:
        ones = np.unpackbits(np.frombuffer(data, np.uint8)).mean()
        assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(32 * 4096)
    assert SECRET not in repr(sefl.ProviderState(SECRET)).encode()


def test_both_servers_add_noise():
    sigma, dimension = 50.0, 20_000
    spec = round_of(2, dimension=dimension, sigma=sigma)
    vectors = np.zeros((2, dimension), np.uint32)
    noise = run(spec, vectors)[1].total.view(np.int32).astype(np.float64)
    # variances add up; the estimate of a variance scatters by sqrt(2 / n)
    error = noise.var() / (2 * sigma**2) - 1
    assert abs(error) < 4 * np.sqrt(2 / dimension)
    assert abs(noise.var() / sigma**2 - 1) > 4 * np.sqrt(2 / dimension)
    with pytest.raises(ValueError, match="sigma must leave room below half of the ring"):
        round_of(2, bits=20, sigma=2.0**17)
    wire = Wire(sigma=1.0)
    with pytest.raises(ValueError, match="randomness must be at least 32 bytes, got 0"):
        sefl.provider_step(wire.spec, wire.fresh, [wire.request], b"")


def test_supports_of_ones_own_are_refused():
    supports = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)
    with pytest.raises(RefusedError, match="got 2 that differ: 2 values are sent by one client alone"):
        refuse_own_supports(supports)
    refuse_own_supports(supports[[0, 0]])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"identities": (*PUBLIC[:2], PUBLIC[0])}, "identities must be distinct Ed25519 public keys"),
        ({"provider_key": bytes(32)}, "provider_key must be an X25519 public key"),
        ({"least": 4}, "least must be a whole number of at least 2 and at most 3, got 4"),
        ({"identities": PUBLIC[:4]}, "fixed_point must have room for the round's 4 clients, got 3"),
        ({"round_id": -1}, "round_id must be a whole number"),
        ({"backend": "threefry"}, "backend must be one of 'openssl', 'jax'"),
    ],
)
def test_bad_rounds(more, sentence):
    with pytest.raises(ValueError, match=sentence):
        round_of(3, **more)


def test_bad_arguments():
    spec = round_of(3)
    with pytest.raises(ValueError, match="identity must be the signing key of client 1"):
        sefl.client_init(spec, 1, KEYS[0], np.zeros(5, np.uint32))
    with pytest.raises(ValueError, match="randomness must be at least 32 bytes, got 3"):
        sefl.client_step(spec, sefl.client_init(spec, 0, KEYS[0], np.zeros(5, np.uint32)), (), b"abc")
    with pytest.raises(ValueError, match="identities and randomness must have 3 and 5 entries, got 3 and 3"):
        sefl.run_round(spec, sefl.ProviderState(SECRET), vectors_of(spec), KEYS[:3], randomness(1))
    with pytest.raises(ValueError, match="secret must be the one that the round's provider_key belongs to"):
        sefl.provider_step(spec, sefl.ProviderState(bytes(32)), ())
