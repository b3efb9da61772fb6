"""The optax transformation: closed forms, convergence, chaining, dtypes, branches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum import admm
from tests.admm.members import CONSTRAINTS, PARAMS, Box, Grid, Keep

BOX = {"w": Box(-1.0, 1.0), "free": None}


def state_of(z, u, rho, step=0):
    return admm.AdmmState({"w": z, "free": None}, {"w": u, "free": None}, jnp.float32(rho), jnp.int32(step))


def test_init_projects_constrained_leaves_and_keeps_no_memory_for_others():
    state = admm.admm(CONSTRAINTS, 2.0).init(PARAMS)
    chex.assert_trees_all_equal(state.z["first"]["kernel"], Keep(10).project(PARAMS["first"]["kernel"]))
    assert state.z["first"]["bias"] is None
    assert state.u["first"]["bias"] is None
    assert len(jax.tree.leaves(state)) == 2 * 2 + 2
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.u))
    assert (float(state.rho), int(state.step)) == (2.0, 0)
    assert state._fields == ("z", "u", "rho", "step")


@given(st.floats(1e-3, 1e3), st.floats(1e-4, 1.0), st.integers(0, 2**16))
def test_pull_is_the_minimizer_of_the_prox_problem(rho, learning_rate, seed):
    rng = np.random.default_rng(seed)
    w, update, z, u = rng.normal(size=(4, 6)).astype(np.float32)
    params = {"w": jnp.asarray(w), "free": jnp.ones(2)}
    updates = {"w": jnp.asarray(update), "free": jnp.full(2, 0.25)}
    pulled = admm.pull(updates, state_of(jnp.asarray(z), jnp.asarray(u), rho), params, BOX, learning_rate)
    moved = np.asarray(optax.apply_updates(params, pulled)["w"], np.float64)
    w, update, z, u = (np.asarray(a, np.float64) for a in (w, update, z, u))
    t = rho * learning_rate

    def objective(x):
        return np.sum((x - w - update) ** 2) / 2 + t / 2 * np.sum((x - z + u) ** 2)

    np.testing.assert_allclose(moved, (w + update + t * (z - u)) / (1 + t), rtol=1e-4, atol=2e-5)
    slope = [objective(moved + step) - objective(moved - step) for step in 1e-2 * np.eye(6)]
    np.testing.assert_allclose(slope, 0, atol=1e-5 * (1 + t))
    np.testing.assert_array_equal(pulled["free"], 0.25)


def test_pull_is_stable_for_every_strength():
    params = {"w": jnp.array([3.0, -2.0]), "free": jnp.zeros(1)}
    updates = jax.tree.map(jnp.zeros_like, params)
    state = state_of(jnp.array([0.5, 0.25]), jnp.zeros(2), 1e30)
    moved = optax.apply_updates(params, admm.pull(updates, state, params, BOX, 1e3))
    np.testing.assert_array_equal(moved["w"], [0.5, 0.25])
    idle = admm.pull(updates, state._replace(rho=jnp.float32(0)), params, BOX, 1.0)
    np.testing.assert_array_equal(idle["w"], 0)


def test_penalty_is_the_gradient_of_the_augmented_loss(key):
    w, z, u = jax.random.normal(key, (3, 5))
    params, state = {"w": w, "free": jnp.ones(3)}, state_of(z, u, 0.7)

    def loss(params):
        return jnp.sum(jnp.sin(params["w"])) + jnp.sum(params["free"] ** 2)

    def augmented(params):
        return loss(params) + 0.7 / 2 * jnp.sum((params["w"] - z + u) ** 2)

    got = admm.penalize(jax.grad(loss)(params), state, params, BOX)
    chex.assert_trees_all_close(got, jax.grad(augmented)(params), rtol=1e-6)


def test_dual_update_follows_the_equations(key):
    w, z, u = (np.asarray(a) for a in 3 * jax.random.normal(key, (3, 8)))
    params = {"w": jnp.asarray(w), "free": jnp.zeros(2)}
    before = state_of(jnp.asarray(z), jnp.asarray(u), 2.0, step=5)
    after = admm.dual_update(before, params, BOX, growth=1.5)
    expected_z = np.clip(np.float64(w) + u, -1, 1)
    np.testing.assert_allclose(after.z["w"], expected_z, rtol=1e-6)
    np.testing.assert_allclose(after.u["w"], (np.float64(w) + u - expected_z) / 1.5, rtol=1e-5, atol=1e-6)
    assert (float(after.rho), int(after.step)) == (3.0, 5)


@pytest.mark.parametrize("growth", [0.5, 1.0, 1.3, 10.0])
def test_growth_keeps_the_unscaled_dual(growth, key):
    params = {"w": 3 * jax.random.normal(key, (8,)), "free": jnp.zeros(2)}
    before = state_of(jnp.zeros(8), jnp.full(8, 0.3), 2.0)
    same = admm.dual_update(before, params, BOX, 1.0)
    grown = admm.dual_update(before, params, BOX, growth)
    np.testing.assert_allclose(grown.rho * grown.u["w"], same.rho * same.u["w"], rtol=1e-6)
    np.testing.assert_allclose(grown.rho, 2.0 * growth, rtol=1e-6)


def test_rho_stays_once_settled_and_never_overflows():
    params = {"w": jnp.array([0.5, -0.5, 1.0001]), "free": jnp.zeros(1)}
    state = state_of(jnp.zeros(3), jnp.zeros(3), 2.0)
    assert float(admm.dual_update(state, params, BOX, 1.3, tolerance=1e-3).rho) == 2.0
    assert float(admm.dual_update(state, params, BOX, 1.3, tolerance=1e-6).rho) == pytest.approx(2.6)
    far = {"w": jnp.full(3, 5.0), "free": jnp.zeros(1)}
    for _ in range(4):
        state = admm.dual_update(state, far, BOX, 1e12)
    assert np.all(np.isfinite(jax.tree.leaves(state.u)))
    assert np.isfinite(state.rho)
    idle = admm.dual_update(state_of(jnp.zeros(3), jnp.zeros(3), 0.0), far, BOX, 1.3)
    np.testing.assert_array_equal(idle.u["w"], 4.0)


def test_residual_against_numpy(key):
    first, second = jax.random.normal(key, (4,)), jax.random.normal(key, (2, 3))
    constraints = {"a": Box(-1.0, 1.0), "b": Box(-1.0, 1.0)}
    state = admm.AdmmState({"a": first / 2, "b": second}, {"a": first, "b": second}, jnp.float32(1), jnp.int32(0))
    expected = np.linalg.norm(first / 2) / np.sqrt(np.sum(first**2) + np.sum(second**2))
    got = admm.residual(state, {"a": first, "b": second}, constraints)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    zeros = jax.tree.map(jnp.zeros_like, state)
    assert float(admm.residual(zeros, {"a": 0 * first, "b": 0 * second}, constraints)) == 0


def box_quadratic(seed=0):
    """`(w - c)^T A (w - c) / 2` over the unit box, and its minimizer by projected gradient in float64."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6))
    matrix, center = root @ root.T / 6 + 0.1 * np.eye(6), 1.3 * rng.normal(size=6)
    w = np.zeros(6)
    for _ in range(5000):
        w = np.clip(w - 0.1 * matrix @ (w - center), -1, 1)
    assert np.any(np.abs(w) == 1)
    assert np.any(np.abs(w) < 0.99)
    return jnp.asarray(matrix, jnp.float32), jnp.asarray(center, jnp.float32), w


