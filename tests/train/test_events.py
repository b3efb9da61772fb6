"""Events: binned as loops do it, split as the file says, refused in one sentence; what trains on them takes uint8."""

import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.models.normalized import conv_norm
from modicum.train import DataConfig, Experiment, OptimizerConfig, batches, calibrated, evaluate, events, load, train

FILE = "events/nmnist-small/nmnist_small.npz"


def frames_by_loops(file, i, bin_milliseconds):
    """One event after another: its time from `counts`, its place from `addr`."""
    frames = np.zeros((-(-337 // bin_milliseconds), 34, 34, 2), int)
    position = int(file["offsets"][i])
    for millisecond in range(337):
        for _ in range(int(file["counts"][i][millisecond])):
            address = int(file["addr"][position])
            polarity, row, column = address // 1156, address % 1156 // 34, address % 34
            frames[millisecond // bin_milliseconds, row, column, polarity] += 1
            position += 1
    assert position == file["offsets"][i + 1]
    return np.minimum(frames, 255)


def made_up(root, size=5, train=3):
    """A file of few recordings, in which one pixel sees up to 255 events in a millisecond."""
    generator = np.random.default_rng(3)
    counts = generator.integers(0, 4, (size, 337)).astype(np.uint8)
    counts[1, 20:25] = 255
    addresses = [generator.integers(0, 2312, counts[i].sum()) for i in range(size)]
    start = int(counts[1, :20].sum())
    addresses[1][start : start + 5 * 255] = 1156 + 7 * 34 + 9
    file = {
        "addr": np.concatenate(addresses).astype(np.uint16),
        "counts": counts,
        "offsets": np.cumsum([0, *counts.sum(1)]).astype(np.int64),
        "label": np.arange(size, dtype=np.uint8),
        "n_train": np.int32(train),
    }
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **file)
    return file


@pytest.fixture(scope="module")
def real(data_root):
    if not (data_root / FILE).is_file():
        pytest.skip(f"no {FILE} at {data_root}")
    with np.load(data_root / FILE) as file:
        return dict(file)


def test_no_event_is_lost_in_either_split(data_root, real):
    train, test = (load("nmnist-small", split, data_root) for split in ("train", "test"))
    assert (train.inputs.shape, test.inputs.shape) == ((1000, 34, 34, 34, 2), (100, 34, 34, 34, 2))
    assert train.inputs.dtype == test.inputs.dtype == np.uint8
    assert train.labels.dtype == test.labels.dtype == np.int32
    totals = np.concatenate([part.inputs.sum((1, 2, 3, 4), dtype=np.int64) for part in (train, test)])
    np.testing.assert_array_equal(totals, np.diff(real["offsets"]))
    # the number that the data set's README gives
    assert totals.sum() == 4_518_827
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), real["label"])
    assert (train.info.classes, train.info.class_names) == (10, tuple("0123456789"))
    # events per step, rows and polarities of all recordings together, from the addresses alone
    rows = np.bincount(real["addr"].astype(int) % 1156 // 34, minlength=34)
    polarities = np.bincount(real["addr"].astype(int) // 1156, minlength=2)
    steps = np.add.reduceat(real["counts"].sum(0), range(0, 337, 10))
    both = sum(part.inputs.sum(0, dtype=np.int64) for part in (train, test))
    np.testing.assert_array_equal(both.sum((0, 2, 3)), rows)
    np.testing.assert_array_equal(both.sum((0, 1, 2)), polarities)
    np.testing.assert_array_equal(both.sum((1, 2, 3)), steps)


@pytest.mark.parametrize("bin_milliseconds", [7, 10, 337])
def test_real_recordings_against_loops(data_root, real, bin_milliseconds):
    parts = [load("nmnist-small", split, data_root, bin_milliseconds=bin_milliseconds) for split in ("train", "test")]
    for i in (0, 1, 517, 999, 1000, 1099):
        found = parts[i // 1000].inputs[i % 1000]
        np.testing.assert_array_equal(found, frames_by_loops(real, i, bin_milliseconds))


def test_a_recording_as_the_readme_reads_it(data_root, real):
    i = 42
    addr = real["addr"][real["offsets"][i] : real["offsets"][i + 1]].astype(int)
    t = np.repeat(np.arange(337), real["counts"][i])
    frames = np.zeros((34, 2 * 34 * 34), np.uint8)
    np.add.at(frames, (t // 10, addr), 1)
    frames = frames.reshape(34, 2, 34, 34)
    found = load("nmnist-small", "train", data_root).inputs[i]
    np.testing.assert_array_equal(found, frames.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("bin_milliseconds", [1, 2, 10, 100, 336, 337])
def test_made_up_recordings_against_loops(tmp_path, monkeypatch, bin_milliseconds):
    file = made_up(tmp_path)
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path))
    train, test = (load("nmnist-small", split, bin_milliseconds=bin_milliseconds) for split in ("train", "test"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [3, 4])
    for i, found in enumerate([*train.inputs, *test.inputs]):
        np.testing.assert_array_equal(found, frames_by_loops(file, i, bin_milliseconds))
    # 255 events and more in a pixel: no wrap to 0
    assert train.inputs[1, 20 // bin_milliseconds, 7, 9, 1] == 255
    # the folder itself may be named, as with the other kinds
    inside = load("nmnist-small", "test", tmp_path / "events", bin_milliseconds=bin_milliseconds)
    np.testing.assert_array_equal(inside.inputs, test.inputs)


def test_a_label_can_be_changed_and_the_next_load_is_whole(tmp_path):
    made_up(tmp_path)
    load("nmnist-small", "test", tmp_path).labels[:] = 9
    assert load("nmnist-small", "test", tmp_path).labels.tolist() == [3, 4]


@pytest.mark.parametrize("length", [0, -1, 338, 2.5, True, "10"])
def test_a_bin_is_a_whole_number_of_milliseconds(length):
    # past the type check of this test run's import hook, as a user's call would be
    with pytest.raises(ValueError, match="bin_milliseconds must be a whole number of at least 1 and at most 337, got"):
        load.__wrapped__("nmnist-small", "train", bin_milliseconds=length)


def test_only_events_have_bins():
    with pytest.raises(ValueError, match="bin_milliseconds must be 10 for data 'digits', got 5: only nmnist-small has"):
        load("digits", "train", bin_milliseconds=5)
    for arguments, message in (({"speaker": "theo"}, "speaker must be None"), ({"features": "mfcc"}, "features must")):
        with pytest.raises(ValueError, match=f"{message}.* for data 'nmnist-small'"):
            load("nmnist-small", "train", **arguments)


def sentence(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_what_is_missing_or_damaged_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"data 'nmnist-small' must lie in .*, but there is no folder") as error:
        load("nmnist-small", "train", tmp_path / "none")
    assert str(tmp_path / "none" / "events") in sentence(error)
    assert "set MODICUM_DATA to the folder" in sentence(error)
    (tmp_path / "events").mkdir()
    with pytest.raises(ValueError, match=r"nmnist_small.npz is not there: set MODICUM_DATA") as error:
        load("nmnist-small", "train", tmp_path)
    assert f"must lie in {tmp_path / 'events' / 'nmnist-small'}, but" in sentence(error)
    for split in ("tset", "train[:90%]"):
        with pytest.raises(ValueError, match="split of nmnist-small must be one of 'train', 'test', got") as error:
            load("nmnist-small", split, tmp_path)
        assert ("did you mean 'test'?" in sentence(error)) == (split == "tset")


def damage_nothing(file):
    del file["n_train"]


def damage_address(file):
    file["addr"][-1] = 2312


def damage_counts(file):
    file["counts"][0, 0] += 1


def damage_offsets(file):
    file["offsets"] = file["offsets"][:-1]


def damage_split(file):
    file["n_train"] = np.int32(6)


@pytest.mark.parametrize("damage", [damage_nothing, damage_address, damage_counts, damage_offsets, damage_split])
def test_arrays_that_do_not_fit_are_refused(tmp_path, damage):
    file = made_up(tmp_path)
    damage(file)
    np.savez(tmp_path / FILE, **file)
    with pytest.raises(ValueError, match=r"data in .*nmnist_small.npz must be whole, got: ") as error:
        load("nmnist-small", "train", tmp_path)
    sentence(error)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, share):
    made_up(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"data in .*nmnist_small.npz must be whole, got: ") as error:
        load("nmnist-small", "train", tmp_path)
    sentence(error)
    # nothing of it stays in memory
    (tmp_path / FILE).write_bytes(whole)
    assert load("nmnist-small", "test", tmp_path).labels.tolist() == [3, 4]


class Still(nn.Module):
    """A small network on the sum over time; it casts what it takes."""

    classes: int = 10

    @nn.compact
    def __call__(self, events, training=False):
        x = conv_norm(training, events.astype(jnp.float32).mean(1), 4, 3, stride=2)
        return nn.Dense(self.classes)(nn.relu(x).mean((1, 2)))


def test_bytes_are_what_trains_and_is_tested(tmp_path, key):
    made_up(tmp_path, size=40, train=30)
    path = tmp_path / FILE
    with np.load(path) as file:
        np.savez(path.with_name("other.npz"), **{**file, "label": (file["label"] % 10).astype(np.uint8)})
    shutil.move(path.with_name("other.npz"), path)
    config = Experiment(
        data=DataConfig(name="nmnist-small", bin_milliseconds=100, augment=True),
        model=Still(),
        optimizer=OptimizerConfig(learning_rate=0.01),
        steps=3,
        batch=8,
    )
    result = train(config, root=tmp_path)
    training, held_out = (load("nmnist-small", split, tmp_path, bin_milliseconds=100) for split in ("train", "test"))
    assert training.inputs.shape == (30, 4, 34, 34, 2)
    variables, floats = result.state.params, [part.inputs.astype(np.float32) for part in (training, held_out)]
    found = evaluate(config.model.apply, variables, *held_out.arrays, batch=4)
    assert found == evaluate(config.model.apply, variables, floats[1], held_out.labels, batch=4)
    assert found["accuracy"] == result.summary["test_accuracy"]
    wild = {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf + 9, variables["batch_stats"])}
    for inputs in (training.inputs, floats[0]):
        again = calibrated(config.model, wild, inputs)
        for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(a, b)
    # without augmentation a batch is the bytes themselves
    inputs, labels = jax.jit(batches((training.inputs, np.arange(30)), key, 8))(2)
    assert inputs.dtype == jnp.uint8
    np.testing.assert_array_equal(inputs, training.inputs[np.asarray(labels)])


def test_a_model_without_a_step_for_the_data_is_refused(tmp_path):
    made_up(tmp_path)
    config = Experiment(data=DataConfig(name="nmnist-small"), model=Still(classes=7), batch=2)
    with pytest.raises(ValueError, match=r"model.classes must be 10 for data 'nmnist-small', got 7"):
        train(config, root=tmp_path)
    assert events.MILLISECONDS == 337
