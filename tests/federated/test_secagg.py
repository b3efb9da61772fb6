"""SecAgg: sums bit-equal to plain ones under drop-outs at every stage, and what its parties refuse."""

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
    SecAggSpec,
    ciphers,
    decode_exact,
    encode,
    field,
    ring_sum,
    secagg,
)
from modicum.federated.secagg_messages import (
    CLIENT_STAGES,
    SERVER,
    Advertise,
    Consent,
    Delivery,
    Roster,
    Survivors,
    UnmaskRequest,
    advertised,
    consented,
)

KEYS = [ciphers.digest(b"identity", bytes([at])) for at in range(12)]
PUBLIC = tuple(ciphers.verify_key(key) for key in KEYS)


def round_of(clients, threshold, dimension=5, **more):
    numbers = {"round_id": 7, "dimension": dimension, "threshold": threshold, "identities": PUBLIC[:clients]}
    return SecAggSpec(**{**numbers, **more})


def randomness(clients, seed=0):
    return [ciphers.digest(b"randomness", bytes([at]), seed.to_bytes(8, "little")) for at in range(clients)]


def vectors_of(spec, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, (spec.clients, spec.dimension), dtype=np.uint32)


@st.composite
def rounds(draw):
    clients = draw(st.integers(3, 12))
    threshold = draw(st.integers(clients // 2 + 1, clients))
    # most clients stay, so that most rounds have a sum
    leaves_at = draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, *[5] * 15]), min_size=clients, max_size=clients))
    return clients, threshold, leaves_at, draw(st.integers(0, 2**32))


@settings(max_examples=30)
@given(rounds())
def test_sum_is_bit_equal_or_refused(case):
    clients, threshold, leaves_at, seed = case
    spec = round_of(clients, threshold, backend="openssl")
    check_round(spec, leaves_at, seed, sum(leaves == 5 for leaves in leaves_at) >= threshold)


def check_round(spec, leaves_at, seed, enough):
    """The sum of a round that clients leave at these stages is bit-equal to the plain one, or refused."""
    vectors, secrets = vectors_of(spec, seed), randomness(spec.clients, seed)
    dropped = np.array([[leaves == stage for leaves in leaves_at] for stage in range(5)])
    if not enough:
        with pytest.raises(RefusedError, match=f"fewer than the threshold {spec.threshold}$"):
            secagg.run_round(spec, vectors, KEYS[: spec.clients], secrets, dropped)
        return
    result = secagg.run_round(spec, vectors, KEYS[: spec.clients], secrets, dropped)
    survivors = [at for at in range(spec.clients) if leaves_at[at] > 2]
    assert result.survivors == tuple(survivors)
    expected = np.asarray(ring_sum(jnp.asarray(vectors[survivors])))
    assert result.total.dtype == np.uint32
    np.testing.assert_array_equal(result.total, expected)


@pytest.mark.parametrize("stage", range(5))
def test_forty_percent_drop_at_each_stage(stage):
    spec = round_of(10, 6)
    dropped = np.zeros((5, 10), bool)
    dropped[stage, [0, 3, 4, 9]] = True
    vectors = vectors_of(spec)
    result = secagg.run_round(spec, vectors, KEYS[:10], randomness(10), dropped)
    in_sum = np.ones(10, bool) if stage > 2 else ~dropped[stage]
    np.testing.assert_array_equal(result.total, vectors[in_sum].sum(axis=0, dtype=np.uint32))


def test_backends_may_be_mixed_and_floats_come_back_exactly():
    fixed = FixedPointSpec(clients=3, clip=4.0, fraction_bits=20)
    values = jax.random.normal(jax.random.key(0), (3, 5))
    vectors = np.asarray(encode(fixed, values).ring)
    totals = [
        secagg.run_round(round_of(3, 2, backend=backend), vectors, KEYS[:3], randomness(3)).total
        for backend in ("openssl", "jax")
    ]
    np.testing.assert_array_equal(*totals)
    with jax.enable_x64(True):
        wide = secagg.run_round(round_of(3, 2, backend="jax"), vectors, KEYS[:3], randomness(3)).total
    np.testing.assert_array_equal(wide, totals[0])
    expected = decode_exact(fixed, ring_sum(jnp.asarray(vectors)))
    np.testing.assert_array_equal(decode_exact(fixed, totals[0]), expected)


