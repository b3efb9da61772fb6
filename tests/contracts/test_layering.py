"""The layout's rules: domain folders do not import each other, files and functions stay short."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "modicum"
DOMAINS = (
    "constraints",
    "admm",
    "spiking",
    "analog",
    "federated",
    "mobile",
    "conference",
    "models",
    "train",
    "interchange",
)
ALLOWED = {("train", "models"), ("interchange", "models")}
FILES = sorted(SOURCE.rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_file(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    domain = path.relative_to(SOURCE).parts[0]
    for module in imported(path):
        parts = module.split(".")
        if parts[0] != "modicum" or len(parts) < 2:
            continue
        other = parts[1]
        if domain in DOMAINS and other in DOMAINS and other != domain:
            assert (domain, other) in ALLOWED, f"{path} imports {module}"
        if domain == "core":
            assert other == "core", f"core imports {module}"
        # the top level imports what is asked for by name, later
        assert other != "systems" or domain in ("systems", "cli", "__init__.py"), f"{path} imports {module}"
        assert other != "cli" or domain in ("cli", "__main__.py"), f"{path} imports {module}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            assert lines <= 80, f"{path}: {node.name} has {lines} lines"
        assert not isinstance(node, ast.ImportFrom) or node.module != "__future__"


def test_tensorflow_is_never_imported():
    for path in FILES:
        assert not any(module.split(".")[0] == "tensorflow" for module in imported(path)), path
