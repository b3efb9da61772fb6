"""The networks that are compiled: each returns `(fun, params, inputs)`."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from tests.core.nets import equinox_mlp, nnx_mlp


class ConvNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.gelu(nn.Conv(8, (3, 3))(x), approximate=False)
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


def conv_net(key):
    inputs = jax.random.normal(key, (3, 8, 8, 1))
    model = ConvNet()
    return model.apply, model.init(key, inputs), inputs


def scanned_gru(key):
    inputs = jax.random.normal(key, (2, 6, 5))
    model = nn.RNN(nn.GRUCell(features=8))
    return model.apply, model.init(key, inputs), inputs


def two_in_two_out(key):
    """Trees of arrays on both sides, operators that JAX writes as composites, whole numbers."""

    def fun(params, x):
        hidden = jax.lax.erf(x["image"] @ params["kernel"]) + x["offset"][:, None]
        values, places = jax.lax.top_k(hidden, 2)
        return {"top": (values, places), "sum": jnp.cumsum(hidden, axis=1)}

    first, second = jax.random.split(key)
    inputs = {"image": jax.random.normal(first, (3, 5)), "offset": jnp.arange(3.0)}
    return fun, {"kernel": jax.random.normal(second, (5, 6))}, inputs


NETS = {net.__name__: net for net in (conv_net, scanned_gru, nnx_mlp, equinox_mlp, two_in_two_out)}
