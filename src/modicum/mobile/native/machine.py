"""What a kernel is written for."""

import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """An instruction set.

    Attributes:
        name: of the target.
        lanes: floats in a vector.
        registers: vectors that a core can name.
        triple: target of the compiler, None for this machine.
        cpu: processor for the compiler.
    """

    name: str
    lanes: int
    registers: int
    triple: str | None
    cpu: str


AVX512 = Machine("avx512", 16, 32, None, "native")
AVX2 = Machine("avx2", 8, 16, None, "native")
NEON = Machine("neon", 4, 32, None, "native")
AARCH64_LINUX = Machine("aarch64-linux", 4, 32, "aarch64-linux-musl", "cortex_a76")
AARCH64_ANDROID = Machine("aarch64-android", 4, 32, "aarch64-linux-android", "cortex_a76")


def cpuinfo(*names: str) -> list[str]:
    """What Linux says of each core under some names; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(names)]


def processor() -> str:
    """What this processor calls itself."""
    return next(iter(cpuinfo("model name", "CPU part")), platform.processor() or platform.machine())


def host() -> Machine:
    """This machine.

    Raises:
        ValueError: if its processor has none of AVX-512, AVX2 with FMA, or NEON.
    """
    if platform.machine() in ("aarch64", "arm64"):
        return NEON
    known = cpuinfo("flags")
    flags = set(known[0].split()) if known else {"avx2", "fma"} if platform.machine() in ("x86_64", "AMD64") else set()
    if {"avx512f", "avx512vl", "avx512dq"} <= flags:
        return AVX512
    if {"avx2", "fma"} <= flags:
        return AVX2
    raise ValueError(f"target must have AVX-512, AVX2 with FMA or NEON for native kernels, got {platform.machine()}")
