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
    "spiking/mnist model.residuals=reversible --devices all",
    "train/digits --join 127.0.0.1:9137,2,0",
    "my_config.py --run runs/mine --fresh",
)


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, "Train and test a model.", EXAMPLES, "train", "spiking")
    common.add_config(parser, "train/digits")
    common.add_devices(parser)
    parser.add_argument(
        "--join",
        metavar="HOST:PORT,COUNT,INDEX",
        help="be one of several processes that train together on all devices of each: where the first one listens, how "
        "many there are, which this is; 'auto' on a TPU pod or under Slurm. The run folder is shared",
    )
    common.add_run(parser, "runs/<name of the config>")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
    command.stop_at_once_on_interrupt("")
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum import train
    from modicum.core import parallel

    folder = Path(arguments.run or Path("runs") / Path(arguments.config).stem)

    def work() -> None:
        if arguments.join is not None:
            common.join(arguments)
        experiment = train.load_config(configs.find(arguments.config))
        config = train.parse_overrides(experiment, arguments.overrides)
        # after joining: a process that does not lead says nothing
        console = Console(stderr=True) if parallel.first() else None
        shared = {"console": console, "mesh": parallel.named_mesh(arguments.devices)}
        result = train.train(config, folder, fresh=arguments.fresh, **shared)
        if console is None:
            return
        rows = {name.replace("_", " "): value for name, value in result.summary.items()}
        rows["test accuracy"] = f"{100 * rows['test accuracy']:.2f}%"
        Console().print(train.report.result_table(f"{folder.name}: test results", {**rows, "run folder": folder}))

    return command.exit_code(work, f"is saved in {folder}", prog)
