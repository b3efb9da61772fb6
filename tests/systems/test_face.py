"""The face codec from clip to page: training learns, models and calls come back from their files."""

import json
import queue
import subprocess
import sys
import threading
from argparse import Namespace
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("av")
pytest.importorskip("constriction")
pytest.importorskip("skimage")

from modicum.conference import CallSpec, FaceSpec, clips, demonstration, losses, make_codec, video
from modicum.systems import face_calls, face_codec, face_commands, face_page
from modicum.train import metrics, read_config

ROOT = Path(__file__).parents[2]
SPEC = FaceSpec(size=64, latents=4, width=4, blocks=1)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """One short training, its folder, and the clip."""
    folder = tmp_path_factory.mktemp("face")
    clip = demonstration.clip(64, 2.0)
    config = face_codec.FaceTraining(
        spec=SPEC, steps=30, batch=4, learning_rate=2e-3, sources=3, quantizer=30, augment=0.05
    )
    params = face_codec.train_face([clip], config, folder / "run")
    return folder, clip, config, params


def test_training_learns_and_goes_on(learned):
    folder, clip, config, params = learned
    lines = metrics.read(folder / "run" / "metrics.jsonl")
    assert len(lines) == 30
    assert np.mean([line["loss"] for line in lines[-5:]]) < 0.8 * lines[0]["loss"]
    # a finished run is read from its checkpoint: nothing is trained again
    again = face_codec.train_face([clip], config, folder / "run")
    jax.tree.map(np.testing.assert_array_equal, params, again)
    with pytest.raises(ValueError, match="holds a run with"):
        face_codec.train_face([clip[:40]], config, folder / "run")
    with pytest.raises(ValueError, match=r"clips\[0\] must have shape"):
        face_codec.train_face([clip[:, :32, :32]], config)


def test_a_moved_picture_is_what_scipy_makes_of_it():
    picture = np.random.default_rng(0).random((16, 16, 3), np.float32)
    down, right, larger = 0.125, -0.0625, 0.1
    # scipy asks where a pixel comes from: about the middle, a shift of whole pixels
    matrix = np.diag([1 / (1 + larger)] * 2 + [1.0])
    offset = np.array([7.5, 7.5, 0]) - matrix @ np.array([7.5, 7.5, 0]) - 16 * np.array([down, right, 0])
    expected = ndimage.affine_transform(picture, matrix, offset, order=1, mode="nearest")
    found = jax.jit(face_codec.moved)(picture, jax.numpy.array([down, right, larger]))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_motion_rate_is_a_bound_on_coded_bits():
    """log2(1 + 2 |d|) is 0 where nothing moves, and log2(3) for a step of one."""
    rows = np.zeros((2, 4), np.float32)
    assert float(losses.motion_bits(jax.numpy.asarray(rows), jax.numpy.asarray(rows))) == 0
    assert float(losses.motion_bits(jax.numpy.asarray(rows + 1), jax.numpy.asarray(rows))) == pytest.approx(
        4 * np.log2(3)
    )


