"""SecAgg+: the graph, its size, sums bit-equal to plain ones with few neighbours, and what its parties refuse."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from modicum.federated import SecAggSpec, ciphers, field, secagg
from modicum.federated.secagg_graph import graph_size, neighbours_of
from modicum.federated.secagg_messages import Roster, Survivors, consented
from tests.federated.test_secagg import KEYS, PUBLIC, Wire, check_round, round_of, vectors_of


@st.composite
def sizes(draw, most):
    clients = draw(st.integers(3, most))
    neighbours = draw(st.integers(2, clients - 1).filter(lambda each: clients * each % 2 == 0))
    return clients, neighbours


@given(sizes(60), st.binary(min_size=32, max_size=32))
def test_graph_is_regular_symmetric_and_connected(size, seed):
    clients, neighbours = size
    around = neighbours_of(seed, clients, neighbours)
    joined = np.zeros((clients, clients), bool)
    joined[np.arange(clients)[:, None], around] = True
    assert (joined == joined.T).all()
    assert not joined.diagonal().any()
    assert (joined.sum(axis=1) == neighbours).all()
    # any fewer nodes than there are neighbours may go
    left = np.random.default_rng(list(seed)).permutation(clients)[neighbours - 1 :]
    assert connected_components(joined[np.ix_(left, left)])[0] == 1
    np.testing.assert_array_equal(around, neighbours_of(seed, clients, neighbours))


def test_graph_is_the_rounds_own():
    specs = [round_of(12, 3, neighbours=4, round_id=number) for number in (7, 8, 7)]
    assert specs[0].graph == specs[2].graph != specs[1].graph
    pairs = np.zeros((12, 12))
    for number in range(400):
        around = neighbours_of(ciphers.digest(number.to_bytes(2, "little")), 12, 4)
        pairs[np.arange(12)[:, None], around] += 1
    # each pair is joined as often as any other: 4 of 11 others
    assert np.abs(pairs[~np.eye(12, dtype=bool)] / 400 - 4 / 11).max() < 5 * np.sqrt(4 / 11 * 7 / 11 / 400)


@pytest.mark.parametrize(("clients", "dropped", "corrupted"), [(1000, 0.05, 0.05), (100, 0.1, 0.1), (10_000, 0.05, 0)])
def test_size_is_the_least_that_is_safe(clients, dropped, corrupted):
    """Against SciPy's tails."""
    size = graph_size(clients, dropped, corrupted)

    def fails(neighbours, threshold):
        silent, sided = round(clients * dropped), round(clients * corrupted)
        opened = scipy.stats.hypergeom.sf(2 * threshold - neighbours - 2, clients - 1, sided, neighbours)
        lost = scipy.stats.hypergeom.sf(neighbours - threshold, clients - 1, silent, neighbours)
        run = scipy.stats.hypergeom.pmf(neighbours // 2, clients, silent + sided, neighbours // 2)
        return clients * (opened + lost + run)

    assert fails(*size) <= 2.0**-40
    fewer = size.neighbours - 2
    assert min(fails(fewer, threshold) for threshold in range(fewer // 2 + 1, fewer + 1)) > 2.0**-40


@st.composite
def rounds(draw):
    clients, neighbours = draw(sizes(12))
    threshold = draw(st.integers((neighbours + 1) // 2 + 1, neighbours + 1))
    share = draw(st.sampled_from([0, 0.2, 0.4]))
    gone = draw(st.sets(st.integers(0, clients - 1), max_size=int(share * clients)))
    stages = {at: draw(st.integers(0, 4)) for at in gone}
    return clients, neighbours, threshold, [stages.get(at, 5) for at in range(clients)], draw(st.integers(0, 2**32))


def is_enough(spec, leaves_at):
    """Whether who advertised, and who shared, keep the threshold around them: those at once, these to the end."""
    leaves = np.array(leaves_at)
    joined = np.array([[at in around for at in range(spec.clients)] for around in spec.graph])
    started, kept = (joined & (leaves > 0)).sum(axis=1), (joined & (leaves > 4)).sum(axis=1)
    return (started[leaves > 0] >= spec.threshold).all() and (kept[leaves > 1] >= spec.threshold).all()


@settings(max_examples=40)
@given(rounds())
def test_sum_is_bit_equal_or_refused(case):
    clients, neighbours, threshold, leaves_at, seed = case
    spec = round_of(clients, threshold, neighbours=neighbours)
    check_round(spec, leaves_at, seed, is_enough(spec, leaves_at))


def test_hundreds_of_clients():
    """A thousand: scripts/bench/secure_sum_cases.py."""
    keys = [ciphers.digest(b"one of many", at.to_bytes(2, "little")) for at in range(150)]
    public = tuple(ciphers.verify_key(key) for key in keys)
    neighbours, threshold = graph_size(150, dropped=0.05, corrupted=0)
    spec = SecAggSpec(round_id=1, dimension=3, threshold=threshold, identities=public, neighbours=neighbours)
    vectors, rng = vectors_of(spec), np.random.default_rng(0)
    leaves = np.full(150, 5)
    leaves[rng.permutation(150)[:7]] = rng.integers(0, 5, 7)
    secrets = [ciphers.digest(b"secret", key) for key in keys]
    result = secagg.run_round(spec, vectors, keys, secrets, np.array([leaves == stage for stage in range(5)]))
    np.testing.assert_array_equal(result.total, vectors[leaves > 2].sum(axis=0, dtype=np.uint32))


@functools.cache
def wire(until, gone=()):
    """A round of ten clients with four neighbours each, and who is near and far of client 0; to be copied."""
    started = Wire(until, clients=10, threshold=3, gone=gone, neighbours=4)
    near = [at for at in started.spec.graph[0] if at != 0]
    return SimpleNamespace(at=started, near=near, far=sorted(set(range(1, 10)) - set(near)))


def test_a_client_hears_of_its_neighbours_alone():
    for until in ("share", "mask", "open"):
        here = wire(until)
        (message,) = here.at.mail[0]
        heard = {
            "share": lambda message: {member.sender for member in message.members} - {0},
            "mask": lambda message: set(message.ciphertexts),
            "open": lambda message: set(message.consents) - {0},
        }[until](message)
        assert heard == set(here.near)


def test_both_secrets_of_a_client_are_never_opened():
    gone = wire("advertise").near[0]
    here = wire("open", gone=(gone,))
    request, kept, far = here.at.mail[0][0], here.near[1], here.far[0]
    assert request.dropped == (gone,)
    here.at.refuses(0, replace(request, dropped=(gone, kept)), f"asked for both secrets of client {kept}")
    here.at.refuses(0, replace(request, dropped=()), "other clients than those that dropped")
    others = tuple(at for at in request.survivors if at != far)
    here.at.refuses(0, replace(request, survivors=others), "another set of survivors than the one it signed")
    here.at.refuses(0, replace(request, dropped=(gone, 99)), "other clients than those that dropped")


def test_one_set_of_survivors_signed_by_enough_neighbours():
    here = wire("open")
    request, spec, near = here.at.mail[0][0], here.at.spec, here.near
    here.at.refuses(0, Survivors(7, (0, *near)), "client 0 has signed its one set of survivors of round 7")
    few = {at: request.consents[at] for at in near[:2]}
    here.at.refuses(0, replace(request, consents=few), "got 2 signatures on the survivors, fewer than the threshold 3")
    content = consented(spec, {}, request.survivors)
    strangers = {at: ciphers.sign(KEYS[at], content) for at in here.far}
    sentence = "signatures of clients that are not survivors, or not its neighbours"
    here.at.refuses(0, replace(request, consents={**few, **strangers}), sentence)
    # the sets differ far from client 0 alone, where it could not see it by itself
    elsewhere = consented(spec, {}, tuple(at for at in request.survivors if at != here.far[0]))
    other = {at: ciphers.sign(KEYS[at], elsewhere) for at in near}
    here.at.refuses(0, replace(request, consents=other), "did not give for these survivors")


def test_a_client_is_not_left_alone():
    """All neighbours named as dropped would lay its vector open, however many others survive."""
    here = wire("consent")
    alone = tuple(sorted([0, here.near[0], *here.far]))
    here.at.refuses(0, Survivors(7, alone), "client 0 got 2 survivors, fewer than the threshold 3")
    here.at.refuses(0, Survivors(7, (*range(10), 10)), "not distinct clients whose shares it holds")
    roster, far = wire("share"), here.far[0]
    members = roster.at.mail[0][0].members
    more = Roster(7, (*members, roster.at.server.roster[far]))
    roster.at.refuses(0, more, "clients that are not of this round, or not its neighbours")
    roster.at.refuses(0, Roster(7, members[:2]), "client 0 got a roster of 2, fewer than the threshold 3")


def test_server_refuses_too_few_around_one_client_and_altered_shares():
    gone = wire("advertise").near[0]
    here = Wire("open", clients=10, threshold=3, gone=(gone,), neighbours=4)
    openings = here.answers()
    around = [opening for opening in openings if opening.sender in here.spec.graph[gone]]
    rest = [opening for opening in openings if opening not in around]
    sentence = f"got 2 messages of kind Opening from client {gone} and its neighbours, fewer than the threshold 3"
    here.server_refuses([*rest, *around[:2]], sentence)
    for kind, owner in (("key_shares", gone), ("seed_shares", around[0].sender)):
        shares = getattr(around[0], kind)
        limbs = np.frombuffer(shares[owner], "<u4").copy()
        limbs[3] = (int(limbs[3]) + 1) % field.PRIME
        bad = replace(around[0], **{kind: {**shares, owner: limbs.tobytes()}})
        sentence = (
            f"the shares of client {owner}('s seed|'s mask key)? (combine to no secret|are not those that it made)"
        )
        here.server_refuses([bad, *around[1:], *rest], sentence)
    # leaving the bad one out, as if it had dropped, gives the sum
    state, _ = secagg.server_step(here.spec, here.server, [*around[1:], *rest])
    kept = [at for at in range(10) if at != gone]
    np.testing.assert_array_equal(state.total, here.vectors[kept].sum(axis=0, dtype=np.uint32))


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"neighbours": 5}, "neighbours must be a whole number of at least 2 and at most 4, got 5"),
        ({"neighbours": 1}, "neighbours must be a whole number of at least 2 and at most 4, got 1"),
        ({"neighbours": 3}, "neighbours must be even where the number of clients, 5, is odd, got 3"),
        ({"neighbours": 4, "threshold": 2}, "threshold must be a whole number of at least 3 and at most 5, got 2"),
        ({"neighbours": 2, "threshold": 4}, "threshold must be a whole number of at least 2 and at most 3, got 4"),
    ],
)
def test_bad_rounds(numbers, sentence):
    with pytest.raises(ValueError, match=sentence):
        round_of(5, **{"threshold": 3, **numbers})


def test_bad_sizes():
    with pytest.raises(ValueError, match="dropped must lie from 0 to 1"):
        graph_size(100, dropped=1.5, corrupted=0)
    with pytest.raises(ValueError, match="clients must be more than 20 for a graph with"):
        graph_size(20, dropped=0.3, corrupted=0.3)
    assert SecAggSpec(round_id=0, dimension=1, threshold=3, identities=PUBLIC[:5]).neighbours is None
