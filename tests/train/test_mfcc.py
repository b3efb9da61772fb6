"""Mel-frequency cepstra and their slopes, against loops written by definition in float64."""

import numpy as np
import pytest

from modicum.train import load, prepared, speech


def cepstra_by_definition(samples):
    """Frame by frame, bin by bin, band by band: 25 ms every 20 ms at 8 kHz, Hann window, 256 frequencies."""
    samples = np.concatenate([np.asarray(samples, np.float64) / 32768, np.zeros(5160)])
    edges = [700 * (10 ** (mel / 2595) - 1) for mel in np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 34)]
    turns = np.exp(-2j * np.pi * np.outer(np.arange(129), np.arange(200)) / 256)
    cepstra = np.zeros((32, 13))
    for t in range(32):
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 199)
        power = np.abs(turns @ (samples[160 * t : 160 * t + 200] * window)) ** 2
        logs = np.zeros(32)
        for band in range(32):
            low, peak, high = edges[band : band + 3]
            energy = 0.0
            for k in range(129):
                f = k * 8000 / 256
                energy += power[k] * max(0.0, min((f - low) / (peak - low), (high - f) / (high - peak)))
            logs[band] = np.log(energy + 1e-6)
        for q in range(13):
            total = sum(logs[m] * np.cos(np.pi * q * (2 * m + 1) / 64) for m in range(32))
            cepstra[t, q] = total * np.sqrt((1 if q == 0 else 2) / 32)
    return cepstra


def slopes_by_definition(values, at):
    """The regression over +-2 frames of `at(t)`, which says what lies beyond the ends."""
    return np.array(
        [sum(n * (at(t + n) - at(t - n)) for n in (1, 2)) / (2 * (1 + 4)) for t in range(-2, len(values) + 2)]
    )


def reference(samples):
    cepstra = cepstra_by_definition(samples)

    def clamped(t):
        return cepstra[min(max(t, 0), 31)]

    # the slope is known at -2 .. 33, since Kaldi lets the cepstra, and not the slopes, go on beyond the ends
    slopes = slopes_by_definition(cepstra, clamped)
    second = [sum(n * (slopes[t + 2 + n] - slopes[t + 2 - n]) for n in (1, 2)) / 10 for t in range(32)]
    return np.concatenate([cepstra, slopes[2:34], second], axis=1)


def chirp(count):
    time = np.arange(count) / 8000
    return np.rint(9000 * np.sin(2 * np.pi * (200 * time + 2000 * time**2))).astype(np.int64)


@pytest.mark.parametrize("count", [3000, 9000])
def test_a_chirp_against_loops(count):
    found = speech.mfcc(chirp(count))
    assert found.shape == (32, 39)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(chirp(count)), rtol=1e-5, atol=1e-5)


def test_a_recording_against_loops(data_root):
    rows, _ = prepared.read(prepared.find("spoken_digit", data_root), "train")
    samples = np.asarray(rows[7]["audio"])
    np.testing.assert_allclose(speech.mfcc(samples), reference(samples), rtol=1e-5, atol=1e-5)
    # all but 84 of 2,500 recordings fit
    lengths = np.array([len(row["audio"]) for row in rows])
    assert (lengths <= 5160).mean() == pytest.approx(0.9664)


def test_slopes_of_a_line_and_of_a_parabola():
    t = np.arange(20.0)[:, None]
    np.testing.assert_allclose(speech.deltas(3 * t + 1, 1)[2:-2], 3)
    np.testing.assert_allclose(speech.deltas(t**2 / 2, 2)[4:-4], 1)


def test_standardized_by_the_speakers_that_train(data_root):
    train, test = (
        load("spoken_digit", split, data_root, speaker="theo", features="mfcc") for split in ("train", "test")
    )
    assert (train.inputs.shape, test.inputs.shape) == ((2000, 32, 39), (500, 32, 39))
    np.testing.assert_allclose(train.inputs.mean((0, 1), dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(train.inputs.std((0, 1), dtype=np.float64), 1, atol=1e-5)
    assert (train.info.mean, train.info.std) == (test.info.mean, test.info.std)
    assert load("spoken_digit", "test", data_root).inputs.shape == (250, 64, 32)


def test_other_features_are_refused():
    with pytest.raises(ValueError, match="features must be one of 'log_mel', 'mfcc', got 'mfc'"):
        load("spoken_digit", "train", features="mfc")
    with pytest.raises(ValueError, match="features must be 'log_mel' for data 'digits', got 'mfcc'"):
        load("digits", "train", features="mfcc")
