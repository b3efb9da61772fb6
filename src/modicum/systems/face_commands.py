"""What `scripts/call.py` does, command by command."""

import dataclasses
import multiprocessing
import socket
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from modicum.conference import clips, codec, demonstration, quality
from modicum.conference.call import CallSpec
from modicum.conference.codec import FaceCodec
from modicum.conference.receiver import receiver_init, receiver_step
from modicum.conference.sender import sender_init, sender_step
from modicum.core import check, parallel
from modicum.systems import face_calls, face_codec, face_page
from modicum.train import parse_value, read_config, report

_MAGIC = b"MODICUM CALL 1\n"


def settings(words: list[str]) -> CallSpec:
    """A `CallSpec` with some settings changed: `["target_kbps=8", "swap=true"]`.

    Raises:
        ValueError: if a setting has no such name or value.
    """
    changes: dict[str, object] = {}
    kinds = {field.name: field.type for field in dataclasses.fields(CallSpec)}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"settings must have the form key=value, got {word!r}")
        check.one_of(kinds, setting=name)
        changes[name] = parse_value(name, text, kinds[name])
    return CallSpec(**changes)  # pyrefly: ignore[bad-argument-type]


def train(arguments: Namespace, console: Console | None) -> None:
    """Learns a face from the first three quarters of a video; the rest is left for `compare`."""
    config = read_config(arguments.config)(**_given(size=arguments.size, steps=arguments.steps))
    first, _ = clips.split(clips.read(arguments.video, config.spec.size))
    mesh = parallel.named_mesh(arguments.devices)
    params = face_codec.train_face([first], config, arguments.run / arguments.model.stem, console, mesh)
    face_codec.save_model(arguments.model, codec.make_codec(config.spec, params, first))
    Console().print(f"{arguments.model}: a face at {config.spec.size} pixels, from {len(first)} frames")


def _given(**settings: object) -> dict[str, object]:
    return {name: value for name, value in settings.items() if value is not None}


def encode(arguments: Namespace, console: Console | None) -> None:
    """A video as packets in one file: each led by its length in four bytes."""
    face = face_codec.load_model(arguments.model)
    frames, spec = clips.read(arguments.video, face.spec.size), settings(arguments.settings)
    sent, sizes = face_calls.send(face, frames, spec, console)
    content = _MAGIC + b"".join(len(packet).to_bytes(4, "big") + packet for packet in sent)
    arguments.call.write_bytes(content)
    total = sum(map(len, sent))
    rows = {f"bytes, {kind}": count for kind, count in face_calls.byte_shares(sizes).items()}
    rows |= {"bytes in all": total, "kbps": f"{total * 8 * spec.fps / len(frames) / 1000:.2f}", "frames": len(frames)}
    Console().print(report.result_table(str(arguments.call), rows))


def decode(arguments: Namespace, console: Console | None) -> None:
    """The packets of a file as an MP4."""
    face, spec = face_codec.load_model(arguments.model), settings(arguments.settings)
    state, frames = face_calls.receive(face, read_call(arguments.call), spec, console)
    if not len(frames):
        raise ValueError(f"call must hold a packet that this model can show, got none in {arguments.call}")
    face_page.write_video(arguments.video, frames, spec.fps)
    rows = {"frames": len(frames), "packets refused": state.damaged, "frames filled in": state.missing}
    Console().print(report.result_table(str(arguments.video), rows))


def read_call(path: Path) -> list[bytes]:
    """The packets of a file that `encode` wrote; a torn end is left out.

    Args:
        path: the file.

    Raises:
        ValueError: if it is no such file.
    """
    content = path.read_bytes()
    if not content.startswith(_MAGIC):
        raise ValueError(f"call must be a file that call.py encode wrote, got {path}")
    place, found = len(_MAGIC), []
    while place + 4 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if place + 4 + length > len(content):
            break
        found.append(content[place + 4 : place + 4 + length])
        place += 4 + length
    return found


def compare(arguments: Namespace, console: Console | None) -> None:
    """A page with the last quarter of a video: original, H.264, H.265 and ours."""
    face, spec = face_codec.load_model(arguments.model), settings(arguments.settings)
    _, rest = clips.split(clips.read(arguments.video, face.spec.size))
    page = compare_clips(face, rest[:250], spec, arguments.run / "comparison", arguments.video.name, console)
    Console().print(f"{page} (and figure.png beside it)")


def compare_clips(
    face: FaceCodec, frames: np.ndarray, spec: CallSpec, folder: Path, title: str, console: Console | None
) -> Path:
    """The page of a clip.

    Args:
        face: the model.
        frames: the original, not of training.
        spec: settings of the call.
        folder: where the page goes.
        title: what the clip is.
        console: where progress is drawn.
    """
    result = face_calls.call(face, frames, spec, console=console)
    ours = face_page.Shown("Modicum", result.frames, result.kbps, quality.measure(frames, result.frames))
    points = [{"kbps": result.kbps, **ours.measures}]
    if spec.target_kbps is None:
        for kbps in (3.0, 6.0, 12.0):
            more = face_calls.call(face, frames, dataclasses.replace(spec, target_kbps=kbps), console=console)
            points.append({"kbps": more.kbps, **quality.measure(frames, more.frames)})
    shown, curves = [face_page.Shown("original", frames, None, {}), ours], {"Modicum": points}
    for name in ("H.264", "H.265"):
        shown.append(face_page.nearest_conventional(frames, name, result.kbps, spec.fps))
        curves[name] = face_page.curve(frames, name, spec.fps, (30, 36, 42, 46, 49, 51))
    shares = ", ".join(f"{kind} {count}" for kind, count in face_calls.byte_shares(result.sizes).items())
    notes = (
        f"{len(frames)} frames at {spec.fps:g} a second, {face.spec.size} x {face.spec.size} pixels, none of them "
        "seen in training. Both ends hold the model; every byte on the wire is counted.",
        f"Bytes of ours: {shares}. The other codecs are shown at the nearest rate not below ours that they reach.",
    )
    return face_page.write_page(folder, f"A call by face motion: {title}", shown, curves, notes, spec.fps)


