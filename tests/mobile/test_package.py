"""What is shipped of a native program: files that run without Python, by several compilers, on another processor."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

from modicum.mobile import native
from modicum.mobile.native import package
from modicum.mobile.native.build import compiler, flags, library
from modicum.mobile.native.memory import ALIGNMENT
from tests.mobile.native_reference import close, evaluate, numbers, recurrence, runs, small

DRIVERS = Path(__file__).parent / "drivers"
ZIG = f"{sys.executable} -m ziglang cc"


def write(files, folder):
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.fixture(scope="module", autouse=True)
def _needs_a_compiler():
    pytest.importorskip("ziglang")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The package of a small network for this machine, in a folder, with an input; what it should give."""
    graph, machine = small(), native.host()
    program = native.build(graph, machine)
    folder = tmp_path_factory.mktemp("shipped")
    files = package.write_package(program, machine)
    write(files, folder)
    x = numbers(graph)
    x.tofile(folder / "input.f32")
    return program, files, folder, x, evaluate(graph, x)


def test_the_example_runs_without_python(shipped):
    program, files, folder, x, expected = shipped
    command = [*compiler(native.host()), "-O2", "-Wall", "-Wextra", "-Werror", "example.c", "libmodel.a", "-pthread"]
    runs([*command, "-o", "example"], folder)
    runs(["./example", "weights.bin", "input.f32", "output.f32"], folder, env={})
    found = np.fromfile(folder / "output.f32", np.float32).reshape(expected.shape)
    np.testing.assert_array_equal(found, native.load(program, native.host()).run(x))
    close(found, expected, 3e-6)
    assert len(files["weights.bin"]) % ALIGNMENT == 0
    short = subprocess.run(["./example", "input.f32", "input.f32", "y"], cwd=folder, capture_output=True, text=True)
    assert (short.returncode, short.stderr) == (1, "input.f32 is too short\n")
    assert subprocess.run(["./example"], cwd=folder, capture_output=True).returncode == 2


def test_the_library_needs_nothing_but_libc_and_threads(shipped):
    *_, folder = shipped[:3]
    if not shutil.which("nm"):
        pytest.skip("no nm")
    gru = library(native.build(recurrence(0), native.host()).source, native.host(), shared=False, portable=True)
    for file in ("libmodel.a", str(gru)):
        wanted = set(re.findall(r" U (\w+)", runs(["nm", "-u", file], folder).stdout))
        assert "pthread_create" in wanted
        assert {name for name in wanted if not re.match("pthread_|(__)?sched_|_GLOBAL_OFFSET", name)} <= {
            "memset", "memcpy", "sysconf", "sigfillset", "__dso_handle", "__register_atfork",
        }  # fmt: skip


def test_the_header_says_what_the_source_does(shipped):
    """One text with its own header before it, every warning an error: for C, and for C++ the header alone."""
    *_, folder = shipped[:3]
    command = [*compiler(native.host()), *flags(native.host(), compiler(native.host())), "-Wall", "-Wextra", "-Werror"]
    # functions of one type do not all use all they are given
    command += ["-Wno-unused-parameter"]
    for more in ([], ["-DMODICUM_NO_THREADS"]):
        runs([*command, *more, "-include", "model.h", "-c", "model.c", "-o", "checked.o"], folder)
    if shutil.which("g++"):
        runs(["g++", "-x", "c++", "-fsyntax-only", "-Wall", "-Werror", "model.h"], folder)


@pytest.mark.parametrize("named", ["zig", "gcc"])
def test_the_same_program_gives_the_same_bytes(named, tmp_path, monkeypatch):
    """Compiled again in other folders, with nothing kept; by zig an object alone, as its libraries take long."""
    if not shutil.which(named) and named == "gcc":
        pytest.skip("no gcc")
    monkeypatch.setenv("MODICUM_CC", ZIG if named == "zig" else named)
    machine = native.AARCH64_ANDROID if named == "zig" else native.host()
    program = native.build(small(), machine)
    made = []
    for folder in ("one", "another"):
        monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / folder))
        monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / folder / "zig"))
        made.append(package.write_package(program, machine))
    assert made[0] == made[1]


