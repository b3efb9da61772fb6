"""LiteRT files: the interpreter answers what the JAX function answers, on digits it was not trained on."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import interchange, models, train
from modicum.interchange import litert

pytest.importorskip("litert_converter")
pytest.importorskip("ai_edge_litert")

BATCH = 50
ONES = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small net after 100 steps on the digits, held-out digits, and its LiteRT file."""
    optimizer = train.OptimizerConfig(learning_rate=1e-2)
    config = train.Experiment(model=models.SmallConvNet(widths=(8, 16)), optimizer=optimizer, steps=100, batch=64)
    params = train.train(config, tmp_path_factory.mktemp("run")).state.params
    held_out = train.load_split(config.data, config.data.test)
    path = tmp_path_factory.mktemp("litert") / "digits.tflite"
    interchange.to_litert(lambda x: config.model.apply(params, x), held_out.inputs[:BATCH], path)
    return jax.jit(lambda x: config.model.apply(params, x)), held_out, path


def test_held_out_digits_are_told_apart_alike(trained):
    fun, held_out, path = trained
    right = 0
    for at in range(BATCH, 5 * BATCH, BATCH):
        images = held_out.inputs[at : at + BATCH]
        expected, got = np.asarray(fun(images)), interchange.litert_outputs(path, images)["output"]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        assert (got.argmax(-1) == expected.argmax(-1)).all()
        right += int((got.argmax(-1) == held_out.labels[at : at + BATCH]).sum())
    # it has learnt: the comparison is not one of noise
    assert right > 0.8 * 4 * BATCH


def test_a_recurrent_net_is_unrolled():
    model, rng = models.GRUClassifier(3, 4), np.random.default_rng(0)
    frames = jnp.asarray(rng.standard_normal((2, 5, 6)), np.float32)
    params = model.init(jax.random.key(0), frames)
    content = interchange.to_litert(lambda x: model.apply(params, x), frames)
    other = jnp.asarray(rng.standard_normal((2, 5, 6)), np.float32)
    got = interchange.litert_outputs(content, other)["output"]
    np.testing.assert_allclose(got, model.apply(params, other), atol=1e-6)


def test_a_loop_of_fixed_length_is_unrolled():
    content = interchange.to_litert(lambda x: jax.lax.fori_loop(0, 3, lambda i, y: 2 * y + i, x), ONES)
    assert interchange.litert_outputs(content, 0 * ONES)["output"].tolist() == [[4.0] * 4]


def test_trees_of_inputs_and_outputs_keep_their_names():
    def fun(given):
        return {"sum": given["a"] + given["b"][0], "most": jnp.argmax(given["a"], -1)}

    given = {"a": np.array([[1.0, 3.0, 2.0]], np.float32), "b": [np.ones((1, 3), np.float32)]}
    got = interchange.litert_outputs(interchange.to_litert(fun, given), given)
    assert sorted(got) == ["most", "sum"]
    assert got["sum"].tolist() == [[2.0, 4.0, 3.0]]
    assert got["most"].tolist() == [1]


@pytest.mark.parametrize(
    ("fun", "sentence"),
    [
        (lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, x), "no loops but scan and fori_loop"),
        (lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((1, 4), np.float32), x), "without callbacks"),
        (lambda x: (x.astype(jnp.uint8) & 1).astype(jnp.float32), "operators that LiteRT has"),
        (lambda x: jnp.sort(x, -1), "interpreter runs on this input: .*SORT"),
    ],
)
def test_what_has_no_place_in_a_file_is_refused_and_none_is_left(fun, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        interchange.to_litert(fun, ONES, tmp_path / "a.tflite")
    assert not any(tmp_path.iterdir())


def test_an_answer_that_differs_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(litert, "litert_outputs", lambda *_: {"output": 1.001 * 2 * ONES})
    with pytest.raises(ValueError, match=r"within 0\.0001 of its largest number, got 0\.001 at output"):
        interchange.to_litert(lambda x: 2 * x, ONES, tmp_path / "a.tflite")
    assert not any(tmp_path.iterdir())


def test_an_input_of_another_shape_is_refused(trained):
    _, held_out, path = trained
    with pytest.raises(ValueError, match="model must be one that LiteRT's interpreter runs on this input"):
        interchange.litert_outputs(path, held_out.inputs[: BATCH - 1])


@pytest.mark.parametrize("module", ["litert_converter", "ai_edge_litert"])
def test_a_package_that_is_not_there_is_named(module, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"this needs the package .*: pip install --no-deps litert-converter"):
        interchange.to_litert(lambda x: x + 1, ONES)