def demo(arguments: Namespace, console: Console | None) -> None:
    """Learns the moving astronaut, and compares a call with her later seconds."""
    first, rest = clips.split(demonstration.clip(64, 24.0))
    config = read_config(arguments.config)(**_given(steps=arguments.steps))
    mesh = parallel.named_mesh(arguments.devices)
    params = face_codec.train_face([first], config, arguments.run / f"demo-{config.steps}", console, mesh)
    face = codec.make_codec(config.spec, params, first)
    face_codec.save_model(arguments.run / "astronaut.npz", face)
    spec = settings(arguments.settings)
    page = compare_clips(face, rest, spec, arguments.run / "demo-page", "a picture, moved", console)
    shown = face_calls.call(face, rest, spec, face_calls.WireSpec(loss=0.05, damaged=0.05, twice=0.1, swapped=0.05))
    count = min(len(rest), len(shown.frames))
    worse = quality.measure(rest[:count], shown.frames[:count])["psnr"]
    rows = {
        "page": page,
        "figure": page.with_name("figure.png"),
        "model": arguments.run / "astronaut.npz",
        "PSNR with 5% lost, damaged and swapped packets": f"{worse:.2f} dB",
        "frames filled in": shown.receiver.missing,
    }
    Console().print(report.result_table("demonstration", rows))


def play(arguments: Namespace, _: Console | None) -> None:
    """A call between two processes over UDP on loopback; what arrives goes to `received.mp4` in the run folder."""
    face, spec = face_codec.load_model(arguments.model), settings(arguments.settings)
    wire = face_calls.WireSpec(loss=arguments.loss)
    check.non_negative(delay=arguments.delay)
    check.finite_positive(seconds=arguments.seconds)
    arguments.run.mkdir(parents=True, exist_ok=True)
    target = arguments.run / "received.mp4"
    # a forked process cannot use JAX
    context = multiprocessing.get_context("spawn")
    ready, outcome = context.Event(), context.Queue()
    work = (arguments.model, arguments.settings, arguments.seconds + 20, target, ready, outcome)
    receiver = context.Process(target=_receive_over_udp, args=work, daemon=True)
    receiver.start()
    port = outcome.get(timeout=120)
    ready.wait(timeout=120)
    size = face.spec.size
    source = _camera(size) if arguments.video is None else iter(clips.read(arguments.video, size))
    sent = _send_over_udp(face, spec, source, arguments.seconds, port, wire, arguments.delay)
    result = outcome.get(timeout=arguments.seconds + 120)
    receiver.join(timeout=30)
    rows = {"packets sent": sent, **result, "video": target}
    Console().print(report.result_table("call", rows))


def _camera(size: int) -> Iterator[np.ndarray]:
    import cv2

    camera = cv2.VideoCapture(0)
    if not camera.isOpened():
        raise ValueError("video must be a file where there is no camera, got none")
    while True:
        there, picture = camera.read()
        if not there:
            return
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = picture[top : top + side, left : left + side, ::-1]
        yield cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=cv2.INTER_AREA)


def _send_over_udp(
    face: FaceCodec,
    spec: CallSpec,
    source: Iterator[np.ndarray],
    seconds: float,
    port: int,
    wire: face_calls.WireSpec,
    delay: float,
) -> int:
    """Frames at their times; each packet is lost, or leaves after the delay. An empty datagram ends the call."""
    generator, state, sent = np.random.default_rng(wire.seed), sender_init(face, spec), 0
    address = ("127.0.0.1", port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        started, timers = time.perf_counter(), []
        for number, frame in enumerate(source):
            if number >= seconds * spec.fps:
                break
            time.sleep(max(0.0, started + number / spec.fps - time.perf_counter()))
            state, packet = sender_step(state, frame)
            sent += bool(packet)
            if packet and generator.random() >= wire.loss:
                timer = threading.Timer(delay, out.sendto, (packet, address))
                timer.start()
                timers.append(timer)
        for timer in timers:
            timer.join()
        out.sendto(b"", address)
    return sent


def _receive_over_udp(
    model: Path, words: list[str], limit: float, target: Path, ready: object, outcome: object
) -> None:
    """The other process: takes datagrams until the empty one, or until nothing came for as long as a call may last."""
    face, spec = face_codec.load_model(model), settings(words)
    state, shown, taken = receiver_init(face, spec), [], 0
    codec.draw(
        face,
        (codec.read(face, state.shown),),
        np.zeros((1, face.spec.latents)),
        spec.group,
        interpolate=spec.interpolate,
        swap=spec.swap,
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as entry:
        entry.bind(("127.0.0.1", 0))
        entry.settimeout(limit)
        outcome.put(entry.getsockname()[1])  # pyrefly: ignore[missing-attribute]
        ready.set()  # pyrefly: ignore[missing-attribute]
        while True:
            try:
                packet = entry.recv(65_536)
            except TimeoutError:
                break
            if not packet:
                break
            taken += 1
            state, frames = receiver_step(state, packet)
            shown.append(frames)
    frames = np.concatenate([*shown, state.shown[None]])
    face_page.write_video(target, frames, spec.fps)
    counts = {"packets received": taken, "frames shown": len(frames) - 1, "frames filled in": state.missing}
    outcome.put({**counts, "packets refused": state.damaged})  # pyrefly: ignore[missing-attribute]
