"""Both ends of a call: equal states, every kind of damage, the rate, and the way to conventional video and back."""

import dataclasses

import jax
import numpy as np
import pytest

from modicum.conference import packets
from modicum.conference.call import CallSpec
from modicum.conference.packets import Kind, Unit
from modicum.conference.receiver import receiver_init, receiver_step
from modicum.conference.sender import flush, sender_init, sender_step

pytestmark = pytest.mark.optimized

SPEC = CallSpec(group=8, alone_every=2, hash_every=1, fallback=False)


def send(face, spec, frames):
    state, sent = sender_init(face, spec), []
    for frame in frames:
        state, packet = sender_step(state, frame)
        if packet:
            sent.append(packet)
    return state, sent


def receive(face, spec, sent):
    state, shown = receiver_init(face, spec), []
    for packet in sent:
        state, frames = receiver_step(state, packet)
        shown.append(frames)
    return state, np.concatenate(shown)


@pytest.fixture(scope="module")
def sent(face, clip):
    return send(face, SPEC, clip)


def test_both_ends_hold_the_same_state(face, clip, sent):
    sender, coded = sent
    receiver, shown = receive(face, SPEC, coded)
    assert shown.shape == clip.shape
    assert not receiver.apart
    assert (receiver.damaged, receiver.late, receiver.missing) == (0, 0, 0)
    np.testing.assert_array_equal(receiver.motion[1], sender.motion)
    for first, second in zip(sender.sources, receiver.sources, strict=True):
        assert first[:2] == second[:2]
        np.testing.assert_array_equal(first.source.picture, second.source.picture)


def test_steps_are_pure(face, clip, sent):
    _, again = send(face, SPEC, clip)
    assert again == sent[1]


def test_a_call_ends_with_a_short_packet(face, clip):
    state, _ = send(face, SPEC, clip[:11])
    state, packet, info = flush(state)
    assert packets.parse(packet).frames == 3
    assert set(info.sizes) == {"motion", "hash"}
    assert flush(state)[1] == b""


def test_another_model_is_noticed_by_the_hash(face, sent):
    first = packets.parse(sent[1][0])
    wrong = [Unit(unit.kind, b"xx" if unit.kind is Kind.HASH else unit.payload) for unit in first.units]
    receiver, _ = receive(face, SPEC, [packets.write(0, 0, 8, wrong)])
    assert receiver.apart


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_a_lost_packet_is_filled_in_and_forgotten(face, clip, sent, lost):
    clean = receive(face, SPEC, sent[1])[1]
    receiver, shown = receive(face, SPEC, [packet for i, packet in enumerate(sent[1]) if i != lost])
    assert len(shown) == len(clip)
    assert receiver.missing == 8
    # every second packet stands alone: from there on all is as without the loss
    recovered = 8 * (lost + 1 + (lost + 1) % 2)
    np.testing.assert_array_equal(shown[recovered:], clean[recovered:])


def test_order_copies_and_damage(face, clip, sent):
    coded = sent[1]
    clean = receive(face, SPEC, coded)[1]
    twice, shown = receive(face, SPEC, [packet for packet in coded for _ in range(2)])
    assert twice.late == len(coded)
    np.testing.assert_array_equal(shown, clean)
    swapped = [*coded[:2], coded[3], coded[2], *coded[4:]]
    late, shown = receive(face, SPEC, swapped)
    assert (late.late, len(shown)) == (1, len(clean))
    damaged = [*coded[:2], coded[2][:-3] + b"abc", *coded[3:]]
    refused, shown = receive(face, SPEC, damaged)
    assert (refused.damaged, refused.missing, len(shown)) == (1, 8, len(clean))
    # a packet that is overdue is waited for by showing the last frame on; what then comes late is left out
    _, shown = receive(face, SPEC, [*coded[:3], b"", *coded[4:]])
    assert len(shown) == len(clean)
    np.testing.assert_array_equal(shown[24:32], np.repeat(clean[23:24], 8, 0))


