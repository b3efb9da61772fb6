"""Pictures of the README: means of the cells that were measured, and a picture taken from a page as it stands."""

import base64
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PNG = (ROOT / "scripts" / "bench" / "results" / "chips.png").read_bytes()


@pytest.fixture
def pictures(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    import pictures

    monkeypatch.setattr(pictures, "RESULTS", tmp_path)
    return pictures


def cell(arm, seed, accuracy, hard, packed):
    scores = {"dense_accuracy": 0.99, "hard_accuracy": hard, "accuracy": accuracy}
    return {"arm": arm, "seed": seed, "data": "d", "model": "m", "dense_bytes": 1000, "packed_bytes": packed, **scores}


def cells():
    return {
        "hard | admm | 0": cell("admm", 0, 0.9, 0.8, 20),
        "hard | admm | 1": cell("admm", 1, 0.8, 0.6, 20),
        "hard | one_shot | 0": cell("one_shot", 0, 0.7, 0.1, 20),
        "easy | admm | 0": cell("admm", 0, 0.98, 0.97, 250),
        "easy | one_shot | 0": cell("one_shot", 0, 0.98, 0.9, 250),
        "one arm alone | admm | 0": cell("admm", 0, 0.5, 0.5, 100),
    }


def test_rows_are_means_of_sets_that_both_arms_were_run_on(pictures):
    easy, hard = pictures.rows_of(cells())
    assert (easy["name"], hard["name"]) == ("easy", "hard")
    assert (easy["ratio"], hard["ratio"]) == (4.0, 50.0)
    assert hard["admm accuracy"] == pytest.approx(85)
    assert hard["admm hard_accuracy"] == pytest.approx(70)
    assert hard["one_shot accuracy"] == pytest.approx(70)


def test_pictures_are_drawn(pictures, tmp_path):
    (tmp_path / "accuracy-d.json").write_text(json.dumps({"cells": cells()}))
    chips = {"chips": [0.9, 0.92, 0.92], "chip_images": 50, "ideal_chip": 0.94, "dense": [0.96]}
    (tmp_path / "quickstart-d.json").write_text(json.dumps({"results": chips}))
    pictures.draw_accuracy(("d",), tmp_path / "accuracy.png")
    pictures.draw_chips(("d",), tmp_path / "chips.png")
    for name in ("accuracy.png", "chips.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_last_picture_of_a_page(pictures, tmp_path):
    page = tmp_path / "page.ipynb"
    shown = [{"data": {"image/png": base64.b64encode(data).decode()}} for data in (b"first", PNG)]
    page.write_text(json.dumps({"cells": [{"outputs": shown[:1]}, {"outputs": [*shown[1:], {"text": "said"}]}, {}]}))
    assert pictures.last_picture(page) == PNG
    page.write_text(json.dumps({"cells": []}))
    with pytest.raises(ValueError, match="page must show a picture"):
        pictures.last_picture(page)


def test_the_readme_shows_what_the_page_shows(pictures):
    shown = ROOT / "scripts" / "bench" / "results" / "call.png"
    assert pictures.last_picture(ROOT / "notebooks" / "conference.ipynb") == shown.read_bytes()
