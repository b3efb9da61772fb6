"""Who holds which examples: the same for all, two classes each, or classes in proportions drawn at random."""

import numpy as np
from jaxtyping import Int

from modicum.core import check

Split = tuple[Int[np.ndarray, " _"], ...]
"""Indices of each client's examples, ascending; no example lies with two clients."""


def iid(seed: int, examples: int, clients: int) -> Split:
    """Equal shares drawn at random; the rest that does not fill them is left out.

    Args:
        seed: of the draw.
        examples: how many there are.
        clients: how many shares, from 1 to `examples`.

    Example:
        >>> [share.size for share in iid(0, 100, 3)]
        [33, 33, 33]
    """
    check.integer(1, examples, clients=clients)
    order = np.random.default_rng(seed).permutation(examples)
    size = examples // clients
    return tuple(np.sort(order[at * size : (at + 1) * size]) for at in range(clients))


def shards(seed: int, labels: Int[np.ndarray, " examples"], clients: int, each: int = 2) -> Split:
    """Examples sorted by label and cut into equal shards, of which each client draws some: few classes each.

    Args:
        seed: of the draw.
        labels: class of each example.
        clients: how many, at least 1.
        each: shards of a client, at least 1; `clients * each` shards of at least one example there must be.

    Reference:
        McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data (AISTATS 2017),
        section 3: the pathological non-IID partition, two shards each.
    """
    check.integer(1, clients=clients, each=each)
    check.integer(1, len(labels), shards=clients * each)
    rng = np.random.default_rng(seed)
    size = len(labels) // (clients * each)
    # examples of one class in random order, so that shards of a class are alike
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")][: size * clients * each]
    drawn = rng.permutation(clients * each).reshape(clients, each)
    return tuple(np.sort(order.reshape(-1, size)[mine].reshape(-1)) for mine in drawn)


def dirichlet(
    seed: int, labels: Int[np.ndarray, " examples"], clients: int, concentration: float, least: int = 1
) -> Split:
    """Each class is divided in proportions drawn from a symmetric Dirichlet distribution: shares differ in size.

    Args:
        seed: of the draw.
        labels: class of each example.
        clients: how many, at least 1.
        concentration: small for few classes each, large for equal proportions; above 0.
        least: examples that each client must get; the draw is repeated until it does, 1,000 times at most.

    Raises:
        ValueError: where it never does.

    Reference:
        Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution (2019).
    """
    check.integer(1, clients=clients)
    check.integer(0, least=least)
    check.finite_positive(concentration=concentration)
    rng = np.random.default_rng(seed)
    of_class = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    for _ in range(1000):
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for members in of_class:
            shares = rng.dirichlet(np.full(clients, concentration))
            cuts = np.rint(np.cumsum(shares)[:-1] * members.size).astype(int)
            for part, piece in zip(parts, np.split(members, cuts), strict=True):
                part.append(piece)
        split = tuple(np.sort(np.concatenate(part)) for part in parts)
        if min(share.size for share in split) >= least:
            return split
    raise ValueError(
        f"least must be a number of examples that {clients} clients can have at concentration {concentration}, "
        f"got {least}"
    )
