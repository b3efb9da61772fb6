"""The tables of the face codec hold what the cells say, by hand."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    import video_tables

    return video_tables


def point(kbps, psnr, ms_ssim, every=1):
    return {"kbps": kbps, "psnr": psnr, "ms_ssim": ms_ssim, "every": every}


POINTS = [point(4, 26, 0.9), point(16, 30, 0.98), point(2, 25, 0.85, 2), point(6, 29, 0.97, 2)]


def test_the_least_rate_at_full_or_half_the_frames_counts(tables):
    # full rate: halfway between 4 and 16 in log rate; half rate: 3 of 4 dB between 2 and 6
    assert tables.rate_of(POINTS, "psnr", 28) == pytest.approx(min(8, 2 * 3**0.75))
    assert tables.rate_of(POINTS, "psnr", 29.5) == pytest.approx(4 * 4**0.875)
    assert tables.rate_of(POINTS, "psnr", 40) is None


def test_savings_are_against_that_rate(tables):
    ours = {"kbps": 2.0, "psnr": 29.0, "ms_ssim": 0.5}
    assert tables.saving(POINTS, ours, "psnr") == "-67% (6.0)"
    assert tables.saving(POINTS, ours, "ms_ssim") == "below its curve"


def test_whole_curves_and_means_over_clips(tables):
    made = {"bytes": {"motion": 10}, "training": {}}
    # half the bits at each quality
    cells = {
        "a | 64 | H.264": {"points": [point(4, 26, 0.9), point(16, 30, 0.98), point(1, 20, 0.8, 2)]},
        "a | 64 | ours | motion only": {**point(2, 26, 0.9), **made},
        "a | 64 | ours | target 8 kbps": {**point(8, 30, 0.98), **made, "worst_rate_error": 0.02},
        "b | 64 | ours | target 8 kbps": {**point(8.5, 31, 0.99), **made, "worst_rate_error": 0.03},
        "b | 64 | ours | swap": {**point(9, 10, 0.1), **made},
    }
    first, second = tables.curves_table(cells).splitlines()[2:]
    assert first.startswith("| a, 64 | -50% | -50% | |".replace("| |", "|"))
    assert second.replace(" ", "") == "|b,64|||||||||"
    found = tables.settings_table(cells).splitlines()[2:]
    assert "| 64 | target 8 kbps | 2 | 8.25 | 30.50 | 0.985 | 0 | 10 | 0 | 0 | 0 | 0 | 3.0% |" in found


def test_tables_without_results_are_empty(tables, tmp_path):
    assert tables.tables(tmp_path) == ""
