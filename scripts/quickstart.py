"""From data to a compressed, exported and simulated network: `scripts/quickstart.sh` calls this.

    python scripts/quickstart.py [--data digits|mnist|cifar10|...] [--run FOLDER] [--fresh] [key=value ...]

The same command again resumes a run that was interrupted, and ends bit-equal to one that was not.
Exit codes: 0 done, 2 bad input or a loss that is not finite (one sentence on stderr), 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

from modicum import command


def flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="Train, compress, export and simulate a network.",
        epilog=f"Interrupted? {command.RESUME.capitalize()}.",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, chips=16 for instance")
    parser.add_argument("--data", default="digits", help="digits (bundled), mnist, cifar10 or another TFDS image set")
    parser.add_argument("--run", metavar="FOLDER", help="run folder, by default runs/quickstart-<data>")
    parser.add_argument("--fresh", action="store_true", help="start over in a folder that holds a run")
    return parser.parse_intermixed_args(arguments)


def main() -> int:
    """Runs the command; returns the exit code."""
    arguments = flags()
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum import train
    from modicum.systems import quickstart, quickstart_config, quickstart_view

    folder = Path(arguments.run or Path("runs") / f"quickstart-{arguments.data.replace(':', '-')}")

    def work() -> None:
        config = train.parse_overrides(quickstart_config.default_config(arguments.data), arguments.overrides)
        outcome = quickstart.run(config, folder, fresh=arguments.fresh, console=Console(stderr=True))
        quickstart_view.figure(outcome, folder / "figure.png")
        Console().print(quickstart_view.table(outcome, folder))

    return command.exit_code(work, f"is saved in {folder}")


if __name__ == "__main__":
    sys.exit(main())
