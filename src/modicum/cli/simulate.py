"""`modicum simulate`: a network on simulated chips.

The config is one of configs/capram, or of any network: `train/mnist` (trained by `modicum train`), `forms/mnist`
(compressed by `modicum compress`), with a device by name (`--device forms|isaac|differential|capram`) and its numbers
as settings (`spec.fragment=4 spec.sigma=0.1`). A run folder that holds the finished network is read, any other is
trained first. Where the config says so, the network is trained through the device before it is measured.

The folder (`runs/simulate/<config>-<device>`) holds config.json, versions.json, result.json (accuracy of every chip;
energy, time and area by layer and component, with the input cycles and conversions of the run that gave the accuracy)
and pictures. The same command again goes on where it was interrupted.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from modicum import command
from modicum.cli import arguments as common
from modicum.cli import configs
from modicum.cli.compress import KINDS

EXAMPLES = (
    "capram/mnist chips=8",
    "train/mnist spec.sigma=0.1 --device isaac",
    "forms/mnist fragment=4 spec.fragment=4 spec.adc_bits=3 --device forms",
)


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, "Measure a network on simulated chips.", EXAMPLES, "capram", "train", *KINDS)
    common.add_config(parser, "capram/mnist")
    parser.add_argument("--device", default="differential", help="forms, isaac, differential or capram")
    common.add_devices(parser, "each batch of training")
    parser.add_argument(
        "--run", metavar="FOLDER", help="run folder of the network, by default where its own command puts it"
    )
    parser.add_argument("--to", metavar="FOLDER", help="folder of results, by default runs/simulate/<config>-<device>")
    parser.add_argument("--fresh", action="store_true", help="start over in a folder that holds a simulation")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum.core import parallel
    from modicum.systems import simulation, simulation_config, simulation_view

    def work() -> None:
        config = configs.find(arguments.config)
        chosen = simulation_config.load_simulation(config, arguments.overrides, arguments.device)
        network = simulation.default_folder(chosen, config) if arguments.run is None else Path(arguments.run)
        name = f"{config.parent.name}-{config.stem}-{simulation_config.device_name(chosen)}"
        folder = Path(arguments.to or Path("runs") / "simulate" / name)
        shared = {"console": Console(stderr=True), "mesh": parallel.named_mesh(arguments.devices)}
        outcome = simulation.run(chosen, network, folder, fresh=arguments.fresh, **shared)
        simulation_view.figures(chosen, outcome.summary, folder)
        Console().print(simulation_view.table(outcome.summary, folder))

    return command.exit_code(work, "of the network is saved", prog)
