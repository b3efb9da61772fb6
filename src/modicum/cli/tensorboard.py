"""`modicum tensorboard`: run folders as event files, for TensorBoard to show.

Takes the folders of `modicum train|compress|simulate|federate|quickstart|pipeline`, or folders that hold such; a run is
named after its folder. Curves, results, pictures and configs go to LOGDIR (`runs/tensorboard`); the same command again
replaces what it wrote, with what the runs hold by then.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from modicum import command
from modicum.cli import arguments as common

EXAMPLES = ("runs", "runs/digits runs/compress/pattern-digits-admm --to boards")


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, "Write run folders as event files of TensorBoard.", EXAMPLES, resumes=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="a run, or a folder that holds runs")
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("runs") / "tensorboard",
        metavar="LOGDIR",
        help="folder of event files, by default runs/tensorboard",
    )
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum.systems import event_files

    def work() -> None:
        # an interrupt shall take the unfinished file away
        signal.signal(signal.SIGINT, signal.default_int_handler)
        made = event_files.write(event_files.find(arguments.runs), arguments.to, Console(stderr=True))
        print(f"{len(made)} run{'s' if len(made) > 1 else ''} in {arguments.to}: tensorboard --logdir {arguments.to}")

    try:
        return command.exit_code(work, "", prog)
    except KeyboardInterrupt:
        print(f"interrupted: {command.RESUME}", file=sys.stderr)
        return 130
