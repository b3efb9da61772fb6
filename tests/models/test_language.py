"""The LSTM against equations in NumPy; a language model's shapes and shared table."""

import jax
import jax.numpy as jnp
import numpy as np

from modicum.models import LSTMLanguageModel, LSTMLayer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_lstm_against_numpy(key):
    inputs = np.asarray(jax.random.normal(key, (2, 5, 3)), np.float64)
    layer = LSTMLayer(4)
    params = jax.jit(layer.init)(key, jnp.asarray(inputs, jnp.float32))["params"]
    w, u, b = (np.asarray(params[name], np.float64) for name in ("input_kernel", "recurrent_kernel", "bias"))
    assert b.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
    hidden, cell, states = np.zeros((2, 4)), np.zeros((2, 4)), []
    for at in range(5):
        gates = inputs[:, at] @ w + hidden @ u + b
        let_in, kept, shown = (sigmoid(gates[:, 4 * part : 4 * part + 4]) for part in range(3))
        cell = kept * cell + let_in * np.tanh(gates[:, 12:])
        hidden = shown * np.tanh(cell)
        states.append(hidden)
    found = layer.apply({"params": params}, jnp.asarray(inputs, jnp.float32))
    np.testing.assert_allclose(found, np.stack(states, axis=1), atol=1e-5)


def test_language_model_sees_no_later_word(key):
    model = LSTMLanguageModel(words=20, features=8, layers=2)
    words = jnp.arange(12).reshape(2, 6)
    params = jax.jit(model.init)(key, words)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 20 * 8 + 20 + 2 * (8 * 32 * 2 + 32)
    logits = model.apply(params, words)
    assert logits.shape == (2, 6, 20)
    changed = words.at[:, 4].set(19)
    np.testing.assert_array_equal(model.apply(params, changed)[:, :4], logits[:, :4])
    assert (np.asarray(model.apply(params, changed)[:, 4:]) != np.asarray(logits[:, 4:])).any()
