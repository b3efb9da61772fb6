"""`modicum COMMAND ...`: which command, and which module answers it."""

import difflib
import importlib
import sys
from collections.abc import Sequence

import modicum

COMMANDS = {
    "quickstart": "from data to a compressed, exported and simulated network",
    "train": "train and test a model",
    "compress": "compress a network onto hardware-shaped sets",
    "simulate": "measure a network on simulated chips",
    "export": "compile a compressed network and write its bundle",
    "federate": "train over clients that do not show their data",
    "call": "video calls by face motion",
    "pipeline": "several systems in a row: what one makes, the next takes",
    "tensorboard": "run folders as event files, for TensorBoard to show",
    "tables": "the tables of the README, from results (in a checkout)",
}
"""What each command does; `modicum.cli.COMMAND` is its module."""

EXAMPLES = """\
  modicum quickstart                                       digits, minutes on two cores
  modicum train train/mnist epochs=3                       a config by name, a setting changed
  modicum compress pattern/digits --arms admm,one_shot
  modicum simulate capram/mnist chips=8
  modicum COMMAND --help                                   what else it takes, with examples"""

EXIT_CODES = "Exit codes: 0 done, 1 it failed, 2 bad input (each with one sentence on stderr), 130 interrupted."


def usage() -> str:
    """What `modicum --help` says."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    return (
        f"usage: modicum [--help] [--version] COMMAND ...\n\n{str(modicum.__doc__).splitlines()[0]}\n\n"
        f"commands:\n{lines}\n\nexamples:\n{EXAMPLES}\n\n{EXIT_CODES}"
    )


def unknown(word: str) -> str:
    """One sentence about a command that is none, with the nearest that is."""
    near = difflib.get_close_matches(word.lower(), COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "see modicum --help"
    return f"modicum: command must be one of {', '.join(COMMANDS)}, got {word!r}: {hint}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: what follows `modicum` on the command line; by default that of this process.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad input, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ("--version", "-V"):
        print(f"modicum {modicum.__version__}")
        return 0
    if words in (["--help"], ["-h"], ["help"]):
        print(usage())
        return 0
    if not words:
        print(usage(), file=sys.stderr)
        return 2
    if words[0] == "help":
        words = [words[1], "--help"]
    if words[0] not in COMMANDS:
        print(unknown(words[0]), file=sys.stderr)
        return 2
    return importlib.import_module(f"modicum.cli.{words[0]}").main(words[1:], f"modicum {words[0]}")
