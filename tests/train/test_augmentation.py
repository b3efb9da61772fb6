"""Crops and mirrors: each result is one of the 162 by NumPy, all are as likely, and a step repeats itself."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.models import ResNet
from modicum.train import (
    DataConfig,
    Experiment,
    OptimizerConfig,
    augment,
    batch_indices,
    batches,
    calibrated,
    evaluate,
    load,
    train,
)


def variants(image, pad):
    """All crops of an image and its mirror image, by slices."""
    both = [np.pad(way, ((pad, pad), (pad, pad), (0, 0))) for way in (image, image[:, ::-1])]
    h, w, _ = image.shape
    return np.array([way[i : i + h, j : j + w] for way in both for i in range(2 * pad + 1) for j in range(2 * pad + 1)])


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_every_result_is_a_crop_and_all_are_as_likely(pad, key):
    draws, kinds = 20_000, 2 * (2 * pad + 1) ** 2
    image = np.arange(1.0, 5 * 4 * 2 + 1, dtype=np.float32).reshape(5, 4, 2)
    images = jnp.tile(image[None], (draws, 1, 1, 1))
    found = np.asarray(jax.jit(augment, static_argnums=2)(key, images, pad))
    assert found.shape == images.shape
    values, which = np.unique(variants(image, pad).reshape(kinds, -1), axis=0, return_inverse=True)
    # crops that miss the image altogether are all zeros, and hence alike
    expected = np.bincount(which) * draws / kinds
    places = {row.tobytes(): i for i, row in enumerate(values)}
    counts = np.bincount([places[row.tobytes()] for row in found.reshape(draws, -1)], minlength=len(values))
    statistic, freedom = ((counts - expected) ** 2 / expected).sum(), len(values) - 1
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_a_square_is_cut_out_around_every_pixel_as_likely(key):
    draws, side, (height, width) = 8_000, 3, (6, 5)
    images = jnp.ones((draws, height, width, 2))
    cut = jax.jit(lambda key, images: augment(key, images, 0, mirror=False, cutout=side))
    found = np.asarray(cut(key, images))
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    # by slices: the square around each pixel, less at the edges
    expected = {}
    for row in range(height):
        for column in range(width):
            whole = np.ones((height, width))
            whole[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0
            expected[whole.tobytes()] = 0
    assert len(expected) == height * width
    for image in found[..., 0].astype(np.float64):
        expected[image.tobytes()] += 1
    mean = draws / len(expected)
    statistic, freedom = sum((count - mean) ** 2 / mean for count in expected.values()), len(expected) - 1
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_steps_repeat_and_differ(key):
    images = np.random.default_rng(0).normal(size=(12, 8, 8, 3)).astype(np.float32)
    data, labels = (images, np.arange(12)), np.arange(12)
    at = batches(data, key, 6, augment=True)
    first, chosen = jax.jit(at)(4)
    steps = jax.jit(lambda at: jax.lax.map(at, jnp.arange(40)))(batches(data, key, 6, augment=True))
    found, order = (np.asarray(array) for array in steps)
    np.testing.assert_array_equal(first, found[4])
    # the examples are those of the run without augmentation, each cropped
    np.testing.assert_array_equal(chosen, labels[np.asarray(batch_indices(key, 4, 12, 6))])
    for image, label in zip(np.asarray(first), np.asarray(chosen), strict=True):
        assert (variants(images[label], 4) == image).all((1, 2, 3)).any()
    assert len(jax.tree.leaves(at)) == 3
    # the same examples some epochs on come in another guise
    seen = found[order == order[0, 0]]
    assert len(seen) == 20
    assert len({image.tobytes() for image in seen}) > 10


def test_only_images_are_augmented(key):
    with pytest.raises(ValueError, match=r"inputs must have 4 or 5 axes, got shape \(6, 8\)"):
        batches((np.zeros((6, 8)), np.zeros(6)), key, 2, augment=True)
    with pytest.raises(ValueError, match="shift must be a whole number of at least 0, got -1"):
        augment(key, jnp.zeros((2, 4, 4, 1)), -1)


def test_training_with_batch_normalization_and_augmentation(tmp_path):
    config = Experiment(
        data=DataConfig(augment=True),
        model=ResNet(blocks=(1,), widths=(8,)),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.05, weight_decay=0.5),
        steps=6,
        batch=32,
        checkpoint_every=2,
    )
    result = train(config, tmp_path / "run")
    variables = result.state.params
    # decay, strong as it is, leaves the statistics alone; they are those of the training images
    training, held_out = load("digits", "train"), load("digits", "test")
    wild = jax.tree.map(lambda leaf: leaf + 9, variables["batch_stats"])
    again = calibrated(config.model, {**variables, "batch_stats": wild}, training.inputs)
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    found = evaluate(config.model.apply, variables, *held_out.arrays)
    assert found["accuracy"] == result.summary["test_accuracy"]
    assert result.summary["parameters"] == 9 * 8 + 2 * 9 * 64 + 3 * 16 + 90
    # where the run was cut it goes on to the same bits: take the last checkpoint away
    saved = {int(path.name): path for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {4, 6} <= set(saved)
    shutil.rmtree(saved[6])
    resumed = train(config, tmp_path / "run").state
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(result.state), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_shift_and_mirror_reach_the_batches():
    images = jnp.arange(4 * 5 * 5, dtype=jnp.float32).reshape(4, 5, 5, 1)
    labels = jnp.arange(4)
    still = batches((images, labels), jax.random.key(0), 4, augment=True, shift=0, mirror=False)(0)
    np.testing.assert_array_equal(still[0], images[still[1]])
    flipped = [
        batches((images, labels), jax.random.key(0), 4, augment=True, shift=0, mirror=True)(step) for step in range(4)
    ]
    same = [
        np.array_equal(one, images[label]) for taken, names in flipped for one, label in zip(taken, names, strict=True)
    ]
    turned = [
        np.array_equal(one, images[label, :, ::-1])
        for taken, names in flipped
        for one, label in zip(taken, names, strict=True)
    ]
    assert all(a != b for a, b in zip(same, turned, strict=True))
    assert any(same)
    assert any(turned)
    moved = batches((images, labels), jax.random.key(0), 4, augment=True, shift=1, mirror=False)(0)
    for one, label in zip(*moved, strict=True):
        padded = np.pad(images[label], ((1, 1), (1, 1), (0, 0)))
        assert any(np.array_equal(one, padded[i : i + 5, j : j + 5]) for i in range(3) for j in range(3))
    with pytest.raises(ValueError, match="shift must be"):
        DataConfig(shift=-1)
