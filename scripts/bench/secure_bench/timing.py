"""CPU time of one call; nothing is imported that a peer's environment may lack."""

import time


def timed(function, *arguments):
    """What a function returns, and the seconds of CPU it took."""
    started = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - started
