"""Rate and quality of the face codec beside H.264, H.265, AV1 and VP9: `python scripts/bench/video.py --minutes 14`.

A cell is one clip by one codec, or one setting of ours. Models are personalized: trained on the first three quarters
of a clip, measured on the last, whose frames no training saw; a model is not counted among the bytes, everything that
goes over the wire is: sources, headers, checksums. Cells that
scripts/bench/results/video.json holds are left out, trainings go on from their checkpoints in runs/video; no cell is
started after `--minutes`. `--fuzz N` sends N random streams to a receiver instead.

The clips (`$MODICUM_DATA/clips`) show real people: neither they nor models trained on them leave this machine.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from accuracy import add, read

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "video.json"
CLIPS = (
    "LIA_obama.mov",
    "LivePortrait_d6.mp4",
    "LivePortrait_d14.mp4",
    "LIA_driving1.mp4",
    "DPE_d.mp4",
    "LivePortrait_d10.mp4",
)
QUALITIES = {
    "H.264": (30, 34, 38, 40, 42, 44, 46, 48, 51),
    "H.265": (30, 34, 38, 40, 42, 44, 46, 48, 51),
    "AV1": (40, 45, 50, 54, 58, 61, 63),
    "VP9": (40, 45, 50, 54, 58, 61, 63),
}
FRAMES = 250
"""Held-out frames of a clip that are measured at most."""
OURS: dict[str, dict[str, Any]] = {
    "motion only": {},
    "coarser motion": {"step": 12},
    "finer motion": {"step": 4},
    "sources, 0.5 kbps": {"source_kbps": 0.5},
    "sources, one view": {"source_kbps": 0.5, "interpolate": False},
    "swap": {"swap": True},
    "blurred source": {"blur": 0.02},
    **{f"target {kbps:g} kbps": {"target_kbps": kbps, "group": 5} for kbps in (2, 3, 5, 8, 12, 20, 35, 50)},
    "5% loss": {"alone_every": 1, "source_kbps": 0.5},
}
"""Settings of a call by name; the ablation compares them with "motion only"."""


def stamped(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell with what it was measured by."""
    from modicum.train import report

    made = report.versions()
    return {**cell, **{key: made[key] for key in ("commit", "jax", "machine")}}


def conventional(frames: Any, codec: str, fps: float) -> dict[str, Any]:
    """The curve of a codec on the held-out frames: the same size, or coded at half the rate of frames and repeated."""
    from modicum.conference import quality, video

    points = []
    for skip in (1, 2):
        for number in QUALITIES[codec]:
            kept = frames[::skip]
            packets, extra = video.encode(kept, codec, number, fps=fps / skip)
            decoded = video.decode(packets, codec, size=frames.shape[1], extradata=extra)
            shown = decoded.repeat(skip, axis=0)[: len(frames)]
            kbps = (sum(map(len, packets)) + len(extra)) * 8 * fps / len(frames) / 1000
            points.append({"crf": number, "every": skip, "kbps": kbps, **quality.measure(frames, shown)})
    return {"points": points, "frames": len(frames), "size": frames.shape[1]}


def trained(name: str, size: int, steps: int, runs: Path, data: Path) -> tuple[Any, dict[str, Any]]:
    """A personalized model and how it was trained: the longest trained one of `runs`, or one made now."""
    from rich.console import Console

    from modicum.conference import clips, codec
    from modicum.systems import face_codec
    from modicum.train import read_config, report

    stem = f"{Path(name).stem}-{size}"
    there = {int(path.stem.rsplit("-", 1)[1]): path for path in runs.glob(f"{stem}-*.npz")}
    if there:
        path = there[max(there)]
        return face_codec.load_model(path), json.loads(path.with_suffix(".json").read_text())
    first, _ = clips.split(clips.read_listed(data / "clips", name, size))
    config = read_config(ROOT / "configs" / "conference" / "personalized.py")(size=size, steps=steps)
    began = time.perf_counter(), time.process_time()
    params = face_codec.train_face([first], config, runs / f"{stem}-{steps}", Console(stderr=True))
    # of a training that was cut off, the last part's
    seconds = {"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}
    training = {"steps": steps, "augment": config.augment, **seconds, **report.versions()["machine"]}
    face = codec.make_codec(config.spec, params, first)
    (runs / f"{stem}-{steps}.json").write_text(json.dumps(training))
    face_codec.save_model(runs / f"{stem}-{steps}.npz", face)
    return face, training


def ours(face: Any, frames: Any, name: str, fps: float) -> dict[str, Any]:
    """One setting of ours: rate, quality, what the bytes were spent on."""
    from modicum.conference import CallSpec, quality
    from modicum.systems import face_calls

    spec = CallSpec(fps=fps, **OURS[name])
    wire = face_calls.WireSpec(loss=0.05) if "loss" in name else None
    started = time.process_time()
    result = face_calls.call(face, frames, spec, wire)
    seconds = time.process_time() - started
    shown = result.frames[: len(frames)]
    cell = {
        "kbps": result.kbps,
        **quality.measure(frames[: len(shown)], shown),
        "bytes": face_calls.byte_shares(result.sizes),
        "cpu_ms_a_frame": 1000 * seconds / len(frames),
        "frames": len(shown),
        "size": frames.shape[1],
        "states_equal": not result.receiver.apart,
        "missing": result.receiver.missing,
    }
    if spec.target_kbps is not None and len(frames) >= 4 * fps:
        cell["worst_rate_error"] = face_calls.worst_rate_error(result.packets, spec)
    return cell


def fuzz(count: int) -> dict[str, Any]:
    """Random streams of three packets each, half of them real ones with changed bytes, all under right checksums."""
    import resource

    import jax
    import numpy as np

    from modicum.conference import CallSpec, FaceSpec, codec, demonstration, init_params, packets
    from modicum.conference.receiver import receiver_init, receiver_step
    from modicum.systems import face_calls

    spec, settings = FaceSpec(size=64, latents=8, width=4, blocks=1), CallSpec(group=4, target_kbps=20.0)
    clip = demonstration.clip(64, 2.0)
    face = codec.make_codec(spec, init_params(jax.random.key(0), spec), clip)
    real = [packets.parse(packet) for packet in face_calls.send(face, clip, settings)[0]]
    generator, longest, before = np.random.default_rng(0), 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = face_calls.receive(face, face_calls.send(face, clip[:8], settings)[0], settings)[0]
    for index in range(count):
        state = start if index % 2 else receiver_init(face, settings)
        for number in range(3):
            units = []
            parsed = real[int(generator.integers(len(real)))]
            assert parsed is not None
            for kind, payload in parsed.units:
                changed = bytearray(payload if index % 4 else generator.bytes(int(generator.integers(120))))
                for _ in range(int(generator.integers(4))):
                    if changed:
                        changed[int(generator.integers(len(changed)))] = int(generator.integers(256))
                units.append(packets.Unit(kind, bytes(changed)))
            packet = packets.write(100 + number, int(generator.integers(65536)), int(generator.integers(17)), units)
            began = time.perf_counter()
            state, frames = receiver_step(state, packet)
            longest = max(longest, time.perf_counter() - began)
            assert len(frames) <= 128
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"streams": count, "crashes": 0, "longest_step_seconds": longest, "memory_grown_mb": grown}


