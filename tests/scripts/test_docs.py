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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page}: {target}"


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
