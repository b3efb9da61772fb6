"""Data: the counts and statistics that are published for each set, splits that do not leak, failures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from modicum.train import DataInfo, channel_statistics, load, prepared, speech, text


def test_digits_are_split_once_and_for_all():
    train, test = load("digits", "train"), load("digits", "test")
    assert (train.inputs.shape, test.inputs.shape) == ((1297, 8, 8, 1), (500, 8, 8, 1))
    assert train.inputs.dtype == np.float32
    assert train.labels.dtype == np.int32
    scale, mean = train.info.std[0] * 16, train.info.mean[0] * 16
    pixels = [np.rint(part.inputs[..., 0] * scale + mean).astype(int) for part in (train, test)]
    bundled = load_digits()

    def census(images, labels):
        return sorted(
            (tuple(image.ravel().astype(int)), int(label)) for image, label in zip(images, labels, strict=True)
        )

    # together they are the bundled set, each image once
    together = census(np.concatenate(pixels), np.concatenate([train.labels, test.labels]))
    assert together == census(bundled.images, bundled.target)
    # in proportion: no class is off by a whole example
    expected = np.bincount(bundled.target) * 500 / 1797
    assert np.abs(np.bincount(test.labels) - expected).max() < 1
    # the split is part of what published scores mean: it must never move
    assert int((np.arange(500) * test.labels).sum() % 9973) == 4507


def test_digits_are_standardized_by_the_training_split():
    train, test = load("digits", "train"), load("digits", "test")
    assert abs(train.inputs.mean(dtype=np.float64)) < 1e-6
    assert abs(train.inputs.std(dtype=np.float64) - 1) < 1e-6
    assert 1e-4 < abs(test.inputs.mean(dtype=np.float64)) < 0.05
    assert (train.info.mean, train.info.std) == (test.info.mean, test.info.std)


def test_channel_statistics_against_numpy():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 2)).astype(np.uint8)
    mean, std = channel_statistics(images, 255)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-12)


def test_a_data_set_is_a_pytree_with_static_facts():
    digits = load("digits", "test")
    assert len(jax.tree.leaves(digits)) == 2
    assert digits.info == load("digits", "test").info
    total = jax.jit(lambda data: data.inputs.sum() + data.info.classes)(digits)
    assert float(total) == pytest.approx(digits.inputs.sum() + 10, abs=0.1)


@pytest.mark.parametrize(
    ("name", "sizes", "shape", "mean", "std"),
    [
        ("mnist", (60_000, 10_000), (28, 28, 1), (0.1307,), (0.3081,)),
        ("cifar10:3.0.2", (50_000, 10_000), (32, 32, 3), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ],
)
def test_images_from_tfds(data_root, name, sizes, shape, mean, std):
    train, test = (load(name, split, data_root) for split in ("train", "test"))
    assert (train.inputs.shape, test.inputs.shape) == ((sizes[0], *shape), (sizes[1], *shape))
    assert train.inputs.dtype == np.float32
    np.testing.assert_allclose(train.info.mean, mean, atol=6e-5)
    np.testing.assert_allclose(train.info.std, std, atol=6e-5)
    assert (train.info.mean, train.info.std) == (test.info.mean, test.info.std)
    sample = train.inputs[::50].astype(np.float64)
    np.testing.assert_allclose(sample.mean((0, 1, 2)), 0, atol=0.03)
    np.testing.assert_allclose(sample.std((0, 1, 2)), 1, atol=0.03)
    # back to whole pixel values: the standardization loses nothing
    pixels = (test.inputs.astype(np.float64) * train.info.std + train.info.mean) * 255
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-4)
    assert (pixels.min(), pixels.max()) == pytest.approx((0, 255), abs=1e-4)
    for part, size in zip((train, test), sizes, strict=True):
        assert np.bincount(part.labels, minlength=10).sum() == size
        assert len(set(part.labels.tolist())) == 10
    part = load(name, "train[100:200]", data_root)
    np.testing.assert_array_equal(part.inputs, train.inputs[100:200])
    np.testing.assert_array_equal(part.labels, train.labels[100:200])


def test_mnist_counts(data_root):
    """The published numbers of each digit in MNIST's test set."""
    counts = np.bincount(load("mnist", "test", data_root).labels)
    assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_spoken_digits_by_take_and_by_speaker(data_root):
    # the name without a version would ask for TensorFlow, were it TFDS that chose
    train, test = (load("spoken_digit", split, data_root) for split in ("train", "test"))
    assert (train.inputs.shape, test.inputs.shape) == ((2250, 64, 32), (250, 64, 32))
    assert np.bincount(test.labels).tolist() == [25] * 10
    assert np.bincount(train.labels).tolist() == [225] * 10
    np.testing.assert_allclose(train.inputs.mean((0, 1), dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(train.inputs.std((0, 1), dtype=np.float64), 1, atol=1e-5)
    known, unknown = (load("spoken_digit:1.0.9", split, data_root, speaker="theo") for split in ("train", "test"))
    assert (len(known.inputs), len(unknown.inputs)) == (2000, 500)
    assert np.bincount(unknown.labels).tolist() == [50] * 10
    frames, _, speakers, _ = speech.read(prepared.find("spoken_digit", data_root))
    for part, chosen in ((unknown, speakers == "theo"), (known, speakers != "theo")):
        back = part.inputs * np.array(known.info.std) + np.array(known.info.mean)
        np.testing.assert_allclose(back, frames[chosen], atol=1e-4)


def test_log_mel_of_a_tone_and_of_silence():
    time = np.arange(8000) / 8000
    tone = np.rint(8000 * np.sin(2 * np.pi * 1000 * time)).astype(np.int64)
    frames = speech.log_mel(tone)
    assert frames.shape == (64, 32)
    # the band whose triangle peaks nearest to 1 kHz, on the mel scale 2595 log10(1 + f/700)
    top = 2595 * np.log10(1 + 4000 / 700)
    centers = np.arange(1, 33) / 33 * top
    nearest = int(np.abs(centers - 2595 * np.log10(1 + 1000 / 700)).argmin())
    assert abs(int(frames[10].argmax()) - nearest) <= 1
    np.testing.assert_allclose(speech.log_mel(np.zeros(10, np.int64)), np.log(1e-6), rtol=1e-6)
    # shorter speech is followed by silence, longer speech is cut
    np.testing.assert_allclose(speech.log_mel(tone[:1000])[8:], np.log(1e-6), rtol=1e-6)
    np.testing.assert_array_equal(speech.log_mel(np.tile(tone, 3)), speech.log_mel(np.tile(tone, 2)))


def test_log_mel_energy_against_a_plain_transform():
    samples = np.random.default_rng(3).integers(-3000, 3000, 9000)
    window = samples[5 * 128 : 5 * 128 + 256] / 32768 * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 255))
    turns = np.exp(-2j * np.pi * np.outer(np.arange(129), np.arange(256)) / 256)
    expected = np.log(np.abs(turns @ window) ** 2 @ speech.mel_filters() + 1e-6)
    np.testing.assert_allclose(speech.log_mel(samples)[5], expected, rtol=1e-5)


