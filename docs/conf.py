"""How Sphinx builds the documentation: `sphinx-build -W docs build/docs`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import modicum

project, author, copyright = "Modicum", "Modicum's maintainers", "Modicum's maintainers"
version = release = modicum.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_nb"]
html_theme = "furo"
html_title = "Modicum"
# notebooks are rendered where they are run, in CI: here they are only shown
nb_execution_mode = "off"
# the .py beside each .ipynb is the same page
exclude_patterns = ["notebooks/*.py"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
# fields of dataclasses are described once, under Attributes
napoleon_use_ivar = True
default_role = "code"

# what stays as it is: `code` (in two backticks there) and **words in bold**
_MARKUP = re.compile(r"`[^`]+`|(?<!\*)\*\*(?=[^\s*])[^*`]+\*\*(?!\*)")
_SPECIAL = re.compile(r"([*|\\]|(?<=\w)_(?=\W|$))")


def _escaped(text: str) -> str:
    """Docstrings are plain text with `code`: what else reStructuredText would take for markup is none."""
    parts, end = [], 0
    for found in _MARKUP.finditer(text):
        kept = found.group()
        parts += [_SPECIAL.sub(r"\\\1", text[end : found.start()]), f"`{kept}`" if kept.startswith("`") else kept]
        end = found.end()
    return "".join([*parts, _SPECIAL.sub(r"\\\1", text[end:])])


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _table(text: str) -> str:
    """A table in Markdown as it is, in fixed width; nothing where there is none."""
    rows = text.strip("\n").split("\n")
    if not all(row.startswith("|") for row in rows):
        return ""
    return "\n".join(["::", "", *(f"    {row}" for row in rows)])


def others(_app, _what, _name, obj, skip: bool, _options) -> bool:
    """Functions of other packages that are defaults of a setting are not ours to describe."""
    return skip or not str(getattr(obj, "__module__", "modicum") or "modicum").startswith(("modicum", "builtins"))


def plain_text(_app, what: str, _name, _obj, _options, lines: list[str]) -> None:
    """Escapes a docstring in place, by paragraphs, as code may go over the end of a line; not what is an example."""
    if what in ("attribute", "data", "property"):
        # or napoleon takes what stands before a colon for a type
        lines.insert(0, "")
    result, literal = [], None
    for paragraph in re.split(r"\n[ \t]*\n", "\n".join(lines)):
        if literal is None or _indent(paragraph.lstrip("\n")) <= literal:
            literal = None
            text, prompt, example = paragraph.partition(">>>")
            literal = _indent(text.strip("\n").split("\n")[-1]) if text.rstrip().endswith("::") else None
            paragraph = _table(text) or _escaped(text) + prompt + example
        result.append(paragraph)
    lines[:] = "\n\n".join(result).split("\n")


def setup(app) -> None:
    """Connects the hook before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", plain_text, priority=400)
    app.connect("autodoc-skip-member", others)
