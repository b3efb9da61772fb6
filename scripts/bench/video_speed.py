"""What a frame of a call costs, stage by stage: `python scripts/bench/video_speed.py --size 256`.

Weights are random: time depends on which are zero alone. The decoder runs dense by XLA, and on pattern sets as native
kernels; outputs are compared first. CPU milliseconds of the process (all threads), and wall milliseconds.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "video-speed.json"


def measure(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Medians over repeats, after one call that is not counted."""
    import jax
    import numpy as np

    jax.block_until_ready(work())
    rows = []
    for _ in range(repeats):
        wall, processed = time.perf_counter(), time.process_time()
        jax.block_until_ready(work())
        rows.append((time.perf_counter() - wall, time.process_time() - processed))
    wall, processed = np.median(np.array(rows), axis=0)
    return {"wall_ms": 1000 * float(wall), "cpu_ms": 1000 * float(processed)}


def stages(size: int, threads: int, repeats: int) -> dict[str, Any]:
    """Times by stage, and how far the two decoders are apart."""
    import jax
    import numpy as np

    from modicum.conference import FaceSpec, coding, network
    from modicum.systems import face_generator

    spec = FaceSpec(size=size)
    dense, source, motion = face_generator.random_inputs(spec)
    sets = face_generator.pattern_sets(dense)
    sparse = face_generator.projected(dense, sets)
    before = jax.jit(lambda params, kept, numbers: face_generator.decoder_inputs(params, spec, kept, numbers))
    encode = jax.jit(lambda params, picture: network.encode(params, spec, picture))
    row = face_generator.joined(before(sparse, source, motion))
    native = face_generator.native_decoder(sparse, spec, sets, threads=threads)
    xla = jax.jit(lambda params, inputs: face_generator.decoder(spec)(params, inputs))
    fast = jax.jit(native.compiled)
    apart = float(np.abs(np.asarray(fast(row)) - np.asarray(native.portable(row))).max())
    numbers = np.random.default_rng(0).integers(-3, 4, (10, spec.latents))
    prior = coding.motion_prior(np.cumsum(numbers, 0).astype(float))
    coded = coding.encode_motion(numbers, None, prior, 8)
    times = {
        "motion encoder, XLA": measure(lambda: encode(dense, source.picture), repeats),
        "coding of ten frames' motion": measure(lambda: coding.encode_motion(numbers, None, prior, 8), repeats),
        "decoding of ten frames' motion": measure(lambda: coding.decode_motion(coded, 10, None, prior), repeats),
        "flow and warps, XLA": measure(lambda: before(dense, source, motion), repeats),
        "decoder, dense, XLA": measure(lambda: xla(dense, row), repeats),
        "decoder, patterns, native": measure(lambda: fast(row), repeats),
    }
    return {"stages": times, "largest_difference": apart, "size": size, "threads": threads, "repeats": repeats}


def main() -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Times the stages of a call.")
    parser.add_argument("--size", type=int, default=256, choices=(64, 128, 256))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    from modicum.train import report

    measured = stages(arguments.size, arguments.threads, arguments.repeats)
    report.write_json(arguments.results, {**measured, "versions": report.versions()})
    for name, row in measured["stages"].items():
        print(f"{name}: {row['wall_ms']:.2f} ms wall, {row['cpu_ms']:.2f} ms CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