def test_a_package_is_loaded_as_it_is(shipped, tmp_path, monkeypatch):
    program, files, _, x, _ = shipped
    described = package.describe(program, native.host(), threads=2)
    expected = native.load(program, native.host()).run(x)
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(subprocess, "run", None)
    loaded = package.load_package(files, described, native.host())
    np.testing.assert_array_equal(loaded.run(x), expected)
    np.testing.assert_array_equal(jax.jit(loaded)(x), expected)
    assert (loaded.threads, loaded.program.output_shape) == (2, program.output_shape)


def test_packages_for_others_are_refused(shipped):
    program, files, *_ = shipped
    described = package.describe(program, native.AVX512)
    package.check_target(described, native.AVX512)
    package.check_target(package.describe(program, native.AVX2), native.AVX512)
    for target, here, said in (
        (native.AVX512, native.AVX2, "for target avx2 here, got 'avx512'"),
        (native.NEON, native.AVX512, "for target avx512 or avx2 here, got 'neon'"),
        (native.AARCH64_LINUX, native.host(), "here, got 'aarch64-linux'"),
    ):
        with pytest.raises(ValueError, match=said):
            package.load_package(files, package.describe(program, target), here)
    with pytest.raises(ValueError, match=f"must have version {package.VERSION} or less, got {package.VERSION + 1}"):
        package.check_target({**described, "version": package.VERSION + 1}, native.AVX512)


# compilers


@pytest.mark.parametrize("named", ["zig", "clang", "gcc"])
def test_every_compiler_gives_the_right_numbers(named, monkeypatch):
    if named != "zig" and not shutil.which(named):
        pytest.skip(f"no {named}")
    monkeypatch.setenv("MODICUM_CC", ZIG if named == "zig" else named)
    graph = small(4)
    x = numbers(graph)
    for threads in (1, 2):
        close(native.load(native.build(graph, native.host()), native.host(), threads).run(x), evaluate(graph, x), 3e-6)


def test_which_compiler(monkeypatch):
    monkeypatch.delenv("MODICUM_CC", raising=False)
    said = {("/clang",): "Debian clang version 14.0.6", ("/gcc",): "gcc (Debian 12.2.0) 12.2.0"}
    here = sys.modules["modicum.mobile.native.build"]
    monkeypatch.setattr(here, "version", lambda command: said.get(command, "zig clang 0.17.1"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/{name}" if (f"/{name}",) in said else None)
    zig = tuple(ZIG.split())
    assert (compiler(native.AVX2), compiler(native.AARCH64_LINUX)) == (("/clang",), zig)
    said["/clang",] = "Apple clang version 13.1.6"
    assert (compiler(native.AVX2), compiler(native.AARCH64_LINUX)) == (zig, zig)
    monkeypatch.setattr(here.importlib.util, "find_spec", lambda name: None)
    assert compiler(native.AVX2) == ("/gcc",)
    assert "-fno-schedule-insns" in flags(native.NEON, ("/gcc",))
    with pytest.raises(ValueError, match=r"'aarch64-linux' must have a C compiler, got none: pip install"):
        compiler(native.AARCH64_LINUX)
    said["/clang",] = "clang version 19.1.7"
    assert compiler(native.AARCH64_LINUX) == ("/clang",)
    # without headers for the target there are objects alone
    assert {"-ffreestanding", "-mcpu=cortex-a76"} <= set(flags(native.AARCH64_LINUX, ("/clang",)))


def test_compilers_that_are_none_are_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"^compiler .* must accept the generated C, got: model.c:1:1: error: [^\n]*$"):
        library("no C;", native.host())
    monkeypatch.setenv("MODICUM_CC", "no-such-compiler --fast")
    with pytest.raises(ValueError, match=r"^compiler must be a C compiler that runs, got 'no-such-compiler --fast'$"):
        library("int x;", native.host())
    if shutil.which("gcc"):
        monkeypatch.setenv("MODICUM_CC", "gcc")
        with pytest.raises(ValueError, match=r"^compiler for target 'aarch64-linux' must be zig or clang, got 'gcc'$"):
            library("int x;", native.AARCH64_LINUX)
    assert list(tmp_path.rglob("*.so")) == []


def test_the_second_call_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path))
    calls, real = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: (calls.append(args), real(*args, **more))[1])
    first = library("int one(void) { return 1; }", native.host())
    compiled = len(calls)
    assert compiled > 0
    assert library("int one(void) { return 1; }", native.host()) == first
    assert len(calls) == compiled
    assert library("int two(void) { return 2; }", native.host()) != first
    assert len(calls) == compiled + 1


