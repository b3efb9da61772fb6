"""What lies in the module: packed constants, plain StableHLO, nothing of the author's machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import mlir as portable
from jax.extend.core import Primitive
from jax.interpreters import mlir

import modicum
from modicum import mobile
from modicum.mobile import stablehlo
from tests.mobile.members import Grid, Largest, kernels, projected
from tests.mobile.nets import NETS, conv_net, two_in_two_out


def matrix(key, shape=(256, 192)):
    w = jax.random.normal(key, shape)
    return (lambda p, x: x @ p["w"]), {"w": w}, jnp.ones((1, shape[0]))


def dialects(text):
    """The dialects of all operators in a module's text."""
    unquoted = re.sub(r'dense<"[^"]*">', "", text).replace('"', "")
    return set(re.findall(r"(?:^ +|= )([a-z_]+)\.\w+", unquoted, re.MULTILINE))


@pytest.mark.parametrize("constraint", [Grid(scale=2.0**-5), Largest(k=4000)])
def test_packed_constants_and_no_decoded_ones(constraint, key):
    fun, params, inputs = matrix(key)
    params = {"w": constraint.project(params["w"])}
    compiled = mobile.compile(fun, params, inputs, constraints={"w": constraint})
    dense = mobile.compile(fun, params, inputs)
    (packed,) = compiled.packed.values()
    text = compiled.stablehlo()
    for array in (*packed.payload.values(), *packed.index.values()):
        assert np.asarray(array).tobytes() in compiled.module
        assert np.asarray(array).tobytes() in compiled.exported.mlir_module_serialized
        assert np.asarray(array).tobytes().hex().upper() in text
    raw = np.asarray(params["w"]).tobytes()
    assert raw in dense.module
    assert raw not in compiled.module
    assert raw not in compiled.exported.mlir_module_serialized
    # nothing but the packed arrays and the program
    assert packed.nbytes.total < len(compiled.module) < packed.nbytes.total + 3_000
    assert len(dense.module) > 256 * 192 * 4


def test_a_decode_that_runs_numpy_is_refused(key):
    class Eager(Grid):
        def decode(self, packed):
            return jnp.asarray(np.asarray(packed.payload["codes"]) * np.float32(self.scale))

    fun, params, inputs = matrix(key, (8, 8))
    constraint = Eager(scale=2.0**-5)
    params = {"w": constraint.project(params["w"])}
    with pytest.raises(jax.errors.TracerArrayConversionError):
        mobile.compile(fun, params, inputs, constraints={"w": constraint})


@pytest.mark.parametrize("name", NETS)
def test_the_module_is_plain_stablehlo(name, key):
    if name == "equinox_mlp":
        pytest.importorskip("equinox")
    fun, params, inputs = NETS[name](key)
    params, constraints = projected(params, kernels)
    text = mobile.compile(fun, params, inputs, constraints=constraints, batch="any").stablehlo()
    assert dialects(text) == {"stablehlo", "func"}
    assert "custom_call" not in text
    assert "composite" not in text
    assert "tensor<?" not in text


def test_text_parses_and_round_trips(key):
    fun, params, inputs = conv_net(key)
    compiled = mobile.compile(fun, *projected(params, kernels)[:1], inputs)
    text = compiled.stablehlo()
    again = portable.serialize_portable_artifact(text, re.search(rb"_v([\d.]+)", compiled.module)[1].decode())
    assert stablehlo.text(again) == text
    assert text.startswith("module @jit_model ")
    assert "func.func public @main(%arg0: tensor<3x8x8x1xf32>) -> (tensor<3x10xf32>" in text


def test_composites_become_calls_and_keep_their_meaning(key):
    fun, params, inputs = two_in_two_out(key)
    compiled = mobile.compile(fun, params, inputs)
    as_exported = stablehlo.text(compiled.exported.mlir_module_serialized)
    text = compiled.stablehlo()
    if "composite" not in as_exported:
        pytest.skip("this JAX writes no composites")
    for meaning in re.findall(r"decomposition = (@[\w.]+)", as_exported):
        if "scan" not in meaning:  # a form of other platforms alone
            assert f"call {meaning}(" in text


