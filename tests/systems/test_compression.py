"""Recipes on the bundled digits: equal budgets, certificates, resume, and what a user may get wrong."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import admm, core
from modicum.constraints import Channels, Kernels, Levels, TopK
from modicum.systems import compression, compression_view
from modicum.systems.compression_config import ARMS, Keep, load_recipe, together

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "configs" / "pattern" / "digits.py"
SMALL = [
    "dense.model.widths=8,16,16",
    "dense.steps=60",
    "schedule.outer=3",
    "schedule.inner=10",
    "schedule.retrain=30",
    "schedule.refit=1",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    recipe = load_recipe(DIGITS, SMALL)
    return {arm: compression.run(recipe, arm, runs / arm) for arm in ARMS}, runs, recipe


def test_arms_start_from_one_network_and_make_equal_steps(finished):
    outcomes, runs, _ = finished
    assert {outcome.summary["steps"] for outcome in outcomes.values()} == {60}
    assert len({outcome.summary["dense_accuracy"] for outcome in outcomes.values()}) == 1
    assert len(list((runs / "dense").iterdir())) == 1


def test_weights_have_the_structure_that_the_recipe_says(finished):
    """By hand, in NumPy: 28% of 8 and of 16 kernels, at most 8 patterns of 4 positions around the center."""
    outcomes, _, _ = finished
    for outcome in outcomes.values():
        for layer, most in (("Conv_1", 2), ("Conv_2", 4)):
            weight = np.asarray(outcome.result.params["params"][layer]["kernel"])
            kernels = weight.reshape(9, weight.shape[2], weight.shape[3])
            assert ((kernels != 0).any(0).sum(0) <= most).all()
            used = {tuple(np.flatnonzero(kernel)) for kernel in kernels.reshape(9, -1).T if kernel.any()}
            assert all(len(pattern) <= 4 for pattern in used)
            full = {pattern for pattern in used if len(pattern) == 4}
            assert len(full) <= 8
            assert all(4 in pattern for pattern in full)


def test_summary_counts_what_is_there(finished):
    outcomes, runs, _ = finished
    for arm, outcome in outcomes.items():
        summary = outcome.summary
        leaves = core.leaves_by_path(outcome.result.params)
        assert summary["weights"] == sum(leaf.size for leaf in leaves.values())
        constrained = [leaves[path] for path in outcome.result.packed]
        free = sum(leaf.size for path, leaf in leaves.items() if path not in outcome.result.packed)
        assert summary["kept"] == sum(int((np.asarray(leaf) != 0).sum()) for leaf in constrained) + free
        packed = sum(packed.nbytes.total for packed in outcome.result.packed.values())
        assert summary["packed_bytes"] == packed + 4 * free
        assert summary["violation"] == 0
        assert summary["round_trip"] is True
        assert json.loads((runs / arm / "result.json").read_text()) == json.loads(json.dumps(summary))


def test_accuracy_is_that_of_the_held_out_digits(finished):
    """Against scikit-learn's digits and NumPy's argmax."""
    from modicum import train

    outcomes, _, recipe = finished
    held_out = train.load("digits", "test")
    for outcome in outcomes.values():
        logits = np.asarray(recipe.dense.model.apply(outcome.result.params, jnp.asarray(held_out.inputs)))
        assert outcome.summary["accuracy"] == pytest.approx((logits.argmax(1) == held_out.labels).mean())
        assert outcome.summary["test_examples"] == 500


def test_the_same_call_again_reads_and_changes_nothing(finished):
    outcomes, runs, recipe = finished
    again = compression.run(recipe, "admm", runs / "admm")
    assert again.summary == outcomes["admm"].summary
    with pytest.raises(ValueError, match=r"schedule\.rho=3\.0, got 1\.0"):
        compression.run(load_recipe(DIGITS, [*SMALL, "schedule.rho=1.0"]), "admm", runs / "admm")
    with pytest.raises(ValueError, match="arm must be one of"):
        compression.run(recipe, "adm", runs / "adm")


def test_table_and_figure(finished, tmp_path):
    outcomes, runs, _ = finished
    compression_view.figure(outcomes["admm"], tmp_path / "figure.png")
    first = (tmp_path / "figure.png").read_bytes()
    compression_view.figure(outcomes["admm"], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == first
    assert compression_view.table(outcomes["admm"], runs).row_count == 3


def test_matrices_are_drawn_too(tmp_path):
    from matplotlib.figure import Figure

    from modicum.systems.drawing import draw_matrix, save

    drawing = Figure()
    draw_matrix(drawing.subplots(), np.zeros((4, 6)), "zero")
    save(drawing, tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size > 0


def test_rules_count_shares_of_a_shape():
    w = jnp.ones((3, 3, 20, 10))
    assert Keep(TopK, 0.1)(w) == TopK(180)
    assert Keep(Kernels, 0.28)(w) == Kernels(6)
    assert Keep(Kernels, 0.5, (("balanced", False),))(w) == Kernels(100, balanced=False)
    assert Keep(Channels, 0.5, (("axis", -2),))(w) == Channels(10, axis=-2)
    assert Keep(TopK, 0.5)(jnp.ones((1, 1))) == TopK(1)
    both = together(Keep(TopK, 0.1), Levels(4))(w)
    assert {type(member) for member in both.members} == {TopK, Levels}
    with pytest.raises(ValueError, match="share must lie"):
        Keep(TopK, 1.5)


def test_arguments_of_a_config_and_settings_of_its_recipe():
    recipe = load_recipe(DIGITS, ["connectivity=0.5", "schedule.rho=2"])
    assert recipe.rules[0][1].parts[0].share == 0.5
    assert recipe.schedule.rho == 2.0
    for override, sentence in (
        ("conectivity=0.5", "override must name a setting, got 'conectivity': did you mean 'connectivity'"),
        ("schedule.roh=1", "did you mean 'schedule.rho'"),
        ("connectivity=half", "connectivity must be a number"),
        ("connectivity=2", "share must lie"),
        ("schedule.rho=0", "rho must be"),
        ("rules=1", "rules must be set in the config file"),
    ):
        with pytest.raises(ValueError, match=sentence):
            load_recipe(DIGITS, [override])
    with pytest.raises(ValueError, match="must return a Recipe"):
        load_recipe(ROOT / "configs" / "train" / "digits.py")


SYSTEMS = ("forms", "patdnn", "pattern", "rtmobile", "unification")
FILES = sorted(path for system in SYSTEMS for path in (ROOT / "configs" / system).glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_fits_its_model(path):
    """Shapes alone: the sets of each recipe exist for the weights of its model, and the file says what it is."""
    import ast

    text = ast.get_docstring(ast.parse(path.read_text()))
    name = path.relative_to(ROOT)
    for word in ("Anchor:", f"Command: python scripts/compress.py {name}", "Time and score:"):
        assert word in text
    recipe = load_recipe(path)
    shapes = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3), "spoken_digit": (32, 39)}
    example = jnp.zeros((1, *shapes[recipe.dense.data.name]))
    params = jax.eval_shape(recipe.dense.model.init, jax.random.key(0), example)
    sets = recipe.sets(params)
    chosen = admm.constrained_by_path(sets, sets)
    total = sum(leaf.size for leaf in jax.tree.leaves(params["params"]))
    assert sum(leaf.size for leaf in admm.constrained_by_path(sets, params).values()) > 0.9 * total
    for path, weight in admm.constrained_by_path(sets, params).items():
        chosen[path].check(weight.shape)


@pytest.mark.parametrize("model", ["resnet20", "vgg16", "mobilenet_v2"])
def test_recipes_of_cifar_fit_the_networks_for_gpus(model):
    settings = {
        "pattern": ["connectivity=0.28", "group=4"],
        "forms": [],
        "unification": ["block=9,4,4", "fraction=0.5", "pruned=0.25"],
    }
    recipes = {
        name: load_recipe(ROOT / "configs" / name / "cifar10.py", [f"model={model}", *more])
        for name, more in settings.items()
    }
    init = recipes["pattern"].dense.model.init
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    for recipe in recipes.values():
        sets = recipe.sets(params)
        chosen, weights = admm.constrained_by_path(sets, sets), admm.constrained_by_path(sets, params)
        assert sum(weight.shape[:2] == (3, 3) for weight in weights.values()) >= 12
        for path, weight in weights.items():
            chosen[path].check(weight.shape)
