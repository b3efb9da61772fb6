"""How commands end: an interrupt and bad input in one sentence. Nothing that takes time is imported here."""

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


def exit_code(work: Callable[[], None], saved: str, name: str | None = None) -> int:
    """How a command ends: 0 where the work is done; else one sentence on stderr and a code that is not 0.

    2 where the work refuses its input, or a file that was named is not there; 1 where it fails for another reason (a
    disk that is full, a package of an extra that is not installed); 130 where training was interrupted.

    Args:
        work: does it, and prints what came out.
        saved: what became of the step in which training was interrupted: "is saved in runs/digits".
        name: of the command, which leads the sentence; by default that of the script.
    """
    # here, as this takes seconds: an interrupt meanwhile is answered
    from modicum import train

    def said(error: Exception, code: int) -> int:
        print(f"{name or Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return code

    try:
        work()
    except train.Interrupted as interrupted:
        print(f"interrupted: step {interrupted.step} {saved}; {RESUME}", file=sys.stderr)
        return 130
    except (ValueError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        return said(error, 2)
    except OSError as error:
        return said(error, 1)
    except ImportError as error:
        # only our own sentence about an extra: any other is a defect, whose traceback is wanted
        if not str(error).startswith("this needs the package"):
            raise
        return said(error, 1)
    return 0
