"""What is shipped of a native program: files that run without Python, under sanitizers, and on another processor."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

from modicum.mobile import native
from modicum.mobile.graph import Graph, Gru, Mean
from modicum.mobile.native import package
from modicum.mobile.native.build import compiler, flags, library
from modicum.mobile.native.layout import whole
from modicum.mobile.native.memory import ALIGNMENT
from modicum.mobile.native.program import Blob, Builder
from tests.mobile.native_reference import chain, convolution, evaluate, head

DRIVERS = Path(__file__).parent / "drivers"
ZIG = f"{sys.executable} -m ziglang cc"


def _compilers():
    pytest.importorskip("ziglang")
    return [ZIG, *(name for name in ("clang", "gcc") if shutil.which(name))]


def runs(command, folder, timeout=60, **more):
    """A command that must end well; the timeout is for what waits forever."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, **more)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def gcc_with(sanitizer, folder):
    """gcc, if programs with a sanitizer run here."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc")
    (folder / "empty.c").write_text("int main(void) { return 0; }")
    command = ["gcc", f"-fsanitize={sanitizer}", "empty.c", "-o", "empty"]
    for step in (command, [str(folder / "empty")]):
        if subprocess.run(step, cwd=folder, capture_output=True).returncode:
            pytest.skip(f"gcc has no -fsanitize={sanitizer} here")
    return "gcc"


def small(seed=3):
    """Zeros of both kinds, a stride of 2, a residual, a sum, a fused pool, a depthwise layer, a head."""
    layers, _, generator = chain(seed)
    shared = np.repeat(generator.random((3, 3, 20, 2)) < 0.4, 16, axis=-1)[..., :20]
    layers = [
        dataclasses.replace(layer, weight=(layer.weight * shared).astype("f")) if layer.name == "two" else layer
        for layer in layers
    ]
    mean = Mean(name="mean", inputs=("j",), output="mean", shape=(2, 40))
    return Graph("x", (2, 12, 12, 3), "y", (*layers, mean, head("y", "mean", 40, generator)))


def write(files, folder):
    for name, data in files.items():
        (folder / name).write_bytes(data)


def numbers(graph, seed=0):
    return np.random.default_rng(seed).normal(size=graph.input_shape).astype(np.float32)


def close(found, expected, atol):
    size = np.abs(expected).max() + 1e-6
    np.testing.assert_allclose(found / size, expected / size, atol=atol)


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
    wanted = {
        line.split()[-1] for line in runs(["nm", "-u", "libmodel.a"], folder).stdout.splitlines() if " U " in line
    }
    assert {name for name in wanted if not name.startswith(("pthread_", "sched_", "__sched_", "_GLOBAL_OFFSET"))} <= {
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


def test_the_same_program_gives_the_same_bytes(shipped, tmp_path, monkeypatch):
    program, files, *_ = shipped
    monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / "another"))
    assert package.write_package(program, native.host()) == files


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


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    graph = small()
    program = native.build(graph, native.AARCH64_LINUX)
    folder = tmp_path_factory.mktemp("crossed")
    write(package.write_package(program, native.AARCH64_LINUX), folder)
    numbers(graph).tofile(folder / "input.f32")
    return program, folder


def test_on_another_processor(crossed, shipped):
    """By an emulator: the same within 1e-5, from a program of one file."""
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("no qemu-aarch64: apt-get install qemu-user-static")
    command = [*compiler(native.AARCH64_LINUX), *flags(native.AARCH64_LINUX, compiler(native.AARCH64_LINUX)), "-static"]
    _, folder = crossed
    # the first time, the compiler makes the C library of that processor
    runs([*command, "example.c", "libmodel.a", "-pthread", "-o", "example"], folder, timeout=300)
    runs([emulator, "./example", "weights.bin", "input.f32", "output.f32"], folder)
    found = np.fromfile(folder / "output.f32", np.float32)
    program, _, _, x, expected = shipped
    close(found, native.load(program, native.host()).run(x).ravel(), 1e-5)
    close(found, expected.ravel(), 3e-6)


def kernels(machine, program, folder):
    """Assembly text of each function that multiplies."""
    command = compiler(machine)
    runs([*command, *flags(machine, command, portable=True), "-S", "model.c", "-o", "model.s"], folder)
    text = (folder / "model.s").read_text()
    functions = dict(re.findall(r"^((?:step|product)_\w+):[^\n]*\n(.*?)^\.Lfunc_end", text, re.MULTILINE | re.DOTALL))
    # a channel-by-channel layer reads vectors where others read numbers, and the compiler loads many ahead
    several = {f"step_{at}" for at, built in enumerate(program.built) if built.kernel.startswith("depthwise")}
    found = {name: text for name, text in functions.items() if name not in several and re.search("fmla|vfmadd", text)}
    assert len(found) >= 5
    return found


def test_kernels_multiply_and_add_in_one_and_spill_nothing(crossed, shipped):
    program, folder = crossed
    for name, text in kernels(native.AARCH64_LINUX, program, folder).items():
        assert not re.search(r"\tfmul\t.*\n.*\tfadd\t", text), name
        # sums and weights live in whole vectors; what a callee must keep of them are halves, d8 to d15
        assert not re.search(r"\t(str|stp|stur|ldr|ldp|ldur)\tq.*\[sp", text), name
    if native.host() is native.AVX512:
        for name, text in kernels(native.AVX512, shipped[0], shipped[2]).items():
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


# sanitizers

GAP = 256


class SpacedBlob(Blob):
    """Weights with holes between them."""

    def __init__(self):
        super().__init__()
        self.holes = []

    def add(self, array):
        at = super().add(array)
        self.holes.append((self.size, GAP))
        self.parts.append(bytes(GAP))
        self.size += GAP
        return at


class SpacedBuilder(Builder):
    """Every array has its own memory, with holes around it: who reads or writes past an end is found."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.blob, self.holes = SpacedBlob(), [(0, GAP)]

    def _memory(self):
        placed, at = {}, GAP
        for buffer, size in self.bytes.items():
            placed[buffer] = at
            self.holes.append((at + size, GAP))
            at += whole(size, ALIGNMENT) + GAP
        return placed, at


