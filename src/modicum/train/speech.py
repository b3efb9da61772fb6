"""Spoken digits: from samples to log-mel frames or mel-frequency cepstra."""

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from modicum.train import prepared

FEATURES = ("log_mel", "mfcc")
FRAMES, BANDS = 64, 32
CEPSTRA, MFCC_FRAMES = 13, 32
_RATE_HERTZ, _WINDOW, _HOP = 8000, 256, 128
# 25 ms and 20 ms; the spectrum of the shorter window is taken at the same frequencies
_MFCC_WINDOW, _MFCC_HOP = 200, 160
# about a tenth of the quietest recordings' noise: below it a band counts as silent
_FLOOR = 1e-6


def mel_filters() -> Float[np.ndarray, " bins bands"]:
    """Triangular filters from 0 to 4 kHz, evenly spaced on the mel scale `2595 log10(1 + f / 700)`."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + _RATE_HERTZ / 2 / 700), BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(_WINDOW, 1 / _RATE_HERTZ)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0.0)


def _log_energies(samples: np.ndarray, count: int, window: int, hop: int) -> np.ndarray:
    """`log(energy + 1e-6)` in the mel bands of so many frames; shorter speech is followed by silence."""
    padded = np.zeros(window + (count - 1) * hop)
    known = min(len(samples), len(padded))
    padded[:known] = samples[:known] / 32768
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(window), _WINDOW)) ** 2
    return np.log(spectrum @ mel_filters() + _FLOOR)


def log_mel(samples: Integer[np.ndarray, " samples"]) -> Float[np.ndarray, " frames bands"]:
    """Log-mel energies of the first 1.04 seconds: 64 frames of 32 ms, 16 ms apart, shorter speech followed by silence.

    Args:
        samples: 16-bit samples at 8 kHz.

    Returns:
        `log(energy + 1e-6)` in 32 bands of each frame, float32.
    """
    return _log_energies(samples, FRAMES, _WINDOW, _HOP).astype(np.float32)


def deltas(features: Float[np.ndarray, " t i"], order: int) -> Float[np.ndarray, " t i"]:
    """Slopes over time by regression on two frames to each side, `d_t = sum_n n c_(t+n) / 10` for `n = -2 .. 2`.

    Order 2 is the slope of the slope: the two regressions as one filter over nine frames. Beyond the ends, the first
    and the last frame go on.

    Args:
        features: one row for each frame.
        order: how many times, at least 1.

    Reference:
        Kaldi's `DeltaFeatures` (feat/feature-functions.cc) with its default window of 2.
    """
    slope = np.arange(-2, 3) / 10
    scales = functools.reduce(np.convolve, [slope] * order)
    padded = np.pad(features, ((2 * order, 2 * order), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, len(scales), axis=0) @ scales


def mfcc(samples: Integer[np.ndarray, " samples"]) -> Float[np.ndarray, " frames 39"]:
    """Cepstra of the first 0.645 seconds, 32 frames of 25 ms, 20 ms apart, with their first and second slopes.

    Nineteen recordings in twenty end before that (2,416 of 2,500); shorter ones are followed by silence.

    Args:
        samples: 16-bit samples at 8 kHz.

    Returns:
        The first 13 coefficients of the orthonormal DCT-II of the log-mel energies, then their `deltas` of order 1
        and 2, float32.
    """
    # here, as it takes longer to import than all else that training needs beside JAX
    import scipy.fft

    energies = _log_energies(samples, MFCC_FRAMES, _MFCC_WINDOW, _MFCC_HOP)
    cepstra = scipy.fft.dct(energies, type=2, norm="ortho", axis=-1)[:, :CEPSTRA]
    return np.concatenate([cepstra, deltas(cepstra, 1), deltas(cepstra, 2)], axis=-1).astype(np.float32)


@functools.lru_cache(maxsize=2)
def read(folder: Path, features: str = "log_mel") -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All recordings: frames (n, 64, 32) or (n, 32, 39), labels, speakers, takes.

    Args:
        folder: what TFDS prepared.
        features: "log_mel" or "mfcc".
    """
    rows, _ = prepared.read(folder, "train")
    # 7_jackson_32.wav: digit, speaker, take
    parts = [row["audio/filename"].decode().removesuffix(".wav").split("_") for row in rows]
    described = {"log_mel": log_mel, "mfcc": mfcc}[features]
    frames = np.stack([described(np.asarray(row["audio"])) for row in rows])
    labels = np.array([row["label"] for row in rows], np.int32)
    return frames, labels, np.array([part[1] for part in parts]), np.array([int(part[2]) for part in parts])
