"""A network on simulated chips: `python scripts/simulate.py configs/capram/mnist.py chips=8`.

The config is one of configs/capram, or of any network: `configs/train/mnist.py` (trained by scripts/train.py),
`configs/forms/mnist.py` (compressed by scripts/compress.py), with a device by name (`--device
forms|isaac|differential|capram`) and its numbers as settings (`spec.fragment=4 spec.sigma=0.1`). A run folder that
holds the finished network is read, any other is trained first. Where the config says so, the network is trained
through the device before it is measured.

The folder (`runs/simulate/<config>-<device>`) holds config.json, versions.json, result.json (accuracy of every chip;
energy, time and area by layer and component, with the input cycles and conversions of the run that gave the accuracy)
and pictures. The same command again goes on where it was interrupted.

Exit codes: 0 done, 2 bad input or a loss that is not finite (one sentence on stderr), 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

from modicum import command


def flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description="Measure a network on simulated chips.",
        epilog=f"Interrupted? {command.RESUME.capitalize()}.",
    )
    parser.add_argument("config", help="config file, configs/capram/mnist.py for instance")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the simulation to change")
    parser.add_argument("--device", default="differential", help="forms, isaac, differential or capram")
    parser.add_argument(
        "--run", metavar="FOLDER", help="run folder of the network, by default where its script puts it"
    )
    parser.add_argument("--to", metavar="FOLDER", help="folder of results, by default runs/simulate/<config>-<device>")
    parser.add_argument("--fresh", action="store_true", help="start over in a folder that holds a simulation")
    return parser.parse_intermixed_args(arguments)


def main() -> int:
    """Runs the command; returns the exit code."""
    arguments = flags()
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum.systems import simulation, simulation_config, simulation_view

    config = Path(arguments.config)
    name = f"{config.parent.name}-{config.stem}"

    def work() -> None:
        chosen = simulation_config.load_simulation(config, arguments.overrides, arguments.device)
        network = simulation.default_folder(chosen, config) if arguments.run is None else Path(arguments.run)
        folder = Path(arguments.to or Path("runs") / "simulate" / f"{name}-{simulation_config.device_name(chosen)}")
        outcome = simulation.run(chosen, network, folder, fresh=arguments.fresh, console=Console(stderr=True))
        simulation_view.figures(chosen, outcome.summary, folder)
        Console().print(simulation_view.table(outcome.summary, folder))

    return command.exit_code(work, "of the network is saved")


if __name__ == "__main__":
    sys.exit(main())