class HaloBuilder(SpacedBuilder):
    """Wrong: no zeros around images whose convolutions read them."""

    def _halo(self, value):
        return 0


def spaced(graph, name, kind=SpacedBuilder):
    """The program of a graph as `build` makes it, by a builder of another kind, and that builder."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[Builder.__module__], "Builder", lambda *more: made.append(kind(*more)) or made[0])
        program = native.build(graph, native.host(), name)
    return program, made[0]


def recurrence(seed):
    generator = np.random.default_rng(seed)

    def pruned(*shape):
        return (generator.normal(size=shape) / 4 * (generator.random(shape) < 0.3)).astype("f")

    gru = Gru(
        name="gru",
        inputs=("x",),
        output="y",
        shape=(2, 5, 24),
        input_kernel=pruned(7, 72),
        recurrent_kernel=pruned(24, 72),
        input_bias=pruned(72),
        candidate_bias=pruned(24),
    )
    return Graph("x", (2, 5, 7), "y", (gru,))


def operations():
    """Every kind of layer, window, stride, padding and zeros, at random."""
    generator = np.random.default_rng(11)
    kinds = ("dense", "free", "shared", "scattered", "depthwise", "groups", "zero")
    windows = ((3, 3), (1, 1), (2, 3), (5, 5))
    for at, kind in enumerate(2 * kinds):
        yield convolution(
            window=windows[at % 4],
            extent=tuple(generator.integers(7, 14, 2).tolist()),
            inputs=int(generator.integers(1, 24)),
            outputs=int(generator.integers(1, 40)),
            stride=tuple(generator.integers(1, 3, 2).tolist()),
            pads=tuple(generator.random(4).tolist()),
            kind=kind,
            scaled=bool(at % 2),
            activation=("none", "relu", "relu6")[at % 3],
            seed=at,
        )
    yield small()
    yield recurrence(0)


def holes(name, found):
    values = ", ".join(f"{{{at}, {size}}}" for at, size in found)
    return f"static const size_t {name}[][2] = {{{values}}};\n"


def _for_this_machine(command):
    return [flag for flag in flags(native.host(), tuple(command), portable=True) if flag.startswith("-m")]


def sanitized(built, folder, compiler, options):
    """One executable that runs all programs on their files."""
    text, rows, sources = "", [], []
    for program, builder in built:
        name = program.name
        (folder / f"{name}.c").write_text(program.source)
        (folder / f"{name}.h").write_text(program.header)
        program.weights.tofile(folder / f"{name}.weights")
        numbers(builder.graph)[0].tofile(folder / f"{name}.input")
        text += f'#include "{name}.h"\n' + holes(f"{name}_w", builder.blob.holes) + holes(f"{name}_a", builder.holes)
        functions = [f"{name}_{what}" for what in ("weight_bytes", "arena_bytes", "input_floats", "output_floats")]
        row = [f'"{name}"', *functions, f"{name}_run", f"{name}_run_threads", f"{name}_w", f"{name}_a"]
        rows.append(", ".join([*row, str(len(builder.blob.holes)), str(len(builder.holes))]))
        sources.append(f"{name}.c")
    table = ",\n".join(f"{{{row}}}" for row in rows)
    (folder / "suite.h").write_text(f"{text}static const struct program programs[] = {{{table}}};\n")
    shutil.copy(DRIVERS / "suite.c", folder)
    command = [*compiler, "-std=gnu11", *_for_this_machine(compiler), *options, "-pthread"]
    # one file at a time, two at once
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda source: runs([*command, "-c", source], folder), ["suite.c", *sources]))
    objects = [source.replace(".c", ".o") for source in ["suite.c", *sources]]
    runs([*command, *objects, "-o", "suite"], folder)
    return folder / "suite"


# leaks are looked for by ptrace, which not every machine allows
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}


def test_sanitizers_find_nothing(tmp_path):
    gcc = gcc_with("address,undefined", tmp_path)
    built = [spaced(graph, f"n{number}") for number, graph in enumerate(operations())]
    # gcc takes long to optimize what it checks
    options = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    suite = sanitized(built, tmp_path, [gcc], options)
    runs([str(suite)], tmp_path, env=ENVIRONMENT)
    for program, builder in built:
        expected = evaluate(builder.graph, numbers(builder.graph))[0]
        close(np.fromfile(tmp_path / f"{program.name}.output", np.float32).reshape(expected.shape), expected, 3e-6)
    # the check can fail: weights off their place
    shifted = subprocess.run([str(suite), "4"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert shifted.returncode not in (0, 3, 4)
    assert "misaligned address" in shifted.stderr


def test_sanitizers_find_a_wrong_program(tmp_path):
    gcc = gcc_with("address,undefined", tmp_path)
    suite = sanitized([spaced(small(), "wrong", HaloBuilder)], tmp_path, [gcc], ["-O0", "-fsanitize=address"])
    done = subprocess.run([str(suite)], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode not in (0, 3, 4)
    assert "use-after-poison" in done.stderr


def test_undefined_behavior_traps_where_there_is_no_gcc(tmp_path):
    """Clang's checks need no library of their own."""
    options = ["-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined"]
    suite = sanitized([spaced(small(), "n0")], tmp_path, ZIG.split(), options)
    runs([str(suite)], tmp_path)
    assert subprocess.run([str(suite), "4"], cwd=tmp_path).returncode < 0