def test_wikitext(data_root):
    """The counts of the data set's own page; a label is the word that follows."""
    sizes = {"train": 2_088_628, "valid": 217_646, "test": 245_569}
    for split, size in sizes.items():
        words = load("wikitext-2", split, data_root)
        assert len(words.inputs) == len(words.labels) == size - 1
        assert words.inputs.dtype == np.int32
        np.testing.assert_array_equal(words.inputs[1:], words.labels[:-1])
        assert words.info.classes == len(words.info.class_names) == 33_278
    lines = (data_root / "text" / "wikitext-2" / "test.txt").read_text(encoding="utf-8").splitlines()
    expected = [word for line in lines[:20] for word in [*line.split(), "<eos>"]]
    assert [words.info.class_names[i] for i in words.inputs[: len(expected)]] == expected


def make_prepared(folder, features="image", splits=("train",), file_format="array_record"):
    """A folder that looks like one of TFDS's, by its two JSON files."""
    folder.mkdir(parents=True)
    lengths = [{"name": name, "numBytes": "1", "shardLengths": ["1"]} for name in splits]
    info = {"name": folder.parent.name, "version": folder.name, "fileFormat": file_format, "splits": lengths}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    described = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                features: {
                    "pythonClassName": "tensorflow_datasets.core.features.scalar.Scalar",
                    "tensor": {"shape": {}, "dtype": "int64", "encoding": "none"},
                }
            }
        },
    }
    (folder / "features.json").write_text(json.dumps(described))
    return folder


