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


def test_tables_without_results_are_empty(tables, tmp_path):
    assert tables.tables(tmp_path) == ""