class Wire:
    """A round that stops before a stage of the clients, with all messages that went over the wire."""

    def __init__(self, until, clients=5, threshold=3, gone=(), **more):
        self.spec = round_of(clients, threshold, **more)
        self.vectors = vectors_of(self.spec)
        self.randomness = randomness(clients)
        self.clients = [secagg.client_init(self.spec, at, KEYS[at], self.vectors[at]) for at in range(clients)]
        self.server = secagg.ServerState()
        self.mail = dict.fromkeys(range(clients), ())
        self.gone = set(gone)
        for stage in CLIENT_STAGES[: CLIENT_STAGES.index(until)]:
            self.inbox = self.answers(stage)
            self.server, out = secagg.server_step(self.spec, self.server, self.inbox)
            self.mail = {at: (message,) for at, message in out.items()}

    def answers(self, stage="open"):
        """The clients' messages of the next stage; the `gone` are silent from `mask` on."""
        inbox = []
        for at, mail in self.mail.items():
            if at in self.gone and stage not in ("advertise", "share"):
                continue
            self.clients[at], out = secagg.client_step(self.spec, self.clients[at], mail, self.randomness[at])
            inbox.append(out[SERVER])
        return inbox

    def refuses(self, client, message, sentence):
        """The client refuses with one sentence, shows no secret in it, and its state still takes the honest message."""
        before = self.clients[client]
        inbox = message if isinstance(message, tuple) else (message,)
        with pytest.raises(RefusedError, match=sentence) as refused:
            secagg.client_step(self.spec, before, inbox, self.randomness[client])
        text = str(refused.value)
        assert "\n" not in text
        assert len(text) < 200
        secagg.client_step(self.spec, before, self.mail[client], self.randomness[client])

    def server_refuses(self, inbox, sentence):
        with pytest.raises(RefusedError, match=sentence):
            secagg.server_step(self.spec, self.server, inbox)


def test_both_secrets_of_a_client_are_never_opened():
    wire = Wire("open", gone=[2])
    request = wire.mail[1][0]
    assert request.dropped == (2,)
    wire.refuses(1, replace(request, dropped=(2, 3)), "asked for both secrets of client 3, which would unmask it")
    wire.refuses(1, replace(request, dropped=()), "other clients than those that dropped")
    wire.refuses(1, replace(request, survivors=(0, 1, 2, 3, 4), dropped=()), "another set of survivors than the one it")
    opened = wire.answers()
    for opening in opened:
        assert not set(opening.seed_shares) & set(opening.key_shares)
    with pytest.raises(RefusedError, match="client 1 has finished round 7 and opens nothing twice"):
        secagg.client_step(wire.spec, wire.clients[1], (request,), b"")


def test_one_set_of_survivors_in_a_round():
    wire = Wire("open")
    second = Survivors(7, (0, 1, 2))
    wire.refuses(0, second, "client 0 has signed its one set of survivors of round 7")
    # signatures on another set do not help either, nor do ones from a minority
    signatures = {at: ciphers.sign(KEYS[at], consented(wire.spec, wire.server.roster, (0, 1, 2))) for at in range(3)}
    request = wire.mail[0][0]
    wire.refuses(0, replace(request, consents=signatures), "a signature that client 0 did not give for these survivors")
    few = dict(list(request.consents.items())[:2])
    wire.refuses(0, replace(request, consents=few), "got 2 signatures on the survivors, fewer than the threshold 3")
    wire.refuses(0, replace(request, consents={**few, 9: b""}), "signatures of clients that are not survivors")
    wire.refuses(0, replace(request, survivors=(0, 1, 2), dropped=(3, 4)), "another set of survivors")


