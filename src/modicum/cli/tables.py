"""`modicum tables`: scripts/tables.py of a checkout, which makes the README's tables from results JSON."""

import runpy
import sys
from collections.abc import Sequence

from modicum.cli.configs import CHECKOUT


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the script; returns the exit code: 2 where this code lies in no checkout."""
    script = CHECKOUT / "scripts" / "tables.py"
    if not script.is_file():
        print(
            f"{prog or 'tables'}: the results lie beside the code in a checkout of the repository, and an installed "
            "package has none: run it in one",
            file=sys.stderr,
        )
        return 2
    before = sys.argv
    sys.argv = [prog or script.name, *(before[1:] if argv is None else argv)]
    try:
        return runpy.run_path(str(script))["main"]()
    finally:
        sys.argv = before
