"""Native programs under sanitizers, and their threads: by many callers, in child processes, with libraries unloaded."""

import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from modicum.mobile import native
from modicum.mobile.native import families, package, recurrent
from modicum.mobile.native.build import compiler, flags
from modicum.mobile.native.layout import whole
from modicum.mobile.native.memory import ALIGNMENT
from modicum.mobile.native.parts import Blob
from modicum.mobile.native.program import Builder
from tests.mobile.native_reference import close, convolution, evaluate, numbers, recurrence, runs, small

DRIVERS = Path(__file__).parent / "drivers"
ZIG = (sys.executable, "-m", "ziglang", "cc")

pytest.importorskip("ziglang")


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


def spaced(graph, name, kind=SpacedBuilder, chooser=None):
    """The program of a graph as `build` makes it, by a builder of another kind, and that builder."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[Builder.__module__], "Builder", lambda *more: made.append(kind(*more)) or made[0])
        program = native.build(graph, native.host(), name, chooser)
    return program, made[0]


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


def anything(generator):
    """Any of the ways in which a product may be computed."""

    def chosen(_, problem):
        every = families.every(problem, native.host())
        return every[generator.integers(len(every))][1]

    return chosen


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


def test_sanitizers_find_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(recurrent, "WORTH_THREADS", 0)
    gcc = gcc_with("address,undefined", tmp_path)
    chooser = anything(np.random.default_rng(5))
    built = [spaced(graph, f"n{number}", chooser=chooser) for number, graph in enumerate(operations())]
    built.append(spaced(small(), "best"))
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
    assert re.search("misaligned address|use-after-poison", shifted.stderr)


def test_sanitizers_find_a_wrong_program(tmp_path):
    gcc = gcc_with("address,undefined", tmp_path)
    suite = sanitized([spaced(small(), "wrong", HaloBuilder)], tmp_path, [gcc], ["-O0", "-fsanitize=address"])
    done = subprocess.run([str(suite)], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode not in (0, 3, 4)
    assert "use-after-poison" in done.stderr


def test_undefined_behavior_traps_where_there_is_no_gcc(tmp_path):
    """Clang's checks need no library of their own."""
    options = ["-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined"]
    suite = sanitized([spaced(small(), "n0")], tmp_path, ZIG, options)
    runs([str(suite)], tmp_path)
    assert subprocess.run([str(suite), "4"], cwd=tmp_path).returncode < 0


# threads


@pytest.fixture(scope="module")
def threads(tmp_path_factory):
    """A program of callers, linked with the static library; see `drivers/threads.c`."""
    folder, machine = tmp_path_factory.mktemp("threads"), native.host()
    for name, data in package.write_package(native.build(small(), machine), machine).items():
        (folder / name).write_bytes(data)
    shutil.copy(DRIVERS / "threads.c", folder)
    runs([*compiler(machine), "-O2", "threads.c", "libmodel.a", "-pthread", "-ldl", "-o", "threads"], folder)
    return folder


def test_callers_take_turns(threads):
    runs(["./threads", "300", "0"], threads)


def test_children_have_threads_of_their_own(threads):
    runs(["./threads", "50", "20"], threads)


def test_a_library_may_be_unloaded_while_its_threads_wait(threads):
    runs(["./threads", "10", "1", "./libmodel.so", "10"], threads)


def test_callers_in_python_take_turns():
    graph = small()
    program, x = native.build(graph, native.host()), numbers(graph)
    libraries = [native.load(program, native.host(), count) for count in range(1, 9)]
    once = libraries[0].run(x)
    close(once, evaluate(graph, x), 3e-6)
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
        caller.join(240)
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
    return subprocess.run(["./raced", "40", "0"], cwd=folder, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(("graph", "shared"), [(small(), True), (recurrence(0), False)], ids=["images", "sequences"])
def test_no_races(graph, shared, tmp_path, monkeypatch):
    gcc = gcc_with("thread", tmp_path)
    monkeypatch.setattr(recurrent, "WORTH_THREADS", 0)
    program = native.build(graph, native.host())
    found = raced(program.source, tmp_path, program, gcc)
    assert (found.returncode, found.stderr) == (0, "")
    if not shared:
        # too little work for two threads but in the loop over frames
        return
    # the check can fail: threads that do not wait for each other between two layers
    last = "if (i + 1 == sizeof steps / sizeof *steps) meet(parts);"
    wrong = program.source.replace("part, parts);\n    meet(parts);", f"part, parts);\n    {last}")
    assert wrong != program.source
    assert "data race" in raced(wrong, tmp_path, program, gcc).stderr