def test_a_split_view_finds_no_majority():
    """The server shows two halves different survivors: neither half gathers signatures that the other accepts."""
    wire = Wire("consent")
    views = {at: (0, 1, 2, 3) if at < 3 else (1, 2, 3, 4) for at in range(5)}
    consents = {}
    for at in range(5):
        wire.clients[at], out = secagg.client_step(wire.spec, wire.clients[at], (Survivors(7, views[at]),), b"")
        consents[at] = out[SERVER].signature
    # the first view has three signatures: a round may end on it, and on it alone
    for at in (3, 4):
        signed = {other: consents[other] for other in (3, 4)}
        request = UnmaskRequest(7, views[at], (0,), signed)
        with pytest.raises(RefusedError, match="got 2 signatures on the survivors, fewer than the threshold 3"):
            secagg.client_step(wire.spec, wire.clients[at], (request,), b"")
        padded = UnmaskRequest(7, views[at], (0,), {**signed, 1: consents[1]})
        with pytest.raises(RefusedError, match="a signature that client 1 did not give for these survivors"):
            secagg.client_step(wire.spec, wire.clients[at], (padded,), b"")


@pytest.mark.parametrize(
    ("survivors", "sentence"),
    [
        ((0,), "client 0 got 1 survivors, fewer than the threshold 3"),
        ((1, 2, 3), "client 0 is not among the survivors it is to sign"),
        ((0, 1, 1, 2), "not distinct clients whose shares it holds"),
        ((2, 1, 0), "not distinct clients whose shares it holds, in order"),
        ((0, 1, 2, 9), "not distinct clients whose shares it holds"),
    ],
)
def test_bad_survivors(survivors, sentence):
    Wire("consent").refuses(0, Survivors(7, survivors), sentence)


def test_replayed_and_wrong_messages_at_a_client():
    other = Wire("mask", round_id=8)
    wire = Wire("mask")
    wire.refuses(0, other.mail[0][0], "client 0 is in round 7, got a message of round 8")
    relabeled = replace(other.mail[0][0], round_id=7)
    wire.refuses(0, relabeled, "bad shares of client 1: the ciphertext was altered or is meant for another place")
    wire.refuses(0, wire.mail[1][0], "client 0 got the shares that are meant for client 1")
    wire.refuses(0, Roster(7, tuple(wire.server.roster.values())), "client 0 awaits no Roster in stage 'mask'")
    wire.refuses(0, (), "client 0 awaits one message in stage 'mask', got 0")
    wire.refuses(0, (wire.mail[0][0],) * 2, "awaits one message in stage 'mask', got 2")
    start = secagg.client_init(wire.spec, 0, KEYS[0], wire.vectors[0])
    with pytest.raises(RefusedError, match="client 0 awaits no message before it has advertised"):
        secagg.client_step(wire.spec, start, wire.mail[0], bytes(32))
    with pytest.raises(ValueError, match="randomness must be at least 32 bytes, got 3"):
        secagg.client_step(wire.spec, start, (), b"abc")


def test_altered_ciphertexts():
    wire = Wire("mask")
    delivery = wire.mail[0][0]
    sealed = delivery.ciphertexts[3]
    for at in (0, 20, len(sealed) - 1):
        bad = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        message = Delivery(7, 0, {**delivery.ciphertexts, 3: bad})
        wire.refuses(0, message, "client 0 got bad shares of client 3: the ciphertext was altered")
    swapped = {**delivery.ciphertexts, 3: delivery.ciphertexts[4], 4: sealed}
    wire.refuses(0, Delivery(7, 0, swapped), "client 0 got bad shares of client 3")
    wire.refuses(0, Delivery(7, 0, {**delivery.ciphertexts, 3: sealed[:9]}), "shorter than its nonce and tag")
    wire.refuses(0, Delivery(7, 0, {1: delivery.ciphertexts[1]}), "make 2 clients, fewer than the threshold 3")
    wire.refuses(0, Delivery(7, 0, {**delivery.ciphertexts, 0: sealed}), "not among the others of its roster")