def test_builders_at_the_same_time_do_not_clash(tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: library("int one(void) { return 1; }", native.host()), range(4)))
    assert len(set(made)) == 1
    # no half-made file stays
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["native", made[0].name])


# another processor


@pytest.mark.parametrize("graph", [small(), recurrence(0)], ids=["images", "sequences"])
def test_on_another_processor(graph, tmp_path):
    """By an emulator: the same within 1e-5, from a program of one file."""
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("no qemu-aarch64: apt-get install qemu-user-static")
    machine = native.AARCH64_LINUX
    write(package.write_package(native.build(graph, machine), machine), tmp_path)
    x = numbers(graph)
    x.tofile(tmp_path / "input.f32")
    command = [*compiler(machine), *flags(machine, compiler(machine)), "-static"]
    # the first time, the compiler makes the C library of that processor
    runs([*command, "example.c", "libmodel.a", "-pthread", "-o", "example"], tmp_path, timeout=300)
    runs([emulator, "./example", "weights.bin", "input.f32", "output.f32"], tmp_path)
    found = np.fromfile(tmp_path / "output.f32", np.float32)
    close(found, native.load(native.build(graph, native.host()), native.host()).run(x).ravel(), 1e-5)
    close(found, evaluate(graph, x).ravel(), 3e-6)


def kernels(machine, folder):
    """Assembly text of each function that multiplies."""
    command, program = compiler(machine), native.build(small(), machine)
    (folder / "model.c").write_text(program.source)
    runs([*command, *flags(machine, command, portable=True), "-S", "model.c", "-o", "model.s"], folder)
    text = (folder / "model.s").read_text()
    functions = dict(re.findall(r"^((?:step|product)_\w+):[^\n]*\n(.*?)^\.Lfunc_end", text, re.MULTILINE | re.DOTALL))
    # a channel-by-channel layer reads vectors where others read numbers, and the compiler loads many ahead
    several = {f"step_{at}" for at, built in enumerate(program.built) if built.kernel.startswith("depthwise")}
    found = {name: text for name, text in functions.items() if name not in several and re.search("fmla|vfmadd", text)}
    assert len(found) >= 5
    return found


def test_kernels_multiply_and_add_in_one_and_spill_nothing(tmp_path):
    for name, text in kernels(native.AARCH64_LINUX, tmp_path).items():
        assert not re.search(r"\tfmul\t.*\n.*\tfadd\t", text), name
        # sums and weights live in whole vectors; what a callee must keep of them are halves, d8 to d15
        assert not re.search(r"\t(str|stp|stur|ldr|ldp|ldur)\tq.*\[sp", text), name
    if native.host() is native.AVX512:
        for name, text in kernels(native.AVX512, tmp_path).items():
            assert re.search(r"\tvfmadd\w+ps\t.*%zmm", text), name
            assert not re.search(r"\tvmovup[sd]\t%zmm\d+, -?\d*\(%r[sb]p\)", text), name


def test_for_android_there_is_an_object(tmp_path):
    files = package.write_package(native.build(small(), native.AARCH64_ANDROID), native.AARCH64_ANDROID)
    assert "libmodel.so" not in files
    write(files, tmp_path)
    zig = ZIG.split()[:-1]
    runs([*zig, "ar", "x", "libmodel.a"], tmp_path)
    made = (tmp_path / "model.o").read_bytes()
    # ELF, 64 bits, a relocatable object, for AArch64
    assert (made[:5], made[16:20]) == (b"\x7fELF\x02", b"\x01\x00\xb7\x00")
    assert "without threads" in (tmp_path / "README.txt").read_text()
