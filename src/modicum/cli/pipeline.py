"""`modicum pipeline`: what one system makes, the next takes.

The configs are those of configs/pipelines: a spiking network without a tape, polarized by ADMM, on two kinds of chips;
a network pruned while it is trained privately, then a phone's bundle; speech as native code beside crossbars; a pruned
and compiled face generator on a call; one network under all constraints.

The folder (`runs/pipelines/<config>`) holds config.json, versions.json, result.json (a line of figures per stage) and a
run folder per stage. The same command again goes on in the stage where it was interrupted.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from modicum import command
from modicum.cli import arguments as common
from modicum.cli import configs

EXAMPLES = ("pipelines/frontier", "pipelines/spiking_chips data=digits chips=4", "pipelines/face_call clip= steps=300")


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, "Run a pipeline across systems.", EXAMPLES, "pipelines")
    common.add_config(parser, "pipelines/frontier")
    common.add_run(parser, "runs/pipelines/<config>")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum.systems import pipelines

    def work() -> None:
        config = configs.find(arguments.config)
        chosen = pipelines.load_pipeline(config, arguments.overrides)
        folder = Path(arguments.run or Path("runs") / "pipelines" / config.stem)
        lines = pipelines.run(chosen, folder, fresh=arguments.fresh, console=Console(stderr=True))
        Console().print(pipelines.table(lines, config.stem, folder))

    return command.exit_code(work, "of a stage is saved", prog)
