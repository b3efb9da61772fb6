"""`modicum federate`: train over clients that do not show their data.

Engines: `vmap` runs all parties in this process, for simulation; `flower-simulation` runs SEFL's in Flower's simulation
(Ray), `flower` as SuperLink and SuperNodes with TLS on this machine. The last two need the extra `flower` and a config
of path "sefl".

The run folder (`runs/<folder and name of the config>`) holds config.json, versions.json, metrics.jsonl (a line for each
round), checkpoints/, result.json and figure.png. The same command again resumes a run that was interrupted.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from modicum import command
from modicum.cli import arguments as common
from modicum.cli import configs

EXAMPLES = (
    "sefl/digits",
    "enclave/mnist rounds=10",
    "sefl/digits --engine flower",
)


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, "Train over clients that do not show their data.", EXAMPLES, "enclave", "sefl")
    common.add_config(parser, "enclave/mnist")
    parser.add_argument(
        "--engine", choices=("vmap", "flower-simulation", "flower"), default="vmap", help="where the parties run"
    )
    common.add_devices(parser, "the clients of engine vmap")
    common.add_run(parser, "runs/<folder>-<name of the config>")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum import train
    from modicum.core import parallel
    from modicum.systems import federation

    named = Path(arguments.config)
    folder = Path(arguments.run or Path("runs") / f"{named.parent.name}-{named.stem}")

    def work() -> None:
        path = configs.find(named)
        config = federation.load_config(path, arguments.overrides)
        if arguments.engine != "vmap":
            from modicum.systems import federation_engine

            lines = federation_engine.run(config, path, arguments.overrides, folder, arguments.engine)
            rows = {f"round {line['step']}": federation_engine.sentence(line) for line in lines}
            Console().print(train.report.result_table(f"{folder.name}: {arguments.engine}", rows))
            return
        shared = {"console": Console(stderr=True), "mesh": parallel.named_mesh(arguments.devices)}
        result = federation.federate(config, folder, fresh=arguments.fresh, **shared)
        rows = {name.replace("_", " "): value for name, value in result.summary.items()}
        if "test accuracy" in rows:
            rows["test accuracy"] = f"{100 * rows['test accuracy']:.2f}%"
        rows["upload bytes saved"] = f"{100 * rows['upload bytes saved']:.2f}%"
        Console().print(train.report.result_table(f"{folder.name}: results", {**rows, "run folder": folder}))

    return command.exit_code(work, f"is saved in {folder}", prog)
