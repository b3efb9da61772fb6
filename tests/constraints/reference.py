"""Independent truth: every point of a small set that can be nearest, by enumeration in float64.

A set here is a rule on the signs of a weight (which elements may be non-zero together, which may be negative), and
a grid or none on its values. So the nearest point is the best over all sign vectors in {-1, 0, 1}^n that obey the
rule, element by element. Nothing is shared with the library: HWIO is indexed by hand.
"""

import itertools

import numpy as np

from modicum.constraints import Channels, Kernels, Levels, NaturalPatterns, Nest, NofM, Patterns, Polarized, TopK


def members(constraint):
    return constraint.members if isinstance(constraint, Nest) else (constraint,)


def by_kernel(signs):
    """`(m, *shape)` to `(m, outputs, inputs, taps)`."""
    if signs.ndim == 3:
        m, inputs, outputs = signs.shape
        signs = signs.reshape(m, 1, 1, inputs, outputs)
    m, kh, kw, inputs, outputs = signs.shape
    kernels = np.empty((m, outputs, inputs, kh * kw), signs.dtype)
    for o, i, y, x in itertools.product(range(outputs), range(inputs), range(kh), range(kw)):
        kernels[:, o, i, y * kw + x] = signs[:, y, x, i, o]
    return kernels


def obeys_kernels(constraint, kernels):
    used = (kernels != 0).any(axis=-1)
    if not constraint.balanced:
        return used.sum(axis=(1, 2)) <= constraint.k
    starts = range(0, used.shape[1], constraint.group)
    counts = [used[:, at : at + constraint.group].any(axis=1).sum(axis=-1) for at in starts]
    return (np.array(counts) <= constraint.k).all(axis=0)


def obeys_patterns(constraint, kernels):
    _, outputs, inputs, taps = kernels.shape
    ok = np.ones(len(kernels), bool)
    if isinstance(constraint, NaturalPatterns):
        library = [np.flatnonzero(row) for row in np.asarray(constraint.table)]
    else:
        library = constraint.library
    outside = [[tap for tap in range(taps) if tap not in pattern] for pattern in library]
    for at, i in itertools.product(range(0, outputs, constraint.group), range(inputs)):
        shared = kernels[:, at : at + constraint.group, i]
        ok &= np.any([(shared[:, :, off] == 0).all(axis=(1, 2)) for off in outside], axis=0)
    return ok


def obeys_polarized(constraint, kernels):
    m, outputs, inputs, taps = kernels.shape
    columns = kernels.reshape(m, outputs, inputs * taps)
    ok = np.ones(m, bool)
    for at in range(0, inputs * taps, constraint.fragment):
        piece = columns[:, :, at : at + constraint.fragment]
        ok &= ~((piece > 0).any(axis=-1) & (piece < 0).any(axis=-1)).any(axis=-1)
    return ok


def obeys_nofm(constraint, signs):
    used = np.moveaxis(signs != 0, constraint.axis if constraint.axis < 0 else constraint.axis + 1, 1)
    starts = range(0, used.shape[1], constraint.m)
    counts = [used[:, at : at + constraint.m].sum(axis=1).reshape(len(signs), -1).max(axis=1) for at in starts]
    return (np.array(counts) <= constraint.n).all(axis=0)


def obeys_channels(constraint, signs):
    used = (np.moveaxis(signs, constraint.axis, 1) != 0).reshape(len(signs), signs.shape[constraint.axis], -1)
    return used.any(axis=2).sum(axis=1) <= constraint.k


def obeys(constraint, signs):
    """Which of the sign arrays `(m, *shape)` lie in the set."""
    ok = np.ones(len(signs), bool)
    for member in members(constraint):
        if isinstance(member, TopK):
            ok &= (signs.reshape(len(signs), -1) != 0).sum(axis=1) <= member.k
        elif isinstance(member, Kernels):
            ok &= obeys_kernels(member, by_kernel(signs))
        elif isinstance(member, NofM):
            ok &= obeys_nofm(member, signs)
        elif isinstance(member, Channels):
            ok &= obeys_channels(member, signs)
        elif isinstance(member, Patterns | NaturalPatterns):
            ok &= obeys_patterns(member, by_kernel(signs))
        elif isinstance(member, Polarized):
            ok &= obeys_polarized(member, by_kernel(signs))
    return ok


def magnitudes(levels):
    """Levels in units of the scale, by what each kind is for: shifts, or the digits that cells hold."""
    top = 2 ** (levels.bits - 1) - 1
    if levels.kind == "fixed":
        return list(range(top + 1))
    if levels.kind == "powers":
        return [0] + [2**shift for shift in range(2 ** (levels.bits - 1) - 1)]
    cells = range(0, levels.bits - 1, levels.cell_bits)
    digits = itertools.product(range(2**levels.cell_bits), repeat=len(cells))
    few = [each for each in digits if sum(digit > 0 for digit in each) <= levels.slices]
    values = {sum(digit << cell for digit, cell in zip(each, cells, strict=True)) for each in few}
    return sorted(value for value in values if value <= top)


def grid(constraint):
    for member in members(constraint):
        if isinstance(member, Levels):
            positive = np.array(magnitudes(member))
            return float(np.float32(member.scale)) * np.concatenate([-positive[:0:-1], positive])
    return None


def lies_in(constraint, points):
    """Which of the points `(m, *shape)` lie in the set."""
    ok = obeys(constraint, np.sign(points))
    levels = grid(constraint)
    if levels is None:
        return ok
    nearest = np.abs(points[..., None] - levels).min(axis=-1)
    return ok & (nearest.reshape(len(points), -1).max(axis=1) <= 1e-6 * np.abs(levels).max())


def sign_gains(constraint, w):
    """Energy each element keeps with sign -1 and with sign +1: `(2, m, n)`."""
    w = np.asarray(w, np.float64).reshape(len(w), -1)
    levels = grid(constraint)
    if levels is None:
        return np.stack([np.where(w < 0, w**2, 0), np.where(w > 0, w**2, 0)])
    gains = w[..., None] ** 2 - (w[..., None] - levels) ** 2
    return np.stack([gains[..., levels <= 0].max(axis=-1), gains[..., levels >= 0].max(axis=-1)])


def best_gain(constraint, w):
    """`||w||^2 - dist^2` of each weight in `(m, *shape)`, the maximum over all sign vectors of the set."""
    shape = w.shape[1:]
    signs = np.array(list(itertools.product((-1, 0, 1), repeat=int(np.prod(shape)))), np.int8)
    allowed = signs[obeys(constraint, signs.reshape(-1, *shape))]
    negative, positive = sign_gains(constraint, w)
    best = np.full(len(w), -np.inf)
    for part in np.array_split(allowed, -(-len(allowed) // 4096)):  # in parts, to keep memory small
        gains = negative @ (part == -1).T.astype(float) + positive @ (part == 1).T.astype(float)
        best = np.maximum(best, gains.max(axis=1))
    return best


def instances(rng, shape, count):
    """Random weights: Gaussian; small whole numbers (ties and zeros everywhere); wide ranges; all-equal magnitudes."""
    quarter = -(-count // 4)
    normal = rng.normal(size=(quarter, *shape))
    whole = rng.integers(-2, 3, size=(quarter, *shape)).astype(float)
    wide = rng.normal(size=(quarter, *shape)) * 10.0 ** rng.integers(-3, 1, size=(quarter, *shape))
    equal = rng.choice([-1.0, 1.0], size=(quarter, *shape)) * (rng.random((quarter, *shape)) < 0.8)
    return np.concatenate([normal, whole, wide, equal]).astype(np.float32)