def cells(arguments: argparse.Namespace) -> list[tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]]:
    """Names of cells and what measures them; models and clips are made once, when the first asks for them."""
    from modicum.conference import clips
    from modicum.core import check

    data, size = arguments.data, arguments.size
    listed: list[tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = []

    def held_out(made: dict[str, Any], clip: str) -> Any:
        if ("frames", clip) not in made:
            made["frames", clip] = clips.split(clips.read_listed(data / "clips", clip, size))[1][:FRAMES]
        return made["frames", clip]

    def model(made: dict[str, Any], clip: str) -> Any:
        if ("model", clip) not in made:
            made["model", clip] = trained(clip, size, arguments.steps, arguments.runs, data)
        return made["model", clip]

    speeds = {name: min(25.0, entry["source_fps"]) for name, entry in clips.listed(data / "clips").items()}
    for clip in arguments.clips.split(",") if arguments.clips else CLIPS:
        check.one_of(speeds, clips=clip)
        stem, fps = f"{Path(clip).stem} | {size}", speeds[clip]

        def anchor(made: dict[str, Any], clip: str = clip, codec: str = "", fps: float = fps) -> dict[str, Any]:
            return conventional(held_out(made, clip), codec, fps)

        def our(made: dict[str, Any], clip: str = clip, name: str = "", fps: float = fps) -> dict[str, Any]:
            face, training = model(made, clip)
            return {**ours(face, held_out(made, clip), name, fps), "training": training}

        listed += [(f"{stem} | {codec}", partial(anchor, codec=codec)) for codec in QUALITIES]
        if not arguments.anchors:
            listed += [(f"{stem} | ours | {name}", partial(our, name=name)) for name in OURS]
    return listed


def flags() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Measures rate and quality of the face codec and of video codecs.")
    parser.add_argument("--clips", default="", help="names of files (commas between), by default six")
    parser.add_argument("--size", type=int, default=64, choices=(64, 128, 256))
    parser.add_argument("--steps", type=int, default=4000, help="training steps of a personalized model")
    parser.add_argument("--anchors", action="store_true", help="the video codecs alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no cell after so many minutes")
    parser.add_argument("--fuzz", type=int, default=0, metavar="STREAMS", help="send random streams to a receiver")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "video")
    default = os.environ.get("MODICUM_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder that holds clips/")
    return parser.parse_args()


def main() -> int:
    """Runs the command; returns the exit code."""
    arguments = flags()
    # SVT-AV1 writes a page to stderr for each clip
    os.environ.setdefault("SVT_LOG", "1")
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    if arguments.fuzz:
        cell = fuzz(arguments.fuzz)
        add(arguments.results, "fuzz", stamped(cell))
        print(cell)
        return 0
    from modicum.train import Interrupted

    started, made = time.perf_counter(), {}
    for name, measure in cells(arguments):
        if name in read(arguments.results):
            continue
        if time.perf_counter() - started > 60 * arguments.minutes:
            print("time is up; the same command goes on")
            break
        try:
            cell = measure(made)
        except Interrupted:
            return 130
        add(arguments.results, name, stamped(cell))
        best = cell.get("points", [cell])[-1]
        print(f"{name}: {best['kbps']:.2f} kbps, {best['psnr']:.2f} dB, MS-SSIM {best['ms_ssim']:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
