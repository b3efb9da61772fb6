"""Compress a network: `python scripts/compress.py configs/pattern/mnist.py schedule.rho=1 dense.seed=3`.

Trains the dense network of the recipe (shared between recipes that start from the same one), compresses it by each arm
(`--arms admm,one_shot,gradual`), and ends with a table per layer and a picture. The run folder of an arm
(`runs/compress/<recipe>-<arm>`) holds config.json, versions.json, checkpoints/, report.json, result.json and
figure.png. The same command again resumes a run that was interrupted, and ends bit-equal to one that was not.

Exit codes: 0 done, 2 bad input or a loss that is not finite (one sentence on stderr), 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

from modicum import command


def flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="Compress a network onto hardware-shaped sets.",
        epilog=f"Interrupted? {command.RESUME.capitalize()}.",
    )
    parser.add_argument("config", help="recipe file, configs/pattern/mnist.py for instance")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the recipe to change")
    parser.add_argument("--arms", default="admm", help="admm, one_shot, gradual, or several with commas between")
    parser.add_argument("--run", metavar="FOLDER", help="run folder, by default runs/compress/<name of the recipe>")
    parser.add_argument("--fresh", action="store_true", help="start over in folders that hold a run")
    return parser.parse_intermixed_args(arguments)


def main() -> int:
    """Runs the command; returns the exit code."""
    arguments = flags()
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum.systems import compression, compression_config, compression_view

    config = Path(arguments.config)
    base = Path(arguments.run or Path("runs") / "compress" / f"{config.parent.name}-{config.stem}")

    def work() -> None:
        recipe = compression_config.load_recipe(config, arguments.overrides)
        for arm in arguments.arms.split(","):
            folder = base.with_name(f"{base.name}-{arm}")
            outcome = compression.run(recipe, arm, folder, fresh=arguments.fresh, console=Console(stderr=True))
            compression_view.figure(outcome, folder / "figure.png")
            Console().print(compression_view.table(outcome, folder))

    return command.exit_code(work, "of the dense network is saved")


if __name__ == "__main__":
    sys.exit(main())
