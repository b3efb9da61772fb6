"""`modicum quickstart`: from data to a compressed, exported and simulated network; `scripts/quickstart.sh` calls it.

The same command again resumes a run that was interrupted, and ends bit-equal to one that was not.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from modicum import command
from modicum.cli import arguments as common

EXAMPLES = (
    "",
    "--data mnist",
    "bits=3 connectivity=0.25 --run runs/smaller",
)


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, "Train, compress, export and simulate a network.", EXAMPLES)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, chips=16 for instance")
    parser.add_argument("--data", default="digits", help="digits (bundled), mnist, cifar10 or another TFDS image set")
    common.add_run(parser, "runs/quickstart-<data>")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
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

    return command.exit_code(work, f"is saved in {folder}", prog)