def sentence(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_missing_folder_says_where_and_which_variable(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="data 'mnist' must lie in") as error:
        load("mnist", "train", tmp_path / "none")
    assert str(tmp_path / "none" / "tfds") in sentence(error)
    assert "set MODICUM_DATA to the folder that contains tfds/, text/ and events/" in sentence(error)
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path / "other"))
    with pytest.raises(ValueError, match="MODICUM_DATA") as error:
        load("wikitext-2", "train")
    assert str(tmp_path / "other" / "text") in sentence(error)
    monkeypatch.delenv("MODICUM_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="data 'mnist' must lie in") as error:
        load("mnist", "train")
    assert str(tmp_path / "tensorflow_datasets") in sentence(error)
    (tmp_path / "tensorflow_datasets").mkdir()
    with pytest.raises(ValueError, match="holds no prepared data set: set MODICUM_DATA"):
        load("mnist", "train")


def test_an_unknown_name_lists_what_is_there(tmp_path):
    for name in ("mnist/3.0.1", "mnist/3.0.10", "mnist/3.0.2", "glue/cola/1.0.0"):
        make_prepared(tmp_path / "tfds" / name)
    with pytest.raises(ValueError, match="holds glue/cola, mnist: did you mean 'mnist'") as error:
        load("mnits", "train", tmp_path)
    assert "set MODICUM_DATA" in sentence(error)
    with pytest.raises(ValueError, match=r"must lie in .*mnist/9.9.9, but that folder holds"):
        load("mnist:9.9.9", "train", tmp_path)
    # the newest version by number, not by letter; with or without the folder tfds/
    assert prepared.find("mnist", tmp_path).name == "3.0.10"
    assert prepared.find("mnist:3.0.1", tmp_path / "tfds").name == "3.0.1"
    assert prepared.find("glue/cola", tmp_path).parent.name == "cola"


def test_an_unknown_split_lists_the_splits(tmp_path, data_root):
    with pytest.raises(ValueError, match=r"split of mnist must be one of 'train', 'test' in .*, got 'valid'"):
        load("mnist", "valid", data_root)
    with pytest.raises(ValueError, match=r"written as in 'train' or 'train\[:90%\]', got 'test\[:10%'") as error:
        load("mnist", "test[:10%", data_root)
    sentence(error)
    for name, split in (("digits", "tset"), ("spoken_digit", "tets")):
        with pytest.raises(ValueError, match=r"one of 'train', 'test', got .*did you mean 'test'"):
            load(name, split, data_root)
    with pytest.raises(ValueError, match="one of 'train', 'valid', 'test', got 'validation': did you mean 'valid'"):
        load("wikitext-2", "validation", data_root)


def test_what_tfds_cannot_read_is_one_sentence(tmp_path):
    folder = make_prepared(tmp_path / "tfds" / "old" / "1.0.0", file_format="tfrecord")
    with pytest.raises(ValueError, match="must be prepared with file_format='array_record'") as error:
        load("old", "train", tmp_path)
    assert str(folder) in sentence(error)
    make_prepared(tmp_path / "tfds" / "gone" / "1.0.0")
    with pytest.raises(ValueError, match="gone") as error:
        load("gone", "train", tmp_path)
    sentence(error)


def test_speakers(data_root):
    with pytest.raises(ValueError, match="one of george, jackson, nicolas, theo, yweweler, got 'the'"):
        load("spoken_digit", "train", data_root, speaker="the")
    with pytest.raises(ValueError, match="speaker must be None for data 'digits', got 'theo'"):
        load("digits", "train", speaker="theo")


def test_wikitext_with_a_file_missing_or_strange(tmp_path):
    folder = tmp_path / "text" / "wikitext-2"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text(" a b \n\n b c \n", encoding="utf-8")
    tokens, vocabulary = text.read("train", tmp_path)
    assert vocabulary == ("a", "b", "<eos>", "c")
    assert tokens.tolist() == [0, 1, 2, 2, 1, 3, 2]
    with pytest.raises(ValueError, match=r"test.txt is not there: set MODICUM_DATA"):
        text.read("test", tmp_path)
    (folder / "test.txt").write_text("a d\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"must all occur in train.txt, got 'd'"):
        text.read("test", tmp_path)


def test_info_is_hashable_and_static():
    info = DataInfo(name="x", split="train", classes=3)
    assert hash(info) == hash(DataInfo(name="x", split="train", classes=3))
    assert jax.tree.leaves(info) == []
    assert jnp.zeros(info.classes).shape == (3,)
