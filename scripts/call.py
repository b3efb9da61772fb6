"""Video calls by face motion: `python scripts/call.py demo` shows one, without any data, in about two minutes.

    call.py train VIDEO --model face.npz        learn a face from the first three quarters of a video
    call.py encode VIDEO CALL --model face.npz  a video as packets, in one file
    call.py decode CALL VIDEO --model face.npz  the packets as an MP4 again
    call.py play [VIDEO] --model face.npz       a call between two processes over UDP on this machine; a camera without
                                                VIDEO; --loss and --delay simulate a wire
    call.py compare VIDEO --model face.npz      a page with H.264 and H.265 beside it
    call.py demo                                all of it on a moving picture of an astronaut

Settings of the call are changed by name: `--set target_kbps=8 swap=true group=5`. A model suits the person it was
trained on.
Exit codes: 0 done, 2 bad input (one sentence on stderr), 130 interrupted.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from modicum import command

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "conference"


def flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Interrupted? {command.RESUME}.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "train": ("video",),
        "encode": ("video", "call"),
        "decode": ("call", "video"),
        "play": (),
        "compare": ("video",),
        "demo": (),
    }
    for name, places in texts.items():
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
            config = CONFIGS / f"{'personalized' if name == 'train' else 'demonstration'}.py"
            sub.add_argument("--config", type=Path, default=config, help="how to train")
            sub.add_argument("--steps", type=int, help="optimizer steps, by default the config's")
        if name == "train":
            sub.add_argument("--size", type=int, choices=(64, 128, 256), help="side of the picture, likewise")
        sub.add_argument("--run", type=Path, default=Path("runs") / "call", help="folder of checkpoints and pages")
        sub.add_argument(
            "--set", nargs="*", default=[], dest="settings", metavar="key=value", help="settings of the call"
        )
    return parser.parse_args(arguments)


def main() -> int:
    """Runs the command; returns the exit code."""
    arguments = flags()
    command.stop_at_once_on_interrupt("")
    from rich.console import Console

    def work() -> None:
        from modicum.systems import face_commands

        action: Any = getattr(face_commands, arguments.command)
        try:
            action(arguments, Console(stderr=True))
        except ImportError as error:
            raise ValueError(str(error)) from error

    return command.exit_code(work, f"is saved in {arguments.run}")


if __name__ == "__main__":
    sys.exit(main())
