"""What is on the wire: packets, range-coded numbers, pictures and conventional video."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum.conference import coding, packets, still, video
from modicum.conference.packets import Kind, Unit

pytestmark = pytest.mark.optimized

UNITS = st.dictionaries(st.sampled_from(list(Kind)), st.binary(max_size=300), max_size=4)


@given(st.integers(0, 70_000), st.integers(0, 70_000), st.integers(0, 64), UNITS)
def test_a_packet_says_what_was_written(sequence, frame, frames, units):
    listed = [Unit(kind, payload) for kind, payload in units.items()]
    parsed = packets.parse(packets.write(sequence, frame, frames, listed))
    assert parsed == (sequence % 65536, frame % 65536, frames, tuple(listed))


def test_every_flipped_bit_is_noticed():
    for size in (20, 200):
        packet = packets.write(7, 70, 10, [Unit(Kind.MOTION, bytes(range(size)))])
        for bit in range(8 * len(packet)):
            damaged = bytearray(packet)
            damaged[bit // 8] ^= 1 << bit % 8
            assert packets.parse(bytes(damaged)) is None


@given(st.binary(max_size=60))
def test_no_bytes_make_the_parser_fail(content):
    packets.parse(content)
    body = bytes([packets.VERSION]) + content
    packets.parse(body + packets._checksum(body))


def test_bad_packets_are_one_sentence():
    with pytest.raises(ValueError, match="different kinds"):
        packets.write(0, 0, 1, [Unit(Kind.MOTION, b""), Unit(Kind.MOTION, b"")])
    with pytest.raises(ValueError, match="frames"):
        packets.write(0, 0, 65, [])
    with pytest.raises(ValueError, match="fit into a packet"):
        packets.write(0, 0, 1, [Unit(Kind.VIDEO, bytes(70_000))])


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=40), st.floats(0.05, 50))
def test_numbers_come_back(numbers, scale):
    values = np.array(numbers)
    (found,) = coding.unpack(coding.pack([values], [np.full(values.shape, scale)]), [np.full(values.shape, scale)])
    np.testing.assert_array_equal(found, values)


def test_coding_comes_near_the_entropy(generator):
    values = np.round(generator.laplace(0, 1.2, 4000)).astype(int)
    counts = np.unique(values, return_counts=True)[1] / len(values)
    entropy = -(counts * np.log2(counts)).sum() * len(values) / 8
    assert len(coding.pack([values], [np.full(values.shape, 1.2)])) < 1.03 * entropy


def test_motion_comes_back_alone_and_from_the_packet_before(generator):
    motion = np.cumsum(generator.laplace(0, 1, (60, 8)), 0)
    prior = coding.motion_prior(motion)
    numbers, before, sizes = coding.quantized(motion, 9), None, []
    for start in range(0, 60, 10):
        group = numbers[start : start + 10]
        payload = coding.encode_motion(group, before, prior, 9)
        known = None if before is None else (9, before)
        step, found = coding.decode_motion(payload, 10, known, prior)
        assert step == 9
        np.testing.assert_array_equal(found, group)
        # without the packet before, only what stands alone is decoded
        assert (coding.decode_motion(payload, 10, None, prior) is None) == (before is not None)
        before = group[-1]
        sizes.append(len(payload))
    # 8 numbers a frame of entropy log2(2 e) bits each, and two bytes of flush
    assert np.mean(sizes[1:]) < 10 * 8 * np.log2(2 * np.e) / 8 + 4
    assert coding.decode_motion(b"", 10, None, prior) is None
    assert coding.decode_motion(bytes([127]), 10, None, prior) is None


def test_a_still_comes_back_and_garbage_does_not(clip):
    coarse, fine = still.encode(clip[0], 45), still.encode(clip[0], 25)
    assert len(coarse) < len(fine) < 2500
    assert still.encode(clip[0], 25) == fine
    error = np.mean((still.decode(fine, 64).astype(float) - clip[0]) ** 2)
    assert 10 * np.log10(255**2 / error) > 30
    assert still.decode(fine, 128) is None
    for damaged in (b"", b"\0\0\1", fine[:40], bytes(300), coarse[::-1]):
        assert still.decode(damaged, 64) is None
    assert len(still.encode_within(clip[0], len(coarse) + 20)) <= len(coarse) + 20


def test_conventional_video_comes_back_within_its_limit(clip):
    stream = video.encode_within(clip[:6], 700)
    assert len(stream) <= 700
    frames = video.decode_whole(stream, 64, 6)
    assert frames.shape == (6, 64, 64, 3)
    assert np.abs(frames.astype(int) - clip[:6]).mean() < 12
    assert len(video.decode_whole(stream[: len(stream) // 2], 64, 6)) <= 6
    assert len(video.decode_whole(bytes(range(200)), 64, 6)) == 0


@pytest.mark.parametrize("name", list(video.CODECS))
def test_codecs_are_low_delay_and_decode(name, clip):
    coded, extra = video.encode(clip[:6], name, 40)
    assert len(coded) == 6
    frames = video.decode(coded, name, size=64, extradata=extra)
    assert frames.shape == clip[:6].shape
    assert np.abs(frames.astype(int) - clip[:6]).mean() < 12
