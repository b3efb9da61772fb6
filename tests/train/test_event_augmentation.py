"""Altered events: each result is one that NumPy makes, all are as likely, and counts are thinned at the right rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from modicum.train import batch_indices, batches
from modicum.train.augmentation import augment_events

augmented = jax.jit(augment_events, static_argnames=("shift", "drop", "time_shift", "mirror", "flip_polarity"))


def shifted(recording, shift, time_shift):
    """All shifts of a recording, by slices: earlier and later, up and down, left and right."""
    t, h, w, _ = recording.shape
    room = [(time_shift, time_shift), (shift, shift), (shift, shift), (0, 0)]
    wide = np.pad(recording, room)
    return [
        wide[k : k + t, i : i + h, j : j + w]
        for k in range(2 * time_shift + 1)
        for i in range(2 * shift + 1)
        for j in range(2 * shift + 1)
    ]


def variants(recording, shift, time_shift, mirror, flip_polarity):
    ways = [recording, *([recording[:, :, ::-1]] if mirror else [])]
    ways += [way[..., ::-1] for way in ways] if flip_polarity else []
    return np.array([each for way in ways for each in shifted(way, shift, time_shift)])


@pytest.mark.parametrize(
    ("shift", "time_shift", "mirror", "flip_polarity"),
    [
        (0, 0, False, False),
        (2, 1, False, False),
        (0, 2, True, False),
        (1, 0, False, True),
        (1, 1, True, True),
    ],
)
def test_every_result_is_a_shift_and_all_are_as_likely(shift, time_shift, mirror, flip_polarity, key):
    draws = 20_000
    recording = np.arange(1, 3 * 4 * 3 * 2 + 1, dtype=np.uint8).reshape(3, 4, 3, 2)
    many = jnp.tile(recording[None], (draws, 1, 1, 1, 1))
    options = {"shift": shift, "time_shift": time_shift, "mirror": mirror, "flip_polarity": flip_polarity}
    found = augmented(key, many, drop=0.0, **options)
    assert (found.shape, found.dtype) == (many.shape, np.uint8)
    allowed = variants(recording, shift, time_shift, mirror, flip_polarity)
    kinds = len(allowed)
    values, which = np.unique(allowed.reshape(kinds, -1), axis=0, return_inverse=True)
    places = {row.tobytes(): i for i, row in enumerate(values)}
    # a result that no slice of NumPy's makes has no place
    counts = np.bincount([places[row.tobytes()] for row in np.asarray(found).reshape(draws, -1)], minlength=len(values))
    # shifts past the whole recording are all zeros, and hence alike
    expected = np.bincount(which) * draws / kinds
    statistic, freedom = ((counts - expected) ** 2 / expected).sum(), len(values) - 1
    assert abs(statistic - freedom) <= 5 * np.sqrt(2 * freedom)


def chi_square(thinned, count, keep):
    """How far draws lie from `Binomial(count, keep)`, in standard deviations; rare values are taken together."""
    expected = stats.binom.pmf(np.arange(count + 1), count, keep) * thinned.size
    found = np.bincount(thinned.ravel(), minlength=count + 1)
    common = expected > 8
    expected = np.array([*expected[common], max(expected[~common].sum(), 1e-9)])
    found = np.array([*found[common], found[~common].sum()])
    used = expected > 1
    assert found[~used].sum() <= 30
    freedom = used.sum() - 1
    return (((found - expected) ** 2 / expected)[used].sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("drop", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("count", [1, 2, 8, 9, 100, 255])
def test_counts_are_thinned_binomially(drop, count, key):
    events = jnp.full((8, 10, 20, 20, 2), count, jnp.uint8)
    found = np.asarray(augmented(key, events, shift=0, drop=drop))
    assert found.dtype == np.uint8
    assert found.max() <= count
    assert abs(chi_square(found, count, 1 - drop)) < 6
    # mean, against the standard deviation of the mean; the same test would see a wrong rate
    spread = np.sqrt(count * drop * (1 - drop) / found.size)
    assert abs(found.mean() - count * (1 - drop)) < 5 * spread
    wrong = drop + 0.02
    assert abs(found.mean() - count * (1 - wrong)) > 5 * spread
    assert chi_square(found, count, 1 - wrong) > 6


def test_events_vanish_one_by_one(key):
    """No two pixels, bins, polarities or recordings share their chance."""
    events = jnp.full((40, 10, 10, 10, 2), 3, jnp.uint8)
    found = np.asarray(augmented(key, events, shift=0, drop=0.4)).astype(float) - 3 * 0.6
    found /= np.sqrt(3 * 0.6 * 0.4)
    for axis in range(5):
        neighbors = np.moveaxis(found, axis, 0)
        products = neighbors[:-1] * neighbors[1:]
        assert abs(products.mean()) < 5 / np.sqrt(products.size)
    # nor do the pieces of one pixel's events that are drawn together: the variance would show it
    many = np.asarray(augmented(key, jnp.full((10, 10, 10, 10, 2), 160, jnp.uint8), shift=0, drop=0.4))
    variance, expected = many.astype(float).var(), 160 * 0.4 * 0.6
    assert abs(variance / expected - 1) < 5 * np.sqrt(2 / many.size)


def test_empty_stays_empty_and_the_ends_are_exact(key):
    events = jnp.asarray(np.random.default_rng(0).poisson(0.3, (6, 5, 8, 8, 2)), jnp.uint8)
    np.testing.assert_array_equal(augmented(key, events, shift=0, drop=1.0), jnp.zeros_like(events))
    np.testing.assert_array_equal(augment_events(key, events, 0, drop=0), events)
    thinned = np.asarray(augmented(key, events, shift=0, drop=0.5))
    assert (thinned <= np.asarray(events)).all()
    assert not thinned[np.asarray(events) == 0].any()
    np.testing.assert_array_equal(augmented(key, jnp.zeros_like(events), shift=0, drop=0.5), jnp.zeros_like(events))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_any_dtype_is_kept_and_thinned_alike(dtype, key):
    events = np.random.default_rng(2).integers(0, 40, (6, 5, 8, 8, 2))
    expected = augmented(key, jnp.asarray(events, jnp.uint8), shift=1, drop=0.3, time_shift=1)
    found = augmented(key, jnp.asarray(events, dtype), shift=1, drop=0.3, time_shift=1)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(jnp.uint8), expected)
    if dtype == "float32":
        # of fractions the whole events count
        halves, wholes = (
            np.asarray(augmented(key, jnp.asarray(events + more, dtype), shift=0, drop=0.3)) for more in (0.5, 0)
        )
        np.testing.assert_array_equal(halves - 0.5, wholes)


def test_a_function_of_the_key(key):
    events = jnp.asarray(np.random.default_rng(1).poisson(1.0, (6, 5, 8, 8, 2)), jnp.uint8)
    options = {"shift": 2, "drop": 0.2, "time_shift": 1, "mirror": True, "flip_polarity": True}
    once = augment_events(key, events, **options)
    np.testing.assert_array_equal(once, augment_events(key, events, **options))
    np.testing.assert_array_equal(once, augmented(key, events, **options))
    keys = jax.random.split(key, 3)
    mapped = jax.jit(jax.vmap(lambda key: augment_events(key, events, **options)))(keys)
    for one, each in zip(mapped, keys, strict=True):
        np.testing.assert_array_equal(one, augmented(each, events, **options))
    assert len({np.asarray(one).tobytes() for one in [once, *mapped]}) == 4


def test_steps_of_a_batch_repeat_and_never_mirror(key):
    generator = np.random.default_rng(1)
    recordings = generator.poisson(2.0, (12, 4, 9, 9, 2)).astype(np.uint8)
    data, labels = (recordings, np.arange(12)), np.arange(12)
    at = batches(data, key, 6, augment=True)
    first, chosen = jax.jit(at)(4)
    found, order = (np.asarray(part) for part in jax.jit(lambda at: jax.lax.map(at, jnp.arange(30)))(at))
    np.testing.assert_array_equal(first, found[4])
    np.testing.assert_array_equal(chosen, labels[np.asarray(batch_indices(key, 4, 12, 6))])
    assert found.dtype == np.uint8
    kept = whole = 0
    for recording, label in zip(found.reshape(-1, 4, 9, 9, 2), order.ravel(), strict=True):
        # under exactly one of the 25 shifts is no count larger than it was, and under none of the mirror image's
        fitting = [way for way in shifted(recordings[label], 2, 0) if (recording <= way).all()]
        assert len(fitting) == 1
        assert not any((recording <= way).all() for way in shifted(recordings[label][:, :, ::-1], 2, 0))
        kept, whole = kept + recording.sum(dtype=int), whole + fitting[0].sum(dtype=int)
    # a tenth is dropped; nine or eleven hundredths would not pass
    assert abs(kept / whole - 0.9) < 5 * np.sqrt(0.09 / whole) < 0.01
    # the same examples some epochs on come in another guise
    seen = found[order == 0]
    assert len({recording.tobytes() for recording in seen}) == len(seen) == 15


def test_bad_arguments(key):
    events = jnp.zeros((2, 3, 4, 4, 2), jnp.uint8)
    with pytest.raises(ValueError, match="shift must be a whole number of at least 0, got -1"):
        augment_events(key, events, -1)
    with pytest.raises(ValueError, match="time_shift must be a whole number of at least 0, got -2"):
        augment_events(key, events, time_shift=-2)
    with pytest.raises(ValueError, match=r"drop must lie from 0 to 1, got 1.1"):
        augment_events(key, events, drop=1.1)
    with pytest.raises(ValueError, match=r"inputs must have 4 or 5 axes, got shape \(6, 2, 2\)"):
        batches((np.zeros((6, 2, 2)), np.zeros(6)), key, 2, augment=True)