def test_wires_lose_what_they_say():
    sent = [bytes([number % 256, number // 256]) for number in range(4000)]
    arrived = face_calls.deliver(sent, face_calls.WireSpec(loss=0.05))
    assert len(arrived) / 4000 == pytest.approx(0.95, abs=0.012)
    assert arrived == [packet for packet in sent if packet in set(arrived)]
    assert face_calls.deliver(sent, face_calls.WireSpec()) == sent
    twice = face_calls.deliver(sent, face_calls.WireSpec(twice=0.1, swapped=0.1))
    assert sorted(set(twice)) == sorted(sent)
    assert len(twice) > 4200
    assert twice != sorted(twice)
    with pytest.raises(ValueError, match="loss"):
        face_calls.WireSpec(loss=2.0)


def test_model_call_and_page_come_back_from_their_files(learned, tmp_path):
    folder, clip, _, params = learned
    face = make_codec(SPEC, params, clip)
    model = tmp_path / "face.npz"
    face_codec.save_model(model, face)
    loaded = face_codec.load_model(model)
    assert loaded.spec == SPEC
    jax.tree.map(np.testing.assert_array_equal, (face.params, face.prior), (loaded.params, loaded.prior))
    with pytest.raises(ValueError, match="save_model"):
        face_codec.load_model(folder / "run" / "metrics.jsonl")

    movie = tmp_path / "movie.mp4"
    face_page.write_video(movie, clip[:20], 25.0, side=64)
    frames = clips.read(movie, 64)
    assert frames.shape == (20, 64, 64, 3)
    assert np.abs(frames.astype(int) - clip[:20]).mean() < 6

    arguments = Namespace(settings=["group=4", "hash_every=2"], model=model, video=movie, call=tmp_path / "movie.call")
    face_commands.encode(arguments, None)
    coded = face_commands.read_call(arguments.call)
    assert len(coded) == 5
    expected = face_calls.call(loaded, frames, CallSpec(group=4, hash_every=2))
    assert coded == expected.packets
    assert sum(face_calls.byte_shares(expected.sizes).values()) == sum(map(len, coded))
    arguments.video = tmp_path / "decoded.mp4"
    face_commands.decode(arguments, None)
    shown = clips.read(arguments.video, 64)
    assert shown.shape == frames.shape
    assert np.abs(shown.astype(int) - expected.frames).mean() < 6

    page = face_commands.compare_clips(
        loaded, clip[:20], CallSpec(target_kbps=20.0, group=4), tmp_path / "page", "a <test>", None
    )
    text = page.read_text()
    assert text.count("<video") == 4
    assert "a &lt;test&gt;" in text
    assert (tmp_path / "page" / "figure.png").stat().st_size > 10_000


def test_no_call_is_one_sentence(tmp_path):
    (tmp_path / "no.call").write_bytes(b"anything")
    with pytest.raises(ValueError, match="call must be a file"):
        face_commands.read_call(tmp_path / "no.call")
    with pytest.raises(ValueError, match="key=value"):
        face_commands.settings(["group"])
    with pytest.raises(ValueError, match="setting must be one of"):
        face_commands.settings(["grop=3"])
    assert face_commands.settings(["target_kbps=8", "swap=true"]) == CallSpec(target_kbps=8.0, swap=True)
    command = [sys.executable, str(ROOT / "scripts" / "call.py"), "encode", "no.mp4", "out", "--model", "no.npz"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_clips_are_cut_and_listed(tmp_path):
    frames = np.zeros((6, 64, 64, 3), np.uint8)
    frames[:, :32, 32:] = 200
    face_page.write_video(tmp_path / "quarter.mp4", frames, 50.0, side=64)
    (tmp_path / "clips.json").write_text(json.dumps({"quarter.mp4": {"crop_x0_y0_x1_y1": [32, 0, 64, 32]}}))
    cut = clips.read_listed(tmp_path, "quarter.mp4", 16)
    # half of 50 frames a second, and the bright quarter alone
    assert cut.shape == (3, 16, 16, 3)
    assert np.abs(cut.astype(int) - 200).max() < 8
    with pytest.raises(ValueError, match="name"):
        clips.read_listed(tmp_path, "other.mp4", 16)
    with pytest.raises(ValueError, match="FFmpeg"):
        clips.read(tmp_path / "clips.json", 16)
    first, rest = clips.split(np.zeros((8, 4, 4, 3), np.uint8))
    assert (len(first), len(rest)) == (6, 2)


def test_nearest_conventional_is_not_below_the_rate():
    clip = demonstration.clip(64, 1.0)
    shown = face_page.nearest_conventional(clip, "H.265", 12.0, 25.0)
    assert shown.kbps >= 12.0
    assert set(shown.measures) == {"psnr", "ssim", "ms_ssim"}
    assert len(video.encode(clip[:2], "H.264", 51)[0]) == 2


def test_a_call_over_udp_arrives(learned, tmp_path):
    """Both ends as `play` has them, here in two threads; what is lost is filled in."""
    _, clip, _, params = learned
    face = make_codec(SPEC, params, clip)
    model = tmp_path / "face.npz"
    face_codec.save_model(model, face)
    outcome, ready, words = queue.Queue(), threading.Event(), ["group=4", "alone_every=1", "fps=50"]
    work = (model, words, 20.0, tmp_path / "received.mp4", ready, outcome)
    receiver = threading.Thread(target=face_commands._receive_over_udp, args=work)
    receiver.start()
    port = outcome.get(timeout=60)
    wire = face_calls.WireSpec(loss=0.3, seed=1)
    sent = face_commands._send_over_udp(face, face_commands.settings(words), iter(clip), 0.8, port, wire, 0.01)
    result = outcome.get(timeout=60)
    receiver.join(timeout=10)
    assert sent == 10
    lost = int((np.random.default_rng(1).random(10) < 0.3).sum())
    assert result["packets received"] == 10 - lost
    assert result["packets refused"] == 0
    assert clips.read(tmp_path / "received.mp4", 64, fps=50.0).shape[1:] == (64, 64, 3)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "conference").glob("*.py")), ids=lambda path: path.stem)
def test_configs_say_what_they_are(path):
    text = path.read_text()
    assert isinstance(read_config(path)(steps=2), face_codec.FaceTraining)
    assert all(f"\n{word}: " in text for word in ("Command", "Time", "Score"))