def test_bad_rosters():
    wire = Wire("share")
    members = wire.mail[0][0].members
    foreign = Wire("share", round_id=8).mail[0][0].members

    def refuses(members, sentence):
        wire.refuses(0, Roster(7, tuple(members)), f"client 0 {sentence}")
        # what clients would refuse, the server finds out first, but for what only the client can know
        if "it advertised" not in sentence:
            Wire("advertise").server_refuses(members, "^the server ")

    refuses(members[:2], "got a roster of 2, fewer than the threshold 3")
    refuses(members[1:], "got a roster without the keys it advertised")
    refuses((*members, members[1]), "got a roster that names a client twice")
    refuses((*members[:4], replace(members[4], sender=9)), "got a roster with clients that are not of this round")
    refuses(
        (*members[:4], replace(members[4], mask_key=members[3].mask_key)),
        "got keys that client 4 did not sign for this round",
    )
    refuses((*members[:4], replace(foreign[4], round_id=7)), "got keys that client 4 did not sign for this round")
    # a client that reuses a key of another one, signed by itself
    content = (members[3].cipher_key, members[3].mask_key, members[4].commitment)
    thief = Advertise(7, 4, *content, ciphers.sign(KEYS[4], advertised(wire.spec, 4, *content)))
    refuses((*members[:4], thief), "got one key twice, from client 3 and from client 4")
    weak = (bytes(32), members[4].mask_key, members[4].commitment)
    weak = Advertise(7, 4, *weak, ciphers.sign(KEYS[4], advertised(wire.spec, 4, *weak)))
    refuses((*members[:4], weak), "got a key of client 4 that agrees with nobody")


def test_no_key_serves_two_rounds_even_if_the_randomness_does():
    first, second = Wire("mask"), Wire("mask", round_id=8)
    for a, b in zip(first.server.roster.values(), second.server.roster.values(), strict=True):
        assert {a.cipher_key, a.mask_key, a.commitment}.isdisjoint({b.cipher_key, b.mask_key, b.commitment})
    assert first.mail[0][0].ciphertexts[1] != second.mail[0][0].ciphertexts[1]
    masked = [Wire("consent", round_id=number).inbox[0].vector for number in (7, 8)]
    assert (masked[0] != masked[1]).any()


def test_server_refuses_what_is_out_of_place():
    wire = Wire("consent")
    inbox, state = wire.inbox, wire.server
    wire.server = replace(state, stage="mask")
    wire.server_refuses(inbox[:2], "got 2 messages of kind MaskedInput, fewer than the threshold 3")
    wire.server_refuses([*inbox, inbox[0]], "got two messages of kind MaskedInput from client 0")
    late = Consent(7, 0, b"")
    wire.server_refuses([*inbox, late], "awaits messages of kind MaskedInput, got Consent")
    old = replace(inbox[0], round_id=6)
    wire.server_refuses([old, *inbox[1:]], "is in round 7, got a message of round 6 from client 0")
    wire.server_refuses([*inbox[1:], replace(inbox[0], sender=9)], "awaits no MaskedInput from client 9")
    short = replace(inbox[0], vector=np.zeros(4, np.uint32))
    wire.server_refuses([short, *inbox[1:]], "awaits 5 uint32 numbers from client 0, got uint32 of shape")
    wire.server = state
    consents = wire.answers("consent")
    forged = replace(consents[0], signature=consents[1].signature)
    wire.server_refuses([forged, *consents[1:]], "a signature that client 0 did not give for these survivors")
    shared = Wire("share")
    sealed = shared.answers("share")
    few = replace(sealed[0], ciphertexts={1: sealed[0].ciphertexts[1]})
    shared.server_refuses([few, *sealed[1:]], "shares of client 0 that are not one for each other client")
    stranger = Wire("share", round_id=9).inbox[0]
    fresh = Wire("advertise")
    fresh.server_refuses([replace(stranger, round_id=7), *shared.inbox[1:]], "client 0 did not sign for this round")