@pytest.mark.parametrize("form", ["prox", "penalty"])
def test_converges_to_the_constrained_minimum_of_a_convex_quadratic(form):
    matrix, center, solution = box_quadratic()
    pulled = admm.admm({"w": Box(-1.0, 1.0)}, 1.0, 1.0, every=20, form=form, learning_rate=0.1)
    sgd = optax.sgd(0.1)
    optimizer = optax.chain(sgd, pulled) if form == "prox" else optax.chain(pulled, sgd)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            gradients = jax.grad(lambda p: (p["w"] - center) @ matrix @ (p["w"] - center) / 2)(params)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=3000)[0][0]

    found = run({"w": jnp.zeros(6)})["w"]
    np.testing.assert_allclose(found, solution, atol=2e-4)
    # clipping the free minimum would not do
    assert np.max(np.abs(solution - np.clip(center, -1, 1))) > 0.05


OPTIMIZERS = {
    "sgd": optax.sgd,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lion": lambda rate: optax.lion(rate, weight_decay=0.0),
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(rate)),
}


@pytest.mark.parametrize("form", ["prox", "penalty"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_chains_with_any_optimizer_and_pulls_onto_the_set(name, form):
    pulled = admm.admm(CONSTRAINTS, 1.0, 1.3, every=10, form=form, learning_rate=0.01)
    inner = OPTIMIZERS[name](0.01)
    optimizer = optax.chain(inner, pulled) if form == "prox" else optax.chain(pulled, inner)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            gradients = jax.tree.map(jnp.subtract, params, PARAMS)  # of |W - W_0|^2 / 2
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=200)[0]

    params, state = run(PARAMS)
    start = admm.residual(pulled.init(PARAMS), PARAMS, CONSTRAINTS)
    last = state[-1] if form == "prox" else state[0]
    assert isinstance(last, admm.AdmmState)
    assert int(last.step) == 200
    assert float(admm.residual(last, params, CONSTRAINTS)) < 0.5 * float(start)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


def test_dual_updates_come_every_so_many_steps():
    optimizer = admm.admm(BOX, 1.0, 2.0, every=3, tolerance=0.0, learning_rate=1e-3)
    params = {"w": jnp.array([4.0, 0.0]), "free": jnp.zeros(1)}
    state, rhos = optimizer.init(params), []
    for _ in range(7):
        updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
        rhos.append(float(state.rho))
    assert rhos == [1, 1, 2, 2, 2, 4, 4]
    penalty = admm.admm(BOX, 1.0, 2.0, every=3, form="penalty", tolerance=0.0)
    state, rhos = penalty.init(params), []
    for _ in range(7):
        _, state = penalty.update(jax.tree.map(jnp.zeros_like, params), state, params)
        rhos.append(float(state.rho))
    assert rhos == [1, 1, 1, 2, 2, 2, 4]  # the outcome of step 3 is first seen in step 4


def test_every_none_leaves_dual_updates_to_the_caller():
    optimizer = admm.admm(BOX, 1.0, every=None)
    params = {"w": jnp.array([4.0, 0.0]), "free": jnp.zeros(1)}
    text = str(jax.make_jaxpr(optimizer.update)(params, optimizer.init(params), params))
    assert "cond" not in text
    assert "clamp" not in text  # no projection in the step
    assert "cond" in str(jax.make_jaxpr(admm.admm(BOX, 1.0).update)(params, optimizer.init(params), params))


def test_learning_rate_may_be_a_schedule():
    schedule = optax.linear_schedule(1.0, 0.0, 4)
    params = {"w": jnp.array([3.0]), "free": jnp.zeros(1)}
    zero = jax.tree.map(jnp.zeros_like, params)
    scheduled = admm.admm(BOX, 0.5, every=None, learning_rate=schedule)
    state = scheduled.init(params)
    for step in range(5):
        updates, state = scheduled.update(zero, state, params)
        fixed = admm.admm(BOX, 0.5, every=None, learning_rate=float(schedule(step)))
        expected, _ = fixed.update(zero, fixed.init(params), params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    np.testing.assert_array_equal(updates["w"], 0)


@pytest.mark.parametrize("form", ["prox", "penalty"])
def test_bfloat16_params_keep_float32_copies(form):
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    optimizer = admm.admm(CONSTRAINTS, 0.1, every=1, form=form)
    state = optimizer.init(params)
    updates, state = jax.jit(optimizer.update)(jax.tree.map(lambda p: 1e-2 * p, params), state, params)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.z, state.u))} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("bfloat16")}


