"""The pages below docs/: each package has one, links lead somewhere, names in the guide exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import modicum
from modicum.cli.configs import names
from modicum.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def test_every_package_has_a_page():
    listed = re.search(r"```{toctree}\n(.*?)```", (DOCS / "api" / "index.md").read_text(), re.DOTALL).group(1).split()
    # systems are wiring, described by the commands
    assert set(listed) == set(modicum.__all__) - {"systems"}
    for name in listed:
        assert f".. automodule:: modicum.{name}\n" in (DOCS / "api" / f"{name}.md").read_text()


def test_every_notebook_is_a_page():
    text = (DOCS / "index.md").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{path.stem}\n" in text
        assert (DOCS / "notebooks" / path.name).samefile(path)


def without_code(page):
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page):
    """What headings are called in links: as GitHub and MyST have it."""
    titles = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_anchors_are_those_of_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Scripts\n## What is `core`, and why?\n```bash\n# no heading\n```\n### A-b_c d\n")
    assert anchors(page) == {"scripts", "what-is-core-and-why", "a-b_c-d"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(other), f"{page}: {target}"


def test_pictures_of_the_readme_are_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", without_code(ROOT / "README.md"))
    assert len(pictures) >= 6
    assert all((ROOT / name).stat().st_size < 150_000 for name in pictures)


def test_commands_and_calls_of_the_guide_exist():
    text = (DOCS / "choose.md").read_text()
    for command, word in re.findall(r"`modicum (\w+) ([\w/]+)`", text):
        assert command in COMMANDS
        assert command == "call" or word in names(), word
    packages = {name: importlib.import_module(f"modicum.{name}") for name in modicum.__all__}
    for package, name in re.findall(r"`(\w+)\.(\w+)", text):
        if package in packages:
            assert hasattr(packages[package], name), f"{package}.{name}"
    for extra in re.findall(r"modicum\[(\w+)\]", text):
        assert re.search(rf"^{extra} = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE), extra
    for name in re.findall(r"`(?:nest\()?([A-Z]\w+)\(", text):
        assert any(hasattr(packages[package], name) for package in packages), name


def test_python_of_the_pages_is_python():
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            ast.parse(block)
