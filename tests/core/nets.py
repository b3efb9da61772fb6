"""The networks that `sites` and `rewrite` are tried on: each returns `(fun, params, inputs)`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


class LeNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(6, (5, 5))(x)), (2, 2), (2, 2))
        x = nn.max_pool(nn.relu(nn.Conv(16, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for width in (120, 84):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


def lenet(key):
    inputs = jax.random.normal(key, (2, 28, 28, 1))
    model = LeNet()
    return model.apply, jax.jit(model.init)(key, inputs), inputs


def scanned_gru(key):
    model = nn.RNN(nn.GRUCell(features=12))
    inputs = jax.random.normal(key, (2, 7, 5))
    return model.apply, jax.jit(model.init)(key, inputs), inputs


def nnx_mlp(key):
    class Mlp(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(6, 8, rngs=rngs)
            self.second = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.second(jnp.tanh(self.first(x)))

    graph, params = nnx.split(Mlp(nnx.Rngs(0)))
    return lambda p, x: nnx.merge(graph, p)(x), params, jax.random.normal(key, (4, 6))


def equinox_mlp(key):
    import equinox as eqx

    params, static = eqx.partition(eqx.nn.MLP(4, 3, 8, depth=2, key=key), eqx.is_array)
    return lambda p, x: jax.vmap(eqx.combine(p, static))(x), params, jax.random.normal(key, (5, 4))


@jax.custom_jvp
def spike(membrane_potential):
    return (membrane_potential > 0).astype(membrane_potential.dtype)


@spike.defjvp
def _spike_jvp(primals, tangents):
    (v,), (dv,) = primals, tangents
    return spike(v), dv / (1 + (jnp.pi * v) ** 2)


def spiking_net(key):
    """Leaky integrate-and-fire over time: the sites sit in a scan, next to a surrogate gradient."""

    def fun(params, current):
        def step(state, x):
            hidden, out = state
            hidden = 0.9 * hidden + x @ params["hidden"]
            spikes = spike(hidden - 1.0)
            out = 0.9 * out + spikes @ params["out"]
            return (hidden - spikes, out), spikes.mean()

        init = jnp.zeros((current.shape[1], 16)), jnp.zeros((current.shape[1], 3))
        (_, out), rates = jax.lax.scan(step, init, current)
        return out, rates

    first, second = jax.random.split(key)
    params = {"hidden": jax.random.normal(first, (6, 16)), "out": jax.random.normal(second, (16, 3))}
    return fun, params, jax.random.normal(key, (9, 4, 6))


def controlled(key):
    """Every control-flow primitive that may hold a site and that reverse mode passes."""

    def fun(params, x):
        x = jax.jit(lambda p, v: jnp.tanh(v @ p))(params["jit"], x)
        x = jax.checkpoint(lambda p, v: jnp.sin(v @ p))(params["remat"], x)
        x = jax.lax.cond(x.sum() > 0, lambda v: v @ params["yes"], lambda v: 2 * (v @ params["no"]), x)
        return jax.lax.scan(lambda c, p: (jnp.tanh(c @ p), None), x, params["stack"], reverse=True)[0]

    names = ("jit", "remat", "yes", "no")
    params = {name: jax.random.normal(jax.random.fold_in(key, i), (4, 4)) for i, name in enumerate(names)}
    params["stack"] = jax.random.normal(key, (3, 4, 4))
    return fun, params, jax.random.normal(key, (2, 4))


def with_while(key):
    """A loop whose trip count depends on data; JAX itself has no reverse mode for it."""

    def fun(params, x):
        return jax.lax.while_loop(
            lambda c: (jnp.abs(c[1] @ params["test"]).sum() < 9) & (c[0] < 20),
            lambda c: (c[0] + 1, 1.5 * c[1] @ params["body"]),
            (0, x),
        )

    params = {"test": jnp.eye(4), "body": jnp.eye(4)[::-1]}
    return fun, params, 0.1 * jax.random.normal(key, (2, 4))


NETS = {net.__name__: net for net in (lenet, scanned_gru, nnx_mlp, equinox_mlp, spiking_net, controlled, with_while)}