def test_step_is_jittable_over_traced_rho_and_equal_to_a_loop(key):
    gradients = jax.tree.map(lambda p: jax.random.normal(key, p.shape), PARAMS)

    def two_steps(rho, k):
        constraints = {"first": {"kernel": Keep(k), "bias": None}, "second": None}
        optimizer = optax.chain(optax.adam(0.1), admm.admm(constraints, rho, every=2, learning_rate=0.1))
        params, state = PARAMS, optimizer.init(PARAMS)
        for _ in range(3):
            updates, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        return params, state[-1]

    rhos, ks = jnp.array([0.0, 0.5, 30.0]), jnp.array([3, 10, 40])
    batched = jax.jit(jax.vmap(two_steps))(rhos, ks)
    for index in range(3):
        single = two_steps(rhos[index], ks[index])
        chex.assert_trees_all_close(jax.tree.map(lambda a, i=index: a[i], batched), single, atol=1e-6)


def test_none_may_stand_for_a_branch_and_a_callable_for_the_tree():
    tree = {"first": None, "second": {"kernel": Grid(7, 0.1)}}
    for constraints in (tree, lambda params: tree):
        optimizer = admm.admm(constraints, 1.0, every=1)
        updates, state = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
        chex.assert_trees_all_equal(updates["first"], PARAMS["first"])
        assert len(jax.tree.leaves(state.z)) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rho": 0.0}, "rho must be above 0, got 0.0"),
        ({"rho": "3"}, "rho must be a number above 0, got '3'"),
        ({"growth": -1}, "growth must be above 0, got -1"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"form": "dual"}, "form must be one of 'prox', 'penalty', got 'dual'"),
        ({"tolerance": -0.1}, "tolerance must not be below 0, got -0.1"),
    ],
)
def test_settings_out_of_range(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        admm.admm(**{"constraints": BOX, "rho": 1.0, **arguments})


def test_trees_that_do_not_match():
    params = {"w": jnp.ones(3), "free": jnp.ones(1)}
    with pytest.raises(ValueError, match="constraints must be a pytree like params"):
        admm.admm({"v": Box(-1.0, 1.0)}, 1.0).init(params)
    with pytest.raises(ValueError, match="constraints must hold a Constraint or None at 'w', got 3"):
        admm.admm({"w": 3, "free": None}, 1.0).init(params)
    with pytest.raises(ValueError, match="params must hold an array at constrained 'w'"):
        admm.admm(BOX, 1.0).init({"w": {"deeper": jnp.ones(3)}, "free": jnp.ones(1)})
    optimizer = admm.admm(BOX, 1.0)
    with pytest.raises(ValueError, match="params must be given to the update of admm"):
        optimizer.update(params, optimizer.init(params))
