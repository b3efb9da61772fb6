"""Train over clients that do not show their data: `python scripts/federate.py configs/enclave/mnist.py rounds=10`.

Engines: `vmap` runs all parties in this process, for simulation; `flower-simulation` runs SEFL's in Flower's simulation
(Ray), `flower` as SuperLink and SuperNodes with TLS on this machine. The last two need the extra `flower` and a config
of path "sefl".

The run folder (`runs/<folder and name of the config>`) holds config.json, versions.json, metrics.jsonl (a line for each
round), checkpoints/, result.json and figure.png. The same command again resumes a run that was interrupted.

Exit codes: 0 done, 2 bad input or a loss that is not finite (one sentence on stderr), 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

from modicum import command


def flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="Train over clients that do not show their data.",
        epilog=f"Interrupted? {command.RESUME.capitalize()}.",
    )
    parser.add_argument("config", help="config file, configs/enclave/mnist.py for instance")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the config to change")
    parser.add_argument(
        "--engine", choices=("vmap", "flower-simulation", "flower"), default="vmap", help="where the parties run"
    )
    parser.add_argument("--run", metavar="FOLDER", help="run folder, by default runs/<folder>-<name of the config>")
    parser.add_argument("--fresh", action="store_true", help="start over in a folder that holds a run")
    return parser.parse_intermixed_args(arguments)


def main() -> int:
    """Runs the command; returns the exit code."""
    arguments = flags()
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum import train
    from modicum.systems import federation

    path = Path(arguments.config)
    folder = Path(arguments.run or Path("runs") / f"{path.parent.name}-{path.stem}")

    def work() -> None:
        config = federation.load_config(path, arguments.overrides)
        if arguments.engine != "vmap":
            from modicum.systems import federation_engine

            lines = federation_engine.run(config, path, arguments.overrides, folder, arguments.engine)
            rows = {f"round {line['step']}": federation_engine.sentence(line) for line in lines}
            Console().print(train.report.result_table(f"{folder.name}: {arguments.engine}", rows))
            return
        result = federation.federate(config, folder, fresh=arguments.fresh, console=Console(stderr=True))
        rows = {name.replace("_", " "): value for name, value in result.summary.items()}
        if "test accuracy" in rows:
            rows["test accuracy"] = f"{100 * rows['test accuracy']:.2f}%"
        rows["upload bytes saved"] = f"{100 * rows['upload bytes saved']:.2f}%"
        Console().print(train.report.result_table(f"{folder.name}: results", {**rows, "run folder": folder}))

    return command.exit_code(work, f"is saved in {folder}")


if __name__ == "__main__":
    sys.exit(main())
