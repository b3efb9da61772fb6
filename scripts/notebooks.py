"""`python scripts/notebooks.py [NAME ...]` runs `notebooks/NAME.py` and writes what it showed to `NAME.ipynb`.

All of them without a name; `--html FOLDER` writes web pages there and leaves the notebooks as they are. They run in a
folder of their own that goes afterwards. Needs the extra `notebooks`. The same cells give the same notebook but for
what they print: no times, and identifiers that are counted.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from modicum import command
from modicum.core import check
from modicum.core.optional import package

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def rendered(script: Path) -> Any:
    """The notebook of a percent-format script, run from top to bottom.

    Args:
        script: the file.

    Raises:
        nbconvert.preprocessors.CellExecutionError: if a cell raises.
        ImportError: without the extra `notebooks`.
    """
    jupytext, nbformat, preprocessors = (
        package(name, "notebooks") for name in ("jupytext", "nbformat", "nbconvert.preprocessors")
    )
    notebook = jupytext.read(script)
    # that a kernel listens on the loopback device is no news
    quiet = ["--IPKernelApp.log_level=40"]
    with tempfile.TemporaryDirectory() as folder:
        run = preprocessors.ExecutePreprocessor(
            timeout=1800, kernel_name="python3", record_timing=False, extra_arguments=quiet
        )
        run.preprocess(notebook, {"metadata": {"path": folder}})
    notebook.metadata.pop("jupytext", None)
    notebook.metadata.kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.NotebookNode()
    return notebook


def write(path: Path, text: str) -> None:
    """A file that is whole or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
    print(path, flush=True)


def main() -> int:
    """Runs the command; returns the exit code."""
    known = sorted(path.stem for path in FOLDER.glob("*.py"))
    parser = argparse.ArgumentParser(description="Runs notebooks and writes what they showed.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--html", type=Path, metavar="FOLDER", help="write web pages there, not the notebooks")
    arguments = parser.parse_args()
    command.stop_at_once_on_interrupt()

    def work() -> None:
        for name in arguments.names:
            check.one_of(tuple(known), name=name)
        nbconvert, nbformat = (package(name, "notebooks") for name in ("nbconvert", "nbformat"))
        for name in arguments.names or known:
            notebook = rendered(FOLDER / f"{name}.py")
            if arguments.html is None:
                write(FOLDER / f"{name}.ipynb", nbformat.writes(notebook) + "\n")
            else:
                write(arguments.html / f"{name}.html", nbconvert.HTMLExporter().from_notebook_node(notebook)[0])

    return command.exit_code(work, "is not saved")


if __name__ == "__main__":
    sys.exit(main())