def test_a_lost_source_is_made_good_by_the_next(face, clip):
    spec = dataclasses.replace(SPEC, source_kbps=50.0, pose_limit=1e-6)
    _, coded = send(face, spec, clip[:32])
    assert all(packets.parse(packet).unit(Kind.SOURCE) for packet in coded)
    receiver, shown = receive(face, spec, coded[1:])
    assert [kept.number for kept in receiver.sources] == [1, 2, 3]
    assert len(shown) == 24
    assert shown[-1].std() > 0


@pytest.mark.parametrize("kbps", [5.0, 50.0])
def test_the_rate_is_kept_over_two_seconds(face, clip, kbps):
    spec = dataclasses.replace(SPEC, group=5, hash_every=8, target_kbps=kbps)
    sender, coded = send(face, spec, np.concatenate([clip, clip[::-1]]))
    # ten packets are two seconds; the source is paid for within the first
    sizes = np.array([len(packet) for packet in coded])
    for start in range(8, len(sizes) - 10 + 1):
        assert sizes[start : start + 10].sum() * 8 / 2000 == pytest.approx(kbps, rel=0.05)
    receiver, shown = receive(face, spec, coded)
    np.testing.assert_allclose(receiver.residual.luma, sender.residual.luma, atol=1e-9)
    assert len(shown) == 160


def test_more_bits_are_better_pictures(face, clip):
    errors = []
    for kbps in (5.0, 20.0, 60.0):
        spec = dataclasses.replace(SPEC, target_kbps=kbps)
        shown = receive(face, spec, send(face, spec, clip[:24])[1])[1]
        errors.append(np.mean((shown[-8:].astype(float) - clip[16:24]) ** 2))
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_conventional_video_where_the_face_is_lost_and_back(face, clip):
    drawn_badly = dataclasses.replace(SPEC, fallback=True, floor=90.0)
    state, coded = send(face, drawn_badly, clip[:16])
    assert state.lost
    state = state._replace(spec=dataclasses.replace(SPEC, fallback=True, floor=0.0))
    for frame in clip[16:32]:
        state, packet = sender_step(state, frame)
        coded += [packet] if packet else []
    kinds = [{unit.kind for unit in packets.parse(packet).units} for packet in coded]
    assert all(Kind.VIDEO in kind for kind in kinds[:2])
    assert all(Kind.MOTION in kind for kind in kinds[2:])
    receiver, shown = receive(face, SPEC, coded)
    assert len(shown) == 32
    assert not receiver.apart
    assert np.abs(shown[:16].astype(int) - clip[:16]).mean() < 15


def test_background_stays_while_swapped(face, clip):
    """With the mask forced to 'no face' nothing but the source is seen."""
    params = jax.tree.map(lambda leaf: leaf, face.params)
    last = params["decoder"]["Conv_2"]
    params["decoder"]["Conv_2"] = {**last, "bias": last["bias"].at[3].set(-1e3)}
    still = face._replace(params=params)
    spec = dataclasses.replace(SPEC, swap=True)
    receiver, shown = receive(still, spec, send(still, spec, clip[:8])[1])
    expected = np.round(255 * np.asarray(receiver.sources[0].source.picture[0])).astype(np.uint8)
    np.testing.assert_array_equal(shown, np.repeat(expected[None], 8, 0))


def test_fuzzed_streams_never_break_a_receiver(face, sent, generator):
    """Random units under a right checksum: what an attacker can send. `scripts/bench/video.py --fuzz` does 10,000."""
    state = receive(face, SPEC, sent[1][:2])[0]
    for count in range(150):
        kinds = generator.permutation(list(Kind))[: generator.integers(1, 4)]
        units = [Unit(Kind(int(kind)), generator.bytes(int(generator.integers(0, 80)))) for kind in kinds]
        packet = packets.write(count + 2, int(generator.integers(65536)), int(generator.integers(65)), units)
        state, frames = receiver_step(state, packet)
        assert len(frames) <= 128
        assert len(state.sources) <= SPEC.kept
    assert state.shown.shape == (64, 64, 3)


def test_bad_settings_are_one_sentence(face, clip):
    for wrong in ({"group": 0}, {"step": 99}, {"quantizer": 5}, {"blur": 1.0}, {"target_kbps": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CallSpec(**wrong)
    with pytest.raises(ValueError, match="frame must have shape"):
        sender_step(sender_init(face, SPEC), clip[0, :32, :32])