def test_no_trace_of_the_authors_files(key):
    fun, params, inputs = conv_net(key)
    compiled = mobile.compile(fun, params, inputs, batch="any")
    for blob in (compiled.module, bytes(compiled.exported.serialize())):
        assert b".py" not in blob
        assert b"/tests/" not in blob
    assert "loc(" not in compiled.stablehlo()


def test_the_same_network_gives_the_same_bytes(key):
    fun, params, inputs = conv_net(key)
    first, second = (mobile.compile(fun, params, inputs, batch="any") for _ in range(2))
    assert first.module == second.module
    assert first.exported.serialize() == second.exported.serialize()


def test_exported_for_all_platforms(key):
    fun, params, inputs = conv_net(key)
    params, constraints = projected(params, kernels)
    compiled = mobile.compile(fun, params, inputs, constraints=constraints)
    assert compiled.exported.platforms == ("cpu", "cuda", "tpu")
    assert stablehlo.custom_calls(compiled.exported.mlir_module_serialized) == ()


def test_one_platform_where_the_others_have_no_form():
    only_cpu = Primitive("modicum_test_only_cpu")
    only_cpu.def_abstract_eval(lambda x: x)
    mlir.register_lowering(only_cpu, mlir.lower_fun(lambda x: 2 * x, multiple_results=False), platform="cpu")
    compiled = mobile.compile(lambda p, x: only_cpu.bind(x), {}, jnp.ones(3))
    assert compiled.exported.platforms == ("cpu",)
    np.testing.assert_array_equal(compiled(jnp.ones(3)), 2 * np.ones(3))


def test_custom_calls_are_refused_by_name():
    with pytest.raises(ValueError, match="fun must lower to StableHLO without custom calls, got lapack_spotrf"):
        mobile.compile(lambda p, x: jnp.linalg.cholesky(x), {}, jnp.eye(3))


def test_callbacks_are_refused():
    with pytest.raises(ValueError, match="fun must lower to portable StableHLO"):
        mobile.compile(lambda p, x: jax.pure_callback(np.sin, x, x), {}, jnp.ones(3))


def test_a_custom_call_inside_a_loop_is_found():
    def fun(params, x):
        return jax.lax.scan(lambda c, _: (jnp.linalg.cholesky(c) + 1, None), x, length=3)[0]

    with pytest.raises(ValueError, match="without custom calls"):
        mobile.compile(fun, {}, jnp.eye(3))


def test_operations_are_read_while_their_module_lives():
    """MLIR's operations do not keep their module alive: memory that is overwritten once freed shows a late read."""
    script = (
        "import jax, jax.numpy as jnp\n"
        "from jax import export\n"
        "from modicum.mobile import stablehlo\n"
        "fun = lambda x: (jnp.linalg.cholesky(x), jax.lax.top_k(x, 2), jax.lax.erf(x))\n"
        "artifact = export.export(jax.jit(fun), platforms=('cpu',))(jnp.eye(3)).mlir_module_serialized\n"
        "for _ in range(20):\n"
        "    assert stablehlo.custom_calls(artifact) == ('lapack_spotrf_ffi',)\n"
        "    assert stablehlo.custom_calls(stablehlo.plain(artifact)) == ('lapack_spotrf_ffi',)\n"
        "    assert 'lapack_spotrf_ffi' in stablehlo.text(stablehlo.without_locations(artifact))\n"
    )
    source = str(Path(modicum.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "MALLOC_PERTURB_": "165"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bytes_that_are_no_artifact_are_refused():
    with pytest.raises(Exception, match="Failed to deserialize StableHLO"):
        stablehlo.text(b"nonsense")
