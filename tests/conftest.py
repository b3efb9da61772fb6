"""Strict settings for every test: typed shapes, no silent broadcasting, reproducible keys."""

import atexit
import gc
import os
import shutil
import tempfile
import zlib
from pathlib import Path

# Two virtual devices would hide nothing here; float64 is switched on where a reference needs it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Workers, and the scripts that tests start, share what one of them has compiled; the folder goes with the run.
# Small programs too: reading one takes 7 ms, compiling it 30.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="modicum-programs-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# LLVM's optimizations take most of a test's time. Tests marked `optimized` are about the bits or the speed of what
# they make; JAX_DISABLE_MOST_OPTIMIZATIONS=0 runs all tests with them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

import tests.typecheck  # noqa: F401 - the hook below looks it up by name

OPTIMIZE_ALL = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "0"

jaxtyping.install_import_hook("modicum", "tests.typecheck.typechecked")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile(
    "modicum", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("modicum")


def _mappings():
    """Memory mappings of this process, of which Linux allows 65,530; every compiled program takes some."""
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


@pytest.fixture(autouse=True, scope="module")
def bounded_mappings():
    """Programs are dropped before they are too many: beyond that, XLA ends the process by a segmentation fault."""
    yield
    if _mappings() > 25_000:
        jax.clear_caches()
        gc.collect()


def _optimize(wanted):
    if wanted == (os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "0"):
        return
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0" if wanted else "1"
    jax.config.update("jax_disable_most_optimizations", not wanted)
    # JAX does not look at the setting when it looks for a program that it has compiled
    jax.clear_caches()


def _is_optimized(item):
    return item is not None and item.get_closest_marker("optimized") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Tests marked `optimized`, and the scripts that they start, compile programs as users do."""
    if OPTIMIZE_ALL:
        return (yield)
    _optimize(_is_optimized(item))
    result = yield
    if not _is_optimized(nextitem):
        _optimize(False)
    return result


@pytest.fixture
def key(request):
    """A PRNG key that depends on the test's name alone."""
    return jax.random.key(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def data_root():
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("MODICUM_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "tfds").is_dir():
        pytest.skip(f"no real data at {root}: set MODICUM_DATA")
    return root
