"""Compress a network: `python scripts/compress.py configs/pattern/mnist.py schedule.rho=1 dense.seed=3`.

Trains the dense network of the recipe (shared between recipes that start from the same one), compresses it by each arm
(`--arms admm,one_shot,gradual`), and ends with a table per layer and a picture. The run folder of an arm
(`runs/compress/<recipe>-<arm>`) holds config.json, versions.json, checkpoints/, report.json, result.json and
figure.png. The same command again resumes a run that was interrupted, and ends bit-equal to one that was not.

Exit codes: 0 done, 2 bad input or a loss that is not finite (one sentence on stderr), 130 interrupted.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

RESUME = "run the same command again to go on"


def stop_at_once(*_: object) -> None:
    """SIGINT outside the training loop: nothing is half written, so stop without a traceback."""
    os.write(2, f"\ninterrupted: {RESUME}\n".encode())
    os._exit(130)


def flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="Compress a network onto hardware-shaped sets.",
        epilog=f"Interrupted? {RESUME.capitalize()}.",
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
    signal.signal(signal.SIGINT, stop_at_once)
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum import train
    from modicum.systems import compression, compression_config, compression_view

    config = Path(arguments.config)
    base = Path(arguments.run or Path("runs") / "compress" / f"{config.parent.name}-{config.stem}")
    try:
        recipe = compression_config.load_recipe(config, arguments.overrides)
        for arm in arguments.arms.split(","):
            folder = base.with_name(f"{base.name}-{arm}")
            outcome = compression.run(recipe, arm, folder, fresh=arguments.fresh, console=Console(stderr=True))
            compression_view.figure(outcome, folder / "figure.png")
            Console().print(compression_view.table(outcome, folder))
    except train.Interrupted as interrupted:
        print(f"interrupted: step {interrupted.step} of the dense network is saved; {RESUME}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
