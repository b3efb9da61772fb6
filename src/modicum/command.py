"""How the scripts end: an interrupt and bad input in one sentence. Nothing that takes time is imported here."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

RESUME = "run the same command again to go on"


def stop_at_once_on_interrupt(before: str = "\n") -> None:
    """From now on SIGINT ends the process without a traceback; a training loop has an answer of its own.

    Args:
        before: what is written before the sentence: an end to the line of a progress bar, say.
    """

    def stop(*_: object) -> None:
        os.write(2, f"{before}interrupted: {RESUME}\n".encode())
        os._exit(130)

    signal.signal(signal.SIGINT, stop)


def exit_code(work: Callable[[], None], saved: str) -> int:
    """0; 2 where the work refuses its input, whose sentence goes to stderr; 130 where training was interrupted.

    Args:
        work: does it, and prints what came out.
        saved: what became of the step in which training was interrupted: "is saved in runs/digits".
    """
    # here, as this takes seconds: an interrupt meanwhile is answered
    from modicum import train

    try:
        work()
    except train.Interrupted as interrupted:
        print(f"interrupted: step {interrupted.step} {saved}; {RESUME}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 2
    return 0
