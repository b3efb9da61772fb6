"""`modicum export`: compress a network, compile it and write its bundle.

The network is that of `modicum compress`: a run folder that holds a finished run is read, any other is trained first.
The bundle (`runs/export/<recipe>` unless `--bundle` says otherwise) holds portable StableHLO, the packed weights and
the C program with its library; it is read back and checked on the held-out examples before the table of its kernels is
printed. `--target aarch64-linux` or `aarch64-android` writes the library for a phone. `--litert` writes a LiteRT file
besides, with dense weights (`pip install --no-deps litert-converter ai-edge-litert`).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from modicum import command
from modicum.cli import arguments as common
from modicum.cli import configs
from modicum.cli.compress import KINDS

EXAMPLES = (
    "pattern/digits",
    "pattern/mnist --tune 60 --threads 2",
    "pattern/mnist --target aarch64-linux --bundle phone",
    "pattern/digits --litert digits.tflite",
)


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, "Compile a compressed network and write its bundle.", EXAMPLES, *KINDS)
    common.add_config(parser, "pattern/mnist", "recipe")
    parser.add_argument("--arm", default="admm", help="admm, one_shot or gradual")
    parser.add_argument("--run", metavar="FOLDER", help="run folder, by default runs/compress/<recipe>-<arm>")
    parser.add_argument("--bundle", metavar="FOLDER", help="where the bundle goes, by default runs/export/<recipe>")
    parser.add_argument("--target", default="host", help="host, aarch64-linux or aarch64-android")
    parser.add_argument("--threads", type=int, default=1, help="threads of a call")
    parser.add_argument("--tune", type=float, default=0.0, metavar="SECONDS", help="time kernels to find the fastest")
    parser.add_argument("--litert", metavar="FILE", type=Path, help="write a LiteRT file, too")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
    command.stop_at_once_on_interrupt()
    # here, so that an interrupt while these load is answered, too
    from rich.console import Console

    from modicum.systems import compression_config, exporting

    def work() -> None:
        config = configs.find(arguments.config)
        name = f"{config.parent.name}-{config.stem}"
        recipe = compression_config.load_recipe(config, arguments.overrides)
        exported = exporting.run(
            recipe,
            arguments.arm,
            Path(arguments.run or Path("runs") / "compress" / f"{name}-{arguments.arm}"),
            Path(arguments.bundle or Path("runs") / "export" / name),
            target=arguments.target,
            threads=arguments.threads,
            tuning_seconds=arguments.tune,
            litert=arguments.litert,
            console=Console(stderr=True),
        )
        print(exported.report)
        if arguments.litert is not None:
            size = arguments.litert.stat().st_size
            print(f"{arguments.litert}: {size:,} bytes, answers a held-out example as the network does")
        print(
            f"{exported.folder}: {100 * exported.accuracy:.2f}% of {exported.examples:,} held-out examples "
            f"(before compilation {100 * exported.accuracy_before:.2f}%), "
            f"largest difference {exported.difference:.2g}, one example in {1e3 * exported.seconds:.3f} ms "
            f"(XLA, portable module: {1e3 * exported.portable_seconds:.3f} ms)"
        )

    return command.exit_code(work, "of the dense network is saved", prog)
