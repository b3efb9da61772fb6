"""`python scripts/notebooks.py [NAME ...]` runs `notebooks/NAME.py` and writes what it showed to `NAME.ipynb`.

All of them without a name; they run in a folder of their own that goes afterwards. Needs the extra `notebooks`. The
same cells give the same file but for what they print: no times, and identifiers that are counted.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from modicum import command
from modicum.core import check
from modicum.core.optional import package

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def rendered(script: Path) -> str:
    """The notebook of a percent-format script, run from top to bottom.

    Args:
        script: the file.

    Raises:
        nbconvert.preprocessors.CellExecutionError: if a cell raises.
    """
    jupytext, nbformat, preprocessors = (
        package(name, "notebooks") for name in ("jupytext", "nbformat", "nbconvert.preprocessors")
    )
    notebook = jupytext.read(script)
    with tempfile.TemporaryDirectory() as folder:
        run = preprocessors.ExecutePreprocessor(timeout=1800, kernel_name="python3", record_timing=False)
        run.preprocess(notebook, {"metadata": {"path": folder}})
    notebook.metadata.pop("jupytext", None)
    notebook.metadata.kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.NotebookNode()
    return nbformat.writes(notebook) + "\n"


def main() -> int:
    """Runs the command; returns the exit code."""
    known = sorted(path.stem for path in FOLDER.glob("*.py"))
    parser = argparse.ArgumentParser(description="Runs notebooks and writes what they showed.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all by default")
    arguments = parser.parse_args()
    command.stop_at_once_on_interrupt()

    def work() -> None:
        for name in arguments.names:
            check.one_of(tuple(known), name=name)
        for name in arguments.names or known:
            target = FOLDER / f"{name}.ipynb"
            text = rendered(FOLDER / f"{name}.py")
            # whole or as it was
            unfinished = target.with_suffix(".partial")
            unfinished.write_text(text)
            os.replace(unfinished, target)
            print(target)

    return command.exit_code(work, "is not saved")


if __name__ == "__main__":
    sys.exit(main())
