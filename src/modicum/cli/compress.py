"""`modicum compress`: compress a network by a recipe.

Trains the dense network of the recipe (shared between recipes that start from the same one), compresses it by each arm
(`--arms admm,one_shot,gradual`), and ends with a table per layer and a picture. The run folder of an arm
(`runs/compress/<recipe>-<arm>`) holds config.json, versions.json, checkpoints/, report.json, result.json and
figure.png. The same command again resumes a run that was interrupted, and ends bit-equal to one that was not.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from modicum import command
from modicum.cli import arguments as common
from modicum.cli import configs

EXAMPLES = (
    "pattern/digits",
    "pattern/mnist schedule.rho=1 dense.seed=3 --arms admm,one_shot,gradual",
    "rtmobile/spoken_digit --run runs/speech",
)
KINDS = ("forms", "patdnn", "pattern", "rtmobile", "unification")
"""Folders of recipes."""


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, "Compress a network onto hardware-shaped sets.", EXAMPLES, *KINDS)
    common.add_config(parser, "pattern/mnist", "recipe")
    parser.add_argument("--arms", default="admm", help="admm, one_shot, gradual, or several with commas between")
    common.add_devices(parser)
    common.add_run(parser, "runs/compress/<name of the recipe>")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum.core import parallel
    from modicum.systems import compression, compression_config, compression_view

    def work() -> None:
        config = configs.find(arguments.config)
        base = Path(arguments.run or Path("runs") / "compress" / f"{config.parent.name}-{config.stem}")
        recipe = compression_config.load_recipe(config, arguments.overrides)
        shared = {"console": Console(stderr=True), "mesh": parallel.named_mesh(arguments.devices)}
        for arm in arguments.arms.split(","):
            folder = base.with_name(f"{base.name}-{arm}")
            outcome = compression.run(recipe, arm, folder, fresh=arguments.fresh, **shared)
            compression_view.figure(outcome, folder / "figure.png")
            Console().print(compression_view.table(outcome, folder))

    return command.exit_code(work, "of the dense network is saved", prog)
