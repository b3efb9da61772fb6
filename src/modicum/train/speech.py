"""Spoken digits: from samples to log-mel frames."""

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from modicum.train import prepared

FRAMES, BANDS = 64, 32
_RATE_HERTZ, _WINDOW, _HOP = 8000, 256, 128
# about a tenth of the quietest recordings' noise: below it a band counts as silent
_FLOOR = 1e-6


def mel_filters() -> Float[np.ndarray, " bins bands"]:
    """Triangular filters from 0 to 4 kHz, evenly spaced on the mel scale `2595 log10(1 + f / 700)`."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + _RATE_HERTZ / 2 / 700), BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(_WINDOW, 1 / _RATE_HERTZ)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0.0)


def log_mel(samples: Integer[np.ndarray, " samples"]) -> Float[np.ndarray, " frames bands"]:
    """Log-mel energies of the first 1.04 seconds: 64 frames of 32 ms, 16 ms apart, shorter speech followed by silence.

    Args:
        samples: 16-bit samples at 8 kHz.

    Returns:
        `log(energy + 1e-6)` in 32 bands of each frame, float32.
    """
    padded = np.zeros(_WINDOW + (FRAMES - 1) * _HOP)
    count = min(len(samples), len(padded))
    padded[:count] = samples[:count] / 32768
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))) ** 2
    return np.log(spectrum @ mel_filters() + _FLOOR).astype(np.float32)


@functools.lru_cache(maxsize=1)
def read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All recordings: frames (n, 64, 32), labels, speakers, takes.

    Args:
        folder: what TFDS prepared.
    """
    rows, _ = prepared.read(folder, "train")
    # 7_jackson_32.wav: digit, speaker, take
    parts = [row["audio/filename"].decode().removesuffix(".wav").split("_") for row in rows]
    frames = np.stack([log_mel(np.asarray(row["audio"])) for row in rows])
    labels = np.array([row["label"] for row in rows], np.int32)
    return frames, labels, np.array([part[1] for part in parts]), np.array([int(part[2]) for part in parts])
