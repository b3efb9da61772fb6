"""Train and test a model: `python scripts/train.py configs/train/digits.py epochs=3 optimizer.learning_rate=1e-2`.

The run folder (`runs/<name of the config>`) holds config.json, versions.json, metrics.jsonl, checkpoints/ and, at the
end, result.json. The same command again resumes a run that was interrupted, and ends bit-equal to one that was not.

Exit codes: 0 done, 2 bad input or a loss that is not finite (one sentence on stderr), 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

from modicum import command


def flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="Train and test a model.", epilog=f"Interrupted? {command.RESUME.capitalize()}."
    )
    parser.add_argument("config", help="config file, configs/train/digits.py for instance")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the config to change")
    parser.add_argument("--run", metavar="FOLDER", help="run folder, by default runs/<name of the config>")
    parser.add_argument("--fresh", action="store_true", help="start over in a folder that holds a run")
    return parser.parse_intermixed_args(arguments)


def main() -> int:
    """Runs the command; returns the exit code."""
    arguments = flags()
    command.stop_at_once_on_interrupt("")
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum import train

    folder = Path(arguments.run or Path("runs") / Path(arguments.config).stem)

    def work() -> None:
        config = train.parse_overrides(train.load_config(arguments.config), arguments.overrides)
        result = train.train(config, folder, fresh=arguments.fresh, console=Console(stderr=True))
        rows = {name.replace("_", " "): value for name, value in result.summary.items()}
        rows["test accuracy"] = f"{100 * rows['test accuracy']:.2f}%"
        Console().print(train.report.result_table(f"{folder.name}: test results", {**rows, "run folder": folder}))

    return command.exit_code(work, f"is saved in {folder}")


if __name__ == "__main__":
    sys.exit(main())
