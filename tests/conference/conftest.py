"""One small untrained model and one clip, compiled once for all tests of calls."""

import jax
import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("constriction")
pytest.importorskip("skimage")

from modicum.conference import codec, demonstration, network
from modicum.conference.spec import FaceSpec


@pytest.fixture(scope="session")
def clip():
    return demonstration.clip(64, 3.2)


@pytest.fixture(scope="session")
def face(clip):
    spec = FaceSpec(size=64, latents=8, width=4, blocks=1)
    return codec.make_codec(spec, network.init_params(jax.random.key(0), spec), clip)


@pytest.fixture(scope="session")
def generator():
    return np.random.default_rng(0)
