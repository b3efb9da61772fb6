"""The graph of SecAgg+: who is whose neighbour, and how many neighbours are enough."""

import bisect
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from modicum.core import check
from modicum.federated.masks import mask_words


class GraphSize(NamedTuple):
    """`neighbours` and `threshold` of a `SecAggSpec`."""

    neighbours: int
    """Neighbours of each client, even."""
    threshold: int
    """Who must stay of a client and its neighbours."""


def check_neighbours(clients: int, neighbours: int) -> None:
    """A regular graph of so many clients with so many neighbours each exists and holds together.

    Raises:
        ValueError: naming `neighbours`.
    """
    check.integer(2, clients - 1, neighbours=neighbours)
    if clients * neighbours % 2:
        raise ValueError(f"neighbours must be even where the number of clients, {clients}, is odd, got {neighbours}")


def neighbours_of(seed: bytes, clients: int, neighbours: int) -> Int[np.ndarray, " clients neighbours"]:
    """Each client's neighbours in a Harary graph over a random permutation of the clients.

    On a ring each is joined to the `neighbours // 2` before and after it, and where `neighbours` is odd to the one
    across. The graph cannot be cut by fewer than `neighbours` nodes.

    Args:
        seed: 32 bytes that all parties know; they decide the permutation.
        clients: how many.
        neighbours: of each, from 2 to `clients - 1`; even where `clients` is odd.

    Returns:
        Each client's neighbours, ascending.

    Raises:
        ValueError: where there is no such graph.

    Example:
        >>> neighbours_of(bytes(32), 5, 4)[2].tolist()
        [0, 1, 3, 4]
    """
    check_neighbours(clients, neighbours)
    order = np.argsort(mask_words(seed, 2 * clients).view("<u8"), kind="stable")
    half = neighbours // 2
    steps = [*range(1, half + 1), *range(-half, 0), *[clients // 2] * (neighbours % 2)]
    around = np.empty((clients, neighbours), np.int64)
    around[order] = order[(np.arange(clients)[:, None] + np.array(steps)) % clients]
    return np.sort(around, axis=1)


def graph_size(clients: int, dropped: float, corrupted: float, bits: int = 40) -> GraphSize:
    """The fewest neighbours with which a round neither fails nor lays anyone open, but with probability `2^-bits`.

    Of the clients, the share `dropped` falls silent and the share `corrupted` sides with the server; neither depends
    on the graph. Three events are bad, and their probabilities added up over all clients:

    - among an honest client's neighbours `2 threshold - neighbours - 1` or more are corrupted, so that the server
      could find enough holders for both of its secrets, or leave its vector in no sum with an honest one;
    - of a client and its neighbours fewer than the threshold stay, so that the round has no sum;
    - `neighbours / 2` in a row on the ring are dropped or corrupted, so that the sum might fall in two parts.

    Args:
        clients: at least 3.
        dropped: share of the clients, from 0 to 1.
        corrupted: share of the clients, from 0 to 1.
        bits: the probability of a bad event, as a power of 1/2.

    Raises:
        ValueError: where not even all others as neighbours would do.

    Reference:
        Bell et al., section 3.4: tails of the hypergeometric distribution, here in exact whole numbers. The first event
        is that of the protocol for active servers; the client itself counts as a holder of its shares.

    Example:
        >>> graph_size(1000, dropped=0.05, corrupted=0.05)
        GraphSize(neighbours=72, threshold=49)
    """
    check.integer(3, clients=clients)
    check.between(0, 1, dropped=dropped, corrupted=corrupted)
    check.integer(1, bits=bits)
    silent, sided = math.ceil(dropped * clients), math.ceil(corrupted * clients)

    def best(neighbours: int) -> tuple[float, int]:
        """The smallest probability, and its threshold."""
        opened, lost = _tails(clients - 1, sided, neighbours), _tails(clients - 1, silent, neighbours)
        removed, run = min(silent + sided, clients), neighbours // 2
        cut = clients * math.comb(removed, run) / math.comb(clients, run)
        thresholds = range(neighbours // 2 + 1, neighbours + 1)
        return min(
            (clients * (opened[2 * each - neighbours - 1] + lost[neighbours + 1 - each]) + cut, each)
            for each in thresholds
        )

    sizes = range(2, clients, 2)

    def enough(at: int) -> bool:
        return best(sizes[at])[0] <= 2.0**-bits

    # more neighbours are safer: doubling finds some that are enough, halving the first
    above = 1
    while above < len(sizes) and not enough(above):
        above *= 2
    at = bisect.bisect_left(range(len(sizes)), True, hi=min(above + 1, len(sizes)), key=enough)
    if at == len(sizes):
        raise ValueError(
            f"clients must be more than {clients} for a graph with dropped={dropped} and corrupted={corrupted} to fail "
            f"with probability below 2^-{bits}"
        )
    return GraphSize(sizes[at], best(sizes[at])[1])


def _tails(others: int, marked: int, drawn: int) -> list[float]:
    """Probability that at least `x` of `drawn` out of `others` are `marked`, for `x` from 0 to `drawn + 1`."""
    marked = min(marked, others)
    first, last = max(0, drawn + marked - others), min(marked, drawn)
    ways = math.comb(marked, first) * math.comb(others - marked, drawn - first)
    counts = [0] * (drawn + 2)
    for x in range(first, last + 1):
        counts[x] = ways
        ways = ways * (marked - x) * (drawn - x) // ((x + 1) * (others - marked - drawn + x + 1))
    whole, total, tails = math.comb(others, drawn), 0, [0.0] * (drawn + 2)
    for x in range(drawn + 1, -1, -1):
        total += counts[x]
        tails[x] = total / whole
    return tails
