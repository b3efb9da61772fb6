"""What the commands' parsers share."""

import argparse
import inspect
from collections.abc import Sequence

from modicum import command
from modicum.cli import configs


def parser(
    prog: str | None, text: str, examples: Sequence[str], *kinds: str, resumes: bool = True
) -> argparse.ArgumentParser:
    """A parser whose help ends with examples.

    Args:
        prog: how the command was called; by default the name of the script.
        text: what it does.
        examples: what follows the command, one of each kind of use.
        kinds: folders of the configs that it takes.
        resumes: whether the same command again goes on.
    """
    made = argparse.ArgumentParser(
        prog=prog, description=inspect.cleandoc(text), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ending = ["examples:", *(f"  {made.prog} {example}".rstrip() for example in examples)]
    if known := configs.names(*kinds) if kinds else []:
        ending += ["", "configs:", f"  {', '.join(known)}"]
    if resumes:
        ending += ["", f"Interrupted? {command.RESUME.capitalize()}."]
    made.epilog = "\n".join(ending)
    return made


def add_config(parser: argparse.ArgumentParser, example: str, what: str = "config") -> None:
    """The config and the settings to change.

    Args:
        parser: which takes them.
        example: a config's name.
        what: what a config is called here.
    """
    parser.add_argument("config", help=f"{what}: its name, such as {example}, or a file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"settings of the {what} to change")


def add_devices(parser: argparse.ArgumentParser, what: str = "each batch") -> None:
    """How many devices train, for `core.parallel.named_mesh`.

    Args:
        parser: which takes it.
        what: what they share.
    """
    parser.add_argument(
        "--devices", default="1", metavar="COUNT", help=f"devices that share {what}: a number, or all; by default 1"
    )


def join(arguments: argparse.Namespace) -> None:
    """Makes this process one of several, as `--join` says; all their devices train.

    Args:
        arguments: what the command line says; its `devices` become all.

    Raises:
        ValueError: if it is neither "auto" nor an address, a count and a number of this process.
    """
    from modicum.core import parallel

    if arguments.join == "auto":
        parallel.join()
    else:
        coordinator, *numbers = arguments.join.split(",")
        if len(numbers) != 2 or not all(number.isdecimal() for number in numbers) or ":" not in coordinator:
            raise ValueError(f"join must be 'auto' or HOST:PORT,COUNT,INDEX, got {arguments.join!r}")
        parallel.join(coordinator, *map(int, numbers))
    arguments.devices = "all"


def add_run(parser: argparse.ArgumentParser, default: str) -> None:
    """The folder of the run, and whether to start over."""
    parser.add_argument("--run", metavar="FOLDER", help=f"run folder, by default {default}")
    parser.add_argument("--fresh", action="store_true", help="start over in a folder that holds a run")
