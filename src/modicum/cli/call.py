"""`modicum call`: video calls by face motion; `modicum call demo` shows one, without any data, in about two minutes.

    train VIDEO --model face.npz        learn a face from the first three quarters of a video
    encode VIDEO CALL --model face.npz  a video as packets, in one file
    decode CALL VIDEO --model face.npz  the packets as an MP4 again
    play [VIDEO] --model face.npz       a call between two processes over UDP on this machine; a camera without
                                        VIDEO; --loss and --delay simulate a wire
    compare VIDEO --model face.npz      a page with H.264 and H.265 beside it
    demo                                all of it on a moving picture of an astronaut

Settings of the call are changed by name: `--set target_kbps=8 swap=true group=5`. A model suits the person it was
trained on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modicum import command
from modicum.cli import arguments as common
from modicum.cli import configs

EXAMPLES = (
    "demo",
    "train me.mp4 --model me.npz",
    "encode me.mp4 me.call --model me.npz --set target_kbps=8",
    "play me.mp4 --model me.npz --loss 0.05 --delay 0.1",
)
PLACES = {
    "train": ("video",),
    "encode": ("video", "call"),
    "decode": ("call", "video"),
    "play": (),
    "compare": ("video",),
    "demo": (),
}
"""Files that each of the commands wants."""


def flags(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = common.parser(prog, str(__doc__), EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, places in PLACES.items():
        sub = commands.add_parser(name)
        for place in places:
            sub.add_argument(place, type=Path)
        if name == "play":
            sub.add_argument("video", type=Path, nargs="?", help="a file; the first camera where there is none")
            sub.add_argument("--loss", type=float, default=0.0, help="share of packets that are lost")
            sub.add_argument("--delay", type=float, default=0.0, help="seconds that a packet takes")
            sub.add_argument("--seconds", type=float, default=20.0, help="length of the call")
        if name != "demo":
            sub.add_argument("--model", type=Path, required=True, help="file of the trained model")
        if name in ("train", "demo"):
            config = f"conference/{'personalized' if name == 'train' else 'demonstration'}"
            sub.add_argument("--config", default=config, help=f"how to train, by default {config}")
            common.add_devices(sub)
            sub.add_argument("--steps", type=int, help="optimizer steps, by default the config's")
        if name == "train":
            sub.add_argument("--size", type=int, choices=(64, 128, 256), help="side of the picture, likewise")
        sub.add_argument("--run", type=Path, default=Path("runs") / "call", help="folder of checkpoints and pages")
        sub.add_argument(
            "--set", nargs="*", default=[], dest="settings", metavar="key=value", help="settings of the call"
        )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = flags(argv, prog)
    command.stop_at_once_on_interrupt("")
    from rich.console import Console

    def work() -> None:
        from modicum.systems import face_commands

        if hasattr(arguments, "config"):
            arguments.config = configs.find(arguments.config)
        action: Any = getattr(face_commands, arguments.command)
        action(arguments, Console(stderr=True))

    return command.exit_code(work, f"is saved in {arguments.run}", prog)
