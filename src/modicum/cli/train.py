"""`modicum train`: train and test a model.

The run folder (`runs/<name of the config>`) holds config.json, versions.json, metrics.jsonl, checkpoints/ and, at the
end, result.json. The same command again resumes a run that was interrupted, and ends bit-equal to one that was not.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from modicum import command
from modicum.cli import arguments as common
from modicum.cli import configs

EXAMPLES = (
    "train/digits epochs=3 optimizer.learning_rate=1e-2",
    "spiking/mnist model.residuals=reversible",
    "my_config.py --run runs/mine --fresh",
)


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, "Train and test a model.", EXAMPLES, "train", "spiking")
    common.add_config(parser, "train/digits")
    common.add_run(parser, "runs/<name of the config>")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
    command.stop_at_once_on_interrupt("")
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum import train

    folder = Path(arguments.run or Path("runs") / Path(arguments.config).stem)

    def work() -> None:
        experiment = train.load_config(configs.find(arguments.config))
        config = train.parse_overrides(experiment, arguments.overrides)
        result = train.train(config, folder, fresh=arguments.fresh, console=Console(stderr=True))
        rows = {name.replace("_", " "): value for name, value in result.summary.items()}
        rows["test accuracy"] = f"{100 * rows['test accuracy']:.2f}%"
        Console().print(train.report.result_table(f"{folder.name}: test results", {**rows, "run folder": folder}))

    return command.exit_code(work, f"is saved in {folder}", prog)