def test_altered_shares_are_found_out():
    wire = Wire("open", gone=[2])
    openings = wire.answers()

    def altered(kind, owner, value):
        shares = {**getattr(openings[1], kind), owner: value}
        return [openings[0], replace(openings[1], **{kind: shares}), *openings[2:]]

    for kind, owner in (("seed_shares", 3), ("key_shares", 2)):
        share = getattr(openings[1], kind)[owner]
        one_off = bytes([share[0] ^ 1]) + share[1:]
        sentence = (
            f"the shares of client {owner}('s seed|'s mask key)? (combine to no secret|are not those that it made)"
        )
        wire.server_refuses(altered(kind, owner, one_off), sentence)
        wire.server_refuses(altered(kind, owner, b"\xff" * 36), f"a share of client {owner} from client 1 that is none")
        wire.server_refuses(altered(kind, owner, share[:-1]), f"a share of client {owner} from client 1 that is none")
    # altered so that another secret comes out, 256 off: only the commitment and the public key tell
    points = [opening.sender + 1 for opening in openings]
    weight = 1
    for point in points:
        if point != 2:
            weight = weight * point * pow(point - 2, -1, field.PRIME) % field.PRIME
    step = 256 * pow(weight, -1, field.PRIME)
    for kind, owner, name in (("seed_shares", 3, "seed"), ("key_shares", 2, "mask key")):
        limbs = np.frombuffer(getattr(openings[1], kind)[owner], "<u4").copy()
        limbs[0] = (int(limbs[0]) + step) % field.PRIME
        sentence = f"the shares of client {owner}'s {name} are not those that it made: one was altered"
        wire.server_refuses(altered(kind, owner, limbs.tobytes()), sentence)
    wire.server_refuses(openings[:2], "got 2 messages of kind Opening, fewer than the threshold 3")
    fewer = replace(openings[0], key_shares={})
    wire.server_refuses([fewer, *openings[1:]], "shares of client 0 for other clients than it asked for")
    # leaving the bad one out, as if it had dropped, gives the sum
    state, outbox = secagg.server_step(wire.spec, wire.server, [openings[0], *openings[2:]])
    assert outbox == {}
    np.testing.assert_array_equal(state.total, wire.vectors[[0, 1, 3, 4]].sum(axis=0, dtype=np.uint32))
    with pytest.raises(RefusedError, match="the server has finished round 7"):
        secagg.server_step(wire.spec, state, openings)


def test_masked_vectors_show_nothing_of_the_vector():
    """Under one set of masks a vector of zeros gives uniform bits, other than those of the other clients."""
    spec = round_of(3, 2, dimension=4096)
    clients = [secagg.client_init(spec, at, KEYS[at], np.zeros(4096, np.uint32)) for at in range(3)]
    server, mail = secagg.ServerState(), dict.fromkeys(range(3), ())
    for _ in range(3):
        steps = [secagg.client_step(spec, clients[at], mail[at], randomness(3)[at]) for at in range(3)]
        clients = [state for state, _ in steps]
        inbox = [out[SERVER] for _, out in steps]
        server, out = secagg.server_step(spec, server, inbox)
        mail = {at: (message,) for at, message in out.items()}
    for message in inbox:
        ones = np.unpackbits(message.vector.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(32 * 4096)
    assert all(state.vector is None and state.secrets is None for state in clients)
    total = sum(np.count_nonzero(message.vector == inbox[0].vector) for message in inbox[1:])
    assert total < 3


def test_states_do_not_print_secrets():
    wire = Wire("mask")
    state = wire.clients[0]
    text = repr(state)
    for secret in (*state.secrets, state.identity, *state.shares.values()):
        assert repr(secret) not in text
    assert "vector" not in text


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"threshold": 2}, "threshold must be a whole number of at least 3 and at most 5, got 2"),
        ({"threshold": 6}, "threshold must be a whole number of at least 3 and at most 5, got 6"),
        ({"identities": PUBLIC[:2]}, "clients must be a whole number of at least 3, got 2"),
        ({"identities": (*PUBLIC[:4], PUBLIC[0])}, "identities must be distinct Ed25519 public keys"),
        ({"dimension": 0}, "dimension must be a whole number of at least 1"),
        ({"round_id": -1}, "round_id must be a whole number of at least 0"),
        ({"backend": "threefry"}, "backend must be one of 'openssl', 'jax'"),
    ],
)
def test_bad_rounds(numbers, sentence):
    with pytest.raises(ValueError, match=sentence):
        round_of(5, **{"threshold": 3, **numbers})


def test_bad_arguments():
    spec = round_of(3, 2)
    vectors = vectors_of(spec)
    with pytest.raises(ValueError, match="identity must be the signing key of client 1"):
        secagg.client_init(spec, 1, KEYS[0], vectors[1])
    with pytest.raises(ValueError, match="client must be a whole number of at least 0 and at most 2, got 3"):
        secagg.client_init(spec, 3, KEYS[0], vectors[1])
    with pytest.raises(ValueError, match=r"vector must have shape \(5,\), got \(4,\)"):
        secagg.client_init(spec, 0, KEYS[0], vectors[0][:4])
    with pytest.raises(ValueError, match="randomness must have one entry for each of the 3 clients, got 2"):
        secagg.run_round(spec, vectors, KEYS[:3], randomness(2))