# threads


@pytest.fixture(scope="module")
def threads(shipped):
    """A program of callers, linked with the static library; see `drivers/threads.c`."""
    folder = shipped[2]
    shutil.copy(DRIVERS / "threads.c", folder)
    command = [*compiler(native.host()), "-O2", "threads.c", "libmodel.a", "-pthread", "-ldl", "-o", "threads"]
    runs(command, folder)
    return folder


def test_callers_take_turns(threads):
    runs(["./threads", "150", "0"], threads)


def test_children_have_threads_of_their_own(threads):
    runs(["./threads", "50", "20"], threads)


def test_a_library_may_be_unloaded_while_its_threads_wait(threads):
    runs(["./threads", "10", "1", "./libmodel.so", "10"], threads)


def test_callers_in_python_take_turns(shipped):
    program, *_, x, expected = shipped
    libraries = [native.load(program, native.host(), count) for count in range(1, 9)]
    once = libraries[0].run(x)
    close(once, expected, 3e-6)
    wrong = []

    def call(first):
        arena = native.aligned(program.arena)
        for turn in range(60):
            found = libraries[(5 * turn + first) % 8].run(x, arena)
            if not np.array_equal(found, once):
                wrong.append(turn)

    callers = [threading.Thread(target=call, args=(first,), daemon=True) for first in (0, 3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive(), "threads wait for each other"
    assert not wrong


def raced(source, folder, program, gcc):
    """The program of callers under gcc's ThreadSanitizer."""
    (folder / "model.c").write_text(source)
    (folder / "model.h").write_text(program.header)
    program.weights.tofile(folder / "weights.bin")
    shutil.copy(DRIVERS / "threads.c", folder)
    machine = _for_this_machine([gcc])
    command = [gcc, "-std=gnu11", "-O1", "-g", *machine, "-fsanitize=thread", "threads.c", "model.c", "-pthread"]
    runs([*command, "-o", "raced"], folder)
    return subprocess.run(["./raced", "20", "0"], cwd=folder, capture_output=True, text=True, timeout=120)


def test_no_races(tmp_path):
    gcc = gcc_with("thread", tmp_path)
    program = native.build(small(), native.host())
    found = raced(program.source, tmp_path, program, gcc)
    assert (found.returncode, found.stderr) == (0, "")
    # the check can fail: threads that do not wait for each other between two layers
    wrong = program.source.replace("part, parts);\n    meet(parts);", "part, parts);\n    if (i % 2) meet(parts);")
    assert wrong != program.source
    assert "data race" in raced(wrong, tmp_path, program, gcc).stderr
