"""The face generator on pattern sets: the same picture by native kernels, by XLA, and by the whole model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.conference import FaceSpec
from modicum.conference.network import draw
from modicum.systems import face_generator

SPEC = FaceSpec(size=64, latents=4, width=16, blocks=1)


@pytest.fixture(scope="module")
def parts():
    params, source, motion = face_generator.random_inputs(SPEC)
    sets = face_generator.pattern_sets(params)
    return face_generator.projected(params, sets), sets, source, motion


def test_decoder_kernels_lie_on_patterns_and_nothing_else_does(parts):
    params, sets, _, _ = parts
    leaves, structure = jax.tree.flatten(params)
    chosen = structure.flatten_up_to(sets)
    constrained = [(leaf, one) for leaf, one in zip(leaves, chosen, strict=True) if one is not None]
    assert len(constrained) == 1 + 2 * SPEC.blocks + 2 * SPEC.levels
    for leaf, one in constrained:
        assert float(one.violation(leaf)) == 0
        # four of nine positions are kept in each kernel
        assert float((leaf != 0).mean()) == pytest.approx(4 / 9, abs=0.01)


def test_native_decoder_draws_what_the_model_draws(parts):
    params, sets, source, motion = parts
    inputs = jax.jit(face_generator.decoder_inputs, static_argnums=1)(params, SPEC, source, motion)
    row = face_generator.joined(inputs)
    assert [part.shape for part in inputs] == list(face_generator.decoder_shapes(SPEC))
    native = face_generator.native_decoder(params, SPEC, sets)
    out = np.asarray(native.compiled(row))
    np.testing.assert_allclose(out, native.portable(row), atol=2e-5)
    whole = jax.jit(draw, static_argnums=1)(
        params, SPEC, jax.tree.map(lambda leaf: leaf[None], source), jnp.ones((1, 1)), motion
    )
    np.testing.assert_allclose(out[..., :3], whole.picture, atol=2e-5)
    np.testing.assert_allclose(out[..., 3:], whole.mask, atol=2e-5)
    native_products = [row for row in native.compiled.network.report() if row.macs]
    assert len(native_products) > 5
